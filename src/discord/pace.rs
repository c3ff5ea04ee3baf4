//! When which message is looked at again: soon after news, never more often than the pace allows, later and later
//! while Discord does not take it. News that come meanwhile are not queued: the next look shows the latest. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// The longest pause after failures: an outage that ends is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The pause after the first failure.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// Requests under way at the same time.
const AT_ONCE: usize = 8;

pub struct Pace<K> {
    /// The least time between two looks at one message.
    gap: Duration,
    lines: HashMap<K, Line>,
}

#[derive(Default)]
struct Line {
    due: Option<Instant>,
    busy: bool,
    last: Option<Instant>,
    failures: u32,
}

impl<K: Clone + Eq + Hash> Pace<K> {
    pub fn new(gap: Duration) -> Pace<K> {
        Pace { gap, lines: HashMap::new() }
    }

    /// Something is new about it.
    pub fn news(&mut self, key: K, now: Instant) {
        let gap = self.gap;
        let line = self.lines.entry(key).or_default();
        // After a failure the pause counts, not the news.
        if line.failures > 0 && line.due.is_some() {
            return;
        }
        let soonest = line.last.map_or(now, |last| now.max(last + gap));
        line.due = Some(line.due.map_or(soonest, |due| due.min(soonest)));
    }

    /// When the next look is due, if any is.
    pub fn next(&self) -> Option<Instant> {
        if self.lines.values().filter(|line| line.busy).count() >= AT_ONCE {
            return None;
        }
        self.lines.values().filter(|line| !line.busy).filter_map(|line| line.due).min()
    }

    /// What is due now. Each counts as being looked at until it is `done`, `failed` or `dropped`.
    pub fn take(&mut self, now: Instant) -> Vec<K> {
        let busy = self.lines.values().filter(|line| line.busy).count();
        let due = self.lines.iter_mut().filter(|(_, line)| !line.busy && line.due.is_some_and(|due| due <= now));
        let taken = due.take(AT_ONCE.saturating_sub(busy)).map(|(key, line)| {
            (line.due, line.busy, line.last) = (None, true, Some(now));
            key.clone()
        });
        taken.collect()
    }

    /// It was looked at; without news it is looked at again after `again`.
    pub fn done(&mut self, key: &K, now: Instant, again: Duration) {
        let gap = self.gap;
        if let Some(line) = self.lines.get_mut(key) {
            (line.busy, line.last, line.failures) = (false, Some(now), 0);
            line.due = Some(line.due.map_or(now + again.max(gap), |due| due.max(now + gap)));
        }
    }

    /// It did not work; returns whether this is the first failure in a row.
    pub fn failed(&mut self, key: &K, now: Instant) -> bool {
        let Some(line) = self.lines.get_mut(key) else { return false };
        line.failures += 1;
        line.busy = false;
        let pause = PAUSE_MIN.saturating_mul(1 << (line.failures - 1).min(8)).min(PAUSE_MAX);
        line.due = Some(now + pause);
        line.failures == 1
    }

    pub fn dropped(&mut self, key: &K) {
        self.lines.remove(key);
    }

    pub fn keys(&self) -> Vec<K> {
        self.lines.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(2);
    const AGAIN: Duration = Duration::from_secs(5);

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn many_news_are_one_look_and_looks_keep_their_distance() {
        let t0 = Instant::now();
        let mut pace = Pace::new(GAP);
        let mut looks = vec![];
        for ms in (0..10_000).step_by(50) {
            if ms < 5000 {
                pace.news("job", at(t0, ms));
            }
            for key in pace.take(at(t0, ms)) {
                looks.push(ms);
                pace.done(&key, at(t0, ms + 10), AGAIN);
            }
        }
        assert_eq!(looks[..4], [0, 2050, 4100, 6150], "{looks:?}");
    }

    #[test]
    fn news_during_a_look_are_looked_at_after_it() {
        let t0 = Instant::now();
        let mut pace = Pace::new(GAP);
        pace.news(1, t0);
        assert_eq!(pace.take(t0), [1]);
        pace.news(1, at(t0, 100));
        assert!(pace.take(at(t0, 9000)).is_empty(), "it is under way");
        pace.done(&1, at(t0, 9000), AGAIN);
        assert_eq!(pace.next(), Some(at(t0, 11_000)));
    }

    #[test]
    fn failures_wait_longer_and_longer_and_news_do_not_shorten_that() {
        let t0 = Instant::now();
        let mut pace = Pace::new(GAP);
        pace.news(1, t0);
        let mut now = t0;
        let mut pauses = vec![];
        for n in 0..8 {
            assert_eq!(pace.take(now), [1]);
            assert_eq!(pace.failed(&1, now), n == 0);
            pace.news(1, now);
            let next = pace.next().unwrap();
            pauses.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
        pace.take(now);
        pace.done(&1, now, AGAIN);
        assert_eq!(pace.next(), Some(now + AGAIN), "a success forgets the failures");
    }

    #[test]
    fn only_so_many_are_under_way_at_once() {
        let t0 = Instant::now();
        let mut pace = Pace::new(GAP);
        (0..20).for_each(|key| pace.news(key, t0));
        let first = pace.take(t0);
        assert_eq!(first.len(), AT_ONCE);
        assert_eq!((pace.next(), pace.take(t0).len()), (None, 0));
        pace.dropped(&first[0]);
        assert_eq!(pace.take(t0).len(), 1);
    }
}
