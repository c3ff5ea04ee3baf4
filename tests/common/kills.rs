//! Rounds of `kill -9`: somebody asks for something, and the real binary is killed in the middle of it, once or several
//! times. The stage only writes what people ask for and types into the console; the binary does all the work. What must
//! be there after a round is for `worlds` to say.
#![allow(dead_code, reason = "each test binary uses its own part")]

use super::binary::{Binary, Chaos};
use super::cloud::{Clouds, Failure};
use super::stage::Stage;
use super::worlds::{Known, other};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use spawnpoint::app::{Answer, Choice, NewServer, UpdateWhen};
use spawnpoint::model::JobId;
use spawnpoint::model::job::{Job, Outcome, Step};
use spawnpoint::model::server::{Backend, Server};
use spawnpoint::model::world::BackupId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often it is looked whether the moment of a kill has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// No moment is waited for longer: the job may be held, or wait for a provider that fails.
const MOMENT_LIMIT: Duration = Duration::from_secs(120);
/// A kill falls so long after its moment at most.
const SOON: Duration = Duration::from_millis(400);
/// Events of a step that goes well: that it begins, and that it has ended.
const STEP_EVENTS: usize = 2;
/// Where hosts are made and destroyed, in the four providers' own words.
const HOSTS: &str = "/(instances|servers|droplets)";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ask {
    Start,
    /// Called off in the middle: what was made or rented for it goes.
    CancelledStart,
    Stop,
    Restart,
    Backup,
    /// Of any backup but the newest, if there are others.
    Restore,
    Update,
    /// A start or a restart onto a newer snapshot.
    UpdateAtStart,
    /// And one of the same name is made in its place.
    Delete,
    /// To the other backend.
    Move,
}

/// When the binary is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many events later, and so long after that.
    Events(i64, Duration),
    /// So long after this step has begun, or is undone.
    In(Step, Duration),
    /// So long after the provider has got a request to make a host or to destroy one, with whatever comes of it.
    Request(&'static str, Duration),
}

pub struct Scene {
    pub stage: Stage,
    /// Where hosts are rented, if they are.
    pub clouds: Option<Clouds>,
    /// What the binary is told beside the stage's own.
    pub environment: Vec<(String, String)>,
    /// Where the server is at home at first.
    pub backend: Backend,
    pub region_max_mb: u32,
    /// What is asked for, with its weight, of a server like this.
    pub chances: fn(&Known) -> Vec<(Ask, u32)>,
}

/// A job under way.
pub struct Asked {
    pub ask: Ask,
    pub job: JobId,
    /// The backup to restore.
    pub chosen: Option<String>,
}

impl Scene {
    pub async fn create(&self) {
        let new = NewServer {
            name: "world".into(),
            game: "toy".into(),
            backend: Some(self.backend.word().into()),
            ..NewServer::default()
        };
        self.stage.program.app.create(&self.stage.caller, new).await.unwrap();
    }

    pub async fn server(&self) -> Server {
        let found = self.stage.program.store.server_by_name(&self.stage.caller.guild, "world").await.unwrap();
        found.expect("the server is on record")
    }

    /// Kills until it is enough, and says what the server must be afterwards.
    pub async fn rounds(&self, chaos: Chaos) -> Known {
        let began = Instant::now();
        self.create().await;
        let mut known = Known::new(self.backend);
        let mut struck = Struck::default();
        let mut asks = BTreeMap::<Ask, usize>::new();
        for round in 1.. {
            if struck.kills >= chaos.kills {
                break;
            }
            let mut random = chaos.random(round);
            let mut binary = self.start();
            if known.running {
                self.play(&mut known.world, &mut random).await;
            }
            let ask = self.choose(&known, &mut random).await;
            *asks.entry(ask).or_default() += 1;
            let failures = self.clouds.iter().flat_map(|_| failures(&mut random)).collect::<Vec<_>>();
            let requests = self.clouds.as_ref().map_or(0, |clouds| clouds.requests().len());
            for failure in &failures {
                self.clouds.iter().for_each(|clouds| clouds.fail(failure.clone()));
            }
            let asked = self.asked(ask, &known, &mut random).await;
            let plan: Vec<Step> = self.job(asked.job).await.0.steps.iter().map(|record| record.step).collect();
            let mut moments = vec![moment(&plan, &mut random)];
            // A start is called off after the first.
            for _ in 0..random.random_range(usize::from(ask == Ask::CancelledStart)..3) {
                moments.push(Moment::Events(random.random_range(1..6), soon(&mut random)));
            }
            let about = format!("seed {}, round {round}, {ask:?}, {moments:?}, {failures:?}", chaos.seed);
            let since = Instant::now();
            binary = self.interrupt(binary, &asked, moments, requests, &mut struck).await;
            let end = self.stage.end_of(asked.job).await;
            let doings = std::mem::take(&mut struck.doings);
            println!("{about}: {doings:?}, {:?} after {} s", end.outcome, since.elapsed().as_secs());
            self.clouds.iter().for_each(Clouds::heal);
            binary.kill();
            let before = known.clone();
            assert!(known.ended(&asked, end.outcome), "{about}: {end:#?}");
            self.check_vault(&about, &asked, &before, &mut known).await;
            if ask == Ask::Delete {
                self.check_deleted(&about, &asked).await;
                self.create().await;
                known = Known { graves: known.graves, ..Known::new(self.backend) };
            }
            self.check(&about, &asked, &before, &known).await;
        }
        println!(
            "{} kills in {} s, {} of them when the job had ended already; {} turns; {asks:?}",
            struck.kills,
            began.elapsed().as_secs(),
            struck.missed,
            known.world.turns
        );
        known
    }

