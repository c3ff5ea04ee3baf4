//! How long a server may run: the lease that people extend, and the idle rule that ends it early. Pure arithmetic;
//! the watcher in `engine::reconcile` applies it.

use super::server::Players;
use super::{MINUTE_MS, Ms};
use serde::{Deserialize, Serialize};

/// Warnings are given when this much is left, largest first. One warning each, also over a restart.
pub const LEASE_WARNINGS_MS: [Ms; 3] = [30 * MINUTE_MS, 10 * MINUTE_MS, 2 * MINUTE_MS];

/// A lease can be extended to at most this far ahead, so that a slip of the finger is not a month of rent.
pub const LEASE_MAX_MS: Ms = 7 * 24 * 60 * MINUTE_MS;

/// Players that come back within this time before an idle stop see no stop: the warning goes out this early.
pub const IDLE_WARNING_MS: Ms = 2 * MINUTE_MS;

/// The times that one server follows. Zero means never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub idle_ms: Ms,
    pub never_joined_ms: Ms,
    pub lease_ms: Ms,
}

/// What the watcher has to remember about a running server, over its own restarts too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memo {
    /// Since when a query said, without a gap, that nobody is on. An unknown count ends it: unknown is not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty_since: Option<Ms>,
    /// Somebody was on at least once since the start.
    #[serde(default)]
    pub joined: bool,
    /// The smallest entry of [`LEASE_WARNINGS_MS`] that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_warned: Option<Ms>,
    #[serde(default)]
    pub idle_warned: bool,
    /// Starts after crashes that were opened since it was last seen running.
    #[serde(default)]
    pub crash_starts: u32,
    /// A person closed a stop as it was: nothing happens by itself until somebody asks for something.
    #[serde(default)]
    pub left_alone: bool,
    /// Since when nobody could look at its rented host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_since: Option<Ms>,
    /// That it should be off and bills was told since then.
    #[serde(default)]
    pub silent_told: bool,
    /// When people last heard that its rented host bills while it waits for them, or when that began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bills_told: Option<Ms>,
}

impl Memo {
    /// Takes in what was just seen. A status ping or a port scan is no player: only the game's own count matters.
    pub fn observe(&self, now: Ms, players: &Players) -> Memo {
        let mut memo = Memo { crash_starts: 0, ..self.clone() };
        match players.online {
            Some(0) => memo.empty_since = Some(self.empty_since.unwrap_or(now)),
            Some(_) => (memo.empty_since, memo.joined, memo.idle_warned) = (None, true, false),
            None => (memo.empty_since, memo.idle_warned) = (None, false),
        }
        memo
    }

    /// Somebody could look.
    pub fn heard(&self) -> Memo {
        Memo { silent_since: None, silent_told: false, bills_told: None, ..self.clone() }
    }

    /// What is left of it when the game is started or stopped: no idle time passes and the crashes are counted on.
    /// A lease that goes on has told its warnings; a new one begins with an empty memo. Whether it is left alone is
    /// said by the end of one job and taken back by the beginning of another, and by nobody who only looks.
    pub fn between_games(&self) -> Memo {
        let Memo { lease_warned, crash_starts, left_alone, .. } = *self;
        Memo { lease_warned, crash_starts, left_alone, ..Memo::default() }
    }
}

/// How long the idle rule leaves, if it applies now.
pub fn idle_left(now: Ms, memo: &Memo, rules: &Rules) -> Option<Ms> {
    let limit = if memo.joined { rules.idle_ms } else { rules.never_joined_ms };
    match memo.empty_since {
        Some(since) if limit > 0 => Some(since + limit - now),
        Some(_) | None => None,
    }
}

/// The warning that is due now, if one is: the smallest threshold that was crossed and not yet told.
pub fn lease_warning(left: Ms, told: Option<Ms>) -> Option<Ms> {
    let due = lease_crossed(left)?;
    (told.is_none_or(|told| due < told)).then_some(due)
}

/// The smallest entry of [`LEASE_WARNINGS_MS`] that was crossed when this much is left.
pub fn lease_crossed(left: Ms) -> Option<Ms> {
    LEASE_WARNINGS_MS.into_iter().filter(|threshold| left <= *threshold).min()
}

