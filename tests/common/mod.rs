//! What the engine's tests share: a journal in memory that can be told to crash at any write.

use async_trait::async_trait;
use spawnpoint::engine::reconcile::Busy;
use spawnpoint::engine::run::CLAIM_SANE_MS;
use spawnpoint::engine::{Aftermath, AppendError, DecidedOn, Journal, LeaseChange, OpenError, Wish};
use spawnpoint::model::cost::{Rental, turn};
use spawnpoint::model::drive::Snapshot;
use spawnpoint::model::host::HostRef;
use spawnpoint::model::job::{Cause, Event, Job, NewJob, Outcome, Recorded, Step};
use spawnpoint::model::lease::Memo;
use spawnpoint::model::server::Server;
use spawnpoint::model::view::Notice;
use spawnpoint::model::{GuildId, JobId, Ms, ServerId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Rows>>);

#[derive(Default)]
pub struct Rows {
    pub jobs: Vec<Row>,
    pub servers: BTreeMap<ServerId, Server>,
    pub snapshots: BTreeMap<String, Snapshot>,
    pub memos: HashMap<ServerId, Memo>,
    pub notices: Vec<Notice>,
    pub rentals: Vec<Rental>,
    pub told: BTreeSet<String>,
    pub output: Vec<String>,
    pub secrets: HashMap<String, String>,
    /// How often open jobs were asked for.
    pub reads: usize,
    /// So many notices find no room.
    pub no_room: usize,
}

pub struct Row {
    pub new: NewJob,
    pub created_at: Ms,
    pub events: Vec<Recorded>,
    pub outcome: Option<Outcome>,
    claim: Option<(String, Ms)>,
}

impl Memory {
    pub fn get(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().expect("no test panics while it holds this lock")
    }

    pub fn job(&self, id: JobId) -> Job {
        job(&self.get(), id)
    }

    pub fn server_now(&self, id: &ServerId) -> Server {
        self.get().servers[id].clone()
    }

    /// What a person writes: cancel, retry, force, abandon.
    pub async fn write(&self, id: JobId, event: Event) {
        let job = self.job(id);
        self.append(&job, None, &Recorded { at: 0, event }).await.expect("nobody else writes now");
    }
}

fn job(rows: &Rows, id: JobId) -> Job {
    let row = &rows.jobs[id.0 as usize - 1];
    Job::replay(id, row.created_at, row.new.clone(), &row.events).expect("only fitting events were written")
}

fn open(rows: &Rows) -> Vec<Job> {
    let ids = 1..=rows.jobs.len() as i64;
    ids.filter(|id| rows.jobs[*id as usize - 1].outcome.is_none()).map(|id| job(rows, JobId(id))).collect()
}

#[async_trait]
impl Journal for Memory {
    async fn open(&self, new: NewJob, wish: Wish, now: Ms) -> Result<JobId, OpenError> {
        let mut rows = self.get();
        if let Some(busy) = open(&rows).into_iter().find(|job| job.subject == new.subject) {
            return Err(OpenError::Busy(Box::new(busy)));
        }
        if let Some(id) = new.subject.server() {
            let server = rows.servers.get_mut(id).expect("the server exists");
            if wish.decided_on.is_some_and(|then| then != DecidedOn::of(server)) {
                return Err(OpenError::Overtaken);
            }
            server.wanted = wish.wanted.unwrap_or(server.wanted);
            if let Some(memo) = rows.memos.get_mut(id).filter(|_| Busy::of(&new.action) == Busy::Moving) {
                memo.left_alone = false;
            }
        }
        rows.jobs.push(Row { new, created_at: now, events: vec![], outcome: None, claim: None });
        Ok(JobId(rows.jobs.len() as i64))
    }

    async fn load(&self, id: JobId) -> anyhow::Result<Job> {
        Ok(self.job(id))
    }

    async fn open_jobs(&self) -> anyhow::Result<Vec<Job>> {
        let mut rows = self.get();
        rows.reads += 1;
        Ok(open(&rows))
    }

    async fn claim(&self, id: JobId, engine: &str, now: Ms, until: Ms) -> anyhow::Result<bool> {
        let mut rows = self.get();
        let claim = &mut rows.jobs[id.0 as usize - 1].claim;
        let holds = now + 1..=now + CLAIM_SANE_MS;
        let free = claim.as_ref().is_none_or(|(by, until)| by == engine || !holds.contains(until));
        if free {
            *claim = Some((engine.to_owned(), until));
        }
        Ok(free)
    }

