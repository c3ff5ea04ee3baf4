//! The vault's three kinds of names. Each is checked once, where it comes in, and is safe as a path ever after.

use std::{
    cmp::Ordering,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};

const NAME_MAX_BYTES: usize = 64;

/// Whose world it is: the caller's own id, opaque here. Letters, digits, `-` and `_`, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OwnerId(String);

impl OwnerId {
    pub fn parse(text: &str) -> Result<Self> {
        let fits = !text.is_empty()
            && text.len() <= NAME_MAX_BYTES
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !fits {
            return Err(Error::BadName {
                text: text.into(),
                wanted: "an owner of backups (letters, digits, - and _, at most 64)",
            });
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `20261121T075309Z-3f9a`: the time, so that ids sort by age and a person can read them, and something random. With a
/// job's number instead (`-j10`) those of one second sort by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

impl BackupId {
    /// A new id for a backup taken at this time (Unix milliseconds). A job makes it once and writes it down, so
    /// that a second try after a crash goes on with the same backup.
    pub fn new_at(unix_ms: i64) -> Self {
        Self::with_tail(unix_ms, &format!("{:04x}", rand::random::<u16>()))
    }

    fn with_tail(unix_ms: i64, tail: &str) -> Self {
        let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Self(format!("{}-{tail}", time.strftime("%Y%m%dT%H%M%SZ")))
    }

    pub fn parse(text: &str) -> Result<Self> {
        let digits = |range: std::ops::Range<usize>| {
            text.as_bytes().get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
        };
        let fits = text.len() <= NAME_MAX_BYTES
            && digits(0..8)
            && text.get(8..9) == Some("T")
            && digits(9..15)
            && text.get(15..17) == Some("Z-")
            && text
                .get(17..)
                .is_some_and(|t| !t.is_empty() && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        if !fits {
            return Err(Error::BadName {
                text: text.into(),
                wanted: "a backup (they look like 20261121T075309Z-3f9a)",
            });
        }
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Ord for BackupId {
    fn cmp(&self, other: &Self) -> Ordering {
        fn key(id: &BackupId) -> (&str, Option<u64>, &str) {
            let (time, tail) = id.0.split_once('-').unwrap_or((&id.0, ""));
            (time, tail.strip_prefix('j').and_then(|number| number.parse().ok()), tail)
        }
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for BackupId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A place inside a world: relative, without `.` and `..`, any bytes that a file system takes.
///
/// In the manifest it is text: `%` and bytes that are not UTF-8 are written `%XX`, so nothing is lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorldPath(Vec<u8>);

impl WorldPath {
    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    /// Drops `.` and doubled slashes; refuses what could lead out of the tree.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.first() == Some(&b'/') {
            return Err(Error::refused(bytes, "the name begins at the root of the file system"));
        }
        let mut parts = Vec::new();
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(Error::refused(bytes, "the name leads out of the world")),
                part if part.contains(&0) => {
                    return Err(Error::refused(bytes, "the name holds a zero byte"));
                }
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join(&b'/')))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    pub(super) fn under(&self, base: &Self) -> Self {
        match (base.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (false, true) => base.clone(),
            (false, false) => Self([&base.0[..], b"/", &self.0].concat()),
        }
    }

    /// What is left of the path inside `base`, if it is inside.
    pub(super) fn inside(&self, base: &Self) -> Option<Self> {
        if base.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&base.0[..])? {
            [] => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.to_vec())),
            _ => None,
        }
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    pub(super) fn in_dir(&self, dir: &Path) -> PathBuf {
        if self.is_root() {
            return dir.into();
        }
        dir.join(self.as_path())
    }
}

/// Where a symbolic link may point: only inside. `..` is allowed at the front alone, because `a/..` may be
/// anywhere when `a` is itself a link; with that rule, counting is proof.
pub(super) fn check_link(path: &WorldPath, target: &[u8]) -> Result<()> {
    let out = || Error::refused(path.as_bytes(), "it is a link that leads out of the world");
    if target.is_empty() || target[0] == b'/' || target.contains(&0) {
        return Err(out());
    }
    let mut depth = path.as_bytes().iter().filter(|b| **b == b'/').count();
    let mut descended = false;
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if descended || depth == 0 => return Err(out()),
            b".." => depth -= 1,
            _ => descended = true,
        }
    }
    Ok(())
}

pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>> {
    let bad =
        || Error::BadName { text: text.into(), wanted: "a name as manifests write it (% and two hexadecimal digits)" };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first != b'%' {
            bytes.push(*first);
            rest = tail;
            continue;
        }
        let digits = tail.get(..2).filter(|d| d.iter().all(u8::is_ascii_hexdigit)).ok_or_else(bad)?;
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = &tail[2..];
    }
    Ok(bytes)
}

impl TryFrom<String> for OwnerId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<OwnerId> for String {
    fn from(name: OwnerId) -> String {
        name.0
    }
}

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<BackupId> for String {
    fn from(name: BackupId) -> String {
        name.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for WorldPath {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&decode(&text)?)
    }
}

impl From<WorldPath> for String {
    fn from(path: WorldPath) -> String {
        encode(&path.0)
    }
}

/// For people: one line whatever the name holds.
impl fmt::Display for WorldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", encode(&self.0).escape_debug())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_owner_or_an_id_can_never_be_a_path() {
        for text in ["", ".", "..", "a/b", "-rf", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(OwnerId::parse(text).is_err(), "{text:?}");
            assert!(BackupId::parse(text).is_err(), "{text:?}");
        }
        assert!(OwnerId::parse("0192f0c1-7a55-7e1c-b7b5-2c3f5d0a9f10").is_ok());
        assert!(BackupId::parse("20261121T075309Z-../x").is_err());
        assert!(BackupId::parse("20261121T075309Z-").is_err());
    }

    #[test]
    fn ids_sort_by_time_and_read_as_time() {
        let early = BackupId::with_tail(1_795_247_589_000, "ffff");
        let late = BackupId::with_tail(1_795_247_590_000, "0000");
        assert!(early < late);
        let of_job = |job: &str| BackupId::with_tail(1_795_247_589_000, job);
        assert!(of_job("j9") < of_job("j10") && of_job("j10") < late);
        assert_eq!(early.as_str(), "20261121T075309Z-ffff");
        assert_eq!(BackupId::parse(early.as_str()).unwrap(), early);
    }

    #[test]
    fn links_may_point_inside_only() {
        let check =
            |path: &str, to: &str| check_link(&WorldPath::parse(path.as_bytes()).unwrap(), to.as_bytes()).is_ok();
        let table = [
            ("a", "b", true),
            ("a", "./b/c", true),
            ("d/a", "../b", true),
            ("d/e/a", "../../b", true),
            ("a", "../b", false),
            ("d/a", "../../b", false),
            ("a", "/etc/passwd", false),
            ("a", "", false),
            // With `b -> deep/down`, the next would be deep/.., and with `b -> ..` outside.
            ("d/a", "b/..", false),
            ("d/a", "b/../../x", false),
        ];
        for (path, to, fine) in table {
            assert_eq!(check(path, to), fine, "{path} -> {to}");
        }
    }

    proptest! {
        #[test]
        fn any_name_survives_the_manifest(bytes in proptest::collection::vec(1u8.., 0..40)) {
            if let Ok(path) = WorldPath::parse(&bytes) {
                let text = String::from(path.clone());
                prop_assert_eq!(WorldPath::try_from(text).unwrap(), path);
            }
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes);
        }
    }
}