/// The lease after `extend`: counted from its end while it runs, and lengthened to at most [`LEASE_MAX_MS`] from now. It
/// never ends earlier than it did.
pub fn extend(now: Ms, until: Option<Ms>, by: Ms) -> Ms {
    let end = until.unwrap_or(now).max(now);
    end.saturating_add(by).min(now + LEASE_MAX_MS).max(end)
}

/// Reads what people type for a time: `90m`, `2h`, `1h30m`, `1d`. A bare number is minutes.
///
/// # Errors
/// A sentence that says what is allowed.
pub fn parse_duration(text: &str) -> Result<Ms, String> {
    let help = || {
        let shown: String = text.chars().filter(|c| *c != '`').take(20).collect();
        format!("That is not a length of time: “{shown}”. Write for instance `30m`, `2h`, `1h30m` or `1d`.")
    };
    let cleaned: String = text.trim().to_ascii_lowercase().chars().filter(|c| !c.is_whitespace()).collect();
    if let Ok(minutes) = cleaned.parse::<u32>() {
        return positive(Ms::from(minutes) * MINUTE_MS).ok_or_else(help);
    }
    let mut total: Ms = 0;
    let mut digits = String::new();
    for c in cleaned.chars() {
        if c.is_ascii_digit() && digits.len() < 6 {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'm' => MINUTE_MS,
            'h' => 60 * MINUTE_MS,
            'd' => 24 * 60 * MINUTE_MS,
            _ => return Err(help()),
        };
        total += digits.parse::<Ms>().map_err(|_| help())? * unit;
        digits.clear();
    }
    if !digits.is_empty() {
        return Err(help());
    }
    positive(total).ok_or_else(help)
}

fn positive(time: Ms) -> Option<Ms> {
    (time > 0).then_some(time)
}

/// A length of time as people say it: `45 s`, `12 min`, `2 h 5 min`, `3 d 4 h`.
pub fn spoken(time: Ms) -> String {
    let seconds = time.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, minutes) in
            [("30m", 30), ("2h", 120), ("1h30m", 90), ("1 h 30 m", 90), ("1d", 1440), ("45", 45), ("2H", 120)]
        {
            assert_eq!(parse_duration(text), Ok(minutes * MINUTE_MS), "{text}");
        }
        for text in ["", "0", "0m", "soon", "1x", "h", "1h30", "-5m", "99999999999h", "`@everyone`"] {
            let why = parse_duration(text).expect_err(text);
            assert!(why.contains("30m") && !why.contains("``"), "{why}");
        }
    }

    #[test]
    fn each_lease_warning_is_given_once() {
        let mut told = None;
        let mut given = vec![];
        for left_min in (0..=60).rev() {
            if let Some(due) = lease_warning(left_min * MINUTE_MS, told) {
                told = Some(due);
                given.push((left_min, due / MINUTE_MS));
            }
        }
        assert_eq!(given, [(30, 30), (10, 10), (2, 2)]);
        // A lease that begins short hears only what is still true.
        assert_eq!(lease_warning(5 * MINUTE_MS, None), Some(10 * MINUTE_MS));
    }

    #[test]
    fn unknown_is_not_zero_and_ends_an_idle_spell() {
        let rules = Rules { idle_ms: 10 * MINUTE_MS, never_joined_ms: 30 * MINUTE_MS, lease_ms: 0 };
        let players = |online| Players { online, ..Players::default() };
        let empty = Memo::default().observe(0, &players(Some(0)));
        assert_eq!(idle_left(0, &empty, &rules), Some(30 * MINUTE_MS), "nobody joined yet: the longer time");
        let played = empty.observe(1, &players(Some(2))).observe(2, &players(Some(0)));
        assert_eq!(idle_left(2, &played, &rules), Some(10 * MINUTE_MS));
        assert_eq!(idle_left(3, &played.observe(3, &players(None)), &rules), None);
    }

    #[test]
    fn an_extension_counts_from_the_end_and_has_a_limit() {
        assert_eq!(extend(1000, Some(5000), 100), 5100);
        assert_eq!(extend(1000, Some(10), 100), 1100, "a lease that is over is extended from now");
        assert_eq!(extend(0, None, Ms::MAX), LEASE_MAX_MS);
        let longer = 2 * LEASE_MAX_MS;
        assert_eq!(extend(0, Some(longer), 100), longer, "what the operator gave is not taken away");
    }
}
