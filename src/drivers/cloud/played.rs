//! Whether people may have played on the host of a start that is undone. Nobody saw the game ready, and all the same it
//! may have run for hours while Spawnpoint was away: then what is on the host is more than that start has made, and it
//! does not go with it.

use super::saved::Mark;
use super::{CloudDriver, STOP_SLACK_S};
use crate::drivers::talk::COUNT_WITHIN_LINES;
use crate::engine::{StepCx, StepError};
use crate::model::SECOND_MS;
use crate::model::host::HostRef;
use crate::model::job::{Gain, Step};
use crate::model::lease::spoken;
use crate::model::recipe::Recipe;
use crate::model::server::Server;
use std::collections::HashMap;

impl CloudDriver {
    /// Before the game of a start that is undone is stopped: afterwards nobody can be asked who is on.
    pub(super) async fn note_players(&self, server: &Server) -> Result<(), StepError> {
        match &server.owned.host {
            Some(host) if self.somebody_plays(server).await => self.set_mark(&server.id, host, Mark::Played).await,
            Some(_) | None => Ok(()),
        }
    }

    /// Now or, as far as the game's log tells, before.
    async fn somebody_plays(&self, server: &Server) -> bool {
        let some = |online: Option<u32>| online.is_some_and(|online| online > 0);
        let in_log = self.recipes.get(&server.game).and_then(|recipe| recipe.players.as_ref());
        let Some(in_log) = in_log else { return some(self.players(server).await.online) };
        let lines = self.log_lines(server, COUNT_WITHIN_LINES).await.unwrap_or_default();
        lines.iter().any(|line| some(in_log.online(std::iter::once(line.as_str()))))
    }

    /// Whether an earlier try of a start, of which nobody heard, came to more than a start. The next run leaves no trace
    /// of it.
    pub(super) async fn run_before_was_more(&self, server: &Server, recipe: &Recipe) -> Result<bool, StepError> {
        if let Some(host) = &server.owned.host
            && self.mark_of(&server.id, &host.provider, &host.id).await? == Some(Mark::Played)
        {
            return Ok(true);
        }
        let status = self.status(server, false).await?;
        let runs = status.get("state").is_some_and(|state| state == "running");
        Ok(!runs && longer_than_a_start(&status, start_limit_s(recipe)).is_some())
    }

    /// Why people may have played there, if they may. A host that this start is known to have left as it was is marked, so
    /// that a second try does not ask one that is on its way out.
    pub(super) async fn may_hold_play(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        host: &HostRef,
    ) -> Result<Option<String>, StepError> {
        if !host.played || !cx.job.has_begun(Step::StartGame) || self.backups.worldless(&server.game) {
            return Ok(None);
        }
        match self.mark_of(&server.id, &host.provider, &host.id).await? {
            Some(Mark::Saved) => return Ok(None),
            Some(Mark::Played) => return Ok(Some("somebody was on".to_owned())),
            Some(Mark::Left { .. }) | None => {}
        }
        let limit_s = self.recipes.get(&server.game).map_or(STOP_SLACK_S, start_limit_s);
        let why = match self.status(server, false).await {
            Ok(status) => longer_than_a_start(&status, limit_s),
            Err(StepError::Retry(error) | StepError::Fatal(error)) => {
                Some(format!("nobody can ask what happened there ({error:#})"))
            }
        };
        if why.is_none() {
            self.set_mark(&server.id, host, Mark::Saved).await?;
        }
        Ok(why)
    }
}

/// The longest that a run takes of which a start comes to nothing.
fn start_limit_s(recipe: &Recipe) -> u64 {
    recipe.ready.timeout_s + recipe.stop.grace_s + STOP_SLACK_S
}

/// Nobody wants a server on whose start was undone: the watcher stops what is left of it, with a backup before.
pub(super) fn kept_for_its_world(cx: &StepCx<'_>, server: &Server, why: &str, what: &str) -> Gain {
    let note = format!("{why}, so people may have played: {what} until its world is saved");
    cx.out.line(&note);
    Gain::owned(server.owned.clone()).with_note(note)
}

/// Why the run that the keeper tells of was more than a start that came to nothing; `None` where it was not, or there was
/// none. By the host's own clock. A run whose end nobody could write down may have lasted.
fn longer_than_a_start(status: &HashMap<String, String>, start_s: u64) -> Option<String> {
    let fact = |key: &str| status.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let moment = |key: &str| fact(key)?.parse::<i64>().ok();
    match fact("state") {
        Some("running") => return Some("the game still runs".to_owned()),
        Some("stopped") => {}
        Some(_) | None => return None,
    }
    if fact("ended_by") == Some("deadman") {
        return Some("the game was stopped because nobody watched over it".to_owned());
    }
    let ran_s = moment("ended_at").zip(moment("started_at")).map(|(end, start)| end - start);
    match ran_s.and_then(|ran_s| u64::try_from(ran_s).ok()) {
        Some(ran_s) if ran_s <= start_s => None,
        Some(ran_s) => Some(format!("the game ran for {}", spoken(ran_s as i64 * SECOND_MS))),
        None => Some("nobody knows how long the game ran".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_is_known_to_be_short_was_nothing_but_a_start() {
        let unknown = Some("nobody knows how long the game ran");
        let table = [
            ("", None),
            ("state=none started_at= ended_at=", None),
            ("state=stopped started_at=1000 ended_at=1100 ended_by=itself", None),
            ("state=stopped started_at=1000 ended_at=1300 ended_by=stop", None),
            ("state=stopped started_at=1000 ended_at=8200 ended_by=stop", Some("the game ran for 2 h")),
            (
                "state=stopped started_at=1000 ended_at=1100 ended_by=deadman",
                Some("the game was stopped because nobody watched over it"),
            ),
            // The host went down under it, or its clock was set back.
            ("state=stopped started_at=1000 ended_at= ended_by=", unknown),
            ("state=stopped started_at=1000 ended_at=900 ended_by=itself", unknown),
            ("state=running started_at=1000 ended_at=", Some("the game still runs")),
        ];
        for (told, why) in table {
            let facts = told.split(' ').filter_map(|fact| fact.split_once('='));
            let status = facts.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            assert_eq!(longer_than_a_start(&status, 300).as_deref(), why, "{told}");
        }
    }
}
