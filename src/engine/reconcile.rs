//! What is, compared with what should be. Pure: it takes no hint about what changed, acts on nothing, and says what
//! is missing. Unknown is unknown, never gone.

use super::restarted_by_a_rule;
use crate::model::bill::{Bill, Standing};
use crate::model::job::{Action, Cause, Job, Outcome};
use crate::model::lease::{self, Memo, Rules};
use crate::model::server::{Seen, Wanted};
use crate::model::sweep::REMIND_MS;
use crate::model::{HOUR_MS, MINUTE_MS, Ms};

/// So many restarts after crashes within [`CRASH_WINDOW_MS`] are tried; then it stays off and people are told.
pub const CRASHES_MAX: usize = 3;
pub const CRASH_WINDOW_MS: Ms = HOUR_MS;
/// A rented host that should be off and has not answered for so long is told of. Shorter is a network that hiccups.
pub const SILENT_MS: Ms = 5 * MINUTE_MS;
/// And one that should be on. People who play notice before that.
pub const SILENT_ON_MS: Ms = 30 * MINUTE_MS;

/// All that is known about one server at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    pub wanted: Wanted,
    pub busy: Busy,
    /// A host is on record for it, rented or of your own.
    pub host: bool,
    /// That host is rented: it bills whatever the game does.
    pub rented: bool,
    pub seen: Seen,
    pub lease_until: Option<Ms>,
    pub memo: Memo,
    pub rules: Rules,
    /// When starts after crashes were opened, within the window.
    pub crash_starts: Vec<Ms>,
    /// What its host costs, as far as that decides anything.
    pub bill: Bill,
}

/// What an open job does to the game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    No,
    /// It starts or stops the game, or both.
    Moving,
    /// A rule restarts it: what the watcher counts goes on.
    Restarting,
    /// It does so, and waits for a person.
    Held,
    /// The game goes on beside it.
    Beside,
}

impl Busy {
    pub fn with(job: &Job) -> Busy {
        match (Busy::of(&job.action), job.rest()) {
            (Busy::Moving, Some(Outcome::Held)) => Busy::Held,
            (Busy::Moving, _) if restarted_by_a_rule(job) => Busy::Restarting,
            (busy, _) => busy,
        }
    }

