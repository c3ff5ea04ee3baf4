//! A job: one run of an action, on record. Its plan is a list of steps, its history an append-only list of events,
//! and its state is computed from these two by [`Job::apply`]. Living through events and loading them after a crash
//! are the same code. [`Job::next`] says what to do now. Both are pure; `engine::run` is the loop that obeys.

use super::access::Actor;
use super::bill::BudgetOf;
use super::drive::Snapshot;
use super::server::{Backend, Owned};
use super::world::BackupId;
use super::{GuildId, HOUR_MS, JobId, MINUTE_MS, Ms, ServerId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The pause before a held job is first tried again by itself.
pub const TRY_AGAIN_FIRST_MS: Ms = 5 * MINUTE_MS;
pub const TRY_AGAIN_PAUSE_MAX_MS: Ms = HOUR_MS;
/// After so many tries, about a day, only people go on with a held job.
pub const TRIES_AGAIN_MAX: u32 = 26;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    Start,
    Stop,
    Restart,
    Backup,
    Restore {
        backup: BackupId,
    },
    Update,
    Delete,
    /// To another backend. Its world comes along as a backup; the server is off afterwards.
    Move {
        to: Backend,
    },
    BuildSnapshot,
}

impl Action {
    pub fn word(&self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Stop => "stop",
            Action::Restart => "restart",
            Action::Backup => "backup",
            Action::Restore { .. } => "restore",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Move { .. } => "move",
            Action::BuildSnapshot => "build",
        }
    }
}

impl Action {
    /// The backup that somebody chose to be the present world.
    pub fn chosen_backup(&self) -> Option<&BackupId> {
        match self {
            Action::Restore { backup } => Some(backup),
            Action::Start | Action::Stop | Action::Restart | Action::Backup => None,
            Action::Update | Action::Delete | Action::Move { .. } | Action::BuildSnapshot => None,
        }
    }
}

/// Why a job was opened, when nobody asked for it in so many words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    Asked,
    LeaseOver,
    Idle {
        minutes: i64,
    },
    NobodyJoined {
        minutes: i64,
    },
    Crashed {
        exit_code: Option<i64>,
        out_of_memory: bool,
    },
    /// It crashed so often in a short time that another start would not help.
    KeepsCrashing {
        times: i64,
    },
    /// It ran although it was wanted off.
    ShouldBeOff,
    /// Its host had heard nothing from us for too long, and has ended the game.
    Unwatched,
    /// What its hosts may cost in this month is spent.
    BudgetSpent {
        whose: BudgetOf,
    },
}

impl Cause {
    /// For people; `None` where somebody asked.
    pub fn spoken(&self) -> Option<String> {
        Some(match self {
            Cause::Asked => return None,
            Cause::LeaseOver => "its time is over".to_owned(),
            Cause::Idle { minutes } => format!("nobody was on for {minutes} min"),
            Cause::NobodyJoined { minutes } => format!("nobody joined within {minutes} min"),
            Cause::Crashed { out_of_memory: true, .. } => "the game ran out of memory".to_owned(),
            Cause::Crashed { exit_code: Some(code), out_of_memory: false } => {
                format!("the game ended by itself with exit code {code}")
            }
            Cause::Crashed { exit_code: None, out_of_memory: false } => "the game ended by itself".to_owned(),
            Cause::KeepsCrashing { times } => {
                format!("the game ended by itself {times} times, so it is not started again")
            }
            Cause::ShouldBeOff => "it ran although it should be off".to_owned(),
            Cause::Unwatched => "its host heard nothing from Spawnpoint for long and has ended the game".to_owned(),
            Cause::BudgetSpent { whose: BudgetOf::Guild } => "this guild's budget for the month is spent".to_owned(),
            Cause::BudgetSpent { whose: BudgetOf::Server } => "its budget for the month is spent".to_owned(),
        })
    }
}

/// What a job works on. At most one open job exists for each subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "subject", content = "id")]
pub enum Subject {
    Server(ServerId),
    /// A game's golden snapshot.
    Game(String),
}

impl Subject {
    /// One string for the unique index.
    pub fn key(&self) -> String {
        match self {
            Subject::Server(id) => format!("server:{id}"),
            Subject::Game(game) => format!("game:{game}"),
        }
    }

    pub fn server(&self) -> Option<&ServerId> {
        match self {
            Subject::Server(id) => Some(id),
            Subject::Game(_) => None,
        }
    }
}

