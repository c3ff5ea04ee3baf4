//! A daemon that goes away in the middle of a job, and comes back.

use super::commands::{binary, ran};
use super::relay::Relay;
use super::*;
use spawnpoint::app::Choice;
use spawnpoint::config::DriveKind;
use spawnpoint::model::server::State;

/// Two that come in vain are enough to know that the program has noticed.
const NOTICED: usize = 2;

#[tokio::test]
async fn an_install_goes_on_when_the_daemon_comes_back() {
    if !ready().await {
        return;
    }
    let waits = "cd \"$GAME_DIR\"\necho waiting\nwhile [ ! -f go ]; do sleep 0.1; done";
    let variants = Variants::new().with("slow", &[("install", "cd \"$GAME_DIR\"", waits)]);
    let relay = Relay::open().await;
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    let job = app.snapshot_build(&stage.caller, "slow", None).await.unwrap();
    says(&stage, job, Step::RunInstaller, "waiting").await;
    relay.fall();
    relay.turned_away(NOTICED).await;
    // It ends while nobody can see it.
    let installer = containers_of(&stage, "installer").remove(0);
    std::fs::write(stage.config.data_dir.join("snapshots/slow-1/files/go"), "").unwrap();
    assert_eq!(docker(&["wait", &installer]), "0");
    relay.rise();
    let end = stage.succeeds(job).await;
    assert!(end.steps.iter().all(|step| step.attempts <= 1), "it was followed to its end, not begun again: {end:#?}");
    close(stage, &variants).await;
}

#[tokio::test]
async fn a_start_goes_on_when_the_daemon_comes_back() {
    if !ready().await {
        return;
    }
    let waits = "echo waiting\nwhile [ ! -f go ]; do sleep 0.1; done\necho \"my secret";
    let variants = Variants::new().with("slow", &[("start", "echo \"my secret", waits)]);
    let relay = Relay::open().await;
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    stage.succeeds(app.snapshot_build(&stage.caller, "slow", None).await.unwrap()).await;
    stage.create("world", "slow", &[]).await;
    let job = app.start(&stage.caller, "world", None).await.unwrap();
    says(&stage, job, Step::AwaitReady, "waiting").await;
    relay.fall();
    relay.turned_away(NOTICED).await;
    let container = container_of(&stage);
    docker(&["exec", &container, "touch", "/srv/game/go"]);
    relay.rise();
    stage.succeeds(job).await;
    assert_eq!(container_of(&stage), container, "the game was left alone");
    close(stage, &variants).await;
}