    pub fn of(action: &Action) -> Busy {
        match action {
            Action::Start | Action::Stop | Action::Restart => Busy::Moving,
            Action::Restore { .. } | Action::Update | Action::Delete | Action::Move { .. } => Busy::Moving,
            Action::Backup | Action::BuildSnapshot => Busy::Beside,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Open {
        action: Action,
        cause: Cause,
    },
    WarnLease {
        left_ms: Ms,
    },
    WarnIdle {
        left_ms: Ms,
    },
    /// Most of a budget is spent.
    WarnBudget {
        standing: Standing,
    },
    /// A budget is spent, and nobody can look at what costs the money.
    BudgetStuck {
        standing: Standing,
    },
    /// Nobody can look at what costs the money, and it should be off, or has been silent for long.
    HostSilent {
        since: Ms,
        /// It should be on, for all that anybody asked.
        on: bool,
    },
    /// Only people can go on with it, and its host bills on.
    StillBills {
        /// The budget that is spent by now, where one is.
        standing: Option<Standing>,
    },
}

/// What to do about one server, and what to remember.
pub fn reconcile(now: Ms, facts: &Facts) -> (Memo, Option<Decision>) {
    let memo = &match facts.seen {
        Seen::Unknown { .. } => facts.memo.clone(),
        Seen::Gone | Seen::Stopped { .. } | Seen::Running { .. } => facts.memo.heard(),
    };
    match (facts.busy, &facts.seen) {
        (Busy::No, _) => {}
        // A held job that is tried again is the same wait to whoever pays for it.
        (Busy::Moving, _) => return (Memo { bills_told: facts.memo.bills_told, ..memo.between_games() }, None),
        (Busy::Restarting, seen) => return (through_a_restart(now, facts, seen), None),
        (Busy::Held, Seen::Gone) => return (memo.between_games(), None),
        (Busy::Held, Seen::Unknown { .. } | Seen::Stopped { .. } | Seen::Running { .. }) => {
            let waits = Memo { bills_told: facts.memo.bills_told, ..memo.between_games() };
            return waiting(now, facts, waits);
        }
        // It is watched on, but the job has to end first. What it costs is told meanwhile.
        (Busy::Beside, Seen::Running { players }) => {
            let warning = facts.bill.warn.clone().map(|standing| Decision::WarnBudget { standing });
            return (memo.observe(now, players), warning);
        }
        (Busy::Beside, Seen::Unknown { .. } | Seen::Gone | Seen::Stopped { .. }) => return (blind(memo), None),
    }
    if memo.left_alone && facts.seen != Seen::Gone {
        let waits = Memo { bills_told: facts.memo.bills_told, ..memo.clone() };
        return waiting(now, facts, waits);
    }
    let should_be_off = Some(Decision::Open { action: Action::Stop, cause: Cause::ShouldBeOff });
    match (facts.wanted, &facts.seen) {
        // Nobody could look. The lease, the idle rule and the budget wait until somebody can.
        (Wanted::On | Wanted::Off, Seen::Unknown { .. }) => unseen(now, facts),
        // What a failed start left of a host is paid for, and may hold the world of the game before.
        (Wanted::Off, Seen::Stopped { .. }) if facts.host => (memo.clone(), should_be_off),
        (Wanted::Off, Seen::Gone | Seen::Stopped { .. }) => (Memo::default(), None),
        (Wanted::Off, Seen::Running { .. }) => (memo.clone(), should_be_off),
        // It was no crash, and whoever played has long gone: its world is fetched as after any other stop.
        (Wanted::On, Seen::Stopped { unwatched: true, .. }) => {
            (memo.between_games(), Some(Decision::Open { action: Action::Stop, cause: Cause::Unwatched }))
        }
        (Wanted::On, Seen::Gone | Seen::Stopped { .. }) => crashed(now, facts),
        (Wanted::On, Seen::Running { players }) => running(now, facts, &memo.observe(now, players)),
    }
}

/// Players who are on are noticed; an idle spell goes on, since nobody can join while it restarts.
fn through_a_restart(now: Ms, facts: &Facts, seen: &Seen) -> Memo {
    let memo = match seen {
        Seen::Running { players } if players.online.is_some_and(|online| online > 0) => {
            facts.memo.observe(now, players)
        }
        Seen::Running { .. } | Seen::Gone | Seen::Stopped { .. } | Seen::Unknown { .. } => facts.memo.clone(),
    };
    Memo { crash_starts: facts.memo.crash_starts, ..memo }
}

/// Nobody could count: an idle spell needs a count without a gap.
fn blind(memo: &Memo) -> Memo {
    Memo { empty_since: None, idle_warned: false, ..memo.clone() }
}

/// What it does is unknown, so it is left as it is. A rented host bills on, and only people can do something about it.
fn unseen(now: Ms, facts: &Facts) -> (Memo, Option<Decision>) {
    let mut memo = blind(&facts.memo);
    if !facts.rented {
        return (memo.heard(), None);
    }
    let since = *memo.silent_since.get_or_insert(now);
    if let Some(decision) = stuck(facts) {
        return (memo, Some(decision));
    }
    let should_be_off = match facts.wanted {
        Wanted::Off => true,
        Wanted::On => facts.lease_until.is_some_and(|until| facts.bill.stop_at(until) <= now),
    };
    if now - since < if should_be_off { SILENT_MS } else { SILENT_ON_MS } {
        return (memo, None);
    }
    if !memo.silent_told {
        (memo.silent_told, memo.bills_told) = (true, Some(now));
        return (memo, Some(Decision::HostSilent { since, on: !should_be_off }));
    }
    waiting(now, facts, memo)
}

/// Only people can go on with it. A rented host bills meanwhile, so they are reminded.
fn waiting(now: Ms, facts: &Facts, mut memo: Memo) -> (Memo, Option<Decision>) {
    if !facts.rented {
        return (memo, None);
    }
    let told = *memo.bills_told.get_or_insert(now);
    let standing = facts.bill.spent.clone().filter(|_| !facts.bill.spent_told);
    if standing.is_none() && now - told < REMIND_MS {
        return (memo, None);
    }
    memo.bills_told = Some(now);
    (memo, Some(Decision::StillBills { standing }))
}

/// Its budget is spent, which nobody has been told yet.
fn stuck(facts: &Facts) -> Option<Decision> {
    let standing = facts.bill.spent.clone().filter(|_| !facts.bill.spent_told)?;
    Some(Decision::BudgetStuck { standing })
}

fn budget_spent(facts: &Facts) -> Option<Cause> {
    facts.bill.spent.as_ref().map(|standing| Cause::BudgetSpent { whose: standing.whose })
}

fn crashed(now: Ms, facts: &Facts) -> (Memo, Option<Decision>) {
    let mut memo = facts.memo.between_games();
    // A game that comes up and falls again is counted within the window; starts that fail may take longer than that.
    let recent = facts.crash_starts.iter().filter(|at| **at > now - CRASH_WINDOW_MS).count();
    let tries = recent.max(memo.crash_starts as usize);
    // A stop tidies up and keeps the world; starting it again would only be paid for.
    let stop = |cause| Some(Decision::Open { action: Action::Stop, cause });
    // Nobody plays on it any more, so it does not wait for the end of a unit that is paid for.
    if facts.lease_until.is_some_and(|until| until <= now) {
        return (memo, stop(Cause::LeaseOver));
    }
    if let Some(cause) = budget_spent(facts) {
        return (memo, stop(cause));
    }
    if tries >= CRASHES_MAX {
        return (memo, stop(Cause::KeepsCrashing { times: tries as i64 + 1 }));
    }
    let (exit_code, out_of_memory) = match facts.seen {
        Seen::Stopped { exit_code, out_of_memory, .. } => (exit_code, out_of_memory),
        Seen::Gone | Seen::Running { .. } | Seen::Unknown { .. } => (None, false),
    };
    memo.crash_starts += 1;
    (memo, Some(Decision::Open { action: Action::Start, cause: Cause::Crashed { exit_code, out_of_memory } }))
}

fn running(now: Ms, facts: &Facts, memo: &Memo) -> (Memo, Option<Decision>) {
    let mut memo = memo.clone();
    let stop = |cause| Some(Decision::Open { action: Action::Stop, cause });
    if let Some(cause) = budget_spent(facts) {
        return (memo, stop(cause));
    }
    // Where that was asked for, a stop comes at the end of the time that is paid for anyway.
    let left = |due: Ms| facts.bill.stop_at(due) - now;
    let lease_left = facts.lease_until.map(left);
    if lease_left.is_some_and(|left| left <= 0) {
        return (memo, stop(Cause::LeaseOver));
    }
    let idle_left = lease::idle_left(now, &memo, &facts.rules).map(|idle| left(now + idle));
    if idle_left.is_some_and(|left| left <= 0) {
        let cause = match memo.joined {
            true => Cause::Idle { minutes: facts.rules.idle_ms / MINUTE_MS },
            false => Cause::NobodyJoined { minutes: facts.rules.never_joined_ms / MINUTE_MS },
        };
        return (memo, stop(cause));
    }
    if let Some(standing) = facts.bill.warn.clone() {
        return (memo, Some(Decision::WarnBudget { standing }));
    }
    if let Some(left_ms) = lease_left {
        match lease::lease_warning(left_ms, memo.lease_warned) {
            Some(due) => {
                memo.lease_warned = Some(due);
                return (memo, Some(Decision::WarnLease { left_ms }));
            }
            // Where it was extended, the warnings of the time that it won are due again.
            None => memo.lease_warned = lease::lease_crossed(left_ms),
        }
    }
    if let Some(left_ms) = idle_left
        && left_ms <= lease::IDLE_WARNING_MS
        && !memo.idle_warned
    {
        memo.idle_warned = true;
        return (memo, Some(Decision::WarnIdle { left_ms }));
    }
    (memo, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::bill::{BudgetOf, Unit};
    use crate::model::cost::Month;
    use crate::model::server::Players;

    fn seen_all() -> Vec<(&'static str, Seen)> {
        let running = |online| Seen::Running { players: Players { online, ..Players::default() } };
        vec![
            ("unknown", Seen::Unknown { why: "no answer".into() }),
            ("gone", Seen::Gone),
            ("stopped", Seen::Stopped { exit_code: Some(139), out_of_memory: false, unwatched: false }),
            ("runs, 0 on", running(Some(0))),
            ("runs, 2 on", running(Some(2))),
            ("runs, ? on", running(None)),
        ]
    }

    fn bills(now: Ms) -> Vec<(&'static str, bool, Bill)> {
        let standing = Standing {
            whose: BudgetOf::Guild,
            budget: "1 USD".parse().unwrap(),
            month: Month::of(now, &jiff::tz::TimeZone::UTC),
            spent: 0,
            ahead: 0,
            own_ahead: 0,
        };
        let spent = Bill { spent: Some(standing.clone()), ..Bill::default() };
        let warn = Bill { warn: Some(standing), ..Bill::default() };
        // The hour that is paid for ends in twenty minutes.
        let unit = Unit { began_at: now - 100 * MINUTE_MS, unit_ms: HOUR_MS };
        let waits = Bill { unit: Some(unit), ..Bill::default() };
        vec![
            ("no host", false, Bill::default()),
            ("no host, spent", false, spent.clone()),
            ("host", true, Bill::default()),
            ("host, nearly spent", true, warn),
            ("host, spent", true, spent.clone()),
            ("host, stops at unit", true, waits.clone()),
            ("host, both", true, Bill { unit: waits.unit, ..spent }),
        ]
    }

    /// The whole truth: everything wanted, seen, lease, idleness and crashes, a line each.
    #[test]
    fn the_truth_table() {
        let now = 100 * HOUR_MS;
        let rules = Rules { idle_ms: 15 * MINUTE_MS, never_joined_ms: 30 * MINUTE_MS, lease_ms: 0 };
        let mut table = String::new();
        for (place, host, bill) in bills(now) {
            for wanted in [Wanted::On, Wanted::Off] {
                for (seen_name, seen) in seen_all() {
                    for (lease_name, lease_until) in
                        [("no lease", None), ("lease 5 min", Some(now + 5 * MINUTE_MS)), ("lease over", Some(now))]
                    {
                        for (memo_name, empty_since, crashes) in
                            [("fresh", None, 0), ("empty 20 min", Some(now - 20 * MINUTE_MS), 3)]
                        {
                            let memo = Memo { empty_since, joined: true, ..Memo::default() };
                            let facts = Facts {
                                wanted,
                                busy: Busy::No,
                                host,
                                rented: host,
                                seen: seen.clone(),
                                lease_until,
                                memo,
                                rules,
                                crash_starts: vec![now - MINUTE_MS; crashes],
                                bill: bill.clone(),
                            };
                            for busy in [Busy::Moving, Busy::Restarting] {
                                assert_eq!(reconcile(now, &Facts { busy, ..facts.clone() }).1, None);
                            }
                            // While a backup is taken nothing else begins, but a budget that comes to its end is told.
                            let beside = reconcile(now, &Facts { busy: Busy::Beside, ..facts.clone() }).1;
                            let runs = matches!(seen, Seen::Running { .. });
                            let warning = bill.warn.clone().filter(|_| runs);
                            assert_eq!(beside, warning.map(|standing| Decision::WarnBudget { standing }));
                            // Who waits for people is told what it costs, and nothing happens to it by itself.
                            let left_alone = Memo { left_alone: true, ..facts.memo.clone() };
                            for waits in [
                                Facts { busy: Busy::Held, ..facts.clone() },
                                Facts { memo: left_alone, ..facts.clone() },
                            ] {
                                match reconcile(now, &waits).1 {
                                    None => {}
                                    Some(Decision::StillBills { standing }) => {
                                        assert!(host && standing.is_some(), "{standing:?}");
                                    }
                                    Some(other) => {
                                        assert!(waits.memo.left_alone && facts.seen == Seen::Gone, "{other:?}");
                                    }
                                }
                            }
                            let (_, decision) = reconcile(now, &facts);
                            let decision = match decision {
                                None => "-".to_owned(),
                                Some(Decision::WarnBudget { .. }) => "WarnBudget".to_owned(),
                                Some(Decision::BudgetStuck { .. }) => "BudgetStuck".to_owned(),
                                Some(Decision::StillBills { .. }) => "StillBills".to_owned(),
                                Some(decision) => format!("{decision:?}"),
                            };
                            table += &format!(
                                "{place:19} {wanted:?} | {seen_name:10} | {lease_name:11} | {memo_name:12} → {decision}\n"
                            );
                        }
                    }
                }
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn only_what_moves_the_game_forgets_the_evening() {
        let seen = Seen::Running { players: Players { online: Some(0), ..Players::default() } };
        let memo = Memo { empty_since: Some(5), joined: true, lease_warned: Some(10 * MINUTE_MS), ..Memo::default() };
        let rules = Rules { idle_ms: 0, never_joined_ms: 0, lease_ms: 0 };
        let facts = |busy| Facts {
            wanted: Wanted::On,
            busy,
            host: false,
            rented: false,
            seen: seen.clone(),
            lease_until: None,
            memo: memo.clone(),
            rules,
            crash_starts: vec![],
            bill: Bill::default(),
        };
        assert_eq!(reconcile(9, &facts(Busy::Beside)), (memo.clone(), None));
        // A start after a crash goes on with the old lease, so its warnings stay told.
        let kept = Memo { lease_warned: memo.lease_warned, ..Memo::default() };
        assert_eq!(reconcile(9, &facts(Busy::Moving)).0, kept);
        assert_eq!(reconcile(9, &facts(Busy::Restarting)).0, memo, "no new idle time for a restart by a rule");
    }

    /// Minute by minute, for an hour in which nobody reaches it: when people hear of a host.
    #[test]
    fn a_host_that_should_be_off_and_does_not_answer_is_told_of_once() {
        let lease_over_at = |minute| Some(minute * MINUTE_MS);
        let unknown = Seen::Unknown { why: "no answer".into() };
        let own = |facts: Facts| Facts { rented: false, ..facts };
        let left = |facts: Facts| Facts { memo: Memo { left_alone: true, ..facts.memo }, ..facts };
        let paid = |facts: Facts| {
            let unit = Some(Unit { began_at: 0, unit_ms: 50 * MINUTE_MS });
            Facts { bill: Bill { unit, ..Bill::default() }, ..facts }
        };
        let same = |facts: Facts| facts;
        type Change<'a> = &'a dyn Fn(Facts) -> Facts;
        type Case<'a> = (&'a str, Wanted, Option<Ms>, Change<'a>, &'a [i64]);
        let table: [Case; 9] = [
            ("off", Wanted::Off, None, &same, &[5]),
            ("wanted for ever", Wanted::On, None, &same, &[30]),
            ("lease not over", Wanted::On, lease_over_at(99), &same, &[30]),
            ("lease over before", Wanted::On, lease_over_at(-9), &same, &[5]),
            ("lease over meanwhile", Wanted::On, lease_over_at(20), &same, &[20]),
            ("the time that is paid for goes on", Wanted::On, lease_over_at(20), &paid, &[30]),
            ("a machine of your own", Wanted::Off, None, &own, &[]),
            ("a machine of your own that should be on", Wanted::On, None, &own, &[]),
            ("somebody closed a stop as it was", Wanted::Off, None, &left, &[]),
        ];
        for (what, wanted, lease_until, change, expected) in table {
            let rules = Rules { idle_ms: 0, never_joined_ms: 0, lease_ms: 0 };
            let mut facts = change(Facts {
                wanted,
                busy: Busy::No,
                host: true,
                rented: true,
                seen: unknown.clone(),
                lease_until,
                memo: Memo::default(),
                rules,
                crash_starts: vec![],
                bill: Bill::default(),
            });
            let mut told = vec![];
            for minute in 0..60 {
                let (memo, decision) = reconcile(minute * MINUTE_MS, &facts);
                facts.memo = memo;
                match decision {
                    Some(Decision::HostSilent { since, .. }) => told.push((minute, since)),
                    other => assert_eq!(other, None, "{what}"),
                }
            }
            assert_eq!(told, expected.iter().map(|minute| (*minute, 0)).collect::<Vec<_>>(), "{what}");
            // Whoever could look once begins anew.
            let players = Players { online: Some(1), ..Players::default() };
            let seen = Seen::Running { players };
            let (memo, _) = reconcile(HOUR_MS, &Facts { seen, ..facts });
            assert_eq!((memo.silent_since, memo.silent_told), (None, false), "{what}");
        }
    }

    /// Minute by minute: whoever is idle may use what is paid for, and nothing more.
    #[test]
    fn a_stop_comes_shortly_before_the_paid_unit_ends_unless_somebody_comes_back() {
        let rules = Rules { idle_ms: 10 * MINUTE_MS, never_joined_ms: 10 * MINUTE_MS, lease_ms: 0 };
        let unit = Unit { began_at: 0, unit_ms: HOUR_MS };
        let stop_of = |comes_back: Option<i64>, unit: Option<Unit>| {
            let mut memo = Memo::default();
            let mut warned = vec![];
            for minute in 0..200 {
                let online = if comes_back.is_some_and(|at| (at..at + 2).contains(&minute)) { 1 } else { 0 };
                let facts = Facts {
                    wanted: Wanted::On,
                    busy: Busy::No,
                    host: true,
                    rented: true,
                    seen: Seen::Running { players: Players { online: Some(online), ..Players::default() } },
                    lease_until: None,
                    memo,
                    rules,
                    crash_starts: vec![],
                    bill: Bill { unit, ..Bill::default() },
                };
                let (next, decision) = reconcile(minute * MINUTE_MS, &facts);
                memo = next;
                match decision {
                    Some(Decision::Open { action: Action::Stop, .. }) => return (minute, warned),
                    Some(Decision::WarnIdle { left_ms }) => warned.push((minute, left_ms / MINUTE_MS)),
                    other => assert_eq!(other, None),
                }
            }
            panic!("it never stopped");
        };
        assert_eq!(stop_of(None, None), (10, vec![(8, 2)]));
        assert_eq!(stop_of(None, Some(unit)), (55, vec![(53, 2)]));
        assert_eq!(stop_of(Some(30), Some(unit)), (55, vec![(53, 2)]));
        assert_eq!(stop_of(Some(54), Some(unit)), (115, vec![(53, 2), (113, 2)]), "they play into the next hour");
    }

    #[test]
    fn a_full_server_is_never_idle_and_an_unknown_count_never_stops_one() {
        let rules = Rules { idle_ms: MINUTE_MS, never_joined_ms: MINUTE_MS, lease_ms: 0 };
        let facts = |online, memo| Facts {
            wanted: Wanted::On,
            busy: Busy::No,
            host: false,
            rented: false,
            seen: Seen::Running { players: Players { online, ..Players::default() } },
            lease_until: None,
            memo,
            rules,
            crash_starts: vec![],
            bill: Bill::default(),
        };
        let mut memo = Memo::default();
        for minute in 0..1000 {
            let online = if minute % 2 == 0 { None } else { Some(3) };
            let (next, decision) = reconcile(minute * MINUTE_MS, &facts(online, memo));
            assert_eq!(decision, None, "minute {minute}");
            memo = next;
        }
    }
}
