//! Worlds that are cut off on their way between a drive and the vault.

use super::relay::Relay;
use super::*;
use spawnpoint::app::Choice;
use spawnpoint::config::DriveKind;
use spawnpoint::model::world::BackupId;
use spawnpoint::vault::{OwnerId, Vault};

/// A world that is larger than all the pipes it goes through, in files that a game may leave behind.
const GROWS: &str = "dd if=/dev/urandom of=\"world/region-$i\" bs=1048576 count=1 2>/dev/null; i=$((i + 1)); done; \
    echo \"it is large\"";
/// So much of it goes through before it is cut off.
const A_PART: usize = 3 << 20;

/// Each test has a game of its own: it takes the images away at its end, and another's container would stand on them.
fn large_worlds(game: &str) -> Variants {
    let grow = ("start", "echo \"region $i\" >\"world/region-$i\"; i=$((i + 1)); done; echo \"it is large\"", GROWS);
    Variants::new().with(game, &[grow])
}

/// Every file below, with all that is in it.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().is_file());
    let named = |path: &Path| (path.strip_prefix(folder).unwrap().to_owned(), std::fs::read(path).unwrap());
    files.map(|entry| named(entry.path())).collect()
}

/// The game's view of its drive, as it is before the game does anything more.
fn world_in(container: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("world");
    docker(&["cp", &format!("{container}:/srv/game/world"), to.to_str().unwrap()]);
    files_below(&to)
}

#[tokio::test]
async fn a_restore_that_is_called_off_half_way_leaves_nothing_under_the_newest_world() {
    if !ready().await {
        return;
    }
    for kind in [DriveKind::Auto, DriveKind::Copy] {
        let relay = Relay::open().await;
        let variants = large_worlds("regions");
        let stage = Stage::open(variants.path(), |config| {
            config.docker.endpoint = Some(relay.endpoint());
            config.docker.drives = kind;
        })
        .await;
        let app = &stage.program.app;
        stage.create("world", "regions", &[]).await;
        stage.start("world").await;
        stage.turns("world", 1).await;
        let answer = app.console(&stage.caller, "world", "grow").await.unwrap();
        assert!(answer.contains("it is large"), "{answer}");
        stage.stop_server("world").await;
        let old = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
        stage.start("world").await;
        stage.turns("world", 1).await;
        app.console(&stage.caller, "world", "wipe").await.unwrap();
        stage.stop_server("world").await;

        relay.swallow_after(A_PART, &["PUT ", "/archive"]);
        let job = app.restore(&stage.caller, "world", &old, None).await.unwrap();
        relay.caught().await;
        stage
            .until("a part of the old world on the drive", async || {
                let there = |folder: &PathBuf| {
                    ["upper", "files"].iter().any(|files| folder.join(files).join("world/region-1").exists())
                };
                drive_folders(&stage).iter().any(there).then_some(())
            })
            .await;
        app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
        assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Cancelled));

        let newest = app.backups(&stage.caller, "world").await.unwrap()[0].clone();
        assert!(newest.present, "{newest:#?}");
        let with = BackupId(newest.id.clone());
        stage.succeeds(app.start_with(&stage.caller, "world", &with, None).await.unwrap()).await;
        assert!(log_of(&stage, "world").await.contains("with 2 turns"), "{kind:?}");
        let vault = Vault::open(&stage.config.data_dir.join("vault")).unwrap();
        let owner: OwnerId = vault.owners().unwrap().remove(0);
        let newest = spawnpoint::vault::BackupId::parse(&newest.id).unwrap();
        let kept = files_below(&vault.home(&owner, &newest).join("files/world"));
        let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
        let played = world_in(&container_of(&stage));
        assert_eq!(names(&played), names(&kept), "{kind:?}");
        assert!(played == kept, "{kind:?}: some file has not the content that was kept");
        close(stage, &variants).await;
    }
}

#[tokio::test]
async fn a_backup_that_is_called_off_half_way_lets_the_game_save_again() {
    if !ready().await {
        return;
    }
    let relay = Relay::open().await;
    let variants = large_worlds("off-half-way");
    let stage = Stage::open(variants.path(), |config| config.docker.endpoint = Some(relay.endpoint())).await;
    let app = &stage.program.app;
    stage.create("world", "off-half-way", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    let answer = app.console(&stage.caller, "world", "grow").await.unwrap();
    assert!(answer.contains("it is large"), "{answer}");
    // The daemon falls silent in the middle of the world.
    relay.stall_after(A_PART, &["GET ", "/archive"]);
    let job = app.backup(&stage.caller, "world", None).await.unwrap();
    relay.caught().await;
    let vault = stage.config.data_dir.join("vault");
    let copied = |name: &str| {
        let files = walkdir::WalkDir::new(&vault).into_iter().flatten();
        files.filter(|entry| entry.path().ends_with(name)).count()
    };
    stage.until("a part of the world in the vault", async || (copied("world/region-0") > 0).then_some(())).await;
    app.choose(&stage.caller, "world", Choice::Cancel).await.unwrap();
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Cancelled), "{end:#?}");
    let log = log_of(&stage, "world").await;
    let (off, on) = (log.find("saving is off"), log.find("saving is on"));
    assert!(off.is_some() && off < on, "{log}");
    assert_eq!(copied("world/region-0"), 0, "half a copy is left");
    // Nothing of it is in the way of the next one.
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    assert_eq!(app.backups(&stage.caller, "world").await.unwrap().len(), 1);
    close(stage, &variants).await;
}

/// Its second path cannot be copied, and an admin goes on all the same.
#[tokio::test]
async fn a_world_of_which_a_part_was_read_is_never_kept_as_a_backup() {
    if !ready().await {
        return;
    }
    let pipe = "colours) mkfifo settings/keep.txt; echo \"it is blocked\" ;;";
    let variants = Variants::new().with(
        "blocked",
        &[
            ("start", "colours) printf '\\033[1;31mred\\033[0m alert\\n' ;;", pipe),
            ("start", "mkdir -p world settings .spawnpoint", "mkdir -p world settings .spawnpoint; rm -f settings/*"),
        ],
    );
    let stage = Stage::open(variants.path(), |_| {}).await;
    let app = &stage.program.app;
    stage.create("world", "blocked", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    let good = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    stage.turns("world", 1).await;
    let answer = app.console(&stage.caller, "world", "colours").await.unwrap();
    assert!(answer.contains("it is blocked"), "{answer}");
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let said = sentence(&stage, job, Outcome::Held).await;
    assert!(said.contains("a device, a pipe or a socket"), "{said}");
    stage
        .until("the stop that an admin forces", async || {
            let outcome = app.job_view(job).await.unwrap().outcome;
            if outcome == Some(Outcome::Held) {
                let _ = app.choose(&stage.caller, "world", Choice::Force).await;
            }
            (outcome == Some(Outcome::Succeeded)).then_some(())
        })
        .await;
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    let present: Vec<_> = backups.iter().map(|one| (one.id.as_str(), one.present)).collect();
    assert_eq!(present, [(good.as_str(), true)], "half a world was kept");
    // The drive still has all of it.
    stage.start("world").await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    close(stage, &variants).await;
}
