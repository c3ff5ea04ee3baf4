//! The world of a server as far as the engine must know it: which backup is which, and where the newest one is.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A backup's name in the vault, for instance `20261121T075309Z-4f1c`: sorts by time and reads as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackupId(pub String);

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a drive's world is, compared with the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorldAt {
    /// Freshly cloned: no world was pushed and no game has run on it.
    Empty,
    /// Exactly this backup: pushed from it, or just kept as it.
    Backup(BackupId),
    /// A game has run on it since: newer than anything in the vault.
    Played,
}
