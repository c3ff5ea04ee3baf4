//! What happens when a timed rule is due. The rights of the person behind it are asked for anew; a rule that is taken up
//! says so in the database first, and what came of it is written with the next time in one transaction.
//!
//! A job is looked for before it is opened, so a crash in between opens no second one. A command is typed once or not
//! at all: whoever finds one begun does not type it again, and says so.

use super::{Answer, App, Refusal};
use crate::bus::Nudge;
use crate::model::access::{Actor, Caller};
use crate::model::job::{Action, Cause, Job};
use crate::model::schedule::{Came, Does, LOOK_AGAIN_MS, Last, RETRY_MS, Schedule, Skipped, TAKEN_MS};
use crate::model::server::{Seen, Server, Wanted};
use crate::model::view::Notice;
use crate::model::world::WorldAt;
use crate::model::{GuildId, JobId, Ms};
use crate::store::audit::AuditEntry;
use crate::store::schedules::Settled;
use async_trait::async_trait;
use std::time::Duration;

/// Jobs of a server among which one is looked for that was opened a moment ago.
const JOBS_LOOKED_AT: usize = 20;
/// Who does not say within this who somebody is, for instance because of a rate limit, is asked again later.
const MEMBER_WITHIN: Duration = Duration::from_secs(30);

/// Who knows what people hold in a guild, at this moment and not when they were last heard of.
#[async_trait]
pub trait Members: Send + Sync {
    /// An error where nobody could say.
    async fn member(&self, guild: &GuildId, user: &str) -> anyhow::Result<Member>;
}

/// Somebody in a guild, or not.
#[derive(Clone, Debug)]
pub enum Member {
    Here(Caller),
    /// Their guild does not let them do anything for a while.
    TimedOut,
    /// They have left, or the guild is not served.
    Gone,
}

/// What came of one try.
enum Tried {
    Done(Came),
    /// Somebody else deals with it.
    NotOurs,
    /// Not now; why, for people.
    Later(String),
}

impl App {
    /// The rules that are due, or are to be tried again.
    pub async fn due_schedules(&self) -> anyhow::Result<Vec<Schedule>> {
        self.store().due_schedules(self.now()).await
    }

    /// When the next one is.
    pub async fn next_schedule_at(&self) -> anyhow::Result<Option<Ms>> {
        self.store().next_schedule_at().await
    }

    /// Does what a rule says, or says why not.
    pub async fn fire(&self, schedule: &Schedule, members: &dyn Members) -> anyhow::Result<()> {
        let server = self.store().server_any(&schedule.server).await?;
        let Some(server) = server.filter(|server| server.deleted_at.is_none()) else {
            self.store().remove_schedule(&schedule.guild, schedule.number).await?;
            return Ok(());
        };
        if schedule.is_settled() {
            return self.find_next(schedule).await;
        }
        let skipped = |why| Tried::Done(Came::Skipped { why });
        let tried = if schedule.broke_off() {
            skipped(Skipped::Unsure)
        } else {
            match self.opened_for(schedule, &server).await {
                Ok(Some(job)) => Tried::Done(Came::Job { job }),
                Ok(None) if schedule.is_missed(self.now()) => skipped(Skipped::Missed),
                Ok(None) => self.try_now(schedule, &server, members).await,
                Err(error) => ours(&server, error),
            }
        };
        match tried {
            Tried::Done(came) => self.settle(schedule, &server, came).await,
            Tried::NotOurs => Ok(()),
            Tried::Later(_) if schedule.may_try_again(self.now()) => {
                let now = self.now();
                self.store().postpone_schedule(schedule, now + schedule.retry_ms(now)).await
            }
            Tried::Later(why) => self.settle(schedule, &server, Came::Skipped { why: Skipped::Busy { why } }).await,
        }
    }

    /// For a rule that could not be dealt with because of our own trouble: the others come first.
    pub async fn put_off(&self, schedule: &Schedule) -> anyhow::Result<()> {
        self.store().postpone_schedule(schedule, self.now() + RETRY_MS).await
    }

