//! The only door for fronts: one method for each thing a person can do. Each checks the permission, then the input,
//! then writes a job or answers, and leaves a line in the audit log. No front decides anything, and none is trusted.

mod access;
mod backups;
mod cost;
mod dearer;
mod due;
mod jobs;
mod moving;
mod orphans;
mod pictures;
mod places;
mod schedules;
mod servers;
mod snapshots;
mod telling;

pub use crate::store::audit::AuditEntry;
use crate::store::audit::NO_END;
pub use cost::CostFilter;
pub use due::{Member, Members};
pub use jobs::{Choice, Extended, UpdateWhen, force_loses};
pub use moving::Moving;
pub use orphans::{LostView, OrphanView, Orphans};
pub use schedules::{Added, Rule};
pub use servers::{Applied, Created, Field, FieldKind, Form, NewServer};
pub use snapshots::{GameView, VariableView};
pub use telling::{JobMessage, Panel, Telling, WaitingNotice};

use crate::bus::{Bus, Listener};
use crate::engine::{Engine, OpenError};
use crate::model::access::{Caller, Permission, permission};
use crate::model::job::Job;
use crate::model::lease;
use crate::model::server::{Backend, Server};
use crate::model::{JobId, Ms};
use crate::recipes::Recipes;
use crate::store::{self, Store};
use crate::vault::Vault;
use jiff::tz::TimeZone;
use std::pin::Pin;
use std::sync::Arc;

/// Why something was not done. What a person reads is a sentence they can act on.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// They may not; the sentence says who may.
    #[error("{0}")]
    NotAllowed(String),
    #[error("{0}")]
    NotFound(String),
    /// Something else is under way; the sentence says what, by whom and since when.
    #[error("{0}")]
    Busy(String),
    /// What they typed cannot be used; the sentence says what can.
    #[error("{0}")]
    Invalid(String),
    /// Our problem. Logged with its chain by whoever shows it.
    #[error("{}", inside(.0))]
    Ours(#[from] anyhow::Error),
}

fn inside(error: &anyhow::Error) -> &'static str {
    match store::disk_is_full(error) {
        true => {
            "The disk that Spawnpoint keeps its records on is full, so this was not done. Its operator has to make room; \
             then try again."
        }
        false => "Something went wrong inside Spawnpoint. Its operator finds the details in the log.",
    }
}

pub type Answer<T> = Result<T, Refusal>;

/// What the operator chose, as far as the app must know it.
#[derive(Clone, Debug)]
pub struct Choices {
    pub players_role: String,
    pub extend_ms: Ms,
    /// The zone of schedules that name none.
    pub zone: TimeZone,
}

#[derive(Clone)]
pub struct App {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    engine: Engine,
    vault: Vault,
    recipes: Arc<Recipes>,
    bus: Bus,
    choices: Choices,
    /// Held by a start from the look at its budgets until its job is on record.
    starts: tokio::sync::Mutex<()>,
}

/// All that an [`App`] is made of.
pub struct Parts {
    pub store: Store,
    pub engine: Engine,
    pub vault: Vault,
    pub recipes: Arc<Recipes>,
    pub bus: Bus,
    pub choices: Choices,
}

impl App {
    pub fn new(parts: Parts) -> App {
        let Parts { store, engine, vault, recipes, bus, choices } = parts;
        App { inner: Arc::new(Inner { store, engine, vault, recipes, bus, choices, starts: Default::default() }) }
    }

    pub fn now(&self) -> Ms {
        self.inner.engine.now()
    }

