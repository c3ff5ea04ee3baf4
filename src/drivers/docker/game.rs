//! The container: made anew for every start, so that no setting can be stale, and gone after every stop. What lasts is
//! the drive.

use super::snapshots::{gone_is_fine, repository};
use super::{Daemon, DockerDriver, GAME_DIR, LABEL_SERVER, SCRIPTS_DIR, docker_error, ports};
use crate::clients::docker::{ContainerSpec, ContainerState, DockerError, ExecSpec, Mount, Network, Protocol, Publish};
use crate::engine::{StepCx, StepError};
use crate::model::config_edit;
use crate::model::drive::DriveRef;
use crate::model::job::Gain;
use crate::model::recipe::{PIDS_USUAL, PortProtocol, Recipe};
use crate::model::server::{Owned, Players, Seen, Server};
use crate::model::world::WorldAt;
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// A configuration file that is edited has to fit into memory.
const CONFIG_FILE_MAX_BYTES: u64 = 4 << 20;
/// After its grace a game is ended by force; the daemon gets this long to do it.
pub(super) const KILL_GRACE: Duration = Duration::from_secs(10);
/// The exit code of a container whose process was killed.
const KILLED: i64 = 128 + 9;
/// Containers that are made for one start, each on other ports than the one before.
const PORT_TRIES: usize = 4;
/// Servers that are looked at side by side.
const LOOKS_AT_ONCE: usize = 32;

impl DockerDriver {
    pub(super) fn container_name(&self, server: &Server) -> String {
        format!("{}-{}-{}", self.prefix(), server.name, server.id)
    }

    /// The image that the server's snapshot was built with, or the present one of the recipe.
    pub(super) async fn image_of(&self, cx: &StepCx<'_>, drive: &DriveRef) -> Result<String, StepError> {
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let own = known.into_iter().find(|snapshot| snapshot.id == drive.snapshot);
        own.map(|snapshot| snapshot.image)
            .ok_or_else(|| StepError::fatal(format!("Snapshot `{}` is not on record any more.", drive.snapshot)))
    }

    pub(super) async fn create_container(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.make_container(cx, &HashSet::new()).await
    }

    /// A container that listens on none of these numbers, in place of any that was there.
    async fn make_container(&self, cx: &StepCx<'_>, avoid: &HashSet<u16>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let recipe = self.recipe(&server.game)?;
        let drive = server.owned.drive.clone().ok_or_else(|| StepError::fatal("the server has no drive yet"))?;
        let name = self.container_name(server);
        self.clear_old_container(cx, &name).await?;
        let ports = self.choose_ports(cx, recipe, avoid).await?;
        let secrets = cx.journal.secrets(&server.id).await.map_err(StepError::Retry)?;
        let image = self.image_of(cx, &drive).await?;
        let spec = self.container_spec(
            server,
            recipe,
            Making {
                name,
                image,
                daemon: self.daemon().await?,
                mount: self.mount(&drive).await?,
                ports: &ports,
                secrets: &secrets,
            },
        )?;
        let id = match self.docker.create(&spec).await {
            // Its name is nobody else's: a try before asked for it, and the daemon was slower than that.
            Err(DockerError::AlreadyExists(why)) => {
                self.docker.remove(&spec.name, true).await.map_err(docker_error("removing an old container"))?;
                return Err(StepError::retry(why));
            }
            made => made.map_err(docker_error("creating the container"))?,
        };
        self.edit_config_files(cx, &id, recipe, &spec.env).await?;
        // From here on the drive may be written by the game.
        let drive = Some(DriveRef { world: WorldAt::Played, ..drive });
        let owned = Owned { drive, ..self.owned_with(server, recipe, id, ports) };
        let note = owned.address.clone().unwrap_or_default();
        Ok(Gain::owned(owned).with_note(note))
    }

