//! What only the docker backend does, on a real daemon with real overlay drives. What every backend does is in drivers.rs.

#[path = "common/stage.rs"]
mod stage;

use spawnpoint::app::{Choice, UpdateWhen};
use spawnpoint::clients::docker::{Docker, OverlayVolume};
use spawnpoint::drivers::fake::Outside;
use spawnpoint::model::GuildId;
use spawnpoint::model::access::Caller;
use spawnpoint::model::drive::SnapshotId;
use spawnpoint::model::job::{Outcome, Step};
use spawnpoint::model::server::{Backend, State};
use stage::{Stage, docker_or_skip, test_image};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

async fn toy() -> Option<Stage> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    Some(Stage::open("tests/recipes", |_| {}).await)
}

/// A shell has what it puts into the background ignore that signal, and some games are stopped by it.
#[tokio::test]
async fn a_start_script_can_listen_to_sigint() {
    if !docker_or_skip().await {
        return;
    }
    test_image("keeper");
    let home = tempfile::tempdir().unwrap();
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/drivers/docker/run.sh");
    std::fs::copy(run, home.path().join("run")).unwrap();
    let start = home.path().join("start");
    std::fs::write(&start, "#!/usr/bin/env bash\ntrap 'echo heard; exit 5' INT\nkill -INT $$\nexit 3\n").unwrap();
    std::fs::set_permissions(&start, std::fs::Permissions::from_mode(0o755)).unwrap();
    let volume = format!("{}:/opt/spawnpoint:ro", home.path().display());
    let ran = Command::new("docker")
        .args(["run", "--rm", "--volume", &volume, "spawnpoint-test/keeper:1", "sh", "/opt/spawnpoint/run"])
        .output()
        .unwrap();
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stdout).trim()), (Some(5), "heard"), "{ran:?}");
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
    stage.turns("world", 3).await;

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
async fn a_game_gets_no_more_than_its_settings_say_and_no_rights() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    // None of these is the recipe's own number.
    let limits = [("memory_mb", "96"), ("cpus", "0.5"), ("pids", "40")];
    let limits = limits.map(|(key, value)| (key.to_owned(), value.to_owned()));
    app.settings_apply(&stage.caller, "world", limits.into()).await.unwrap();
    stage.start("world").await;
    let inspected = || {
        let label = format!("label=spawnpoint.instance={}", stage.instance);
        let script = format!("docker inspect $(docker ps -q --filter {label} --filter label=spawnpoint.role=game)");
        let done = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        let found: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
        found[0].clone()
    };
    let game = inspected();
    let host = |key: &str| game["HostConfig"][key].clone();
    let keys = ["Memory", "MemorySwap", "NanoCpus", "PidsLimit", "Privileged", "CapAdd", "CapDrop", "SecurityOpt"];
    insta::assert_snapshot!(keys.map(|key| format!("{key} {}", host(key))).join("\n"), @r#"
    Memory 100663296
    MemorySwap 100663296
    NanoCpus 500000000
    PidsLimit 40
    Privileged false
    CapAdd null
    CapDrop ["ALL"]
    SecurityOpt ["no-new-privileges:true"]
    "#);
    assert_eq!(game["Config"]["StopTimeout"], 8, "a daemon that ends gives it the time of its recipe");
    use std::os::unix::fs::PermissionsExt;
    let folder = std::fs::metadata(&stage.config.data_dir).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700, "games keep passwords below");
    let user = game["Config"]["User"].as_str().unwrap_or_default();
    assert!(!["", "0", "root"].contains(&user.split(':').next().unwrap_or_default()), "it runs as {user:?}");

    stage.stop_server("world").await;
    let emptied = ["memory_mb", "cpus", "pids"].map(|key| (key.to_owned(), String::new()));
    app.settings_apply(&stage.caller, "world", emptied.into()).await.unwrap();
    stage.start("world").await;
    let game = inspected();
    let host = |key: &str| game["HostConfig"][key].clone();
    assert_eq!(["Memory", "NanoCpus", "PidsLimit"].map(host), [64 << 20, 1_000_000_000, 64], "the recipe's again");
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
async fn an_update_moves_a_server_to_the_newest_snapshot_with_its_world() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 4).await;
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

