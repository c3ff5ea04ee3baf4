//! `kill -9` of the real binary in the middle of jobs on rented hosts, again and again, while the provider misbehaves as
//! well: no host without a server, no server stuck, every world byte for byte. The hosts are real and outlive every
//! kill; so does the provider, which is not real.
//!
//! `SPAWNPOINT_CHAOS_PROVIDER` chooses the provider; without it the seed does.

mod common {
    pub mod beds;
    pub mod binary;
    pub mod cloud;
    pub mod stage;
}

use common::beds::{evening, nothing_left, rent_at};
use common::binary::{Binary, Chaos};
use common::cloud::{Clouds, Failure, Options};
use common::stage::{Stage, docker_or_skip};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use spawnpoint::app::Choice;
use spawnpoint::model::JobId;
use spawnpoint::model::job::{Job, Outcome, Step};
use spawnpoint::model::server::{Server, State};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

const KILLS_USUAL: usize = 3;
const PROVIDERS: [&str; 4] = ["digitalocean", "hetzner", "linode", "vultr"];
/// How often it is looked whether the moment of a kill has come.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// No moment is waited for longer: the job may be held, or wait for a provider that fails.
const MOMENT_LIMIT: Duration = Duration::from_secs(120);
/// Enough for a push or a pull to take a moment.
const REGION_MAX_MB: u32 = 24;
/// Where hosts are made and destroyed, in the four providers' own words.
const HOSTS: &str = "/(instances|servers|droplets)";
/// Every file of the toy's world with its hash, seen from the game's folder.
const LIST: &str =
    r#"cd "$1" && find world settings/keep.txt -type f ! -name '*.tmp' -exec sha256sum {} + 2>/dev/null | sort -k 2"#;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Start,
    /// Called off in the middle: what was rented for it goes.
    CancelledStart,
    Stop,
    Restart,
    Backup,
}

/// When the binary is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So many events later.
    Events(i64),
    /// So long after this step has begun, or is undone.
    In(Step, Duration),
    /// So long after the provider has got a request to make a host or to destroy one, with whatever comes of it.
    Request(&'static str, Duration),
}

/// What the game is known to have saved.
#[derive(Default)]
struct World {
    turns: usize,
    files: BTreeMap<String, String>,
}

