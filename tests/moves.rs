//! A server that moves between real containers and real hosts at a stand-in: one world, wherever it was last played.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}

use common::beds::{OwnMachine, nothing_left, rent_at};
use common::cloud::{Clouds, Failure, Options};
use common::stage::{Stage, docker_or_skip, test_image};
use spawnpoint::app::Choice;
use spawnpoint::drivers::fake::Outside;
use spawnpoint::model::JobId;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::server::Backend;
use std::process::Command;

/// A place with both backends, and a server on the first of them.
async fn both() -> Option<(Clouds, Stage)> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    let clouds = Clouds::start(&Options::default())?;
    let stage = Stage::open("tests/recipes", |config| {
        rent_at(config, &clouds, "hetzner");
        config.docker.enabled = true;
    })
    .await;
    stage.create("world", "toy", &[]).await;
    Some((clouds, stage))
}

async fn backend(stage: &Stage) -> Backend {
    stage.program.app.status(&stage.caller, "world").await.unwrap().backend
}

/// Starts, finds so many turns in the world, and plays some more.
async fn play(stage: &Stage, before: usize, more: usize) {
    stage.starts_with("world", before).await;
    for turn in before + 1..=before + more {
        let answer = stage.program.app.console(&stage.caller, "world", "turn").await.unwrap();
        assert!(answer.contains(&format!("turn {turn}")), "{answer:?}");
    }
}

async fn moved(stage: &Stage, to: Backend) {
    let (job, _) = stage.program.app.move_to(&stage.caller, "world", to, None).await.unwrap();
    stage.succeeds(job).await;
    assert_eq!(backend(stage).await, to);
}

fn drives_and_containers(stage: &Stage) -> String {
    let label = format!("label=spawnpoint.instance={}", stage.instance);
    ["volume", "container"]
        .map(|kind| {
            let args: &[&str] = if kind == "container" { &["-a"] } else { &[] };
            let listed = Command::new("docker").args([kind, "ls", "-q", "--filter", &label]).args(args).output();
            let listed = listed.unwrap();
            assert!(listed.status.success(), "{listed:?}");
            String::from_utf8(listed.stdout).unwrap()
        })
        .concat()
}

#[tokio::test]
async fn a_world_goes_from_containers_to_rented_hosts_and_back_with_every_turn() {
    let Some((clouds, stage)) = both().await else { return };
    assert_eq!(backend(&stage).await, Backend::Docker);
    let mut turns = 0;
    for round in 1..=2 {
        // Once while it runs, once after a stop.
        play(&stage, turns, round).await;
        assert_ne!(drives_and_containers(&stage), "");
        turns += round;
        if round == 2 {
            stage.stop_server("world").await;
        }
        moved(&stage, Backend::Cloud).await;
        assert_eq!(drives_and_containers(&stage), "", "its drive is put away here");
        nothing_left(&clouds);
        play(&stage, turns, 3).await;
        turns += 3;
        assert_eq!(clouds.living().len(), 1);
        if round == 2 {
            stage.stop_server("world").await;
        }
        moved(&stage, Backend::Docker).await;
        nothing_left(&clouds);
    }
    play(&stage, turns, 0).await;
    stage.close().await;
}