/// The worst moment: the daemon has taken the request, and nobody hears what became of it.
#[tokio::test]
async fn an_answer_that_is_lost_at_any_kind_of_request_loses_nothing_else() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let stage = Stage::open("tests/recipes", |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    stage.succeeds(app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    stage.create("world", "toy", &[]).await;
    let starts: &[&[&str]] =
        &[&["POST ", "/volumes/create"], &["POST ", "/containers/create"], &["POST ", "/start"], &["GET ", "/logs"]];
    let stops: &[&[&str]] =
        &[&["POST ", "/exec"], &["POST ", "/wait"], &["GET ", "/archive"], &["DELETE ", "/containers/"]];
    let mut had = 0;
    for (start, stop) in starts.iter().zip(stops) {
        relay.fall_at(start);
        let job = app.start(&stage.caller, "world", None).await.unwrap();
        relay.caught().await;
        relay.turned_away(NOTICED).await;
        relay.rise();
        stage.succeeds(job).await;
        let log = log_of(&stage, "world").await;
        assert!(log.contains(&format!("with {had} turns")), "after {stop:?}: {log}");
        stage.turns("world", 1).await;
        had += 1;

        relay.fall_at(stop);
        let job = app.stop(&stage.caller, "world", None).await.unwrap();
        relay.caught().await;
        relay.turned_away(NOTICED).await;
        relay.rise();
        let end = stage.end_of(job).await;
        if end.outcome == Some(Outcome::Held) {
            let why = error_of(&end);
            assert!(why.contains("daemon") || why.contains("stream of the world"), "{stop:?}: {why}");
            app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
            stage
                .until("the end of what was tried again", async || {
                    (app.job_view(job).await.unwrap().outcome == Some(Outcome::Succeeded)).then_some(())
                })
                .await;
        } else {
            assert_eq!(end.outcome, Some(Outcome::Succeeded), "{stop:?}: {end:#?}");
        }
        assert_eq!(app.backups(&stage.caller, "world").await.unwrap().len(), had, "{stop:?}");
    }
    stage.close().await;
}

#[tokio::test]
async fn a_server_that_nobody_can_see_is_unknown_and_is_left_alone() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let stage = Stage::open("tests/recipes", |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let container = container_of(&stage);
    relay.fall();
    // The watcher comes every second: it has looked several times in vain.
    let mut states = vec![];
    for _ in 0..3 {
        relay.turned_away(1).await;
        let view = app.status(&stage.caller, "world").await.unwrap();
        assert!(view.job.is_none(), "{view:#?}");
        states.push((view.state, view.why.unwrap_or_default()));
    }
    let (last, why) = states.last().unwrap();
    assert_eq!(*last, State::Unknown, "{states:?}");
    assert!(why.contains("does not answer"), "{why}");
    assert!(states.iter().all(|(state, _)| matches!(state, State::Running | State::Unknown)), "{states:?}");
    let refused = app.console(&stage.caller, "world", "turn").await.unwrap_err();
    assert!(refused.to_string().contains("daemon"), "{refused}");
    relay.rise();
    stage
        .until("the server to be seen again", async || {
            (app.status(&stage.caller, "world").await.unwrap().state == State::Running).then_some(())
        })
        .await;
    assert!(stage.program.store.open_jobs_all().await.unwrap().is_empty());
    assert_eq!(container_of(&stage), container, "the game was left alone");
    stage.turns("world", 1).await;
    stage.close().await;
}

#[tokio::test]
async fn how_drives_are_made_is_not_guessed_while_no_daemon_answers() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    relay.wears(serde_json::json!({ "OperatingSystem": "Docker Desktop" }));
    relay.fall();
    let variants = Variants::new().with("patient", &[]);
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    relay.rise();
    stage.create("world", "patient", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let drive = drive_folders(&stage).remove(0);
    assert!(drive.join("files").is_dir() && !drive.join("upper").exists(), "such a daemon mounts no overlay for us");
    stage.stop_server("world").await;
    stage.starts_with("world", 2).await;
    close(stage, &variants).await;
}

#[tokio::test]
async fn a_drive_stays_what_it_was_made_as() {
    if !ready().await {
        return;
    }
    let variants = Variants::new().with("lasting", &[]);
    let mut stage = Stage::open(variants.path(), |_| {}).await;
    for (turns, (kind, other, files)) in
        [(DriveKind::Overlay, DriveKind::Copy, "upper"), (DriveKind::Copy, DriveKind::Overlay, "files")]
            .into_iter()
            .enumerate()
    {
        let name = format!("world-{turns}");
        stage.config.docker.drives = kind;
        stage = stage.restart().await;
        stage.create(&name, "lasting", &[]).await;
        stage.start(&name).await;
        stage.turns(&name, turns + 1).await;
        stage.stop_server(&name).await;
        stage.config.docker.drives = other;
        stage = stage.restart().await;
        stage.starts_with(&name, turns + 1).await;
        stage.turns(&name, 1).await;
        stage.stop_server(&name).await;
        let view = stage.program.app.snapshots(&stage.caller).await.unwrap().remove(0);
        let own = view.drives.iter().find(|(server, _)| **server == name).unwrap().1;
        assert!(own.is_some_and(|bytes| bytes > 0), "{name} is measured: {own:?}");
        assert!(drive_folders(&stage).iter().any(|drive| drive.join(files).is_dir()), "{files}");
    }
    close(stage, &variants).await;
}

/// What a daemon is of which games could not write to our folders; the tests run as root.
const HOSTILE: [(&str, &str); 2] =
    [("name=userns", "Take `userns-remap` out of"), ("name=rootless", "Run Spawnpoint as the user whose daemon it is")];

#[tokio::test]
async fn a_daemon_under_which_games_cannot_write_is_refused_before_anything_is_made() {
    if !ready().await || !root_or_skip("a rootless daemon of another user's") {
        return;
    }
    let variants = Variants::new().with("refused", &[]);
    let relay = Relay::open().await;
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    stage.create("world", "refused", &[]).await;
    for (option, mend) in HOSTILE {
        relay.wears(serde_json::json!({ "SecurityOptions": [option] }));
        let job = app.snapshot_build(&stage.caller, "refused", None).await.unwrap();
        let said = sentence(&stage, job, Outcome::Failed).await;
        assert!(said.contains(mend), "{said}");
    }
    let of_ours = [("spawnpoint.instance".to_owned(), stage.instance.clone())];
    assert!(stage.docker.images(&of_ours).await.unwrap().is_empty(), "nothing was built");
    relay.wears(serde_json::Value::Null);
    stage.start("world").await;
    stage.turns("world", 1).await;
    stage.stop_server("world").await;
    for (option, mend) in HOSTILE {
        relay.wears(serde_json::json!({ "SecurityOptions": [option] }));
        let job = app.start(&stage.caller, "world", None).await.unwrap();
        let said = sentence(&stage, job, Outcome::Failed).await;
        assert!(said.contains(mend), "{said}");
        let mut command = binary(&stage.home, &["doctor"]);
        command.env("SPAWNPOINT_DOCKER__ENDPOINT", relay.endpoint());
        // On a thread of its own, because the relay is on this one.
        let (_, doctor, _) = tokio::task::spawn_blocking(|| ran(command)).await.unwrap();
        assert!(doctor.lines().any(|line| line.starts_with("MEND") && line.contains(mend)), "{doctor}");
    }
    relay.wears(serde_json::Value::Null);
    stage.starts_with("world", 1).await;
    close(stage, &variants).await;
}
