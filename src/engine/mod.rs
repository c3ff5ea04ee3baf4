//! Carries jobs out. The promises, each tested at every place where it could break (tests/engine.rs):
//!
//! - what is decided is written before it is done, and what was done is written after; a crash anywhere goes on;
//! - a start that fails leaves nothing behind, a stop that fails destroys nothing;
//! - one job at a time works on a server, and one engine at a time on a job.
//!
//! The engine owns no state: jobs live in the [`Journal`], places to run in a [`Driver`]. `run` drives a job to
//! rest, `look` sees how servers are, `reconcile` decides about drift, `watch` is the loop around it, `sweep` looks for
//! what was forgotten.

mod look;
pub mod reconcile;
pub mod run;
pub mod sweep;
pub mod watch;

use crate::bus::{Bus, Nudge};
use crate::model::access::Actor;
use crate::model::bill::Spending;
use crate::model::cost::{Cheapest, Instead, Quote, Rental};
use crate::model::drive::Snapshot;
use crate::model::host::{HostImage, HostRef};
use crate::model::job::{Action, Cause, Gain, Job, NewJob, Outcome, Recorded, Step, Subject};
use crate::model::lease::{self, Memo, Rules};
use crate::model::plan::{Situation, plan};
use crate::model::recipe::{SECRET_MIN_CHARS, without_ansi};
use crate::model::server::{Backend, Limits, Owned, Seen, Server, Wanted};
use crate::model::sweep::{Orphan, Sweep};
use crate::model::view::Notice;
use crate::model::{GuildId, JobId, Ms, ServerId, drive};
use async_trait::async_trait;
use jiff::tz::TimeZone;
use look::Looks;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Knows the steps of one backend. `run` and `undo` may be called again for a step that had half happened, so both
/// look before they make; everything made outside carries a label with the server's id. Both may also be dropped at
/// any await (a time limit, a cancel): what they leave half-done is for `undo` or the next `run` to find.
#[async_trait]
pub trait Driver: Send + Sync {
    async fn run(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError>;
    async fn undo(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError>;
    /// How long one try of a step may take.
    fn time_limit(&self, step: Step, cx: &StepCx<'_>) -> Duration;
    /// What is there now, one answer for each server, in order. Says [`Seen::Unknown`] when it could not look.
    async fn look(&self, servers: &[Server]) -> Vec<Seen>;
    /// Ends the game's process at once, whatever any job does.
    async fn kill(&self, server: &Server) -> anyhow::Result<()>;
    /// Types one line into the game's console and returns its answer.
    async fn console(&self, server: &Server, line: &str) -> Result<String, ConsoleFault>;
    /// Tells the players something, in the game. Games without a way to do so ignore it.
    async fn tell(&self, server: &Server, message: &str) -> anyhow::Result<()>;
    /// The last lines of the game's own output, oldest first.
    async fn logs(&self, server: &Server, lines: usize) -> anyhow::Result<Vec<String>>;
    /// Everything that carries this instance's label and that none of these servers (of every backend) has on record,
    /// and the hosts on record that are no more. What others made is none of it, and neither is what is on its way out.
    /// Where something could not be asked, that is said; it is never taken for empty.
    async fn sweep(&self, _servers: &[Server]) -> anyhow::Result<Sweep> {
        Ok(Sweep::default())
    }
    /// Names in DNS with this instance's marker that lead to no host of these servers. Who had one is known by the
    /// servers, of which the second are deleted: a zone is asked for names, and never for all that it holds.
    async fn left_names(&self, _servers: &[Server], _deleted: &[Server]) -> Sweep {
        Sweep::default()
    }
    /// Deletes something that a sweep of this driver found. Fine when it is gone already.
    async fn delete_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        anyhow::bail!("{} is nothing of this backend's", orphan.name)
    }
    /// The host on record that makes this orphan its server's own again. Looks what is on it: whether its world may be
    /// newer than the vault's decides what a start does with it, and is never guessed.
    async fn adopt(&self, orphan: &Orphan, _server: &Server) -> anyhow::Result<HostRef> {
        anyhow::bail!("{} cannot be given back to a server", orphan.name)
    }
    /// Bytes on disk that are the server's own, measured now; `None` where there is nothing to measure.
    async fn own_bytes(&self, server: &Server) -> anyhow::Result<Option<u64>>;
    /// Whether the server's drive is a whole copy of its snapshot.
    fn is_copy(&self, _server: &Server) -> bool {
        false
    }
    /// Deletes the files of a snapshot that is off the record and that nobody stands on.
    async fn delete_snapshot(&self, snapshot: &Snapshot) -> anyhow::Result<()>;
    /// What a start of this server would rent now, and at which price: the same choice of provider, region and size
    /// that `CreateHost` would make, from the provider's list of prices (which may be some hours old). People wait for
    /// the answer, so it is a second or two at most, and nothing is made or reserved. `None` where nothing is rented.
    /// `Retry` where the price could not be had now, `Fatal` where a start would fail for the same reason. A server that
    /// has a host already is quoted as if it had none.
    async fn quote(&self, _server: &Server) -> Result<Option<Quote>, StepError> {
        Ok(None)
    }
    /// Who this server is rented from for the least, where neither people nor the configuration name a provider and there
    /// is more than one; `None` where there is nothing to choose. Waits, errs and reserves like `quote`.
    async fn cheapest(&self, _server: &Server) -> Result<Option<Cheapest>, StepError> {
        Ok(None)
    }
    /// What takes a person's yes before a start: what it would rent costs more an hour than people know, or cannot be had,
    /// and something else can. `None` where a start does without. The rental is the server's last one. Waits, errs and
    /// reserves like `quote`.
    async fn instead(&self, _server: &Server, _last: Option<&Rental>) -> Result<Option<Instead>, StepError> {
        Ok(None)
    }
    /// What can be rented for a server of any kind: every provider, region and size that is set up here, with its price,
    /// and the machines of your own (as regions without a size). From a list that may be some hours old; people wait for
    /// it while they type, so what is not at hand is asked for in the background and left out. Empty where nothing is
    /// rented.
    async fn offers(&self) -> anyhow::Result<Vec<Quote>> {
        Ok(vec![])
    }
    /// Who servers of this backend can be rented from here, with `ssh` for machines of your own.
    fn providers(&self) -> Vec<String> {
        vec![]
    }
    /// Whether the provider itself says that it has no such host. Silence is an error, and never a yes.
    async fn is_gone(&self, provider: &str, _host: &str) -> anyhow::Result<bool> {
        anyhow::bail!("nothing is rented from {provider}")
    }
    /// The systems that a rented host can come with; at hand like the offers.
    async fn images(&self) -> anyhow::Result<Vec<HostImage>> {
        Ok(vec![])
    }
}

/// Why the console gave no answer, for people.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleFault {
    #[error("This game has no console.")]
    None,
    #[error("The server is not running.")]
    NotRunning,
    #[error("The console did not answer: {0}")]
    Silent(String),
    #[error("That line cannot be sent: {0}")]
    Refused(String),
}

/// Retry: it may go well in a moment (a daemon that restarts). Fatal: it will not.
#[derive(Debug)]
pub enum StepError {
    Retry(anyhow::Error),
    Fatal(anyhow::Error),
}

impl StepError {
    pub fn fatal(text: impl Into<String>) -> StepError {
        StepError::Fatal(anyhow::Error::msg(text.into()))
    }

