//! Which backups may go, and when a world has become suspiciously small. Pure: plain data in, plain data out.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{manifest::Backup, name::BackupId};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A world below both of these may lose half of itself without a word: a fresh world is still finding its size.
pub const SHRINK_FLOOR_BYTES: u64 = 64 * 1024;
pub const SHRINK_FLOOR_FILES: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub files: u64,
    pub bytes: u64,
}

/// A world that is much smaller than in the backup before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrink {
    pub was: Size,
    pub now: Size,
}

/// Is this still the same world? Nothing left of anything is always a shrink. Otherwise less than half of the
/// bytes, or less than half of the files, where there were enough of them to tell.
pub fn shrink(was: Size, now: Size) -> Option<Shrink> {
    let empty = was.files > 0 && now.files == 0 || was.bytes > 0 && now.bytes == 0;
    let lighter = was.bytes >= SHRINK_FLOOR_BYTES && now.bytes < was.bytes.div_ceil(2);
    let fewer = was.files >= SHRINK_FLOOR_FILES && now.files < was.files.div_ceil(2);
    (empty || lighter || fewer).then_some(Shrink { was, now })
}

/// How many backups to keep. A backup stays when any of the three counts keeps it, and it is not too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The newest so many.
    pub keep_last: usize,
    /// One for each of the last so many days (UTC) that have any.
    pub keep_daily: usize,
    /// One for each of the last so many weeks (from Monday, UTC) that have any.
    pub keep_weekly: usize,
    /// Older ones go, whatever the counts say.
    pub max_age_days: Option<u32>,
}

/// What to delete of one owner's readable backups. Broken ones are for people to judge and are never among them.
///
/// Whatever the policy says, these stay: the newest; the newest good one (verified and not suspicious); what a
/// person pinned; a suspicious one, until a person accepts or deletes it; and, beside each suspicious one, the
/// one just before it and the newest good one before it. A day or week is represented by its newest good backup,
/// or by its newest where none is good.
pub fn retire(now_ms: i64, backups: &[Backup], policy: &Policy) -> Vec<BackupId> {
    let mut newest_first: Vec<&Backup> = backups.iter().collect();
    newest_first.sort_by(|a, b| b.id.cmp(&a.id));

    let protected = protected(&newest_first);
    let mut wanted: BTreeSet<&BackupId> = newest_first.iter().take(policy.keep_last).map(|b| &b.id).collect();
    let day = |b: &Backup| b.meta.taken_at_ms.div_euclid(DAY_MS);
    wanted.extend(one_for_each(&newest_first, policy.keep_daily, day));
    // 1970 began on a Thursday: three days later weeks begin on Mondays.
    wanted.extend(one_for_each(&newest_first, policy.keep_weekly, |b| (day(b) + 3).div_euclid(7)));

    let too_old = |b: &Backup| {
        policy.max_age_days.is_some_and(|days| now_ms.saturating_sub(b.meta.taken_at_ms) > i64::from(days) * DAY_MS)
    };
    newest_first
        .into_iter()
        .filter(|b| !protected.contains(&b.id) && (!wanted.contains(&b.id) || too_old(b)))
        .map(|b| b.id.clone())
        .collect()
}

/// The newest good backup to go back to, where nobody should begin with `present` without a word from a person: it was
/// taken while the game was writing, or the world has become much smaller since and nobody has accepted that, however
/// many backups of the smaller one were taken after it.
pub fn rather<'a>(present: &BackupId, backups: &'a [Backup]) -> Option<&'a Backup> {
    let now = backups.iter().find(|b| b.id == *present)?;
    let newest_good = |before: Option<&BackupId>| {
        let older = backups.iter().filter(|b| b.good() && before.is_none_or(|before| b.id < *before));
        older.max_by(|a, b| a.id.cmp(&b.id))
    };
    if !now.verified
        && let Some(good) = newest_good(None)
    {
        return Some(good);
    }
    let mut shrunk: Vec<&Backup> = backups.iter().filter(|b| b.suspicious() && b.id <= now.id).collect();
    shrunk.sort_by(|a, b| b.id.cmp(&a.id));
    let before = shrunk.into_iter().filter_map(|b| newest_good(Some(&b.id)));
    before.into_iter().find(|good| shrink(good.size(), now.size()).is_some())
}

