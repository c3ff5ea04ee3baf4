//! What a new host is told at its first boot: our SSH key, its own SSH host key, and to leave its packages alone. So the
//! very first connection is verified, and nobody can get in with a password.

use crate::clients::ssh::{HostKey, KeyPair};
use secrecy::ExposeSecret;
use serde_json::json;

/// A host that lives for an evening needs no updates by itself, and while it fetches some nobody else can install anything.
/// It must not end with an error: the first boot would count as failed.
const NO_UPDATES: &str = "if command -v systemctl >/dev/null; then systemctl --no-block mask --now apt-daily.timer \
    apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service || true; fi";

/// A provider that was given no key of ours makes up a password for root, and Hetzner and DigitalOcean have it changed at
/// the first login. Until then sshd lets a key in and refuses to run anything (PAM's account rules). The scripts of the
/// provider may do that late, so this comes last.
const NO_NEW_PASSWORD: &str = "chage -d \"$(date +%Y-%m-%d)\" -M -1 root || true";

/// The cloud-init user data. JSON is YAML, and needs no care for indentation. Holds a private key.
///
/// The modules are cloud-init's own: ssh (`ssh_keys`, `ssh_deletekeys`), users and groups (`users`, `disable_root`),
/// set passwords (`ssh_pwauth`, `chpasswd`), bootcmd, runcmd: <https://cloudinit.readthedocs.io/en/latest/reference/modules.html>.
pub(super) fn user_data(host_key: &HostKey, ours: &KeyPair) -> String {
    let config = json!({
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": host_key.private_pem.expose_secret(),
            "ed25519_public": host_key.public_line,
        },
        "disable_root": false,
        "ssh_pwauth": false,
        "chpasswd": { "expire": false },
        "users": [{ "name": "root", "ssh_authorized_keys": [ours.public_line()] }],
        // Early in the boot, before the scripts of the provider and long before ours.
        "bootcmd": [["sh", "-c", NO_UPDATES]],
        "runcmd": [["sh", "-c", NO_NEW_PASSWORD]],
        // The bootstrap script installs what is needed; an upgrade here would hold every start up.
        "package_update": false,
        "package_upgrade": false,
    });
    format!("#cloud-config\n{config}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_host_gets_its_own_key_and_lets_only_ours_in() {
        let folder = tempfile::tempdir().unwrap();
        let (host, ours) = (HostKey::generate(), KeyPair::load_or_make(&folder.path().join("key")).unwrap());
        let text = user_data(&host, &ours);
        let config: serde_json::Value = serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(config["ssh_keys"]["ed25519_public"], host.public_line);
        assert!(
            config["ssh_keys"]["ed25519_private"].as_str().unwrap().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----")
        );
        assert_eq!(config["users"][0]["ssh_authorized_keys"], serde_json::json!([ours.public_line()]));
        assert_eq!(config["ssh_pwauth"], false);
        assert_eq!(config["chpasswd"]["expire"], false);
        assert!(config["runcmd"][0].to_string().contains("chage -d"), "{text}");
        let first = config["bootcmd"][0].to_string();
        assert!(first.contains("mask --now apt-daily.timer apt-daily-upgrade.timer"), "{first}");
        assert!(text.len() < 16 * 1024, "the smallest limit of the providers is 16 KB");
    }
}
