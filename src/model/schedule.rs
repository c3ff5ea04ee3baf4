//! Timed rules: what people type for a time, when that comes next, and what is late and what is missed. Pure: the zone
//! and the time are parameters. `app::schedules` keeps the rules, `app::due` does what they say.

use super::access::{Actor, Permission};
use super::{GuildId, HOUR_MS, JobId, MINUTE_MS, Ms, ServerId, lease};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// What is later than this is no longer done: who wanted a game at eight does not want it at ten.
pub const GRACE_MS: Ms = 15 * MINUTE_MS;
/// A stop is done later than that, until the rule's next time: what still runs is paid for.
pub const STOP_GRACE_MS: Ms = 12 * HOUR_MS;
/// A stop that was in vain for [`GRACE_MS`] is tried again after this.
pub const STOP_RETRY_MS: Ms = 5 * MINUTE_MS;
/// A rule of which nobody can say when it comes next, or which cannot be read, is looked at again after this.
pub const LOOK_AGAIN_MS: Ms = HOUR_MS;
/// What could not be done now is tried again after this, as long as it is not too late.
pub const RETRY_MS: Ms = MINUTE_MS;
/// Whoever took a rule up and said nothing for so long is gone.
pub const TAKEN_MS: Ms = 2 * MINUTE_MS;
/// Rules that one server may have: more are a slip.
pub const PER_SERVER_MAX: usize = 20;

/// A job needs its time, and a rule is tried for a quarter of an hour.
const JOB_GAP_MS: Ms = 30 * MINUTE_MS;
/// A line in a console is done at once.
const COMMAND_GAP_MS: Ms = 5 * MINUTE_MS;
/// Nobody remembers a rule that comes less often than once in so long.
const EVERY_MAX_MS: Ms = 31 * 24 * HOUR_MS;
/// So many runs of a cron expression show how close together they come: more than a day of one each five minutes.
const GAPS_LOOKED_AT: usize = 400;

const EXAMPLES: &str = "Write for instance `daily 20:00`, `fri 20:00`, `fri,sat 19:30`, `weekdays 18:00`, \
                        `weekends 14:00`, `every 6h`, `once 2026-11-24 20:00`, or a cron expression such as `0 20 * * 5`.";

/// What a schedule does when it is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "does")]
pub enum Does {
    Start,
    Stop,
    Restart,
    Backup,
    /// Types a line into the game's console.
    Command {
        line: String,
    },
}

impl Does {
    /// What people choose from; a command's line is given beside it.
    pub const WORDS: [(&'static str, &'static str); 5] = [
        ("start", "start it, for as long as its time limit says"),
        ("stop", "stop it and keep its world"),
        ("restart", "stop it and start it again, where it runs"),
        ("backup", "back up its world"),
        ("command", "type a line into its console"),
    ];

    pub fn word(&self) -> &'static str {
        match self {
            Does::Start => "start",
            Does::Stop => "stop",
            Does::Restart => "restart",
            Does::Backup => "backup",
            Does::Command { .. } => "command",
        }
    }

    /// What it takes to make such a rule, and again each time that it is due.
    pub fn needs(&self) -> Permission {
        match self {
            Does::Start | Does::Stop | Does::Restart | Does::Backup => Permission::Play,
            Does::Command { .. } => Permission::Operate,
        }
    }

    /// It must not come more often than this.
    fn least_gap_ms(&self) -> Ms {
        match self {
            Does::Start | Does::Stop | Does::Restart | Does::Backup => JOB_GAP_MS,
            Does::Command { .. } => COMMAND_GAP_MS,
        }
    }
}

/// When a rule is due, as people say it. Its words, parsed again, are the same rule.
#[derive(Clone, Debug)]
pub struct When {
    words: String,
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    Calendar(Box<Cron>),
    /// Counted from when the rule was made.
    Every(Ms),
    Once(DateTime),
}

impl PartialEq for When {
    fn eq(&self, other: &When) -> bool {
        self.words == other.words
    }
}

