//! The docker backend: a server is a container on a copy-on-write drive that stands on a golden snapshot. Needs the
//! Docker socket and no root: folders are ours, the daemon mounts them, games run as their owner.
//!
//! `daemon` knows what follows from the daemon at hand, `snapshots` builds what drives stand on, `drives` clones and replaces them,
//! `folders` makes and deletes what both lie in, `worlds` moves worlds between a drive and the vault, `paths` has the
//! daemon send them, `game` starts and stops the container, `talk` speaks to the game in it, `orphans` finds what was
//! forgotten, `leftovers` clears away what nobody can want. What exists outside is found by its name and its labels, never
//! by memory.

mod daemon;
mod drives;
mod folders;
mod game;
mod leftovers;
mod orphans;
mod paths;
mod ports;
mod ready;
mod snapshots;
mod talk;
mod worlds;

pub use daemon::{Daemon, Ids};
pub use drives::{DriveKind, usage};
pub use leftovers::{Leftovers, OnRecord};

use crate::clients::docker::{Docker, DockerError};
use crate::drivers::backups::Backups;
use crate::drivers::blocking;
use crate::drivers::talk::{Typist, quiesce, quiesce_limit_s, resume_saves, say, undo_quiesce, warn_players};
use crate::engine::{ConsoleFault, Driver, StepCx, StepError};
use crate::model::ServerId;
use crate::model::drive::Snapshot;
use crate::model::job::{Gain, Step};
use crate::model::recipe::Recipe;
use crate::model::server::{Seen, Server};
use crate::model::sweep::{Orphan, Sweep};
use crate::recipes::Recipes;
use crate::vault::{Policy, Vault};
use async_trait::async_trait;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The container's side of everything: where the game's files are, and where our scripts.
pub const GAME_DIR: &str = "/srv/game";
pub const SCRIPTS_DIR: &str = "/opt/spawnpoint";

pub const LABEL_INSTANCE: &str = "spawnpoint.instance";
pub const LABEL_SERVER: &str = "spawnpoint.server";
pub const LABEL_ROLE: &str = "spawnpoint.role";

/// Time limits of steps whose length no recipe decides, in seconds.
const SHORT_STEP_S: u64 = 120;
const TRANSFER_STEP_S: u64 = 2 * 3600;
/// Past the recipe's own limit for stopping: the kill that follows, and the daemon.
const STOP_SLACK_S: u64 = 60;

/// What the operator chose, and what this process is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tells our containers from those of another Spawnpoint on the same daemon.
    pub instance: String,
    pub data_dir: PathBuf,
    pub publish_address: IpAddr,
    pub public_address: Option<String>,
    pub ports: (u16, u16),
    pub ids: Ids,
    pub build_host_network: bool,
    /// How drives are made; `None` leaves it to what the daemon can do.
    pub drives: Option<DriveKind>,
    pub retention: Policy,
}

pub struct DockerDriver {
    docker: Docker,
    backups: Backups,
    recipes: Arc<Recipes>,
    settings: Settings,
    /// The numbers that this process has chosen: two starts must not take the same one between looking and writing down.
    chosen_ports: tokio::sync::Mutex<HashMap<ServerId, BTreeMap<String, u16>>>,
}

impl DockerDriver {
    pub fn new(docker: Docker, vault: Vault, recipes: Arc<Recipes>, settings: Settings) -> DockerDriver {
        let backups = Backups { vault, recipes: recipes.clone(), retention: settings.retention };
        DockerDriver { docker, backups, recipes, settings, chosen_ports: tokio::sync::Mutex::default() }
    }

    fn recipe(&self, game: &str) -> Result<&Recipe, StepError> {
        self.recipes.get(game).ok_or_else(|| {
            StepError::fatal(format!(
                "There is no recipe called `{game}` any more. It belongs into game-scripts/{game}/."
            ))
        })
    }

    fn labels(&self, server: Option<&ServerId>, role: &str) -> Vec<(String, String)> {
        let mut labels =
            vec![(LABEL_INSTANCE.to_owned(), self.settings.instance.clone()), (LABEL_ROLE.to_owned(), role.to_owned())];
        labels.extend(server.map(|id| (LABEL_SERVER.to_owned(), id.0.clone())));
        labels
    }

