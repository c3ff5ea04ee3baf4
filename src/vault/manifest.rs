//! What a backup says about itself: `manifest.json`, written once and never changed.
//!
//! One line per file, so that a person can read and grep it, and a hash over all of it, so that a rotten manifest
//! is told from a good one. What can change later (pinned, accepted) is an empty file beside it.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{
    disk,
    error::{At, Error, Result},
    name::{BackupId, OwnerId, WorldPath},
    retire::{Shrink, Size},
};

pub(super) const FILE: &str = "manifest.json";
pub(super) const TREE: &str = "files";
pub(super) const PINNED: &str = "pinned";
pub(super) const ACCEPTED: &str = "accepted";
const VERSION: u32 = 1;
/// The line before the first entry.
const ENTRIES: &[u8] = b"\"entries\":[\n";
/// How the last line begins, and how the text ends: a check sum of 64 digits lies between.
const CHECK: &[u8] = b"],\n\"check\":\"";
const END: &[u8] = b"\"}\n";
const CHECK_DIGITS: usize = 64;
/// What stands before the entries is longer only in a text that is none of ours.
const HEAD_MAX_BYTES: u64 = 64 * 1024;
/// The stored files are read-only, because backups share them; the copy must not be.
const BY_HAND: &str = "cp -a files/. WHERE/ && chmod -R u+w WHERE";

/// Why a backup was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    Stop,
    Manual,
    Schedule,
    BeforeRestore,
    BeforeUpdate,
    BeforeMove,
    BeforeDelete,
}

/// What the caller knows about a backup and the vault does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The server's name at that time, for people.
    pub server: String,
    pub game: String,
    pub recipe_version: Option<String>,
    pub reason: Reason,
    /// Unix milliseconds.
    pub taken_at_ms: i64,
    /// Taken while the game ran.
    pub live: bool,
    /// The actor, as people should read it.
    pub by: String,
    pub note: Option<String>,
}

/// A kept backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub owner: OwnerId,
    pub id: BackupId,
    #[serde(flatten)]
    pub meta: Meta,
    /// The stored files, read back from the disk, were the same as a second reading of the original.
    pub verified: bool,
    /// Set when the world was much smaller than in the backup before.
    pub shrunk: Option<Shrink>,
    pub files: u64,
    /// What the world weighs.
    pub bytes: u64,
    /// What of it was stored anew, and what it shares with backups before.
    pub new_bytes: u64,
    pub shared_bytes: u64,
    /// A person said that it must stay.
    #[serde(skip)]
    pub pinned: bool,
    /// A person said that the smaller world is right.
    #[serde(skip)]
    pub accepted: bool,
}

impl Backup {
    pub fn suspicious(&self) -> bool {
        self.shrunk.is_some() && !self.accepted
    }

    /// One to rely on: read twice with the same result, and not suspiciously small.
    pub fn good(&self) -> bool {
        self.verified && !self.suspicious()
    }

    pub fn size(&self) -> Size {
        Size { files: self.files, bytes: self.bytes }
    }
}

/// One thing in a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub path: WorldPath,
    #[serde(flatten)]
    pub kind: Kind,
    /// Permission bits as the world had them; the stored file has no write bits.
    pub mode: u32,
    /// Unix nanoseconds.
    pub mtime_ns: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    Dir,
    /// The hash is blake3.
    File {
        size: u64,
        hash: String,
    },
    Link {
        to: LinkTarget,
    },
}

/// The target of a symbolic link, as raw bytes; may hold `..`, unlike a `WorldPath`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LinkTarget(pub(super) Vec<u8>);

impl TryFrom<String> for LinkTarget {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        super::name::decode(&text).map(Self)
    }
}

impl From<LinkTarget> for String {
    fn from(text: LinkTarget) -> String {
        super::name::encode(&text.0)
    }
}

pub(super) type Entries = BTreeMap<WorldPath, Entry>;

#[derive(Deserialize)]
struct Stored {
    version: u32,
    backup: Backup,
    entries: Vec<Entry>,
    check: String,
}

/// The same text without its entries, for lists: a world may have a hundred thousand of them.
#[derive(Deserialize)]
struct Head {
    version: u32,
    backup: Backup,
}

pub(super) fn to_text(backup: &Backup, entries: &Entries) -> String {
    let (head, lines) = parts(backup, entries.values());
    let check = check(&head, &lines);
    let by_hand = serde_json::Value::from(BY_HAND);
    let lines = lines.join(",\n");
    format!(
        "{{\"version\":{VERSION},\n\"restore_by_hand\":{by_hand},\n\"backup\":{head},\n\"entries\":[\n{lines}\n],\n\"check\":\"{check}\"}}\n"
    )
}

