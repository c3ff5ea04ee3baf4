//! The way back: a backup as a tar stream, or as a fresh folder. Every file is checked against its hash on the way.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
};

use super::{
    disk,
    error::{At, Error, Result},
    keeper::Vault,
    manifest::{Entry, Kind, TREE},
    name::{BackupId, OwnerId, WorldPath},
};

/// How a packed world should look to the one who unpacks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack<'a> {
    /// Put before every name; its last folder is in the stream too, so that it gets the owner.
    pub prefix: &'a str,
    pub uid: u64,
    pub gid: u64,
}

impl Vault {
    /// Writes the world as a tar stream. On any error the end mark is missing, so that the reader notices too;
    /// what it has unpacked until then is not a world.
    pub fn pack(&self, owner: &OwnerId, id: &BackupId, to: impl Write, how: &Pack<'_>) -> Result<()> {
        let (_, entries) = self.entries(owner, id)?;
        let tree = self.home(owner, id).join(TREE);
        let prefix = WorldPath::parse(how.prefix.as_bytes())?;
        let mut builder = Unended::new(to);
        if !prefix.is_root() {
            let top = Entry {
                path: WorldPath::root(),
                kind: Kind::Dir,
                mode: 0o755,
                mtime_ns: entries.values().map(|e| e.mtime_ns).max().unwrap_or(0),
            };
            builder.get().append_data(&mut header(&top, how), prefix.as_path(), io::empty()).map_err(Error::Sink)?;
        }
        // By name alone `saves.txt` comes between `saves` and what is in it, and GNU tar then takes the folder for done.
        let mut entries: Vec<&Entry> = entries.values().collect();
        entries.sort_by(|a, b| a.path.as_path().cmp(b.path.as_path()));
        for entry in entries {
            let mut header = header(entry, how);
            let path = entry.path.under(&prefix);
            match &entry.kind {
                Kind::Dir => builder.get().append_data(&mut header, path.as_path(), io::empty()),
                Kind::Link { to } => {
                    let to = Path::new(std::ffi::OsStr::from_bytes(&to.0));
                    builder.get().append_link(&mut header, path.as_path(), to)
                }
                Kind::File { size, hash } => {
                    let rotten = |why: &str| Error::rotten(id, &entry.path, why);
                    let file =
                        disk::open(&entry.path.in_dir(&tree)).map_err(|e| rotten(&format!("cannot be read: {e}")))?;
                    let mut checked = Checked { file, left: *size, hasher: blake3::Hasher::new(), short: None };
                    let done = builder.get().append_data(&mut header, path.as_path(), &mut checked);
                    if let Some(why) = checked.short {
                        return Err(rotten(&why));
                    }
                    if done.is_ok() && checked.hasher.finalize().to_hex().as_str() != hash {
                        return Err(rotten("is not what it was"));
                    }
                    done
                }
            }
            .map_err(Error::Sink)?;
        }
        builder.end().map_err(Error::Sink)
    }

    /// Writes the world into a folder that is empty or not there, for whoever wants to look at it; drivers take it as a
    /// stream. Copies, never links: what plays on it writes to it. On an error the folder is not a world, and is the
    /// caller's to delete.
    pub fn restore_to(&self, owner: &OwnerId, id: &BackupId, dir: &Path) -> Result<()> {
        let (_, entries) = self.entries(owner, id)?;
        let tree = self.home(owner, id).join(TREE);
        fs::create_dir_all(dir).at("create", dir)?;
        if fs::read_dir(dir).at("read", dir)?.next().is_some() {
            return Err(Error::NotEmpty(dir.into()));
        }
        for entry in entries.values() {
            let place = entry.path.in_dir(dir);
            match &entry.kind {
                Kind::Dir => fs::create_dir(&place).at("create", &place)?,
                Kind::Link { to } => {
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(&to.0), &place).at("create", &place)?;
                }
                Kind::File { size, hash } => {
                    let rotten = |why: &str| Error::rotten(id, &entry.path, why);
                    let failed = |e: io::Error| rotten(&format!("cannot be read: {e}"));
                    let from = disk::open(&entry.path.in_dir(&tree)).map_err(failed)?;
                    let (file, content) = disk::copy_new(&from, &place, failed)?;
                    if content.size != *size || content.hash != *hash {
                        return Err(rotten("is not what it was"));
                    }
                    disk::set_mode_and_time(&file, &place, entry.mode, entry.mtime_ns)?;
                }
            }
        }
        // Last and from below, for a folder may be read-only, and its time changes with what is put into it.
        for entry in entries.values().rev().filter(|e| e.kind == Kind::Dir) {
            disk::set_dir(&entry.path.in_dir(dir), entry.mode, entry.mtime_ns)?;
        }
        disk::sync_all_of(dir)
    }
}

fn header(entry: &Entry, how: &Pack<'_>) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let (kind, size) = match &entry.kind {
        Kind::Dir => (tar::EntryType::Directory, 0),
        Kind::File { size, .. } => (tar::EntryType::Regular, *size),
        Kind::Link { .. } => (tar::EntryType::Symlink, 0),
    };
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(entry.mode);
    header.set_uid(how.uid);
    header.set_gid(how.gid);
    header.set_mtime(u64::try_from(entry.mtime_ns.div_euclid(1_000_000_000)).unwrap_or(0));
    header
}

/// Exactly the promised number of bytes, hashed as they pass. A shorter file would shift all that follows.
struct Checked {
    file: fs::File,
    left: u64,
    hasher: blake3::Hasher,
    short: Option<String>,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let n = match self.file.read(&mut buffer[..most]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Err(e),
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            other => other,
        };
        let n = n.inspect_err(|e| self.short = Some(format!("cannot be read to its end: {e}")))?;
        self.hasher.update(&buffer[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// A dropped `tar::Builder` writes the end mark; this one does not unless told to, or half a world would look whole.
struct Unended<W: Write>(tar::Builder<Stoppable<W>>);

struct Stoppable<W> {
    to: W,
    stopped: bool,
}

impl<W: Write> Unended<W> {
    fn new(to: W) -> Self {
        Self(tar::Builder::new(Stoppable { to, stopped: false }))
    }

    fn get(&mut self) -> &mut tar::Builder<Stoppable<W>> {
        &mut self.0
    }

    fn end(mut self) -> io::Result<()> {
        self.0.finish()?;
        self.0.get_mut().flush()
    }
}

impl<W: Write> Drop for Unended<W> {
    fn drop(&mut self) {
        self.0.get_mut().stopped = true;
    }
}

impl<W: Write> Write for Stoppable<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stopped {
            return Err(io::Error::other("the stream was given up"));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}
