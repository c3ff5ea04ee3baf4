//! Recipes whose scripts are broken.

use super::*;
use spawnpoint::model::server::State;

#[tokio::test]
async fn a_broken_recipe_says_what_is_broken_and_leaves_nothing() {
    if !ready().await {
        return;
    }
    let script = "nothing to install from the system\"";
    let variants = Variants::new()
        .with("bootless", &[("bootstrap", script, "cannot find the compiler\"\nexit 1")])
        .with("installless", &[("install", "echo \"installed 202 files\"", "echo \"the mirror is on fire\"\nexit 5")])
        .with("empty", &[("install", "cd \"$GAME_DIR\"", "exit 0")])
        .with(
            "endless",
            &[
                ("install", "cd \"$GAME_DIR\"", "cd \"$GAME_DIR\"\nwhile :; do sleep 0.1; done"),
                ("recipe.toml", "install_s = 60", "install_s = 2"),
            ],
        )
        .with("baseless", &[("recipe.toml", "spawnpoint-test/busybox:1", "localhost:1/spawnpoint-test/absent:1")])
        .with("silent", &[("recipe.toml", "timeout_s = 20", "timeout_s = 2")]);
    let stage = Stage::open(variants.path(), |_| {}).await;
    let app = &stage.program.app;
    let table = [
        ("bootless", vec!["The bootstrap script failed", "cannot find the compiler"]),
        ("installless", vec!["exit code 5", "the mirror is on fire"]),
        ("empty", vec!["left no files"]),
        ("endless", vec!["Installing the game took longer than 2 s"]),
        ("baseless", vec!["`localhost:1/spawnpoint-test/absent:1` is not on this machine", "scripts/lib/base-image"]),
        ("silent", vec!["Waiting until people can join took longer than 2 s"]),
    ];
    let mut jobs = vec![];
    for (game, _) in &table {
        let settings: &[_] = if *game == "silent" { &[("BEHAVIOUR", "never-ready")] } else { &[] };
        stage.create(game, game, settings).await;
        jobs.push(app.start(&stage.caller, game, None).await.unwrap());
    }
    for ((game, words), job) in table.iter().zip(jobs) {
        let said = sentence(&stage, job, Outcome::Failed).await;
        for word in words {
            assert!(said.contains(word), "{game}: {said}");
        }
        assert_eq!(app.status(&stage.caller, game).await.unwrap().state, State::Offline, "{game}");
    }
    // Of all of them only what is whole stays: the snapshot of the game that never got ready.
    let snapshots: Vec<_> = app.snapshots(&stage.caller).await.unwrap().into_iter().map(|one| one.id).collect();
    assert_eq!(snapshots, ["silent-1"]);
    assert!(containers_of(&stage, "installer").is_empty() && containers_of(&stage, "game").is_empty());
    assert!(drive_folders(&stage).len() <= 1, "{:?}", drive_folders(&stage));
    close(stage, &variants).await;
}

/// Its memory is the machine's, and the games' beside it.
#[tokio::test]
async fn an_installer_has_limits() {
    if !ready().await {
        return;
    }
    let waits = "cd \"$GAME_DIR\"\necho waiting\nwhile [ ! -f go ]; do sleep 0.1; done";
    let variants = Variants::new().with("modest", &[("install", "cd \"$GAME_DIR\"", waits)]).with(
        "large",
        &[
            ("bootstrap", "nothing to install", "nothing to install for anything large"),
            ("install", "cd \"$GAME_DIR\"", waits),
            ("recipe.toml", "memory_mb = 64\ncpus = 1.0", "memory_mb = 5000\ncpus = 1.5"),
        ],
    );
    let stage = Stage::open(variants.path(), |_| {}).await;
    for (game, memory_mb, nano_cpus) in [("modest", 4096_u64, 1_000_000_000), ("large", 5000, 1_500_000_000)] {
        let job = stage.program.app.snapshot_build(&stage.caller, game, None).await.unwrap();
        says(&stage, job, Step::RunInstaller, "waiting").await;
        let installer = containers_of(&stage, "installer").remove(0);
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
        let limits = docker(&["inspect", "--format", format, &installer]);
        std::fs::write(stage.config.data_dir.join(format!("snapshots/{game}-1/files/go")), "").unwrap();
        stage.succeeds(job).await;
        assert_eq!(limits, format!("{} {nano_cpus} 4096", memory_mb << 20), "{game}");
    }
    close(stage, &variants).await;
}