    /// The short form of the instance that names begin with.
    fn prefix(&self) -> String {
        format!("spawnpoint-{}", self.settings.instance.chars().take(8).collect::<String>())
    }
}

/// A daemon that is away may come back; everything else it says is final.
fn docker_error(what: &str) -> impl FnOnce(DockerError) -> StepError + '_ {
    move |error| {
        let passing = error.is_passing();
        let error = anyhow::Error::msg(format!("{what}: {error}"));
        if passing { StepError::Retry(error) } else { StepError::Fatal(error) }
    }
}

#[async_trait]
impl Driver for DockerDriver {
    async fn run(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        match step {
            Step::BuildImage => self.build_image(cx).await,
            Step::CreateSnapshot => self.create_snapshot(cx).await,
            Step::RunInstaller => self.run_installer(cx).await,
            Step::SealSnapshot => self.seal_snapshot(cx).await,
            Step::EnsureSnapshot => self.ensure_snapshot(cx).await,
            Step::CloneDrive => self.clone_drive(cx).await,
            Step::ReplaceDrive => self.replace_drive(cx).await,
            Step::DeleteDrive => self.delete_drive(cx).await,
            Step::PushWorld => self.push_world(cx).await,
            Step::QuiesceGame => quiesce(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::PullWorld => self.pull_world(cx).await,
            Step::VerifyWorld => self.verify_world(cx).await,
            Step::ResumeSaves => resume_saves(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::KeepBackup => self.keep_backup(cx).await,
            Step::CreateContainer => self.create_container(cx).await,
            Step::StartGame => self.start_game(cx).await,
            Step::AwaitReady => self.await_ready(cx).await,
            Step::WarnPlayers => warn_players(self, self.recipes.get(cx.game()), cx).await,
            Step::StopGame => self.stop_game(cx).await,
            Step::RemoveContainer => self.remove_container(cx).await,
            Step::CreateHost | Step::AwaitHost | Step::Bootstrap | Step::Install => Err(not_ours(step)),
            Step::DestroyHost | Step::ConfirmGone => Err(not_ours(step)),
        }
    }

    async fn undo(&self, step: Step, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        match step {
            // An image stays: the next build finds it, and nobody pays for it.
            Step::BuildImage => Ok(Gain::default()),
            Step::CreateSnapshot => self.undo_create_snapshot(cx).await,
            Step::RunInstaller => self.undo_run_installer(cx).await,
            // A sealed snapshot is good, whatever failed after it.
            Step::SealSnapshot | Step::EnsureSnapshot => Ok(Gain::default()),
            Step::CloneDrive => self.undo_clone_drive(cx).await,
            // What was pushed lies on the drive and is pushed again next time, unless the drive goes too.
            Step::PushWorld => self.undo_push_world(cx).await,
            Step::CreateContainer => self.undo_create_container(cx).await,
            Step::StartGame => self.undo_start_game(cx).await,
            Step::AwaitReady => Ok(Gain::default()),
            Step::QuiesceGame | Step::ResumeSaves => undo_quiesce(self, self.recipe(&cx.server()?.game)?, cx).await,
            Step::PullWorld => self.undo_pull_world(cx).await,
            Step::VerifyWorld | Step::KeepBackup => Ok(Gain::default()),
            Step::WarnPlayers | Step::StopGame | Step::RemoveContainer | Step::ReplaceDrive | Step::DeleteDrive => {
                Err(StepError::fatal("saving and deleting are never undone"))
            }
            Step::CreateHost | Step::AwaitHost | Step::Bootstrap | Step::Install => Err(not_ours(step)),
            Step::DestroyHost | Step::ConfirmGone => Err(not_ours(step)),
        }
    }

    fn time_limit(&self, step: Step, cx: &StepCx<'_>) -> Duration {
        limit_of(step, self.recipes.get(cx.game()))
    }

    async fn look(&self, servers: &[Server]) -> Vec<Seen> {
        self.look_at(servers).await
    }

    async fn kill(&self, server: &Server) -> anyhow::Result<()> {
        match self.docker.kill(&self.container_name(server)).await {
            // Not there or not running: dead is what was wanted.
            Ok(()) | Err(DockerError::Gone(_) | DockerError::Conflict(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn console(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        self.type_line(server, line).await
    }

    async fn tell(&self, server: &Server, message: &str) -> anyhow::Result<()> {
        say(self, self.recipes.get(&server.game), server, message).await
    }

    async fn logs(&self, server: &Server, lines: usize) -> anyhow::Result<Vec<String>> {
        let lines = self.docker.recent_logs(&self.container_name(server), lines).await?;
        Ok(lines.into_iter().map(|line| line.text).collect())
    }

    async fn sweep(&self, servers: &[Server]) -> anyhow::Result<Sweep> {
        Ok(Sweep { orphans: self.find_orphans(servers).await?, ..Sweep::default() })
    }

    async fn delete_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        self.remove_orphan(orphan).await
    }

    async fn own_bytes(&self, server: &Server) -> anyhow::Result<Option<u64>> {
        let Some(drive) = &server.owned.drive else { return Ok(None) };
        let dir = self.drive_dir(&drive.id);
        Ok(Some(tokio::task::spawn_blocking(move || usage(&drives::own_files(&dir))).await??.bytes))
    }

    fn is_copy(&self, server: &Server) -> bool {
        let drive = server.owned.drive.as_ref();
        drive.is_some_and(|drive| drives::kind_on_disk(&self.drive_dir(&drive.id)) == Some(DriveKind::Copy))
    }

    async fn delete_snapshot(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        match self.remove_snapshot_files(&snapshot.id).await {
            Ok(()) => Ok(()),
            Err(StepError::Retry(error) | StepError::Fatal(error)) => Err(error),
        }
    }
}

fn not_ours(step: Step) -> StepError {
    StepError::fatal(format!("{step:?} is no step of the docker backend"))
}

/// How long one step may take; `None` where its game has no recipe any more.
fn limit_of(step: Step, recipe: Option<&Recipe>) -> Duration {
    let of_recipe = |seconds: fn(&Recipe) -> u64, or: u64| recipe.map_or(or, seconds);
    Duration::from_secs(match step {
        Step::BuildImage => of_recipe(|recipe| recipe.timeouts.bootstrap_s, TRANSFER_STEP_S),
        Step::RunInstaller => of_recipe(|recipe| recipe.timeouts.install_s, TRANSFER_STEP_S),
        // It may wait for another job that builds.
        Step::EnsureSnapshot => {
            of_recipe(|recipe| recipe.timeouts.bootstrap_s + recipe.timeouts.install_s, TRANSFER_STEP_S) + SHORT_STEP_S
        }
        Step::AwaitReady => of_recipe(|recipe| recipe.ready.timeout_s, SHORT_STEP_S),
        Step::StopGame => of_recipe(|recipe| recipe.stop.grace_s, SHORT_STEP_S) + STOP_SLACK_S,
        // Undoing it stops the game; so does making a container where one of an earlier start still runs. And a start may
        // make some, for other ports.
        Step::CreateContainer | Step::StartGame => {
            of_recipe(|recipe| recipe.stop.grace_s, SHORT_STEP_S) + STOP_SLACK_S + SHORT_STEP_S
        }
        Step::PushWorld | Step::PullWorld | Step::VerifyWorld | Step::KeepBackup => TRANSFER_STEP_S,
        Step::SealSnapshot | Step::CloneDrive | Step::ReplaceDrive | Step::DeleteDrive => TRANSFER_STEP_S,
        Step::CreateSnapshot | Step::RemoveContainer => SHORT_STEP_S,
        Step::QuiesceGame | Step::ResumeSaves => of_recipe(quiesce_limit_s, SHORT_STEP_S),
        Step::WarnPlayers => SHORT_STEP_S,
        Step::CreateHost | Step::AwaitHost | Step::Bootstrap | Step::Install => SHORT_STEP_S,
        Step::DestroyHost | Step::ConfirmGone => SHORT_STEP_S,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_have_to_stop_a_game_has_time_to_end_it_by_force() {
        let text = include_str!("../../../game-scripts/openttd/recipe.toml");
        let mut recipe = Recipe::parse(text, "recipe.toml").unwrap();
        for grace_s in [5, 120, 3600] {
            recipe.stop.grace_s = grace_s;
            let force = Duration::from_secs(grace_s) + game::KILL_GRACE;
            for step in [Step::StopGame, Step::StartGame, Step::CreateContainer] {
                assert!(limit_of(step, Some(&recipe)) > force, "{step:?} with {grace_s} s");
            }
        }
    }
}
