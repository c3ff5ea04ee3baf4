//! The watcher over whole evenings, on a clock that stands still unless everybody waits.

use super::*;
use spawnpoint::drivers::fake::Game;
use spawnpoint::model::job::Job;
use spawnpoint::model::lease;
use spawnpoint::model::server::Seen;
use spawnpoint::model::view::Notice;
use tokio_util::sync::CancellationToken;

/// A server on an engine that works and watches, as the program has it.
pub struct Evening {
    pub scene: Scene,
    pub engine: Engine,
    pub clock: Clock,
    pub stop: CancellationToken,
}

impl Evening {
    pub fn new(backend: Backend) -> Evening {
        let scene = Scene::new(backend);
        let clock = Clock::test(0);
        let engine = scene.engine_with(Arc::new(scene.memory.clone()), clock.clone());
        Evening { scene, engine, clock, stop: CancellationToken::new() }
    }

    /// A server that runs, with an engine at work.
    pub async fn begun(backend: Backend) -> Evening {
        let evening = Evening::new(backend);
        evening.works();
        evening.asks(Action::Start).await;
        evening.minutes(1).await;
        assert!(evening.scene.outside.is_running(&evening.scene.id));
        evening
    }

    pub fn works(&self) {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        tokio::spawn(async move { tokio::join!(engine.run(stop.clone()), engine.watch(stop)) });
    }

    /// The program ends, and another one begins.
    pub async fn restarts(&mut self) {
        self.stop.cancel();
        self.seconds(1).await;
        self.stop = CancellationToken::new();
        self.engine = self.scene.engine_with(Arc::new(self.scene.memory.clone()), self.clock.clone());
        self.works();
    }

    pub async fn asks(&self, action: Action) -> JobId {
        let ask = Ask { action, cause: Cause::Asked, actor: Actor::Operator, channel: None };
        self.engine.ask(&self.scene.server(), ask).await.unwrap()
    }

    pub async fn minutes(&self, minutes: u64) {
        tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    }

