//! Starting, stopping and everything else that becomes a job, and what people say about a job under way.

use super::{Answer, App, Did, Line, Refusal};
use crate::engine::Ask;
use crate::model::access::{Caller, Permission};
use crate::model::bill::More;
use crate::model::job::{Action, Cause, Event, Job, Outcome, Recorded, Step, Subject};
use crate::model::lease;
use crate::model::server::{Backend, Seen, Server, Wanted};
use crate::model::view::{JobView, Saved};
use crate::model::world::BackupId;
use crate::model::{JobId, Ms};
use anyhow::Context;

/// A person's word is written again so often when the job changes at the same moment.
const WRITES_MAX: usize = 20;

/// What people can say about an open job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Call it off: a start is undone.
    Cancel,
    /// A held job: try the step again.
    Retry,
    /// A held job: go on without the step. Admins only.
    Force,
    /// A held job: close it and leave everything as it is.
    Abandon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateWhen {
    Now,
    NextStart,
}

/// How long a server runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    pub until: Ms,
    /// What the added time costs; `None` where nobody sends a bill.
    pub more: Option<More>,
}

impl App {
    /// Starts it, unless the world that it would begin with is in doubt: then somebody is to be asked first.
    pub async fn start(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(self.start_unaudited(caller, name, None, channel));
        self.audited(caller, Did::new("start", name), work).await
    }

    /// The same for who was asked and wants this very backup. The doubt stays, and with it the larger world.
    pub async fn start_with(
        &self,
        caller: &Caller,
        name: &str,
        backup: &BackupId,
        channel: Option<String>,
    ) -> Answer<JobId> {
        let work = Box::pin(self.start_unaudited(caller, name, Some(backup), channel));
        self.audited(caller, Did::new("start", name).with(format!("with {backup}, which is in doubt")), work).await
    }

    pub(super) async fn start_unaudited(
        &self,
        caller: &Caller,
        name: &str,
        wanted: Option<&BackupId>,
        channel: Option<String>,
    ) -> Answer<JobId> {
        let server = self.server(caller, name, Permission::Play).await?;
        self.recipe_of(&server)?;
        if let Some(channel) = &channel {
            // Whoever starts it is who wants to hear of it.
            self.store().set_channel(&server.id, channel).await?;
        }
        if self.runs_already(&server).await? {
            let at = server.owned.address.as_ref().map_or(String::new(), |address| format!(" Join at `{address}`."));
            return Err(Refusal::Invalid(format!("`{}` is already running.{at}", server.name)));
        }
        self.must_begin_well(&server, wanted).await?;
        let server = self.with_provider(server).await?;
        let server = self.with_yes_of(&server, &caller.actor).await?;
        let _paid_for = self.must_be_paid_for(&server).await?;
        self.enqueue(caller, &server, Action::Start, channel).await
    }

    pub async fn stop(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(self.stop_unaudited(caller, name, channel));
        self.audited(caller, Did::new("stop", name), work).await
    }

    pub(super) async fn stop_unaudited(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let server = self.server(caller, name, Permission::Play).await?;
        if self.is_off(&server).await? {
            return Err(Refusal::Invalid(format!("`{}` is not running.", server.name)));
        }
        self.enqueue(caller, &server, Action::Stop, channel).await
    }

    pub async fn restart(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(self.restart_unaudited(caller, name, channel));
        self.audited(caller, Did::new("restart", name), work).await
    }

    pub(super) async fn restart_unaudited(
        &self,
        caller: &Caller,
        name: &str,
        channel: Option<String>,
    ) -> Answer<JobId> {
        let server = self.server(caller, name, Permission::Play).await?;
        self.recipe_of(&server)?;
        // A start costs money and is asked about first; a restart is not.
        if server.backend == Backend::Cloud && server.owned.host.is_none() && self.open_job(&server).await?.is_none() {
            return Err(Refusal::Invalid(format!(
                "`{}` is not running: it has no host. `/server start` starts it.",
                server.name
            )));
        }
        if server.wanted == Wanted::Off {
            self.must_begin_well(&server, None).await?;
        }
        self.enqueue(caller, &server, Action::Restart, channel).await
    }