fn parts<'a>(backup: &Backup, entries: impl Iterator<Item = &'a Entry>) -> (String, Vec<String>) {
    let text = "plain data with text keys becomes JSON";
    let head = serde_json::to_string(backup).expect(text);
    (head, entries.map(|e| serde_json::to_string(e).expect(text)).collect())
}

fn check(head: &str, lines: &[String]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head.as_bytes());
    for line in lines {
        hasher.update(b"\n").update(line.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// Reads what lists need. `dir` is the backup's own folder.
pub(super) fn read_head(dir: &Path, owner: &OwnerId, id: &BackupId) -> Result<Backup> {
    let head = match beginning(&dir.join(FILE)) {
        Ok(Some(head)) => head,
        // Of another form, or damaged; the whole tells what it is.
        Ok(None) | Err(_) => parse(dir, id)?,
    };
    judge(dir, owner, id, head.version, head.backup)
}

/// The head of a text that ends as it should, without a look at its entries. `None` where it looks otherwise.
fn beginning(path: &Path) -> std::io::Result<Option<Head>> {
    let mut file = BufReader::new(fs::File::open(path)?);
    let mut text = vec![];
    let mut lines = file.by_ref().take(HEAD_MAX_BYTES);
    let before = loop {
        let before = text.len();
        if lines.read_until(b'\n', &mut text)? == 0 {
            return Ok(None);
        }
        if text[before..] == *ENTRIES {
            break before;
        }
    };
    let mut last = [0; CHECK.len() + CHECK_DIGITS + END.len()];
    file.seek(SeekFrom::End(-(last.len() as i64)))?;
    file.read_exact(&mut last)?;
    let Some(head) = text[..before].strip_suffix(b",\n").filter(|_| last.starts_with(CHECK) && last.ends_with(END))
    else {
        return Ok(None);
    };
    Ok(serde_json::from_slice(&[head, b"}"].concat()).ok())
}

/// Reads and checks the whole.
pub(super) fn read(dir: &Path, owner: &OwnerId, id: &BackupId) -> Result<(Backup, Entries)> {
    let stored: Stored = parse(dir, id)?;
    let (head, lines) = parts(&stored.backup, stored.entries.iter());
    if stored.version == VERSION && check(&head, &lines) != stored.check {
        return Err(Error::Broken { id: id.clone(), why: "its manifest does not fit its own check sum".into() });
    }
    let backup = judge(dir, owner, id, stored.version, stored.backup)?;
    Ok((backup, stored.entries.into_iter().map(|e| (e.path.clone(), e)).collect()))
}

fn parse<T: serde::de::DeserializeOwned>(dir: &Path, id: &BackupId) -> Result<T> {
    let broken = |why: String| Error::Broken { id: id.clone(), why };
    let text = fs::read(dir.join(FILE)).map_err(|e| broken(format!("its manifest cannot be read: {e}")))?;
    serde_json::from_slice(&text).map_err(|e| broken(format!("its manifest makes no sense: {e}")))
}

fn judge(dir: &Path, owner: &OwnerId, id: &BackupId, version: u32, backup: Backup) -> Result<Backup> {
    let broken = |why: String| Error::Broken { id: id.clone(), why };
    if version != VERSION {
        return Err(broken(format!("its manifest has version {version}, this program reads {VERSION}")));
    }
    if backup.owner != *owner || backup.id != *id {
        return Err(broken(format!("its manifest is that of {} {}", backup.owner, backup.id)));
    }
    if !dir.join(TREE).is_dir() {
        return Err(broken("its files are gone".into()));
    }
    Ok(Backup { pinned: dir.join(PINNED).exists(), accepted: dir.join(ACCEPTED).exists(), ..backup })
}

/// A file that is there whole or not at all.
pub(super) fn write_whole(path: &Path, text: &[u8]) -> Result<()> {
    let dir = path.parent().expect("files of the vault lie in its folders");
    let mut file = tempfile::NamedTempFile::new_in(dir).at("write", path)?;
    std::io::Write::write_all(&mut file, text).at("write", path)?;
    file.as_file().sync_all().at("write", path)?;
    file.persist(path).map_err(|e| e.error).at("write", path)?;
    disk::sync_dir(dir)
}
