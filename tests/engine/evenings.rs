//! Leases, idleness, crashes and tries over whole evenings, on a clock that stands still unless everybody waits.

use super::watching::{DONE, Evening};
use super::*;
use spawnpoint::engine::OpenError;
use spawnpoint::engine::run::{ATTEMPTS_MAX, CLAIM_MS};
use spawnpoint::model::job::StepState;
use spawnpoint::model::lease;
use tokio_util::sync::CancellationToken;

fn idle() -> String {
    format!("stop {:?} {DONE}", Cause::Idle { minutes: 15 })
}

/// The lease is four hours. Each warning comes once, whichever program gives it.
#[tokio::test(start_paused = true)]
async fn a_lease_warns_three_times_and_ends_also_over_restarts_of_the_program() {
    let mut evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(3));
    for _ in 0..24 {
        evening.minutes(9).await;
        evening.restarts().await;
    }
    evening.minutes(30).await;
    let lease_ends = ["lease ends in 30 min", "lease ends in 10 min", "lease ends in 2 min"];
    let told: Vec<String> = evening.notices();
    assert_eq!(told.len(), 3, "{told:?}");
    // A round is half a minute: what is told is at most that much less.
    for (told, due) in told.iter().zip(lease_ends) {
        let early = due.replace("30 min", "29 min").replace("10 min", "9 min").replace("2 min", "1 min");
        assert!(told == due || *told == early, "{told}");
    }
    assert_eq!(evening.scene.outside.get().told.len(), 3, "players are told in the game as well");
    assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::LeaseOver)]);
    assert!(!evening.runs());
}

#[tokio::test(start_paused = true)]
async fn an_extended_lease_warns_again_and_ends_later() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(3));
    evening.minutes(239).await;
    assert_eq!(evening.notices().len(), 3, "{:?}", evening.notices());
    {
        let mut rows = evening.scene.memory.get();
        let server = rows.servers.get_mut(&evening.scene.id).unwrap();
        server.lease_until = Some(lease::extend(evening.engine.now(), server.lease_until, 15 * MINUTE_MS));
    }
    evening.minutes(13).await;
    assert!(evening.runs());
    assert_eq!(evening.notices().len(), 4, "{:?}", evening.notices());
    evening.minutes(3).await;
    assert_eq!(evening.notices().len(), 5, "{:?}", evening.notices());
    assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::LeaseOver)]);
}

#[tokio::test(start_paused = true)]
async fn idle_time_begins_anew_when_somebody_comes_back() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(1));
    evening.minutes(5).await;
    evening.players(Some(0));
    evening.minutes(14).await;
    assert_eq!(evening.notices().len(), 1, "{:?}", evening.notices());
    evening.players(Some(1));
    evening.minutes(1).await;
    evening.players(Some(0));
    evening.minutes(12).await;
    assert_eq!(evening.jobs().len(), 1, "{:?}", evening.jobs());
    evening.minutes(4).await;
    assert_eq!(evening.jobs()[1..], [idle()]);
    assert_eq!(evening.notices().len(), 2, "it is warned about once for each time: {:?}", evening.notices());
}

