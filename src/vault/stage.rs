//! How a backup comes to be: filled in a hidden folder, and renamed into place when all of it is on the disk.
//!
//! A stage outlives the process. What was read is written down as a draft, so that after a crash the next step
//! (compare, keep) goes on where the last one ended. Nothing here ever touches a kept backup: files of one are
//! linked to, never written.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{self, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    disk::{self, Content},
    error::{At, Error, Result},
    keeper::Lock,
    manifest::{self, Backup, Entries, Entry, Kind, LinkTarget, Meta},
    name::{BackupId, OwnerId, WorldPath, check_link},
    retire::{Size, shrink},
    select::{Selection, Shift},
    stream::{self, Item, What},
};

/// What the folder of a stage is called, before its id.
pub(super) const PARTIAL: &str = ".partial-";
const DRAFT: &str = "draft.json";
/// The newest is not enough: after a world that came back empty, all would be stored again.
const DEDUPE_AGAINST_BACKUPS: usize = 3;

/// What `adopt_tree` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub files: u64,
    pub bytes: u64,
    /// Files that rsync linked from an older backup in which they have rotted. They were taken out of the stage,
    /// which is not finished until they are pulled again, this time without `--link-dest`.
    pub rotten: Vec<WorldPath>,
}

/// A backup being taken. Only one at a time for each owner; dropping it lets the owner go and keeps the files
/// for a later `Vault::stage` with the same id.
#[derive(Debug)]
pub struct Staging {
    owner: OwnerId,
    id: BackupId,
    owner_dir: PathBuf,
    dir: PathBuf,
    /// Older backups, newest first.
    older: Vec<Backup>,
    pub(super) entries: Entries,
    /// Folders that no stream named.
    pub(super) implied: BTreeSet<WorldPath>,
    filled: bool,
    pub(super) compared: bool,
    shared: BTreeSet<WorldPath>,
    known: Option<HashMap<(Content, u32), PathBuf>>,
    /// Held, not used: the lock goes with it.
    _lock: Lock,
}

/// A world that is being read. One of several paths comes as several streams; give each to `read`, then `finish`.
#[derive(Debug)]
pub struct Reading<'a> {
    staging: &'a mut Staging,
}

impl Reading<'_> {
    /// Takes in one tar stream. What it names must not have been named before.
    pub fn read(&mut self, stream: impl Read, selection: &Selection, shift: &Shift) -> Result<()> {
        stream::walk(stream, selection, shift, |item| self.staging.take(item))
    }

    /// There is no more of it. A world of which nothing was there is one too.
    pub fn finish(self) -> Result<()> {
        self.staging.filled = true;
        self.staging.save_draft()
    }
}

#[derive(Serialize, Deserialize)]
struct Draft {
    entries: Vec<Entry>,
    implied: BTreeSet<WorldPath>,
    shared: BTreeSet<WorldPath>,
    compared: bool,
}

impl Staging {
    pub(super) fn open(
        owner_dir: &Path,
        owner: &OwnerId,
        id: BackupId,
        older: Vec<Backup>,
        lock: Lock,
    ) -> Result<Self> {
        let dir = owner_dir.join(format!("{PARTIAL}{id}"));
        let tree = dir.join(manifest::TREE);
        fs::create_dir_all(&tree).at("create", &tree)?;
        let mut staging = Self {
            owner: owner.clone(),
            id,
            owner_dir: owner_dir.into(),
            dir,
            older,
            entries: BTreeMap::new(),
            implied: BTreeSet::new(),
            filled: false,
            compared: false,
            shared: BTreeSet::new(),
            known: None,
            _lock: lock,
        };
        staging.load_draft()?;
        Ok(staging)
    }

    pub fn id(&self) -> &BackupId {
        &self.id
    }

    /// The vault that this will be kept in.
    pub fn vault_dir(&self) -> &Path {
        self.owner_dir.parent().expect("an owner's folder lies in the vault")
    }

    /// Where rsync puts the files.
    pub fn tree(&self) -> PathBuf {
        self.dir.join(manifest::TREE)
    }

    /// For `rsync --link-dest`: the newest backup that is not suspicious. Use `--chmod=Fa-w` (or no `-p`), for
    /// stored files have no write bits and rsync links only what is alike; and never `--inplace`, which would
    /// write into files that older backups share.
    pub fn previous_tree(&self) -> Option<PathBuf> {
        let best = self.older.iter().find(|b| !b.suspicious()).or(self.older.first())?;
        Some(self.owner_dir.join(best.id.as_str()).join(manifest::TREE))
    }

    /// What has been read so far.
    pub fn size(&self) -> Size {
        let sizes = self.entries.values().filter_map(|entry| match &entry.kind {
            Kind::File { size, .. } => Some(*size),
            Kind::Dir | Kind::Link { .. } => None,
        });
        sizes.fold(Size { files: 0, bytes: 0 }, |all, bytes| Size { files: all.files + 1, bytes: all.bytes + bytes })
    }