    fn start(&self) -> Binary {
        Binary::start(&self.stage, &self.environment)
    }

    async fn choose(&self, known: &Known, random: &mut StdRng) -> Ask {
        let server = self.server().await;
        let possible = |ask: &Ask| match ask {
            Ask::Restore => !known.backups.is_empty(),
            Ask::Update | Ask::UpdateAtStart => server.owned.drive.is_some() || server.owned.host.is_some(),
            // What was never played has nothing to lose.
            Ask::Delete | Ask::Move => known.world.turns > 0,
            Ask::Start | Ask::CancelledStart | Ask::Stop | Ask::Restart | Ask::Backup => true,
        };
        let chances: Vec<_> = (self.chances)(known).into_iter().filter(|(ask, _)| possible(ask)).collect();
        chances.choose_weighted(random, |(_, weight)| *weight).expect("something can be asked for").0
    }

    /// The worlds grow and shrink at random, so a start may ask about one; whoever plays here wants what was played last.
    async fn started(&self) -> Answer<JobId> {
        let (app, caller, name) = (&self.stage.program.app, &self.stage.caller, "world");
        match app.doubted_start(caller, name).await? {
            Some(doubted) => app.start_with(caller, name, &BackupId(doubted.backup.id), None).await,
            None => app.start(caller, name, None).await,
        }
    }

    async fn asked(&self, ask: Ask, known: &Known, random: &mut StdRng) -> Asked {
        let (app, caller, name) = (&self.stage.program.app, &self.stage.caller, "world");
        if matches!(ask, Ask::Update | Ask::UpdateAtStart) && known.backend == Backend::Docker {
            let view = app.status(caller, name).await.unwrap();
            if view.newer_snapshot.is_none() {
                self.stage.succeeds(app.snapshot_build(caller, "toy", None).await.unwrap()).await;
            }
        }
        let mut chosen = None;
        let answer = match ask {
            Ask::Start | Ask::CancelledStart => self.started().await,
            Ask::Stop => app.stop(caller, name, None).await,
            Ask::Restart => app.restart(caller, name, None).await,
            Ask::Backup => app.backup(caller, name, None).await,
            Ask::Restore => {
                let kept: Vec<String> = self.kept().await.into_iter().map(|backup| backup.id.to_string()).collect();
                let older = kept.len() - usize::from(kept.len() > 1);
                let backup = kept[..older].choose(random).expect("there are backups");
                println!("restoring {backup} of {kept:?}");
                chosen = Some(backup.clone());
                app.restore(caller, name, backup, None).await
            }
            Ask::Update => {
                app.update(caller, name, UpdateWhen::Now, None).await.map(|job| job.expect("it begins at once"))
            }
            Ask::UpdateAtStart => {
                app.update(caller, name, UpdateWhen::NextStart, None).await.unwrap();
                match known.running {
                    true => app.restart(caller, name, None).await,
                    false => self.started().await,
                }
            }
            Ask::Delete => app.delete(caller, name, name, None).await,
            Ask::Move => app.move_to(caller, name, other(known.backend), None).await.map(|(job, _)| job),
        };
        Asked { ask, job: answer.unwrap_or_else(|refusal| panic!("{ask:?}: {refusal}")), chosen }
    }

    /// Kills the binary at these moments, as long as the job is under way.
    async fn interrupt(
        &self,
        mut binary: Binary,
        asked: &Asked,
        moments: Vec<Moment>,
        requests: usize,
        struck: &mut Struck,
    ) -> Binary {
        for (nth, moment) in moments.into_iter().enumerate() {
            if nth == 1 && asked.ask == Ask::CancelledStart {
                match self.stage.program.app.choose(&self.stage.caller, "world", Choice::Cancel).await {
                    Ok(said) => println!("{said}"),
                    // The start has ended meanwhile, and then it holds.
                    Err(refusal) => println!("not called off: {refusal}"),
                }
            }
            let missed = struck.missed;
            binary = self.strike(binary, asked, moment, requests, struck).await;
            if struck.missed > missed {
                break;
            }
        }
        binary
    }

