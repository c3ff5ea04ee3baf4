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
        .with("greedy", &[("bootstrap", script, "unpacking\" >&2\nexit 137")])
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
        ("greedy", vec!["code: 137", "more than its 4096 MB of memory", "Its last line: unpacking"]),
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

/// Their memory is the machine's, and the games' beside them.
#[tokio::test]
async fn a_bootstrap_and_an_installer_have_limits() {
    if !ready().await {
        return;
    }
    // What the kernel says inside of the bootstrap, of either kind of cgroup. The builder takes no layer of another game's,
    // because the game's name is in it.
    let counts = |game: &str| {
        let files = "memory.max memory.swap.max cpu.max memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us";
        format!("echo {game}; cd /sys/fs/cgroup; cat {files} 2>/dev/null >/limits || true")
    };
    let (modest, large) = (counts("modest"), counts("large"));
    let system = "echo \"nothing to install from the system\"";
    let waits = "cd \"$GAME_DIR\"\necho waiting with $(cat /limits) .\nwhile [ ! -f go ]; do sleep 0.1; done";
    let variants =
        Variants::new().with("modest", &[("bootstrap", system, &modest), ("install", "cd \"$GAME_DIR\"", waits)]).with(
            "large",
            &[
                ("bootstrap", system, &large),
                ("install", "cd \"$GAME_DIR\"", waits),
                ("recipe.toml", "memory_mb = 64\ncpus = 1.0", "memory_mb = 5000\ncpus = 1.5"),
            ],
        );
    let stage = Stage::open(variants.path(), |_| {}).await;
    for (game, memory_mb, nano_cpus) in [("modest", 4096_u64, 1_000_000_000), ("large", 5000, 1_500_000_000)] {
        let job = stage.program.app.snapshot_build(&stage.caller, game, None).await.unwrap();
        says(&stage, job, Step::RunInstaller, "waiting with").await;
        let output = stage.program.app.job_view(job).await.unwrap().output;
        let said = output.iter().find(|line| line.contains("waiting with")).unwrap();
        let (bytes, quota) = (memory_mb << 20, nano_cpus / 10_000);
        let kinds = [format!("0 {quota}"), format!("{bytes} {quota}"), format!("{quota}")];
        let counted = kinds.map(|kind| format!("waiting with {bytes} {kind} 100000 ."));
        assert!(counted.contains(said), "{game}: {said}");
        let installer = containers_of(&stage, "installer").remove(0);
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
        let limits = docker(&["inspect", "--format", format, &installer]);
        std::fs::write(stage.config.data_dir.join(format!("snapshots/{game}-1/files/go")), "").unwrap();
        stage.succeeds(job).await;
        assert_eq!(limits, format!("{} {nano_cpus} 4096", memory_mb << 20), "{game}");
    }
    close(stage, &variants).await;
}
