//! What people say to a job, and what they are shown of it: force, abandon, retry, kill, nudges, output, secrets.

use super::watching::Evening;
use super::*;
use spawnpoint::bus::Nudge;
use spawnpoint::engine::OUTPUT_LINE_MAX_CHARS;
use spawnpoint::engine::run::SENTENCE_MAX_CHARS;
use spawnpoint::model::job::StepState;
use std::collections::HashSet;

async fn held_stop(backend: Backend, step: Step) -> (Scene, JobId) {
    let (scene, id) = open(backend, Tale::Stop).await;
    scene.outside.fault(Way::Run, step, Kind::Before, 99);
    assert_eq!(scene.drive(id).await, Outcome::Held, "{}", scene.memory.job(id));
    (scene, id)
}

#[tokio::test]
async fn an_admin_may_force_past_the_step_that_holds_and_past_no_other() {
    for step in [Step::PullWorld, Step::VerifyWorld, Step::KeepBackup] {
        let (scene, id) = held_stop(Backend::Cloud, step).await;
        scene.memory.write(id, Event::Forced { by: Actor::Operator }).await;
        // Without a copy the steps that need one fail too, and each one waits to be forced in its turn.
        let mut forced = 1;
        while scene.drive(id).await == Outcome::Held {
            assert!(!scene.outside.get().hosts.is_empty(), "{step:?}: {}", scene.memory.job(id));
            scene.memory.write(id, Event::Forced { by: Actor::Operator }).await;
            forced += 1;
            assert!(forced < 4);
        }
        let job = scene.memory.job(id);
        assert_eq!(job.rest(), Some(Outcome::Succeeded), "{job}");
        assert!(scene.outside.get().hosts.is_empty());
        let count = job.steps.iter().filter(|record| record.state == StepState::Forced).count();
        assert_eq!(count, forced, "{job}");
    }
}

#[tokio::test]
async fn a_host_stays_when_the_step_that_would_prove_its_world_is_not_done() {
    let (scene, id) = held_stop(Backend::Cloud, Step::KeepBackup).await;
    for _ in 0..3 {
        scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
        assert_eq!(scene.drive(id).await, Outcome::Held);
        assert_eq!(scene.outside.get().hosts.len(), 1);
    }
    scene.check("held");
}

/// Whatever plan a job came with: the engine itself asks for the proof.
#[tokio::test]
async fn a_plan_that_forgot_to_save_destroys_nothing() {
    let (scene, stop) = open(Backend::Cloud, Tale::Stop).await;
    let new = spawnpoint::model::job::NewJob {
        plan: vec![Step::StopGame, Step::DestroyHost],
        ..scene.memory.get().jobs[stop.0 as usize - 1].new.clone()
    };
    scene.memory.get().jobs[stop.0 as usize - 1].new = new;
    assert_eq!(scene.drive(stop).await, Outcome::Held, "{}", scene.memory.job(stop));
    assert_eq!(scene.outside.get().hosts.len(), 1);
    scene.check("a plan without a backup");
}

#[tokio::test]
async fn an_undo_that_fails_waits_and_goes_on_by_retry_or_force() {
    for forced in [false, true] {
        let (scene, id) = open(Backend::Cloud, Tale::FirstStart).await;
        scene.outside.fault(Way::Run, Step::StartGame, Kind::Before, 1);
        scene.outside.fault(Way::Undo, Step::Install, Kind::Before, 1);
        assert_eq!(scene.drive(id).await, Outcome::Held);
        assert_eq!(scene.memory.job(id).record(Step::Install).unwrap().state, StepState::UndoFailed);
        assert_eq!(scene.outside.get().hosts.len(), 1, "what comes before is not undone over it");
        let by = Actor::Operator;
        let said = if forced { Event::Forced { by } } else { Event::RetryRequested { by } };
        scene.memory.write(id, said).await;
        assert_eq!(scene.drive(id).await, Outcome::Failed, "{}", scene.memory.job(id));
        assert!(scene.outside.get().hosts.is_empty(), "nothing is paid for");
        assert_eq!(scene.server().wanted, Wanted::Off);
    }
}

/// Nobody saw that host go, so nobody says so.
#[tokio::test]
async fn a_host_that_an_admin_left_when_it_could_not_be_undone_is_said_to_stay() {
    let (scene, id) = open(Backend::Cloud, Tale::FirstStart).await;
    scene.outside.fault(Way::Run, Step::StartGame, Kind::Before, 1);
    scene.outside.fault(Way::Undo, Step::CreateHost, Kind::Before, 1);
    assert_eq!(scene.drive(id).await, Outcome::Held);
    scene.memory.write(id, Event::Forced { by: Actor::Operator }).await;
    assert_eq!(scene.drive(id).await, Outcome::Failed, "{}", scene.memory.job(id));
    let job = scene.memory.job(id);
    let left = job.record(Step::CreateHost).unwrap();
    assert!(left.undo_left_out && left.host_stays, "{left:?}");
    assert_eq!(scene.outside.get().hosts.len(), 1);
    assert!(scene.server().owned.host.is_some(), "a stop finds it");
}

