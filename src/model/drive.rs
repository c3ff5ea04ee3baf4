//! Drives and snapshots: names, what stands on what, and what may be deleted.

use super::world::{BackupId, WorldAt};
use super::{Ms, ServerId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A snapshot's name: the game and a version counted up from 1, for instance `openttd-3`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub String);

impl SnapshotId {
    pub fn new(game: &str, version: i64) -> SnapshotId {
        SnapshotId(format!("{game}-{version}"))
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A server's writable overlay on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriveRef {
    /// Also the name of its volume and its folder.
    pub id: String,
    pub snapshot: SnapshotId,
    pub world: WorldAt,
}

impl DriveRef {
    /// The world that a start has to push first: the server's present one, unless the drive holds it or something newer.
    pub fn must_push<'a>(&self, present: Option<&'a BackupId>) -> Option<&'a BackupId> {
        match (&self.world, present) {
            (WorldAt::Played, _) | (_, None) => None,
            (WorldAt::Backup(held), Some(present)) if held == present => None,
            (WorldAt::Empty | WorldAt::Backup(_), Some(present)) => Some(present),
        }
    }
}

/// A read-only install that drives are cloned from. Only a sealed one is ever cloned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub id: SnapshotId,
    pub game: String,
    pub version: i64,
    /// The container image that its servers run in.
    pub image: String,
    /// Hash of the recipe's parts that made its files; another hash means that the recipe has moved on.
    pub install_key: String,
    pub files: Option<i64>,
    pub bytes: Option<i64>,
    pub created_at: Ms,
    /// `None` while it is being built: nobody stands on it.
    pub sealed_at: Option<Ms>,
}

/// The snapshot that a game's next drive is cloned from: the newest sealed one.
pub fn golden<'a>(snapshots: &'a [Snapshot], game: &str) -> Option<&'a Snapshot> {
    snapshots
        .iter()
        .filter(|snapshot| snapshot.game == game && snapshot.sealed_at.is_some())
        .max_by_key(|snapshot| snapshot.version)
}

/// Who stands on a snapshot, and so keeps it from being deleted.
pub fn users_of<'a>(
    snapshot: &SnapshotId,
    drives: impl IntoIterator<Item = (&'a ServerId, &'a DriveRef)>,
) -> Vec<&'a ServerId> {
    drives.into_iter().filter(|(_, drive)| drive.snapshot == *snapshot).map(|(server, _)| server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(world: WorldAt) -> DriveRef {
        DriveRef { id: "d".into(), snapshot: SnapshotId::new("openttd", 1), world }
    }

    #[test]
    fn a_world_is_pushed_only_where_the_drive_does_not_hold_it_or_something_newer() {
        let (old, new) = (BackupId("1".into()), BackupId("2".into()));
        assert_eq!(drive(WorldAt::Empty).must_push(None), None);
        assert_eq!(drive(WorldAt::Empty).must_push(Some(&new)), Some(&new));
        assert_eq!(drive(WorldAt::Backup(new.clone())).must_push(Some(&new)), None);
        assert_eq!(drive(WorldAt::Backup(old)).must_push(Some(&new)), Some(&new));
        assert_eq!(drive(WorldAt::Played).must_push(Some(&new)), None);
    }
}
