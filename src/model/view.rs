//! What every front shows: the one picture of a job and of a server, as plain data. Fronts draw it and decide nothing.

use super::access::Actor;
use super::bill::{Billing, Standing, StartCost};
use super::cost::Quote;
use super::host::Place;
use super::job::{Action, Cause, Job, Outcome, Step, StepState};
use super::schedule::{Last, Skipped};
use super::server::{Backend, Players, State};
use super::sweep::Orphan;
use super::{JobId, Ms, ServerId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobView {
    pub id: JobId,
    pub action: Action,
    pub cause: Cause,
    pub actor: Actor,
    /// What it works on, for people: a server's name or a game's.
    pub subject: String,
    /// `None` for the building of a snapshot.
    pub server: Option<ServerId>,
    /// The channel where its message stands, for a front that has channels.
    pub channel: Option<String>,
    pub game: String,
    pub steps: Vec<StepView>,
    /// `None` while it runs.
    pub outcome: Option<Outcome>,
    /// When a held one is tried again by itself.
    #[serde(default)]
    pub tries_again_at: Option<Ms>,
    pub cancel_requested: bool,
    pub can_cancel: bool,
    pub created_at: Ms,
    pub ended_at: Option<Ms>,
    /// How long the whole took when it last went well, from earlier jobs of this kind.
    pub forecast_ms: Option<Ms>,
    /// The last lines of the running or failed step's output, oldest first, secrets masked.
    pub output: Vec<String>,
    /// Where to join, once it is known.
    pub address: Option<String>,
    pub lease_until: Option<Ms>,
    /// A step found that what was played since the last backup is lost.
    #[serde(default)]
    pub world_lost: bool,
    /// Steps whose undoing an admin left out: what they made may still be there.
    #[serde(default)]
    pub not_undone: Vec<Step>,
}

/// What a job did for the world that was played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// It is in the vault. Also where there was nothing to save.
    Kept,
    /// It is in the vault, and an admin went on without comparing the copy.
    Uncompared,
    /// An admin went on without a copy.
    Not,
    /// What held it was gone, with what was played since the last backup.
    Lost,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    pub step: Step,
    pub label: String,
    pub state: StepState,
    pub started_at: Option<Ms>,
    pub ended_at: Option<Ms>,
    pub forecast_ms: Option<Ms>,
    pub attempts: u32,
    pub note: Option<String>,
    pub error: Option<String>,
    /// It was undone, and its host is still the server's, as the note says, or nobody saw it go.
    #[serde(default)]
    pub host_stays: bool,
}

impl JobView {
    pub fn steps_of(job: &Job, forecast: impl Fn(Step) -> Option<Ms>) -> Vec<StepView> {
        let view = |record: &super::job::StepRecord| StepView {
            step: record.step,
            label: record.step.label().to_owned(),
            state: record.state,
            started_at: record.started_at,
            ended_at: record.ended_at,
            forecast_ms: forecast(record.step),
            attempts: record.attempts,
            note: record.note.clone(),
            error: record.error.clone(),
            host_stays: record.host_stays,
        };
        job.steps.iter().map(view).collect()
    }

    /// The step that it waits at. A step that was left out keeps its error, so errors do not tell.
    pub fn held_at(&self) -> Option<&StepView> {
        let held = self.outcome == Some(Outcome::Held);
        self.steps.iter().find(|step| held && step.state.is_failed())
    }

    /// What it did for the world, whatever its outcome.
    pub fn saved(&self) -> Saved {
        let left_out = |step: Step| self.steps.iter().any(|one| one.step == step && one.state == StepState::Forced);
        if self.world_lost {
            return Saved::Lost;
        }
        // Half a copy is never kept. One that was compared was a whole one, whoever went on before.
        if left_out(Step::KeepBackup) || (left_out(Step::PullWorld) && left_out(Step::VerifyWorld)) {
            return Saved::Not;
        }
        if left_out(Step::VerifyWorld) { Saved::Uncompared } else { Saved::Kept }
    }