/// One thing to do. Imperative, small enough to be done twice, with an undo or a reason to have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    // building a snapshot
    BuildImage,
    CreateSnapshot,
    RunInstaller,
    SealSnapshot,
    // starting in a container
    EnsureSnapshot,
    CloneDrive,
    CreateContainer,
    // starting on a host
    CreateHost,
    AwaitHost,
    Bootstrap,
    Install,
    // starting anywhere
    PushWorld,
    StartGame,
    AwaitReady,
    // saving the world
    QuiesceGame,
    PullWorld,
    VerifyWorld,
    ResumeSaves,
    KeepBackup,
    // stopping
    WarnPlayers,
    StopGame,
    RemoveContainer,
    DestroyHost,
    ConfirmGone,
    // changing drives
    ReplaceDrive,
    DeleteDrive,
}

/// What a failure of a step means for its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Undo what was done, latest first, so that nothing is paid for and nothing half-done stays.
    Unwind,
    /// Undo nothing and destroy nothing: the world is on the move, and a person decides.
    Hold,
}

impl Step {
    /// Steps after which something that may hold the only copy of a world is gone.
    pub fn destroys_world(self) -> bool {
        matches!(self, Step::DestroyHost | Step::DeleteDrive | Step::ReplaceDrive)
    }

    /// What a failure means where the step is part of stopping, saving or replacing; starting always unwinds.
    fn belongs_to_saving(self) -> bool {
        match self {
            Step::WarnPlayers | Step::StopGame | Step::PullWorld | Step::VerifyWorld | Step::KeepBackup => true,
            Step::RemoveContainer | Step::DestroyHost | Step::ConfirmGone | Step::ReplaceDrive | Step::DeleteDrive => {
                true
            }
            Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => false,
            Step::EnsureSnapshot | Step::CloneDrive | Step::CreateContainer => false,
            Step::CreateHost | Step::AwaitHost | Step::Bootstrap | Step::Install => false,
            Step::PushWorld | Step::StartGame | Step::AwaitReady => false,
            Step::QuiesceGame | Step::ResumeSaves => false,
        }
    }

    /// Its name where it is stored: "clone_drive".
    pub fn word(self) -> String {
        let word = serde_json::to_value(self).expect("a step is a word");
        word.as_str().unwrap_or_default().to_owned()
    }

    pub fn parse(word: &str) -> Option<Step> {
        serde_json::from_value(word.into()).ok()
    }

    /// What the step does, for people: "Cloning the drive".
    pub fn label(self) -> &'static str {
        match self {
            Step::BuildImage => "Building the container image",
            Step::CreateSnapshot => "Making room for the snapshot",
            Step::RunInstaller => "Installing the game",
            Step::SealSnapshot => "Sealing the snapshot",
            Step::EnsureSnapshot => "Finding the snapshot",
            Step::CloneDrive => "Cloning the drive",
            Step::CreateContainer => "Creating the container",
            Step::CreateHost => "Renting a host",
            Step::AwaitHost => "Waiting for the host",
            Step::Bootstrap => "Preparing the host",
            Step::Install => "Installing the game",
            Step::PushWorld => "Putting the world in place",
            Step::StartGame => "Starting the game",
            Step::AwaitReady => "Waiting until people can join",
            Step::QuiesceGame => "Asking the game to save",
            Step::PullWorld => "Copying the world",
            Step::VerifyWorld => "Comparing the copy",
            Step::ResumeSaves => "Letting the game save again",
            Step::KeepBackup => "Keeping the backup",
            Step::WarnPlayers => "Telling the players",
            Step::StopGame => "Stopping the game",
            Step::RemoveContainer => "Removing the container",
            Step::DestroyHost => "Destroying the host",
            Step::ConfirmGone => "Waiting until the host is gone",
            Step::ReplaceDrive => "Changing to a fresh drive",
            Step::DeleteDrive => "Deleting the drive",
        }
    }
}

/// What happened, in the past tense, in the order in which it was written. Holds no secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// Intent: written before the step has any effect. A second one is how a crash looks.
    Started {
        step: Step,
    },
    Retrying {
        step: Step,
        attempt: u32,
        error: String,
    },
    Finished {
        step: Step,
        #[serde(default, skip_serializing_if = "Gain::is_empty")]
        gain: Gain,
    },
    Failed {
        step: Step,
        error: String,
        /// The same again may go well by itself, as after an outage.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        may_pass: bool,
    },
    UndoStarted {
        step: Step,
    },
    Undone {
        step: Step,
        #[serde(default, skip_serializing_if = "Gain::is_empty")]
        gain: Gain,
    },
    UndoFailed {
        step: Step,
        error: String,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        may_pass: bool,
    },
    CancelRequested {
        by: Actor,
    },
    /// A person looked at a held job and says: try the step again. Or nobody did, and what held it may have passed.
    RetryRequested {
        by: Actor,
    },
    /// An admin says: go on without the failed step. What that loses was said before they did.
    Forced {
        by: Actor,
    },
    /// A person says: leave everything as it is and close the job.
    Abandoned {
        by: Actor,
    },
}

