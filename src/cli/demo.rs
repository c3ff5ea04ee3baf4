//! `spawnpoint demo`: the main job, once, with a real game in real containers, as friends would see it. Everything it
//! makes carries an instance of its own and is gone at the end; a base image that it had to pull is named. This file shows containers, `cloud` rented hosts.

mod cloud;

use super::progress::{follow, say};
use crate::app::{App, Choice, NewServer};
use crate::clients::docker::{Docker, DockerError};
use crate::config::Config;
use crate::model::GuildId;
use crate::model::JobId;
use crate::model::access::Caller;
use crate::model::job::{Outcome, Subject};
use crate::model::server::State;
use crate::model::view::spoken_files;
use crate::program::{Program, endpoint};
use crate::recipes::Recipes;
use crate::store::Store;
use anyhow::{Context, ensure};
use cloud::StandIn;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A query that was just made possible may need a moment to be answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
const SERVERS: [&str; 2] = ["friday-world", "sunday-world"];

/// What the demo shows it on.
enum Scene {
    Containers { docker: Docker, keep_image: bool, base: Base },
    RentedHosts(StandIn),
}

/// What the game's image is made from: no instance's own, so it stays.
struct Base {
    image: String,
    was_there: bool,
}

impl Base {
    async fn of(config: &Config, game: &str, docker: &Docker) -> anyhow::Result<Base> {
        let recipes = Recipes::load(&config.game_scripts)?;
        let recipe = recipes.get(game).with_context(|| format!("there is no recipe called `{game}`"))?;
        let image = recipe.container.base.clone();
        Ok(Base { was_there: docker.image(&image).await?.is_some(), image })
    }
}

/// True when everything went as it should.
pub async fn demo(config: &Config, game: &str, keep_image: bool) -> anyhow::Result<bool> {
    let docker = Docker::connect(endpoint(config).as_deref())?;
    docker.ping().await.context("no Docker daemon answers; `spawnpoint doctor` says what to do")?;
    let base = Base::of(config, game, &docker).await?;
    perform(config.clone(), game, Scene::Containers { docker, keep_image, base }).await
}

/// The same with hosts that are rented from the stand-in at this address.
pub async fn demo_of_rented_hosts(config: &Config, game: &str, standin: &str) -> anyhow::Result<bool> {
    say(
        "The provider of this demo is a stand-in on this machine that speaks like Hetzner. Nothing is rented and nothing",
    );
    say("costs anything: its hosts are containers that boot with the real cloud-init and answer with the real sshd.");
    let standin = StandIn::find(standin).await?;
    let mut config = config.clone();
    standin.only_here(&mut config);
    perform(config, game, Scene::RentedHosts(standin)).await
}

async fn perform(mut config: Config, game: &str, scene: Scene) -> anyhow::Result<bool> {
    // Before there is anything that could be left behind.
    let told_to_end = told_to_end().context("listening for signals")?;
    let home = tempfile::Builder::new().prefix("spawnpoint-demo-").tempdir().context("making a folder for the demo")?;
    config.data_dir = home.path().to_owned();
    config.database.url = None;
    // Nobody outside of this machine should be able to join a demo.
    config.docker.publish_address = std::net::IpAddr::from([127, 0, 0, 1]);
    config.docker.public_address = None;
    let program = Program::build(&config).await?;
    let stop = CancellationToken::new();
    let work = program.work(&stop);
    let show = Show { app: program.app.clone(), caller: Caller::operator(GuildId("demo".into())) };
    let play = async {
        match &scene {
            Scene::Containers { .. } => show.play(game).await,
            Scene::RentedHosts(standin) => cloud::play(&show, standin, game).await,
        }
    };
    let result = tokio::select! {
        result = play => result,
        why = told_to_end => Err(anyhow::anyhow!(why)),
    };
    heading("Cleaning up");
    let tidy = show.tidy(&program.store, game).await;
    stop.cancel();
    work.await.context("ending the demo's engine")?;
    let images = match &scene {
        Scene::Containers { docker, keep_image: false, .. } => remove_images(docker, &program).await?,
        Scene::Containers { keep_image: true, .. } | Scene::RentedHosts(_) => 0,
    };
    drop(program);
    home.close().context("removing the demo's folder")?;
    tidy?;
    match &scene {
        Scene::Containers { docker, base, .. } => {
            let image =
                if images == 0 { "The image stays: it was there before, or was to be kept." } else { "And the image." };
            say(&format!("  Removed both servers with their drives, the snapshot and the backups. {image}"));
            if !base.was_there && docker.image(&base.image).await?.is_some() {
                say(&format!(
                    "  The image {0} was pulled for that and stays: `docker image rm {0}` removes it.",
                    base.image
                ));
            }
        }
        Scene::RentedHosts(standin) => {
            say("  Removed the server and its backups.");
            standin.prove_empty().await?;
        }
    }
    result?;
    say("");
    if let Scene::RentedHosts(_) = scene {
        say(
            "That was an evening on a rented host, rented from nobody. A real one needs a token of your provider's, and",
        );
        say("docs/providers.md tells how to get it. Everything else is the same.");
        return Ok(true);
    }
    say("That was the main job. To have it in Discord, make an application and a token: README.md tells how,");
    say("step by step. Then: cp config.example.toml config.toml, put the token in, and `spawnpoint run`.");
    Ok(true)
}

