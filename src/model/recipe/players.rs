//! Counting players in the log, for a game that answers no query but says how many are on whenever that changes.

use super::parse::compiled;
use super::read::Section;
use super::without_ansi;
use regex::Regex;

#[derive(Clone, Debug)]
pub struct PlayersInLog {
    /// The number is its named group `online`.
    log: Regex,
    /// A line that takes one of them back: somebody who was counted and then not let in.
    refused: Option<Regex>,
}

impl PlayersInLog {
    /// How many are on after these lines, oldest first, if one of them says so.
    pub fn online<'a>(&self, lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<u32> {
        let mut refused = 0;
        for line in lines.rev() {
            let line = without_ansi(line);
            if let Some(groups) = self.log.captures(&line) {
                let said: u32 = groups.name("online")?.as_str().parse().ok()?;
                return Some(said.saturating_sub(refused));
            }
            refused += u32::from(self.refused.as_ref().is_some_and(|pattern| pattern.is_match(&line)));
        }
        None
    }
}

pub(super) fn players(top: &Section) -> Option<PlayersInLog> {
    let section = top.section("players")?;
    if top.has("query") {
        section.fault_here("counts in the log what [query] asks the game: a recipe has one of them");
    }
    section.needs("log");
    let read = |key: &str| compiled(&section, key, None, &section.text(key)?);
    let (log, refused) = (read("log"), read("refused"));
    if log.as_ref().is_some_and(|log| !log.capture_names().flatten().any(|name| name == "online")) {
        section.fault("log", "must have a group (?<online>…)");
    }
    section.finish();
    Some(PlayersInLog { log: log?, refused })
}
