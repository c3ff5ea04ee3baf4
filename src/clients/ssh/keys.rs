//! Keys: our own, which opens hosts; a host's, which is made here and handed over at its first boot; and the pin by
//! which a host is known. ed25519 only where we make them; ECDSA is understood, RSA is not (its crate has an unmended
//! advisory).

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use secrecy::SecretString;

/// A private key file is some hundred bytes; whatever is larger than this is another file.
const KEY_FILE_MAX_BYTES: u64 = 64 * 1024;
/// Others may neither read nor write a private key.
const OTHERS_BITS: u32 = 0o077;
const KEY_DIR_MODE: u32 = 0o700;

/// Why a key cannot be used. No variant carries any part of a private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {} cannot be {what}: {why}", path.display())]
    File { path: PathBuf, what: &'static str, why: std::io::Error },
    #[error("other users can read the key file {}: run `chmod 600` on it", path.display())]
    Readable { path: PathBuf },
    #[error(
        "the key in {} is protected by a passphrase, and nobody is there to type it: give Spawnpoint a key of its own (`ssh-keygen -t ed25519 -N ''`)",
        path.display()
    )]
    Passphrase { path: PathBuf },
    #[error("the key in {} is of the kind {kind}, which Spawnpoint cannot use: make one with `ssh-keygen -t ed25519`", path.display())]
    Kind { path: PathBuf, kind: String },
    #[error("{} holds no private key that Spawnpoint understands (OpenSSH format, ed25519 or ECDSA)", path.display())]
    NoKey { path: PathBuf },
    #[error(
        "{0:?} is no host key: write its public line (`ssh-ed25519 AAAA…`) or its fingerprint (`SHA256:…`, 43 signs)"
    )]
    NoPin(String),
}

/// The key with which Spawnpoint opens hosts.
pub struct KeyPair {
    private: Arc<PrivateKey>,
}

impl KeyPair {
    /// The key of this file, which is made if there is none. A crash leaves either no file or a whole one.
    pub fn load_or_make(path: &Path) -> Result<KeyPair, KeyError> {
        match KeyPair::load(path) {
            Err(KeyError::File { why, .. }) if why.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(key) => return key.with_public_part(path),
        }
        let failed = |what| move |why| KeyError::File { path: path.to_path_buf(), what, why };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(KEY_DIR_MODE).create(parent).map_err(failed("made"))?;
        let pem = new_key("spawnpoint").to_openssh(LineEnding::LF).expect("a fresh key can be written");
        let mut file = tempfile::Builder::new().prefix(".key-").tempfile_in(parent).map_err(failed("made"))?;
        file.write_all(pem.as_bytes()).map_err(failed("written"))?;
        file.as_file().sync_all().map_err(failed("written"))?;
        match file.persist_noclobber(path) {
            Ok(_) => File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("written"))?,
            // Somebody else was quicker; theirs counts.
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("made")(error.error)),
        }
        KeyPair::load(path)?.with_public_part(path)
    }

    /// People put the public part onto machines, so it lies beside the private one as they know it: `….pub`.
    fn with_public_part(self, path: &Path) -> Result<KeyPair, KeyError> {
        let mut public = path.as_os_str().to_owned();
        public.push(".pub");
        let public = PathBuf::from(public);
        let line = self.public_line() + "\n";
        if std::fs::read_to_string(&public).is_ok_and(|there| there == line) {
            return Ok(self);
        }
        std::fs::write(&public, line).map_err(|why| KeyError::File { path: public, what: "written", why })?;
        Ok(self)
    }

    /// A key that exists already, say a person's own `key_file`.
    pub fn load(path: &Path) -> Result<KeyPair, KeyError> {
        let failed = |why| KeyError::File { path: path.to_path_buf(), what: "read", why };
        let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path);
        let file = file.map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() || meta.len() > KEY_FILE_MAX_BYTES {
            return Err(KeyError::NoKey { path: path.to_path_buf() });
        }
        if meta.mode() & OTHERS_BITS != 0 {
            return Err(KeyError::Readable { path: path.to_path_buf() });
        }
        let text = std::io::read_to_string(file).map_err(|_| KeyError::NoKey { path: path.to_path_buf() })?;
        let private = parse_private(&text, path)?;
        Ok(KeyPair { private: Arc::new(private) })
    }

    /// The line for `authorized_keys`.
    pub fn public_line(&self) -> String {
        public_line(self.private.public_key())
    }

    pub fn fingerprint(&self) -> String {
        fingerprint(self.private.public_key())
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        self.private.clone()
    }
}

/// Nothing of the key but its fingerprint.
impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint())
    }
}

/// A host's key, made before the host: whoever hands it over at the first boot knows the host from the first byte on.
#[derive(Debug)]
pub struct HostKey {
    /// For `/etc/ssh/ssh_host_ed25519_key`.
    pub private_pem: SecretString,
    /// For the `.pub` beside it, and as a [`Pin`].
    pub public_line: String,
}

impl HostKey {
    pub fn generate() -> HostKey {
        let key = new_key("");
        let pem = key.to_openssh(LineEnding::LF).expect("a fresh key can be written");
        HostKey { private_pem: SecretString::from(pem.as_str()), public_line: public_line(key.public_key()) }
    }
}

/// How a host is known: by its whole public key, or by the key's SHA-256 fingerprint.
#[derive(Clone, PartialEq, Eq)]
pub enum Pin {
    Key(Box<PublicKey>),
    Fingerprint(String),
}

