//! The vault itself: what is kept, whether it is still whole, what it weighs, and how it goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    disk,
    error::{At, Error, Result},
    manifest::{self, Backup, Entries, Kind},
    name::{BackupId, OwnerId, WorldPath},
    stage::{PARTIAL, Staging},
};

const LOCK: &str = ".lock";
const DELETING: &str = ".deleting-";
const BLOCK_BYTES: u64 = 512;

/// A folder of backups.
#[derive(Debug, Clone)]
pub struct Vault {
    root: PathBuf,
}

/// A line of a list. One that cannot be read is shown and never hidden: it may be all that is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    Kept(Box<Backup>),
    Broken { id: BackupId, why: String },
}

impl Listed {
    pub fn id(&self) -> &BackupId {
        match self {
            Self::Kept(backup) => &backup.id,
            Self::Broken { id, .. } => id,
        }
    }

    pub fn kept(self) -> Option<Backup> {
        match self {
            Self::Kept(backup) => Some(*backup),
            Self::Broken { .. } => None,
        }
    }
}

/// What a look at every stored byte found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub files: u64,
    pub bytes: u64,
    pub missing: Vec<WorldPath>,
    /// There, and not what it was.
    pub corrupt: Vec<WorldPath>,
    /// On the disk and not in the manifest.
    pub extra: Vec<WorldPath>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty() && self.extra.is_empty()
    }
}

/// What one owner's backups weigh, measured and not computed from manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of disk that all of it takes, each shared file once.
    pub disk_bytes: u64,
    /// What the same backups would show if nothing were shared.
    pub apparent_bytes: u64,
    /// Bytes of disk that deleting one backup alone would free.
    pub unique_bytes: BTreeMap<BackupId, u64>,
}

impl Vault {
    /// Worlds hold passwords and people's chats: nobody else on the machine may look.
    pub fn open(root: &Path) -> Result<Self> {
        make_dir(root)?;
        Ok(Self { root: root.into() })
    }

    fn owner_dir(&self, owner: &OwnerId) -> PathBuf {
        self.root.join(owner.as_str())
    }

    /// The folder of one backup: `manifest.json` and `files`.
    pub fn home(&self, owner: &OwnerId, id: &BackupId) -> PathBuf {
        self.owner_dir(owner).join(id.as_str())
    }

    /// Begins a backup, or goes on with one that was begun under this id. While it lives, nobody else takes a
    /// backup of the same owner, in this process or another.
    pub fn stage(&self, owner: &OwnerId, id: Option<BackupId>) -> Result<Staging> {
        let dir = self.owner_dir(owner);
        make_dir(&dir)?;
        let lock = lock(&dir)?.ok_or_else(|| Error::Busy { owner: owner.clone() })?;
        let id = id.unwrap_or_else(|| BackupId::new_at(now_ms()));
        let home = self.home(owner, &id);
        if home.exists() {
            return Err(Error::AlreadyKept { owner: owner.clone(), id });
        }
        let older = self.list(owner)?.into_iter().filter_map(Listed::kept).collect();
        Staging::open(&dir, owner, id, older, lock)
    }

    pub fn owners(&self) -> Result<Vec<OwnerId>> {
        let mut owners: Vec<_> = names_in(&self.root)?.iter().filter_map(|n| OwnerId::parse(n).ok()).collect();
        owners.sort();
        Ok(owners)
    }

    /// Newest first.
    pub fn list(&self, owner: &OwnerId) -> Result<Vec<Listed>> {
        Ok(self.ids(owner)?.into_iter().rev().map(|id| self.look(owner, id)).collect())
    }

    /// The first line of that list; the others are not even looked at.
    pub fn newest(&self, owner: &OwnerId) -> Result<Option<Listed>> {
        Ok(self.ids(owner)?.pop().map(|id| self.look(owner, id)))
    }

    fn look(&self, owner: &OwnerId, id: BackupId) -> Listed {
        match manifest::read_head(&self.home(owner, &id), owner, &id) {
            Ok(backup) => Listed::Kept(Box::new(backup)),
            Err(Error::Broken { id, why }) => Listed::Broken { id, why },
            Err(other) => Listed::Broken { id, why: other.to_string() },
        }
    }

    fn ids(&self, owner: &OwnerId) -> Result<Vec<BackupId>> {
        let dir = self.owner_dir(owner);
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut ids: Vec<_> = names_in(&dir)?.iter().filter_map(|n| BackupId::parse(n).ok()).collect();
        ids.sort();
        Ok(ids)
    }

    pub fn get(&self, owner: &OwnerId, id: &BackupId) -> Result<Backup> {
        self.must_exist(owner, id)?;
        manifest::read_head(&self.home(owner, id), owner, id)
    }

    /// The backup with all that is in it.
    pub(super) fn entries(&self, owner: &OwnerId, id: &BackupId) -> Result<(Backup, Entries)> {
        self.must_exist(owner, id)?;
        manifest::read(&self.home(owner, id), owner, id)
    }

    fn must_exist(&self, owner: &OwnerId, id: &BackupId) -> Result<()> {
        if !self.home(owner, id).exists() {
            return Err(Error::NoSuchBackup { owner: owner.clone(), id: id.clone() });
        }
        Ok(())
    }