    /// Whether something that it made or found is gone already.
    pub fn has_removed(&self) -> bool {
        self.steps.iter().any(|step| match step.state {
            StepState::Undoing | StepState::Undone | StepState::UndoFailed => true,
            StepState::Done | StepState::Forced => matches!(
                step.step,
                Step::RemoveContainer | Step::DeleteDrive | Step::ReplaceDrive | Step::DestroyHost | Step::ConfirmGone
            ),
            StepState::Pending | StepState::Running | StepState::Failed => false,
        })
    }

    /// Whether somebody went on without seeing the host go: it may exist, and then it bills.
    pub fn host_may_be_left(&self) -> bool {
        let host = |step: &&StepView| matches!(step.step, Step::DestroyHost | Step::ConfirmGone);
        self.steps.iter().filter(host).any(|step| step.state == StepState::Forced)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerView {
    pub id: String,
    pub name: String,
    pub game: String,
    /// The game's title.
    pub title: String,
    pub backend: Backend,
    /// Where its host is rented, as people chose; `None` where nothing is rented.
    #[serde(default)]
    pub place: Option<Place>,
    pub state: State,
    /// The reason behind `failed` or `unknown`, for people.
    pub why: Option<String>,
    pub players: Option<Players>,
    pub address: Option<String>,
    pub lease_until: Option<Ms>,
    /// When the idle rule ends it, if nobody joins.
    pub idle_stop_at: Option<Ms>,
    pub job: Option<JobView>,
    pub snapshot: Option<String>,
    /// A newer snapshot than the one its drive stands on.
    pub newer_snapshot: Option<String>,
    pub update_at_start: bool,
    pub last_backup: Option<BackupView>,
    /// What its host bills; `None` where nothing was rented this month.
    #[serde(default)]
    pub billing: Option<Billing>,
    /// What the next start costs; `None` where nothing is rented for it, and in lists.
    #[serde(default)]
    pub start: Option<StartCost>,
    /// What starts, stops or restarts it next by itself; not in lists.
    #[serde(default)]
    pub scheduled: Option<ScheduleView>,
}

impl ServerView {
    /// The state in a word or two. A host that exists bills, so its server is never just offline.
    pub fn state_said(&self) -> &'static str {
        let bills = self.billing.as_ref().is_some_and(|billing| billing.on);
        match self.state {
            State::Offline if bills => "not running, but its host still bills",
            State::Failed if bills => "failed, and its host still bills",
            State::Offline | State::Failed => self.state.word(),
            State::Starting | State::Running | State::Stopping | State::Unknown => self.state.word(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupView {
    pub id: String,
    pub server: String,
    pub taken_at: Ms,
    pub files: u64,
    pub bytes: u64,
    /// Bytes on disk that no other backup shares.
    pub own_bytes: Option<u64>,
    pub reason: String,
    pub by: Option<String>,
    /// Why it is not to be trusted without a look: broken, or much smaller than the one before.
    pub doubt: Option<String>,
    /// The doubt is only about its size: a person can say that the smaller world is right.
    pub acceptable: bool,
    /// The server's present world.
    pub present: bool,
}

/// A start that takes a person's yes: what is usual cannot be had, or costs more than people know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DearerStart {
    pub server: String,
    /// A sentence.
    pub why: String,
    pub others: Vec<OtherHost>,
    /// The provider refused the usual one a while ago, and may have it again.
    pub refused: bool,
}

/// A host that can be had instead of the usual one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherHost {
    /// What names it, with its price, in a yes.
    pub tag: String,
    pub quote: Quote,
    /// It is not what the settings name, or the operator, so whoever takes it needs the permission to change those.
    pub named: bool,
    /// It is rented from somebody else, who stays the server's provider.
    pub moves: bool,
    /// It is the usual one at a new price, which counts from then on; the others are for one start.
    pub usual: bool,
}

/// A start that a person should say a word about: the world that it would begin with is in doubt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoubtedStart {
    pub server: String,
    /// What it would begin with.
    pub backup: BackupView,
    /// The newest one that nobody doubts.
    pub good: BackupView,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotView {
    pub id: String,
    pub game: String,
    pub version: i64,
    pub golden: bool,
    pub sealed: bool,
    pub created_at: Ms,
    pub files: Option<i64>,
    /// Bytes on disk of the snapshot itself, measured when it was sealed.
    pub bytes: Option<i64>,
    /// The recipe has changed since.
    pub outdated: bool,
    /// The drives on it are whole copies of it.
    #[serde(default)]
    pub copied: bool,
    /// Names of the servers whose drives stand on it, with the bytes of each drive alone, measured now.
    pub drives: Vec<(String, Option<u64>)>,
}

/// A timed rule as every front shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScheduleView {
    pub number: i64,
    /// The server's name.
    pub server: String,
    /// `start`, `command`.
    pub does: String,
    /// What is typed, for those who may type it themselves; secrets masked.
    pub line: Option<String>,
    /// The rule in words.
    pub when: String,
    pub zone: String,
    pub made_by: String,
    pub next_at: Ms,
    pub last: Option<Last>,
}

/// One thing that people should hear in a channel, outside of a job's message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "notice")]
pub enum Notice {
    LeaseEnds {
        server: String,
        in_ms: Ms,
    },
    IdleStop {
        server: String,
        in_ms: Ms,
    },
    /// So much of a budget is spent that people should know.
    BudgetNear {
        server: String,
        standing: Standing,
    },
    /// It is spent, and the server cannot be stopped because nobody can look at it.
    BudgetStuck {
        server: String,
        standing: Standing,
    },
    Shrunk {
        server: String,
        backup: String,
        was_bytes: u64,
        now_bytes: u64,
    },
    /// Something with our label that nobody claims.
    Orphan {
        orphan: Box<Orphan>,
    },
    /// A host is gone that no job destroyed.
    HostLost {
        server: String,
        provider: String,
        host: String,
        /// From when on what was played is lost; `None` where nothing is.
        lost_since: Option<Ms>,
        /// The newest backup.
        backup: Option<String>,
    },
    /// A host has not answered since: it bills, and nobody knows what it does.
    HostSilent {
        server: String,
        provider: String,
        host: String,
        since: Ms,
        /// The server should be on.
        #[serde(default)]
        on: bool,
    },
    /// Its host bills on, and only people can go on with it. Told again each day.
    StillBills {
        server: String,
        provider: String,
        host: String,
        /// Of this host so far, for people.
        cost: Option<String>,
        /// The budget that is spent by now.
        standing: Option<Standing>,
        /// A job waits for a person. Otherwise somebody has closed one as it was, or the host does not answer.
        held: bool,
    },
    /// A schedule was due and did not do what it says.
    Skipped {
        server: String,
        schedule: i64,
        /// `start`, `command`.
        does: String,
        /// The rule in words.
        when: String,
        made_by: String,
        due_at: Ms,
        next: Option<Ms>,
        why: Skipped,
    },
    /// A host that was taken for gone is there, and bills.
    HostBack {
        server: String,
        provider: String,
        host: String,
    },
}

/// A count of files as people say it.
pub fn spoken_files(count: u64) -> String {
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// Bytes as people say them.
pub fn spoken_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 100.0 {
        format!("{value:.0} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_in_round_numbers() {
        let said: Vec<_> = [0, 999, 1000, 24_576, 1_500_000, 999_999_999, 20_000_000_000].map(spoken_bytes).into();
        assert_eq!(said, ["0 B", "999 B", "1.0 KB", "24.6 KB", "1.5 MB", "1000 MB", "20.0 GB"]);
    }
}
