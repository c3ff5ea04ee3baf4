//! The engine's promises, each tried at every place where it could break: a scripted driver over an outside world
//! that survives the engine, and a journal that can crash around any write.

#[path = "engine/builds.rs"]
mod builds;
mod common;
#[path = "engine/evenings.rs"]
mod evenings;
#[path = "engine/money.rs"]
mod money;
#[path = "engine/moving.rs"]
mod moving;
#[path = "engine/people.rs"]
mod people;
#[path = "engine/restoring.rs"]
mod restoring;
#[path = "engine/stored.rs"]
mod stored;
#[path = "engine/sweeping.rs"]
mod sweeping;
#[path = "engine/waiting.rs"]
mod waiting;
#[path = "engine/watching.rs"]
mod watching;

use common::{Crashing, Memory, When};
use spawnpoint::bus::Bus;
use spawnpoint::drivers::fake::{Fake, Kind, Outside, Way};
use spawnpoint::engine::run::CLAIM_MS;
use spawnpoint::engine::{Ask, Clock, Defaults, Driver, Engine, Journal};
use spawnpoint::model::access::Actor;
use spawnpoint::model::job::{Action, Cause, Event, Outcome, Step};
use spawnpoint::model::lease::Rules;
use spawnpoint::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use spawnpoint::model::world::BackupId;
use spawnpoint::model::{GuildId, JobId, MINUTE_MS, Ms, ServerId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

const RULES: Rules = Rules { idle_ms: 15 * MINUTE_MS, never_joined_ms: 30 * MINUTE_MS, lease_ms: 240 * MINUTE_MS };

/// One server, its outside world and its journal. Engines come and go.
struct Scene {
    memory: Memory,
    outside: Outside,
    id: ServerId,
    /// Every engine starts when the claims of the one before have run out.
    base: std::cell::Cell<Ms>,
}

fn fresh_server(id: &str, backend: Backend) -> Server {
    Server {
        id: ServerId(id.into()),
        guild: GuildId("1".into()),
        name: ServerName::parse(id).unwrap(),
        game: "openttd".into(),
        backend,
        settings: BTreeMap::new(),
        limits: Limits::default(),
        place: Default::default(),
        wanted: Wanted::Off,
        owned: Owned::default(),
        lease_until: None,
        update_at_start: false,
        channel: None,
        created_at: 0,
        deleted_at: None,
    }
}

fn engine_over(outside: &Outside, journal: Arc<dyn Journal>, clock: Clock, bus: Bus) -> Engine {
    let fake: Arc<dyn Driver> = Arc::new(Fake::new(outside.clone()));
    let drivers = HashMap::from(Backend::ALL.map(|backend| (backend, fake.clone())));
    let defaults = Defaults { rules: RULES, watch_every: Duration::from_secs(30) };
    Engine::new(journal, drivers, bus, clock, defaults)
}

impl Scene {
    fn new(backend: Backend) -> Scene {
        let server = fresh_server("s1", backend);
        let id = server.id.clone();
        let memory = Memory::default();
        memory.get().servers.insert(id.clone(), server);
        Scene { memory, outside: Outside::default(), id, base: std::cell::Cell::new(0) }
    }

    fn engine_on(&self, journal: Arc<dyn Journal>) -> Engine {
        self.base.set(self.base.get() + 10 * MINUTE_MS);
        self.engine_with(journal, Clock::test(self.base.get()))
    }

    fn engine_heard(&self, bus: Bus) -> Engine {
        engine_over(&self.outside, Arc::new(self.memory.clone()), Clock::test(self.base.get() + 10 * MINUTE_MS), bus)
    }

    fn engine_with(&self, journal: Arc<dyn Journal>, clock: Clock) -> Engine {
        engine_over(&self.outside, journal, clock, Bus::default())
    }

    fn engine(&self) -> Engine {
        self.engine_on(Arc::new(self.memory.clone()))
    }

    fn server(&self) -> Server {
        self.memory.server_now(&self.id)
    }

    async fn ask(&self, action: Action) -> JobId {
        let ask = Ask { action, cause: Cause::Asked, actor: Actor::Operator, channel: None };
        self.engine().ask(&self.server(), ask).await.unwrap()
    }

    async fn drive(&self, id: JobId) -> Outcome {
        self.engine().drive(id).await.unwrap().expect("nobody else has it")
    }

    async fn done(&self, action: Action) {
        let id = self.ask(action).await;
        assert_eq!(self.drive(id).await, Outcome::Succeeded, "{}", self.memory.job(id));
    }

    fn check(&self, what: &str) {
        let violations = self.outside.get().violations.clone();
        assert!(violations.is_empty(), "{what}: {violations:?}");
    }

    /// All that should be the same in the end, however one got there.
    fn end(&self, id: JobId) -> String {
        let server = self.server();
        let job = self.memory.job(id);
        let outcome = self.memory.get().jobs[id.0 as usize - 1].outcome;
        format!(
            "{outcome:?} {:?} {:?} owned {:?} lease {} deleted {}\n{job}\n{}",
            server.backend,
            server.wanted,
            server.owned,
            server.lease_until.is_some(),
            server.deleted_at.is_some(),
            self.outside.picture()
        )
    }
}

#[derive(Clone, Copy, Debug)]
enum Tale {
    FirstStart,
    Start,
    Stop,
    Restart,
    Backup,
    RestoreRunning,
    RestoreOffline,
    UpdateRunning,
    UpdateOffline,
    Delete,
    MoveRunning,
    MoveOffline,
    MoveFallen,
    StartAfterCrash,
}

const TALES: [Tale; 14] = [
    Tale::FirstStart,
    Tale::Start,
    Tale::Stop,
    Tale::Restart,
    Tale::Backup,
    Tale::RestoreRunning,
    Tale::RestoreOffline,
    Tale::UpdateRunning,
    Tale::UpdateOffline,
    Tale::Delete,
    Tale::MoveRunning,
    Tale::MoveOffline,
    Tale::MoveFallen,
    Tale::StartAfterCrash,
];

/// What happened before the job that a tale is about.
enum Before {
    Job(Action),
    Played,
    Crashed,
}

fn told(tale: Tale, backend: Backend) -> (Vec<Before>, Action) {
    let evening = || vec![Before::Job(Action::Start), Before::Played];
    let second = || [evening(), vec![Before::Job(Action::Stop)], evening()].into_iter().flatten().collect::<Vec<_>>();
    let offline = || [second(), vec![Before::Job(Action::Stop)]].into_iter().flatten().collect();
    let restore = Action::Restore { backup: BackupId("backup-2".into()) };
    match tale {
        Tale::FirstStart => (vec![], Action::Start),
        Tale::Start => ([evening(), vec![Before::Job(Action::Stop)]].into_iter().flatten().collect(), Action::Start),
        Tale::Stop => (second(), Action::Stop),
        Tale::Restart => (second(), Action::Restart),
        Tale::Backup => (second(), Action::Backup),
        Tale::RestoreRunning => (second(), restore),
        Tale::RestoreOffline => (offline(), restore),
        Tale::UpdateRunning => (second(), Action::Update),
        Tale::UpdateOffline => (offline(), Action::Update),
        Tale::Delete => (second(), Action::Delete),
        Tale::MoveRunning => (second(), Action::Move { to: other(backend) }),
        Tale::MoveOffline => (offline(), Action::Move { to: other(backend) }),
        // What was played since the last backup is where it fell, and nowhere else.
        Tale::MoveFallen => {
            ([second(), vec![Before::Crashed]].into_iter().flatten().collect(), Action::Move { to: other(backend) })
        }
        Tale::StartAfterCrash => ([second(), vec![Before::Crashed]].into_iter().flatten().collect(), Action::Start),
    }
}

fn other(backend: Backend) -> Backend {
    match backend {
        Backend::Docker => Backend::Cloud,
        Backend::Cloud => Backend::Docker,
    }
}

/// Plays a tale up to the job that it is about.
async fn open(backend: Backend, tale: Tale) -> (Scene, JobId) {
    let scene = Scene::new(backend);
    let (before, action) = told(tale, backend);
    for before in before {
        match before {
            Before::Job(action) => scene.done(action).await,
            Before::Played => scene.outside.play(&scene.id),
            Before::Crashed => scene.outside.crash_game(&scene.id, 139),
        }
    }
    let id = scene.ask(action).await;
    (scene, id)
}

/// Crashes around every write of a job, prepared by `prepare`, and holds the end against an undisturbed run.
async fn crash_everywhere(backend: Backend, tale: Tale, prepare: impl Fn(&Scene)) {
    let (calm, id) = open(backend, tale).await;
    prepare(&calm);
    calm.drive(id).await;
    calm.check(&format!("{backend:?} {tale:?}"));
    let expected = calm.end(id);
    for at in 0.. {
        let mut crashed = false;
        for when in [When::Before, When::After] {
            let (scene, id) = open(backend, tale).await;
            prepare(&scene);
            let journal = Crashing { journal: scene.memory.clone(), at, when, writes: Arc::default() };
            crashed |= scene.engine_on(Arc::new(journal)).drive(id).await.is_err();
            let outcome = scene.memory.get().jobs[id.0 as usize - 1].outcome;
            if outcome.is_none() {
                scene.drive(id).await;
            }
            let what = format!("{backend:?} {tale:?}, crash {when:?} write {at}");
            scene.check(&what);
            assert_eq!(scene.end(id), expected, "{what}");
        }
        if !crashed {
            return;
        }
    }
}

#[tokio::test]
async fn a_crash_around_any_write_changes_nothing_in_the_end() {
    for backend in Backend::ALL {
        for tale in TALES {
            crash_everywhere(backend, tale, |_| {}).await;
        }
    }
}

#[tokio::test]
async fn a_crash_around_any_write_of_a_failing_start_changes_nothing_in_the_end() {
    for backend in Backend::ALL {
        for tale in [Tale::FirstStart, Tale::Start] {
            crash_everywhere(backend, tale, |scene| scene.outside.fault(Way::Run, Step::AwaitReady, Kind::After, 9))
                .await;
        }
    }
}

#[tokio::test]
async fn every_step_and_every_undo_may_run_twice() {
    for backend in Backend::ALL {
        for tale in TALES {
            for fails in [false, true] {
                let mut ends = vec![];
                for twice in [false, true] {
                    let (scene, id) = open(backend, tale).await;
                    scene.outside.get().twice = twice;
                    if fails {
                        scene.outside.fault(Way::Run, Step::AwaitReady, Kind::After, 1);
                        scene.outside.fault(Way::Run, Step::KeepBackup, Kind::After, 1);
                    }
                    scene.drive(id).await;
                    scene.check(&format!("{backend:?} {tale:?} twice {twice}"));
                    ends.push(scene.end(id));
                }
                assert_eq!(ends[0], ends[1], "{backend:?} {tale:?}");
            }
        }
    }
}

/// Every step of every tale, broken in every way: nothing is lost, a failed saving job waits, and goes on when told.
#[tokio::test]
async fn a_step_that_breaks_anywhere_loses_nothing() {
    for backend in Backend::ALL {
        for tale in TALES {
            let (calm, id) = open(backend, tale).await;
            let steps: Vec<Step> = calm.memory.job(id).steps.iter().map(|record| record.step).collect();
            calm.drive(id).await;
            let expected = calm.end(id);
            for step in steps {
                for kind in [Kind::Before, Kind::Half, Kind::After, Kind::Hang, Kind::HangAfter, Kind::Panic] {
                    let what = format!("{backend:?} {tale:?}: {step:?} {kind:?}");
                    let (scene, id) = open(backend, tale).await;
                    let places = scene.outside.get().hosts.len();
                    scene.outside.fault(Way::Run, step, kind, 1);
                    scene.outside.get().limits.insert(step.label().to_owned(), Duration::from_millis(3));
                    let outcome = scene.drive(id).await;
                    scene.check(&what);
                    match outcome {
                        Outcome::Held => {
                            scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
                            assert_eq!(scene.drive(id).await, Outcome::Succeeded, "{what}: {}", scene.memory.job(id));
                            assert_eq!(scene.end(id), expected, "{what}");
                        }
                        Outcome::Failed => {
                            let saves = [Step::StopGame, Step::PullWorld, Step::VerifyWorld, Step::KeepBackup];
                            let takes =
                                [Step::RemoveContainer, Step::DestroyHost, Step::ReplaceDrive, Step::DeleteDrive];
                            let holds = saves.contains(&step) || takes.contains(&step);
                            assert!(!holds || matches!(tale, Tale::Backup), "{what}: not held");
                            assert!(scene.outside.get().hosts.len() <= places, "{what}: a host is left");
                            assert!(scene.outside.get().quiet.is_empty(), "{what}: saving is off");
                        }
                        // Players who cannot be told hold no stop.
                        Outcome::Succeeded if step == Step::WarnPlayers => {
                            assert_eq!(scene.end(id), expected, "{what}");
                        }
                        Outcome::Succeeded | Outcome::Cancelled | Outcome::Abandoned => panic!("{what}: {outcome:?}"),
                    }
                    scene.check(&what);
                    // Whatever happened, it can be started again, on the present world.
                    scene.outside.get().faults.clear();
                    let server = scene.server();
                    if server.deleted_at.is_none() && !scene.outside.is_running(&scene.id) {
                        scene.done(Action::Start).await;
                        scene.check(&what);
                    }
                }
            }
        }
    }
}

/// A cancel in the middle or at the end of every step is obeyed, or the job ends as if nobody had asked.
#[tokio::test]
async fn a_cancel_anywhere_is_obeyed_or_comes_too_late() {
    for backend in Backend::ALL {
        for tale in TALES {
            let (calm, id) = open(backend, tale).await;
            let steps: Vec<Step> = calm.memory.job(id).steps.iter().map(|record| record.step).collect();
            for step in steps {
                for kind in [Kind::CancelAndHang, Kind::CancelAndEnd] {
                    let what = format!("{backend:?} {tale:?}: {step:?} {kind:?}");
                    let (scene, id) = open(backend, tale).await;
                    scene.outside.fault(Way::Run, step, kind, 1);
                    scene.outside.get().limits.insert(step.label().to_owned(), Duration::from_millis(20));
                    let mut outcome = scene.drive(id).await;
                    scene.check(&what);
                    if outcome == Outcome::Held {
                        // Too late to cancel: the step ran into its limit. A retry goes on to the end.
                        assert!(kind == Kind::CancelAndHang && step != Step::WarnPlayers, "{what}");
                        scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
                        outcome = scene.drive(id).await;
                        assert_eq!(outcome, Outcome::Succeeded, "{what}: {}", scene.memory.job(id));
                    }
                    assert!(matches!(outcome, Outcome::Cancelled | Outcome::Succeeded), "{what}: {outcome:?}");
                    scene.check(&what);
                }
            }
        }
    }
}

/// Another engine has the job: this one waits for its turn and does not ask the store without a pause.
#[tokio::test]
async fn an_engine_that_may_not_work_on_a_job_does_not_spin() {
    let (scene, id) = open(Backend::Docker, Tale::FirstStart).await;
    // When the engine begins.
    let now = scene.base.get() + 10 * MINUTE_MS;
    assert!(scene.memory.claim(id, "another", now, now + CLAIM_MS).await.unwrap());
    let before = scene.memory.get().reads;
    let engine = scene.engine();
    let stop = tokio_util::sync::CancellationToken::new();
    let run = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(stop).await }
    });
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    run.await.unwrap();
    let reads = scene.memory.get().reads - before;
    assert!((1..5).contains(&reads), "it read the open jobs {reads} times");
}