fn protected<'a>(newest_first: &[&'a Backup]) -> BTreeSet<&'a BackupId> {
    let mut stay = BTreeSet::new();
    let newest_and_good = |of: &[&'a Backup]| {
        let good = of.iter().find(|b| b.good());
        of.first().into_iter().chain(good).map(|b| &b.id).collect::<Vec<_>>()
    };
    stay.extend(newest_and_good(newest_first));
    for (at, backup) in newest_first.iter().enumerate() {
        if backup.pinned {
            stay.insert(&backup.id);
        }
        if backup.suspicious() {
            stay.insert(&backup.id);
            stay.extend(newest_and_good(&newest_first[at + 1..]));
        }
    }
    stay
}

fn one_for_each<'a>(newest_first: &[&'a Backup], count: usize, span: impl Fn(&Backup) -> i64) -> Vec<&'a BackupId> {
    let mut spans: BTreeMap<i64, &'a Backup> = BTreeMap::new();
    for backup in newest_first {
        let kept = spans.entry(span(backup)).or_insert(backup);
        if !kept.good() && backup.good() {
            *kept = backup;
        }
    }
    spans.values().rev().take(count).map(|b| &b.id).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vault::{Meta, OwnerId, Reason};

    /// `flags`: v verified, s suspicious, a accepted, p pinned.
    fn backup(day: i64, flags: &str) -> Backup {
        let at = day * DAY_MS;
        let has = |flag| flags.contains(flag);
        let size = Size { files: 1, bytes: 1 };
        let time = jiff::Timestamp::from_millisecond(at).unwrap();
        Backup {
            owner: OwnerId::parse("o").unwrap(),
            id: BackupId::parse(&format!("{}-x", time.strftime("%Y%m%dT%H%M%SZ"))).unwrap(),
            meta: Meta {
                server: String::new(),
                game: String::new(),
                recipe_version: None,
                reason: Reason::Stop,
                taken_at_ms: at,
                live: false,
                by: String::new(),
                note: None,
            },
            verified: has('v'),
            shrunk: has('s').then_some(Shrink { was: size, now: size }),
            files: 1,
            bytes: 1,
            new_bytes: 1,
            shared_bytes: 0,
            pinned: has('p'),
            accepted: has('a'),
        }
    }

    const NOTHING: Policy = Policy { keep_last: 0, keep_daily: 0, keep_weekly: 0, max_age_days: None };

    /// The days of those that stay.
    fn stays(backups: &[(i64, &str)], policy: Policy) -> Vec<i64> {
        let all: Vec<_> = backups.iter().map(|(day, flags)| backup(*day, flags)).collect();
        let gone = retire(100 * DAY_MS, &all, &policy);
        let left = all.iter().filter(|b| !gone.contains(&b.id));
        left.map(|b| b.meta.taken_at_ms / DAY_MS).collect()
    }

    #[test]
    fn a_start_goes_back_before_a_doubt_and_not_before_a_decision() {
        let sized = |day, flags, bytes| Backup { bytes, ..backup(day, flags) };
        let (large, small) = (1 << 20, 1 << 10);
        let world = [
            sized(1, "v", large),
            sized(2, "vs", small),
            sized(3, "v", small),
            sized(4, "v", large),
            sized(5, "", large),
        ];
        let rather = |present: usize, world: &[Backup]| {
            super::rather(&world[present].id, world).map(|good| good.meta.taken_at_ms / DAY_MS)
        };
        assert_eq!(rather(0, &world), None, "the good one itself");
        assert_eq!(rather(1, &world), Some(1), "much smaller");
        assert_eq!(rather(2, &world), Some(1), "as small as the one before it, which nobody has accepted");
        assert_eq!(rather(3, &world), None, "as large as ever again");
        assert_eq!(rather(4, &world), Some(4), "torn");
        let mut accepted = world.clone();
        accepted[1].accepted = true;
        assert_eq!((rather(1, &accepted), rather(2, &accepted)), (None, None));
        assert_eq!(rather(0, &[sized(1, "", large)]), None, "torn, and there is nothing else");
    }

    #[test]
    fn whatever_the_policy_says_some_stay() {
        type Row = (&'static [(i64, &'static str)], &'static [i64]);
        let table: &[Row] = &[
            (&[], &[]),
            (&[(1, "v"), (2, "v"), (3, "v")], &[3]),
            (&[(1, "v"), (2, "v"), (3, "")], &[2, 3]),
            (&[(1, ""), (2, ""), (3, "")], &[3]),
            (&[(1, "vp"), (2, "v"), (3, "v")], &[1, 3]),
            // Suspicious: it, the one before, and the good one before that, though newer good ones exist.
            (&[(1, "v"), (2, "v"), (3, ""), (4, "vs"), (5, "v"), (6, "v")], &[2, 3, 4, 6]),
            (&[(1, "v"), (2, "v"), (3, "vsa"), (4, "v")], &[4]),
            (&[(1, "v"), (2, "vs"), (3, "vs")], &[1, 2, 3]),
        ];
        for (backups, left) in table {
            assert_eq!(stays(backups, NOTHING), *left, "{backups:?}");
            let aged = Policy { keep_last: 9, keep_daily: 9, keep_weekly: 9, max_age_days: Some(0) };
            assert_eq!(stays(backups, aged), *left, "all too old: {backups:?}");
        }
    }

    #[test]
    fn counts_keep_the_newest_the_days_and_the_weeks() {
        let daily: Vec<(i64, &str)> = (60..100).map(|day| (day, "v")).collect();
        assert_eq!(stays(&daily, Policy { keep_last: 3, ..NOTHING }), [97, 98, 99]);
        assert_eq!(stays(&daily, Policy { keep_daily: 2, ..NOTHING }), [98, 99]);
        // Days 88 and 95 of 1970 are Mondays (30 March, 6 April): weeks end on 87, 94 and, unfinished, 99.
        assert_eq!(stays(&daily, Policy { keep_weekly: 3, ..NOTHING }), [87, 94, 99]);
        let old = Policy { keep_weekly: 3, max_age_days: Some(10), ..NOTHING };
        assert_eq!(stays(&daily, old), [94, 99]);
        // A week is stood for by its newest good one.
        let mixed = [(88, "v"), (90, ""), (95, "v"), (99, "v")];
        assert_eq!(stays(&mixed, Policy { keep_weekly: 2, ..NOTHING }), [88, 99]);
    }

    #[test]
    fn a_world_shrinks_when_half_is_gone_and_there_was_enough_to_tell() {
        let size = |files, bytes| Size { files, bytes };
        let table = [
            (size(100, 1 << 20), size(100, 1 << 19), false),
            (size(100, 1 << 20), size(100, (1 << 19) - 1), true),
            (size(100, 1 << 20), size(49, 1 << 20), true),
            (size(101, 1 << 20), size(50, 1 << 20), true),
            (size(100, 1 << 20), size(50, 1 << 20), false),
            (size(2, 1000), size(1, 10), false),
            (size(2, 1000), size(0, 0), true),
            (size(2, 1000), size(2, 0), true),
            (size(0, 0), size(0, 0), false),
            (size(1, SHRINK_FLOOR_BYTES), size(1, 1), true),
            (size(SHRINK_FLOOR_FILES, 1), size(1, 1), true),
        ];
        for (was, now, shrunk) in table {
            assert_eq!(shrink(was, now).is_some(), shrunk, "{was:?} {now:?}");
        }
    }

    fn any_backups() -> impl Strategy<Value = Vec<Backup>> {
        proptest::collection::btree_map(0i64..200, "[vsap]{0,3}", 0..30)
            .prop_map(|m| m.iter().map(|(day, flags)| backup(*day, flags)).collect())
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        (0..5usize, 0..5usize, 0..5usize, proptest::option::of(0..200u32)).prop_map(|(l, d, w, a)| Policy {
            keep_last: l,
            keep_daily: d,
            keep_weekly: w,
            max_age_days: a,
        })
    }

    proptest! {
        #[test]
        fn what_must_stay_stays(all in any_backups(), policy in any_policy(), now in 0i64..300) {
            let gone = retire(now * DAY_MS, &all, &policy);
            // `all` is oldest first.
            if let Some(newest) = all.last() {
                prop_assert!(!gone.contains(&newest.id));
            }
            if let Some(good) = all.iter().rfind(|b| b.good()) {
                prop_assert!(!gone.contains(&good.id));
            }
            for (at, b) in all.iter().enumerate() {
                prop_assert!(!(b.pinned || b.suspicious()) || !gone.contains(&b.id));
                if b.suspicious() && at > 0 {
                    prop_assert!(!gone.contains(&all[at - 1].id));
                    if let Some(good) = all[..at].iter().rfind(|b| b.good()) {
                        prop_assert!(!gone.contains(&good.id));
                    }
                }
            }
        }

        #[test]
        fn retiring_twice_is_retiring_once(all in any_backups(), policy in any_policy(), now in 0i64..300) {
            let gone = retire(now * DAY_MS, &all, &policy);
            let left: Vec<_> = all.into_iter().filter(|b| !gone.contains(&b.id)).collect();
            prop_assert_eq!(retire(now * DAY_MS, &left, &policy), Vec::<BackupId>::new());
        }
    }
}
