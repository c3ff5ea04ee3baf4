//! What goes wrong outside of Spawnpoint, for real: broken recipes, a daemon that goes away, a full disk, hands that
//! remove what is ours, a user who is not root, a daemon that is not root or lets nobody write. Each has a clear sentence, leaves nothing half-done, and can be mended.

#[path = "faults/commands.rs"]
mod commands;
#[path = "faults/daemon.rs"]
mod daemon;
#[path = "faults/disk.rs"]
mod disk;
#[path = "faults/hands.rs"]
mod hands;
#[path = "faults/ports.rs"]
mod ports;
#[path = "faults/recipes.rs"]
mod recipes;
#[path = "faults/relay.rs"]
mod relay;
#[path = "faults/rootless.rs"]
mod rootless;
#[path = "common/stage.rs"]
mod stage;
#[path = "faults/transfers.rs"]
mod transfers;
#[path = "faults/user.rs"]
mod user;

use spawnpoint::model::JobId;
use spawnpoint::model::job::{Outcome, Step, StepState};
use spawnpoint::model::view::JobView;
use stage::{Stage, docker_or_skip, test_image};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of recipes that are made from the toy.
struct Variants(tempfile::TempDir);

impl Variants {
    fn new() -> Variants {
        let home = tempfile::Builder::new().prefix("spawnpoint-variants-").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Variants(home)
    }

    /// The toy under another name, with these replacements: file, what is there, what comes in its place.
    pub fn with(self, game: &str, changes: &[(&str, &str, &str)]) -> Variants {
        let folder = self.0.path().join(game);
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/toy"), &folder);
        let name = ("recipe.toml", "game = \"toy\"", &*format!("game = \"{game}\""));
        for (file, old, new) in [name].iter().chain(changes) {
            let path = folder.join(file);
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.contains(old), "{file} of the toy has no {old:?} any more");
            std::fs::write(&path, text.replacen(old, new, 1)).unwrap();
        }
        self
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Whether this machine can run the tests at all; makes what they stand on.
pub async fn ready() -> bool {
    let ready = docker_or_skip().await;
    if ready {
        test_image("busybox");
    }
    ready
}

/// Some of it only root can do. A laptop skips; CI is root.
pub fn root_or_skip(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(root || std::env::var("CI").is_err(), "{what} needs root");
    if !root {
        println!("skipped: {what} needs root");
    }
    root
}

pub async fn log_of(stage: &Stage, name: &str) -> String {
    stage.program.app.logs(&stage.caller, name, 100).await.unwrap()
}

/// The sentence of a job that ended like this.
pub async fn sentence(stage: &Stage, job: JobId, outcome: Outcome) -> String {
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(outcome), "{end:#?}");
    error_of(&end)
}

pub fn error_of(view: &JobView) -> String {
    view.steps.iter().find_map(|step| step.error.clone()).unwrap_or_else(|| panic!("no step says why: {view:#?}"))
}

/// Waits until a step is under way and has said this.
pub async fn says(stage: &Stage, job: JobId, step: Step, words: &str) {
    stage
        .until(&format!("{words:?} from {step:?}"), async || {
            let view = stage.program.app.job_view(job).await.unwrap();
            assert_eq!(view.outcome, None, "{view:#?}");
            let runs = view.steps.iter().any(|one| one.label == step.label() && one.state == StepState::Running);
            (runs && view.output.iter().any(|line| line.contains(words))).then_some(())
        })
        .await
}

/// The one game container of a stage, asked of the daemon and not of us.
pub fn container_of(stage: &Stage) -> String {
    let found = containers_of(stage, "game");
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

pub fn containers_of(stage: &Stage, role: &str) -> Vec<String> {
    let instance = format!("label=spawnpoint.instance={}", stage.instance);
    let role = format!("label=spawnpoint.role={role}");
    let ids = docker(&["ps", "-aq", "--no-trunc", "--filter", &instance, "--filter", &role]);
    ids.lines().map(str::to_owned).collect()
}

/// Docker's own command line, which has nothing to do with our client.
pub fn docker(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().expect("docker can be run");
    assert!(done.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

pub fn drive_folders(stage: &Stage) -> Vec<PathBuf> {
    let found = std::fs::read_dir(stage.config.data_dir.join("drives")).into_iter().flatten();
    found.map(|entry| entry.unwrap().path()).collect()
}

/// Closes the stage, and takes the images of its variants away: nobody builds on them again.
async fn close(stage: Stage, _variants: &Variants) {
    let label = [("spawnpoint.instance".to_owned(), stage.instance.clone())];
    let docker = stage.docker.clone();
    stage.close().await;
    for image in docker.images(&label).await.unwrap() {
        docker.remove_image(&image).await.unwrap();
    }
}