#[tokio::test]
async fn an_engine_that_stops_gives_its_jobs_back_at_once() {
    let (scene, id) = open(Backend::Docker, Tale::FirstStart).await;
    scene.outside.fault(Way::Run, Step::StartGame, Kind::HangAfter, 1);
    let engine = scene.engine();
    let stop = tokio_util::sync::CancellationToken::new();
    let run = tokio::spawn({
        let stop = stop.clone();
        async move { engine.run(stop).await }
    });
    while !scene.outside.is_running(&scene.id) {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    run.await.unwrap();
    let now = scene.base.get();
    assert!(scene.memory.claim(id, "the next", now, now + 1).await.unwrap());
    scene.check("stopped in the middle");
}

#[tokio::test]
async fn two_engines_on_one_journal_never_do_one_step_at_once() {
    for backend in Backend::ALL {
        for tale in TALES {
            let (scene, id) = open(backend, tale).await;
            let one = scene.engine();
            // By the same clock: the claim of the one binds the other.
            scene.base.set(scene.base.get() - 10 * MINUTE_MS);
            let two = scene.engine();
            let (one, two) = tokio::join!(one.drive(id), two.drive(id));
            let outcomes = [one.unwrap(), two.unwrap()];
            assert!(outcomes.contains(&Some(Outcome::Succeeded)), "{backend:?} {tale:?}: {outcomes:?}");
            scene.check(&format!("{backend:?} {tale:?}"));
        }
    }
}

#[tokio::test]
async fn a_server_has_one_open_job() {
    let (scene, _) = open(Backend::Docker, Tale::Stop).await;
    let ask = Ask { action: Action::Start, cause: Cause::Asked, actor: Actor::Operator, channel: None };
    let refused = scene.engine().ask(&scene.server(), ask).await;
    assert!(matches!(refused, Err(spawnpoint::engine::OpenError::Busy(busy)) if busy.action == Action::Stop));
}

#[test]
fn a_secret_that_begins_another_one_hides_both() {
    for secrets in [["hunter", "hunter2-long"], ["hunter2-long", "hunter"]] {
        let masked = spawnpoint::engine::mask("login hunter2-long, then hunter", &secrets.map(str::to_owned));
        assert_eq!(masked, "login ••••, then ••••");
    }
}
