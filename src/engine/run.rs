//! Drives one job to rest: asks the job what is next, writes the intent, does it, writes the result, and so on.
//! Takes up every open job at the start of the program, which is all that resuming after a crash means.

use super::{AppendError, Driver, Engine, Output, StepCx, StepError, aftermath, leaves_alone, too_slow};
use crate::bus::Nudge;
use crate::model::access::Actor;
use crate::model::job::{Event, Gain, Job, Next, Outcome, Recorded, Step, Subject};
use crate::model::lease::Memo;
use crate::model::server::{Backend, Server};
use crate::model::{JobId, MINUTE_MS, Ms, SECOND_MS};
use anyhow::Context;
use futures::FutureExt;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Tries of one step before its job gives up on it.
pub const ATTEMPTS_MAX: u32 = 5;
/// The wait before the second try; it doubles with each further one up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// An engine that died loses its jobs after this time; a living one renews its claim three times as often.
pub const CLAIM_MS: Ms = 10 * SECOND_MS;
/// Nobody claims for so long, on whichever machine's clock: it was set back since, and the claim means nothing.
pub const CLAIM_SANE_MS: Ms = 5 * MINUTE_MS;
/// How often a running step is looked at: claim, cancel, output.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How often open jobs are looked for when nobody nudges.
const POLL: Duration = Duration::from_secs(5);
/// A conflict means that a person wrote at the same moment; more than a few in a row means that something is wrong.
const CONFLICTS_MAX: usize = 20;
/// Output is written in batches, so that a chatty script costs a few writes a second.
const OUTPUT_EVERY: Duration = Duration::from_millis(500);

