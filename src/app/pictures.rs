//! Servers and jobs as every front shows them. A picture is put together from what was read before, and a list of
//! servers is read at once: it asks the database as often for a hundred servers as for one.

use super::{Answer, App};
use crate::model::access::{Caller, Permission, permission};
use crate::model::bill::{Billing, billing};
use crate::model::cost::Rental;
use crate::model::drive::{Snapshot, golden};
use crate::model::job::{Job, Outcome, Step, Subject};
use crate::model::lease::{Memo, idle_left};
use crate::model::server::{Backend, Seen, Server, State, Wanted, state};
use crate::model::view::{BackupView, JobView, ServerView};
use crate::model::{JobId, Ms, ServerId};
use crate::store::jobs::Ended;
use anyhow::Context;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Lines of output that a job's view carries.
const OUTPUT_SHOWN: usize = 12;

/// What a server's picture is made of besides the server itself.
#[derive(Default)]
struct Beside {
    memo: Memo,
    /// The job under way, and its picture.
    job: Option<(Job, JobView)>,
    last_backup: Option<BackupView>,
}

/// What all servers' pictures are made of.
struct Common {
    snapshots: Vec<Snapshot>,
    /// Of this month, at least those of the servers in question.
    rentals: Vec<Rental>,
}

/// How long steps took before, of jobs of one kind.
type Times = HashMap<Step, Ms>;

impl App {
    /// All servers that the caller may see, by name.
    pub async fn servers(&self, caller: &Caller) -> Answer<Vec<ServerView>> {
        let grants = self.store().grants(&caller.guild).await?;
        let role = &self.inner.choices.players_role;
        let may = |server: &Server| permission(caller, &grants, Some(&server.id), role) >= Permission::View;
        let all = self.store().servers_and_memos_of(&caller.guild).await?;
        let (servers, memos): (Vec<Server>, Vec<Memo>) = all.into_iter().filter(|(server, _)| may(server)).unzip();
        if servers.is_empty() {
            return Ok(vec![]);
        }
        let mut jobs = self.jobs_under_way(caller, &servers).await?;
        let mut backups = self.newest_backups(&servers).await?;
        let common = self.common(&servers).await?;
        let beside = servers.iter().zip(memos).map(|(server, memo)| Beside {
            memo,
            job: jobs.remove(&server.id),
            last_backup: backups.remove(&server.id),
        });
        Ok(servers.iter().zip(beside).map(|(server, beside)| self.drawn(server, beside, &common)).collect())
    }

    /// One server, looked at now.
    pub async fn status(&self, caller: &Caller, name: &str) -> Answer<ServerView> {
        let server = self.server(caller, name, Permission::View).await?;
        self.engine().look(&server).await;
        Ok(self.picture_of(&server).await?)
    }

    /// One server as it was last seen and what its start costs, for what a front keeps up to date by itself.
    pub async fn server_picture(&self, id: &ServerId) -> anyhow::Result<Option<ServerView>> {
        match self.store().server_any(id).await?.filter(|server| server.deleted_at.is_none()) {
            Some(server) => Ok(Some(self.picture_of(&server).await?)),
            None => Ok(None),
        }
    }

    /// A provider may be asked for its prices, so this can take some seconds.
    async fn picture_of(&self, server: &Server) -> anyhow::Result<ServerView> {
        let mut view = self.view_of(server).await?;
        let may_start = matches!(view.state, State::Offline | State::Failed) && view.job.is_none();
        if may_start {
            view.start = self.start_cost(server).await?;
        }
        view.scheduled = self.scheduled_next(server).await?;
        Ok(view)
    }

    /// One server as it was last seen, at once.
    pub async fn server_view(&self, id: &ServerId) -> anyhow::Result<Option<ServerView>> {
        match self.store().server_any(id).await?.filter(|server| server.deleted_at.is_none()) {
            Some(server) => Ok(Some(self.view_of(&server).await?)),
            None => Ok(None),
        }
    }

