//! Machines that a person has said are the right ones, each with the key that it has to show from then on: a small
//! file of our own. Whether it is asked at all is for the caller; a key that is pinned elsewhere may count for more.

use super::keys::{KeyError, Pin, ScannedKey};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Nobody else may look which machines there are, and above all nobody else may add one.
const DIR_MODE: u32 = 0o700;

#[derive(Clone, Debug)]
pub struct Trust {
    path: PathBuf,
}

impl Trust {
    pub fn at(path: impl Into<PathBuf>) -> Trust {
        Trust { path: path.into() }
    }

    /// The key that this machine has to show; `None` where nobody has trusted it yet.
    pub fn pin(&self, machine: &str) -> Result<Option<Pin>, KeyError> {
        self.all()?.get(machine).map(|line| Pin::parse(line)).transpose()
    }

    /// From now on the machine has to show this key and no other. A crash leaves the old file or the new one.
    pub fn set(&self, machine: &str, key: &ScannedKey) -> Result<(), KeyError> {
        let mut all = self.all()?;
        all.insert(machine.to_owned(), key.public_line.clone());
        let text = serde_json::to_string_pretty(&all).expect("texts can be written") + "\n";
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(parent).map_err(self.failed("made"))?;
        // Made readable for its owner alone.
        let mut file = tempfile::Builder::new().prefix(".trusted-").tempfile_in(parent).map_err(self.failed("made"))?;
        file.write_all(text.as_bytes()).map_err(self.failed("written"))?;
        file.as_file().sync_all().map_err(self.failed("written"))?;
        file.persist(&self.path).map_err(|error| self.failed("written")(error.error))?;
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(self.failed("written"))
    }

    fn all(&self) -> Result<BTreeMap<String, String>, KeyError> {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(self.failed("read")(error)),
        };
        serde_json::from_str(&text).map_err(|error| self.failed("understood")(Error::other(error)))
    }

    fn failed(&self, what: &'static str) -> impl Fn(Error) -> KeyError {
        let path = self.path.clone();
        move |why| KeyError::File { path: path.clone(), what, why }
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::HostKey;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key() -> ScannedKey {
        let line = HostKey::generate().public_line;
        ScannedKey { fingerprint: Pin::parse(&line).unwrap().fingerprint(), public_line: line }
    }

    #[test]
    fn what_was_trusted_stays_and_a_new_key_takes_the_place_of_the_old() {
        let home = tempfile::tempdir().unwrap();
        let trust = Trust::at(home.path().join("ssh/trusted.json"));
        assert_eq!(trust.pin("attic").unwrap(), None);
        let (first, other, second) = (key(), key(), key());
        trust.set("attic", &first).unwrap();
        trust.set("cellar/left", &other).unwrap();
        trust.set("attic", &second).unwrap();
        assert_eq!(trust.pin("attic").unwrap().unwrap().fingerprint(), second.fingerprint);
        assert_eq!(trust.pin("cellar/left").unwrap().unwrap().fingerprint(), other.fingerprint);
        assert_eq!(trust.pin("att").unwrap(), None);
        let mode = std::fs::metadata(home.path().join("ssh/trusted.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_never_taken_for_an_empty_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("trusted.json");
        std::fs::write(&path, "attic ssh-ed25519 AAAA").unwrap();
        let trust = Trust::at(&path);
        assert!(trust.pin("attic").is_err());
        assert!(trust.set("attic", &key()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "attic ssh-ed25519 AAAA");
    }
}