/// What a step brought, written in the same transaction as the event that says so.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// All that the server owns from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Owned>,
    /// A snapshot that was made or changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// A snapshot that is no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_removed: Option<String>,
    /// One short line for people: "412 files, 18 MB".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of a game that was to be started: it ran already, with what it had been given before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ran_already: bool,
    /// The step found that what was played since the last backup is gone with what held it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub world_lost: bool,
}

impl Gain {
    pub fn is_empty(&self) -> bool {
        *self == Gain::default()
    }

    pub fn note(text: impl Into<String>) -> Gain {
        Gain { note: Some(text.into()), ..Gain::default() }
    }

    pub fn owned(owned: Owned) -> Gain {
        Gain { owned: Some(owned), ..Gain::default() }
    }

    pub fn with_note(self, text: impl Into<String>) -> Gain {
        Gain { note: Some(text.into()), ..self }
    }
}

/// An event with its time, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    pub at: Ms,
    pub event: Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Pending,
    Running,
    Done,
    /// An admin went on without it.
    Forced,
    Failed,
    Undoing,
    Undone,
    UndoFailed,
}

impl StepState {
    /// Its undoing has begun, whatever became of that.
    pub fn is_undoing(self) -> bool {
        matches!(self, StepState::Undoing | StepState::Undone | StepState::UndoFailed)
    }

    /// Neither done nor undone, and nothing goes on with it by itself.
    pub fn is_failed(self) -> bool {
        matches!(self, StepState::Failed | StepState::UndoFailed)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct StepRecord {
    pub step: Step,
    pub state: StepState,
    pub attempts: u32,
    pub started_at: Option<Ms>,
    pub ended_at: Option<Ms>,
    pub error: Option<String>,
    /// Of a failed one: the same again may go well by itself.
    pub may_pass: bool,
    /// Of an undone one: its host is still the server's, as the note says, or nobody saw it go.
    pub host_stays: bool,
    /// Of an undone one: an admin went on without its undoing, so what it made may still be there.
    pub undo_left_out: bool,
    /// See [`Gain::world_lost`]. Undoing the step brings nothing back.
    pub world_lost: bool,
    /// Of a started game: see [`Gain::ran_already`].
    pub ran_already: bool,
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    /// Undone; nothing is left behind.
    Failed,
    Cancelled,
    /// Waits for a person, or until what held it has passed. The only outcome of a job that stays open.
    Held,
    /// A person closed it as it was.
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Run(Step),
    Undo(Step),
    Rest(Outcome),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub subject: Subject,
    pub guild: GuildId,
    pub action: Action,
    pub cause: Cause,
    pub actor: Actor,
    /// The channel where its message stands.
    pub channel: Option<String>,
    pub created_at: Ms,
    pub steps: Vec<StepRecord>,
    /// How many events were applied; the next one gets this number.
    pub seq: i64,
    pub cancel: Option<Actor>,
    pub abandoned: bool,
    /// When the latest event happened.
    pub last_at: Ms,
    /// How often it was tried again by itself since a person last said so.
    pub tried_again: u32,
}

/// What a job is made from.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    pub subject: Subject,
    pub guild: GuildId,
    pub action: Action,
    pub cause: Cause,
    pub actor: Actor,
    pub channel: Option<String>,
    pub plan: Vec<Step>,
}

/// An event that does not fit the state: a damaged log, or a second writer. Never ignored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("job {job}: the event {event} does not fit {state}")]
pub struct ImpossibleEvent {
    pub job: JobId,
    pub event: String,
    pub state: String,
}

impl Job {
    pub fn new(id: JobId, created_at: Ms, new: NewJob) -> Job {
        let record = |step| StepRecord {
            step,
            state: StepState::Pending,
            attempts: 0,
            started_at: None,
            ended_at: None,
            error: None,
            may_pass: false,
            host_stays: false,
            undo_left_out: false,
            world_lost: false,
            ran_already: false,
            note: None,
        };
        Job {
            id,
            subject: new.subject,
            guild: new.guild,
            action: new.action,
            cause: new.cause,
            actor: new.actor,
            channel: new.channel,
            created_at,
            steps: new.plan.into_iter().map(record).collect(),
            seq: 0,
            cancel: None,
            abandoned: false,
            last_at: created_at,
            tried_again: 0,
        }
    }