/// It has no drive until it starts again, and what it had is in the vault.
#[tokio::test]
async fn a_server_that_came_back_is_restored_before_it_was_started_here() {
    let Some((_clouds, stage)) = both().await else { return };
    let app = &stage.program.app;
    play(&stage, 0, 2).await;
    stage.stop_server("world").await;
    let old = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    play(&stage, 2, 3).await;
    moved(&stage, Backend::Cloud).await;
    moved(&stage, Backend::Docker).await;
    stage.succeeds(app.restore(&stage.caller, "world", &old, None).await.unwrap()).await;
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    let present: Vec<_> = backups.iter().filter(|one| one.present).map(|one| one.id.as_str()).collect();
    assert_eq!(present, [old.as_str()]);
    play(&stage, 2, 0).await;
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_a_moved_server_left_is_taken_again_and_its_old_world_is_not() {
    let Some((clouds, stage)) = both().await else { return };
    let app = &stage.program.app;
    moved(&stage, Backend::Cloud).await;
    play(&stage, 0, 2).await;
    let left = clouds.living().remove(0).id;
    // The provider does not let go of it, and an admin goes on without seeing it go.
    clouds.fail(Failure::status(403).of("hetzner").on("DELETE", &format!("^/servers/{left}$")).times(None));
    let (job, _) = app.move_to(&stage.caller, "world", Backend::Docker, None).await.unwrap();
    assert_eq!(go_on_without(&stage, job).await, 2, "its destruction, and seeing it gone");
    let living = || clouds.living().into_iter().map(|host| host.id).collect::<Vec<_>>();
    assert_eq!(living(), [left.as_str()]);
    let billing = async || {
        let rentals = stage.program.store.rentals_of(&stage.caller.guild, 0).await.unwrap();
        rentals.into_iter().filter(|rental| rental.ended_at.is_none()).map(|rental| rental.host).collect::<Vec<_>>()
    };
    assert_eq!(billing().await, [left.as_str()]);

    // The world goes on here. Back there it has the host again, which is paid for; what is on it is old.
    play(&stage, 2, 3).await;
    moved(&stage, Backend::Cloud).await;
    play(&stage, 5, 1).await;
    assert_eq!((living(), billing().await), (vec![left.clone()], vec![left.clone()]));
    clouds.heal();
    stage.stop_server("world").await;
    nothing_left(&clouds);
    assert_eq!(billing().await, [""; 0]);
    play(&stage, 6, 0).await;
    stage.close().await;
}

/// Its world was never saved, so nobody but a person may decide about it.
#[tokio::test]
async fn a_host_that_was_left_with_an_unsaved_world_waits_for_a_person() {
    let Some((clouds, stage)) = both().await else { return };
    let app = &stage.program.app;
    moved(&stage, Backend::Cloud).await;
    play(&stage, 0, 2).await;
    stage.stop_server("world").await;
    play(&stage, 2, 5).await;
    let left = clouds.living().remove(0);
    let container = left.container.clone().expect("it is a container");
    clouds.fail(Failure::status(403).of("hetzner").on("DELETE", &format!("^/servers/{}$", left.id)).times(None));
    // Its world cannot be copied, and an admin goes on past everything.
    docker(&["exec", &container, "mv", "/usr/bin/rsync", "/usr/bin/rsync.away"]);
    let (job, _) = app.move_to(&stage.caller, "world", Backend::Docker, None).await.unwrap();
    assert!(go_on_without(&stage, job).await >= 3);
    docker(&["exec", &container, "mv", "/usr/bin/rsync.away", "/usr/bin/rsync"]);
    clouds.heal();
    play(&stage, 2, 1).await;
    moved(&stage, Backend::Cloud).await;
    let end = stage.end_of(app.start(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let why = end.steps.iter().find_map(|step| step.error.clone()).unwrap_or_default();
    assert!(why.contains(&left.id) && why.contains("/admin orphans"), "{why}");
    assert_eq!(clouds.living().len(), 1, "the only copy of those turns was destroyed");

    // Given back to a server that should be off, its world is saved before the host goes, and is what people play on.
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let host = orphans.found.iter().find(|view| view.orphan.id == left.id).expect("the host is shown");
    assert!(host.adoptable, "{host:#?}");
    app.orphan_adopt(&stage.caller, &host.orphan.tag()).await.unwrap();
    let saved = async || {
        let idle = app.status(&stage.caller, "world").await.unwrap().job.is_none();
        (idle && clouds.living().is_empty()).then_some(())
    };
    stage.until("its world to be saved", saved).await;
    play(&stage, 7, 0).await;
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}

/// An admin goes on past whatever the move is held at; says how often.
async fn go_on_without(stage: &Stage, job: JobId) -> usize {
    let app = &stage.program.app;
    let mut forced = 0;
    stage
        .until("the move", async || {
            if app.job_view(job).await.unwrap().outcome == Some(Outcome::Held)
                && app.choose(&stage.caller, "world", Choice::Force).await.is_ok()
            {
                forced += 1;
            }
            (backend(stage).await == Backend::Docker).then_some(())
        })
        .await;
    forced
}

/// A machine of one's own beside containers here, with a server that has played there.
async fn own_machine() -> Option<(OwnMachine, Stage)> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    test_image("host");
    let mut machine = None;
    let stage = Stage::open("tests/recipes", |config| {
        machine = Some(OwnMachine::start(config));
        config.docker.enabled = true;
    })
    .await;
    stage.create("world", "toy", &[]).await;
    moved(&stage, Backend::Cloud).await;
    play(&stage, 0, 2).await;
    Some((machine.expect("it was started"), stage))
}

/// From now on no folder can be removed there.
const KEEP_FOLDERS: &str = r#"printf '%s\n' '#!/bin/sh' 'case "$*" in *--one-file-system*) exit 1 ;; esac' \
    'exec /bin/rm "$@"' >/usr/local/bin/rm && chmod +x /usr/local/bin/rm"#;

#[tokio::test]
async fn a_folder_that_a_moved_server_left_on_a_machine_of_your_own_gets_the_newest_world() {
    let Some((machine, stage)) = own_machine().await else { return };
    machine.shell(KEEP_FOLDERS);
    let (job, _) = stage.program.app.move_to(&stage.caller, "world", Backend::Docker, None).await.unwrap();
    assert_eq!(go_on_without(&stage, job).await, 1, "its world was saved, and its folder stays");
    play(&stage, 2, 3).await;
    machine.shell("/bin/rm /usr/local/bin/rm");
    assert_ne!(machine.shell("ls /srv/spawnpoint"), "");
    moved(&stage, Backend::Cloud).await;
    play(&stage, 5, 1).await;
    stage.stop_server("world").await;
    assert_eq!(machine.shell("ls /srv/spawnpoint"), "");
    play(&stage, 6, 0).await;
    stage.close().await;
}

#[tokio::test]
async fn a_folder_that_was_left_with_an_unsaved_world_is_neither_played_on_nor_destroyed() {
    let Some((machine, stage)) = own_machine().await else { return };
    let app = &stage.program.app;
    stage.stop_server("world").await;
    play(&stage, 2, 5).await;
    let leave = async || {
        machine.shell(&format!("mv /usr/bin/rsync /usr/bin/rsync.away; {KEEP_FOLDERS}"));
        let (job, _) = app.move_to(&stage.caller, "world", Backend::Docker, None).await.unwrap();
        assert!(go_on_without(&stage, job).await >= 3);
        machine.shell("/bin/rm /usr/local/bin/rm; mv /usr/bin/rsync.away /usr/bin/rsync");
    };
    // As long as nobody played elsewhere, it goes on where it was.
    leave().await;
    moved(&stage, Backend::Cloud).await;
    play(&stage, 7, 1).await;
    leave().await;
    play(&stage, 2, 1).await;
    moved(&stage, Backend::Cloud).await;
    let turns = || machine.shell("cat /srv/spawnpoint/*/game/world/turns");
    for _ in 0..2 {
        let end = stage.end_of(app.start(&stage.caller, "world", None).await.unwrap()).await;
        assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
        let why = end.steps.iter().find_map(|step| step.error.clone()).unwrap_or_default();
        assert!(why.contains("attic") && why.contains("/game away"), "{why}");
        assert_eq!(turns(), "8", "it is left as it was");
    }
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let [folder] = &orphans.found[..] else { panic!("one folder: {orphans:#?}") };
    app.orphan_delete(&stage.caller, &folder.orphan.tag()).await.unwrap();
    play(&stage, 3, 1).await;
    stage.stop_server("world").await;
    assert_eq!(machine.shell("ls /srv/spawnpoint"), "");
    stage.close().await;
}

fn docker(args: &[&str]) {
    let run = Command::new("docker").args(args).output().unwrap();
    assert!(run.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&run.stderr));
}

#[tokio::test]
async fn who_names_a_backend_that_is_not_set_up_hears_that_a_changed_configuration_takes_a_restart() {
    let stage = Stage::open_on("tests/recipes", Backend::Docker, &Outside::default()).await;
    stage.create("world", "toy", &[]).await;
    let refused = stage.program.app.move_to(&stage.caller, "world", Backend::Cloud, None).await.unwrap_err();
    insta::assert_snapshot!(refused.to_string(), @"The cloud backend is not set up here. `spawnpoint doctor` says what is missing; a changed configuration takes effect when Spawnpoint is started again.");
    stage.close().await;
}