    async fn release(&self, id: JobId, engine: &str) -> anyhow::Result<()> {
        let mut rows = self.get();
        let claim = &mut rows.jobs[id.0 as usize - 1].claim;
        if claim.as_ref().is_some_and(|(by, _)| by == engine) {
            *claim = None;
        }
        Ok(())
    }

    async fn append(&self, job: &Job, engine: Option<&str>, recorded: &Recorded) -> Result<(), AppendError> {
        let mut rows = self.get();
        let row = &mut rows.jobs[job.id.0 as usize - 1];
        if let Some(engine) = engine
            && row.claim.as_ref().is_none_or(|(by, _)| by != engine)
        {
            return Err(AppendError::ClaimLost);
        }
        if row.events.len() as i64 != job.seq {
            return Err(AppendError::Conflict);
        }
        row.events.push(recorded.clone());
        let gain = match &recorded.event {
            Event::Finished { gain, .. } | Event::Undone { gain, .. } => gain.clone(),
            Event::Started { .. }
            | Event::Retrying { .. }
            | Event::Failed { .. }
            | Event::UndoStarted { .. }
            | Event::UndoFailed { .. }
            | Event::CancelRequested { .. }
            | Event::RetryRequested { .. }
            | Event::Forced { .. }
            | Event::Abandoned { .. } => return Ok(()),
        };
        if let (Some(owned), Some(id)) = (gain.owned, job.subject.server()) {
            bill(&mut rows, job, id, owned.host.as_ref(), recorded.at);
            rows.servers.get_mut(id).expect("the server exists").owned = owned;
        }
        if let Some(snapshot) = gain.snapshot {
            rows.snapshots.insert(snapshot.id.0.clone(), snapshot);
        }
        if let Some(removed) = gain.snapshot_removed {
            rows.snapshots.remove(&removed);
        }
        Ok(())
    }

    async fn close(&self, job: &Job, outcome: Outcome, after: Aftermath, now: Ms) -> anyhow::Result<()> {
        let mut rows = self.get();
        if rows.jobs[job.id.0 as usize - 1].outcome.replace(outcome).is_some() {
            return Ok(());
        }
        let Some(id) = job.subject.server() else { return Ok(()) };
        let server = rows.servers.get_mut(id).expect("the server exists");
        server.wanted = after.wanted.unwrap_or(server.wanted);
        match after.lease {
            LeaseChange::Keep => {}
            LeaseChange::Begin(until) => {
                server.lease_until = until.map(|until| server.lease_until.unwrap_or(0).max(until))
            }
            LeaseChange::Clear => server.lease_until = None,
        }
        let forgets = after.lease != LeaseChange::Keep;
        if after.deleted {
            server.deleted_at = Some(now);
        }
        if let Some(backend) = after.backend {
            server.backend = backend;
            server.owned = server.owned.moved();
            server.update_at_start = false;
        }
        if after.update_done {
            server.update_at_start = false;
        }
        if forgets {
            rows.memos.remove(id);
        }
        Ok(())
    }

    async fn output(&self, _id: JobId, _step: Step, _now: Ms, lines: &[String]) -> anyhow::Result<()> {
        self.get().output.extend_from_slice(lines);
        Ok(())
    }

    async fn server(&self, id: &ServerId) -> anyhow::Result<Option<Server>> {
        Ok(self.get().servers.get(id).cloned())
    }

    async fn servers(&self) -> anyhow::Result<Vec<Server>> {
        Ok(self.get().servers.values().filter(|server| server.deleted_at.is_none()).cloned().collect())
    }

    async fn secrets(&self, _id: &ServerId) -> anyhow::Result<HashMap<String, String>> {
        Ok(self.get().secrets.clone())
    }

    async fn never_shown(&self, id: &ServerId) -> anyhow::Result<Vec<String>> {
        Ok(self.secrets(id).await?.into_values().collect())
    }

    async fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>> {
        Ok(self.get().snapshots.values().cloned().collect())
    }

    async fn memo(&self, id: &ServerId) -> anyhow::Result<Memo> {
        Ok(self.get().memos.get(id).cloned().unwrap_or_default())
    }

    async fn set_memo(&self, id: &ServerId, memo: &Memo) -> anyhow::Result<()> {
        self.get().memos.insert(id.clone(), memo.clone());
        Ok(())
    }

    async fn crash_starts(&self, id: &ServerId, since: Ms) -> anyhow::Result<Vec<Ms>> {
        let crashed = |row: &&Row| {
            row.new.subject.server() == Some(id)
                && matches!(row.new.cause, Cause::Crashed { .. })
                && row.created_at >= since
        };
        Ok(self.get().jobs.iter().filter(crashed).map(|row| row.created_at).collect())
    }