    /// Loads a job from its record: the same code as living through it.
    pub fn replay(id: JobId, created_at: Ms, new: NewJob, events: &[Recorded]) -> Result<Job, ImpossibleEvent> {
        let mut job = Job::new(id, created_at, new);
        for event in events {
            job.apply(event)?;
        }
        Ok(job)
    }

    /// What to do now.
    pub fn next(&self) -> Next {
        if self.abandoned {
            return Next::Rest(Outcome::Abandoned);
        }
        if self.any(StepState::UndoFailed) {
            return Next::Rest(Outcome::Held);
        }
        if let Some(failed) = self.find(StepState::Failed)
            && self.on_failure(failed) == OnFailure::Hold
            // Called off while the players were being told: nothing was stopped yet, so nothing is held.
            && !(self.cancel.is_some() && self.can_cancel())
        {
            return Next::Rest(Outcome::Held);
        }
        if self.unwinding() {
            return match self.latest_to_undo() {
                Some(step) => Next::Undo(step),
                None if self.cancel.is_some() => Next::Rest(Outcome::Cancelled),
                None => Next::Rest(Outcome::Failed),
            };
        }
        match self.steps.iter().find(|record| !matches!(record.state, StepState::Done | StepState::Forced)) {
            Some(record) => Next::Run(record.step),
            None => Next::Rest(Outcome::Succeeded),
        }
    }

    /// The outcome, if there is nothing to do now.
    pub fn rest(&self) -> Option<Outcome> {
        match self.next() {
            Next::Rest(outcome) => Some(outcome),
            Next::Run(_) | Next::Undo(_) => None,
        }
    }

    /// Takes one event in. Refuses what cannot have happened.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<(), ImpossibleEvent> {
        use StepState::*;
        let at = recorded.at;
        match &recorded.event {
            // Steps are begun in their order, whatever else was asked meanwhile.
            Event::Started { step } if !self.is_due(*step) => return Err(self.impossible(recorded)),
            Event::Started { step } => self.step(recorded, *step, &[Pending, Running], |record| {
                // The clock of a step runs from its first try, also over a crash.
                record.started_at = record.started_at.or(Some(at));
                record.attempts += 1;
                record.state = Running;
            })?,
            Event::Retrying { step, error, .. } => {
                self.step(recorded, *step, &[Running], |record| record.error = Some(error.clone()))?
            }
            Event::Finished { step, gain } => self.step(recorded, *step, &[Running], |record| {
                record.state = Done;
                record.ended_at = Some(at);
                record.error = None;
                record.note = gain.note.clone();
                record.ran_already = gain.ran_already;
                record.world_lost = gain.world_lost;
            })?,
            Event::Failed { step, error, may_pass } => self.step(recorded, *step, &[Running], |record| {
                record.state = Failed;
                record.ended_at = Some(at);
                (record.error, record.may_pass) = (Some(error.clone()), *may_pass);
            })?,
            // What stops or saves is never taken back.
            Event::UndoStarted { step } if self.on_failure(*step) == OnFailure::Hold => {
                return Err(self.impossible(recorded));
            }
            Event::UndoStarted { step } => {
                self.step(recorded, *step, &[Running, Done, Failed, Undoing], |record| record.state = Undoing)?
            }
            Event::Undone { step, gain } => self.step(recorded, *step, &[Undoing], |record| {
                record.state = Undone;
                record.note = gain.note.clone();
                record.host_stays = gain.owned.as_ref().is_some_and(|owned| owned.host.is_some());
                record.world_lost |= gain.world_lost;
            })?,
            Event::UndoFailed { step, error, may_pass } => self.step(recorded, *step, &[Undoing], |record| {
                record.state = UndoFailed;
                (record.error, record.may_pass) = (Some(error.clone()), *may_pass);
            })?,
            Event::CancelRequested { by } => {
                if self.abandoned {
                    return Err(self.impossible(recorded));
                }
                self.cancel = self.cancel.take().or_else(|| Some(by.clone()));
            }
            Event::RetryRequested { by } => {
                let record = self.held_step(recorded)?;
                match record.state {
                    UndoFailed => record.state = Undoing,
                    Failed => {
                        // The tries go on counting: whoever asks whether it has begun must hear of them.
                        (record.state, record.started_at, record.ended_at) = (Pending, None, None);
                        // Who says "try again" takes back an earlier cancel that came too late.
                        self.cancel = None;
                    }
                    Pending | Running | Done | Forced | Undoing | Undone => return Err(self.impossible(recorded)),
                }
                self.tried_again = if *by == Actor::Watcher { self.tried_again + 1 } else { 0 };
            }
            Event::Forced { .. } => {
                let record = self.held_step(recorded)?;
                match record.state {
                    UndoFailed => {
                        (record.state, record.undo_left_out) = (Undone, true);
                        record.host_stays = record.step == Step::CreateHost;
                    }
                    Failed => record.state = Forced,
                    Pending | Running | Done | Forced | Undoing | Undone => return Err(self.impossible(recorded)),
                }
            }
            Event::Abandoned { .. } => {
                if self.abandoned || self.rest() != Some(Outcome::Held) {
                    return Err(self.impossible(recorded));
                }
                self.abandoned = true;
            }
        }
        self.seq += 1;
        self.last_at = at;
        Ok(())
    }