    /// Lengthens the lease; returns when it ends now.
    pub async fn extend(&self, caller: &Caller, name: &str, by: Option<&str>) -> Answer<Extended> {
        let work = Box::pin(self.extend_unaudited(caller, name, by));
        let detail = by.unwrap_or("by the usual time").chars().take(40).collect::<String>();
        self.audited(caller, Did::new("extend", name).with(detail), work).await
    }

    async fn extend_unaudited(&self, caller: &Caller, name: &str, by: Option<&str>) -> Answer<Extended> {
        let server = self.server(caller, name, Permission::Play).await?;
        let by = match by.map(str::trim).filter(|by| !by.is_empty()) {
            Some(text) => lease::parse_duration(text).map_err(Refusal::Invalid)?,
            None => self.inner.choices.extend_ms,
        };
        if server.wanted == Wanted::Off {
            return Err(Refusal::Invalid(format!("`{}` is not running, so there is nothing to extend.", server.name)));
        }
        // A start sets the time limit at its end; no other job does.
        let starting = async || -> Answer<bool> {
            let job = self.open_job(&server).await?;
            Ok(job.is_some_and(|job| job.steps.iter().any(|record| record.step == Step::AwaitReady)))
        };
        if server.lease_until.is_none() && !starting().await? {
            return Err(Refusal::Invalid(format!(
                "`{}` runs without a time limit; nothing needs extending.",
                server.name
            )));
        }
        let until = lease::extend(self.now(), server.lease_until, by);
        let more = self.price_of_more(&server, until).await?;
        self.store().set_lease(&server.id, Some(until)).await?;
        self.changed(&server);
        Ok(Extended { until, more })
    }

    /// Moves a server to the newest snapshot, now or at its next start; on a host it is installed anew, now. Its world
    /// comes along.
    pub async fn update(
        &self,
        caller: &Caller,
        name: &str,
        when: UpdateWhen,
        channel: Option<String>,
    ) -> Answer<Option<JobId>> {
        let work = Box::pin(async {
            let server = self.server(caller, name, Permission::Operate).await?;
            self.recipe_of(&server)?;
            match server.backend {
                Backend::Docker => self.must_have_newer_snapshot(&server).await?,
                Backend::Cloud => self.must_be_there_to_install(&server, when).await?,
            }
            match when {
                UpdateWhen::NextStart => {
                    self.store().set_update_at_start(&server.id, true).await?;
                    self.changed(&server);
                    Ok(None)
                }
                UpdateWhen::Now => self.enqueue(caller, &server, Action::Update, channel).await.map(Some),
            }
        });
        self.audited(caller, Did::new("update", name), work).await
    }

    async fn must_have_newer_snapshot(&self, server: &Server) -> Answer<()> {
        let snapshots = self.store().snapshots_all().await?;
        let Some(newest) = crate::model::drive::golden(&snapshots, &server.game) else {
            return Err(Refusal::Invalid(format!(
                "There is no snapshot of `{}` yet. The first start makes one.",
                server.game
            )));
        };
        match &server.owned.drive {
            Some(drive) if drive.snapshot == newest.id => Err(Refusal::Invalid(format!(
                "`{}` already stands on the newest snapshot, `{}`. `/snapshot build` makes a newer one.",
                server.name, newest.id
            ))),
            Some(_) => Ok(()),
            None => Err(Refusal::Invalid(format!(
                "`{}` has no drive yet; its next start takes the newest snapshot anyway.",
                server.name
            ))),
        }
    }

