//! Jobs and their events: the real [`Journal`]. A job is one row that never changes but for its claim and its end,
//! and the list of its events; both are read in one statement, so that nobody sees a job without its history.

use super::Store;
use super::audit::{AuditEntry, audit_in};
use super::db::{Row, Tx, json, word};
use super::log::forget_old_output;
use super::rentals::{Brought, turn_bill};
use super::servers::{apply_aftermath, server_of, write_owned};
use super::snapshots::{remove_snapshot, write_snapshot};
use crate::engine::reconcile::Busy;
use crate::engine::run::CLAIM_SANE_MS;
use crate::engine::{Aftermath, AppendError, DecidedOn, Journal, OpenError, Wish};
use crate::model::cost::Rental;
use crate::model::drive::Snapshot;
use crate::model::job::{Action, Event, Gain, Job, NewJob, Outcome, Recorded, Step, Subject};
use crate::model::lease::Memo;
use crate::model::server::Server;
use crate::model::view::Notice;
use crate::model::{GuildId, JobId, Ms, ServerId};
use anyhow::Context;
use async_trait::async_trait;
use std::collections::HashMap;

/// Earlier jobs that a forecast is made from.
const FORECAST_JOBS: i64 = 5;

/// A job with how and when it ended; two `None` while it is open.
pub type Ended = (Job, Option<Outcome>, Option<Ms>);

impl Store {
    pub async fn open_job_of(&self, subject: &Subject) -> anyhow::Result<Option<Job>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.outcome IS NULL AND jobs.subject = $1 ORDER BY jobs.id, events.seq";
        Ok(jobs_in(&self.db.rows(sql, [subject.key().into()]).await?)?.into_iter().next().map(|(job, _, _)| job))
    }

    pub async fn open_jobs_all(&self) -> anyhow::Result<Vec<Job>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.outcome IS NULL ORDER BY jobs.id, events.seq";
        Ok(jobs_in(&self.db.rows(sql, []).await?)?.into_iter().map(|(job, _, _)| job).collect())
    }

    /// The open jobs that were asked for in a guild.
    pub async fn open_jobs_in(&self, guild: &GuildId) -> anyhow::Result<Vec<Job>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.outcome IS NULL AND jobs.guild = $1 ORDER BY jobs.id, events.seq";
        Ok(jobs_in(&self.db.rows(sql, [(&guild.0).into()]).await?)?.into_iter().map(|(job, _, _)| job).collect())
    }

    pub async fn job(&self, id: JobId) -> anyhow::Result<Option<Ended>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.id = $1 ORDER BY events.seq";
        Ok(jobs_in(&self.db.rows(sql, [id.0.into()]).await?)?.into_iter().next())
    }

    /// The last jobs of a server, newest first.
    pub async fn jobs_of(&self, server: &ServerId, limit: usize) -> anyhow::Result<Vec<Ended>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.id IN (SELECT id FROM jobs WHERE subject = $1 ORDER BY id DESC LIMIT $2)
                   ORDER BY jobs.id DESC, events.seq";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        jobs_in(&self.db.rows(sql, [Subject::Server(server.clone()).key().into(), limit.into()]).await?)
    }

    /// How long each step took, as the median of the last jobs of this game and action that went well.
    pub async fn step_times(&self, game: &str, action: &str) -> anyhow::Result<HashMap<Step, Ms>> {
        let mut times: HashMap<Step, Vec<Ms>> = HashMap::new();
        for (job, _, _) in self.good_jobs(game, action).await? {
            for record in &job.steps {
                if let (Some(from), Some(to)) = (record.started_at, record.ended_at) {
                    times.entry(record.step).or_default().push(to - from);
                }
            }
        }
        Ok(times.into_iter().filter_map(|(step, times)| Some((step, median(times)?))).collect())
    }

    async fn good_jobs(&self, game: &str, action: &str) -> anyhow::Result<Vec<Ended>> {
        let sql = "SELECT jobs.*, events.at AS event_at, events.event AS event FROM jobs
                   LEFT JOIN events ON events.job = jobs.id
                   WHERE jobs.id IN (SELECT id FROM jobs WHERE game = $1 AND action = $2 AND outcome = $3
                                     ORDER BY id DESC LIMIT $4)
                   ORDER BY jobs.id DESC, events.seq";
        let args = [game.into(), action.into(), word(&Outcome::Succeeded).into(), FORECAST_JOBS.into()];
        jobs_in(&self.db.rows(sql, args).await?)
    }

    /// Writes what a person says to a job. False when the job changed or ended meanwhile: look again.
    pub async fn append_for_person(&self, job: &Job, recorded: &Recorded) -> anyhow::Result<bool> {
        match self.append(job, None, recorded).await {
            Ok(()) => Ok(true),
            Err(AppendError::Conflict) => Ok(false),
            Err(error @ (AppendError::ClaimLost | AppendError::Other(_))) => Err(error.into()),
        }
    }
}