    pub fn retry(text: impl Into<String>) -> StepError {
        StepError::Retry(anyhow::Error::msg(text.into()))
    }
}

/// What people read of a step that was ended by its limit.
pub fn too_slow(what: &str, limit: Duration) -> String {
    let limit = lease::spoken(limit.as_millis() as Ms);
    format!("{what} took longer than {limit}, which is its limit.")
}

/// What a driver is told about the step at hand.
pub struct StepCx<'a> {
    pub job: &'a Job,
    /// `None` only for jobs on a game's snapshot.
    pub server: Option<&'a Server>,
    pub journal: &'a dyn Journal,
    pub out: Output,
    pub now: Ms,
    /// Whose midnight a month of the bill begins at.
    pub zone: &'a TimeZone,
}

impl StepCx<'_> {
    pub fn server(&self) -> Result<&Server, StepError> {
        self.server.ok_or_else(|| StepError::fatal("this step needs a server, and the job has none"))
    }

    /// The game that the job is about.
    pub fn game(&self) -> &str {
        match (&self.job.subject, self.server) {
            (Subject::Game(game), _) => game,
            (Subject::Server(_), Some(server)) => &server.game,
            (Subject::Server(_), None) => "",
        }
    }
}

/// Where a step's output goes, line by line: into the job's bounded log, with the server's secrets masked.
#[derive(Clone)]
pub struct Output {
    sender: mpsc::Sender<String>,
    secrets: Arc<Vec<String>>,
}

