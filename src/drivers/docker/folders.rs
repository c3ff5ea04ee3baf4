//! Folders on this machine: made for the user games run as, deleted so that a crash leaves no half one under its name, and
//! written to the disk. What is in them is for `drives` and `snapshots` to know.

use crate::drivers::sync_dir;
use crate::engine::StepError;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// What a folder is called while it is being deleted.
const DELETING: &str = ".deleting-";
/// So little room that what ended for want of it is told from what ended for another reason.
const FULL_BYTES: u64 = 1 << 20;

/// A folder that belongs to the user games run as. Only root can give it away, and everybody else already is that user.
pub(super) fn make_dir(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    give(path, owner)
}

/// The same in a folder that must be there: where that was deleted meanwhile, it stays deleted.
pub(super) fn make_dir_in_place(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    std::fs::create_dir(path)?;
    give(path, owner)
}

fn give(path: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    let found = std::fs::metadata(path)?;
    if (found.uid(), found.gid()) != (uid, gid) {
        chown(path, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// Deletes a folder under another name, so that under its own it is all there or not there at all. What a crash leaves
/// is cleared at the next start.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let (Some(around), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let doomed = around.join(format!("{DELETING}{}", name.to_string_lossy()));
    if !dir.exists() {
        // Nobody counts on it any more, so what does not go now is left to the next start.
        if let Err(error) = clear(&doomed) {
            tracing::warn!("The rest of a deletion could not be cleared away, {}: {error}", doomed.display());
        }
        return Ok(());
    }
    clear(&doomed)?;
    std::fs::rename(dir, &doomed)?;
    sync_dir(around)?;
    clear(&doomed)
}

/// Whether a folder goes by this name only until it is deleted.
pub(super) fn is_going(name: &str) -> bool {
    name.starts_with(DELETING)
}

/// Deletes a whole tree that is ours, with what the kernel leaves in it: an overlay's `work/work` belongs to root with
/// no permissions at all, is empty, and can be removed but not entered.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path.join("work").join("work")) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::NotADirectory => {}
        // Not empty: then it is no overlay's, and the walk below meets it.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
        Err(error) => return Err(error),
    }
    // Sealed and read-only folders must be writable before what is in them can go.
    for entry in walkdir::WalkDir::new(path).into_iter() {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {
                let mode = entry.metadata().map_err(io::Error::from)?.permissions().mode();
                if mode & 0o700 != 0o700 {
                    std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode | 0o700))?;
                }
            }
            Ok(_) => {}
            Err(error) if error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What lies in a folder; nothing where there is none.
pub(super) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(error),
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect(),
    }
}

/// Everything written so far on the file system of this folder is on the disk when this returns. Whatever was written
/// through an overlay or by another user is there too.
pub(super) fn to_disk(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(dir)?)?)
}

/// Whether nothing more goes onto the disk that this lies on.
pub(super) fn is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|found| found.f_bavail * found.f_frsize < FULL_BYTES || found.f_favail == 0)
}

/// A full disk is named as such: it is the one failure here that people can mend.
pub(super) fn disk_error(what: &str) -> impl FnOnce(io::Error) -> StepError + '_ {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            StepError::fatal(format!("{what}: the disk is full. Free some space and try again."))
        }
        _ => StepError::fatal(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_sealed_folders_is_cleared() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("drive/files/sealed");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("file"), "x").unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o555)).unwrap();
        clear(&home.path().join("drive")).unwrap();
        assert!(!home.path().join("drive").exists());
        clear(&home.path().join("drive")).unwrap();
    }
}