/// The host of an abandoned start is not forgotten: the watcher puts it away.
#[tokio::test(start_paused = true)]
async fn what_an_abandoned_start_left_is_put_away() {
    let evening = Evening::new(Backend::Cloud);
    evening.works();
    evening.scene.outside.fault(Way::Run, Step::AwaitReady, Kind::Before, 1);
    evening.scene.outside.fault(Way::Undo, Step::CreateHost, Kind::Before, 1);
    let id = evening.asks(Action::Start).await;
    evening.minutes(1).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Held));
    evening.scene.memory.write(id, Event::Abandoned { by: Actor::Operator }).await;
    evening.minutes(2).await;
    assert!(evening.scene.outside.get().hosts.is_empty(), "{:?}", evening.jobs());
}

#[tokio::test(start_paused = true)]
async fn a_kill_ends_the_game_while_a_job_works_and_the_job_goes_on() {
    let evening = Evening::begun(Backend::Docker).await;
    evening.scene.outside.play(&evening.scene.id);
    evening.scene.outside.fault(Way::Run, Step::StopGame, Kind::Hang, 1);
    evening.scene.outside.get().limits.insert(Step::StopGame.label().into(), Duration::from_secs(3600));
    let id = evening.asks(Action::Stop).await;
    evening.seconds(10).await;
    assert!(evening.runs());
    let driver = evening.engine.driver(Backend::Docker).unwrap();
    driver.kill(&evening.scene.server()).await.unwrap();
    assert!(!evening.runs());
    assert_eq!(evening.job(id).record(Step::StopGame).unwrap().state, StepState::Running);
    // The hanging step ends at its limit, and a retry finds the game stopped.
    evening.minutes(61).await;
    evening.scene.memory.write(id, Event::RetryRequested { by: Actor::Operator }).await;
    evening.minutes(1).await;
    assert_eq!(evening.job(id).rest(), Some(Outcome::Succeeded), "{}", evening.job(id));
    evening.scene.check("killed");
}

#[tokio::test]
async fn every_event_of_a_job_nudges_whoever_listens() {
    let (scene, id) = open(Backend::Docker, Tale::FirstStart).await;
    let bus = Bus::default();
    let mut listener = bus.listen();
    let engine = scene.engine_heard(bus);
    engine.drive(id).await.unwrap();
    let seq = scene.memory.job(id).seq;
    drop(engine);
    let (mut of_job, mut of_server) = (0, HashSet::new());
    while let Ok(nudge) = listener.next().await {
        match nudge.expect("a short job misses none") {
            Nudge::Job(job) => of_job += i64::from(job == id),
            Nudge::Server(server) => drop(of_server.insert(server)),
            Nudge::Notice => {}
        }
    }
    assert!(of_job >= seq, "{of_job} nudges for {seq} events");
    assert!(of_server.contains(&scene.id));
}

const SECRET: &str = "correct-horse-battery";

/// A secret that a step says in its output, in its error and in its note is shown in none of them.
#[tokio::test]
async fn a_secret_is_masked_in_output_errors_and_notes_of_a_real_step() {
    for kind in [Kind::Before, Kind::Retry] {
        let (scene, id) = open(Backend::Docker, Tale::FirstStart).await;
        scene.memory.get().secrets.insert("CONSOLE_PASSWORD".into(), SECRET.into());
        scene.outside.get().says = vec![format!("rcon_password {SECRET}")];
        scene.outside.get().reason = format!("login as {SECRET} failed. ");
        scene.outside.fault(Way::Run, Step::StartGame, kind, 1);
        scene.drive(id).await;
        let rows = scene.memory.get();
        let events = format!("{:?}", rows.jobs[id.0 as usize - 1].events);
        assert!(events.contains("login as •••• failed"), "{events}");
        assert!(rows.output.iter().any(|line| line == "rcon_password ••••"), "{:?}", rows.output);
        assert!(!events.contains(SECRET) && !rows.output.concat().contains(SECRET));
        if kind == Kind::Retry {
            assert!(events.contains("note: Some(\"login as ••••"), "{events}");
        }
    }
}

#[tokio::test]
async fn a_chatty_step_and_a_long_error_are_cut() {
    let (scene, id) = open(Backend::Docker, Tale::FirstStart).await;
    scene.outside.get().says = vec!["ü".repeat(10_000); 3000];
    scene.outside.get().reason = "ü".repeat(100_000);
    scene.outside.fault(Way::Run, Step::BuildImage, Kind::Before, 1);
    assert_eq!(scene.drive(id).await, Outcome::Failed);
    let rows = scene.memory.get();
    assert!(!rows.output.is_empty());
    assert!(rows.output.iter().all(|line| line.chars().count() == OUTPUT_LINE_MAX_CHARS));
    // A thousand wait for the store; the rest is dropped, and the step is not kept waiting.
    assert!(rows.output.len() < 3000, "{}", rows.output.len());
    let error = error_of(&rows.jobs[id.0 as usize - 1].events);
    assert_eq!(error.chars().count(), SENTENCE_MAX_CHARS);
}

fn error_of(events: &[spawnpoint::model::job::Recorded]) -> String {
    let failed = |event: &Event| match event {
        Event::Failed { error, .. } => Some(error.clone()),
        Event::Started { .. } | Event::Retrying { .. } | Event::Finished { .. } | Event::UndoStarted { .. } => None,
        Event::Undone { .. } | Event::UndoFailed { .. } | Event::CancelRequested { .. } => None,
        Event::RetryRequested { .. } | Event::Forced { .. } | Event::Abandoned { .. } => None,
    };
    events.iter().find_map(|recorded| failed(&recorded.event)).expect("the job failed")
}