/// The program ended when the drive was made and not yet on record, and a newer snapshot was sealed before it went on.
#[tokio::test]
async fn a_drive_that_a_try_before_made_stands_on_the_snapshot_that_the_record_names() {
    let Some(mut stage) = toy().await else { return };
    stage.create("world", "toy", &[]).await;
    for _ in 0..2 {
        stage.succeeds(stage.program.app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    }
    stage.rest().await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let server = stage.program.store.server_by_name(&stage.caller.guild, "world").await.unwrap().unwrap();
    let drive = stage.config.data_dir.join(format!("drives/{}-{job}", server.id));
    let below = |folder: &str| drive.join(folder).to_str().unwrap().to_owned();
    let left = OverlayVolume {
        name: format!("spawnpoint-{}-drive-{}-{job}", &stage.instance[..8], server.id),
        lower: stage.config.data_dir.join("snapshots/toy-1/files").to_str().unwrap().to_owned(),
        upper: below("upper"),
        work: below("work"),
        labels: vec![("spawnpoint.instance".to_owned(), stage.instance.clone())],
    };
    for folder in [&left.upper, &left.work] {
        std::fs::create_dir_all(folder).unwrap();
    }
    stage.docker.create_overlay_volume(&left).await.unwrap();

    let stage = stage.work_now();
    stage.succeeds(job).await;
    let view = stage.program.app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(view.snapshot.as_deref(), Some("toy-2"));
    let volume = stage.docker.volume(&left.name).await.unwrap().expect("the drive is in use");
    assert!(volume.options["o"].contains("/snapshots/toy-2/files"), "{volume:?}");
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
    stage.turns("world", 2).await;
    stage.stop_server("world").await;
    stage.start("world").await;
    let log = stage.program.app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 2 turns"), "{log}");
    let snapshots = stage.program.app.snapshots(&stage.caller).await.unwrap();
    assert!(snapshots.iter().all(|snapshot| snapshot.copied), "nobody says that they are shared: {snapshots:?}");
    stage.close().await;
}

#[tokio::test]
async fn what_a_broken_off_deletion_left_of_snapshots_goes_at_the_next_start() {
    let Some(stage) = toy().await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.succeeds(app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    // The program ended when the record was gone and the files were not, and once more in the middle of the files.
    let folder = stage.config.data_dir.join("snapshots");
    let newest = app.snapshots(&stage.caller).await.unwrap().into_iter().find(|one| one.id == "toy-2").unwrap();
    stage.program.store.forget_snapshot(&SnapshotId(newest.id)).await.unwrap();
    std::fs::create_dir_all(folder.join(".deleting-toy-3/files")).unwrap();
    let names = || {
        let found = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        found.collect::<BTreeSet<_>>()
    };
    assert_eq!(names().len(), 3, "{:?}", names());
    let stage = stage.restart().await;
    stage.until("the rest to go", async || (names().len() == 1).then_some(())).await;
    assert!(names().contains("toy-1"), "{:?}", names());
    stage.close().await;
}

/// A folder with the toy's recipe, to be changed.
fn copied_toy() -> tempfile::TempDir {
    let recipes = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp")
        .args(["-a", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recipes/toy")])
        .arg(recipes.path())
        .status();
    assert!(copied.unwrap().success());
    recipes
}

/// An image of a name of its own, gone with the test.
struct Base(String);

impl Base {
    fn new() -> Base {
        Base(format!("spawnpoint-test/base-{}:1", std::process::id()))
    }

    /// Makes it, or another one of the same name.
    fn make(&self, content: &str) {
        let mut build = Command::new("docker")
            .args(["build", "--quiet", "--tag", &self.0, "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let dockerfile = format!("FROM spawnpoint-test/busybox:1\nLABEL content={content}\n");
        std::io::Write::write_all(&mut build.stdin.take().unwrap(), dockerfile.as_bytes()).unwrap();
        assert!(build.wait().unwrap().success());
    }

    fn remove(&self) {
        let removed = Command::new("docker").args(["rmi", "--force", &self.0]).output().unwrap();
        assert!(removed.status.success(), "{removed:?}");
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "--force", &self.0]).output();
    }
}

/// What the base holds goes into an image as much as what its recipe says.
#[tokio::test]
async fn a_newer_base_of_the_same_name_makes_another_image() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let (recipes, base) = (copied_toy(), Base::new());
    let recipe = recipes.path().join("toy/recipe.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let based = text.replace("spawnpoint-test/busybox:1", &base.0);
    assert_ne!(based, text, "the toy has another base");
    std::fs::write(&recipe, based).unwrap();
    base.make("first");
    let stage = Stage::open(recipes.path().to_str().unwrap(), |_| {}).await;
    let (app, store) = (&stage.program.app, &stage.program.store);
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let build = async || stage.succeeds(app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    build().await;
    base.make("second");
    build().await;
    let images: BTreeMap<_, _> =
        store.snapshots_all().await.unwrap().into_iter().map(|one| (one.version, one.image)).collect();
    assert_eq!(images[&1], images[&2], "nothing has changed");
    assert_ne!(images[&2], images[&3], "the base has");
    let docker = Docker::connect(None).unwrap();
    let label = docker.image(&images[&3]).await.unwrap().unwrap().labels.remove("content");
    assert_eq!(label.as_deref(), Some("second"));
    // Where the base is not kept, what was built on it does: the game runs, and its world is put away and brought back.
    stage.stop_server("world").await;
    base.remove();
    stage.start("world").await;
    stage.stop_server("world").await;
    stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 2 turns"), "{log}");
    stage.close().await;
}

/// The stop script is broken, and the game takes longer to save than a game gets that is ended by force.
#[tokio::test]
async fn a_game_whose_stop_script_fails_still_has_its_grace_to_save() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let recipes = copied_toy();
    let edit = |name: &str, from: &str, to: &str| {
        let path = recipes.path().join("toy").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} has changed: {text}");
        std::fs::write(&path, text.replace(from, to)).unwrap();
    };
    edit("recipe.toml", "grace_s = 8", "grace_s = 30");
    edit("stop", "set -eu", "exit 9");
    edit("start", "trap 'save; echo", "trap 'sleep 12; turns=77; save; echo");
    let stage = Stage::open(recipes.path().to_str().unwrap(), |_| {}).await;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 1).await;
    let stop = stage.stop_server("world").await;
    let step = stop.steps.iter().find(|step| step.label == Step::StopGame.label()).unwrap();
    let note = step.note.as_deref().unwrap_or_default();
    assert_eq!(note, "ended by a signal: its stop script failed with exit code 9");
    stage.start("world").await;
    let log = stage.program.app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 77 turns"), "{log}");
    stage.close().await;
}

/// Players of a game without a command for it are not waited for: there is nothing that they could have heard.
#[tokio::test]
async fn a_game_that_cannot_tell_its_players_is_stopped_at_once_and_the_step_says_so() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let recipes = copied_toy();
    let recipe = recipes.path().join("toy/recipe.toml");
    let text = std::fs::read_to_string(&recipe).unwrap();
    let mute = text.replace("say = \"say {message}\"\n", "");
    assert_ne!(mute, text, "the toy has no such line any more");
    std::fs::write(&recipe, mute).unwrap();
    let stage = Stage::open(recipes.path().to_str().unwrap(), |_| {}).await;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let stop = stage.stop_server("world").await;
    let step = stop.steps.iter().find(|step| step.label == Step::WarnPlayers.label()).unwrap();
    assert_eq!(step.note.as_deref(), Some("this game cannot tell its players"));
    stage.close().await;
}

/// A game's snapshot belongs to no guild: one that has asked for its building and gone away blocks it for nobody.
#[tokio::test]
async fn admins_of_every_guild_may_call_off_the_building_of_a_snapshot() {
    let mut stage = Stage::open_on("tests/recipes", Backend::Docker, &Outside::default()).await;
    stage.rest().await;
    let app = &stage.program.app;
    let build = app.snapshot_build(&stage.caller, "toy", None).await.unwrap();
    let elsewhere = Caller::operator(GuildId("another".into()));
    app.choose(&elsewhere, "toy", Choice::Cancel).await.unwrap();
    let stage = stage.work_now();
    assert_eq!(stage.end_of(build).await.outcome, Some(Outcome::Cancelled));
    stage.close().await;
}