/// A longer line is cut: a progress bar without line ends must not fill the store.
pub const OUTPUT_LINE_MAX_CHARS: usize = 500;
/// Lines that may wait for the store; beyond that they are dropped, because a chatty script must not stop its step.
const OUTPUT_BACKLOG: usize = 1000;

impl Output {
    pub fn new(secrets: Vec<String>) -> (Output, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel(OUTPUT_BACKLOG);
        let secrets = secrets.into_iter().filter(|secret| secret.chars().count() >= SECRET_MIN_CHARS).collect();
        (Output { sender, secrets: Arc::new(secrets) }, receiver)
    }

    pub fn line(&self, text: impl AsRef<str>) {
        // Colours mean nothing in a channel, and would hide a secret that they run through.
        let line = self.mask(without_ansi(text.as_ref()).trim_end());
        let _ = self.sender.try_send(line.chars().take(OUTPUT_LINE_MAX_CHARS).collect());
    }

    pub fn mask(&self, text: &str) -> String {
        mask(text, &self.secrets)
    }
}

/// Replaces every secret by dots, before anything is cut.
pub fn mask(text: &str, secrets: &[String]) -> String {
    let mut long: Vec<&str> =
        secrets.iter().map(String::as_str).filter(|secret| secret.chars().count() >= SECRET_MIN_CHARS).collect();
    // Longest first: masking a secret that is the beginning of another would leave the other's end readable.
    long.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    long.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "••••"))
}

/// Where jobs live. A trait so that tests can crash between two writes; `store` is the real one.
#[async_trait]
pub trait Journal: Send + Sync {
    /// Writes a new job, refused if its subject has an open one. The wish is looked at and written in the same
    /// transaction. A job that moves the game ends that its server is left alone.
    async fn open(&self, new: NewJob, wish: Wish, now: Ms) -> Result<JobId, OpenError>;
    async fn load(&self, id: JobId) -> anyhow::Result<Job>;
    async fn open_jobs(&self) -> anyhow::Result<Vec<Job>>;
    /// Takes or renews the right to work on a job until `until`; false when another engine has it. A claim that lies
    /// further ahead than anybody claims is none: the clock was set back since it was written.
    async fn claim(&self, id: JobId, engine: &str, now: Ms, until: Ms) -> anyhow::Result<bool>;
    async fn release(&self, id: JobId, engine: &str) -> anyhow::Result<()>;
    /// Writes event number `job.seq` and what it gains, in one transaction. `engine` is checked against the claim;
    /// `None` writes for a person (cancel, retry, force, abandon), who needs no claim.
    async fn append(&self, job: &Job, engine: Option<&str>, recorded: &Recorded) -> Result<(), AppendError>;
    /// Ends a job, with what that means for its server, in one transaction. Ending it twice changes nothing.
    async fn close(&self, job: &Job, outcome: Outcome, after: Aftermath, now: Ms) -> anyhow::Result<()>;
    /// Adds lines to the job's bounded log.
    async fn output(&self, id: JobId, step: Step, now: Ms, lines: &[String]) -> anyhow::Result<()>;

    async fn server(&self, id: &ServerId) -> anyhow::Result<Option<Server>>;
    /// Every server that is not deleted.
    async fn servers(&self) -> anyhow::Result<Vec<Server>>;
    /// So many of those that are, the last ones first.
    async fn deleted_servers(&self, at_most: usize) -> anyhow::Result<Vec<Server>>;
    /// What a game is given to keep to itself, by variable; with `CONSOLE_PASSWORD` among them.
    async fn secrets(&self, id: &ServerId) -> anyhow::Result<HashMap<String, String>>;
    /// The values that nothing said of the server may hold: its secrets, and those that a game may still have.
    async fn never_shown(&self, id: &ServerId) -> anyhow::Result<Vec<String>>;
    async fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>>;
    async fn memo(&self, id: &ServerId) -> anyhow::Result<Memo>;
    async fn set_memo(&self, id: &ServerId, memo: &Memo) -> anyhow::Result<()>;
    /// When starts because of a crash were opened since `since`.
    async fn crash_starts(&self, id: &ServerId, since: Ms) -> anyhow::Result<Vec<Ms>>;
    async fn notice(&self, server: &Server, notice: &Notice, now: Ms) -> anyhow::Result<()>;