fn median(mut times: Vec<Ms>) -> Option<Ms> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Replays jobs from rows that hold a job and one of its events each, the rows of a job side by side and in order.
fn jobs_in(rows: &[Row]) -> anyhow::Result<Vec<Ended>> {
    let mut jobs: Vec<Ended> = vec![];
    for row in rows {
        let id = JobId(row.int("id")?);
        if jobs.last().is_none_or(|(job, _, _)| job.id != id) {
            jobs.push(ended_of(id, row).with_context(|| format!("reading job {id}"))?);
        }
        let (job, _, _) = jobs.last_mut().expect("one was just pushed");
        if let Some(at) = row.maybe_int("event_at")? {
            let event = row.json("event").with_context(|| format!("reading event {} of job {id}", job.seq))?;
            job.apply(&Recorded { at, event })?;
        }
    }
    Ok(jobs)
}

fn ended_of(id: JobId, row: &Row) -> anyhow::Result<Ended> {
    let new = NewJob {
        subject: row.json("subject_json")?,
        guild: GuildId(row.text("guild")?),
        action: row.json("action_json")?,
        cause: row.json("cause_json")?,
        actor: row.json("actor")?,
        channel: row.maybe_text("channel")?,
        plan: row.json("plan")?,
    };
    let outcome = match row.maybe_text("outcome")? {
        Some(_) => Some(row.word("outcome")?),
        None => None,
    };
    Ok((Job::new(id, row.int("created_at")?, new), outcome, row.maybe_int("closed_at")?))
}

#[async_trait]
impl Journal for Store {
    async fn open(&self, new: NewJob, wish: Wish, now: Ms) -> Result<JobId, OpenError> {
        let subject = new.subject.clone();
        let opened = self.db.write(move |tx| Box::pin(open_in(tx, new, wish, now))).await?;
        match opened {
            Some(id) => Ok(id),
            // Read after the transaction; if that job ended in between, the next try has a way.
            None => match self.open_job_of(&subject).await? {
                Some(job) => Err(OpenError::Busy(Box::new(job))),
                None => Err(OpenError::Other(anyhow::anyhow!("the job that was in the way has just ended; ask again"))),
            },
        }
    }

    async fn load(&self, id: JobId) -> anyhow::Result<Job> {
        let (job, _, _) = self.job(id).await?.with_context(|| format!("there is no job {id}"))?;
        Ok(job)
    }

    async fn open_jobs(&self) -> anyhow::Result<Vec<Job>> {
        self.open_jobs_all().await
    }

    async fn claim(&self, id: JobId, engine: &str, now: Ms, until: Ms) -> anyhow::Result<bool> {
        let sql = "UPDATE jobs SET claimed_by = $2, claimed_until = $3 WHERE id = $1 AND outcome IS NULL
                   AND (claimed_by IS NULL OR claimed_by = $2 OR claimed_until <= $4 OR claimed_until > $5)";
        let sane = now + CLAIM_SANE_MS;
        Ok(self.db.run(sql, [id.0.into(), engine.into(), until.into(), now.into(), sane.into()]).await? == 1)
    }

    async fn release(&self, id: JobId, engine: &str) -> anyhow::Result<()> {
        let sql = "UPDATE jobs SET claimed_by = NULL, claimed_until = NULL WHERE id = $1 AND claimed_by = $2";
        self.db.run(sql, [id.0.into(), engine.into()]).await?;
        Ok(())
    }

    async fn append(&self, job: &Job, engine: Option<&str>, recorded: &Recorded) -> Result<(), AppendError> {
        let write = Append {
            job: job.id,
            seq: job.seq,
            subject: job.subject.clone(),
            engine: engine.map(str::to_owned),
            recorded: recorded.clone(),
        };
        self.db.write(move |tx| Box::pin(append_in(tx, write))).await
    }

