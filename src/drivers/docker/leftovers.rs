//! What a crash or an abandoned job left among drives and snapshots, and what can go without asking anybody: half
//! deletions, and snapshots that are on nobody's record. A drive may hold the only copy of a world, so one that nobody
//! has on record is shown to people (`orphans`) and left alone.

use super::drives::DRIVES;
use super::folders::{clear, is_going, names_in, remove};
use super::snapshots::SNAPSHOTS;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// What lies there. Looked for before the record is read: what somebody makes and writes down meanwhile is not in it.
pub struct Leftovers {
    data_dir: PathBuf,
    drives: Vec<String>,
    snapshots: Vec<String>,
}

/// What is on record.
pub struct OnRecord {
    pub drives: HashSet<String>,
    pub snapshots: HashSet<String>,
    /// An open job makes a snapshot, which has a folder before it is on record.
    pub building: bool,
}

impl Leftovers {
    pub fn find(data_dir: &Path) -> io::Result<Leftovers> {
        let (drives, snapshots) = (names_in(&data_dir.join(DRIVES))?, names_in(&data_dir.join(SNAPSHOTS))?);
        Ok(Leftovers { data_dir: data_dir.to_owned(), drives, snapshots })
    }

    /// Takes away what nobody wants. Returns what went.
    ///
    /// # Errors
    /// Of the first folder that could not be cleared.
    pub fn clear(&self, record: &OnRecord) -> io::Result<Vec<PathBuf>> {
        let mut gone = vec![];
        for (folder, names) in [(DRIVES, &self.drives), (SNAPSHOTS, &self.snapshots)] {
            for name in names.iter().filter(|name| is_going(name)) {
                let path = self.data_dir.join(folder).join(name);
                clear(&path)?;
                gone.push(path);
            }
        }
        for name in self.nobodys_snapshots(record) {
            let path = self.data_dir.join(SNAPSHOTS).join(name);
            remove(&path)?;
            gone.push(path);
        }
        Ok(gone)
    }

    /// None where a drive is found that nobody has on record, as when an older database was put back: it may stand on one
    /// of them.
    fn nobodys_snapshots(&self, record: &OnRecord) -> Vec<&str> {
        let strange_drive = self.drives.iter().any(|name| !is_going(name) && !record.drives.contains(name));
        if record.building || strange_drive {
            return vec![];
        }
        let ours = |name: &str| name.rsplit_once('-').is_some_and(|(_, version)| version.parse::<i64>().is_ok());
        let names = self.snapshots.iter().map(String::as_str);
        names.filter(|name| ours(name) && !is_going(name) && !record.snapshots.contains(*name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_snapshot_goes_only_where_nobody_can_want_it() {
        let left = |drives: &[&str], building: bool| {
            let snapshots = names(&["toy-1", "toy-2", ".deleting-toy-3", "a-note", "notes"]);
            let found = Leftovers { data_dir: PathBuf::new(), drives: names(drives), snapshots };
            let record = OnRecord {
                drives: HashSet::from(["server-7".to_owned()]),
                snapshots: HashSet::from(["toy-2".to_owned()]),
                building,
            };
            found.nobodys_snapshots(&record).join(" ")
        };
        assert_eq!(left(&[], false), "toy-1");
        assert_eq!(left(&["server-7", ".deleting-server-5"], false), "toy-1");
        assert_eq!(left(&["server-7", "server-8"], false), "");
        assert_eq!(left(&["server-7"], true), "");
    }

    #[test]
    fn half_a_deletion_is_cleared_and_what_has_a_name_stays() {
        let home = tempfile::tempdir().unwrap();
        let there = |path: &str| home.path().join(path).exists();
        for path in ["drives/.deleting-one/upper", "drives/one/upper/world", "snapshots/.deleting-toy-1/files"] {
            std::fs::create_dir_all(home.path().join(path)).unwrap();
        }
        let record = OnRecord { drives: HashSet::new(), snapshots: HashSet::new(), building: false };
        let gone = Leftovers::find(home.path()).unwrap().clear(&record).unwrap();
        assert_eq!(gone.len(), 2, "{gone:?}");
        assert!(there("drives/one/upper/world") && !there("drives/.deleting-one"));
        assert!(!there("snapshots/.deleting-toy-1"));
        let nowhere = Leftovers::find(&home.path().join("nowhere")).unwrap();
        assert!(nowhere.clear(&record).unwrap().is_empty());
    }
}