struct Show {
    app: App,
    caller: Caller,
}

impl Show {
    async fn play(&self, game: &str) -> anyhow::Result<()> {
        let app = &self.app;
        let began = Instant::now();
        heading(&format!("A golden snapshot of {game}, installed once  (/snapshot build game:{game})"));
        self.finish(app.snapshot_build(&self.caller, game, None).await?).await?;

        for name in SERVERS {
            heading(&format!("{name}, on a drive of its own  (/server create, /server start)"));
            let new = NewServer {
                name: name.into(),
                game: game.into(),
                backend: Some("docker".into()),
                settings: BTreeMap::new(),
                place: Default::default(),
                channel: None,
            };
            app.create(&self.caller, new).await?;
            self.finish(app.start(&self.caller, name, None).await?).await?;
        }

        heading("Who is on?  (/server status)");
        for name in SERVERS {
            self.status(name, game).await?;
        }
        if let Some(command) = self.first_command(game).await? {
            heading(&format!("The console  (/console server:{} command:{command})", SERVERS[0]));
            for line in app.console(&self.caller, SERVERS[0], &command).await?.lines() {
                say(&format!("  > {line}"));
            }
        }
        heading("What it takes on disk  (/snapshot list)");
        for snapshot in app.snapshots(&self.caller).await? {
            let shared = snapshot.bytes.and_then(|shared| u64::try_from(shared).ok());
            let count = snapshot.files.unwrap_or_default();
            say(&format!(
                "  snapshot {}: {}, {}, {}",
                snapshot.id,
                spoken_files(count as u64),
                shared.map_or("size unknown".to_owned(), bytes),
                if snapshot.copied { "and every drive a copy of it" } else { "shared by all" }
            ));
            for (server, own) in snapshot.drives {
                let own = own.map_or("size unknown".to_owned(), |own| format!("{} of its own", bytes(own)));
                say(&format!("  drive of {server}: {own}"));
            }
        }
        heading(&format!("{} stops, its world is kept  (/server stop, /backup list)", SERVERS[0]));
        self.finish(app.stop(&self.caller, SERVERS[0], None).await?).await?;
        for backup in app.backups(&self.caller, SERVERS[0]).await? {
            say(&format!(
                "  backup {}: {}, {}, {}",
                backup.id,
                spoken_files(backup.files),
                bytes(backup.bytes),
                backup.reason
            ));
        }
        heading(&format!("And starts again with it  (/server start server:{})", SERVERS[0]));
        self.finish(app.start(&self.caller, SERVERS[0], None).await?).await?;
        say("");
        say(&format!("  All of it took {:.0} s.", began.elapsed().as_secs_f64()));
        Ok(())
    }

    async fn finish(&self, job: JobId) -> anyhow::Result<()> {
        let end = follow(&self.app, job).await?;
        ensure!(end.outcome == Some(Outcome::Succeeded), "job {job} did not end well");
        Ok(())
    }