    /// A host has no snapshots: what is on it was installed when it was started.
    async fn must_be_there_to_install(&self, server: &Server, when: UpdateWhen) -> Answer<()> {
        let off = server.wanted == Wanted::Off || matches!(self.engine().look(server).await, Seen::Gone);
        if server.owned.host.is_none() || off {
            return Err(Refusal::Invalid(format!(
                "`{}` is not running, and its next start installs what is newest anyway.",
                server.name
            )));
        }
        match when {
            UpdateWhen::Now => Ok(()),
            UpdateWhen::NextStart => Err(Refusal::Invalid(format!(
                "Every start of `{}` installs what is newest then, so there is nothing to wait for. To install it anew \
                 while it runs, choose `now`.",
                server.name
            ))),
        }
    }

    /// Ends the game's process at once, whatever any job does. What was not saved is lost, the drive stays.
    pub async fn kill(&self, caller: &Caller, name: &str) -> Answer<String> {
        let work = Box::pin(async {
            let server = self.server(caller, name, Permission::Admin).await?;
            let driver = self.driver(&server)?;
            // The wish goes first: the watcher must not take the death for a crash.
            self.store().set_wanted(&server.id, Wanted::Off).await?;
            driver.kill(&server).await.context("killing the game")?;
            self.changed(&server);
            let left = match server.backend {
                Backend::Docker => "Its drive with the world is untouched.",
                Backend::Cloud => {
                    "The world on its host is saved as soon as that is looked at. A rented host bills until it is gone."
                }
            };
            Ok(format!("The game of `{}` was ended at once. {left}", server.name))
        });
        self.audited(caller, Did::new("kill", name), work).await
    }

    /// Deletes a server after a last backup. Its backups stay in the vault.
    pub async fn delete(&self, caller: &Caller, name: &str, confirmed: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(async {
            let server = self.server(caller, name, Permission::Admin).await?;
            if confirmed.trim() != server.name.as_str() {
                return Err(Refusal::Invalid(format!("To delete it, confirm with its name: `{}`.", server.name)));
            }
            self.enqueue(caller, &server, Action::Delete, channel).await
        });
        self.audited(caller, Did::new("delete", name), work).await
    }

    /// What a person says about the job under way; returns a sentence of what happens now.
    pub async fn choose(&self, caller: &Caller, name: &str, choice: Choice) -> Answer<String> {
        let mut line = self.asked_for(caller, Did::new(choice.word(), name)).await?;
        let answer = async {
            let job = self.job_under_way(caller, name, choice).await?;
            self.say(caller, job, choice, &mut line, None).await
        }
        .await;
        self.became(line, answer).await
    }

    /// The same about one certain job, whatever came after it. `asked_about`: the step that a question named; when the
    /// job waits at another one by now, nothing is done.
    pub async fn choose_job(
        &self,
        caller: &Caller,
        id: JobId,
        choice: Choice,
        asked_about: Option<Step>,
    ) -> Answer<String> {
        let view = self.job_view(id).await?;
        let mut line = self.asked_for(caller, Did::new(choice.word(), &view.subject)).await?;
        let answer = Box::pin(self.say(caller, id, choice, &mut line, asked_about)).await;
        self.became(line, answer).await
    }

    /// The job that a name stands for: its server's, or the building of a snapshot for the game of that name.
    async fn job_under_way(&self, caller: &Caller, name: &str, choice: Choice) -> Answer<JobId> {
        let name = name.trim();
        let server = self.store().server_by_name(&caller.guild, name).await?;
        if let Some(server) = &server
            && let Some(job) = self.open_job(server).await?
        {
            return Ok(job.id);
        }
        if self.inner.recipes.get(name).is_some()
            && let Some(job) = self.store().open_job_of(&Subject::Game(name.to_owned())).await?
        {
            return Ok(job.id);
        }
        if self.inner.recipes.get(name).is_none() || server.is_some() {
            self.server(caller, name, choice.needs()).await?;
        }
        Err(Refusal::Invalid(format!("Nothing is under way on `{name}`.")))
    }