    pub(super) async fn view_of(&self, server: &Server) -> anyhow::Result<ServerView> {
        let job = match self.open_job(server).await? {
            Some(job) => {
                let view = self.job_view_of((job.clone(), None, None), Some(server)).await?;
                Some((job, view))
            }
            None => None,
        };
        // A job that ended meanwhile has changed the row: nobody sees it without its job as it was before.
        let now = self.store().server_and_memo(&server.id).await?;
        let (server, memo) = now.unwrap_or_else(|| (server.clone(), Memo::default()));
        let one = std::slice::from_ref(&server);
        let last_backup = self.newest_backups(one).await?.remove(&server.id);
        Ok(self.drawn(&server, Beside { memo, job, last_backup }, &self.common(one).await?))
    }

    async fn common(&self, servers: &[Server]) -> anyhow::Result<Common> {
        let snapshots = self.store().snapshots_all().await?;
        // Only what is rented has a bill.
        let rentals = match servers.iter().find(|server| server.backend == Backend::Cloud) {
            Some(server) => self.rentals_this_month(&server.guild).await?,
            None => vec![],
        };
        Ok(Common { snapshots, rentals })
    }

    /// The picture, from what was read and what the watcher last saw.
    fn drawn(&self, server: &Server, beside: Beside, common: &Common) -> ServerView {
        let Beside { memo, job, last_backup } = beside;
        let (job, job_view) = job.unzip();
        let seen = self.engine().last_seen(&server.id).map(|(_, seen)| seen);
        let seen = seen.unwrap_or_else(|| Seen::Unknown { why: "nobody has looked yet".to_owned() });
        let idle_stop_at = idle_left(self.now(), &memo, &self.engine().rules(server)).map(|left| self.now() + left);
        let own = server.owned.drive.as_ref().map(|drive| drive.snapshot.to_string());
        let newest = golden(&common.snapshots, &server.game).map(|snapshot| snapshot.id.to_string());
        let held = job.as_ref().filter(|job| job.rest() == Some(Outcome::Held));
        let why = match (&seen, held) {
            (_, Some(job)) => job.current().and_then(|step| step.error.clone()),
            (Seen::Unknown { why }, None) => Some(why.clone()),
            (Seen::Stopped { exit_code: Some(code), .. }, None) if server.wanted == Wanted::On => {
                Some(format!("the game ended by itself with exit code {code}"))
            }
            (Seen::Stopped { .. } | Seen::Gone | Seen::Running { .. }, None) => None,
        };
        let recipe = self.inner.recipes.get(&server.game);
        let players = match &seen {
            Seen::Running { players } => Some(players.clone()),
            Seen::Unknown { .. } | Seen::Gone | Seen::Stopped { .. } => None,
        };
        ServerView {
            id: server.id.0.clone(),
            name: server.name.to_string(),
            title: recipe.map_or_else(|| server.game.clone(), |recipe| recipe.name.clone()),
            game: server.game.clone(),
            backend: server.backend,
            place: Some(server.place.clone()).filter(|_| server.backend == Backend::Cloud),
            state: state(server.wanted, job.as_ref(), &seen),
            why,
            idle_stop_at: idle_stop_at.filter(|_| players.is_some() && job.is_none()),
            players,
            address: server.owned.address.clone(),
            lease_until: server.lease_until,
            job: job_view,
            newer_snapshot: newest.filter(|newest| own.as_ref().is_some_and(|own| own != newest)),
            snapshot: own,
            update_at_start: server.update_at_start,
            last_backup,
            billing: self.billing_of(server, &seen, &common.rentals, idle_stop_at),
            start: None,
            scheduled: None,
        }
    }

    /// The running meter of one server.
    fn billing_of(
        &self,
        server: &Server,
        seen: &Seen,
        rentals: &[Rental],
        idle_stop_at: Option<Ms>,
    ) -> Option<Billing> {
        if server.backend != Backend::Cloud {
            return None;
        }
        let now = self.now();
        let mut billing =
            billing(&server.id, server.owned.host.as_ref(), rentals, now, &self.engine().spending().zone)?;
        let running = matches!(seen, Seen::Running { .. });
        if let Some(unit) = self.engine().stop_unit(server, rentals).filter(|_| running) {
            let due = [server.lease_until, idle_stop_at].into_iter().flatten().filter(|due| *due <= now).min();
            billing.stop_waits_until = due.map(|due| unit.stop_at(due)).filter(|stop| *stop > now);
        }
        Some(billing)
    }

