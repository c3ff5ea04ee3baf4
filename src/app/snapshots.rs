//! Games and their golden snapshots.

use super::{Answer, App, Did, Refusal, not_set_up};
use crate::engine::Ask;
use crate::model::JobId;
use crate::model::access::{Caller, Permission};
use crate::model::drive::{Snapshot, golden, users_of};
use crate::model::job::{Action, Cause, Subject};
use crate::model::recipe::Recipe;
use crate::model::server::{Backend, Server};
use crate::model::view::SnapshotView;

/// A game as people see it.
#[derive(Clone, Debug, PartialEq)]
pub struct GameView {
    pub game: String,
    pub title: String,
    pub description: String,
    pub homepage: Option<String>,
    /// `name number/protocol`, with who may reach it.
    pub ports: Vec<String>,
    pub memory_mb: u32,
    pub variables: Vec<VariableView>,
    pub console: Option<String>,
    pub keeps_world: bool,
    /// Whether the game can be asked who is on.
    pub counts_players: bool,
    /// Its golden snapshot, if one is sealed.
    pub snapshot: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VariableView {
    pub key: String,
    pub help: String,
    pub default: Option<String>,
    pub required: bool,
    pub secret: bool,
    /// What is allowed, for people: "a whole number from 1 to 64".
    pub allowed: String,
}

impl App {
    /// Every recipe, by title. Needs nothing: it is how people find out what there is.
    pub async fn game_list(&self, _caller: &Caller) -> Answer<Vec<GameView>> {
        let snapshots = self.store().snapshots_all().await?;
        let view = |recipe: &Recipe| game_view(recipe, golden(&snapshots, &recipe.game).map(|one| one.id.to_string()));
        Ok(self.inner.recipes.list().into_iter().map(view).collect())
    }

    pub async fn game(&self, _caller: &Caller, game: &str) -> Answer<GameView> {
        let recipe = self.recipe(game)?;
        let snapshots = self.store().snapshots_all().await?;
        Ok(game_view(recipe, golden(&snapshots, &recipe.game).map(|one| one.id.to_string())))
    }

    /// Names and titles, for choosing.
    pub async fn games(&self) -> Vec<(String, String)> {
        self.inner.recipes.list().into_iter().map(|recipe| (recipe.game.clone(), recipe.name.clone())).collect()
    }

    pub async fn snapshot_choices(&self) -> Vec<(String, String)> {
        let snapshots = self.store().snapshots_all().await.unwrap_or_default();
        let about = |one: &Snapshot| match (one.sealed_at, one.files) {
            (None, _) => "being built".to_owned(),
            (Some(_), Some(files)) => format!("{files} files"),
            (Some(_), None) => "size unknown".to_owned(),
        };
        snapshots.iter().map(|one| (one.id.to_string(), format!("{} · {}", one.id, about(one)))).collect()
    }

    /// All snapshots with who stands on them, sizes measured: the snapshot's when it was sealed, the drives' now.
    pub async fn snapshots(&self, caller: &Caller) -> Answer<Vec<SnapshotView>> {
        self.require(caller, None, Permission::View).await?;
        let snapshots = self.store().snapshots_all().await?;
        let servers = self.store().servers_everywhere().await?;
        let mut views = vec![];
        for snapshot in &snapshots {
            let (mut drives, mut copied) = (vec![], true);
            for server in servers.iter().filter(|server| stands_on(server, &snapshot.id)) {
                copied &= self.engine().driver(server.backend).is_some_and(|driver| driver.is_copy(server));
                let bytes = match self.engine().driver(server.backend) {
                    Some(driver) => driver.own_bytes(server).await.unwrap_or_else(|error| {
                        tracing::warn!(server = %server.name, "A drive could not be measured: {error:#}");
                        None
                    }),
                    None => None,
                };
                // Another guild's server is counted and not named.
                let name =
                    if server.guild == caller.guild { server.name.to_string() } else { "(another guild)".into() };
                drives.push((name, bytes));
            }
            views.push(SnapshotView {
                id: snapshot.id.to_string(),
                game: snapshot.game.clone(),
                version: snapshot.version,
                golden: golden(&snapshots, &snapshot.game).is_some_and(|one| one.id == snapshot.id),
                sealed: snapshot.sealed_at.is_some(),
                created_at: snapshot.created_at,
                files: snapshot.files,
                bytes: snapshot.bytes,
                outdated: self.inner.recipes.install_key(&snapshot.game).is_some_and(|key| key != snapshot.install_key),
                copied: copied && !drives.is_empty(),
                drives,
            });
        }
        Ok(views)
    }