impl When {
    /// Reads what people type.
    ///
    /// # Errors
    /// A sentence that says what is wrong, with examples.
    pub fn parse(text: &str) -> Result<When, String> {
        let text = text.trim().to_lowercase().replace(" and ", ",").replace(", ", ",");
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let stars = words.iter().any(|word| word.contains('*'));
        if stars || words.len() == 5 && !words[0].starts_with(|c: char| c.is_alphabetic()) {
            return cron(&words.join(" "), None);
        }
        if let [first, rest @ ..] = words.as_slice()
            && *first == "every"
        {
            if let Some(time) = length_of(rest) {
                return every(time?);
            }
            words.remove(0);
        }
        words.retain(|word| *word != "at");
        match words.as_slice() {
            ["once", moment @ ..] => once(&moment.join(" ")),
            [date, _] if date.starts_with("20") && date.contains('-') => once(&words.join(" ")),
            [time] if time.contains(':') => days_at(&["daily"], time),
            [days @ .., time] if !days.is_empty() => days_at(days, time),
            [] | [_] | [..] => Err(format!("That is no time for a schedule: {}. {EXAMPLES}", shown(&text))),
        }
    }

    /// As people read it.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The first time after `t`. `made_at` is what `every 6h` counts from. For rules with one time of day, a time that the
    /// clocks jump over in spring comes right after the jump, and one that comes twice in autumn counts once. Cron
    /// expressions with several hours follow croner.
    pub fn next_after(&self, t: Ms, made_at: Ms, zone: &TimeZone) -> Option<Ms> {
        match &self.times {
            Times::Every(gap) => Some(made_at + ((t - made_at).div_euclid(*gap) + 1) * gap),
            Times::Once(at) => {
                let at = zone.to_zoned(*at).ok()?.timestamp().as_millisecond();
                (at > t).then_some(at)
            }
            Times::Calendar(cron) => {
                let next = cron.find_next_occurrence(&zoned(t, zone)?, false).ok()?;
                Some(next.timestamp().as_millisecond())
            }
        }
    }

    /// The first time, where such a rule can be made.
    ///
    /// # Errors
    /// A sentence: it never comes, or too often.
    pub fn first(&self, does: &Does, now: Ms, zone: &TimeZone) -> Result<Ms, String> {
        let least = does.least_gap_ms();
        // In UTC no clock jumps, so the season does not decide whether a rule can be made.
        if self.shortest_gap(now).is_some_and(|gap| gap < least) {
            let what = match does {
                Does::Command { .. } => "A command",
                Does::Start | Does::Stop | Does::Restart | Does::Backup => "A start, stop, restart or backup",
            };
            return Err(format!(
                "{what} can be scheduled every {} at most, and `{}` comes more often.",
                lease::spoken(least),
                self.words
            ));
        }
        self.next_after(now, now, zone).ok_or_else(|| match &self.times {
            Times::Once(_) => {
                format!("`{}` ({}) is over already.", self.words, zone.iana_name().unwrap_or("UTC"))
            }
            Times::Calendar(_) | Times::Every(_) => format!("`{}` never comes. {EXAMPLES}", self.words),
        })
    }

    /// It comes for one time alone.
    pub fn is_once(&self) -> bool {
        match self.times {
            Times::Once(_) => true,
            Times::Calendar(_) | Times::Every(_) => false,
        }
    }

    fn shortest_gap(&self, now: Ms) -> Option<Ms> {
        match &self.times {
            Times::Every(gap) => Some(*gap),
            Times::Once(_) => None,
            Times::Calendar(cron) => {
                let from = zoned(now, &TimeZone::UTC)?;
                let times: Vec<Ms> =
                    cron.iter_after(from).take(GAPS_LOOKED_AT).map(|time| time.timestamp().as_millisecond()).collect();
                times.windows(2).map(|pair| pair[1] - pair[0]).min()
            }
        }
    }
}

/// croner counts in whole seconds.
fn zoned(t: Ms, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_second(t.div_euclid(1000)).ok()?.to_zoned(zone.clone()))
}

/// A rule by a cron expression; `words` where people have said it simpler.
fn cron(text: &str, words: Option<String>) -> Result<When, String> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let cron = parser.parse(text).map_err(|_| {
        format!(
            "That is no cron expression: {}. It has five parts: minute, hour, day of the month, month, day of the week, \
             for instance `30 19 * * fri,sat`.",
            shown(text)
        )
    })?;
    Ok(When { words: words.unwrap_or_else(|| text.to_owned()), times: Times::Calendar(Box::new(cron)) })
}

