//! The vault's few ways of touching files: copy while hashing, hash, set times, make durable.

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use rustix::fs::OFlags;

use super::error::{At, Result};

const BUFFER_BYTES: usize = 128 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub size: u64,
    pub hash: String,
}

/// Reads to the end and hands each piece to `each`.
pub(super) fn hash(
    mut from: impl Read,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
    failed: impl Fn(io::Error) -> super::Error,
) -> Result<Content> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut size = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                each(size, &buffer[..n])?;
                hasher.update(&buffer[..n]);
                size += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(Content { size, hash: hasher.finalize().to_hex().to_string() })
}

/// Fills a new file; long runs of zeros become holes, so that a sparse world does not grow.
pub(super) fn copy_new(
    from: impl Read,
    to: &Path,
    failed: impl Fn(io::Error) -> super::Error,
) -> Result<(File, Content)> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).at("create", to)?;
    let write = |at: u64, piece: &[u8]| {
        if piece.iter().all(|b| *b == 0) {
            return Ok(());
        }
        file.write_all_at(piece, at).at("write", to)
    };
    let content = hash(from, write, failed)?;
    file.set_len(content.size).at("write", to)?;
    Ok((file, content))
}

/// Never through a symbolic link: what was a file may have been replaced.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    Ok(file)
}

pub(super) fn hash_file(path: &Path) -> Result<Content> {
    let file = open(path).at("read", path)?;
    hash(&file, |_, _| Ok(()), |e| Err::<(), _>(e).at("read", path).expect_err("an error stays one"))
}

/// As `hash_file`, and asks the kernel to forget its copy first, so that the disk answers and not the memory of
/// what was written. The kernel may decline; then the answer is as good as any program's.
pub(super) fn hash_from_disk(path: &Path) -> Result<Content> {
    let file = open(path).at("read", path)?;
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    drop(file);
    hash_file(path)
}

pub(super) fn set_mode_and_time(file: &File, path: &Path, mode: u32, mtime_ns: i64) -> Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode)).at("set the mode of", path)?;
    set_time(file, path, mtime_ns)
}

fn set_time(file: &File, path: &Path, mtime_ns: i64) -> Result<()> {
    let far = Duration::from_nanos(mtime_ns.unsigned_abs());
    let time = if mtime_ns < 0 { SystemTime::UNIX_EPOCH - far } else { SystemTime::UNIX_EPOCH + far };
    file.set_times(FileTimes::new().set_modified(time)).at("set the time of", path)
}

pub(super) fn set_dir(path: &Path, mode: u32, mtime_ns: i64) -> Result<()> {
    // Opened before the mode is set: afterwards we might not be allowed to.
    let dir = File::open(path).at("open", path)?;
    set_mode_and_time(&dir, path, mode, mtime_ns)
}

/// Everything written so far on this file system is on the disk when this returns. One call for the whole tree:
/// `fsync` on each of 20,000 small files waits for the journal 20,000 times.
pub(super) fn sync_all_of(dir: &Path) -> Result<()> {
    let file = File::open(dir).at("open", dir)?;
    rustix::fs::syncfs(&file).map_err(io::Error::from).at("write to the disk", dir)
}

pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).at("write to the disk", dir)
}

/// Deletes a tree, also one whose folders cannot be written, and is content when it is gone already.
pub(super) fn remove_tree(dir: &Path) -> Result<()> {
    if fs::symlink_metadata(dir).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    for entry in walkdir::WalkDir::new(dir) {
        // Only a folder that cannot be entered fails here; then remove_dir_all below says so.
        let Ok(entry) = entry else { continue };
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700)).at("open up", entry.path())?;
        }
    }
    fs::remove_dir_all(dir).at("delete", dir)
}