    /// The guild's rentals that bill now or ended after `since`, deleted servers' too, in the order they began.
    async fn rentals(&self, guild: &GuildId, since: Ms) -> anyhow::Result<Vec<Rental>>;
    /// Bills a host that came and went without ever being on a server's record; of those that are on record the event that
    /// says so begins and ends the bill. The same host twice is one rental, of which the last end holds.
    async fn bill_unrecorded(&self, rental: &Rental) -> anyhow::Result<()>;
    /// What still bills though its server is deleted or has it no longer: hosts that somebody went on without seeing go.
    async fn left_bills(&self) -> anyhow::Result<Vec<Rental>>;
    /// Whether something was told to people already, under a key of the engine's own.
    async fn told(&self, key: &str) -> anyhow::Result<bool>;
    async fn set_told(&self, key: &str) -> anyhow::Result<()>;
    /// It may be told again.
    async fn forget_told(&self, key: &str) -> anyhow::Result<()>;
    /// The provider says that there is no such host any more, although no job destroyed it: it bills no longer. What
    /// the server has on record is left to the next job. Twice changes nothing.
    async fn host_gone(&self, provider: &str, host: &str, now: Ms) -> anyhow::Result<()>;
    /// Whether a host was rented and its bill has ended.
    async fn bill_ended(&self, provider: &str, host: &str) -> anyhow::Result<bool>;
    /// It is there after all, and has billed all the time. False, and nothing is changed, where its bill goes on anyway
    /// or its server has it on record no longer.
    async fn host_back(&self, provider: &str, host: &str) -> anyhow::Result<bool>;
}

/// What people want of a new job's server.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Written with the job.
    pub wanted: Option<Wanted>,
    /// For a job that nobody asked for: what it was decided on. Where that holds no longer, the job is refused.
    pub decided_on: Option<DecidedOn>,
}

impl Wish {
    pub fn to(wanted: Wanted) -> Wish {
        Wish { wanted: Some(wanted), decided_on: None }
    }
}

/// All that people can say about a server without opening a job, and what a job that came and went would have changed.
#[derive(Clone, Debug, PartialEq)]
pub struct DecidedOn {
    wanted: Wanted,
    lease_until: Option<Ms>,
    limits: Limits,
    owned: Owned,
}