    /// What a server owns with this container, which listens on these numbers.
    fn owned_with(&self, server: &Server, recipe: &Recipe, container: String, ports: BTreeMap<String, u16>) -> Owned {
        let join = recipe.join_port().and_then(|name| ports.get(name));
        Owned {
            container: Some(container),
            address: join.map(|port| self.join_address(*port)),
            ports,
            ..server.owned.clone()
        }
    }

    /// What is left of an earlier start goes. A game that still runs in it is stopped the gentle way first.
    pub(super) async fn clear_old_container(&self, cx: &StepCx<'_>, name: &str) -> Result<(), StepError> {
        let Some(old) = self.docker.inspect(name).await.map_err(docker_error("looking for an old container"))? else {
            return Ok(());
        };
        if old.running {
            cx.out.line("A game of an earlier start still runs; stopping it.");
            self.stop_gently(cx, name).await?;
        }
        self.docker.remove(name, true).await.or_else(gone_is_fine).map_err(docker_error("removing an old container"))
    }

    fn container_spec(&self, server: &Server, recipe: &Recipe, making: Making<'_>) -> Result<ContainerSpec, StepError> {
        let settings: HashMap<String, String> =
            server.settings.clone().into_iter().chain(making.secrets.clone()).collect();
        let env = recipe.environment(&crate::model::recipe::Surroundings {
            game_dir: GAME_DIR,
            server_name: server.name.as_str(),
            public_address: &self.public_host(),
            ports: making.ports,
            settings: &settings,
        });
        let mut published = vec![];
        for (name, port) in &recipe.ports {
            let Some(number) = making.ports.get(name) else { continue };
            let protocols: &[Protocol] = match port.protocol {
                PortProtocol::Tcp => &[Protocol::Tcp],
                PortProtocol::Udp => &[Protocol::Udp],
                PortProtocol::Both => &[Protocol::Tcp, Protocol::Udp],
            };
            published.extend(protocols.iter().map(|protocol| Publish {
                container_port: *number,
                protocol: *protocol,
                host_ip: self.bind_address(port.private).to_string(),
                host_port: *number,
            }));
        }
        let memory_mb = server.limits.memory_mb.unwrap_or(recipe.resources.memory_mb);
        let cpus = server.limits.cpus.unwrap_or(recipe.resources.cpus);
        Ok(ContainerSpec {
            name: making.name,
            image: making.image,
            entrypoint: vec![format!("{SCRIPTS_DIR}/run")],
            env,
            labels: self.labels(Some(&server.id), "game"),
            user: Some(making.daemon.user()),
            workdir: Some(GAME_DIR.to_owned()),
            mounts: vec![making.mount],
            ports: published,
            memory_bytes: Some(u64::from(memory_mb) << 20),
            // A game that may take more than its share is better than none.
            nano_cpus: making.daemon.limits_cpus.then_some((cpus * 1e9) as u64),
            pids: Some(server.limits.pids.or(recipe.resources.pids).unwrap_or(PIDS_USUAL).into()),
            stdin_open: true,
            stop_timeout_s: Some(recipe.stop.grace_s),
            network: Network::Bridge,
            ..ContainerSpec::default()
        })
    }

    /// Applies the recipe's edits to configuration files on the drive, through the daemon.
    async fn edit_config_files(
        &self,
        cx: &StepCx<'_>,
        container: &str,
        recipe: &Recipe,
        env: &[(String, String)],
    ) -> Result<(), StepError> {
        for edit in &recipe.config {
            let path = format!("{GAME_DIR}/{}", edit.file);
            let before = match self
                .docker
                .stat_path(container, &path)
                .await
                .map_err(docker_error("looking for a configuration file"))?
            {
                Some(stat) if stat.size_bytes > CONFIG_FILE_MAX_BYTES => {
                    return Err(StepError::fatal(format!("{} is too large to be edited.", edit.file)));
                }
                Some(_) => self.read_file(container, &path).await?,
                None => String::new(),
            };
            let after = config_edit::apply(edit, &before, env)
                .map_err(|why| StepError::fatal(format!("Editing {} as the recipe says: {why}", edit.file)))?;
            if after != before {
                self.write_file(container, &edit.file, after.as_bytes()).await?;
                cx.out.line(format!("Wrote {}", edit.file));
            }
        }
        Ok(())
    }

