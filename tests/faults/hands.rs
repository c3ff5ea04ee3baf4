//! People who remove with their own hands what is ours.

use super::relay::Relay;
use super::*;
use spawnpoint::app::Choice;
use spawnpoint::model::server::State;

/// The daemon answers nothing about a container while one of its archives is half read: a comparison that opened all
/// paths of a world first waited for ever behind the first of them, once that was larger than a pipe.
#[tokio::test]
async fn a_large_world_of_several_paths_is_kept() {
    if !ready().await {
        return;
    }
    let large = "mkdir -p world settings .spawnpoint\necho kept >settings/keep.txt\n[ -f world/large ] || dd if=/dev/urandom of=world/large bs=1048576 count=8 2>/dev/null";
    let variants = Variants::new().with("wide", &[("start", "mkdir -p world settings .spawnpoint", large)]);
    let stage = Stage::open(variants.path(), |_| {}).await;
    let app = &stage.program.app;
    stage.create("world", "wide", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    stage.stop_server("world").await;
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert!(backups.len() == 2 && backups.iter().all(|one| one.files == 3 && one.doubt.is_none()), "{backups:#?}");
    close(stage, &variants).await;
}

#[tokio::test]
async fn after_a_restart_of_the_program_the_log_and_the_console_go_on() {
    if !ready().await {
        return;
    }
    let stage = Stage::open("tests/recipes", |_| {}).await;
    stage.create("world", "toy", &[("MOTTO", "said before the restart")]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    let container = container_of(&stage);
    let stage = stage.restart().await;
    let answer = stage.program.app.console(&stage.caller, "world", "turn").await.unwrap();
    assert!(answer.contains("turn 2"), "{answer}");
    let log = log_of(&stage, "world").await;
    assert!(log.contains("said before the restart") && log.contains("turn 2"), "{log}");
    assert_eq!(container_of(&stage), container);
    stage.close().await;
}

#[tokio::test]
async fn a_container_that_somebody_removes_is_started_again_with_its_world() {
    if !ready().await {
        return;
    }
    let stage = Stage::open("tests/recipes", |_| {}).await;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 3).await;
    let removed = container_of(&stage);
    docker(&["rm", "-f", &removed]);
    stage
        .until("the start after the removal", async || {
            let view = stage.program.app.status(&stage.caller, "world").await.unwrap();
            let there = containers_of(&stage, "game");
            (view.state == State::Running && view.job.is_none() && !there.is_empty() && there[0] != removed)
                .then_some(())
        })
        .await;
    let log = log_of(&stage, "world").await;
    assert!(log.contains("with 3 turns"), "{log}");
    stage.close().await;
}

#[tokio::test]
async fn an_image_that_somebody_removes_at_the_last_moment_is_not_missed() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let variants = Variants::new().with("twice", &[]);
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    stage.create("world", "twice", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    // Another image of the same game.
    let install = Path::new(variants.path()).join("twice/install");
    std::fs::write(&install, std::fs::read_to_string(&install).unwrap() + "# again\n").unwrap();
    let stage = stage.restart().await;
    stage.succeeds(stage.program.app.snapshot_build(&stage.caller, "twice", None).await.unwrap()).await;
    stage.stop_server("world").await;

    relay.hold_at(&["POST ", "/containers/create", "-hands-"]);
    let job = stage.program.app.delete(&stage.caller, "world", "world", None).await.unwrap();
    relay.caught().await;
    let images = docker(&["images", "--no-trunc", "--quiet", "spawnpoint/twice"]);
    let images: Vec<&str> = images.lines().collect();
    assert!(images.len() > 1, "{images:?}");
    docker(&["image", "rm", "--force", images[0]]);
    relay.release();
    stage.succeeds(job).await;
    close(stage, &variants).await;
}

#[tokio::test]
async fn a_volume_that_somebody_prunes_is_declared_again() {
    if !ready().await {
        return;
    }
    let stage = Stage::open("tests/recipes", |_| {}).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let prune = || {
        let filter = format!("label=spawnpoint.instance={}", stage.instance);
        let volumes = docker(&["volume", "ls", "-q", "--filter", &filter]);
        assert!(!volumes.is_empty());
        volumes.lines().for_each(|volume| drop(docker(&["volume", "rm", volume])));
    };
    stage.start("world").await;
    stage.turns("world", 2).await;
    stage.stop_server("world").await;
    prune();
    // Its world can be read without a start, and it starts.
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    prune();
    stage.start("world").await;
    let log = log_of(&stage, "world").await;
    assert!(log.contains("with 2 turns"), "{log}");
    stage.stop_server("world").await;
    prune();
    stage.close().await;
}

#[tokio::test]
async fn a_drive_that_somebody_deletes_is_begun_again_from_a_backup() {
    if !ready().await {
        return;
    }
    // The watcher looks once: in the moment between a kill's wish and its deed it would stop the server the gentle
    // way, and then the world would be in the vault after all.
    let stage = Stage::open("tests/recipes", |config| config.watch.every_seconds = 3600).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    stage.stop_server("world").await;
    let backup = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    let delete_drive = || drive_folders(&stage).iter().for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    // What is on it is in the vault as well: the start takes it from there.
    delete_drive();
    stage.start("world").await;
    let log = log_of(&stage, "world").await;
    assert!(log.contains("with 2 turns"), "{log}");

    // Played on since, and nothing of that is in the vault: that is said, and not played over.
    stage.turns("world", 1).await;
    app.kill(&stage.caller, "world").await.unwrap();
    stage
        .until("the end of the killed game", async || {
            (app.status(&stage.caller, "world").await.unwrap().state == State::Offline).then_some(())
        })
        .await;
    delete_drive();
    let said = sentence(&stage, app.start(&stage.caller, "world", None).await.unwrap(), Outcome::Failed).await;
    assert!(said.contains("gone from the disk") && said.contains("/backup restore"), "{said}");
    assert!(said.contains(&backup), "{said}");
    stage.succeeds(app.restore(&stage.caller, "world", &backup, None).await.unwrap()).await;
    stage.start("world").await;
    let log = log_of(&stage, "world").await;
    assert!(log.contains("with 2 turns"), "{log}");
    stage.close().await;
}

/// Something mounted into a drive, which keeps its folder from being deleted to the end.
struct Mounted(PathBuf);

impl Mounted {
    fn on(folder: PathBuf) -> Mounted {
        std::fs::create_dir(&folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&folder).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        Mounted(folder)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_drive_whose_deletion_breaks_off_is_not_played_on_again() {
    if !ready().await || !root_or_skip("mounting") {
        return;
    }
    let stage = Stage::open("tests/recipes", |_| {}).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    stage.stop_server("world").await;
    let old = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    let folder = drive_folders(&stage).remove(0);
    let drive = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let inside = folder.join("upper/stuck");
    let mounted = Mounted::on(inside.clone());
    let job = app.restore(&stage.caller, "world", &old, None).await.unwrap();
    sentence(&stage, job, Outcome::Held).await;
    assert!(!folder.exists(), "half of it is there under its own name");
    app.choose(&stage.caller, "world", Choice::Abandon).await.unwrap();
    stage
        .until("the end of the abandoned job", async || {
            (app.job_view(job).await.unwrap().outcome == Some(Outcome::Abandoned)).then_some(())
        })
        .await;
    let start = stage.start("world").await;
    let cloned = start.steps.iter().find(|step| step.label == Step::CloneDrive.label()).unwrap();
    assert_eq!(cloned.note.as_deref(), Some("toy-1"), "a fresh drive");
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));

    // The new drive of the restore is nobody's now, and what is being deleted is not shown.
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let [left] = &orphans.found[..] else { panic!("one drive: {orphans:#?}") };
    assert_ne!(left.orphan.id, drive);
    app.orphan_delete(&stage.caller, &left.orphan.tag()).await.unwrap();
    assert!(app.orphans(&stage.caller).await.unwrap().found.is_empty());
    // The folder was renamed under the mount.
    let moved = Mounted(folder.with_file_name(format!(".deleting-{drive}")).join("upper/stuck"));
    assert!(moved.0.exists());
    drop((mounted, moved));
    let stage = stage.restart().await;
    stage.until("the rest of the old drive to go", async || (drive_folders(&stage).len() == 1).then_some(())).await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    stage.close().await;
}
