//! The docker backend on a real daemon with real overlay drives, with a toy game that misbehaves on demand.

#[path = "common/stage.rs"]
mod stage;

use spawnpoint::app::{Choice, Refusal, UpdateWhen};
use spawnpoint::model::job::{Outcome, Step, StepState};
use spawnpoint::model::server::State;
use stage::{Stage, docker_or_skip, test_image};
use std::collections::BTreeMap;

async fn toy() -> Option<Stage> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    Some(Stage::open("tests/recipes", |_| {}).await)
}

async fn turns(stage: &Stage, name: &str, count: usize) {
    for _ in 0..count {
        stage.program.app.console(&stage.caller, name, "turn").await.unwrap();
    }
}

#[tokio::test]
async fn a_first_start_installs_the_game_and_a_stop_keeps_the_world() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let start = stage.start("world").await;
    let labels: Vec<_> = start.steps.iter().map(|step| step.label.as_str()).collect();
    insta::assert_snapshot!(labels.join("\n"), @r"
    Building the container image
    Making room for the snapshot
    Installing the game
    Sealing the snapshot
    Finding the snapshot
    Cloning the drive
    Putting the world in place
    Creating the container
    Starting the game
    Waiting until people can join
    ");
    assert!(start.address.is_some());
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Running);
    turns(&stage, "world", 3).await;

    stage.stop_server("world").await;
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Offline);
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert!(backups[0].present && backups[0].doubt.is_none(), "{backups:?}");

    let again = stage.start("world").await;
    assert!(!again.steps.iter().any(|step| step.label == "Installing the game"), "installed once");
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 3 turns"), "{log}");
    stage.close().await;
}

#[tokio::test]
async fn ten_servers_stand_on_one_snapshot() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.succeeds(app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    let names: Vec<String> = (0..10).map(|n| format!("toy-{n}")).collect();
    let mut jobs = vec![];
    for name in &names {
        stage.create(name, "toy", &[]).await;
        jobs.push(app.start(&stage.caller, name, None).await.unwrap());
    }
    for job in jobs {
        stage.succeeds(job).await;
    }
    let snapshots = app.snapshots(&stage.caller).await.unwrap();
    assert_eq!(snapshots.len(), 1);
    let snapshot = &snapshots[0];
    assert_eq!(snapshot.drives.len(), 10);
    let own: u64 = snapshot.drives.iter().map(|(_, bytes)| bytes.expect("a drive is measured")).sum();
    assert!(own < snapshot.bytes.unwrap() as u64, "ten drives take {own} bytes beside {:?}", snapshot.bytes);
    let mut addresses: Vec<_> = vec![];
    for name in &names {
        addresses.push(app.status(&stage.caller, name).await.unwrap().address.unwrap());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 10, "no two share an address");
    let refused = app.snapshot_delete(&stage.caller, &snapshot.id).await.unwrap_err();
    assert!(refused.to_string().contains("`toy-3`"), "{refused}");
    stage.close().await;
}

#[tokio::test]
async fn a_backup_of_a_live_world_is_restored_with_the_present_state_kept_first() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    turns(&stage, "world", 2).await;
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    let live = app.backups(&stage.caller, "world").await.unwrap()[0].clone();
    turns(&stage, "world", 5).await;
    // While it runs: it is stopped, saved, put back and started.
    stage.succeeds(app.restore(&stage.caller, "world", &live.id, None).await.unwrap()).await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 2 turns"), "{log}");
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert_eq!(backups.iter().filter(|one| one.reason == "before a restore").count(), 1, "{backups:?}");
    // And back again, while it is off.
    let before = backups.iter().find(|one| one.reason == "before a restore").unwrap().id.clone();
    stage.stop_server("world").await;
    stage.succeeds(app.restore(&stage.caller, "world", &before, None).await.unwrap()).await;
    stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 7 turns"), "{log}");
    stage.close().await;
}

#[tokio::test]
async fn an_update_moves_a_server_to_the_newest_snapshot_with_its_world() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    turns(&stage, "world", 4).await;
    stage.succeeds(app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    let view = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!((view.snapshot.as_deref(), view.newer_snapshot.as_deref()), (Some("toy-1"), Some("toy-2")));
    assert_eq!(view.state, State::Running, "a build leaves what runs alone");
    app.update(&stage.caller, "world", UpdateWhen::NextStart, None).await.unwrap();
    stage.stop_server("world").await;
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().snapshot.as_deref(), Some("toy-1"));
    stage.start("world").await;
    let view = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(view.snapshot.as_deref(), Some("toy-2"));
    assert!(!view.update_at_start);
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 4 turns"), "{log}");
    // The old one is free now.
    app.snapshot_delete(&stage.caller, "toy-1").await.unwrap();
    stage.close().await;
}