/// `6h`, `90 minutes`, `hour`; nothing where these words are no length of time at all.
fn length_of(words: &[&str]) -> Option<Result<Ms, String>> {
    let text = words.concat();
    let text = if text.starts_with(|c: char| c.is_ascii_digit()) { text } else { format!("1{text}") };
    let long = [("minutes", "m"), ("minute", "m"), ("mins", "m"), ("min", "m"), ("hours", "h"), ("hour", "h")];
    let short = long.into_iter().chain([("days", "d"), ("day", "d"), ("weeks", "w"), ("week", "w")]);
    let text = short.fold(text, |text, (long, short)| text.replace(long, short));
    let is_length = text.chars().all(|c| c.is_ascii_digit() || "mhdw".contains(c));
    if !is_length || text.is_empty() {
        return None;
    }
    Some(match text.strip_suffix('w').and_then(|weeks| weeks.parse::<u8>().ok()) {
        Some(weeks) => Ok(Ms::from(weeks) * 7 * 24 * HOUR_MS),
        None => lease::parse_duration(&text),
    })
}

fn every(gap: Ms) -> Result<When, String> {
    if !(MINUTE_MS..=EVERY_MAX_MS).contains(&gap) {
        return Err(format!("`every` takes from 5 min to {}. {EXAMPLES}", lease::spoken(EVERY_MAX_MS)));
    }
    let (days, hours, minutes) = (gap / (24 * HOUR_MS), gap / HOUR_MS % 24, gap / MINUTE_MS % 60);
    let parts = [(days, "d"), (hours, "h"), (minutes, "m")];
    let said: String = parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    Ok(When { words: format!("every {said}"), times: Times::Every(gap) })
}

fn once(moment: &str) -> Result<When, String> {
    let wrong = || format!("That is no moment: {}. Write for instance `once 2026-11-24 20:00`.", shown(moment));
    let (date, time) = moment.split_once([' ', 't']).ok_or_else(wrong)?;
    let date: jiff::civil::Date = date.parse().map_err(|_| wrong())?;
    let at = date.to_datetime(time_of_day(time).ok_or_else(wrong)?);
    Ok(When { words: format!("once {}", at.strftime("%Y-%m-%d %H:%M")), times: Times::Once(at) })
}

fn days_at(days: &[&str], time: &str) -> Result<When, String> {
    let at = time_of_day(time)
        .ok_or_else(|| format!("That is no time of day: {}. Write it as `20:00`. {EXAMPLES}", shown(time)))?;
    let mut wanted: BTreeSet<i8> = BTreeSet::new();
    for word in days.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty()) {
        wanted.extend(days_of(word).ok_or_else(|| format!("That is no day: {}. {EXAMPLES}", shown(word)))?);
    }
    let all: Vec<i8> = wanted.into_iter().collect();
    let words = match all.as_slice() {
        [] => return Err(format!("On which days? {EXAMPLES}")),
        [1, 2, 3, 4, 5, 6, 7] => "daily".to_owned(),
        [1, 2, 3, 4, 5] => "weekdays".to_owned(),
        [6, 7] => "weekends".to_owned(),
        days => days.iter().map(|day| DAYS[*day as usize - 1].0).collect::<Vec<_>>().join(","),
    };
    let listed = all.iter().map(|day| (day % 7).to_string()).collect::<Vec<_>>().join(",");
    let (hour, minute) = (at.hour(), at.minute());
    cron(&format!("{minute} {hour} * * {listed}"), Some(format!("{words} {hour:02}:{minute:02}")))
}

/// Monday first, as people list them.
const DAYS: [(&str, &str, Weekday); 7] = [
    ("mon", "monday", Weekday::Monday),
    ("tue", "tuesday", Weekday::Tuesday),
    ("wed", "wednesday", Weekday::Wednesday),
    ("thu", "thursday", Weekday::Thursday),
    ("fri", "friday", Weekday::Friday),
    ("sat", "saturday", Weekday::Saturday),
    ("sun", "sunday", Weekday::Sunday),
];