    /// Nudges about what changed, for fronts that show it.
    pub fn listen(&self) -> Listener {
        self.inner.bus.listen()
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// The server of that name, if the caller may do `needed` with it. Who may not even see it hears the same as
    /// for one that does not exist.
    async fn server(&self, caller: &Caller, name: &str, needed: Permission) -> Answer<Server> {
        let server = self.store().server_by_name(&caller.guild, name.trim()).await?;
        let Some(server) = server else {
            return Err(Refusal::NotFound(self.no_such_server(caller, name).await?));
        };
        self.require(caller, Some(&server), needed).await?;
        Ok(server)
    }

    async fn no_such_server(&self, caller: &Caller, name: &str) -> Answer<String> {
        let names: Vec<String> =
            self.store().servers_of(&caller.guild).await?.into_iter().map(|server| server.name.to_string()).collect();
        let shown: String = name.chars().filter(|c| !c.is_control() && *c != '`').take(40).collect();
        Ok(match names.as_slice() {
            [] => "There is no server here yet. Make one with `/server create`.".to_owned(),
            names => format!("There is no server called `{shown}`. There are: {}.", listed(names)),
        })
    }

    async fn require(&self, caller: &Caller, server: Option<&Server>, needed: Permission) -> Answer<()> {
        let grants = self.store().grants(&caller.guild).await?;
        let role = &self.inner.choices.players_role;
        if permission(caller, &grants, server.map(|server| &server.id), role) >= needed {
            return Ok(());
        }
        let how = match needed {
            Permission::View | Permission::Play => format!(
                "That needs the permission “{}”: a role named “{role}” has it, and an admin can grant it with `/admin grant`.",
                needed.word()
            ),
            Permission::Operate | Permission::Admin => {
                format!("That needs the permission “{}”. An admin can grant it with `/admin grant`.", needed.word())
            }
        };
        Err(Refusal::NotAllowed(how))
    }

    /// Does what somebody asks for, with what was asked and what became of it in the audit log. The work comes in a box:
    /// a front that holds many such futures would otherwise need more than a thread's stack.
    async fn audited<T>(
        &self,
        caller: &Caller,
        did: Did<'_>,
        work: Pin<Box<impl Future<Output = Answer<T>>>>,
    ) -> Answer<T> {
        let line = self.asked_for(caller, did).await?;
        let answer = work.await;
        self.became(line, answer).await
    }

    /// Puts on record who asks for what, before it is done: a crash in between leaves no deed without its line.
    async fn asked_for(&self, caller: &Caller, did: Did<'_>) -> Answer<Line> {
        let entry = AuditEntry {
            at: self.now(),
            guild: caller.guild.clone(),
            actor: caller.actor.clone(),
            action: did.action.to_owned(),
            server: did.server.map(str::to_owned),
            detail: did.detail,
            outcome: NO_END.to_owned(),
        };
        Ok(Line { id: self.store().audit_add(&entry).await?, entry })
    }

    /// Says more exactly what is about to be done.
    async fn amend(&self, line: &Line) -> Answer<()> {
        Ok(self.store().audit_write(line.id, &line.entry).await?)
    }

    /// Adds what became of it, and hands the answer on. What was done is done, also where that cannot be written.
    async fn became<T>(&self, Line { id, mut entry }: Line, answer: Answer<T>) -> Answer<T> {
        entry.outcome = match &answer {
            Ok(_) => "done".to_owned(),
            Err(Refusal::Ours(_)) => "failed".to_owned(),
            Err(refusal) => format!("refused: {refusal}"),
        };
        if let Err(error) = self.store().audit_write(id, &entry).await {
            tracing::error!(action = entry.action, "What became of it is not in the audit log: {error:#}");
        }
        answer
    }

    /// What a busy server's visitor reads.
    async fn busy(&self, job: &Job, subject: &str) -> Refusal {
        let ago = lease::spoken(self.now() - job.created_at);
        let (who, what) = (job.actor.name(), job.action.word());
        let way_out = match job.rest() {
            Some(_) => "It waits for a person: `/server retry` tries again, `/server cancel` closes it.",
            None => "Wait for it, or call it off with `/server cancel`.",
        };
        Refusal::Busy(format!("`{subject}` is busy: {who} asked for “{what}” {ago} ago (job {}). {way_out}", job.id))
    }

    async fn opened(&self, result: Result<JobId, OpenError>, subject: &str) -> Answer<JobId> {
        match result {
            Ok(id) => Ok(id),
            Err(OpenError::Busy(job)) => Err(self.busy(&job, subject).await),
            // Only what nobody asked for is refused like that.
            Err(overtaken @ OpenError::Overtaken) => Err(Refusal::Ours(overtaken.into())),
            Err(OpenError::Other(error)) => Err(Refusal::Ours(error)),
        }
    }
}

/// Most often somebody has just changed the configuration, which is read once.
fn not_set_up(backend: Backend) -> Refusal {
    Refusal::Invalid(format!(
        "The {} backend is not set up here. `spawnpoint doctor` says what is missing; a changed configuration takes \
         effect when Spawnpoint is started again.",
        backend.word()
    ))
}

/// A line of the audit log that waits for its end.
struct Line {
    id: i64,
    entry: AuditEntry,
}

/// What somebody did, for the audit log.
struct Did<'a> {
    action: &'a str,
    server: Option<&'a str>,
    detail: String,
}

impl<'a> Did<'a> {
    fn new(action: &'a str, server: &'a str) -> Did<'a> {
        Did { action, server: Some(server), detail: String::new() }
    }

    fn with(self, detail: impl Into<String>) -> Did<'a> {
        Did { detail: detail.into(), ..self }
    }
}

/// `a`, `b` and `c`; long lists end in "and 7 more".
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut quoted: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    if names.len() > SHOWN {
        quoted.push(format!("{} more", names.len() - SHOWN));
    }
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