    /// What a failure of this step means in this job.
    pub fn on_failure(&self, step: Step) -> OnFailure {
        match self.action {
            // Its undo lets the game save again and drops the half copy: holding would leave saving off.
            Action::Backup => OnFailure::Unwind,
            Action::Start
            | Action::Stop
            | Action::Restart
            | Action::Restore { .. }
            | Action::Update
            | Action::Delete
            | Action::Move { .. }
            | Action::BuildSnapshot => {
                if step.belongs_to_saving() {
                    OnFailure::Hold
                } else {
                    OnFailure::Unwind
                }
            }
        }
    }

    /// Whether `cancel` still means something: not once the game was stopped, because from then on the job saves
    /// the world and must end.
    pub fn can_cancel(&self) -> bool {
        let past = |record: &StepRecord| record.state != StepState::Pending || record.attempts > 0;
        let point = self.steps.iter().rposition(|record| {
            record.step != Step::WarnPlayers && self.on_failure(record.step) == OnFailure::Hold && past(record)
        });
        match point {
            None => true,
            // Beyond the last saving step only the start part is left, and that part can be called off.
            Some(at) => {
                self.steps[at + 1..].iter().all(|record| self.on_failure(record.step) == OnFailure::Unwind)
                    && matches!(self.steps[at].state, StepState::Done | StepState::Forced)
            }
        }
    }

    /// Whether the world was copied, compared and kept in this very job, or an admin said to go on without it.
    pub fn world_is_safe(&self) -> bool {
        let kept = |step| match self.record(step).map(|record| record.state) {
            Some(StepState::Done | StepState::Forced) => true,
            Some(
                StepState::Pending
                | StepState::Running
                | StepState::Failed
                | StepState::Undoing
                | StepState::Undone
                | StepState::UndoFailed,
            )
            | None => false,
        };
        kept(Step::PullWorld) && kept(Step::VerifyWorld) && kept(Step::KeepBackup)
    }

    /// Whether nothing is newer than what was kept in this job: it ended the game itself, compared the copy after that,
    /// and does not start the game again on the same world. A backup of a running game is older than its world, even
    /// where the game has ended by the time it is kept. A restore puts another world there, of which half a one is none.
    pub fn keeps_the_last_word(&self) -> bool {
        let done = |step| self.record(step).is_some_and(|record| record.state == StepState::Done);
        let goes_on = self.record(Step::StartGame).is_some() && self.record(Step::PushWorld).is_none();
        done(Step::StopGame) && done(Step::VerifyWorld) && !goes_on
    }

    pub fn record(&self, step: Step) -> Option<&StepRecord> {
        self.steps.iter().find(|record| record.step == step)
    }

    /// Whether this step has begun in this job, whatever became of it.
    pub fn has_begun(&self, step: Step) -> bool {
        self.record(step).is_some_and(|record| record.attempts > 0)
    }

    /// The step that runs or is being undone now, or that the job is held at.
    pub fn current(&self) -> Option<&StepRecord> {
        let busy = |record: &&StepRecord| {
            matches!(record.state, StepState::Running | StepState::Undoing | StepState::Failed | StepState::UndoFailed)
        };
        self.steps.iter().find(busy)
    }

    /// The step that an open job waits at.
    pub fn held_at(&self) -> Option<Step> {
        self.held_record().map(|record| record.step)
    }