    async fn notice(&self, _server: &Server, notice: &Notice, _now: Ms) -> anyhow::Result<()> {
        let mut rows = self.get();
        if let Some(left) = rows.no_room.checked_sub(1) {
            rows.no_room = left;
            anyhow::bail!("the disk is full");
        }
        rows.notices.push(notice.clone());
        Ok(())
    }

    async fn rentals(&self, _guild: &GuildId, since: Ms) -> anyhow::Result<Vec<Rental>> {
        let wanted = |rental: &&Rental| rental.ended_at.is_none_or(|ended| ended > since);
        Ok(self.get().rentals.iter().filter(wanted).cloned().collect())
    }

    async fn bill_unrecorded(&self, rental: &Rental) -> anyhow::Result<()> {
        let rows = &mut *self.get();
        let same = |known: &&mut Rental| known.provider == rental.provider && known.host == rental.host;
        match rows.rentals.iter_mut().find(same) {
            Some(known) => {
                known.ended_at = rental.ended_at;
                known.price = known.price.take().or_else(|| rental.price.clone());
            }
            None => rows.rentals.push(rental.clone()),
        }
        Ok(())
    }

    async fn told(&self, key: &str) -> anyhow::Result<bool> {
        Ok(self.get().told.contains(key))
    }

    async fn set_told(&self, key: &str) -> anyhow::Result<()> {
        self.get().told.insert(key.to_owned());
        Ok(())
    }

    async fn forget_told(&self, key: &str) -> anyhow::Result<()> {
        self.get().told.remove(key);
        Ok(())
    }

    async fn deleted_servers(&self, at_most: usize) -> anyhow::Result<Vec<Server>> {
        let rows = self.get();
        let deleted = rows.servers.values().filter(|server| server.deleted_at.is_some());
        Ok(deleted.take(at_most).cloned().collect())
    }

    async fn left_bills(&self) -> anyhow::Result<Vec<Rental>> {
        let rows = self.get();
        let left = |rental: &&Rental| rental.is_left(&rows.servers[&rental.server]);
        Ok(rows.rentals.iter().filter(left).cloned().collect())
    }

    async fn host_gone(&self, _provider: &str, host: &str, now: Ms) -> anyhow::Result<()> {
        let mut rows = self.get();
        let open = rows.rentals.iter_mut().filter(|rental| rental.host == host && rental.ended_at.is_none());
        open.for_each(|rental| rental.ended_at = Some(now));
        Ok(())
    }

    async fn bill_ended(&self, _provider: &str, host: &str) -> anyhow::Result<bool> {
        Ok(self.get().rentals.iter().any(|rental| rental.host == host && rental.ended_at.is_some()))
    }

    async fn host_back(&self, _provider: &str, host: &str) -> anyhow::Result<bool> {
        let rows = &mut *self.get();
        let on_record = |id: &ServerId| rows.servers[id].owned.host.as_ref().is_some_and(|own| own.id == host);
        let ended = rows.rentals.iter_mut().find(|rental| rental.host == host && rental.ended_at.is_some());
        let Some(rental) = ended.filter(|rental| on_record(&rental.server)) else { return Ok(false) };
        rental.ended_at = None;
        Ok(true)
    }
}