    /// Kills the binary at this moment, and starts it again.
    async fn strike(
        &self,
        binary: Binary,
        asked: &Asked,
        moment: Moment,
        requests: usize,
        struck: &mut Struck,
    ) -> Binary {
        let found = self.reach(asked.job, moment, requests).await;
        binary.kill();
        struck.kills += 1;
        struck.missed += usize::from(found.is_none());
        struck.doings.push(found.unwrap_or_else(|| "nothing any more".to_owned()));
        self.start()
    }

    async fn job(&self, id: JobId) -> (Job, Option<Outcome>) {
        let (job, outcome, _) = self.stage.program.store.job(id).await.unwrap().expect("the job is on record");
        (job, outcome)
    }

    /// Waits for a moment, and says what the job was doing then; `None` where it has ended.
    async fn reach(&self, id: JobId, moment: Moment, requests: usize) -> Option<String> {
        let first = self.job(id).await.0.seq;
        let deadline = Instant::now() + MOMENT_LIMIT;
        loop {
            let (job, outcome) = self.job(id).await;
            if outcome.is_some() {
                return None;
            }
            let wait = match moment {
                Moment::Events(events, wait) => (job.seq >= first + events).then_some(wait),
                Moment::In(step, wait) => job.has_begun(step).then_some(wait),
                Moment::Request(method, wait) => self.has_asked(method, requests).then_some(wait),
            };
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                let (job, outcome) = self.job(id).await;
                return outcome.is_none().then(|| doing(&job));
            }
            if Instant::now() > deadline {
                return Some(doing(&job));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn has_asked(&self, method: &str, before: usize) -> bool {
        let about_hosts = |path: &str| ["/instances", "/servers", "/droplets"].iter().any(|part| path.contains(part));
        let requests = self.clouds.iter().flat_map(|clouds| clouds.requests().into_iter().skip(before));
        requests.into_iter().any(|one| one.method == method && about_hosts(&one.path))
    }
}

#[derive(Default)]
struct Struck {
    kills: usize,
    /// Kills when the job had ended already.
    missed: usize,
    /// What the job was doing at the kills of this round.
    doings: Vec<String>,
}

/// More often a few milliseconds than many: steps that change what is on the disk take no longer.
fn soon(random: &mut StdRng) -> Duration {
    SOON.mul_f64(random.random::<f64>().powi(3))
}

/// Half of the moments lie in a step of the plan or at a request that makes or destroys a host, the others anywhere.
fn moment(plan: &[Step], random: &mut StdRng) -> Moment {
    let soon = soon(random);
    // A server that is off in the cloud moves by a line on record.
    let Some(step) = plan.choose(random).copied() else { return Moment::Events(0, soon) };
    let methods = [(Step::CreateHost, "POST"), (Step::DestroyHost, "DELETE")];
    let request = methods.iter().find(|(step, _)| plan.contains(step));
    let events = random.random_range(0..STEP_EVENTS * plan.len()) as i64;
    match (random.random_range(0..4), request) {
        (0, Some((_, method))) => Moment::Request(method, soon / 4),
        (0 | 1, _) => Moment::In(step, soon),
        (_, _) => Moment::Events(events, soon),
    }
}

/// How the provider misbehaves during a round: never so often that a job may give up.
fn failures(random: &mut StdRng) -> Vec<Failure> {
    let slow = Duration::from_millis(random.random_range(200..3000));
    // The one who asked is dead by then, and the next has looked whether there is a host.
    let late = Duration::from_secs(14);
    let some = Some(random.random_range(1..=2));
    let any = [
        Failure::drop_after().on("POST", HOSTS),
        Failure::drop_after().on("DELETE", HOSTS),
        Failure::drop_before().on("POST", HOSTS),
        Failure::drop_before().on("GET", HOSTS).times(some),
        Failure::slow(slow).on("POST", HOSTS),
        Failure::slow(late).on("POST", HOSTS),
        Failure::slow(slow).on("DELETE", HOSTS),
        Failure::status(500).times(some),
        Failure::status(503).on("DELETE", HOSTS).times(some),
        Failure::status(429).header("Retry-After", "1").times(some),
        Failure::half_delete(Some(2)),
    ];
    let count = random.random_range(0..3);
    any.sample(random, count).cloned().collect()
}

/// Where a job is, for the record of a run.
fn doing(job: &Job) -> String {
    match job.current() {
        Some(record) => format!("{:?} {:?} try {}", record.step, record.state, record.attempts),
        None => "between two steps".to_owned(),
    }
}