    /// Reads every byte of a backup from the disk and holds it against the manifest.
    pub fn verify(&self, owner: &OwnerId, id: &BackupId) -> Result<Report> {
        let (_, entries) = self.entries(owner, id)?;
        let tree = self.home(owner, id).join(manifest::TREE);
        let mut report = Report::default();
        for entry in entries.values() {
            let place = entry.path.in_dir(&tree);
            let Ok(stat) = fs::symlink_metadata(&place) else {
                report.missing.push(entry.path.clone());
                continue;
            };
            let whole = match &entry.kind {
                Kind::Dir => stat.is_dir(),
                Kind::Link { to } => fs::read_link(&place).is_ok_and(|t| t.as_os_str().as_encoded_bytes() == to.0),
                Kind::File { size, hash } => {
                    report.files += 1;
                    report.bytes += size;
                    disk::hash_from_disk(&place).is_ok_and(|c| c.size == *size && c.hash == *hash)
                }
            };
            if !whole {
                report.corrupt.push(entry.path.clone());
            }
        }
        for found in walkdir::WalkDir::new(&tree).min_depth(1).sort_by_file_name() {
            let found = found.map_err(std::io::Error::from).at("read", &tree)?;
            let inside = found.path().strip_prefix(&tree).expect("walkdir stays below its root");
            let path = WorldPath::parse(inside.as_os_str().as_encoded_bytes())?;
            if !entries.contains_key(&path) {
                report.extra.push(path);
            }
        }
        Ok(report)
    }

    /// Deletes for good. A crash in the middle leaves a hidden folder that `sweep` takes away, never half a backup.
    pub fn delete(&self, owner: &OwnerId, id: &BackupId) -> Result<()> {
        self.must_exist(owner, id)?;
        let dir = self.owner_dir(owner);
        let doomed = dir.join(format!("{DELETING}{id}"));
        disk::remove_tree(&doomed)?;
        fs::rename(self.home(owner, id), &doomed).at("delete", &doomed)?;
        disk::sync_dir(&dir)?;
        disk::remove_tree(&doomed)
    }

    /// Keeps a backup from retention, or gives it back to it.
    pub fn pin(&self, owner: &OwnerId, id: &BackupId, pinned: bool) -> Result<()> {
        self.mark(owner, id, manifest::PINNED, pinned)
    }

    /// A person looked at a suspiciously small world and says that it is right.
    pub fn accept(&self, owner: &OwnerId, id: &BackupId) -> Result<()> {
        self.mark(owner, id, manifest::ACCEPTED, true)
    }

    fn mark(&self, owner: &OwnerId, id: &BackupId, name: &str, wanted: bool) -> Result<()> {
        self.must_exist(owner, id)?;
        let path = self.home(owner, id).join(name);
        if wanted {
            return manifest::write_whole(&path, b"");
        }
        if path.exists() {
            fs::remove_file(&path).at("delete", &path)?;
        }
        disk::sync_dir(&self.home(owner, id))
    }

    /// Takes away what crashes left: stages that no open job will go on with, and half-done deletions. An owner
    /// whose backup is being taken is left for the next time. Returns what went.
    pub fn sweep(&self, still_wanted: impl Fn(&OwnerId, &BackupId) -> bool) -> Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        for owner in self.owners()? {
            let dir = self.owner_dir(&owner);
            let Some(_lock) = lock(&dir)? else { continue };
            for name in names_in(&dir)? {
                let leftover = match name.strip_prefix(PARTIAL) {
                    Some(id) => !BackupId::parse(id).is_ok_and(|id| still_wanted(&owner, &id)),
                    None => name.starts_with(DELETING),
                };
                if leftover {
                    disk::remove_tree(&dir.join(&name))?;
                    gone.push(dir.join(&name));
                }
            }
        }
        Ok(gone)
    }

    pub fn usage(&self, owner: &OwnerId) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut inodes: HashMap<(u64, u64), (u64, BTreeSet<BackupId>)> = HashMap::new();
        for id in self.ids(owner)? {
            usage.unique_bytes.insert(id.clone(), 0);
            for found in walkdir::WalkDir::new(self.home(owner, &id)) {
                // Gone while we looked: retention may run beside this, and then it weighs nothing.
                let Ok(stat) = found.and_then(|f| f.metadata()) else {
                    continue;
                };
                usage.apparent_bytes += if stat.is_file() { stat.len() } else { 0 };
                let inode = inodes.entry((stat.dev(), stat.ino())).or_default();
                inode.0 = stat.blocks() * BLOCK_BYTES;
                inode.1.insert(id.clone());
            }
        }
        for (bytes, of) in inodes.into_values() {
            usage.disk_bytes += bytes;
            if let (1, Some(id)) = (of.len(), of.first()) {
                *usage.unique_bytes.entry(id.clone()).or_default() += bytes;
            }
        }
        Ok(usage)
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).at("create", dir)?;
    match dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        Some(parent) => disk::sync_dir(parent),
        None => Ok(()),
    }
}

/// One owner's folder, for one at a time. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// In so many words: closing is not enough while a child that was just forked still holds the same file.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!("A lock of the vault could not be given back: {error}");
        }
    }
}

fn lock(owner_dir: &Path) -> Result<Option<Lock>> {
    let path = owner_dir.join(LOCK);
    let file = OpenOptions::new().create(true).append(true).open(&path).at("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock(file))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e).at("lock", &path),
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).at("read", dir)? {
        // A name of ours is always UTF-8; others are not ours.
        names.extend(entry.at("read", dir)?.file_name().into_string());
    }
    Ok(names)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