/// The rule decided on counts that were taken a moment before.
#[tokio::test(start_paused = true)]
async fn who_joins_between_the_decision_and_the_stop_is_not_thrown_out() {
    let evening = Evening::begun(Backend::Docker).await;
    for cause in [Cause::Idle { minutes: 15 }, Cause::NobodyJoined { minutes: 60 }] {
        for online in [Some(1), None] {
            evening.players(online);
            let ask = Ask { action: Action::Stop, cause: cause.clone(), actor: Actor::Watcher, channel: None };
            let asked = evening.engine.ask(&evening.scene.server(), ask).await;
            assert!(matches!(asked, Err(OpenError::Overtaken)), "{cause:?} {online:?}: {asked:?}");
        }
    }
    evening.scene.outside.get().blind = true;
    let ask = Ask { action: Action::Stop, cause: Cause::Idle { minutes: 15 }, actor: Actor::Watcher, channel: None };
    let asked = evening.engine.ask(&evening.scene.server(), ask).await;
    assert!(matches!(asked, Err(OpenError::Overtaken)), "nobody can look: {asked:?}");
    evening.scene.outside.get().blind = false;
    // Nobody is asked whether it suits them when time is up.
    let ask = Ask { action: Action::Stop, cause: Cause::LeaseOver, actor: Actor::Watcher, channel: None };
    evening.engine.ask(&evening.scene.server(), ask).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_game_that_does_not_count_is_never_idle() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(None);
    evening.minutes(200).await;
    assert_eq!((evening.jobs().len(), evening.notices().len()), (1, 0), "{:?}", evening.notices());
    // Nor is one that nobody can look at: what was counted before does not go on counting.
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(0));
    evening.minutes(10).await;
    evening.scene.outside.get().blind = true;
    evening.minutes(100).await;
    evening.scene.outside.get().blind = false;
    evening.minutes(20).await;
    assert_eq!(evening.jobs().len(), 1, "{:?}", evening.jobs());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_nobody_joins_has_the_longer_time() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.players(Some(0));
    evening.minutes(28).await;
    assert_eq!(evening.jobs().len(), 1, "{:?}", evening.jobs());
    evening.minutes(4).await;
    assert_eq!(evening.jobs()[1..], [format!("stop {:?} {DONE}", Cause::NobodyJoined { minutes: 30 })]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_start_is_not_idle() {
    let evening = Evening::new(Backend::Docker);
    evening.works();
    // The game runs, empty, while the start still waits for it: two hours, and no rule applies.
    evening.scene.outside.get().limits.insert(Step::AwaitReady.label().into(), Duration::from_secs(3 * 3600));
    evening.scene.outside.fault(Way::Run, Step::AwaitReady, Kind::Hang, 1);
    evening.asks(Action::Start).await;
    evening.minutes(1).await;
    evening.players(Some(0));
    evening.minutes(120).await;
    assert!(evening.runs());
    assert_eq!((evening.jobs().len(), evening.notices().len()), (1, 0), "{:?}", evening.jobs());
}

#[tokio::test(start_paused = true)]
async fn a_game_that_keeps_falling_is_started_three_times_and_then_stays_off() {
    let evening = Evening::begun(Backend::Cloud).await;
    evening.scene.outside.play(&evening.scene.id);
    for _ in 0..4 {
        assert!(evening.runs(), "{:?}", evening.jobs());
        evening.crashes();
        evening.minutes(2).await;
    }
    let jobs = evening.jobs();
    assert_eq!(jobs.len(), 5, "{jobs:?}");
    assert!(jobs[1..4].iter().all(|job| job.starts_with("start Crashed") && job.ends_with(DONE)), "{jobs:?}");
    assert_eq!(jobs[4], format!("stop {:?} {DONE}", Cause::KeepsCrashing { times: 4 }));
    evening.minutes(24 * 60).await;
    assert_eq!(evening.jobs().len(), 5, "it was given up: {:?}", evening.jobs());
    assert!(evening.scene.outside.get().hosts.is_empty());
    // One that falls once in a while is started each time.
    let evening = Evening::begun(Backend::Cloud).await;
    evening.scene.memory.get().servers.get_mut(&evening.scene.id).unwrap().lease_until = None;
    for _ in 0..6 {
        evening.players(Some(1));
        evening.minutes(30).await;
        evening.crashes();
        evening.minutes(1).await;
        assert!(evening.runs(), "{:?}", evening.jobs());
    }
}

#[tokio::test(start_paused = true)]
async fn tries_are_counted_and_further_apart_each_time() {
    let evening = Evening::new(Backend::Docker);
    evening.works();
    evening.scene.outside.fault(Way::Run, Step::StartGame, Kind::Retry, 99);
    let id = evening.asks(Action::Start).await;
    evening.minutes(3).await;
    let tries: Vec<Ms> = {
        let rows = evening.scene.memory.get();
        let retried = |event: &Event| match event {
            Event::Retrying { step, .. } | Event::Failed { step, .. } => *step == Step::StartGame,
            Event::Started { .. } | Event::Finished { .. } | Event::UndoStarted { .. } | Event::Undone { .. } => false,
            Event::UndoFailed { .. } | Event::CancelRequested { .. } | Event::RetryRequested { .. } => false,
            Event::Forced { .. } | Event::Abandoned { .. } => false,
        };
        let events = &rows.jobs[id.0 as usize - 1].events;
        events.iter().filter(|recorded| retried(&recorded.event)).map(|recorded| recorded.at).collect()
    };
    let waits: Vec<Ms> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(tries.len() as u32, ATTEMPTS_MAX);
    assert!(waits.windows(2).all(|pair| pair[1] >= 2 * pair[0]), "{waits:?}");
    assert_eq!(evening.job(id).rest(), Some(Outcome::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_obeyed_long_before_the_limit_of_the_step() {
    let evening = Evening::new(Backend::Cloud);
    evening.works();
    evening.scene.outside.get().limits.insert(Step::Install.label().into(), Duration::from_secs(24 * 3600));
    evening.scene.outside.fault(Way::Run, Step::Install, Kind::CancelAndHang, 1);
    let id = evening.asks(Action::Start).await;
    evening.seconds(5).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Cancelled), "{}", evening.job(id));
    assert!(evening.scene.outside.get().hosts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_obeyed_in_the_pause_between_two_tries() {
    let evening = Evening::new(Backend::Cloud);
    evening.works();
    evening.scene.outside.fault(Way::Run, Step::AwaitHost, Kind::Retry, 99);
    let id = evening.asks(Action::Start).await;
    // In the pause of eight seconds after the fourth try.
    evening.seconds(9).await;
    assert_eq!(evening.job(id).record(Step::AwaitHost).unwrap().state, StepState::Running);
    evening.scene.memory.write(id, Event::CancelRequested { by: Actor::Operator }).await;
    evening.engine.poke(id);
    evening.seconds(1).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Cancelled), "{}", evening.job(id));
}

#[tokio::test(start_paused = true)]
async fn when_an_engine_dies_another_takes_its_job_over_once_the_claim_has_run_out() {
    let evening = Evening::new(Backend::Docker);
    let id = evening.asks(Action::Start).await;
    evening.scene.outside.fault(Way::Run, Step::StartGame, Kind::HangAfter, 1);
    evening.scene.outside.get().limits.insert(Step::StartGame.label().into(), Duration::from_secs(3600));
    let died = {
        let engine = evening.engine.clone();
        tokio::spawn(async move { engine.drive(id).await })
    };
    let other = evening.scene.engine_with(Arc::new(evening.scene.memory.clone()), evening.clock.clone());
    let stop = CancellationToken::new();
    tokio::spawn({
        let (other, stop) = (other.clone(), stop.clone());
        async move { other.run(stop).await }
    });
    // As long as the first one lives, the job is its own.
    evening.minutes(10).await;
    assert_eq!(evening.job(id).record(Step::StartGame).unwrap().attempts, 1);
    // It dies without a word, as a program does that is killed.
    died.abort();
    evening.seconds(CLAIM_MS as u64 / 1000 - 3).await;
    assert_eq!(evening.job(id).record(Step::StartGame).unwrap().attempts, 1, "taken over too early");
    evening.seconds(10).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Succeeded), "{}", evening.job(id));
    assert_eq!(evening.job(id).record(Step::StartGame).unwrap().attempts, 2);
    evening.scene.check("taken over");
}