    async fn close(&self, job: &Job, outcome: Outcome, after: Aftermath, now: Ms) -> anyhow::Result<()> {
        anyhow::ensure!(outcome != Outcome::Held, "job {} is held, and a held job stays open", job.id);
        let (id, server) = (job.id, job.subject.server().cloned());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE jobs SET outcome = $2, closed_at = $3, claimed_by = NULL, claimed_until = NULL
                       WHERE id = $1 AND outcome IS NULL";
                    let closed = tx.run(sql, [id.0.into(), word(&outcome).into(), now.into()]).await?;
                    // Closed before: what that meant for the server was done then, and may have been changed since.
                    if closed == 0 {
                        return Ok(());
                    }
                    forget_old_output(tx, now).await?;
                    match server {
                        Some(server) => apply_aftermath(tx, &server, after, now).await,
                        None => Ok(()),
                    }
                })
            })
            .await
    }

    async fn output(&self, id: JobId, step: Step, now: Ms, lines: &[String]) -> anyhow::Result<()> {
        self.add_output(id, step, now, lines).await
    }

    async fn server(&self, id: &ServerId) -> anyhow::Result<Option<Server>> {
        self.server_any(id).await
    }

    async fn servers(&self) -> anyhow::Result<Vec<Server>> {
        self.servers_everywhere().await
    }

    async fn secrets(&self, id: &ServerId) -> anyhow::Result<HashMap<String, String>> {
        self.secrets_of(id).await
    }

    async fn never_shown(&self, id: &ServerId) -> anyhow::Result<Vec<String>> {
        Store::never_shown(self, id).await
    }

    async fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>> {
        self.snapshots_all().await
    }

    async fn memo(&self, id: &ServerId) -> anyhow::Result<Memo> {
        self.memo_of(id).await
    }

    async fn set_memo(&self, id: &ServerId, memo: &Memo) -> anyhow::Result<()> {
        self.write_memo(id, memo).await
    }

    async fn crash_starts(&self, id: &ServerId, since: Ms) -> anyhow::Result<Vec<Ms>> {
        let sql = "SELECT created_at FROM jobs WHERE subject = $1 AND action = 'start' AND cause = 'crashed'
                   AND created_at >= $2 ORDER BY created_at";
        let rows = self.db.rows(sql, [Subject::Server(id.clone()).key().into(), since.into()]).await?;
        rows.iter().map(|row| row.int("created_at")).collect()
    }

    async fn notice(&self, server: &Server, notice: &Notice, now: Ms) -> anyhow::Result<()> {
        self.add_notice(server, notice, now).await
    }

    async fn rentals(&self, guild: &GuildId, since: Ms) -> anyhow::Result<Vec<Rental>> {
        self.rentals_of(guild, since).await
    }

    async fn bill_unrecorded(&self, rental: &Rental) -> anyhow::Result<()> {
        self.write_rental(rental).await
    }

    async fn told(&self, key: &str) -> anyhow::Result<bool> {
        Ok(self.meta(&format!("told.{key}")).await?.is_some())
    }

    async fn set_told(&self, key: &str) -> anyhow::Result<()> {
        self.set_meta(&format!("told.{key}"), "yes").await
    }

    async fn forget_told(&self, key: &str) -> anyhow::Result<()> {
        self.forget_meta(&format!("told.{key}")).await
    }

    async fn deleted_servers(&self, at_most: usize) -> anyhow::Result<Vec<Server>> {
        self.deleted_servers_everywhere(at_most).await
    }

    async fn left_bills(&self) -> anyhow::Result<Vec<Rental>> {
        self.left_rentals().await
    }

    async fn host_gone(&self, provider: &str, host: &str, now: Ms) -> anyhow::Result<()> {
        self.end_rental(provider, host, now).await
    }

    async fn bill_ended(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        self.rental_ended(provider, host).await
    }

    async fn host_back(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        self.reopen_rental(provider, host).await
    }
}

/// The word of a tagged enum's variant, for a column that queries look at.
fn tag(value: &impl serde::Serialize, name: &str) -> anyhow::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(value.get(name).and_then(|tag| tag.as_str()).context("a tagged enum has its tag")?.to_owned())
}