    async fn read_file(&self, container: &str, path: &str) -> Result<String, StepError> {
        let mut tar = vec![];
        let stream =
            self.docker.download_tar(container, path).await.map_err(docker_error("reading a configuration file"))?;
        // A tar's own blocks come on top of the file.
        stream
            .take(CONFIG_FILE_MAX_BYTES + (1 << 16))
            .read_to_end(&mut tar)
            .await
            .map_err(|error| StepError::fatal(format!("reading {path}: {error}")))?;
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut text = String::new();
        let entries = archive.entries().map_err(|error| StepError::fatal(format!("reading {path}: {error}")))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| StepError::fatal(format!("reading {path}: {error}")))?;
            if entry.header().entry_type().is_file() {
                entry
                    .read_to_string(&mut text)
                    .map_err(|error| StepError::fatal(format!("{path} is no text: {error}")))?;
            }
        }
        Ok(text)
    }

    async fn write_file(&self, container: &str, file: &str, content: &[u8]) -> Result<(), StepError> {
        let make = |error: std::io::Error| StepError::fatal(format!("packing {file}: {error}"));
        let (uid, gid) = self.daemon().await?.inside;
        let mut tar = tar::Builder::new(vec![]);
        let header = |kind, mode| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            header
        };
        // The folders on the way belong to the game too.
        let mut folder = String::new();
        for part in file.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev() {
            folder += &format!("{part}/");
            tar.append_data(&mut header(tar::EntryType::Directory, 0o755), &folder, std::io::empty()).map_err(make)?;
        }
        let mut head = header(tar::EntryType::Regular, 0o644);
        head.set_size(content.len() as u64);
        tar.append_data(&mut head, file, content).map_err(make)?;
        let bytes = tar.into_inner().map_err(make)?;
        self.docker
            .upload_tar(container, GAME_DIR, std::io::Cursor::new(bytes))
            .await
            .map_err(docker_error("writing a configuration file"))
    }

    pub(super) async fn undo_create_container(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.remove_container(cx).await
    }

    /// A number that was free when the container was made can be somebody else's a moment later. Then the container is
    /// made anew on others.
    pub(super) async fn start_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let name = self.container_name(server);
        let mut avoid = HashSet::new();
        // Another one than on record is of a try before, which was cut off and may not have written all of its files.
        let made = self.docker.inspect(&name).await.map_err(docker_error("looking for the container"))?;
        if made.is_none_or(|made| !made.running && server.owned.container.as_ref() != Some(&made.id)) {
            self.make_container(cx, &avoid).await?;
        }
        for attempt in 1.. {
            match self.docker.start(&name).await {
                Ok(()) => break,
                Err(DockerError::PortTaken(why)) if attempt < PORT_TRIES => {
                    avoid.extend(ports::named_in(&why, &self.ports_of(cx, &name).await?));
                    self.make_container(cx, &avoid).await?;
                }
                Err(DockerError::PortTaken(why)) => {
                    return Err(StepError::fatal(format!(
                        "Another program on this machine listens on a port of this server, and took the next ones too: {why}. The next start takes another port."
                    )));
                }
                Err(DockerError::Gone(_)) => {
                    return Err(StepError::fatal("The container disappeared before it was started."));
                }
                Err(error) => return Err(docker_error("starting the container")(error)),
            }
        }
        self.as_started(cx, &name).await
    }

    /// What to write down when another container was started than the one on record, in this try or in one that was cut
    /// off.
    async fn as_started(&self, cx: &StepCx<'_>, name: &str) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let state = self.docker.inspect(name).await.map_err(docker_error("looking at the container"))?;
        // One that is gone by now ended; whoever waits for the game says so.
        let Some(state) = state.filter(|state| server.owned.container.as_ref() != Some(&state.id)) else {
            return Ok(Gain::default());
        };
        let ports = self.ports_of(cx, name).await?;
        let owned = self.owned_with(server, self.recipe(cx.game())?, state.id, ports);
        let note = owned.address.clone().unwrap_or_default();
        Ok(Gain::owned(owned).with_note(note))
    }

    /// The numbers that a container was made with.
    async fn ports_of(&self, cx: &StepCx<'_>, name: &str) -> Result<BTreeMap<String, u16>, StepError> {
        let env = self.docker.environment(name).await.map_err(docker_error("looking at the container"))?;
        Ok(self.recipe(cx.game())?.ports_in(&env))
    }

    pub(super) async fn undo_start_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.stop_gently(cx, &self.container_name(cx.server()?)).await
    }

    pub(super) async fn stop_game(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.stop_gently(cx, &self.container_name(cx.server()?)).await
    }

    /// The recipe's way first, and within its time; force only after that, and never silently.
    async fn stop_gently(&self, cx: &StepCx<'_>, name: &str) -> Result<Gain, StepError> {
        let Some(state) = self.docker.inspect(name).await.map_err(docker_error("looking for the container"))? else {
            return Ok(Gain::note("it was not there"));
        };
        if !state.running {
            return Ok(Gain::note("it was not running"));
        }
        let recipe = self.recipe(cx.game())?;
        let grace = Duration::from_secs(recipe.stop.grace_s);
        let end = Instant::now() + grace;
        let stopped = tokio::time::timeout(grace, async {
            if self.recipes.has_script(cx.game(), "stop") {
                self.run_stop_script(cx, name, grace).await?;
            } else {
                self.docker.stop(name, grace).await.map_err(docker_error("stopping the game"))?;
            }
            // The script returns when the game has ended; the container ends right after it.
            self.docker.wait(name).await.map_err(docker_error("waiting for the game to end"))
        })
        .await;
        match stopped {
            Ok(Ok(_)) => Ok(Gain::default()),
            Ok(Err(StepError::Retry(error))) => Err(StepError::Retry(error)),
            // It did not hear of its end yet: what is left of its grace is for saving.
            Ok(Err(StepError::Fatal(why))) => self.stop_by_signal(cx, name, end, &format!("{why:#}")).await,
            Err(_) => self.stop_by_signal(cx, name, end, &format!("it did not end within {} s", grace.as_secs())).await,
        }
    }

    async fn run_stop_script(&self, cx: &StepCx<'_>, name: &str, limit: Duration) -> Result<(), StepError> {
        let spec = ExecSpec {
            cmd: vec![format!("{SCRIPTS_DIR}/stop")],
            workdir: Some(GAME_DIR.to_owned()),
            ..ExecSpec::default()
        };
        let code = self.docker.exec(name, &spec, limit, &mut |_, line| cx.out.line(line)).await;
        match code {
            Ok(0) => Ok(()),
            // The container ended under the script, which is what it is for.
            Err(DockerError::Gone(_) | DockerError::Conflict(_)) => Ok(()),
            Ok(code) if self.is_up(name).await? => {
                Err(StepError::fatal(format!("its stop script failed with exit code {code}")))
            }
            Ok(_) => Ok(()),
            Err(DockerError::Timeout) => {
                Err(StepError::fatal(format!("its stop script did not end within {} s", limit.as_secs())))
            }
            Err(error) => Err(docker_error("running the stop script")(error)),
        }
    }

    /// The daemon asks it once more, and ends it by force at `end`, or soon where that has passed.
    async fn stop_by_signal(&self, cx: &StepCx<'_>, name: &str, end: Instant, why: &str) -> Result<Gain, StepError> {
        cx.out.line(format!("Ending the game by a signal: {why}."));
        let grace = end.saturating_duration_since(Instant::now()).max(KILL_GRACE);
        self.docker.stop(name, grace).await.or_else(gone_is_fine).map_err(docker_error("ending the game"))?;
        let state = self.docker.inspect(name).await.map_err(docker_error("looking for the container"))?;
        match state {
            Some(state) if state.running => {
                Err(StepError::fatal("The game cannot be ended; the Docker daemon's log may say why."))
            }
            Some(state) if state.exit_code == Some(KILLED) => Ok(Gain::note(format!("ended by force: {why}"))),
            Some(_) | None => Ok(Gain::note(format!("ended by a signal: {why}"))),
        }
    }

    async fn is_up(&self, name: &str) -> Result<bool, StepError> {
        let state = self.docker.inspect(name).await.map_err(docker_error("looking for the container"))?;
        Ok(state.is_some_and(|state| state.running))
    }

    pub(super) async fn is_running(&self, server: &Server) -> Result<bool, StepError> {
        self.is_up(&self.container_name(server)).await
    }

    pub(super) async fn remove_container(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let name = self.container_name(server);
        if self.is_up(&name).await? {
            return Err(StepError::fatal("The game still runs, so its container stays."));
        }
        self.docker.remove(&name, true).await.or_else(gone_is_fine).map_err(docker_error("removing the container"))?;
        Ok(Gain::owned(Owned { container: None, address: None, ..server.owned.clone() }))
    }

    /// One list for all, then a closer look only at what runs or has ended.
    pub(super) async fn look_at(&self, servers: &[Server]) -> Vec<Seen> {
        let instance = [
            (super::LABEL_INSTANCE.to_owned(), self.settings.instance.clone()),
            (super::LABEL_ROLE.to_owned(), "game".to_owned()),
        ];
        let listed = match self.docker.list(&instance).await {
            Ok(listed) => listed,
            Err(error) => return vec![Seen::Unknown { why: error.to_string() }; servers.len()],
        };
        let running: HashMap<&str, bool> =
            listed.iter().filter_map(|one| Some((one.labels.get(LABEL_SERVER)?.as_str(), one.running))).collect();
        // Owned by the future, so that it can be sent between threads.
        let looks: Vec<_> =
            servers.iter().map(|server| self.look_closer(server, running.get(server.id.0.as_str()).copied())).collect();
        futures::stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await
    }

    async fn look_closer(&self, server: &Server, running: Option<bool>) -> Seen {
        match running {
            None => Seen::Gone,
            Some(true) => Seen::Running { players: self.players(server).await },
            Some(false) => self.how_it_ended(server).await,
        }
    }

    async fn how_it_ended(&self, server: &Server) -> Seen {
        match self.docker.inspect(&self.container_name(server)).await {
            Ok(None) => Seen::Gone,
            // It was started between the list and this look.
            Ok(Some(ContainerState { running: true, .. })) => Seen::Running { players: Players::default() },
            Ok(Some(state)) => {
                Seen::Stopped { exit_code: state.exit_code, out_of_memory: state.oom_killed, unwatched: false }
            }
            Err(error) => Seen::Unknown { why: error.to_string() },
        }
    }

    /// All that the daemon still holds of this game, and its base: where nothing is run, any of them will do. There is one
    /// at least.
    pub(super) async fn images_on_daemon(&self, game: &str) -> Result<Vec<String>, StepError> {
        let images = self.docker.images_named(&repository(game)).await;
        let mut images = images.map_err(docker_error("looking for the image"))?;
        let base = &self.recipe(game)?.container.base;
        if self.docker.image(base).await.map_err(docker_error("looking for the base image"))?.is_some() {
            images.push(base.clone());
        }
        if images.is_empty() {
            return Err(StepError::fatal(format!(
                "Neither the image of `{game}` nor its base `{base}` is on this machine. `/snapshot build` makes them."
            )));
        }
        Ok(images)
    }
}

struct Making<'a> {
    name: String,
    image: String,
    daemon: Daemon,
    mount: Mount,
    ports: &'a BTreeMap<String, u16>,
    secrets: &'a HashMap<String, String>,
}
