//! What can go wrong in the vault, one clear sentence each.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::name::{BackupId, OwnerId, WorldPath};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Apart from the other faults of a disk, because a person can mend it and the same step then succeeds.
    #[error("there is no space left on the disk for {}", path.display())]
    NoSpace { path: PathBuf },
    #[error("another backup of {owner} is being taken right now")]
    Busy { owner: OwnerId },
    #[error("backup {id} of {owner} has been kept already")]
    AlreadyKept { owner: OwnerId, id: BackupId },
    #[error("there is no backup {id} of {owner}")]
    NoSuchBackup { owner: OwnerId, id: BackupId },
    #[error("backup {id} is broken: {why}")]
    Broken { id: BackupId, why: String },
    #[error("{text:?} is not {wanted}")]
    BadName { text: String, wanted: &'static str },
    #[error("the pattern {pattern:?} cannot be read: {why}")]
    BadPattern { pattern: String, why: String },
    #[error("the world holds something that a backup cannot keep, {path:?}: {why}")]
    Refused { path: String, why: String },
    #[error("the stream of the world broke off: {0}")]
    Stream(#[source] io::Error),
    #[error("the stream of the world ended before its end mark, so files may be missing")]
    CutShort,
    #[error("the backup holds no finished copy of the world yet")]
    Unfinished,
    #[error("{} is not empty; a world is restored into a fresh folder only", .0.display())]
    NotEmpty(PathBuf),
    #[error("could not write the world out: {0}")]
    Sink(#[source] io::Error),
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

impl Error {
    pub(super) fn refused(path: &[u8], why: impl Into<String>) -> Self {
        Self::Refused { path: String::from_utf8_lossy(path).into_owned(), why: why.into() }
    }

    pub(super) fn rotten(id: &BackupId, path: &WorldPath, why: &str) -> Self {
        Self::Broken { id: id.clone(), why: format!("{path} {why}") }
    }
}

/// Says what was being done to which path when the system refused.
pub(super) trait At<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, doing: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace { path: path.into() },
            _ => Error::Io { doing, path: path.into(), source },
        })
    }
}