/// `fri`, `fridays`, `mon-thu`, `weekdays`, from 1 for Monday.
fn days_of(word: &str) -> Option<Vec<i8>> {
    match word {
        "daily" | "day" | "days" | "everyday" => return Some((1..=7).collect()),
        "weekday" | "weekdays" => return Some((1..=5).collect()),
        "weekend" | "weekends" => return Some(vec![6, 7]),
        _ => {}
    }
    match word.split_once('-') {
        None => Some(vec![day_of(word)?]),
        Some((from, to)) => {
            let (from, to) = (day_of(from)?, day_of(to)?);
            let last = if to < from { to + 7 } else { to };
            Some((from..=last).map(|day| (day - 1) % 7 + 1).collect())
        }
    }
}

fn day_of(word: &str) -> Option<i8> {
    let word = word.strip_suffix('s').filter(|word| word.len() > 3).unwrap_or(word);
    let fits = |(short, long, _): &&(&str, &str, Weekday)| {
        word.len() >= 3 && word.starts_with(short) && long.starts_with(word)
    };
    DAYS.iter().find(fits).map(|(_, _, day)| day.to_monday_one_offset())
}

/// `20:00`, `8:30pm`, `8pm`.
fn time_of_day(text: &str) -> Option<Time> {
    let (text, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(text), _) => (text, Some(0)),
        (None, Some(text)) => (text, Some(12)),
        (None, None) => (text, None),
    };
    let (hour, minute) = match text.split_once(':') {
        Some((hour, minute)) if minute.len() == 2 => (hour, minute),
        Some(_) => return None,
        None if half.is_some() => (text, "00"),
        None => return None,
    };
    let number = |text: &str| text.parse::<i8>().ok().filter(|_| text.chars().all(|c| c.is_ascii_digit()));
    let hour = match (number(hour)?, half) {
        (hour @ 1..=12, Some(half)) => hour % 12 + half,
        (_, Some(_)) => return None,
        (hour, None) => hour,
    };
    Time::new(hour, number(minute)?, 0, 0).ok()
}

fn shown(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control() && *c != '`').take(40).collect();
    format!("“{text}”")
}

/// One timed rule of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub guild: GuildId,
    /// What people call it by, counted up within the guild and never given twice.
    pub number: i64,
    pub server: ServerId,
    pub does: Does,
    pub when: When,
    pub zone: TimeZone,
    pub made_by: Actor,
    pub made_at: Ms,
    /// The time that comes next, or is being tried now.
    pub due_at: Ms,
    /// When somebody has to look at it: then, or later where it is tried again.
    pub look_at: Ms,
    pub last: Option<Last>,
}

/// What became of a rule when it was last due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Last {
    pub due_at: Ms,
    pub came: Came,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "came")]
pub enum Came {
    Job {
        job: JobId,
    },
    /// A command was typed.
    Typed,
    /// A command is being typed: nobody else may type it.
    Begun,
    /// Nothing was to be done, for instance because it ran already.
    Needless {
        why: String,
    },
    Skipped {
        why: Skipped,
    },
}

/// Why a rule did not do what it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "skipped")]
pub enum Skipped {
    /// It came too late for it.
    Missed,
    /// Something was in the way for as long as it was tried.
    Busy { why: String },
    /// Who made it may not do that any more.
    NotAllowed { why: String },
    /// It cannot be done, for instance because a budget is spent.
    Refused { why: String },
    /// Spawnpoint ended while a command was being typed.
    Unsure,
}

impl Schedule {
    /// Who acts when it is due. The person behind it is who may.
    pub fn actor(&self) -> Actor {
        let user = match &self.made_by {
            Actor::Discord { id, .. } => Some(id.clone()),
            Actor::Token { .. } | Actor::Schedule { .. } | Actor::Watcher | Actor::Operator => None,
        };
        Actor::Schedule { name: format!("schedule {} of {}", self.number, self.made_by.name()), user }
    }

    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    fn next_after(&self, t: Ms) -> Option<Ms> {
        self.when.next_after(t, self.made_at, &self.zone)
    }

    /// It is too late for what is due.
    pub fn is_missed(&self, now: Ms) -> bool {
        now > self.until()
    }

    /// The last moment at which it is still done.
    fn until(&self) -> Ms {
        match self.does {
            Does::Stop => {
                let longest = self.due_at + STOP_GRACE_MS;
                self.next_after(self.due_at).map_or(longest, |next| longest.min(next - 1))
            }
            Does::Start | Does::Restart | Does::Backup | Does::Command { .. } => self.due_at + GRACE_MS,
        }
    }