    pub async fn snapshot_build(&self, caller: &Caller, game: &str, channel: Option<String>) -> Answer<JobId> {
        let work = Box::pin(async {
            self.require(caller, None, Permission::Admin).await?;
            let recipe = self.recipe(game)?;
            if self.engine().driver(Backend::Docker).is_none() {
                return Err(not_set_up(Backend::Docker));
            }
            let ask = Ask { action: Action::BuildSnapshot, cause: Cause::Asked, actor: caller.actor.clone(), channel };
            let result = self.engine().ask_snapshot(&recipe.game, &caller.guild, ask).await;
            self.opened(result, &recipe.game).await
        });
        self.audited(caller, Did { action: "snapshot build", server: None, detail: shown(game) }, work).await
    }

    /// Deletes a snapshot that nobody stands on.
    pub async fn snapshot_delete(&self, caller: &Caller, id: &str) -> Answer<String> {
        let work = Box::pin(self.snapshot_delete_unaudited(caller, id.trim()));
        self.audited(caller, Did { action: "snapshot delete", server: None, detail: shown(id) }, work).await
    }

    async fn snapshot_delete_unaudited(&self, caller: &Caller, id: &str) -> Answer<String> {
        self.require(caller, None, Permission::Admin).await?;
        let snapshots = self.store().snapshots_all().await?;
        let Some(snapshot) = snapshots.iter().find(|snapshot| snapshot.id.0 == id) else {
            let ids: Vec<String> = snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect();
            return Err(Refusal::NotFound(format!(
                "There is no snapshot of that name. There are: {}.",
                super::listed(&ids)
            )));
        };
        let servers = self.store().servers_everywhere().await?;
        let drives = servers.iter().filter_map(|server| Some((&server.id, server.owned.drive.as_ref()?)));
        let users = users_of(&snapshot.id, drives);
        if !users.is_empty() {
            let name = |server: &&Server| match server.guild == caller.guild {
                true => server.name.to_string(),
                false => "a server of another guild".to_owned(),
            };
            let names: Vec<String> =
                servers.iter().filter(|server| users.contains(&&server.id)).map(|server| name(&server)).collect();
            return Err(Refusal::Invalid(format!(
                "`{id}` is in use: the drives of {} stand on it. `/server update` moves a server to a newer one.",
                super::listed(&names)
            )));
        }
        // A job on this game may be about to clone from it.
        for job in self.store().open_jobs_all().await? {
            let same = match &job.subject {
                Subject::Game(game) => *game == snapshot.game,
                Subject::Server(id) => servers.iter().any(|server| server.id == *id && server.game == snapshot.game),
            };
            if same {
                return Err(Refusal::Busy(format!(
                    "Job {} works with this game just now; try again when it has ended.",
                    job.id
                )));
            }
        }
        let driver = self.engine().driver(Backend::Docker).ok_or_else(|| {
            Refusal::Invalid("The docker backend is not set up here, so its files cannot be deleted.".to_owned())
        })?;
        // Off the record first: what is left of a crash between the two is a folder nobody uses, and goes at the next
        // start.
        self.store().forget_snapshot(&snapshot.id).await?;
        driver.delete_snapshot(snapshot).await?;
        Ok(format!("`{id}` is deleted."))
    }
}

fn stands_on(server: &Server, snapshot: &crate::model::drive::SnapshotId) -> bool {
    server.owned.drive.as_ref().is_some_and(|drive| drive.snapshot == *snapshot)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

fn game_view(recipe: &Recipe, snapshot: Option<String>) -> GameView {
    let port = |(name, port): (&String, &crate::model::recipe::Port)| {
        let who = if port.private { ", for this machine only" } else { "" };
        format!("{name} {}/{}{who}", port.number, port.protocol.word())
    };
    let variables = recipe.variables.iter().map(|(key, variable)| VariableView {
        key: key.clone(),
        help: variable.help.clone(),
        default: variable.default.clone().filter(|_| !variable.secret),
        required: variable.required,
        secret: variable.secret,
        allowed: variable.allowed_text(),
    });
    GameView {
        game: recipe.game.clone(),
        title: recipe.name.clone(),
        description: recipe.description.clone(),
        homepage: recipe.homepage.clone(),
        ports: recipe.ports.iter().map(port).collect(),
        memory_mb: recipe.resources.memory_mb,
        variables: variables.collect(),
        console: recipe.console.as_ref().map(|console| console.protocol.word().to_owned()),
        keeps_world: !recipe.world.paths.is_empty(),
        counts_players: recipe.query.is_some() || recipe.players.is_some(),
        snapshot,
    }
}