impl Engine {
    /// Takes up open jobs until `stop`; then finishes no step, because the next start goes on where this one was.
    pub async fn run(&self, stop: CancellationToken) {
        let running: Arc<Mutex<HashSet<JobId>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            match self.inner.journal.open_jobs().await {
                Ok(jobs) => {
                    for job in jobs {
                        // A held job waits; every other open job wants to be driven or closed.
                        let fresh = job.rest() != Some(Outcome::Held) || self.tried_again(&job).await;
                        if fresh && running.lock().expect("no holder can panic").insert(job.id) {
                            let (engine, running) = (self.clone(), running.clone());
                            tasks.spawn(async move {
                                let driven = engine.drive(job.id).await;
                                running.lock().expect("no holder can panic").remove(&job.id);
                                match driven {
                                    // What a person wrote at the last moment is not left until the next poll.
                                    Ok(Some(_)) => engine.inner.work.notify_one(),
                                    // Another engine has it: asking again at once would only be a busy loop.
                                    Ok(None) => {}
                                    Err(error) => tracing::error!(job = %job.id, "A job could not go on: {error:#}"),
                                }
                            });
                        }
                    }
                }
                Err(error) => tracing::error!("Open jobs could not be read: {error:#}"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.inner.work.notified() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.shutdown().await;
        // The next engine takes these up at once, instead of waiting until the claims run out.
        let left: Vec<JobId> = running.lock().expect("no holder can panic").drain().collect();
        for id in left {
            if let Err(error) = self.inner.journal.release(id, &self.inner.id).await {
                tracing::warn!(job = %id, "The claim on a job could not be given back; it runs out by itself: {error:#}");
            }
        }
    }

    /// Whether a held job goes on by itself, because what held it may have passed.
    async fn tried_again(&self, job: &Job) -> bool {
        let now = self.now();
        if job.tries_again_at().is_none_or(|at| at > now) {
            return false;
        }
        let again = Recorded { at: now, event: Event::RetryRequested { by: Actor::Watcher } };
        match self.inner.journal.append(job, None, &again).await {
            Ok(()) => true,
            // A person, or another engine, was faster.
            Err(AppendError::Conflict | AppendError::ClaimLost) => false,
            Err(AppendError::Other(error)) => {
                tracing::error!(job = %job.id, "A held job could not be tried again: {error:#}");
                false
            }
        }
    }

    /// Drives one job to rest. `Ok(None)` means that another engine works on it.
    pub async fn drive(&self, id: JobId) -> anyhow::Result<Option<Outcome>> {
        let journal = self.inner.journal.as_ref();
        let now = self.now();
        if !journal.claim(id, &self.inner.id, now, now + CLAIM_MS).await? {
            return Ok(None);
        }
        let poke = Arc::new(Notify::new());
        self.inner.pokes.lock().expect("no holder can panic").insert(id, poke.clone());
        let result = self.drive_claimed(id, &poke).await;
        self.inner.pokes.lock().expect("no holder can panic").remove(&id);
        if let Err(error) = journal.release(id, &self.inner.id).await {
            tracing::warn!(job = %id, "The claim on a job could not be given back; it runs out by itself: {error:#}");
        }
        self.inner.bus.nudge(Nudge::Job(id));
        result
    }

    async fn drive_claimed(&self, id: JobId, poke: &Notify) -> anyhow::Result<Option<Outcome>> {
        let journal = self.inner.journal.as_ref();
        let mut job = journal.load(id).await.with_context(|| format!("loading job {id}"))?;
        loop {
            let event = match job.next() {
                Next::Rest(Outcome::Held) => return Ok(Some(Outcome::Held)),
                Next::Rest(outcome) => {
                    self.close(&job, outcome).await?;
                    return Ok(Some(outcome));
                }
                Next::Run(step) => {
                    self.record(&mut job, Event::Started { step }).await?;
                    // Another writer may have called it off in between; ask again before doing anything.
                    if job.next() != Next::Run(step) {
                        continue;
                    }
                    self.run_with_retries(step, &mut job, poke).await?
                }
                Next::Undo(step) => {
                    self.record(&mut job, Event::UndoStarted { step }).await?;
                    match self.attempt_with_retries(step, &mut job, Way::Undo, poke).await? {
                        Ok(gain) => Event::Undone { step, gain },
                        Err(GaveUp { error, may_pass }) => Event::UndoFailed { step, error, may_pass },
                    }
                }
            };
            self.record(&mut job, event).await?;
        }
    }

    async fn run_with_retries(&self, step: Step, job: &mut Job, poke: &Notify) -> anyhow::Result<Event> {
        // The proof is checked here, once for every backend, and not left to a plan or a driver.
        if step.destroys_world() && !job.world_is_safe() {
            let error = "The world has no verified backup from this job, so nothing is destroyed.".to_owned();
            return Ok(Event::Failed { step, error, may_pass: false });
        }
        Ok(match self.attempt_with_retries(step, job, Way::Run, poke).await? {
            Ok(gain) => Event::Finished { step, gain },
            // A game that says nothing to its players is no reason to keep it running.
            Err(gave_up) if step == Step::WarnPlayers && !self.called_off(job).await? => {
                Event::Finished { step, gain: Gain::note(format!("The players could not be told: {}", gave_up.error)) }
            }
            Err(GaveUp { error, may_pass }) => Event::Failed { step, error, may_pass },
        })
    }

    /// The outer error is ours (the store, a lost claim); the inner one is the step's.
    async fn attempt_with_retries(
        &self,
        step: Step,
        job: &mut Job,
        way: Way,
        poke: &Notify,
    ) -> anyhow::Result<Result<Gain, GaveUp>> {
        let mut backoff = BACKOFF_FIRST;
        // Telling the players may fail, and a stop is not kept waiting for it.
        let attempts = if step == Step::WarnPlayers { 1 } else { ATTEMPTS_MAX };
        for attempt in 1.. {
            let (error, retry, may_pass) = match self.attempt(step, job, way, poke).await? {
                Tried::Done(gain) => return Ok(Ok(*gain)),
                Tried::CalledOff => return Ok(Err(GaveUp::called_off())),
                Tried::Failed(StepError::Fatal(error)) => (format!("{error:#}"), false, false),
                Tried::Failed(StepError::Retry(error)) => (format!("{error:#}"), attempt < attempts, true),
                // Another try now would only take as long again.
                Tried::TooSlow(limit) => {
                    let what = match way {
                        Way::Run => step.label(),
                        Way::Undo => "Undoing it",
                    };
                    (too_slow(what, limit), false, true)
                }
            };
            tracing::warn!(job = %job.id, ?step, attempt, "A step failed: {error}");
            if !retry {
                return Ok(Err(GaveUp { error, may_pass }));
            }
            if way == Way::Run {
                self.record(job, Event::Retrying { step, attempt, error }).await?;
            }
            // A person who calls it off is not kept waiting by the pause.
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = poke.notified() => {}
            }
            self.renew(job.id).await?;
            if way == Way::Run && self.called_off(job).await? {
                return Ok(Err(GaveUp::called_off()));
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        unreachable!("the loop above returns at its last attempt")
    }

    /// One try of one step, with its time limit, while the claim is renewed and cancels are looked for.
    async fn attempt(&self, step: Step, job: &mut Job, way: Way, poke: &Notify) -> anyhow::Result<Tried> {
        let journal = self.inner.journal.as_ref();
        let server = self.server_of(job).await?;
        let driver = match self.driver_for(server.as_ref()) {
            Ok(driver) => driver,
            Err(error) => return Ok(Tried::Failed(error)),
        };
        let secrets = match &server {
            Some(server) => journal.never_shown(&server.id).await?,
            None => vec![],
        };
        let (out, lines) = Output::new(secrets);
        let snapshot_of_job = job.clone();
        let cx = StepCx {
            job: &snapshot_of_job,
            server: server.as_ref(),
            journal,
            out: out.clone(),
            now: self.now(),
            zone: &self.spending().zone,
        };
        let limit = driver.time_limit(step, &cx);
        let writer = self.write_output(job.id, step, lines);

        let work = async {
            let work = async {
                match way {
                    Way::Run => driver.run(step, &cx).await,
                    Way::Undo => driver.undo(step, &cx).await,
                }
            };
            // A bug in a driver must not take the engine with it: it is a failed step like any other.
            AssertUnwindSafe(work).catch_unwind().await
        };
        let oversight = self.oversee(job, way, poke);
        let tried = tokio::select! {
            biased;
            result = work => match result {
                Ok(Ok(gain)) => Tried::Done(Box::new(masked_gain(&out, gain))),
                Ok(Err(StepError::Retry(error))) => Tried::Failed(StepError::Retry(masked(&out, error))),
                Ok(Err(StepError::Fatal(error))) => Tried::Failed(StepError::Fatal(masked(&out, error))),
                Err(_) => Tried::Failed(StepError::fatal("Spawnpoint made a mistake in this step. The log has the details.")),
            },
            () = tokio::time::sleep(limit) => Tried::TooSlow(limit),
            called_off = oversight => {
                called_off?;
                Tried::CalledOff
            }
        };
        drop((cx, out));
        writer.await.context("writing a step's output")?;
        Ok(tried)
    }

    /// Renews the claim while a step runs, and ends when it is called off. It runs beside the step and never between
    /// two of its moments: a step that stands still may hold the very connection that the store would need for this.
    async fn oversee(&self, job: &Job, way: Way, poke: &Notify) -> anyhow::Result<()> {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = heartbeat.tick() => self.renew(job.id).await?,
                () = poke.notified() => {}
            }
            if way == Way::Run && self.called_off(job).await? {
                return Ok(());
            }
        }
    }

    /// Whether somebody asked to cancel, and it is not too late for that.
    async fn called_off(&self, job: &Job) -> anyhow::Result<bool> {
        let fresh = self.inner.journal.load(job.id).await?;
        Ok(fresh.cancel.is_some() && fresh.can_cancel())
    }

    async fn renew(&self, id: JobId) -> anyhow::Result<()> {
        let now = self.now();
        let ours = self.inner.journal.claim(id, &self.inner.id, now, now + CLAIM_MS).await?;
        anyhow::ensure!(ours, "another engine has taken job {id} over");
        Ok(())
    }

    /// Writes an event and takes it in. When a person wrote at the same moment, what they wrote is taken in first.
    async fn record(&self, job: &mut Job, event: Event) -> anyhow::Result<()> {
        let recorded = Recorded { at: self.now(), event };
        for _ in 0..CONFLICTS_MAX {
            // An event that does not fit is refused before it is written: in the log it would damage the job for good.
            let mut next = job.clone();
            next.apply(&recorded)?;
            match self.inner.journal.append(job, Some(&self.inner.id), &recorded).await {
                Ok(()) => {
                    *job = next;
                    self.inner.bus.nudge(Nudge::Job(job.id));
                    return Ok(());
                }
                Err(AppendError::Conflict) => *job = self.inner.journal.load(job.id).await?,
                Err(error @ (AppendError::ClaimLost | AppendError::Other(_))) => {
                    return Err(anyhow::Error::new(error).context(format!("writing to job {}", job.id)));
                }
            }
        }
        anyhow::bail!("job {} changed {CONFLICTS_MAX} times while one event was written", job.id)
    }

    async fn close(&self, job: &Job, outcome: Outcome) -> anyhow::Result<()> {
        let server = self.server_of(job).await?;
        let rules = server.as_ref().map_or(self.inner.defaults.rules, |server| self.rules(server));
        let now = self.now();
        let after = aftermath(job, outcome, now, &rules);
        if let Some(server) = &server
            && leaves_alone(job, outcome)
        {
            // Before the end is written: the watcher must not see an ended job and an unmarked server.
            let memo = self.inner.journal.memo(&server.id).await?;
            self.inner.journal.set_memo(&server.id, &Memo { left_alone: true, ..memo }).await?;
        }
        self.inner.journal.close(job, outcome, after, now).await.with_context(|| format!("closing job {}", job.id))?;
        tracing::info!(job = %job.id, action = job.action.word(), ?outcome, "A job ended.");
        self.inner.bus.nudge(Nudge::Job(job.id));
        // As it is now: the end of the job may have changed it.
        if let Some(server) = self.server_of(job).await? {
            self.look(&server).await;
            self.inner.bus.nudge(Nudge::Server(server.id));
        }
        Ok(())
    }

    async fn server_of(&self, job: &Job) -> anyhow::Result<Option<Server>> {
        match &job.subject {
            Subject::Game(_) => Ok(None),
            Subject::Server(id) => {
                let server = self.inner.journal.server(id).await?;
                Ok(Some(server.with_context(|| format!("job {} is about server {id}, which does not exist", job.id))?))
            }
        }
    }

    fn driver_for(&self, server: Option<&Server>) -> Result<Arc<dyn Driver>, StepError> {
        let backend = server.map_or(Backend::Docker, |server| server.backend);
        self.driver(backend)
            .ok_or_else(|| StepError::fatal(format!("The {} backend is not set up on this machine.", backend.word())))
    }

    /// Writes lines as they come, in batches, until the last sender is gone.
    fn write_output(&self, id: JobId, step: Step, mut lines: mpsc::Receiver<String>) -> tokio::task::JoinHandle<()> {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut batch = vec![];
            while let Some(line) = lines.recv().await {
                batch.push(line);
                let full = tokio::time::sleep(OUTPUT_EVERY);
                tokio::pin!(full);
                let mut open = true;
                while open && batch.len() < super::OUTPUT_BACKLOG {
                    tokio::select! {
                        () = &mut full => break,
                        line = lines.recv() => match line {
                            Some(line) => batch.push(line),
                            None => open = false,
                        },
                    }
                }
                if let Err(error) = engine.inner.journal.output(id, step, engine.now(), &batch).await {
                    tracing::warn!(job = %id, "A step's output could not be kept: {error:#}");
                }
                engine.inner.bus.nudge(Nudge::Job(id));
                batch.clear();
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Run,
    Undo,
}

enum Tried {
    Done(Box<Gain>),
    CalledOff,
    Failed(StepError),
    TooSlow(Duration),
}

/// Why a step was given up, for people.
struct GaveUp {
    error: String,
    /// The same again may go well by itself, later.
    may_pass: bool,
}

impl GaveUp {
    fn called_off() -> GaveUp {
        GaveUp { error: "Called off.".to_owned(), may_pass: false }
    }
}

/// Longer errors and notes are cut: they are read in a message, and the output has the rest.
pub const SENTENCE_MAX_CHARS: usize = 1000;

fn masked(out: &Output, error: anyhow::Error) -> anyhow::Error {
    anyhow::Error::msg(sentence(out, &format!("{error:#}")))
}

fn masked_gain(out: &Output, gain: Gain) -> Gain {
    Gain { note: gain.note.map(|note| sentence(out, &note)), ..gain }
}

fn sentence(out: &Output, text: &str) -> String {
    out.mask(text).chars().take(SENTENCE_MAX_CHARS).collect()
}