    async fn say(
        &self,
        caller: &Caller,
        id: JobId,
        asked: Choice,
        line: &mut Line,
        asked_about: Option<Step>,
    ) -> Answer<String> {
        for _ in 0..WRITES_MAX {
            // A game's snapshot is everybody's, so admins of every guild may say what becomes of its building.
            let theirs = |job: &Job| job.guild == caller.guild || job.subject.server().is_none();
            let Some((job, ended, _)) = self.store().job(id).await?.filter(|(job, _, _)| theirs(job)) else {
                return Err(Refusal::NotFound("That job belongs to another Discord server.".to_owned()));
            };
            // What waits for a person is closed as it is, and that takes the right to do so.
            let choice = match (asked, job.rest()) {
                (Choice::Cancel, Some(Outcome::Held)) => Choice::Abandon,
                _ => asked,
            };
            if line.entry.action != choice.word() {
                line.entry.action = choice.word().to_owned();
                self.amend(line).await?;
            }
            match &job.subject {
                Subject::Game(_) => self.require(caller, None, Permission::Admin).await?,
                Subject::Server(server) => {
                    let server = self.store().server_any(server).await?;
                    self.require(caller, server.as_ref(), choice.needs()).await?;
                }
            }
            if ended.is_some() {
                return Err(Refusal::Invalid(format!("Job {id} has ended already.")));
            }
            let waits_at = job.held_at();
            if let Some(step) = asked_about
                && waits_at.is_some_and(|waits_at| waits_at != step)
            {
                return Err(Refusal::Invalid(format!(
                    "Job {id} went on since you were asked and waits at another step now, so nothing was done. Look at it again."
                )));
            }
            let (event, sentence) = said(&job, choice, caller)?;
            let recorded = Recorded { at: self.now(), event };
            match self.store().append_for_person(&job, &recorded).await? {
                true => {
                    self.engine().poke(job.id);
                    return Ok(sentence);
                }
                false => continue,
            }
        }
        Err(Refusal::Ours(anyhow::anyhow!("job {id} changed {WRITES_MAX} times in a row")))
    }

    pub async fn backup(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(self.backup_unaudited(caller, name, channel));
        self.audited(caller, Did::new("backup", name), work).await
    }

    pub(super) async fn backup_unaudited(&self, caller: &Caller, name: &str, channel: Option<String>) -> Answer<JobId> {
        let server = self.server(caller, name, Permission::Play).await?;
        self.must_have_world(&server)?;
        if server.owned.drive.is_none() && server.owned.host.is_none() {
            return Err(Refusal::Invalid(format!(
                "`{}` has never run, so there is nothing to back up yet.",
                server.name
            )));
        }
        self.enqueue(caller, &server, Action::Backup, channel).await
    }

    pub async fn restore(&self, caller: &Caller, name: &str, backup: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(async {
            let server = self.server(caller, name, Permission::Operate).await?;
            self.must_have_world(&server)?;
            let backup = self.restorable(&server, backup).await?;
            self.enqueue(caller, &server, Action::Restore { backup }, channel).await
        });
        self.audited(caller, Did::new("restore", name).with(backup.chars().take(60).collect::<String>()), work).await
    }

    pub(super) fn must_have_world(&self, server: &Server) -> Answer<()> {
        if self.recipe_of(server)?.world.paths.is_empty() {
            return Err(Refusal::Invalid(format!(
                "{} keeps no world: there is nothing to back up.",
                self.recipe_of(server)?.name
            )));
        }
        Ok(())
    }

    pub(super) async fn open_job(&self, server: &Server) -> anyhow::Result<Option<Job>> {
        self.store().open_job_of(&Subject::Server(server.id.clone())).await
    }

    pub(super) async fn enqueue(
        &self,
        caller: &Caller,
        server: &Server,
        action: Action,
        channel: Option<String>,
    ) -> Answer<JobId> {
        self.driver(server)?;
        let ask = Ask { action, cause: Cause::Asked, actor: caller.actor.clone(), channel };
        let result = self.engine().ask(server, ask).await;
        self.opened(result, server.name.as_str()).await
    }
}