impl DecidedOn {
    pub fn of(server: &Server) -> DecidedOn {
        DecidedOn {
            wanted: server.wanted,
            lease_until: server.lease_until,
            limits: server.limits.clone(),
            owned: server.owned.clone(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another job works on it")]
    Busy(Box<Job>),
    #[error("what it was decided on holds no longer")]
    Overtaken,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Somebody else wrote this number first: load again and look.
    #[error("the job changed meanwhile")]
    Conflict,
    #[error("another engine has taken the job over")]
    ClaimLost,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What the end of a job means for its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aftermath {
    pub wanted: Option<Wanted>,
    pub lease: LeaseChange,
    pub deleted: bool,
    pub update_done: bool,
    /// The game that is up now was given what people had set by then, or later.
    pub begun_with: Option<Ms>,
    /// It runs there from now on, and owns nothing but its world.
    pub backend: Option<Backend>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaseChange {
    #[default]
    Keep,
    /// It runs until then, or longer if it was extended meanwhile. `None`: for ever.
    Begin(Option<Ms>),
    Clear,
}

/// What the end of a job means, as a pure rule.
pub fn aftermath(job: &Job, outcome: Outcome, now: Ms, rules: &Rules) -> Aftermath {
    let starts = job.record(Step::AwaitReady).is_some();
    let begins = starts && job.record(Step::StartGame).is_some_and(|record| !record.ran_already);
    let stopped = job.has_begun(Step::StopGame);
    let after_crash = match job.cause {
        Cause::Crashed { .. } => true,
        Cause::Asked | Cause::LeaseOver | Cause::Idle { .. } | Cause::NobodyJoined { .. } => false,
        Cause::KeepsCrashing { .. } | Cause::ShouldBeOff | Cause::BudgetSpent { .. } | Cause::Unwatched => false,
    };
    let wanted = match (&job.action, outcome) {
        (_, Outcome::Held) => None,
        // Nobody asked for it, so people want what they wanted before: a kill meanwhile holds. Without one the watcher
        // tries again where it failed, until it has tried often enough and stops it properly.
        (Action::Start, Outcome::Succeeded | Outcome::Failed) if after_crash => None,
        (Action::Start, Outcome::Succeeded) => Some(Wanted::On),
        (Action::Start, Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned) => Some(Wanted::Off),
        (Action::Stop | Action::Delete, Outcome::Succeeded | Outcome::Failed) => Some(Wanted::Off),
        (Action::Stop | Action::Delete, Outcome::Cancelled | Outcome::Abandoned) => {
            Some(if stopped { Wanted::Off } else { Wanted::On })
        }
        (Action::Restart | Action::Restore { .. } | Action::Update, Outcome::Succeeded) => starts.then_some(Wanted::On),
        (
            Action::Restart | Action::Restore { .. } | Action::Update,
            Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned,
        ) => (starts && stopped).then_some(Wanted::Off),
        // It is where it should be and waits for a start; who was called off or gave up before the stop moved nothing.
        (Action::Move { .. }, Outcome::Succeeded) => Some(Wanted::Off),
        (Action::Move { .. }, Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned) => {
            stopped.then_some(Wanted::Off)
        }
        (
            Action::Backup | Action::BuildSnapshot,
            Outcome::Succeeded | Outcome::Failed | Outcome::Cancelled | Outcome::Abandoned,
        ) => None,
    };
    let goes_on = after_crash || restarted_by_a_rule(job);
    let lease = match wanted {
        // As it was closed: with its lease, and with what the watcher remembers of it.
        _ if outcome == Outcome::Abandoned => LeaseChange::Keep,
        // Neither a crash nor a restart by a rule is a reason to run longer than people asked for.
        Some(Wanted::On) if starts && outcome == Outcome::Succeeded && !goes_on => {
            LeaseChange::Begin((rules.lease_ms > 0).then_some(now + rules.lease_ms))
        }
        Some(Wanted::Off) => LeaseChange::Clear,
        Some(Wanted::On) | None => LeaseChange::Keep,
    };
    let moved = job.record(Step::ReplaceDrive).is_some() && outcome == Outcome::Succeeded;
    let backend = match (&job.action, outcome) {
        (Action::Move { to }, Outcome::Succeeded) => Some(*to),
        (_, Outcome::Succeeded | Outcome::Failed | Outcome::Cancelled | Outcome::Held | Outcome::Abandoned) => None,
    };
    Aftermath {
        backend,
        wanted,
        lease,
        deleted: job.action == Action::Delete && outcome == Outcome::Succeeded,
        begun_with: (begins && outcome == Outcome::Succeeded).then_some(job.created_at),
        update_done: moved && matches!(job.action, Action::Update | Action::Start | Action::Restart),
    }
}

/// Nobody is there who wants to play now, so time goes on as if there had been no restart: a rule that restarts more
/// often than the limits are long would otherwise keep a rented host for ever.
pub fn restarted_by_a_rule(job: &Job) -> bool {
    let by_a_rule = match job.actor {
        Actor::Schedule { .. } => true,
        Actor::Discord { .. } | Actor::Token { .. } | Actor::Watcher | Actor::Operator => false,
    };
    by_a_rule && job.action == Action::Restart
}

/// Whether a person who abandons this job means: do nothing by yourself. Stopping what a stop could not stop would
/// only fail again, and again; a start that was abandoned may leave a host, and that one is put away.
pub fn leaves_alone(job: &Job, outcome: Outcome) -> bool {
    let stops = match job.action {
        Action::Stop | Action::Restart | Action::Restore { .. } | Action::Update | Action::Delete => true,
        Action::Move { .. } => true,
        Action::Start | Action::Backup | Action::BuildSnapshot => false,
    };
    stops && outcome == Outcome::Abandoned
}

/// Where time comes from: the system, or tokio's own clock that a test can pause.
#[derive(Clone)]
pub enum Clock {
    System,
    Test { base: Ms, start: tokio::time::Instant },
}

impl Clock {
    pub fn test(base: Ms) -> Clock {
        Clock::Test { base, start: tokio::time::Instant::now() }
    }

    pub fn now(&self) -> Ms {
        match self {
            Clock::System => jiff::Timestamp::now().as_millisecond(),
            Clock::Test { base, start } => base + start.elapsed().as_millis() as Ms,
        }
    }
}

/// Times that hold where neither the server nor its recipe says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    pub rules: Rules,
    /// How often the watcher looks.
    pub watch_every: Duration,
}

/// The engine of one process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub journal: Arc<dyn Journal>,
    pub drivers: HashMap<Backend, Arc<dyn Driver>>,
    pub bus: Bus,
    pub clock: Clock,
    pub defaults: Defaults,
    pub spending: Spending,
    /// Tells two engines on one database apart.
    pub id: String,
    /// Wakes the loop that takes up jobs.
    pub work: Notify,
    /// Wakes a running step to look whether it was called off.
    pub pokes: Mutex<HashMap<JobId, Arc<Notify>>>,
    pub looks: Looks,
    /// Wakes the watcher.
    pub watch: Notify,
}

/// Somebody wants something done with a server.
#[derive(Clone, Debug)]
pub struct Ask {
    pub action: Action,
    pub cause: Cause,
    pub actor: Actor,
    pub channel: Option<String>,
}

impl Engine {
    pub fn new(
        journal: Arc<dyn Journal>,
        drivers: HashMap<Backend, Arc<dyn Driver>>,
        bus: Bus,
        clock: Clock,
        defaults: Defaults,
    ) -> Engine {
        let inner = Inner {
            journal,
            drivers,
            bus,
            clock,
            defaults,
            spending: Spending::default(),
            id: uuid::Uuid::new_v4().to_string(),
            work: Notify::new(),
            pokes: Mutex::default(),
            looks: Looks::default(),
            watch: Notify::new(),
        };
        Engine { inner: Arc::new(inner) }
    }

    /// The same engine, with what the operator decided about money. For one that was just made.
    pub fn with_spending(self, spending: Spending) -> Engine {
        let inner = Arc::into_inner(self.inner).expect("an engine that was just made has no other holder");
        Engine { inner: Arc::new(Inner { spending, ..inner }) }
    }

    pub fn spending(&self) -> &Spending {
        &self.inner.spending
    }

    pub fn driver(&self, backend: Backend) -> Option<Arc<dyn Driver>> {
        self.inner.drivers.get(&backend).cloned()
    }

    pub fn now(&self) -> Ms {
        self.inner.clock.now()
    }

    /// The times that one server follows.
    pub fn rules(&self, server: &Server) -> Rules {
        let default = self.inner.defaults.rules;
        let minutes = |own: Option<u32>, default| own.map_or(default, |own| Ms::from(own) * crate::model::MINUTE_MS);
        let idle_ms = minutes(server.limits.idle_min, default.idle_ms);
        let never_joined_ms = if idle_ms == 0 { 0 } else { default.never_joined_ms.max(idle_ms) };
        Rules { idle_ms, never_joined_ms, lease_ms: minutes(server.limits.lease_min, default.lease_ms) }
    }

    /// Writes a job for a server, with the wish that goes with it, and sets to work. What nobody asked for is decided
    /// on `server` as it is given here, and looking at the situation takes its time: people have the last word.
    pub async fn ask(&self, server: &Server, ask: Ask) -> Result<JobId, OpenError> {
        let seen = self.look(server).await;
        // Somebody joined meanwhile, or nobody can look or count any more.
        let played = match &seen {
            Seen::Running { players } => players.online != Some(0),
            Seen::Unknown { .. } => true,
            Seen::Stopped { .. } | Seen::Gone => false,
        };
        if played && matches!(ask.cause, Cause::Idle { .. } | Cause::NobodyJoined { .. }) {
            return Err(OpenError::Overtaken);
        }
        let situation = self.situation(server, &seen).await?;
        let wanted = match ask.action {
            Action::Start | Action::Restart => Some(Wanted::On),
            Action::Stop | Action::Delete => Some(Wanted::Off),
            Action::Backup | Action::Restore { .. } | Action::Update | Action::Move { .. } => None,
            Action::BuildSnapshot => None,
        };
        let decided_on = (ask.cause != Cause::Asked).then(|| DecidedOn::of(server));
        let new = NewJob {
            subject: Subject::Server(server.id.clone()),
            guild: server.guild.clone(),
            plan: plan(&ask.action, server.backend, situation),
            action: ask.action,
            cause: ask.cause,
            actor: ask.actor,
            channel: ask.channel,
        };
        self.open(new, Wish { wanted, decided_on }).await
    }

    /// Writes a job that builds a game's snapshot, and sets to work.
    pub async fn ask_snapshot(&self, game: &str, guild: &GuildId, ask: Ask) -> Result<JobId, OpenError> {
        let new = NewJob {
            subject: Subject::Game(game.to_owned()),
            guild: guild.clone(),
            plan: plan(&Action::BuildSnapshot, Backend::Docker, Situation::default()),
            action: Action::BuildSnapshot,
            cause: ask.cause,
            actor: ask.actor,
            channel: ask.channel,
        };
        self.open(new, Wish::default()).await
    }

    async fn open(&self, new: NewJob, wish: Wish) -> Result<JobId, OpenError> {
        let id = self.inner.journal.open(new, wish, self.now()).await?;
        self.inner.bus.nudge(Nudge::Job(id));
        self.inner.work.notify_one();
        Ok(id)
    }

    /// Wakes the loop for a job that a person changed: cancelled, retried, forced or abandoned.
    pub fn poke(&self, id: JobId) {
        if let Some(poke) = self.inner.pokes.lock().expect("no holder of this lock can panic").get(&id) {
            poke.notify_one();
        }
        self.inner.bus.nudge(Nudge::Job(id));
        self.inner.work.notify_one();
    }

    async fn situation(&self, server: &Server, seen: &Seen) -> anyhow::Result<Situation> {
        let place = server.owned.container.is_some() || server.owned.host.is_some();
        let (running, leftover) = match seen {
            Seen::Running { .. } => (true, false),
            // Nobody could look: plan to stop it, which is harmless where it does not run.
            Seen::Unknown { .. } => (place, false),
            // It fell, and people want it on: it comes up again at the end.
            Seen::Stopped { .. } => (place && server.wanted == Wanted::On, place && server.wanted == Wanted::Off),
            Seen::Gone => (false, false),
        };
        let snapshots = self.inner.journal.snapshots().await?;
        let sealed = drive::golden(&snapshots, &server.game).is_some();
        Ok(Situation {
            running,
            leftover,
            has_snapshot: sealed || builder_of(self.inner.journal.as_ref(), &server.game, None).await?.is_some(),
            update_at_start: server.update_at_start && server.owned.drive.is_some(),
        })
    }
}

/// The open job that builds this game's snapshot now, if one does: asked for as such, or the first start of another
/// server of the same game. `except` is the job that asks.
pub async fn builder_of(journal: &dyn Journal, game: &str, except: Option<JobId>) -> anyhow::Result<Option<JobId>> {
    for job in journal.open_jobs().await? {
        if Some(job.id) == except || job.record(Step::RunInstaller).is_none() || job.rest().is_some() {
            continue;
        }
        let same_game = match &job.subject {
            Subject::Game(subject) => subject == game,
            Subject::Server(id) => journal.server(id).await?.is_some_and(|server| server.game == game),
        };
        if same_game {
            return Ok(Some(job.id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::job::{Event, Gain, NewJob};

    /// Who presses Start while nobody knows whether the game runs changes nothing of what it was given.
    #[test]
    fn a_game_that_ran_already_was_begun_with_nothing_new() {
        let rules = Rules { idle_ms: 0, never_joined_ms: 0, lease_ms: 0 };
        let begun = |ran_already| {
            let new = NewJob {
                subject: Subject::Server(ServerId("s".into())),
                guild: GuildId("1".into()),
                action: Action::Start,
                cause: Cause::Asked,
                actor: Actor::Operator,
                channel: None,
                plan: vec![Step::StartGame, Step::AwaitReady],
            };
            let mut job = Job::new(JobId(1), 50, new);
            for step in [Step::StartGame, Step::AwaitReady] {
                for event in
                    [Event::Started { step }, Event::Finished { step, gain: Gain { ran_already, ..Gain::default() } }]
                {
                    job.apply(&Recorded { at: 60, event }).unwrap();
                }
            }
            aftermath(&job, Outcome::Succeeded, 70, &rules).begun_with
        };
        assert_eq!((begun(false), begun(true)), (Some(50), None));
    }
}