struct Scene {
    stage: Stage,
    clouds: Clouds,
    account: Vec<(String, String)>,
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_no_host_without_a_server_and_no_world_lost() {
    if !docker_or_skip().await {
        return;
    }
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let chaos = Chaos::asked(KILLS_USUAL);
    let named = std::env::var("SPAWNPOINT_CHAOS_PROVIDER").ok();
    let provider = PROVIDERS.choose(&mut chaos.random(0)).expect("there are some");
    let provider = named.as_deref().unwrap_or(provider).to_owned();
    println!("SPAWNPOINT_CHAOS_PROVIDER={provider}");
    let option = |name: &str| format!("SPAWNPOINT_CLOUD__{}__{name}", provider.to_uppercase());
    let account = vec![
        ("SPAWNPOINT_DOCKER__ENABLED".to_owned(), "false".to_owned()),
        (option("TOKEN"), "a-token".to_owned()),
        (option("API_URL"), clouds.url(&provider)),
    ];
    // The stage only writes what people ask for, and types into the console; the binary does all the work.
    let stage = Stage::open_idle("tests/recipes", |config| rent_at(config, &clouds, &provider)).await;
    stage.create("world", "toy", &[]).await;
    let scene = Scene { stage, clouds, account };

    let mut world = World::default();
    let mut running = false;
    let (mut kills, mut missed) = (0, 0);
    for round in 1.. {
        if kills >= chaos.kills {
            break;
        }
        let mut random = chaos.random(round);
        let mut binary = Binary::start(&scene.stage, &scene.account);
        if running {
            scene.play(&mut world, &mut random).await;
        }
        let ask = match (running, random.random_range(0..10)) {
            (false, 0..8) => Ask::Start,
            (false, _) => Ask::CancelledStart,
            (true, 0..7) => Ask::Stop,
            (true, 7) => Ask::Restart,
            (true, _) => Ask::Backup,
        };
        let mut moments = vec![moment(ask, &mut random)];
        for _ in 0..random.random_range(0..3) {
            moments.push(Moment::Events(random.random_range(1..8)));
        }
        let failures = failures(&mut random);
        for failure in &failures {
            scene.clouds.fail(failure.clone());
        }
        let about = format!("seed {}, round {round}, {ask:?}, {moments:?}, {failures:?}", chaos.seed);
        let began = Instant::now();
        let requests = scene.clouds.requests().len();
        let job = scene.asked(ask).await;
        let mut struck = vec![];
        for moment in moments {
            let found = scene.reach(job, moment, requests).await;
            binary.kill();
            kills += 1;
            missed += usize::from(found.is_none());
            struck.push(found.unwrap_or_else(|| "nothing any more".to_owned()));
            binary = Binary::start(&scene.stage, &scene.account);
        }
        if matches!(ask, Ask::CancelledStart) {
            match scene.stage.program.app.choose(&scene.stage.caller, "world", Choice::Cancel).await {
                Ok(said) => println!("{said}"),
                // The start has ended meanwhile, and then it holds.
                Err(refusal) => println!("not called off: {refusal}"),
            }
            let found = scene.reach(job, Moment::Events(random.random_range(1..4)), requests).await;
            binary.kill();
            kills += 1;
            missed += usize::from(found.is_none());
            struck.push(found.unwrap_or_else(|| "nothing any more".to_owned()));
            binary = Binary::start(&scene.stage, &scene.account);
        }
        let end = scene.stage.end_of(job).await;
        println!("{about}: {struck:?}, {:?} after {} s", end.outcome, began.elapsed().as_secs());
        scene.clouds.heal();
        binary.kill();
        running = match (ask, end.outcome) {
            (Ask::Stop, Some(Outcome::Succeeded)) => false,
            (Ask::CancelledStart, Some(Outcome::Cancelled)) => false,
            (Ask::Start | Ask::CancelledStart | Ask::Restart | Ask::Backup, Some(Outcome::Succeeded)) => true,
            (_, _) => panic!("{about}: {end:#?}"),
        };
        scene.check(&about, running, matches!(ask, Ask::Start | Ask::Restart), &world).await;
        if matches!(ask, Ask::Stop | Ask::Restart | Ask::Backup) {
            scene.check_backup(&about, &world).await;
        }
    }
    println!("{kills} kills, {missed} of them when the job had ended already; {} turns", world.turns);

    let Scene { stage, clouds, .. } = scene;
    let stage = stage.work_now();
    if running {
        stage.stop_server("world").await;
    }
    let scene = Scene { stage, clouds, account: vec![] };
    scene.check("at the end", false, false, &world).await;
    if world.turns > 0 {
        scene.check_backup("at the end", &world).await;
    }
    scene.stage.close().await;
    nothing_left(&scene.clouds);
}

// What a kill meets once in a thousand times, made on purpose.

#[tokio::test]
async fn a_request_that_outlived_its_sender_leaves_no_second_host() {
    let Some((clouds, stage)) = evening("digitalocean").await else { return };
    stage.create("world", "toy", &[]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let first = stage.until("a host", async || clouds.living().into_iter().next()).await;
    let tags: Vec<&str> = first.tags.iter().map(String::as_str).collect();
    let labels: Vec<_> = first.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let second = clouds.plant(&first.provider, &first.name, &tags, &labels);
    stage.succeeds(job).await;
    let living: Vec<String> = clouds.living().into_iter().map(|host| host.id).collect();
    assert_eq!(living, std::slice::from_ref(&first.id), "{second:?}");
    stage.close().await;
    nothing_left(&clouds);
}

/// A kill between the end of the host and the word of it leaves just this: a host on record that is no more.
#[tokio::test]
async fn a_start_whose_host_has_vanished_is_undone_to_nothing() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    stage
        .until("the game", async || {
            let (job, _, _) = stage.program.store.job(job).await.unwrap().unwrap();
            job.has_begun(Step::AwaitReady).then_some(())
        })
        .await;
    clouds.die(&clouds.living()[0].id, "gone");
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let server = stage.program.store.server_by_name(&stage.caller.guild, "world").await.unwrap().unwrap();
    assert_eq!(server.owned.host, None, "{end:#?}");
    nothing_left(&clouds);
    stage.close().await;
}

/// Half of the moments lie where a kill is known to hurt, the others anywhere.
fn moment(ask: Ask, random: &mut StdRng) -> Moment {
    use Step::*;
    let soon = Duration::from_millis(random.random_range(0..400));
    let steps: &[Step] = match ask {
        Ask::Start | Ask::CancelledStart => {
            &[CreateHost, AwaitHost, Bootstrap, Install, PushWorld, StartGame, AwaitReady]
        }
        Ask::Stop => &[StopGame, PullWorld, VerifyWorld, KeepBackup, DestroyHost, ConfirmGone],
        Ask::Restart => &[StopGame, PullWorld, KeepBackup, StartGame],
        Ask::Backup => &[QuiesceGame, PullWorld, VerifyWorld, ResumeSaves, KeepBackup],
    };
    let request = match ask {
        Ask::Start | Ask::CancelledStart => Some("POST"),
        Ask::Stop => Some("DELETE"),
        Ask::Restart | Ask::Backup => None,
    };
    let step = steps.choose(random).copied().expect("there are some");
    let events = random.random_range(0..12);
    match (random.random_range(0..4), request) {
        (0, Some(method)) => Moment::Request(method, soon / 4),
        (0 | 1, _) => Moment::In(step, soon),
        (_, _) => Moment::Events(events),
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

impl Scene {
    async fn server(&self) -> Server {
        let found = self.stage.program.store.server_by_name(&self.stage.caller.guild, "world").await.unwrap();
        found.expect("the server is on record")
    }

    async fn asked(&self, ask: Ask) -> JobId {
        let (app, caller) = (&self.stage.program.app, &self.stage.caller);
        let answer = match ask {
            Ask::Start | Ask::CancelledStart => app.start(caller, "world", None).await,
            Ask::Stop => app.stop(caller, "world", None).await,
            Ask::Restart => app.restart(caller, "world", None).await,
            Ask::Backup => app.backup(caller, "world", None).await,
        };
        answer.unwrap_or_else(|refusal| panic!("{ask:?}: {refusal}"))
    }

    /// Waits for a moment, and says what the job was doing then; `None` where it has ended.
    async fn reach(&self, job: JobId, moment: Moment, requests: usize) -> Option<String> {
        let load = async || self.stage.program.store.job(job).await.unwrap().expect("the job is on record");
        let first = load().await.0.seq;
        let deadline = Instant::now() + MOMENT_LIMIT;
        loop {
            let (job, outcome, _) = load().await;
            if outcome.is_some() {
                return None;
            }
            let wait = match moment {
                Moment::Events(events) => (job.seq >= first + events).then_some(Duration::ZERO),
                Moment::In(step, wait) => job.has_begun(step).then_some(wait),
                Moment::Request(method, wait) => self.has_asked(method, requests).then_some(wait),
            };
            if let Some(wait) = wait {
                tokio::time::sleep(wait).await;
                return Some(doing(&load().await.0));
            }
            if Instant::now() > deadline {
                return Some(doing(&job));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn has_asked(&self, method: &str, before: usize) -> bool {
        let about_hosts = |path: &str| ["/instances", "/servers", "/droplets"].iter().any(|part| path.contains(part));
        self.clouds.requests().iter().skip(before).any(|one| one.method == method && about_hosts(&one.path))
    }

    /// People play: turns that the game saves at once, and now and then a large part of the world is another.
    async fn play(&self, world: &mut World, random: &mut StdRng) {
        // Before its first turn the game has written nothing, and when it stops it does.
        let least = usize::from(world.turns == 0);
        for _ in 0..random.random_range(least..4) {
            let answer = self.stage.program.app.console(&self.stage.caller, "world", "turn").await.unwrap();
            world.turns += 1;
            assert!(answer.contains(&format!("turn {}", world.turns)), "{answer}");
        }
        if random.random_bool(0.6) {
            let (name, old) = (random.random_range(0..4), random.random_range(0..4));
            let megabytes = random.random_range(1..=REGION_MAX_MB);
            let region = format!(
                "cd \"$1/world\" && rm -f region-{old}.bin && head -c {megabytes}M /dev/urandom >region-{name}.bin && \
                 chown --reference=. region-{name}.bin"
            );
            self.on_host(&region).await;
        }
        world.files = listed(&self.on_host(LIST).await);
        assert!(!world.files.is_empty(), "turns were played, and nothing was saved");
    }

    /// Runs a script on the server's host, around the driver; `$1` is the game's folder.
    async fn on_host(&self, script: &str) -> String {
        let server = self.server().await;
        let host = server.owned.host.expect("the server has a host");
        let container = self.clouds.host(&host.id).container.expect("the host is a machine");
        let folder = format!("/srv/spawnpoint/{}/game", server.id);
        run(Command::new("docker").args(["exec", &container, "sh", "-c", script, "sh", &folder]))
    }

    /// The state is what was asked for, and the provider bills what the server has and nothing else.
    async fn check(&self, about: &str, running: bool, started: bool, world: &World) {
        let (app, caller) = (&self.stage.program.app, &self.stage.caller);
        let state = app.status(caller, "world").await.unwrap().state;
        assert_eq!(state, if running { State::Running } else { State::Offline }, "{about}");
        assert!(self.stage.program.store.open_jobs_all().await.unwrap().is_empty(), "{about}: a job is open");
        let host = self.server().await.owned.host;
        let living: Vec<String> = self.clouds.living().into_iter().map(|host| host.id).collect();
        let claimed: Vec<String> = host.iter().map(|host| host.id.clone()).collect();
        assert_eq!(living, claimed, "{about}: living and claimed");
        if !running {
            nothing_left(&self.clouds);
            let keys = self.stage.config.data_dir.join("ssh/hosts");
            let left: Vec<_> = std::fs::read_dir(keys).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "{about}: keys of hosts that are gone: {left:?}");
        }
        if started {
            let log = app.logs(caller, "world", 50).await.unwrap();
            assert!(log.contains(&format!("with {} turns", world.turns)), "{about}, {} turns: {log}", world.turns);
            assert_eq!(listed(&self.on_host(LIST).await), world.files, "{about}: the world on the host");
        }
    }

    /// The newest backup is the present world and has what the game had saved, byte for byte.
    async fn check_backup(&self, about: &str, world: &World) {
        let backups = self.stage.program.app.backups(&self.stage.caller, "world").await.unwrap();
        let newest = backups.first().unwrap_or_else(|| panic!("{about}: there is no backup"));
        let doubtful: Vec<_> =
            backups.iter().filter_map(|one| one.doubt.clone()).filter(|doubt| !doubt.contains("smaller")).collect();
        assert!(newest.present && doubtful.is_empty(), "{about}: {doubtful:?}, {newest:?}");
        let server = self.server().await.id;
        let files = self.stage.config.data_dir.join(format!("vault/{server}/{}/files", newest.id));
        let found = listed(&run(Command::new("sh").args(["-c", LIST, "sh"]).arg(&files)));
        assert_eq!(found, world.files, "{about}: the backup {}", newest.id);
        if world.turns > 0 {
            let turns = std::fs::read_to_string(files.join("world/turns")).unwrap();
            assert_eq!(turns.trim(), world.turns.to_string(), "{about}");
        }
    }
}

/// Where a job is, for the record of a run.
fn doing(job: &Job) -> String {
    match job.current() {
        Some(record) => format!("{:?} {:?} try {}", record.step, record.state, record.attempts),
        None => "between two steps".to_owned(),
    }
}

fn run(command: &mut Command) -> String {
    let ran = command.output().expect("it can be run");
    assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("names of ASCII")
}

fn listed(text: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.split_once("  ").map(|(hash, path)| (path.to_owned(), hash.to_owned()));
    text.lines().filter_map(pair).collect()
}