/// `None` when another job on the same subject is open.
async fn open_in(tx: &mut Tx, new: NewJob, wish: Wish, now: Ms) -> Result<Option<JobId>, OpenError> {
    let busy = "SELECT id FROM jobs WHERE subject = $1 AND outcome IS NULL";
    if tx.row(busy, [new.subject.key().into()]).await?.is_some() {
        return Ok(None);
    }
    let (game, name) = match &new.subject {
        Subject::Game(game) => (game.clone(), game.clone()),
        Subject::Server(id) => {
            let row = tx.row("SELECT * FROM servers WHERE id = $1 AND deleted_at IS NULL", [(&id.0).into()]).await?;
            let row = row.with_context(|| format!("server {id} does not exist or is deleted"))?;
            let server = server_of(&row)?;
            if wish.decided_on.is_some_and(|then| then != DecidedOn::of(&server)) {
                return Err(OpenError::Overtaken);
            }
            if let Some(wanted) = wish.wanted {
                let sql = "UPDATE servers SET wanted = $2 WHERE id = $1";
                tx.run(sql, [(&id.0).into(), word(&wanted).into()]).await?;
            }
            if new.action == Action::Start && server.place.yes.is_some() {
                let place = json(&server.place.clone().begun(&new.actor, now));
                tx.run("UPDATE servers SET place = $2 WHERE id = $1", [(&id.0).into(), place.into()]).await?;
            }
            let memo: Memo = row.json("memo")?;
            if memo.left_alone && Busy::of(&new.action) == Busy::Moving {
                let memo = json(&Memo { left_alone: false, ..memo });
                tx.run("UPDATE servers SET memo = $2 WHERE id = $1", [(&id.0).into(), memo.into()]).await?;
            }
            (server.game, server.name.to_string())
        }
    };
    // What a person asks for is noted by the front door, also where it was refused.
    if let Some(why) = new.cause.spoken() {
        let entry = AuditEntry {
            at: now,
            guild: new.guild.clone(),
            actor: new.actor.clone(),
            action: new.action.word().to_owned(),
            server: Some(name),
            detail: why,
            outcome: "done".to_owned(),
        };
        audit_in(tx, &entry).await?;
    }
    let row = tx.row("SELECT COALESCE(MAX(id), 0) + 1 AS next FROM jobs", []).await?;
    let id = row.context("a maximum is always there")?.int("next")?;
    let sql = "INSERT INTO jobs (id, subject, subject_json, guild, game, action, action_json, cause, cause_json, actor,
                   channel, plan, created_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
    let args = [
        id.into(),
        new.subject.key().into(),
        json(&new.subject).into(),
        (&new.guild.0).into(),
        game.into(),
        new.action.word().into(),
        json(&new.action).into(),
        tag(&new.cause, "cause")?.into(),
        json(&new.cause).into(),
        json(&new.actor).into(),
        new.channel.as_deref().into(),
        json(&new.plan).into(),
        now.into(),
    ];
    tx.run(sql, args).await?;
    Ok(Some(JobId(id)))
}

struct Append {
    job: JobId,
    seq: i64,
    subject: Subject,
    engine: Option<String>,
    recorded: Recorded,
}

async fn append_in(tx: &mut Tx, write: Append) -> Result<(), AppendError> {
    let Append { job, seq, subject, engine, recorded } = write;
    let row = tx.row("SELECT claimed_by, outcome FROM jobs WHERE id = $1", [job.0.into()]).await?;
    let row = row.with_context(|| format!("there is no job {job}"))?;
    if engine.is_some() && row.maybe_text("claimed_by")? != engine {
        return Err(AppendError::ClaimLost);
    }
    let row_of_events = tx.row("SELECT COUNT(*) AS written FROM events WHERE job = $1", [job.0.into()]).await?;
    let written = row_of_events.context("a count is always there")?.int("written")?;
    // An ended job takes no more events, and neither does one whose history the writer does not know.
    if row.maybe_text("outcome")?.is_some() || written != seq {
        return Err(AppendError::Conflict);
    }
    let sql = "INSERT INTO events (job, seq, at, event) VALUES ($1, $2, $3, $4) ON CONFLICT (job, seq) DO NOTHING";
    let args = [job.0.into(), seq.into(), recorded.at.into(), json(&recorded.event).into()];
    if tx.run(sql, args).await? == 0 {
        return Err(AppendError::Conflict);
    }
    if let Some(gain) = gain_of(&recorded.event) {
        write_gain(tx, job, &subject, gain, recorded.at).await?;
    }
    Ok(())
}

fn gain_of(event: &Event) -> Option<&Gain> {
    match event {
        Event::Finished { gain, .. } | Event::Undone { gain, .. } => Some(gain),
        Event::Started { .. }
        | Event::Retrying { .. }
        | Event::Failed { .. }
        | Event::UndoStarted { .. }
        | Event::UndoFailed { .. }
        | Event::CancelRequested { .. }
        | Event::RetryRequested { .. }
        | Event::Forced { .. }
        | Event::Abandoned { .. } => None,
    }
}

async fn write_gain(tx: &mut Tx, job: JobId, subject: &Subject, gain: &Gain, at: Ms) -> anyhow::Result<()> {
    if let Some(owned) = &gain.owned {
        let server = subject.server().with_context(|| format!("job {job} gains for a server and has none"))?;
        turn_bill(tx, Brought::Job(job), server, owned.host.as_ref(), at).await?;
        write_owned(tx, server, owned).await?;
    }
    if let Some(snapshot) = &gain.snapshot {
        write_snapshot(tx, snapshot).await?;
    }
    if let Some(id) = &gain.snapshot_removed {
        remove_snapshot(tx, id).await?;
    }
    Ok(())
}