    fn held_record(&self) -> Option<&StepRecord> {
        let held = self.rest() == Some(Outcome::Held);
        self.steps.iter().find(|record| held && record.state.is_failed())
    }

    /// When a held job is tried again by itself, if what holds it may pass: an outage in the night must not leave a
    /// host that bills until the morning. Each pause is twice the one before, up to an hour, for about a day.
    pub fn tries_again_at(&self) -> Option<Ms> {
        let held = self.held_record().filter(|record| record.may_pass && self.tried_again < TRIES_AGAIN_MAX);
        let pause = TRY_AGAIN_FIRST_MS << self.tried_again.min(4);
        held.map(|_| self.last_at + pause.min(TRY_AGAIN_PAUSE_MAX_MS))
    }

    /// Whether everything before this step is done, or was forced.
    fn is_due(&self, step: Step) -> bool {
        let before = self.steps.iter().take_while(|record| record.step != step);
        before.into_iter().all(|record| matches!(record.state, StepState::Done | StepState::Forced))
    }

    fn unwinding(&self) -> bool {
        let broken =
            |record: &StepRecord| matches!(record.state, StepState::Failed | StepState::Undoing | StepState::Undone);
        self.steps.iter().any(broken)
            || (self.cancel.is_some()
                && self.can_cancel()
                && self.steps.iter().any(|record| record.state != StepState::Done && record.state != StepState::Forced))
    }

    /// Latest first, back to the last step that saves: what was saved, stopped or removed is never undone. A failed
    /// or interrupted step may have half happened, so it is undone too.
    fn latest_to_undo(&self) -> Option<Step> {
        let undoable = self.steps.iter().rev().take_while(|record| self.on_failure(record.step) == OnFailure::Unwind);
        undoable
            .into_iter()
            .find(|record| {
                matches!(record.state, StepState::Done | StepState::Failed | StepState::Undoing | StepState::Running)
            })
            .map(|record| record.step)
    }

    fn any(&self, state: StepState) -> bool {
        self.find(state).is_some()
    }

    fn find(&self, state: StepState) -> Option<Step> {
        self.steps.iter().find(|record| record.state == state).map(|record| record.step)
    }

    fn step(
        &mut self,
        recorded: &Recorded,
        step: Step,
        from: &[StepState],
        change: impl FnOnce(&mut StepRecord),
    ) -> Result<(), ImpossibleEvent> {
        match self.steps.iter_mut().find(|record| record.step == step) {
            Some(record) if from.contains(&record.state) && !self.abandoned => {
                change(record);
                Ok(())
            }
            Some(_) | None => Err(self.impossible(recorded)),
        }
    }

    fn held_step(&mut self, recorded: &Recorded) -> Result<&mut StepRecord, ImpossibleEvent> {
        if self.rest() != Some(Outcome::Held) {
            return Err(self.impossible(recorded));
        }
        let error = self.impossible(recorded);
        self.steps.iter_mut().find(|record| record.state.is_failed()).ok_or(error)
    }

    fn impossible(&self, recorded: &Recorded) -> ImpossibleEvent {
        ImpossibleEvent { job: self.id, event: format!("{:?}", recorded.event), state: self.to_string() }
    }
}