impl Choice {
    fn word(self) -> &'static str {
        match self {
            Choice::Cancel => "cancel",
            Choice::Retry => "retry",
            Choice::Force => "force",
            Choice::Abandon => "abandon",
        }
    }

    /// What it takes on a server. The building of a snapshot is for admins, whatever is said.
    fn needs(self) -> Permission {
        match self {
            Choice::Cancel | Choice::Retry => Permission::Play,
            Choice::Abandon => Permission::Operate,
            Choice::Force => Permission::Admin,
        }
    }
}

/// The event that a choice is, with a sentence of what happens now; or why it does not fit.
fn said(job: &Job, choice: Choice, caller: &Caller) -> Answer<(Event, String)> {
    let by = caller.actor.clone();
    let held = job.rest() == Some(Outcome::Held);
    let word = job.action.word();
    let step = job.held_at().map_or("", Step::label);
    let not_held =
        || Refusal::Invalid(format!("The {word} (job {}) is under way and does not wait for anybody.", job.id));
    match choice {
        Choice::Cancel if job.cancel.is_some() => {
            Err(Refusal::Invalid(format!("The {word} (job {}) is already being called off.", job.id)))
        }
        Choice::Cancel if !job.can_cancel() => Err(Refusal::Invalid(format!(
            "The {word} (job {}) can no longer be called off: the game was stopped and its world is being saved. It ends by itself.",
            job.id
        ))),
        Choice::Cancel => Ok((
            Event::CancelRequested { by },
            format!("Calling off the {word} (job {}). What it made is undone.", job.id),
        )),
        Choice::Retry if held => Ok((Event::RetryRequested { by }, format!("Trying “{step}” again (job {}).", job.id))),
        Choice::Force if held => Ok((Event::Forced { by }, format!("Going on without “{step}” (job {}).", job.id))),
        Choice::Abandon if held => Ok((
            Event::Abandoned { by },
            format!("The {word} (job {}) is closed as it is. What is left is neither undone nor destroyed.", job.id),
        )),
        Choice::Retry | Choice::Force | Choice::Abandon => Err(not_held()),
    }
}

/// What forcing a held job loses, for the question before it.
pub fn force_loses(job: &JobView) -> &'static str {
    match job.held_at().map(|step| step.step) {
        Some(Step::DestroyHost | Step::ConfirmGone) => {
            return match job.saved() {
                Saved::Kept | Saved::Uncompared => {
                    "Its world is kept, but its host may still exist, and then it bills until somebody destroys it."
                }
                Saved::Not | Saved::Lost => {
                    "Its host may still exist, and then it bills until somebody destroys it. What is on it is in no backup."
                }
            };
        }
        // A held job goes back over it: nothing was played on that host yet.
        Some(Step::CreateHost) => {
            return "The host that was rented may still exist, and then it bills until somebody destroys it.";
        }
        Some(_) | None => {}
    }
    match job.action {
        Action::Delete | Action::Move { .. } => {
            "The world would be deleted without a backup of its present state. Older backups stay."
        }
        Action::Stop | Action::Restart | Action::Update | Action::Restore { .. } => {
            "There would be no backup of the world as it is now. Older backups stay."
        }
        Action::Start | Action::Backup | Action::BuildSnapshot => "The step would be left out.",
    }
}

/// The backup that a restore was asked for, if it can be used.
impl App {
    async fn restorable(&self, server: &Server, typed: &str) -> Answer<BackupId> {
        let typed = typed.trim();
        let known = self.vault_list(&server.id).await?;
        let Some(backup) = known.iter().find(|backup| backup.id.0 == typed) else {
            return Err(Refusal::NotFound(format!(
                "`{}` has no backup of that name. `/backup list` shows them.",
                server.name
            )));
        };
        if let Some(broken) = &backup.broken {
            return Err(Refusal::Invalid(format!("That backup is damaged and cannot be restored: {broken}")));
        }
        Ok(backup.id.clone())
    }
}