    pub async fn seconds(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    pub fn notices(&self) -> Vec<String> {
        let rows = self.scene.memory.get();
        let line = |notice: &Notice| match notice {
            Notice::LeaseEnds { in_ms, .. } => format!("lease ends in {}", lease::spoken(*in_ms)),
            Notice::IdleStop { in_ms, .. } => format!("idle stop in {}", lease::spoken(*in_ms)),
            Notice::BudgetNear { standing, .. } => format!("{:?} budget: {}", standing.whose, standing.spoken()),
            Notice::BudgetStuck { standing, .. } => {
                format!("stuck, {:?} budget: {}", standing.whose, standing.spoken())
            }
            Notice::HostLost { lost_since, .. } => format!("host lost, with what was played since {lost_since:?}"),
            Notice::StillBills { held, standing, .. } => {
                format!(
                    "still bills{}{}",
                    if *held { ", held" } else { "" },
                    if standing.is_some() { ", spent" } else { "" }
                )
            }
            Notice::HostSilent { since, on, .. } => {
                let should = if *on { "on" } else { "off" };
                format!("should be {should}, and silent since minute {}", since / MINUTE_MS)
            }
            Notice::HostBack { host, .. } => format!("host {host} is there after all"),
            Notice::Shrunk { .. } | Notice::Orphan { .. } | Notice::Skipped { .. } => format!("{notice:?}"),
        };
        rows.notices.iter().map(line).collect()
    }

    pub fn players(&self, online: Option<u32>) {
        self.scene.outside.players(&self.scene.id, online);
    }

    pub fn crashes(&self) {
        self.scene.outside.crash_game(&self.scene.id, 139);
    }

    pub fn runs(&self) -> bool {
        self.scene.outside.is_running(&self.scene.id)
    }

    /// Every job so far, a line each.
    pub fn jobs(&self) -> Vec<String> {
        let rows = self.scene.memory.get();
        let line = |row: &common::Row| format!("{} {:?} {:?}", row.new.action.word(), row.new.cause, row.outcome);
        rows.jobs.iter().map(line).collect()
    }

    pub fn job(&self, id: JobId) -> Job {
        self.scene.memory.job(id)
    }
}

pub const DONE: &str = "Some(Succeeded)";

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_job_ended_is_not_acted_on() {
    for backend in Backend::ALL {
        for action in [Action::Start, Action::Stop] {
            let evening = Evening::new(backend);
            if action == Action::Stop {
                let id = evening.asks(Action::Start).await;
                evening.engine.drive(id).await.unwrap();
            }
            let id = evening.asks(action.clone()).await;
            evening.scene.outside.get().look_takes = Duration::from_secs(5);
            let (watched, driven) = tokio::join!(evening.engine.watch_once(), evening.engine.drive(id));
            watched.unwrap();
            assert_eq!(driven.unwrap(), Some(Outcome::Succeeded));
            assert_eq!(evening.jobs().len() as i64, id.0, "{backend:?} {action:?}: {:?}", evening.jobs());
        }
    }
}

/// The watcher has decided and looks once more for its plan, which takes five seconds from the fifth on. Meanwhile this
/// happens.
async fn overtaken(evening: &Evening, happens: impl Fn(&Evening)) {
    evening.scene.outside.get().look_takes = Duration::from_secs(5);
    let meanwhile = async {
        evening.seconds(7).await;
        happens(evening);
    };
    let (watched, ()) = tokio::join!(evening.engine.watch_once(), meanwhile);
    watched.unwrap();
    evening.scene.outside.get().look_takes = Duration::ZERO;
}

/// A server that runs; nobody watches it but the test.
async fn started(backend: Backend) -> Evening {
    let evening = Evening::new(backend);
    let id = evening.asks(Action::Start).await;
    assert_eq!(evening.engine.drive(id).await.unwrap(), Some(Outcome::Succeeded));
    evening
}

fn says(evening: &Evening, said: impl FnOnce(&mut Server)) {
    said(evening.scene.memory.get().servers.get_mut(&evening.scene.id).unwrap());
}

/// As `/server kill` does.
async fn kill(evening: &Evening) {
    says(evening, |server| server.wanted = Wanted::Off);
    let driver = evening.engine.driver(evening.scene.server().backend).unwrap();
    driver.kill(&evening.scene.server()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_extends_a_lease_while_the_watcher_looks_is_not_stopped() {
    for backend in Backend::ALL {
        let evening = started(backend).await;
        let over = evening.engine.now();
        says(&evening, |server| server.lease_until = Some(over));
        overtaken(&evening, |evening| says(evening, |server| server.lease_until = Some(over + 60 * MINUTE_MS))).await;
        assert_eq!(evening.jobs().len(), 1, "{backend:?}: {:?}", evening.jobs());
        assert_eq!(evening.scene.server().wanted, Wanted::On);
        evening.engine.watch_once().await.unwrap();
        assert_eq!(evening.jobs().len(), 1, "{backend:?}: {:?}", evening.jobs());
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_killed_while_the_watcher_looks_is_not_started_again() {
    for backend in Backend::ALL {
        let evening = started(backend).await;
        evening.crashes();
        overtaken(&evening, |evening| says(evening, |server| server.wanted = Wanted::Off)).await;
        assert_eq!(evening.jobs().len(), 1, "{backend:?}: {:?}", evening.jobs());
        assert_eq!(evening.scene.server().wanted, Wanted::Off);
    }
}

/// Whether the kill meets the game or comes before it: nobody but the watcher wanted that start.
#[tokio::test(start_paused = true)]
async fn a_kill_holds_over_a_start_after_a_crash() {
    for backend in Backend::ALL {
        for (step, kind, times) in [(Step::AwaitReady, Kind::Hang, 99), (Step::StartGame, Kind::Retry, 4)] {
            let evening = Evening::begun(backend).await;
            evening.scene.outside.play(&evening.scene.id);
            evening.scene.outside.fault(Way::Run, step, kind, times);
            evening.scene.outside.get().limits.insert(Step::AwaitReady.label().into(), Duration::from_secs(120));
            evening.crashes();
            while evening.jobs().len() < 2 {
                evening.seconds(1).await;
            }
            evening.seconds(2).await;
            kill(&evening).await;
            evening.minutes(60).await;
            let jobs = evening.jobs();
            let starts = jobs.iter().filter(|job| job.starts_with("start Crashed")).count();
            assert_eq!(starts, 1, "{backend:?} {step:?}: {jobs:?}");
            assert_eq!(evening.scene.server().wanted, Wanted::Off, "{backend:?} {step:?}: {jobs:?}");
            assert!(!evening.runs() && evening.scene.outside.get().hosts.is_empty(), "{backend:?} {step:?}: {jobs:?}");
            evening.scene.check("killed");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_backup_forgets_nothing_of_the_evening() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(2));
    evening.minutes(1).await;
    evening.players(Some(0));
    // The backup begins in the tenth minute of emptiness and lasts over several rounds.
    evening.minutes(10).await;
    evening.scene.outside.fault(Way::Run, Step::PullWorld, Kind::Hang, 1);
    evening.scene.outside.get().limits.insert(Step::PullWorld.label().into(), Duration::from_secs(120));
    evening.asks(Action::Backup).await;
    evening.minutes(6).await;
    let idle = format!("stop {:?} {DONE}", Cause::Idle { minutes: 15 });
    assert_eq!(evening.jobs()[2..], [idle], "{:?}", evening.jobs());
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_hangs_or_panics_is_unknown_and_holds_nobody_up() {
    for panics in [false, true] {
        let evening = Evening::begun(Backend::Docker).await;
        {
            let mut things = evening.scene.outside.get();
            (things.look_hangs, things.look_panics) = (!panics, panics);
        }
        let server = evening.scene.server();
        let look = evening.engine.look(&server);
        let seen = tokio::time::timeout(Duration::from_secs(60), look).await.expect("looking has a limit");
        assert!(matches!(seen, Seen::Unknown { .. }), "{seen:?}");
        evening.minutes(60).await;
        assert_eq!(evening.jobs().len(), 1, "{:?}", evening.jobs());
        // The watcher still lives: when the daemon answers again, it acts again.
        {
            let mut things = evening.scene.outside.get();
            (things.look_hangs, things.look_panics) = (false, false);
        }
        evening.crashes();
        evening.minutes(2).await;
        assert_eq!(evening.jobs().len(), 2, "{:?}", evening.jobs());
    }
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_for_a_look_share_the_next_one_and_none_gets_an_older() {
    let evening = Evening::begun(Backend::Docker).await;
    let server = evening.scene.server();
    let things = || evening.scene.outside.get();
    // All of it is between two rounds of the watcher, which looks too.
    evening.seconds(1).await;
    things().look_takes = Duration::from_millis(20);
    let before = things().looks;
    let first = async { evening.engine.look(&server).await };
    let later = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        // The first one has seen it run already, and has not said so yet.
        evening.scene.outside.crash_game(&server.id, 137);
        futures::future::join_all((0..50).map(|_| evening.engine.look(&server))).await
    };
    let (first, waited) = tokio::join!(first, later);
    assert!(matches!(first, Seen::Running { .. }), "{first:?}");
    assert_eq!(waited.len(), 50);
    assert!(waited.iter().all(|seen| matches!(seen, Seen::Stopped { exit_code: Some(137), .. })), "{waited:?}");
    assert_eq!(things().looks - before, 2, "the first, and one for all who waited");

    // Who knows something newer about the server shares with nobody who does not.
    let newer = Server { owned: Owned { container: None, ..server.owned.clone() }, ..server.clone() };
    tokio::join!(evening.engine.look(&server), evening.engine.look(&server), evening.engine.look(&newer));
    assert_eq!(things().looks - before, 5);
    // Nobody waits: everybody looks.
    evening.engine.look(&server).await;
    evening.engine.look(&server).await;
    assert_eq!(things().looks - before, 7);
}

#[tokio::test(start_paused = true)]
async fn a_start_after_a_crash_keeps_the_lease_and_does_not_renew_it() {
    let evening = Evening::begun(Backend::Docker).await;
    let until = evening.scene.server().lease_until;
    evening.players(Some(1));
    evening.minutes(60).await;
    evening.crashes();
    evening.minutes(2).await;
    evening.players(Some(1));
    assert!(evening.runs());
    assert!(until.is_some() && evening.scene.server().lease_until == until);
}

#[tokio::test(start_paused = true)]
async fn failing_starts_after_a_crash_are_bounded_and_end_with_the_world_saved() {
    for backend in Backend::ALL {
        // So long that the tries do not fall into one window.
        for limit_min in [1, 45] {
            let evening = Evening::begun(backend).await;
            evening.scene.outside.play(&evening.scene.id);
            evening
                .scene
                .outside
                .get()
                .limits
                .insert(Step::StartGame.label().into(), Duration::from_secs(60 * limit_min));
            evening.scene.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 99);
            evening.scene.memory.get().servers.get_mut(&evening.scene.id).unwrap().lease_until = None;
            evening.crashes();
            evening.minutes(12 * 60).await;
            let crashed = Cause::Crashed { exit_code: Some(139), out_of_memory: false };
            let first = format!("start {crashed:?} Some(Failed)");
            let jobs = evening.jobs();
            assert_eq!(jobs[1], first, "{jobs:?}");
            assert_eq!(jobs.len(), 5, "{jobs:?}");
            assert_eq!(jobs[4], format!("stop {:?} {DONE}", Cause::KeepsCrashing { times: 4 }), "{jobs:?}");
            assert_eq!(evening.scene.server().wanted, Wanted::Off);
            assert!(evening.scene.outside.get().hosts.is_empty());
            assert_eq!(evening.scene.outside.get().backups.len(), 1);
            evening.scene.check("crash guard");
        }
    }
}

/// A host that is paid for although its server is off is put away, with its world kept.
#[tokio::test(start_paused = true)]
async fn a_host_whose_server_is_off_is_stopped_once_its_world_is_kept() {
    let evening = Evening::begun(Backend::Cloud).await;
    evening.scene.outside.play(&evening.scene.id);
    // It crashed, somebody starts it, and that fails: the host of the first start is still there.
    evening.scene.outside.fault(Way::Run, Step::StartGame, Kind::Before, 1);
    evening.crashes();
    evening.asks(Action::Start).await;
    evening.minutes(5).await;
    assert_eq!(evening.scene.server().wanted, Wanted::Off);
    assert!(evening.scene.outside.get().hosts.is_empty(), "{:?}", evening.jobs());
    assert_eq!(evening.scene.outside.get().backups.len(), 1);
    assert_eq!(evening.jobs()[2..], [format!("stop {:?} {DONE}", Cause::ShouldBeOff)]);
    evening.scene.check("host of a failed start");
}

/// Hours without us are no crash: the game is not started again for nobody.
#[tokio::test(start_paused = true)]
async fn a_game_that_its_host_ended_unwatched_is_stopped_and_its_world_fetched() {
    let evening = Evening::begun(Backend::Cloud).await;
    evening.scene.outside.play(&evening.scene.id);
    let ended = Game { exit_code: Some(0), unwatched: true, ..Game::default() };
    evening.scene.outside.get().games.insert(evening.scene.id.clone(), ended);
    evening.minutes(2).await;
    assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::Unwatched)]);
    assert!(evening.scene.outside.get().hosts.is_empty());
    assert_eq!(evening.scene.outside.get().backups.len(), 1);
    evening.scene.check("unwatched");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_stop_is_left_alone_until_somebody_asks_again() {
    for backend in Backend::ALL {
        for step in [Step::StopGame, Step::VerifyWorld] {
            let evening = Evening::begun(backend).await;
            evening.scene.outside.play(&evening.scene.id);
            evening.scene.outside.fault(Way::Run, step, Kind::Before, 1);
            let id = evening.asks(Action::Stop).await;
            evening.minutes(1).await;
            assert_eq!(evening.job(id).rest(), Some(Outcome::Held));
            evening.scene.memory.write(id, Event::Abandoned { by: Actor::Operator }).await;
            evening.minutes(12 * 60).await;
            assert_eq!(evening.jobs().len(), 2, "{backend:?} {step:?}: {:?}", evening.jobs());
            // From here on it is watched as before.
            evening.asks(Action::Start).await;
            evening.minutes(1).await;
            evening.crashes();
            evening.minutes(2).await;
            let last = evening.jobs().pop().unwrap();
            assert!(last.starts_with("start Crashed"), "{backend:?} {step:?}: {:?}", evening.jobs());
            evening.scene.check("abandoned");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_closed_as_it_is_while_the_watcher_looks_is_left_alone() {
    for backend in Backend::ALL {
        for step in [Step::StopGame, Step::VerifyWorld] {
            let evening = started(backend).await;
            evening.scene.outside.play(&evening.scene.id);
            evening.scene.outside.fault(Way::Run, step, Kind::Before, 1);
            let id = evening.asks(Action::Stop).await;
            assert_eq!(evening.engine.drive(id).await.unwrap(), Some(Outcome::Held));
            evening.scene.outside.get().look_takes = Duration::from_secs(5);
            let meanwhile = async {
                evening.seconds(2).await;
                evening.scene.memory.write(id, Event::Abandoned { by: Actor::Operator }).await;
                evening.engine.drive(id).await.unwrap()
            };
            let (watched, closed) = tokio::join!(evening.engine.watch_once(), meanwhile);
            watched.unwrap();
            assert_eq!(closed, Some(Outcome::Abandoned));
            for _ in 0..3 {
                evening.engine.watch_once().await.unwrap();
            }
            assert_eq!(evening.jobs().len(), 2, "{backend:?} {step:?}: {:?}", evening.jobs());
        }
    }
}

/// A round of many servers takes its time, and what was open when it began may be closed when one's turn comes.
#[tokio::test(start_paused = true)]
async fn a_stop_that_is_closed_as_it_is_during_another_servers_turn_is_left_alone() {
    for backend in Backend::ALL {
        let evening = started(backend).await;
        let other = fresh_server("s2", backend);
        evening.scene.memory.get().servers.insert(other.id.clone(), other.clone());
        for action in [Action::Start, Action::Stop] {
            if action == Action::Stop {
                evening.scene.outside.play(&other.id);
                evening.scene.outside.fault(Way::Run, Step::StopGame, Kind::Before, 1);
            }
            let ask = Ask { action, cause: Cause::Asked, actor: Actor::Operator, channel: None };
            let id = evening.engine.ask(&evening.scene.memory.server_now(&other.id), ask).await.unwrap();
            evening.engine.drive(id).await.unwrap();
        }
        let stop = JobId(3);
        assert_eq!(evening.job(stop).rest(), Some(Outcome::Held));
        // The first server has crashed, and the watcher looks once more before it starts it.
        evening.crashes();
        evening.scene.outside.get().look_takes = Duration::from_secs(5);
        let meanwhile = async {
            evening.seconds(7).await;
            evening.scene.memory.write(stop, Event::Abandoned { by: Actor::Operator }).await;
            evening.engine.drive(stop).await.unwrap()
        };
        let (watched, closed) = tokio::join!(evening.engine.watch_once(), meanwhile);
        watched.unwrap();
        assert_eq!(closed, Some(Outcome::Abandoned));
        for _ in 0..3 {
            evening.engine.watch_once().await.unwrap();
        }
        let jobs = evening.jobs();
        assert!(jobs.len() == 4 && jobs[3].starts_with("start Crashed"), "{backend:?}: {jobs:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn players_who_cannot_be_told_hold_no_stop() {
    for kind in [Kind::Before, Kind::Retry, Kind::Hang, Kind::Panic] {
        let evening = Evening::begun(Backend::Docker).await;
        evening.scene.outside.fault(Way::Run, Step::WarnPlayers, kind, 99);
        let id = evening.asks(Action::Stop).await;
        evening.minutes(2).await;
        assert_eq!(evening.job(id).rest(), Some(Outcome::Succeeded), "{kind:?}: {}", evening.job(id));
        assert!(evening.job(id).record(Step::WarnPlayers).unwrap().note.is_some());
    }
}
