//! The world of a server as far as the engine must know it: which backup is which, and where the newest one is.

use super::Ms;
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

impl BackupId {
    /// When it was taken, which its name begins with; `None` for a name that is none of the vault's.
    pub fn taken_at(&self) -> Option<Ms> {
        let (time, _) = self.0.split_once('-')?;
        let at = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        Some(at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backups_name_says_when_it_was_taken() {
        assert_eq!(BackupId("19700102T000001Z-4f1c".into()).taken_at(), Some(86_401_000));
        for text in ["", "backup-1", "19700102T000001Z", "19701302T000001Z-4f1c"] {
            assert_eq!(BackupId(text.into()).taken_at(), None, "{text}");
        }
    }
}
