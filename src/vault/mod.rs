//! Backups of worlds: take, verify, list, restore, retire.
//!
//! A backup is a plain directory and a manifest, `<root>/<owner>/<backup id>/{manifest.json, files/…}`; files
//! that did not change are hard links to the backup before. There is no database: what is on the disk is all
//! there is, and a person restores with `cp -a files/. WHERE/`. The vault knows nothing of servers, hosts or
//! containers: an owner is an opaque id, and worlds come and go as tar streams or directories. All of it is
//! ordinary blocking code; async callers use `spawn_blocking`. docs/decisions/0003-vault.md argues for the
//! design. Read `keeper` for the vault itself, `stage` for how a backup comes to be, `retire` for how one goes.

mod compare;
mod disk;
mod error;
mod keeper;
mod manifest;
mod name;
mod restore;
mod retire;
mod select;
mod stage;
mod stream;

pub use compare::{Comparing, Comparison, Difference};
pub use error::{Error, Result};
pub use keeper::{Listed, Report, Usage, Vault};
pub use manifest::{Backup, Entry, Kind, LinkTarget, Meta, Reason};
pub use name::{BackupId, OwnerId, WorldPath};
pub use restore::Pack;
pub use retire::{Policy, SHRINK_FLOOR_BYTES, SHRINK_FLOOR_FILES, Shrink, Size, rather, retire, shrink};
pub use select::{Selection, Shift};
pub use stage::{Adopted, Reading, Staging};