#[tokio::test]
async fn a_game_that_dies_at_once_is_quoted_and_leaves_nothing_behind() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "dies")]).await;
    let end = stage.end_of(app.start(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let error = end.steps.iter().find_map(|step| step.error.clone()).unwrap();
    assert!(error.contains("exit code 3") && error.contains("cannot find the map"), "{error}");
    let view = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(view.state, State::Offline);
    // Mended, it starts.
    app.settings_apply(&stage.caller, "world", BTreeMap::from([("BEHAVIOUR".into(), "good".into())])).await.unwrap();
    stage.start("world").await;
    stage.close().await;
}

#[tokio::test]
async fn a_start_can_be_called_off_and_the_server_is_free_again() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    stage
        .until("the wait for readiness", async || {
            let view = app.job_view(job).await.unwrap();
            view.steps
                .iter()
                .any(|step| step.label == Step::AwaitReady.label() && step.state == StepState::Running)
                .then_some(())
        })
        .await;
    let busy = app.stop(&stage.caller, "world", None).await.unwrap_err();
    assert!(matches!(&busy, Refusal::Busy(text) if text.contains("the operator asked for “start”")), "{busy}");
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Cancelled));
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Offline);
    stage.close().await;
}

#[tokio::test]
async fn a_game_that_does_not_stop_is_ended_by_force_and_its_world_is_still_kept() {
    let Some(stage) = toy().await else { return };
    for behaviour in ["stop-hangs", "stop-fails"] {
        stage.create(behaviour, "toy", &[("BEHAVIOUR", behaviour)]).await;
        stage.start(behaviour).await;
        turns(&stage, behaviour, 2).await;
        let end = stage.stop_server(behaviour).await;
        let note = end.steps.iter().find(|step| step.label == Step::StopGame.label()).unwrap().note.clone();
        assert!(note.as_deref().is_some_and(|note| note.starts_with("ended by force")), "{note:?}");
        assert_eq!(stage.program.app.backups(&stage.caller, behaviour).await.unwrap().len(), 1);
    }
    stage.close().await;
}

#[tokio::test]
async fn a_crash_is_started_again_and_a_killed_game_is_not() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    turns(&stage, "world", 3).await;
    let before = app.server_names(&stage.caller.guild).await;
    assert_eq!(before, ["world"]);
    // The console goes silent because the game dies under it.
    let _ = app.console(&stage.caller, "world", "crash").await;
    stage
        .until("the start after the crash", async || {
            let log = app.logs(&stage.caller, "world", 50).await.ok()?;
            let view = app.status(&stage.caller, "world").await.unwrap();
            (log.contains("with 3 turns") && view.state == State::Running && view.job.is_none()).then_some(())
        })
        .await;
    app.kill(&stage.caller, "world").await.unwrap();
    stage
        .until("the end of the killed game", async || {
            (app.status(&stage.caller, "world").await.unwrap().state == State::Offline).then_some(())
        })
        .await;
    stage.close().await;
}

#[tokio::test]
async fn settings_reach_the_game_and_secrets_reach_nobody_else() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    let odd = "it's \"quoted\" $(id) `id` ; \\ end";
    stage.create("world", "toy", &[("MOTTO", odd), ("TOY_SECRET", "correct-horse")]).await;
    let start = stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains(odd), "{log}");
    assert!(log.contains("my secret is ••••"), "{log}");
    let shown = format!("{start:?} {log} {:?}", app.settings_form(&stage.caller, "world").await.unwrap());
    assert!(!shown.contains("correct-horse"));
    let answer = app.console(&stage.caller, "world", "tell me correct-horse").await.unwrap();
    assert!(answer.contains("you said: tell me ••••"), "{answer}");
    assert_eq!(app.console(&stage.caller, "world", "colours").await.unwrap().trim(), "red alert");
    stage.close().await;
}

#[tokio::test]
async fn a_restarted_program_finds_its_servers_and_goes_on_with_its_jobs() {
    let Some(stage) = toy().await else { return };
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    turns(&stage, "world", 2).await;
    let stage = stage.restart().await;
    let app = &stage.program.app;
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Running);
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let stage = stage.restart().await;
    stage.succeeds(job).await;
    assert_eq!(stage.program.app.backups(&stage.caller, "world").await.unwrap().len(), 1);
    stage.close().await;
}

#[tokio::test]
async fn a_chatty_game_and_a_long_answer_stay_within_bounds() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[("BEHAVIOUR", "chatty")]).await;
    let start = stage.start("world").await;
    assert!(start.output.len() <= 12, "{}", start.output.len());
    let answer = app.console(&stage.caller, "world", "much").await.unwrap();
    assert!(answer.contains("answer line 2999"), "{} characters", answer.len());
    stage.close().await;
}

#[tokio::test]
async fn a_port_that_another_program_holds_is_not_taken() {
    let Some(stage) = toy().await else { return };
    let holder = std::net::UdpSocket::bind((stage.config.docker.publish_address, 27100)).unwrap();
    stage.create("world", "toy", &[]).await;
    let start = stage.start("world").await;
    let address = start.address.unwrap();
    assert!(!address.ends_with(":27100"), "{address}");
    drop(holder);
    // Friends saved the address: it stays.
    stage.stop_server("world").await;
    assert_eq!(stage.start("world").await.address, Some(address));
    stage.close().await;
}

#[tokio::test]
async fn drives_can_be_copies_behind_the_same_words() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let stage = Stage::open("tests/recipes", |config| config.docker.drives = spawnpoint::config::DriveKind::Copy).await;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    turns(&stage, "world", 2).await;
    stage.stop_server("world").await;
    stage.start("world").await;
    let log = stage.program.app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 2 turns"), "{log}");
    stage.close().await;
}