    /// What was due is dealt with, but nobody could say when it comes again.
    async fn find_next(&self, schedule: &Schedule) -> anyhow::Result<()> {
        let now = self.now();
        match schedule.next(now) {
            Some(next) => self.store().put_schedule_to(schedule, next).await,
            None => {
                tracing::warn!(schedule = schedule.number, "Nobody can say when a schedule comes next.");
                self.store().postpone_schedule(schedule, now + LOOK_AGAIN_MS).await
            }
        }
    }

    async fn try_now(&self, schedule: &Schedule, server: &Server, members: &dyn Members) -> Tried {
        let not_allowed = |why| Tried::Done(Came::Skipped { why: Skipped::NotAllowed { why } });
        let asked = tokio::time::timeout(MEMBER_WITHIN, behind(schedule, members)).await;
        let caller = match asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {MEMBER_WITHIN:?}"))) {
            Ok(Member::Here(caller)) => caller,
            Ok(Member::Gone) => {
                let why = "They have left this Discord server, or Spawnpoint no longer serves it.".to_owned();
                return not_allowed(why);
            }
            Ok(Member::TimedOut) => {
                let who = schedule.made_by.name();
                return not_allowed(format!("{who} is timed out in this Discord server."));
            }
            Err(error) => {
                tracing::warn!(server = %server.name, "Nobody could say who is behind a schedule: {error:#}");
                return Tried::Later("Discord could not be asked whether its maker still may do that.".to_owned());
            }
        };
        match self.act(schedule, server, &caller).await {
            Ok(Some(came)) => Tried::Done(came),
            Ok(None) => Tried::NotOurs,
            Err(Refusal::Busy(why)) => Tried::Later(why),
            Err(Refusal::Ours(error)) => ours(server, error),
            Err(Refusal::NotAllowed(why)) => Tried::Done(Came::Skipped { why: Skipped::NotAllowed { why } }),
            Err(Refusal::Invalid(why) | Refusal::NotFound(why)) => {
                Tried::Done(Came::Skipped { why: Skipped::Refused { why } })
            }
        }
    }

    /// `None` where another engine has taken the rule up.
    async fn act(&self, schedule: &Schedule, server: &Server, caller: &Caller) -> Answer<Option<Came>> {
        self.require(caller, Some(server), schedule.does.needs()).await?;
        if let Some(why) = self.needless(schedule, server).await? {
            return Ok(Some(Came::Needless { why: why.to_owned() }));
        }
        let begun = match &schedule.does {
            Does::Command { .. } => Some(Last { due_at: schedule.due_at, came: Came::Begun }),
            Does::Start | Does::Stop | Does::Restart | Does::Backup => None,
        };
        if !self.store().take_schedule(schedule, self.now() + TAKEN_MS, begun.as_ref()).await? {
            return Ok(None);
        }
        let (name, channel) = (server.name.as_str(), server.channel.clone());
        let job = match &schedule.does {
            Does::Start => self.start_unaudited(caller, name, None, channel).await?,
            Does::Stop => self.stop_unaudited(caller, name, channel).await?,
            Does::Restart => self.restart_unaudited(caller, name, channel).await?,
            Does::Backup => self.backup_unaudited(caller, name, channel).await?,
            Does::Command { line } => return Ok(Some(self.type_once(caller, name, line).await)),
        };
        Ok(Some(Came::Job { job }))
    }

    /// It may have reached the game whatever is answered, so it is never tried again.
    async fn type_once(&self, caller: &Caller, name: &str, line: &str) -> Came {
        match self.console_unaudited(caller, name, line).await {
            Ok(_) => Came::Typed,
            Err(refusal) => {
                if let Refusal::Ours(error) = &refusal {
                    tracing::error!(server = name, "A scheduled command could not be typed: {error:#}");
                }
                Came::Skipped { why: Skipped::Refused { why: refusal.to_string() } }
            }
        }
    }

    /// The job that was opened for this very time, before a crash or by another engine.
    async fn opened_for(&self, schedule: &Schedule, server: &Server) -> anyhow::Result<Option<JobId>> {
        let actor = schedule.actor();
        let jobs = self.store().jobs_of(&server.id, JOBS_LOOKED_AT).await?;
        let ours = jobs.into_iter().find(|(job, _, _)| job.actor == actor && job.created_at >= schedule.due_at);
        Ok(ours.map(|(job, _, _)| job.id))
    }

    /// Why there is nothing to do. People who follow a plan need not hear that all is as planned.
    async fn needless(&self, schedule: &Schedule, server: &Server) -> Answer<Option<&'static str>> {
        let rests = self.open_job(server).await?.is_none();
        Ok(match &schedule.does {
            Does::Start if server.wanted == Wanted::On && rests => match self.engine().look(server).await {
                Seen::Running { .. } => Some("it was running"),
                Seen::Gone | Seen::Stopped { .. } => None,
                // A start would replace what may be running.
                Seen::Unknown { .. } => {
                    return Err(Refusal::Busy("Nobody can see now whether it runs.".to_owned()));
                }
            },
            Does::Start => None,
            Does::Stop if self.is_off(server).await? => Some("it was off"),
            Does::Stop => self.wanted_again(schedule, server).await?.then_some("it was started again meanwhile"),
            // It starts nothing that nobody wants, whatever is seen of it and whatever is left of it.
            Does::Restart => (server.wanted == Wanted::Off && rests).then_some("it was off"),
            Does::Backup => {
                let saved = server.owned.drive.as_ref().is_none_or(|drive| drive.world != WorldAt::Played);
                (saved && self.is_off(server).await?).then_some("it was off, and its world is backed up")
            }
            Does::Command { .. } => match self.engine().look(server).await {
                Seen::Gone | Seen::Stopped { .. } => Some("it was not running"),
                Seen::Running { .. } | Seen::Unknown { .. } => None,
            },
        })
    }

    /// Somebody asked for the game after the stop was due, or another rule says that it is to be on by now: the stop is
    /// not for those who play now.
    async fn wanted_again(&self, schedule: &Schedule, server: &Server) -> anyhow::Result<bool> {
        let jobs = self.store().jobs_of(&server.id, JOBS_LOOKED_AT).await?;
        let by_rule = |job: &Job| matches!(job.actor, Actor::Schedule { .. });
        let starts = |job: &Job| match job.action {
            Action::Start => true,
            Action::Restart | Action::Update | Action::Restore { .. } => !by_rule(job),
            Action::Stop | Action::Backup | Action::Delete | Action::Move { .. } | Action::BuildSnapshot => false,
        };
        let asked = |job: &Job| job.cause == Cause::Asked && starts(job);
        if jobs.iter().any(|(job, _, _)| job.created_at > schedule.due_at && asked(job)) {
            return Ok(true);
        }
        let now = self.now();
        let rules = self.store().schedules_of(&schedule.guild).await?;
        let comes_by_now = |rule: &Schedule| {
            rule.when.next_after(schedule.due_at, rule.made_at, &rule.zone).is_some_and(|at| at <= now)
        };
        Ok(rules.iter().any(|rule| rule.server == server.id && rule.does == Does::Start && comes_by_now(rule)))
    }

    /// It runs, and nothing is under way.
    pub(super) async fn runs_already(&self, server: &Server) -> anyhow::Result<bool> {
        Ok(server.wanted == Wanted::On
            && self.open_job(server).await?.is_none()
            && matches!(self.engine().look(server).await, Seen::Running { .. }))
    }

    /// It is off, and nothing is under way. A host that exists bills, so there is something to stop.
    pub(super) async fn is_off(&self, server: &Server) -> anyhow::Result<bool> {
        Ok(server.wanted == Wanted::Off
            && server.owned.host.is_none()
            && self.open_job(server).await?.is_none()
            && matches!(self.engine().look(server).await, Seen::Gone | Seen::Stopped { .. }))
    }

    async fn settle(&self, schedule: &Schedule, server: &Server, came: Came) -> anyhow::Result<()> {
        let now = self.now();
        let next = schedule.next(now);
        let look_at = match next {
            Some(next) => Some(next),
            None if schedule.when.is_once() => None,
            None => {
                tracing::warn!(schedule = schedule.number, "Nobody can say when a schedule comes next.");
                Some(now + LOOK_AGAIN_MS)
            }
        };
        let skipped = match &came {
            Came::Skipped { why } => Some(why.clone()),
            Came::Job { .. } | Came::Typed | Came::Begun | Came::Needless { .. } => None,
        };
        // What stays so until somebody changes it is told once.
        let lasts = matches!(skipped, Some(Skipped::NotAllowed { .. } | Skipped::Refused { .. }));
        let told = lasts && schedule.last.as_ref().is_some_and(|last| last.came == came);
        let notice = skipped.as_ref().filter(|_| !told).map(|why| {
            let notice = Notice::Skipped {
                server: server.name.to_string(),
                schedule: schedule.number,
                does: schedule.does.word().to_owned(),
                when: format!("{} {}", schedule.when.words(), schedule.zone_name()),
                made_by: schedule.made_by.name().to_owned(),
                due_at: schedule.due_at,
                next: look_at,
                why: why.clone(),
            };
            (Box::new(server.clone()), notice)
        });
        let outcome = match (&came, &skipped) {
            (_, Some(why)) => Some(format!("refused: {}", said(why))),
            (Came::Needless { .. }, None) => None,
            (Came::Job { .. } | Came::Typed | Came::Begun | Came::Skipped { .. }, None) => Some("done".to_owned()),
        };
        let detail = match self.line_on_record(&schedule.does, server).await? {
            Some(line) => format!("{}: {line}", schedule.when.words()),
            None => schedule.when.words().to_owned(),
        };
        let audit = outcome.map(|outcome| AuditEntry {
            at: now,
            guild: schedule.guild.clone(),
            actor: schedule.actor(),
            action: schedule.does.word().to_owned(),
            server: Some(server.name.to_string()),
            detail,
            outcome,
        });
        let last = Last { due_at: schedule.due_at, came };
        let told = notice.is_some();
        if self.store().settle_schedule(schedule, Settled { last, next, look_at, audit, notice, now }).await? {
            self.changed(server);
            if told {
                self.inner.bus.nudge(Nudge::Notice);
            }
        }
        Ok(())
    }
}

/// Our own trouble may pass.
fn ours(server: &Server, error: anyhow::Error) -> Tried {
    tracing::error!(server = %server.name, "A schedule could not be followed: {error:#}");
    Tried::Later(Refusal::Ours(error).to_string())
}

/// The person behind a rule as they are now, acting as the rule.
async fn behind(schedule: &Schedule, members: &dyn Members) -> anyhow::Result<Member> {
    let member = match &schedule.made_by {
        Actor::Discord { id, .. } => members.member(&schedule.guild, id).await?,
        Actor::Operator => Member::Here(Caller::operator(schedule.guild.clone())),
        Actor::Token { .. } | Actor::Schedule { .. } | Actor::Watcher => Member::Gone,
    };
    Ok(match member {
        Member::Here(caller) => Member::Here(Caller { actor: schedule.actor(), ..caller }),
        Member::TimedOut | Member::Gone => member,
    })
}

/// For the audit log.
fn said(why: &Skipped) -> &str {
    match why {
        Skipped::Missed => "Spawnpoint could not do it in time",
        Skipped::Unsure => "Spawnpoint ended while it was being typed",
        Skipped::Busy { why } | Skipped::NotAllowed { why } | Skipped::Refused { why } => why,
    }
}