/// Otherwise `restart every 30m` would keep a rented host for ever.
#[tokio::test(start_paused = true)]
async fn a_restart_by_a_rule_renews_neither_the_lease_nor_the_idle_time() {
    for joined in [true, false] {
        let evening = Evening::begun(Backend::Cloud).await;
        let lease = evening.scene.server().lease_until;
        evening.players(Some(if joined { 1 } else { 0 }));
        evening.minutes(2).await;
        let mut restarts = 0;
        while evening.runs() && restarts < 9 {
            evening.players(Some(0));
            evening.minutes(6).await;
            if !evening.runs() {
                break;
            }
            let actor = Actor::Schedule { name: "schedule 1 of bob".into(), user: None };
            let ask = Ask { action: Action::Restart, cause: Cause::Asked, actor, channel: None };
            evening.engine.ask(&evening.scene.server(), ask).await.unwrap();
            evening.minutes(1).await;
            assert_eq!(evening.scene.server().lease_until, lease);
            restarts += 1;
        }
        let cause = if joined { Cause::Idle { minutes: 15 } } else { Cause::NobodyJoined { minutes: 30 } };
        assert_eq!(evening.jobs().last(), Some(&format!("stop {cause:?} {DONE}")));
        assert_eq!(restarts, if joined { 2 } else { 4 });
    }
}