/// One line with every step's state, for logs and failing tests.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|record| format!("{:?}:{:?}", record.step, record.state)).collect();
        write!(f, "{} [{}]", self.action.word(), steps.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::{Situation, plan};
    use proptest::prelude::*;

    fn actions() -> Vec<Action> {
        let restore = Action::Restore { backup: BackupId("b".into()) };
        let plain = [Action::Start, Action::Stop, Action::Restart, Action::Backup, Action::Update, Action::Delete];
        let moves = Backend::ALL.map(|to| Action::Move { to });
        plain.into_iter().chain([restore, Action::BuildSnapshot]).chain(moves).collect()
    }

    fn new_job(action: Action, backend: Backend, bits: u8) -> NewJob {
        let now = Situation {
            running: bits & 1 != 0,
            leftover: bits & 2 != 0,
            has_snapshot: bits & 4 != 0,
            update_at_start: bits & 8 != 0,
        };
        NewJob {
            subject: Subject::Server(ServerId("s".into())),
            guild: GuildId("1".into()),
            plan: plan(&action, backend, now),
            action,
            cause: Cause::Asked,
            actor: Actor::Operator,
            channel: None,
        }
    }

    /// One of every event there is, about the step that a number picks.
    fn event(kind: u8, step: Step) -> Event {
        let (by, error, gain) = (Actor::Operator, "no".to_owned(), Gain::default());
        match kind {
            0 => Event::Started { step },
            1 => Event::Retrying { step, attempt: 1, error },
            2 => Event::Finished { step, gain },
            3 => Event::Failed { step, error, may_pass: true },
            4 => Event::UndoStarted { step },
            5 => Event::Undone { step, gain },
            6 => Event::UndoFailed { step, error, may_pass: false },
            7 => Event::CancelRequested { by },
            8 => Event::RetryRequested { by },
            9 => Event::Forced { by },
            _ => Event::Abandoned { by },
        }
    }

    /// What holds of every job at every moment.
    fn holds(job: &Job) -> Result<(), TestCaseError> {
        match job.next() {
            Next::Run(step) => {
                let before = job.steps.iter().take_while(|record| record.step != step);
                let gone_by =
                    before.into_iter().all(|record| matches!(record.state, StepState::Done | StepState::Forced));
                prop_assert!(gone_by, "{step:?} runs before its time: {job}");
                // Every plan that destroys saves first, so whoever comes so far has done so, or was forced.
                prop_assert!(
                    !step.destroys_world() || job.world_is_safe(),
                    "{step:?} destroys an unsaved world: {job}"
                );
            }
            Next::Undo(step) => {
                prop_assert_eq!(job.on_failure(step), OnFailure::Unwind, "what saves is never undone: {}", job);
            }
            Next::Rest(Outcome::Succeeded) => {
                let done = |record: &StepRecord| matches!(record.state, StepState::Done | StepState::Forced);
                prop_assert!(job.steps.iter().all(done), "{job}");
            }
            Next::Rest(Outcome::Failed | Outcome::Cancelled) => {
                // Telling the players has no undo: a cancel in the middle of it simply ends it.
                let open = |record: &StepRecord| {
                    record.step != Step::WarnPlayers && matches!(record.state, StepState::Running | StepState::Undoing)
                };
                prop_assert!(!job.steps.iter().any(open), "something half-done is left: {job}");
            }
            Next::Rest(Outcome::Held | Outcome::Abandoned) => {}
        }
        Ok(())
    }

    proptest! {
        /// Events in any order are taken in or refused, and a refusal changes nothing. What was taken in replays to
        /// the same job, and what comes next is always sound.
        #[test]
        fn any_events_in_any_order_are_applied_or_refused(
            which in 0usize..10, cloud: bool, bits in 0u8..16,
            noise in prop::collection::vec((0u8..11, any::<prop::sample::Index>(), 0u8..4), 0..80),
        ) {
            let backend = if cloud { Backend::Cloud } else { Backend::Docker };
            let new = new_job(actions()[which].clone(), backend, bits);
            let mut job = Job::new(JobId(1), 0, new.clone());
            let mut written = vec![];
            for (at, (kind, index, sensible)) in noise.into_iter().enumerate() {
                let Some(any) = (!job.steps.is_empty()).then(|| index.get(&job.steps).step) else { break };
                // Mostly what an engine would write next, so that jobs come far; otherwise anything.
                let event = match (sensible, job.next()) {
                    (0, _) => event(kind, any),
                    (_, Next::Run(step)) => {
                        let running = job.record(step).is_some_and(|record| record.state == StepState::Running);
                        event(if running { 1 + kind % 3 } else { 0 }, step)
                    }
                    (_, Next::Undo(step)) => {
                        let undoing = job.record(step).is_some_and(|record| record.state == StepState::Undoing);
                        event(if undoing { 5 + kind % 2 } else { 4 }, step)
                    }
                    (_, Next::Rest(_)) => event(8 + kind % 3, any),
                };
                let recorded = Recorded { at: at as Ms, event };
                let before = job.clone();
                match job.apply(&recorded) {
                    Ok(()) => written.push(recorded),
                    Err(_) => prop_assert_eq!(&job, &before, "a refusal changes nothing"),
                }
                holds(&job)?;
            }
            prop_assert_eq!(job.seq, written.len() as i64);
            let replayed = Job::replay(JobId(1), 0, new, &written);
            prop_assert_eq!(replayed, Ok(job));
        }
    }

    /// Up to which step a cancel still means something, for every job as it goes well.
    #[test]
    fn how_long_a_job_can_be_called_off() {
        let mut table = String::new();
        for backend in Backend::ALL {
            for action in actions() {
                let mut job = Job::new(JobId(1), 0, new_job(action, backend, 0b0101));
                let steps: Vec<Step> = job.steps.iter().map(|record| record.step).collect();
                let mut line = format!("{:7} {:8}", backend.word(), job.action.word());
                for step in steps {
                    let at = 0;
                    job.apply(&Recorded { at, event: Event::Started { step } }).expect("it is next");
                    line += &format!(" {step:?}:{}", if job.can_cancel() { "yes" } else { "no" });
                    job.apply(&Recorded { at, event: Event::Finished { step, gain: Gain::default() } })
                        .expect("it runs");
                }
                table += &format!("{line}\n");
            }
        }
        insta::assert_snapshot!(table);
    }

    /// A start that fails and cannot be undone. It began with a host that had been lost.
    #[test]
    fn what_an_admin_left_when_it_could_not_be_undone_may_still_be_there() {
        let mut job = Job::new(JobId(1), 0, new_job(Action::Start, Backend::Cloud, 0));
        let mut say = |event| job.apply(&Recorded { at: 0, event }).expect("it is its turn");
        say(Event::Started { step: Step::CreateHost });
        say(Event::Finished { step: Step::CreateHost, gain: Gain { world_lost: true, ..Gain::default() } });
        say(Event::Started { step: Step::AwaitHost });
        say(Event::Failed { step: Step::AwaitHost, error: "no".into(), may_pass: false });
        for step in [Step::AwaitHost, Step::CreateHost] {
            say(Event::UndoStarted { step });
            say(Event::UndoFailed { step, error: "no".into(), may_pass: false });
            say(Event::Forced { by: Actor::Operator });
        }
        assert_eq!(job.rest(), Some(Outcome::Failed), "{job}");
        let left = |step| job.record(step).map(|one| (one.undo_left_out, one.host_stays, one.world_lost));
        assert_eq!(left(Step::AwaitHost), Some((true, false, false)));
        assert_eq!(left(Step::CreateHost), Some((true, true, true)));
    }

    /// Who has seen the host go says so, and what was lost before stays lost.
    #[test]
    fn what_was_undone_is_not_left_and_a_lost_world_stays_lost() {
        for found in [false, true] {
            let mut job = Job::new(JobId(1), 0, new_job(Action::Start, Backend::Cloud, 0));
            let mut say = |event| job.apply(&Recorded { at: 0, event }).expect("it is its turn");
            let step = Step::CreateHost;
            say(Event::Started { step });
            match found {
                true => say(Event::Finished { step, gain: Gain { world_lost: true, ..Gain::default() } }),
                false => say(Event::Failed { step, error: "no".into(), may_pass: false }),
            }
            say(Event::CancelRequested { by: Actor::Operator });
            say(Event::UndoStarted { step });
            say(Event::Undone { step, gain: Gain { world_lost: !found, ..Gain::default() } });
            let left = job.record(step).map(|one| (one.undo_left_out, one.host_stays, one.world_lost));
            assert_eq!(left, Some((false, false, true)), "{job}");
        }
    }

    /// A job as it keeps the world, with this step forced and everything else done.
    fn about_to_keep(action: Action, forced: Option<Step>) -> Job {
        let mut job = Job::new(JobId(1), 0, new_job(action, Backend::Cloud, 0b0101));
        let before: Vec<Step> = job.steps.iter().map(|record| record.step).collect();
        for step in before.into_iter().take_while(|step| *step != Step::KeepBackup) {
            let mut say = |event| job.apply(&Recorded { at: 0, event }).expect("it is its turn");
            say(Event::Started { step });
            if forced == Some(step) {
                say(Event::Failed { step, error: "no".into(), may_pass: false });
                say(Event::Forced { by: Actor::Operator });
            } else {
                say(Event::Finished { step, gain: Gain::default() });
            }
        }
        job
    }

    #[test]
    fn only_a_job_that_ended_the_game_and_compared_the_copy_has_kept_all_there_is() {
        for action in actions() {
            let ends = !matches!(action, Action::Backup | Action::Restart);
            let saves = plan(&action, Backend::Cloud, Situation { running: true, ..Situation::default() });
            if !saves.contains(&Step::KeepBackup) {
                continue;
            }
            assert_eq!(about_to_keep(action.clone(), None).keeps_the_last_word(), ends, "{action:?}");
            for forced in [Step::StopGame, Step::VerifyWorld].into_iter().filter(|_| ends) {
                assert!(!about_to_keep(action.clone(), Some(forced)).keeps_the_last_word(), "{action:?}, {forced:?}");
            }
        }
    }
}