    /// Whether there is time for another try: one that begins a little late must not look like a missed one.
    pub fn may_try_again(&self, now: Ms) -> bool {
        now + 2 * self.retry_ms(now) <= self.until()
    }

    /// What could not be done now is tried again after this.
    pub fn retry_ms(&self, now: Ms) -> Ms {
        if now - self.due_at > GRACE_MS { STOP_RETRY_MS } else { RETRY_MS }
    }

    /// What came of this very time is written already: only its next time was not known.
    pub fn is_settled(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.due_at == self.due_at && last.came != Came::Begun)
    }

    /// A command was begun for this very time, and whoever began it is gone.
    pub fn broke_off(&self) -> bool {
        self.last.as_ref().is_some_and(|last| last.due_at == self.due_at && last.came == Came::Begun)
    }

    /// The time after this one. After a missed one it may be a moment ago, and is then done late.
    pub fn next(&self, now: Ms) -> Option<Ms> {
        if !self.is_missed(now) {
            return self.next_after(now.max(self.due_at));
        }
        let grace = match self.does {
            Does::Stop => STOP_GRACE_MS,
            Does::Start | Does::Restart | Does::Backup | Does::Command { .. } => GRACE_MS,
        };
        let first = self.next_after((now - grace).max(self.due_at))?;
        // Of several stops that were missed one is enough.
        let later = std::iter::successors(Some(first), |time| self.next_after(*time));
        Some(later.take(GAPS_LOOKED_AT).take_while(|time| *time <= now).last().unwrap_or(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    /// `2026-03-29 01:59`, in Berlin.
    fn at(text: &str) -> Ms {
        let moment: DateTime = text.replace(' ', "T").parse().unwrap();
        berlin().to_zoned(moment).unwrap().timestamp().as_millisecond()
    }

    fn said(t: Ms) -> String {
        zoned(t, &berlin()).unwrap().strftime("%a %m-%d %H:%M %Z").to_string()
    }

    fn runs(rule: &str, from: &str, count: usize) -> String {
        let (when, made_at) = (When::parse(rule).unwrap(), at(from));
        let next = |t: &Ms| when.next_after(*t, made_at, &berlin());
        let times: Vec<String> = std::iter::successors(next(&made_at), next).take(count).map(said).collect();
        format!("{rule}: {}\n", times.join(", "))
    }

    #[test]
    fn rules_are_read_as_people_write_them_and_said_in_one_way() {
        let typed = [
            "daily 20:00",
            "Daily at 8pm",
            "20:00",
            "every day 20:00",
            "fri 20:00",
            "every Friday at 20:00",
            "fridays 8:30pm",
            "fri,sat 19:30",
            "sat and fri 19:30",
            "sun, mon 7:05",
            "mon-thu 18:00",
            "fri-mon 18:00",
            "weekdays 18:00",
            "weekends 12am",
            "mon,tue,wed,thu,fri,sat,sun 12pm",
            "every 6h",
            "every 90 minutes",
            "every hour",
            "every 2 days",
            "every week",
            "once 2026-11-24 20:00",
            "2026-11-24 20:00",
            "0 20 * * 5",
            "*/30 18-22 * * fri,sat",
        ];
        let mut table = String::new();
        for text in typed {
            let when = When::parse(text).unwrap();
            table += &format!("{text} → {}\n", when.words());
            assert_eq!(When::parse(when.words()).unwrap(), when, "{text}: its words are the same rule");
        }
        insta::assert_snapshot!(table, @r"
        daily 20:00 → daily 20:00
        Daily at 8pm → daily 20:00
        20:00 → daily 20:00
        every day 20:00 → daily 20:00
        fri 20:00 → fri 20:00
        every Friday at 20:00 → fri 20:00
        fridays 8:30pm → fri 20:30
        fri,sat 19:30 → fri,sat 19:30
        sat and fri 19:30 → fri,sat 19:30
        sun, mon 7:05 → mon,sun 07:05
        mon-thu 18:00 → mon,tue,wed,thu 18:00
        fri-mon 18:00 → mon,fri,sat,sun 18:00
        weekdays 18:00 → weekdays 18:00
        weekends 12am → weekends 00:00
        mon,tue,wed,thu,fri,sat,sun 12pm → daily 12:00
        every 6h → every 6h
        every 90 minutes → every 1h30m
        every hour → every 1h
        every 2 days → every 2d
        every week → every 7d
        once 2026-11-24 20:00 → once 2026-11-24 20:00
        2026-11-24 20:00 → once 2026-11-24 20:00
        0 20 * * 5 → 0 20 * * 5
        */30 18-22 * * fri,sat → */30 18-22 * * fri,sat
        ");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_a_sentence_and_examples() {
        let typed = [
            "",
            "soon",
            "fri",
            "daily",
            "daily 25:00",
            "daily 8",
            "fri 20",
            "funday 20:00",
            "fri 13pm",
            "every x",
            "every 0h",
            "every 60d",
            "once tomorrow",
            "once 2026-02-30 20:00",
            "0 20 * *",
            "61 20 * * 5",
            "0 0 * * * *",
            "`@everyone` 20:00",
        ];
        let mut table = String::new();
        for text in typed {
            let why = When::parse(text).expect_err(text);
            assert!(!why.contains('@') || why.contains("“@") || why.contains("@everyone"), "{why}");
            table += &format!("{text} → {}\n", why.replace(EXAMPLES, "…"));
        }
        insta::assert_snapshot!(table, @r"
         → That is no time for a schedule: “”. …
        soon → That is no time for a schedule: “soon”. …
        fri → That is no time for a schedule: “fri”. …
        daily → That is no time for a schedule: “daily”. …
        daily 25:00 → That is no time of day: “25:00”. Write it as `20:00`. …
        daily 8 → That is no time of day: “8”. Write it as `20:00`. …
        fri 20 → That is no time of day: “20”. Write it as `20:00`. …
        funday 20:00 → That is no day: “funday”. …
        fri 13pm → That is no time of day: “13pm”. Write it as `20:00`. …
        every x → That is no time for a schedule: “every x”. …
        every 0h → That is not a length of time: “0h”. Write for instance `30m`, `2h`, `1h30m` or `1d`.
        every 60d → `every` takes from 5 min to 31 d. …
        once tomorrow → That is no moment: “tomorrow”. Write for instance `once 2026-11-24 20:00`.
        once 2026-02-30 20:00 → That is no moment: “2026-02-30 20:00”. Write for instance `once 2026-11-24 20:00`.
        0 20 * * → That is no cron expression: “0 20 * *”. It has five parts: minute, hour, day of the month, month, day of the week, for instance `30 19 * * fri,sat`.
        61 20 * * 5 → That is no cron expression: “61 20 * * 5”. It has five parts: minute, hour, day of the month, month, day of the week, for instance `30 19 * * fri,sat`.
        0 0 * * * * → That is no cron expression: “0 0 * * * *”. It has five parts: minute, hour, day of the month, month, day of the week, for instance `30 19 * * fri,sat`.
        `@everyone` 20:00 → That is no day: “@everyone”. …
        ");
    }

    #[test]
    fn the_clocks_of_spring_and_autumn() {
        let mut table = "spring: 02:00 is 03:00\n".to_owned();
        for rule in ["daily 01:30", "daily 02:00", "daily 02:30", "daily 03:00", "30 2 * * *", "every 12h", "0 * * * *"]
        {
            table += &runs(rule, "2026-03-28 00:10", if rule.starts_with("0 *") { 4 } else { 3 });
        }
        table += &runs("0 * * * *", "2026-03-29 00:10", 3);
        table += &runs("once 2026-03-29 02:30", "2026-03-28 00:10", 2);
        table += "autumn: 03:00 is 02:00 once more\n";
        for rule in ["daily 01:30", "daily 02:00", "daily 02:30", "daily 03:00", "every 12h"] {
            table += &runs(rule, "2026-10-24 00:10", 3);
        }
        table += &runs("0 * * * *", "2026-10-25 00:10", 4);
        table += &runs("once 2026-10-25 02:30", "2026-10-24 00:10", 2);
        insta::assert_snapshot!(table, @r"
        spring: 02:00 is 03:00
        daily 01:30: Sat 03-28 01:30 CET, Sun 03-29 01:30 CET, Mon 03-30 01:30 CEST
        daily 02:00: Sat 03-28 02:00 CET, Sun 03-29 03:00 CEST, Mon 03-30 02:00 CEST
        daily 02:30: Sat 03-28 02:30 CET, Sun 03-29 03:00 CEST, Mon 03-30 02:30 CEST
        daily 03:00: Sat 03-28 03:00 CET, Sun 03-29 03:00 CEST, Mon 03-30 03:00 CEST
        30 2 * * *: Sat 03-28 02:30 CET, Sun 03-29 03:00 CEST, Mon 03-30 02:30 CEST
        every 12h: Sat 03-28 12:10 CET, Sun 03-29 00:10 CET, Sun 03-29 13:10 CEST
        0 * * * *: Sat 03-28 01:00 CET, Sat 03-28 02:00 CET, Sat 03-28 03:00 CET, Sat 03-28 04:00 CET
        0 * * * *: Sun 03-29 01:00 CET, Sun 03-29 03:00 CEST, Sun 03-29 04:00 CEST
        once 2026-03-29 02:30: Sun 03-29 03:30 CEST
        autumn: 03:00 is 02:00 once more
        daily 01:30: Sat 10-24 01:30 CEST, Sun 10-25 01:30 CEST, Mon 10-26 01:30 CET
        daily 02:00: Sat 10-24 02:00 CEST, Sun 10-25 02:00 CEST, Mon 10-26 02:00 CET
        daily 02:30: Sat 10-24 02:30 CEST, Sun 10-25 02:30 CEST, Mon 10-26 02:30 CET
        daily 03:00: Sat 10-24 03:00 CEST, Sun 10-25 03:00 CET, Mon 10-26 03:00 CET
        every 12h: Sat 10-24 12:10 CEST, Sun 10-25 00:10 CEST, Sun 10-25 11:10 CET
        0 * * * *: Sun 10-25 01:00 CEST, Sun 10-25 02:00 CEST, Sun 10-25 02:00 CET, Sun 10-25 03:00 CET
        once 2026-10-25 02:30: Sun 10-25 02:30 CEST
        ");
    }

    #[test]
    fn days_and_nights_of_an_ordinary_week() {
        let rules = ["fri,sat 19:30", "weekdays 18:00", "weekends 14:00", "every 7h", "0 20 1 * *", "0 0 29 2 *"];
        let table: String = rules.into_iter().map(|rule| runs(rule, "2026-11-20 19:30", 3)).collect();
        insta::assert_snapshot!(table, @r"
        fri,sat 19:30: Sat 11-21 19:30 CET, Fri 11-27 19:30 CET, Sat 11-28 19:30 CET
        weekdays 18:00: Mon 11-23 18:00 CET, Tue 11-24 18:00 CET, Wed 11-25 18:00 CET
        weekends 14:00: Sat 11-21 14:00 CET, Sun 11-22 14:00 CET, Sat 11-28 14:00 CET
        every 7h: Sat 11-21 02:30 CET, Sat 11-21 09:30 CET, Sat 11-21 16:30 CET
        0 20 1 * *: Tue 12-01 20:00 CET, Fri 01-01 20:00 CET, Mon 02-01 20:00 CET
        0 0 29 2 *: Tue 02-29 00:00 CET, Sun 02-29 00:00 CET, Fri 02-29 00:00 CET
        ");
    }

    #[test]
    fn a_rule_that_comes_too_often_or_never_is_refused() {
        let now = at("2026-11-20 19:30");
        let command = Does::Command { line: "save".into() };
        let mut table = String::new();
        for (rule, does) in [
            ("every 5m", &command),
            ("every 4m", &command),
            ("* * * * *", &command),
            ("*/5 * * * *", &command),
            ("0,58 * * * *", &command),
            ("every 30m", &Does::Start),
            ("every 20m", &Does::Stop),
            ("0,20 20 * * 5", &Does::Backup),
            ("0 0 31 2 *", &Does::Start),
            ("once 2026-11-20 19:29", &Does::Start),
            ("once 2026-11-20 19:31", &Does::Start),
        ] {
            let first = When::parse(rule).unwrap().first(does, now, &berlin());
            table +=
                &format!("{} {rule} → {}\n", does.word(), first.map_or_else(|why| why.replace(EXAMPLES, "…"), said));
        }
        insta::assert_snapshot!(table, @r"
        command every 5m → Fri 11-20 19:35 CET
        command every 4m → A command can be scheduled every 5 min at most, and `every 4m` comes more often.
        command * * * * * → A command can be scheduled every 5 min at most, and `* * * * *` comes more often.
        command */5 * * * * → Fri 11-20 19:35 CET
        command 0,58 * * * * → A command can be scheduled every 5 min at most, and `0,58 * * * *` comes more often.
        start every 30m → Fri 11-20 20:00 CET
        stop every 20m → A start, stop, restart or backup can be scheduled every 30 min at most, and `every 20m` comes more often.
        backup 0,20 20 * * 5 → A start, stop, restart or backup can be scheduled every 30 min at most, and `0,20 20 * * 5` comes more often.
        start 0 0 31 2 * → `0 0 31 2 *` never comes. …
        start once 2026-11-20 19:29 → `once 2026-11-20 19:29` (Europe/Berlin) is over already.
        start once 2026-11-20 19:31 → Fri 11-20 19:31 CET
        ");
    }

    #[test]
    fn what_is_late_is_done_and_what_is_missed_is_not() {
        let due_at = at("2026-11-20 20:00");
        let schedule = |rule: &str| Schedule {
            guild: GuildId("1".into()),
            number: 3,
            server: ServerId("a".into()),
            does: Does::Start,
            when: When::parse(rule).unwrap(),
            zone: berlin(),
            made_by: Actor::Discord { id: "9".into(), name: "alice".into() },
            made_at: at("2026-11-19 20:00"),
            due_at,
            look_at: due_at,
            last: None,
        };
        let mut table = String::new();
        for rule in ["daily 20:00", "every 1h", "once 2026-11-20 20:00"] {
            for late_min in [0, 13, 14, 15, 16, 75, 76, 60 * 50] {
                let (schedule, now) = (schedule(rule), due_at + late_min * MINUTE_MS);
                let what = match (schedule.is_missed(now), schedule.may_try_again(now)) {
                    (false, true) => "is done, and tried again",
                    (false, false) => "is done, or given up",
                    (true, _) => "is missed",
                };
                let next = schedule.next(now).map_or("nothing".to_owned(), said);
                table += &format!("{rule}, {} late: {what}; then {next}\n", lease::spoken(late_min * MINUTE_MS));
            }
        }
        insta::assert_snapshot!(table, @r"
        daily 20:00, 0 s late: is done, and tried again; then Sat 11-21 20:00 CET
        daily 20:00, 13 min late: is done, and tried again; then Sat 11-21 20:00 CET
        daily 20:00, 14 min late: is done, or given up; then Sat 11-21 20:00 CET
        daily 20:00, 15 min late: is done, or given up; then Sat 11-21 20:00 CET
        daily 20:00, 16 min late: is missed; then Sat 11-21 20:00 CET
        daily 20:00, 1 h 15 min late: is missed; then Sat 11-21 20:00 CET
        daily 20:00, 1 h 16 min late: is missed; then Sat 11-21 20:00 CET
        daily 20:00, 2 d 2 h late: is missed; then Mon 11-23 20:00 CET
        every 1h, 0 s late: is done, and tried again; then Fri 11-20 21:00 CET
        every 1h, 13 min late: is done, and tried again; then Fri 11-20 21:00 CET
        every 1h, 14 min late: is done, or given up; then Fri 11-20 21:00 CET
        every 1h, 15 min late: is done, or given up; then Fri 11-20 21:00 CET
        every 1h, 16 min late: is missed; then Fri 11-20 21:00 CET
        every 1h, 1 h 15 min late: is missed; then Fri 11-20 22:00 CET
        every 1h, 1 h 16 min late: is missed; then Fri 11-20 22:00 CET
        every 1h, 2 d 2 h late: is missed; then Sun 11-22 22:00 CET
        once 2026-11-20 20:00, 0 s late: is done, and tried again; then nothing
        once 2026-11-20 20:00, 13 min late: is done, and tried again; then nothing
        once 2026-11-20 20:00, 14 min late: is done, or given up; then nothing
        once 2026-11-20 20:00, 15 min late: is done, or given up; then nothing
        once 2026-11-20 20:00, 16 min late: is missed; then nothing
        once 2026-11-20 20:00, 1 h 15 min late: is missed; then nothing
        once 2026-11-20 20:00, 1 h 16 min late: is missed; then nothing
        once 2026-11-20 20:00, 2 d 2 h late: is missed; then nothing
        ");
        assert_eq!(schedule("daily 20:00").actor().name(), "schedule 3 of alice");
    }
}
