//! What the suite of all backends is tried on: the whole program with one backend set up, and the world outside of it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use super::cloud::{Clouds, Machines, Options};
use super::stage::{Stage, docker_or_skip, test_image};
use secrecy::ExposeSecret;
use spawnpoint::clients::ssh::{HostKey, KeyPair};
use spawnpoint::config::{Config, OwnHost};
use spawnpoint::drivers::fake::Outside;
use spawnpoint::model::server::Backend;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const RECIPES: &str = "tests/recipes";
/// For a container to come up on a busy machine.
const UP_LIMIT: Duration = Duration::from_secs(60);
/// Who logs in there: with `sudo` that asks for nothing, and no way in for root. Rented hosts let root in.
const OWN_USER: &str = "friend";
/// What the machine of one's own does at its start: a key of its own, ours let in, and nothing of cloud-init's.
const OWN_MACHINE: &str = "useradd --create-home --shell /bin/bash --password '*' friend && \
    echo 'friend ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/friend && \
    install -d -o friend -m 700 /home/friend/.ssh && \
    install -o friend -m 600 /seed/authorized_keys /home/friend/.ssh/ && \
    install -m 600 /seed/host_key /etc/ssh/ssh_host_ed25519_key && \
    mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -o PermitRootLogin=no";

pub struct Bed {
    pub stage: Option<Stage>,
    pub clouds: Option<Clouds>,
    pub machine: Option<OwnMachine>,
    pub outside: Option<Outside>,
}

/// Lets a stage rent at this stand-in, and nothing else.
pub fn rent_at(config: &mut Config, clouds: &Clouds, provider: &str) {
    config.docker.enabled = false;
    config.program = Some(env!("CARGO_BIN_EXE_spawnpoint").into());
    let account = match provider {
        "linode" => &mut config.cloud.linode,
        "hetzner" => &mut config.cloud.hetzner,
        "digitalocean" => &mut config.cloud.digitalocean,
        "vultr" => &mut config.cloud.vultr,
        other => panic!("there is no provider {other}"),
    };
    account.token = Some("a-token".into());
    account.api_url = Some(clouds.url(provider));
}

/// A stand-in for the providers with real hosts, and a stage that rents at one of them.
pub async fn evening(provider: &str) -> Option<(Clouds, Stage)> {
    evening_on(Machines::Docker, provider).await
}

/// The same, with hosts of another kind.
pub async fn evening_on(machines: Machines, provider: &str) -> Option<(Clouds, Stage)> {
    if !docker_or_skip().await {
        return None;
    }
    let clouds = Clouds::start(&Options { machines, ..Options::default() })?;
    let stage = Stage::open(RECIPES, |config| rent_at(config, &clouds, provider)).await;
    Some((clouds, stage))
}

/// A machine of one's own, and a stage that plays on it with these recipes.
pub async fn own_machine(recipes: &str) -> Option<(OwnMachine, Stage)> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("host");
    let mut machine = None;
    let stage = Stage::open(recipes, |config| machine = Some(OwnMachine::start(config))).await;
    Some((machine.expect("it was started"), stage))
}

impl Bed {
    pub async fn docker() -> Option<Bed> {
        if !docker_or_skip().await {
            return None;
        }
        test_image("busybox");
        let stage = Stage::open(RECIPES, |_| {}).await;
        Some(Bed { stage: Some(stage), clouds: None, machine: None, outside: None })
    }

    pub async fn cloud() -> Option<Bed> {
        let (clouds, stage) = evening("hetzner").await?;
        Some(Bed { stage: Some(stage), clouds: Some(clouds), machine: None, outside: None })
    }

    pub async fn own_machine() -> Option<Bed> {
        let (machine, stage) = own_machine(RECIPES).await?;
        Some(Bed { stage: Some(stage), clouds: None, machine: Some(machine), outside: None })
    }

    pub async fn fake_container() -> Option<Bed> {
        Some(Bed::fake(Backend::Docker).await)
    }

    pub async fn fake_host() -> Option<Bed> {
        Some(Bed::fake(Backend::Cloud).await)
    }

    async fn fake(backend: Backend) -> Bed {
        let outside = Outside::default();
        let stage = Stage::open_on(RECIPES, backend, &outside).await;
        Bed { stage: Some(stage), clouds: None, machine: None, outside: Some(outside) }
    }

    /// Nothing may be left anywhere.
    pub async fn close(self, stage: Stage) {
        stage.close().await;
        if let Some(clouds) = &self.clouds {
            nothing_left(clouds);
        }
        if let Some(outside) = &self.outside {
            let things = outside.get();
            assert!(things.violations.is_empty(), "{:#?}", things.violations);
            let places = things.hosts.len() + things.drives.len() + things.containers.len() + things.games.len();
            assert!(places == 0 && things.copies.is_empty() && things.snapshots.is_empty(), "left behind: {things:#?}");
        }
        if let Some(machine) = &self.machine {
            assert_eq!(machine.shell("ls /srv/spawnpoint"), "", "a folder was left on the machine");
            assert_eq!(machine.shell("getent passwd | grep -c ^sp- || true"), "0", "a user was left on the machine");
        }
    }
}

/// Nothing that bills, and nothing that came with it.
pub fn nothing_left(clouds: &Clouds) {
    assert!(clouds.living().is_empty(), "{:#?}", clouds.living());
    assert!(clouds.things().is_empty(), "{:#?}", clouds.things());
}

/// A machine that was there before and stays: a container with sshd and nothing of a provider's.
pub struct OwnMachine {
    container: String,
}

impl OwnMachine {
    pub fn start(config: &mut Config) -> OwnMachine {
        let seed = config.data_dir.join("seed");
        std::fs::create_dir_all(&seed).unwrap();
        let ours = KeyPair::load_or_make(&config.data_dir.join("ssh/id_ed25519")).unwrap();
        let its = HostKey::generate();
        write(&seed.join("authorized_keys"), &ours.public_line());
        write(&seed.join("host_key"), its.private_pem.expose_secret());
        let address = config.docker.publish_address.to_string();
        let name = format!("spawnpoint-test-own-{}", address.replace('.', "-"));
        let _ = Command::new("docker").args(["rm", "-f", &name]).output();
        let mut run = Command::new("docker");
        run.args(["run", "-d", "--init", "--name", &name, "--volume", &format!("{}:/seed:ro", seed.display())]);
        for port in ["22:22/tcp", "27100:27100/udp"] {
            run.args(["--publish", &format!("{address}:{port}")]);
        }
        let made = run.args(["spawnpoint-test/host:1", "sh", "-c", OWN_MACHINE]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let machine = OwnMachine { container: name };
        let deadline = Instant::now() + UP_LIMIT;
        while machine.shell("ss -Hltn 'sport = :22' | head -n 1").is_empty() {
            assert!(Instant::now() < deadline, "its sshd does not listen");
            std::thread::sleep(Duration::from_millis(100));
        }
        config.docker.enabled = false;
        config.program = Some(env!("CARGO_BIN_EXE_spawnpoint").into());
        let host =
            OwnHost { address, port: 22, user: OWN_USER.into(), key_file: None, host_key: Some(its.public_line) };
        config.hosts.insert("attic".into(), host);
        machine
    }

    pub fn shell(&self, script: &str) -> String {
        let ran = Command::new("docker").args(["exec", &self.container, "sh", "-c", script]).output().unwrap();
        String::from_utf8_lossy(&ran.stdout).trim().to_owned()
    }
}

impl Drop for OwnMachine {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "-f", &self.container]).output();
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, format!("{}\n", text.trim_end())).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