    /// The picture of a job that every front shows.
    pub async fn job_view(&self, id: JobId) -> anyhow::Result<JobView> {
        let ended = self.store().job(id).await?.with_context(|| format!("there is no job {id}"))?;
        let server = match ended.0.subject.server() {
            Some(id) => self.store().server_any(id).await?,
            None => None,
        };
        self.job_view_of(ended, server.as_ref()).await
    }

    async fn job_view_of(&self, ended: Ended, server: Option<&Server>) -> anyhow::Result<JobView> {
        let (job, outcome, _) = &ended;
        let times = self.store().step_times(game_of(job, server), job.action.word()).await?;
        let output = match job.current() {
            Some(record) => self.store().job_output(job.id, Some(record.step), OUTPUT_SHOWN).await?,
            None if *outcome == Some(Outcome::Failed) => {
                let failed = job.steps.iter().find(|record| record.error.is_some()).map(|record| record.step);
                self.store().job_output(job.id, failed, OUTPUT_SHOWN).await?
            }
            None => vec![],
        };
        Ok(drawn_job(ended, server, &times, output))
    }

    /// The open jobs of these servers with their pictures. Besides the jobs and what they print, the database is asked
    /// once for each kind of job that there is, to know how long those take.
    async fn jobs_under_way(
        &self,
        caller: &Caller,
        servers: &[Server],
    ) -> anyhow::Result<HashMap<ServerId, (Job, JobView)>> {
        let jobs = self.store().open_jobs_in(&caller.guild).await?;
        let mut found = HashMap::new();
        if jobs.is_empty() {
            return Ok(found);
        }
        let mut outputs = self.store().outputs_in(&caller.guild, OUTPUT_SHOWN).await?;
        let mut kinds: HashMap<(&str, &str), Times> = HashMap::new();
        for job in jobs {
            let server = servers.iter().find(|server| Some(&server.id) == job.subject.server());
            let Some(server) = server else { continue };
            let kind = (server.game.as_str(), job.action.word());
            let times = match kinds.entry(kind) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.store().step_times(kind.0, kind.1).await?),
            };
            let output = job.current().and_then(|record| outputs.remove(&(job.id, record.step)));
            let view = drawn_job((job.clone(), None, None), Some(server), times, output.unwrap_or_default());
            found.insert(server.id.clone(), (job, view));
        }
        Ok(found)
    }
}

fn game_of<'a>(job: &'a Job, server: Option<&'a Server>) -> &'a str {
    match (&job.subject, server) {
        (Subject::Game(game), _) => game,
        (Subject::Server(_), Some(server)) => &server.game,
        (Subject::Server(_), None) => "",
    }
}

fn drawn_job(ended: Ended, server: Option<&Server>, times: &Times, output: Vec<String>) -> JobView {
    let (job, outcome, ended_at) = ended;
    let game = game_of(&job, server).to_owned();
    JobView {
        id: job.id,
        subject: server.map_or_else(|| game.clone(), |server| server.name.to_string()),
        steps: JobView::steps_of(&job, |step| times.get(&step).copied()),
        world_lost: job.steps.iter().any(|record| record.world_lost),
        not_undone: job.steps.iter().filter(|record| record.undo_left_out).map(|record| record.step).collect(),
        outcome: outcome.or_else(|| job.rest().filter(|rest| *rest == Outcome::Held)),
        tries_again_at: job.tries_again_at().filter(|_| outcome.is_none()),
        cancel_requested: job.cancel.is_some(),
        can_cancel: job.can_cancel() && outcome.is_none(),
        created_at: job.created_at,
        ended_at,
        // The whole, if every step's time is known.
        forecast_ms: job.steps.iter().map(|record| times.get(&record.step).copied()).sum(),
        output,
        address: server.and_then(|server| server.owned.address.clone()),
        lease_until: server.and_then(|server| server.lease_until),
        game,
        server: job.subject.server().cloned(),
        action: job.action,
        cause: job.cause,
        actor: job.actor,
        channel: job.channel,
    }
}
