//! Proves a copy: the stored files, read back from the disk, against a second reading of the original.

use std::{collections::BTreeSet, io::Read};

use super::{
    disk,
    error::{Error, Result},
    manifest::{Entries, Kind},
    name::WorldPath,
    select::{Selection, Shift},
    stage::Staging,
    stream::{self, What},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub path: WorldPath,
    /// For people: "the original has 12 bytes, the copy 10".
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// How many things are the same on both sides.
    pub same: u64,
    /// In the original and not in the copy.
    pub missing: Vec<WorldPath>,
    /// In the copy and not in the original.
    pub extra: Vec<WorldPath>,
    pub differing: Vec<Difference>,
}

impl Comparison {
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.extra.is_empty() && self.differing.is_empty()
    }
}

/// A comparison under way. A world of several paths comes as several streams; give each to `read`, then `finish`.
pub struct Comparing<'a> {
    staging: &'a mut Staging,
    seen: BTreeSet<WorldPath>,
    found: Comparison,
}

impl Staging {
    pub fn comparing(&mut self) -> Result<Comparing<'_>> {
        if !self.is_filled() {
            return Err(Error::Unfinished);
        }
        self.compared = false;
        // What is not on the disk yet cannot be read back from it.
        disk::sync_all_of(&self.tree())?;
        Ok(Comparing { staging: self, seen: BTreeSet::new(), found: Comparison::default() })
    }

    /// The usual case, a world in one stream.
    pub fn compare(&mut self, original: impl Read, selection: &Selection, shift: &Shift) -> Result<Comparison> {
        let mut comparing = self.comparing()?;
        comparing.read(original, selection, shift)?;
        comparing.finish()
    }
}

impl Comparing<'_> {
    pub fn read(&mut self, original: impl Read, selection: &Selection, shift: &Shift) -> Result<()> {
        let tree = self.staging.tree();
        let entries = &self.staging.entries;
        let (seen, found) = (&mut self.seen, &mut self.found);
        stream::walk(original, selection, shift, |item| {
            let path = item.path;
            let ours = entries.get(&path).map(|e| &e.kind);
            let why = match (item.what, ours) {
                (_, None) => {
                    found.missing.push(path.clone());
                    seen.insert(path);
                    return Ok(());
                }
                (What::Dir, Some(Kind::Dir)) => None,
                (What::Link { to }, Some(Kind::Link { to: ours })) => {
                    (to != ours.0).then(|| "the links point to different places".to_owned())
                }
                (What::SameAs(first), Some(Kind::File { .. })) => match (file(entries, &first), file(entries, &path)) {
                    (Some(theirs), Some(ours)) if theirs == ours => differs(theirs, &tree, &path)?,
                    _ => Some(format!("the original is the same file as {first}, the copy is not")),
                },
                (What::File { size, content }, Some(Kind::File { .. })) => {
                    let theirs = disk::hash(content, |_, _| Ok(()), Error::Stream)?;
                    if theirs.size != size {
                        return Err(Error::CutShort);
                    }
                    differs(theirs, &tree, &path)?
                }
                (_, Some(_)) => Some("they are of different kinds".to_owned()),
            };
            match why {
                Some(why) => found.differing.push(Difference { path: path.clone(), why }),
                None => found.same += 1,
            }
            seen.insert(path);
            Ok(())
        })
    }

    pub fn finish(mut self) -> Result<Comparison> {
        for entry in self.staging.entries.values() {
            // A folder that only a file's name implied need not be in a stream.
            if !self.seen.contains(&entry.path) && !self.staging.implied.contains(&entry.path) {
                self.found.extra.push(entry.path.clone());
            }
        }
        self.staging.compared = self.found.is_whole();
        self.staging.save_draft()?;
        Ok(self.found)
    }
}

fn file(entries: &Entries, path: &WorldPath) -> Option<disk::Content> {
    match &entries.get(path)?.kind {
        Kind::File { size, hash } => Some(disk::Content { size: *size, hash: hash.clone() }),
        Kind::Dir | Kind::Link { .. } => None,
    }
}

fn differs(theirs: disk::Content, tree: &std::path::Path, path: &WorldPath) -> Result<Option<String>> {
    let ours = match disk::hash_from_disk(&path.in_dir(tree)) {
        Ok(ours) => ours,
        // A copy that cannot be read back is no copy.
        Err(e) => return Ok(Some(e.to_string())),
    };
    Ok(if ours.size != theirs.size {
        Some(format!("the original has {} bytes, the copy {}", theirs.size, ours.size))
    } else {
        (ours.hash != theirs.hash).then(|| "the contents differ".to_owned())
    })
}