impl Pin {
    /// Reads a public line (`ssh-ed25519 AAAA… comment`, also with a host's name before it, as `known_hosts` and
    /// `ssh-keyscan` write it) or a fingerprint (`SHA256:…`).
    pub fn parse(text: &str) -> Result<Pin, KeyError> {
        let refused = || KeyError::NoPin(text.chars().take(80).collect());
        let text = text.trim();
        if let Some(hash) = text.strip_prefix("SHA256:") {
            let hash = hash.trim_end_matches('=');
            let is_hash = hash.len() == 43 && hash.chars().all(|one| one.is_ascii_alphanumeric() || "+/".contains(one));
            return if is_hash { Ok(Pin::Fingerprint(format!("SHA256:{hash}"))) } else { Err(refused()) };
        }
        let mut key = PublicKey::from_openssh(text)
            .or_else(|error| match text.split_once(' ') {
                Some((_, rest)) => PublicKey::from_openssh(rest.trim_start()),
                None => Err(error),
            })
            .map_err(|_| refused())?;
        key.set_comment("");
        Ok(Pin::Key(Box::new(key)))
    }

    pub fn fingerprint(&self) -> String {
        match self {
            Pin::Key(key) => fingerprint(key),
            Pin::Fingerprint(hash) => hash.clone(),
        }
    }

    pub(super) fn accepts(&self, found: &PublicKey) -> bool {
        match self {
            Pin::Key(key) => key.key_data() == found.key_data(),
            Pin::Fingerprint(hash) => *hash == fingerprint(found),
        }
    }

    /// The kind of key to ask the host for: one with several keys must show the pinned one.
    pub(super) fn algorithm(&self) -> Option<Algorithm> {
        match self {
            Pin::Key(key) => Some(key.algorithm()),
            Pin::Fingerprint(_) => None,
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({})", self.fingerprint())
    }
}

/// What a host showed to somebody who does not know it yet. Only a person may decide that it is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedKey {
    pub public_line: String,
    pub fingerprint: String,
}

impl ScannedKey {
    pub(super) fn of(key: &PublicKey) -> ScannedKey {
        ScannedKey { public_line: public_line(key), fingerprint: fingerprint(key) }
    }
}

pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn public_line(key: &PublicKey) -> String {
    key.to_openssh().expect("a key that was parsed can be written")
}

fn new_key(comment: &str) -> PrivateKey {
    let mut key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .expect("an ed25519 key can be made from any random bytes");
    key.set_comment(comment);
    key
}

fn parse_private(text: &str, path: &Path) -> Result<PrivateKey, KeyError> {
    let path = path.to_path_buf();
    if text.contains("BEGIN RSA PRIVATE KEY") || text.contains("BEGIN DSA PRIVATE KEY") {
        return Err(KeyError::Kind { path, kind: "RSA or DSA".into() });
    }
    match russh::keys::decode_secret_key(text, None) {
        Ok(key) => match key.algorithm() {
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(key),
            other => Err(KeyError::Kind { path, kind: other.to_string() }),
        },
        Err(russh::keys::Error::KeyIsEncrypted) => Err(KeyError::Passphrase { path }),
        Err(_) => Err(KeyError::NoKey { path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone_and_loaded_from_then_on() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys/id_ed25519");
        let made = KeyPair::load_or_make(&path).unwrap();
        let loaded = KeyPair::load_or_make(&path).unwrap();
        assert_eq!(made.public_line(), loaded.public_line());
        assert!(made.public_line().starts_with("ssh-ed25519 AAAA"));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let public = path.with_extension("pub");
        assert_eq!(std::fs::read_to_string(&public).unwrap(), made.public_line() + "\n");
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            2,
            "nothing else is left beside the key"
        );
        std::fs::remove_file(&public).unwrap();
        KeyPair::load_or_make(&path).unwrap();
        assert!(public.exists(), "what an older Spawnpoint did not write is written now");
    }

    #[test]
    fn many_who_make_the_same_key_at_once_end_with_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("id");
        let lines: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| KeyPair::load_or_make(&path).unwrap().public_line())).collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(lines.iter().all(|line| *line == lines[0]));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("id");
        KeyPair::load_or_make(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(KeyPair::load(&path), Err(KeyError::Readable { .. })));
    }

    #[test]
    fn a_file_that_holds_no_key_is_said_to_hold_none() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("id");
        std::fs::write(&path, "hello").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        assert!(matches!(KeyPair::load(&path), Err(KeyError::NoKey { .. })));
        assert!(matches!(KeyPair::load(home.path()), Err(KeyError::NoKey { .. })));
    }

    #[test]
    fn a_pin_is_read_in_every_way_people_write_it() {
        let line = HostKey::generate().public_line;
        let pin = Pin::parse(&line).unwrap();
        for other in [format!("  {line} root@host\n"), format!("game.example.org {line}")] {
            assert_eq!(Pin::parse(&other).unwrap(), pin, "{other}");
        }
        assert_eq!(Pin::parse(&pin.fingerprint()).unwrap().fingerprint(), pin.fingerprint());
        for wrong in ["", "SHA256:short", "ssh-ed25519", "MD5:aa:bb", &line[..40]] {
            assert!(Pin::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn neither_key_shows_itself_in_a_log() {
        let host = HostKey::generate();
        let secret = host.private_pem.expose_secret().lines().nth(2).unwrap().to_string();
        assert!(!format!("{host:?}").contains(&secret));
        let home = tempfile::tempdir().unwrap();
        let pair = KeyPair::load_or_make(&home.path().join("id")).unwrap();
        assert_eq!(format!("{pair:?}"), format!("KeyPair({})", pair.fingerprint()));
    }
}