fn bill(rows: &mut Rows, job: &Job, server: &ServerId, host: Option<&HostRef>, at: Ms) {
    let before = rows.servers[server].owned.host.clone();
    let turn = turn(before.as_ref(), host);
    if let Some(before) = before.filter(|_| turn.ends) {
        let same = |rental: &&mut Rental| rental.host == before.id && rental.ended_at.is_none();
        rows.rentals.iter_mut().filter(same).for_each(|rental| rental.ended_at = Some(at));
    }
    if let Some(host) = host.filter(|_| turn.begins) {
        rows.rentals.push(Rental {
            provider: host.provider.clone(),
            host: host.id.clone(),
            server: server.clone(),
            actor: job.actor.clone(),
            region: host.region.clone(),
            size: host.size.clone(),
            price: host.price.clone(),
            began_at: host.created_at,
            ended_at: None,
        });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// A journal under an engine that dies around its n-th write: from then on nothing works.
pub struct Crashing<J> {
    pub journal: J,
    pub at: usize,
    pub when: When,
    pub writes: Arc<Mutex<usize>>,
}

impl<J: Journal> Crashing<J> {
    fn alive(&self) -> anyhow::Result<()> {
        anyhow::ensure!(*self.writes.lock().expect("plain number") <= self.at, "crashed");
        Ok(())
    }

    /// Counts a write. True: do it, and say that it failed.
    fn count(&self) -> anyhow::Result<bool> {
        self.alive()?;
        let mut writes = self.writes.lock().expect("plain number");
        *writes += 1;
        let now = *writes == self.at + 1;
        anyhow::ensure!(!now || self.when == When::After, "crashed before write {}", self.at);
        Ok(now)
    }
}

#[async_trait]
impl<J: Journal> Journal for Crashing<J> {
    async fn open(&self, new: NewJob, wish: Wish, now: Ms) -> Result<JobId, OpenError> {
        self.journal.open(new, wish, now).await
    }
    async fn load(&self, id: JobId) -> anyhow::Result<Job> {
        self.alive()?;
        self.journal.load(id).await
    }
    async fn open_jobs(&self) -> anyhow::Result<Vec<Job>> {
        self.alive()?;
        self.journal.open_jobs().await
    }
    async fn claim(&self, id: JobId, engine: &str, now: Ms, until: Ms) -> anyhow::Result<bool> {
        self.alive()?;
        self.journal.claim(id, engine, now, until).await
    }
    async fn release(&self, id: JobId, engine: &str) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.release(id, engine).await
    }
    async fn append(&self, job: &Job, engine: Option<&str>, recorded: &Recorded) -> Result<(), AppendError> {
        let crash = self.count()?;
        self.journal.append(job, engine, recorded).await?;
        if crash { Err(AppendError::Other(anyhow::anyhow!("crashed after write {}", self.at))) } else { Ok(()) }
    }
    async fn close(&self, job: &Job, outcome: Outcome, after: Aftermath, now: Ms) -> anyhow::Result<()> {
        let crash = self.count()?;
        self.journal.close(job, outcome, after, now).await?;
        anyhow::ensure!(!crash, "crashed after write {}", self.at);
        Ok(())
    }
    async fn output(&self, id: JobId, step: Step, now: Ms, lines: &[String]) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.output(id, step, now, lines).await
    }
    async fn server(&self, id: &ServerId) -> anyhow::Result<Option<Server>> {
        self.alive()?;
        self.journal.server(id).await
    }
    async fn servers(&self) -> anyhow::Result<Vec<Server>> {
        self.alive()?;
        self.journal.servers().await
    }
    async fn secrets(&self, id: &ServerId) -> anyhow::Result<HashMap<String, String>> {
        self.alive()?;
        self.journal.secrets(id).await
    }
    async fn never_shown(&self, id: &ServerId) -> anyhow::Result<Vec<String>> {
        self.alive()?;
        self.journal.never_shown(id).await
    }
    async fn snapshots(&self) -> anyhow::Result<Vec<Snapshot>> {
        self.alive()?;
        self.journal.snapshots().await
    }
    async fn memo(&self, id: &ServerId) -> anyhow::Result<Memo> {
        self.journal.memo(id).await
    }
    async fn set_memo(&self, id: &ServerId, memo: &Memo) -> anyhow::Result<()> {
        self.journal.set_memo(id, memo).await
    }
    async fn crash_starts(&self, id: &ServerId, since: Ms) -> anyhow::Result<Vec<Ms>> {
        self.journal.crash_starts(id, since).await
    }
    async fn notice(&self, server: &Server, notice: &Notice, now: Ms) -> anyhow::Result<()> {
        self.journal.notice(server, notice, now).await
    }

    async fn rentals(&self, guild: &GuildId, since: Ms) -> anyhow::Result<Vec<Rental>> {
        self.alive()?;
        self.journal.rentals(guild, since).await
    }

    async fn bill_unrecorded(&self, rental: &Rental) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.bill_unrecorded(rental).await
    }

    async fn told(&self, key: &str) -> anyhow::Result<bool> {
        self.alive()?;
        self.journal.told(key).await
    }

    async fn set_told(&self, key: &str) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.set_told(key).await
    }

    async fn forget_told(&self, key: &str) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.forget_told(key).await
    }

    async fn deleted_servers(&self, at_most: usize) -> anyhow::Result<Vec<Server>> {
        self.alive()?;
        self.journal.deleted_servers(at_most).await
    }

    async fn left_bills(&self) -> anyhow::Result<Vec<Rental>> {
        self.alive()?;
        self.journal.left_bills().await
    }

    async fn host_gone(&self, provider: &str, host: &str, now: Ms) -> anyhow::Result<()> {
        self.alive()?;
        self.journal.host_gone(provider, host, now).await
    }

    async fn bill_ended(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        self.alive()?;
        self.journal.bill_ended(provider, host).await
    }

    async fn host_back(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        self.alive()?;
        self.journal.host_back(provider, host).await
    }
}