    async fn status(&self, name: &str, game: &str) -> anyhow::Result<()> {
        if !self.app.game(&self.caller, game).await?.counts_players {
            let view = self.app.status(&self.caller, name).await?;
            ensure!(view.state == State::Running, "{name} is {}", view.state.word());
            say(&format!(
                "  {name}: running, join at {} (this game cannot be asked)",
                view.address.unwrap_or_default()
            ));
            return Ok(());
        }
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let view = self.app.status(&self.caller, name).await?;
            let players = view.players.clone().unwrap_or_default();
            ensure!(view.state == State::Running, "{name} is {}", view.state.word());
            let Some(online) = players.online else {
                ensure!(Instant::now() < deadline, "{name} runs, but did not say who is on");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let max = players.max.map_or("?".to_owned(), |max| max.to_string());
            let detail = [
                players.map.map(|map| format!("map {map}")),
                players.version.map(|version| format!("version {version}")),
            ];
            let detail: Vec<String> = detail.into_iter().flatten().collect();
            say(&format!(
                "  {name}: running, {online} of {max} players, join at {} {}",
                view.address.unwrap_or_default(),
                detail.join(", ")
            ));
            return Ok(());
        }
    }

    async fn first_command(&self, game: &str) -> anyhow::Result<Option<String>> {
        let guild = &self.caller.guild;
        let known = self.app.console_suggestions(guild, SERVERS[0], "").await;
        let has_console = self.app.game(&self.caller, game).await?.console.is_some();
        Ok(known.into_iter().next().filter(|_| has_console))
    }

    /// The build of the golden snapshot belongs to no server, and its installer would run on.
    async fn call_off_the_build(&self, store: &Store, game: &str) -> anyhow::Result<()> {
        let Some(job) = store.open_job_of(&Subject::Game(game.to_owned())).await? else { return Ok(()) };
        // A refusal means that it ends by itself.
        let _ = self.app.choose_job(&self.caller, job.id, Choice::Cancel, None).await;
        let end = follow_quietly(&self.app, job.id).await?;
        ensure!(end != Outcome::Held, "the build of {game} could not be called off; job {} says why", job.id);
        Ok(())
    }

    /// Stops and deletes whatever the play had made, however far it came.
    async fn tidy(&self, store: &Store, game: &str) -> anyhow::Result<()> {
        self.call_off_the_build(store, game).await?;
        for name in self.app.server_names(&self.caller.guild).await {
            // What is still under way is called off first; a refusal means that nothing is.
            let _ = self.app.choose(&self.caller, &name, Choice::Cancel).await;
            let deadline = Instant::now() + ANSWER_LIMIT * 6;
            let job = loop {
                match self.app.delete(&self.caller, &name, &name, None).await {
                    Ok(job) => break job,
                    Err(crate::app::Refusal::Busy(_)) if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(300)).await
                    }
                    Err(refusal) => anyhow::bail!("{name} could not be deleted: {refusal}"),
                }
            };
            let end = follow_quietly(&self.app, job).await?;
            ensure!(end == Outcome::Succeeded, "{name} could not be deleted; job {job} says why");
        }
        for snapshot in self.app.snapshots(&self.caller).await? {
            self.app.snapshot_delete(&self.caller, &snapshot.id).await?;
        }
        Ok(())
    }
}

/// Ends with the first signal that means that the demo shall end, and says which; it listens from the call on. A terminal
/// that is closed sends SIGHUP.
fn told_to_end() -> std::io::Result<impl Future<Output = &'static str> + Send> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "it was told to end (SIGTERM)",
            _ = hangup.recv() => "its terminal was closed (SIGHUP)",
        }
    })
}

async fn follow_quietly(app: &App, job: JobId) -> anyhow::Result<Outcome> {
    loop {
        if let Some(outcome) = app.job_view(job).await?.outcome {
            return Ok(outcome);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn remove_images(docker: &Docker, program: &Program) -> anyhow::Result<usize> {
    let instance = program.store.instance().await?;
    let labels = [("spawnpoint.instance".to_owned(), instance)];
    let mut removed = 0;
    let deadline = Instant::now() + ANSWER_LIMIT;
    for image in docker.images(&labels).await? {
        // A container whose making was called off may be there for a moment yet.
        while let Err(error) = docker.remove_image(&image).await {
            ensure!(matches!(error, DockerError::Conflict(_)) && Instant::now() < deadline, error);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        removed += 1;
    }
    Ok(removed)
}

fn heading(text: &str) {
    say(&format!("\n== {text}"));
}

fn bytes(bytes: u64) -> String {
    crate::model::view::spoken_bytes(bytes)
}