    /// The world has been read to the end, in this process or in one before.
    pub fn is_filled(&self) -> bool {
        self.filled
    }

    /// Begins again with nothing.
    pub fn clear(&mut self) -> Result<()> {
        self.reopen()?;
        disk::remove_tree(&self.tree())?;
        fs::create_dir(self.tree()).at("create", &self.tree())
    }

    /// What was read before counts as read to the end no more, also after a crash. The files stay, for rsync to go on
    /// with.
    pub fn reopen(&mut self) -> Result<()> {
        self.entries.clear();
        self.implied.clear();
        self.shared.clear();
        (self.filled, self.compared) = (false, false);
        let draft = self.dir.join(DRAFT);
        if draft.exists() {
            fs::remove_file(&draft).at("delete", &draft)?;
            disk::sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Takes away what other stages of the same owner left. For a caller that gives an owner one backup to take at a time,
    /// and begins none before it has ended or given up the last one.
    pub fn drop_others(&self) -> Result<()> {
        for found in fs::read_dir(&self.owner_dir).at("read", &self.owner_dir)? {
            let other = found.at("read", &self.owner_dir)?;
            let stage = other.file_name().to_str().is_some_and(|name| name.starts_with(PARTIAL));
            if stage && other.path() != self.dir {
                disk::remove_tree(&other.path())?;
            }
        }
        Ok(())
    }

    /// Gives up: nothing stays of it.
    pub fn discard(self) -> Result<()> {
        disk::remove_tree(&self.dir)
    }

    /// Begins to read a world, with nothing. Until it is finished the stage holds no copy, whatever it held before.
    pub fn reading(&mut self) -> Result<Reading<'_>> {
        self.clear()?;
        Ok(Reading { staging: self })
    }

    /// The usual case, a world in one tar stream.
    pub fn unpack(&mut self, stream: impl Read, selection: &Selection, shift: &Shift) -> Result<()> {
        let mut reading = self.reading()?;
        reading.read(stream, selection, shift)?;
        reading.finish()
    }

    fn take(&mut self, item: Item<'_>) -> Result<()> {
        let Item { path, mode, mtime_ns, what } = item;
        self.make_way_to(&path, mtime_ns)?;
        let place = path.in_dir(&self.tree());
        let named_before = self.entries.contains_key(&path);
        let kind = match what {
            What::Dir => {
                match self.entries.get(&path).map(|e| &e.kind) {
                    None => fs::create_dir(&place).at("create", &place)?,
                    Some(Kind::Dir) => {}
                    Some(Kind::File { .. } | Kind::Link { .. }) => return Err(twice(&path)),
                }
                let open = fs::Permissions::from_mode(mode & 0o777 | 0o700);
                fs::set_permissions(&place, open).at("set the mode of", &place)?;
                self.implied.remove(&path);
                Kind::Dir
            }
            _ if named_before => return Err(twice(&path)),
            What::Link { to } => {
                std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&to), &place).at("create", &place)?;
                Kind::Link { to: LinkTarget(to) }
            }
            What::File { size, content } => {
                let (file, content) = disk::copy_new(content, &place, Error::Stream)?;
                if content.size != size {
                    return Err(Error::CutShort);
                }
                disk::set_mode_and_time(&file, &place, stored_mode(mode), mtime_ns)?;
                self.share(&path, &content, mode)?;
                let Content { size, hash } = content;
                Kind::File { size, hash }
            }
            What::SameAs(first) => {
                let Some(kind @ Kind::File { .. }) = self.entries.get(&first).map(|e| e.kind.clone()) else {
                    let why = format!("it is another name of {first}, which is not part of the world");
                    return Err(Error::refused(path.as_bytes(), why));
                };
                let first_place = first.in_dir(&self.tree());
                fs::hard_link(&first_place, &place).at("link", &place)?;
                self.shared.insert(path.clone());
                kind
            }
        };
        self.entries.insert(path.clone(), Entry { path, kind, mode, mtime_ns });
        Ok(())
    }

    /// Every folder above must be a folder that we made: never a link that leads elsewhere.
    fn make_way_to(&mut self, path: &WorldPath, mtime_ns: i64) -> Result<()> {
        let Some(parent) = path.parent().filter(|p| !p.is_root()) else {
            return Ok(());
        };
        match self.entries.get(&parent).map(|e| &e.kind) {
            Some(Kind::Dir) => return Ok(()),
            Some(Kind::File { .. } | Kind::Link { .. }) => {
                return Err(Error::refused(path.as_bytes(), format!("{parent} is not a folder")));
            }
            None => {}
        }
        self.make_way_to(&parent, mtime_ns)?;
        let place = parent.in_dir(&self.tree());
        fs::create_dir(&place).at("create", &place)?;
        self.implied.insert(parent.clone());
        let entry = Entry { path: parent.clone(), kind: Kind::Dir, mode: 0o755, mtime_ns };
        self.entries.insert(parent, entry);
        Ok(())
    }

    /// Puts a link to the same content in an older backup in place of the fresh copy.
    ///
    /// The older file is read and hashed first, every time: a manifest only says what the file was, and a link to
    /// a rotten one would make the new backup rotten too. That costs one more reading of what has not changed,
    /// which is little beside reading it over the network and writing it; and a file that has rotted is replaced
    /// by good bytes from here on. Where linking fails (too many links, a file system without), the copy stays.
    fn share(&mut self, path: &WorldPath, content: &Content, mode: u32) -> Result<()> {
        if content.size == 0 {
            return Ok(());
        }
        if self.known.is_none() {
            self.known = Some(self.files_of_older());
        }
        let key = (content.clone(), stored_mode(mode));
        let Some(old) = self.known.as_ref().and_then(|k| k.get(&key)) else {
            return Ok(());
        };
        if disk::hash_file(old).ok().as_ref() != Some(content) {
            return Ok(());
        }
        let beside = self.dir.join(".link");
        if fs::hard_link(old, &beside).is_err() {
            return Ok(());
        }
        let place = path.in_dir(&self.tree());
        fs::rename(&beside, &place).at("link", &place)?;
        self.shared.insert(path.clone());
        Ok(())
    }

    fn files_of_older(&self) -> HashMap<(Content, u32), PathBuf> {
        let mut known = HashMap::new();
        for backup in self.older.iter().take(DEDUPE_AGAINST_BACKUPS) {
            let dir = self.owner_dir.join(backup.id.as_str());
            // One that cannot be read has nothing to share; lists and verify tell of it.
            let Ok((_, entries)) = manifest::read(&dir, &self.owner, &backup.id) else {
                continue;
            };
            let tree = dir.join(manifest::TREE);
            for entry in entries.into_values() {
                if let Kind::File { size, hash } = entry.kind {
                    let key = (Content { size, hash }, stored_mode(entry.mode));
                    known.entry(key).or_insert_with(|| entry.path.in_dir(&tree));
                }
            }
        }
        known
    }

    /// Takes in what rsync put into `tree()`: reads and hashes every file.
    ///
    /// rsync takes size and time for sameness, so what it linked from an older backup is held against that
    /// backup's manifest; see `Adopted::rotten`. Large worlds take a while, and it ends as soon as it is wanted no more.
    ///
    /// # Errors
    /// `Unfinished` when it was not wanted to its end.
    pub fn adopt_tree(&mut self, wanted: impl Fn() -> bool) -> Result<Adopted> {
        self.reopen()?;
        let tree = self.tree();
        let older = self.inodes_of_older();
        let mut adopted = Adopted { files: 0, bytes: 0, rotten: Vec::new() };
        for found in walkdir::WalkDir::new(&tree).min_depth(1).sort_by_file_name() {
            if !wanted() {
                return Err(Error::Unfinished);
            }
            let found = found.map_err(io::Error::from).at("read", &tree)?;
            let place = found.path();
            let inside = place.strip_prefix(&tree).expect("walkdir stays below its root");
            let path = WorldPath::parse(inside.as_os_str().as_bytes())?;
            let stat = found.metadata().map_err(io::Error::from).at("read", place)?;
            let mtime_ns = stat.mtime().saturating_mul(1_000_000_000).saturating_add(stat.mtime_nsec());
            let mut mode = stat.mode() & 0o777;
            let kind = if stat.is_dir() {
                mode = stat.mode() & 0o3777;
                Kind::Dir
            } else if stat.is_symlink() {
                let to = fs::read_link(place).at("read", place)?.into_os_string().as_bytes().to_vec();
                check_link(&path, &to)?;
                Kind::Link { to: LinkTarget(to) }
            } else if stat.is_file() {
                let content = disk::hash_file(place)?;
                let inode = (stat.dev(), stat.ino());
                if older.get(&inode).is_some_and(|was| *was != content) {
                    fs::remove_file(place).at("delete", place)?;
                    adopted.rotten.push(path);
                    continue;
                }
                if older.contains_key(&inode) {
                    self.shared.insert(path.clone());
                } else {
                    let read_only = fs::Permissions::from_mode(stored_mode(mode));
                    fs::set_permissions(place, read_only).at("set the mode of", place)?;
                }
                adopted.files += 1;
                adopted.bytes += content.size;
                // rsync took the write bits off so that it could link; games write to their worlds.
                mode |= 0o200;
                Kind::File { size: content.size, hash: content.hash }
            } else {
                return Err(Error::refused(
                    path.as_bytes(),
                    "it is a device, a pipe or a socket; exclude it in the recipe",
                ));
            };
            self.entries.insert(path.clone(), Entry { path, kind, mode, mtime_ns });
        }
        self.filled = adopted.rotten.is_empty();
        if self.filled {
            self.save_draft()?;
        }
        Ok(adopted)
    }

    /// The caller has compared `tree()` with the quiescent original by content, as `rsync --checksum` does, and found
    /// no difference.
    ///
    /// # Errors
    /// `Unfinished` when there is nothing that could have been compared.
    pub fn mark_compared(&mut self) -> Result<()> {
        if !self.filled {
            return Err(Error::Unfinished);
        }
        self.compared = true;
        self.save_draft()
    }

    fn inodes_of_older(&self) -> HashMap<(u64, u64), Content> {
        let mut inodes = HashMap::new();
        for backup in &self.older {
            let dir = self.owner_dir.join(backup.id.as_str());
            let Ok((_, entries)) = manifest::read(&dir, &self.owner, &backup.id) else {
                continue;
            };
            for entry in entries.into_values() {
                let Kind::File { size, hash } = entry.kind else {
                    continue;
                };
                if let Ok(stat) = fs::symlink_metadata(entry.path.in_dir(&dir.join(manifest::TREE))) {
                    inodes.insert((stat.dev(), stat.ino()), Content { size, hash });
                }
            }
        }
        inodes
    }

    /// Makes it a backup: everything to the disk, then the manifest, then the name. Never refuses a world for what
    /// it looks like: bytes are better kept than dropped, and the flags say what to think of them.
    pub fn keep(self, meta: Meta) -> Result<Backup> {
        if !self.filled {
            return Err(Error::Unfinished);
        }
        let backup = self.judge(meta);
        // Latest first, for making something in a folder changes the folder's time.
        for entry in self.entries.values().rev().filter(|e| e.kind == Kind::Dir) {
            disk::set_dir(&entry.path.in_dir(&self.tree()), entry.mode & 0o777 | 0o700, entry.mtime_ns)?;
        }
        disk::sync_all_of(&self.dir)?;
        let text = manifest::to_text(&backup, &self.entries);
        manifest::write_whole(&self.dir.join(manifest::FILE), text.as_bytes())?;
        let home = self.owner_dir.join(self.id.as_str());
        fs::rename(&self.dir, &home).at("put in place", &home)?;
        disk::sync_dir(&self.owner_dir)?;
        // Only now, so that a `keep` that failed can be tried again. One that stays here harms nobody.
        let _ = fs::remove_file(home.join(DRAFT));
        Ok(backup)
    }

    fn judge(&self, meta: Meta) -> Backup {
        let mut size = Size { files: 0, bytes: 0 };
        let mut shared_bytes = 0;
        for entry in self.entries.values() {
            let Kind::File { size: bytes, .. } = &entry.kind else {
                continue;
            };
            size.files += 1;
            size.bytes += bytes;
            shared_bytes += if self.shared.contains(&entry.path) { *bytes } else { 0 };
        }
        Backup {
            owner: self.owner.clone(),
            id: self.id.clone(),
            meta,
            verified: self.compared,
            shrunk: self.older.first().and_then(|before| shrink(before.size(), size)),
            files: size.files,
            bytes: size.bytes,
            new_bytes: size.bytes - shared_bytes,
            shared_bytes,
            pinned: false,
            accepted: false,
        }
    }

    pub(super) fn save_draft(&self) -> Result<()> {
        // A draft that says "read to the end" must not be on the disk before the files are.
        disk::sync_all_of(&self.dir)?;
        let draft = Draft {
            entries: self.entries.values().cloned().collect(),
            implied: self.implied.clone(),
            shared: self.shared.clone(),
            compared: self.compared,
        };
        let text = serde_json::to_vec(&draft).expect("plain data with text keys becomes JSON");
        manifest::write_whole(&self.dir.join(DRAFT), &text)
    }

    fn load_draft(&mut self) -> Result<()> {
        let path = self.dir.join(DRAFT);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e).at("read", &path),
        };
        // It was written whole or not at all; one that makes no sense is the disk's doing, and reading the world
        // again is always right.
        let Ok(draft) = serde_json::from_slice::<Draft>(&text) else {
            return Ok(());
        };
        self.entries = draft.entries.into_iter().map(|e| (e.path.clone(), e)).collect();
        self.implied = draft.implied;
        self.shared = draft.shared;
        self.compared = draft.compared;
        self.filled = true;
        Ok(())
    }
}

/// Backups share files, so nobody may write to them.
fn stored_mode(mode: u32) -> u32 {
    mode & 0o555 | 0o400
}

fn twice(path: &WorldPath) -> Error {
    Error::refused(path.as_bytes(), "the stream names it twice")
}
