//! Golden snapshots: an image from the recipe's bootstrap, and the game's own files from its install script, run once
//! in a container of its own and sealed. Everything after that stands on them and never changes them.

use super::daemon::Daemon;
use super::{DockerDriver, GAME_DIR, SCRIPTS_DIR, blocking, docker_error, drives, folders};
use crate::clients::docker::{BuildSpec, ContainerSpec, DockerError, ImageInfo, Mount, Network};
use crate::engine::{StepCx, StepError, builder_of};
use crate::model::drive::{Snapshot, SnapshotId, golden};
use crate::model::job::Gain;
use crate::model::recipe::{Recipe, without_ansi};
use crate::model::view::{spoken_bytes, spoken_files};
use futures::StreamExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Process 1 of every container: runs `start`, hands a signal on, and ends only when nothing is left running, so that
/// a game that goes into the background lives on.
const RUN: &str = include_str!("run.sh");
/// The folder of all snapshots, in the data folder.
pub(super) const SNAPSHOTS: &str = "snapshots";
/// How often a start looks whether another job's snapshot is there.
const WAIT_FOR_BUILDER: Duration = Duration::from_secs(1);
/// How much of an image's key is in its tag.
const KEY_SHOWN: usize = 16;
/// Processes that an installer may have: enough to unpack and patch on every core, too few to choke the machine.
const INSTALLER_PIDS: u64 = 4096;
/// Memory that every installer and every bootstrap may take, because unpacking and patching can take more than the game
/// itself. Beyond it they end, where the kernel might otherwise end one of the games beside them.
const INSTALLER_MEMORY_MB: u32 = 4096;

/// What the bootstrap and the installer of a recipe may take of this machine.
struct Share {
    memory_mb: u32,
    nano_cpus: Option<u64>,
}

impl Share {
    fn of(recipe: &Recipe, daemon: Daemon) -> Share {
        Share {
            memory_mb: recipe.resources.memory_mb.max(INSTALLER_MEMORY_MB),
            // An installer that may take more than its share is better than none.
            nano_cpus: daemon.limits_cpus.then_some((recipe.resources.cpus * 1e9) as u64),
        }
    }

    fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mb) << 20
    }
}

/// What all images of a game are called, before their tags.
pub(super) fn repository(game: &str) -> String {
    format!("spawnpoint/{game}")
}

impl DockerDriver {
    /// Names what is in the image: the recipe's part, ours, and the base, by the id of what the daemon holds. A newer base
    /// of the same name makes another image.
    fn image_tag(&self, game: &str, base_id: &str) -> String {
        let recipe = self.recipes.image_key(game).unwrap_or_default();
        let key = blake3::hash(format!("{recipe}\n{base_id}\n{RUN}").as_bytes()).to_hex();
        format!("{}:{}", repository(game), &key.as_str()[..KEY_SHOWN])
    }

    fn snapshot_dir(&self, id: &SnapshotId) -> PathBuf {
        self.settings.data_dir.join(SNAPSHOTS).join(&id.0)
    }

    /// Where a snapshot's files are: what overlays name as their lower directory.
    pub(super) fn snapshot_files(&self, id: &SnapshotId) -> PathBuf {
        self.snapshot_dir(id).join("files")
    }

    pub(super) async fn build_image(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        // What cannot run is not built first.
        self.daemon().await?;
        let (_, gain) = self.ensure_image(cx).await?;
        Ok(gain)
    }

    /// The image of what the recipe says now, on the base as it is now. Gives its tag.
    async fn ensure_image(&self, cx: &StepCx<'_>) -> Result<(String, Gain), StepError> {
        let recipe = self.recipe(cx.game())?;
        let base = self.ensure_base(cx, &recipe.container.base).await?;
        let tag = self.image_tag(cx.game(), &base.id);
        if self.docker.image(&tag).await.map_err(docker_error("looking for the image"))?.is_some() {
            return Ok((tag, Gain::note("already there")));
        }
        let share = Share::of(recipe, self.daemon().await?);
        let spec = self.build_spec(cx.game(), &tag, &share)?;
        let mut last = String::new();
        let mut line = |text: &str| {
            cx.out.line(text);
            last = text.to_owned();
        };
        match self.docker.build(&spec, &mut line).await {
            Ok(_) => Ok((tag, Gain::default())),
            Err(DockerError::BuildFailed { reason, last_lines }) => {
                // The builder's own words come after the script's, behind the end of the colour that it gives to errors.
                let of_builder = |line: &String| {
                    let line = line.trim();
                    line.is_empty() || line.starts_with("--->") || line.starts_with("Removing intermediate container")
                };
                let mut said = last_lines.iter().rev().map(|line| without_ansi(line));
                let tail = said.find(|line| !of_builder(line)).unwrap_or(last);
                // The builder does not say why the kernel ended it.
                let memory = reason.ends_with("non-zero code: 137").then(|| {
                    format!(
                        " It may have taken more than its {} MB of memory: a recipe whose `memory_mb` under [resources] is higher gets that.",
                        share.memory_mb
                    )
                });
                let memory = memory.unwrap_or_default();
                Err(StepError::fatal(format!("The bootstrap script failed: {reason}.{memory} Its last line: {tail}")))
            }
            Err(error) => Err(docker_error("building the image")(error)),
        }
    }

    /// Taken from the daemon where it holds it, pulled with progress where a registry answers.
    async fn ensure_base(&self, cx: &StepCx<'_>, base: &str) -> Result<ImageInfo, StepError> {
        let look = async || self.docker.image(base).await.map_err(docker_error("looking for the base image"));
        if let Some(there) = look().await? {
            return Ok(there);
        }
        cx.out.line(format!("Pulling {base}"));
        self.docker.pull(base, &mut |text| cx.out.line(text)).await.map_err(|error| {
            let help = format!(
                "The base image `{base}` is not on this machine and could not be pulled: {error}. \
                 Where no registry can be reached, `scripts/lib/base-image` makes it from Debian's packages."
            );
            // A registry that is away comes back sooner than a person reads this, or not at all.
            if error.is_passing() { StepError::retry(help) } else { StepError::fatal(help) }
        })?;
        look()
            .await?
            .ok_or_else(|| StepError::retry(format!("The base image `{base}` was removed as soon as it was there.")))
    }

    fn build_spec(&self, game: &str, tag: &str, share: &Share) -> Result<BuildSpec, StepError> {
        let recipe = self.recipe(game)?;
        let scripts = self.recipes.scripts(game).map_err(StepError::Fatal)?;
        let mut files = vec![("run".to_owned(), RUN.as_bytes().to_vec(), 0o755)];
        let mut copied = vec!["run".to_owned()];
        let mut dockerfile = format!("FROM {}\n", recipe.container.base);
        for (name, content) in scripts {
            files.push((name.clone(), content, 0o755));
            if name == "bootstrap" {
                // Its own layer, first: a change of another script does not install the system again.
                dockerfile += &format!("COPY bootstrap {SCRIPTS_DIR}/bootstrap\nRUN {SCRIPTS_DIR}/bootstrap\n");
            } else {
                copied.push(name);
            }
        }
        dockerfile += &format!("COPY {} {SCRIPTS_DIR}/\n", copied.join(" "));
        dockerfile += &format!("RUN mkdir -p {GAME_DIR} && chmod 0777 {GAME_DIR}\nWORKDIR {GAME_DIR}\n");
        Ok(BuildSpec {
            tag: tag.to_owned(),
            labels: self.labels(None, "image"),
            dockerfile,
            files,
            network_host: self.settings.build_host_network,
            build_args: vec![],
            memory_bytes: Some(share.memory_bytes()),
            nano_cpus: share.nano_cpus,
        })
    }

    pub(super) async fn create_snapshot(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let snapshot = match known.iter().find(|snapshot| self.is_of_job(snapshot, cx)) {
            Some(ours) => ours.clone(),
            None => {
                // It was made in the step before; somebody may have removed it or its base since.
                let (image, _) = self.ensure_image(cx).await?;
                let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
                let version =
                    1 + known.iter().filter(|one| one.game == cx.game()).map(|one| one.version).max().unwrap_or(0);
                Snapshot {
                    id: SnapshotId::new(cx.game(), version),
                    game: cx.game().to_owned(),
                    version,
                    image,
                    install_key: self.recipes.install_key(cx.game()).unwrap_or_default(),
                    files: None,
                    bytes: None,
                    created_at: cx.job.created_at,
                    sealed_at: None,
                }
            }
        };
        let files = self.snapshot_files(&snapshot.id);
        let owner = self.settings.ids.game;
        blocking(move || folders::make_dir(&files, owner))
            .await?
            .map_err(folders::disk_error("making the snapshot's folder"))?;
        Ok(Gain { snapshot: Some(snapshot), ..Gain::default() })
    }

    /// The snapshot that this very job builds: made when the job was, and not sealed before this job sealed it.
    fn is_of_job(&self, snapshot: &Snapshot, cx: &StepCx<'_>) -> bool {
        snapshot.game == cx.game() && snapshot.created_at == cx.job.created_at
    }

    async fn own_snapshot(&self, cx: &StepCx<'_>) -> Result<Snapshot, StepError> {
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let ours = known.into_iter().find(|snapshot| self.is_of_job(snapshot, cx));
        ours.ok_or_else(|| StepError::fatal("the snapshot that this job made is not on record"))
    }

    fn installer_name(&self, snapshot: &SnapshotId) -> String {
        format!("{}-install-{snapshot}", self.prefix())
    }

    pub(super) async fn run_installer(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let snapshot = self.own_snapshot(cx).await?;
        let name = self.installer_name(&snapshot.id);
        let files = self.snapshot_files(&snapshot.id);
        // Half an install is worth nothing: what an earlier try left is cleared away.
        self.docker
            .remove(&name, true)
            .await
            .or_else(gone_is_fine)
            .map_err(docker_error("removing the old installer"))?;
        let (again, owner) = (files.clone(), self.settings.ids.game);
        blocking(move || folders::clear(&again).and_then(|()| folders::make_dir(&again, owner)))
            .await?
            .map_err(folders::disk_error("clearing the snapshot's folder"))?;
        let recipe = self.recipe(cx.game())?;
        let daemon = self.daemon().await?;
        let share = Share::of(recipe, daemon);
        let memory_mb = share.memory_mb;
        let spec = ContainerSpec {
            name: name.clone(),
            image: snapshot.image.clone(),
            entrypoint: vec![format!("{SCRIPTS_DIR}/install")],
            env: recipe.install_environment(GAME_DIR),
            labels: self.labels(None, "installer"),
            user: Some(daemon.user()),
            workdir: Some(GAME_DIR.to_owned()),
            mounts: vec![Mount::Bind { source: path_text(&files)?, target: GAME_DIR.to_owned(), read_only: false }],
            memory_bytes: Some(share.memory_bytes()),
            nano_cpus: share.nano_cpus,
            pids: Some(INSTALLER_PIDS),
            network: if self.settings.build_host_network { Network::Host } else { Network::Bridge },
            ..ContainerSpec::default()
        };
        self.docker.create(&spec).await.map_err(docker_error("creating the installer"))?;
        self.docker.start(&name).await.map_err(docker_error("starting the installer"))?;
        let mut lines = self.docker.logs(&name, None, true);
        let mut last = String::new();
        while let Some(line) = lines.next().await {
            let line = line.map_err(docker_error("following the installer"))?;
            cx.out.line(&line.text);
            last = line.text;
        }
        let end = self.docker.wait(&name).await.map_err(docker_error("waiting for the installer"))?;
        self.docker.remove(&name, true).await.or_else(gone_is_fine).map_err(docker_error("removing the installer"))?;
        let folder = files.clone();
        let full = end.exit_code != Some(0) && blocking(move || folders::is_full(&folder)).await?;
        if end.exit_code != Some(0) {
            // At once, and not only when the job is undone: on a full disk not even that could be written down.
            blocking(move || folders::clear(&files)).await?.map_err(folders::disk_error("clearing half an install"))?;
        }
        match end.exit_code {
            Some(0) => Ok(Gain::default()),
            Some(_) if full => Err(StepError::fatal(format!(
                "The install script ended because the disk is full. Free some space and try again. Its last line: {last}"
            ))),
            Some(code) if end.oom_killed => Err(StepError::fatal(format!(
                "The install script took more than its {memory_mb} MB of memory (exit code {code}). A recipe whose `memory_mb` under [resources] is higher gets that."
            ))),
            code => Err(StepError::fatal(format!(
                "The install script ended with exit code {}. Its last line: {last}",
                code.map_or("unknown".to_owned(), |code| code.to_string())
            ))),
        }
    }

    pub(super) async fn seal_snapshot(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let mut snapshot = self.own_snapshot(cx).await?;
        let files = self.snapshot_files(&snapshot.id);
        let size = blocking(move || {
            let size = drives::usage(&files)?;
            // The kernel never writes to a lower directory; this keeps people from it too.
            std::fs::set_permissions(&files, std::fs::Permissions::from_mode(0o555))?;
            // Once it is sealed on record, drives are cloned from it, also after a power cut.
            folders::to_disk(&files)?;
            Ok(size)
        })
        .await?
        .map_err(folders::disk_error("measuring the snapshot"))?;
        if size.files == 0 {
            return Err(StepError::fatal(
                "The install script left no files, so there is nothing to make a snapshot of.",
            ));
        }
        (snapshot.files, snapshot.bytes) = (Some(size.files as i64), Some(size.bytes as i64));
        snapshot.sealed_at = Some(cx.now);
        let note = format!("{}, {}", spoken_files(size.files), spoken_bytes(size.bytes));
        Ok(Gain { snapshot: Some(snapshot), ..Gain::default() }.with_note(note))
    }

    pub(super) async fn undo_create_snapshot(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        match known.into_iter().find(|snapshot| self.is_of_job(snapshot, cx)) {
            None => Ok(Gain::default()),
            Some(sealed) if sealed.sealed_at.is_some() => Ok(Gain::note("the snapshot is whole and stays")),
            Some(unsealed) => {
                self.remove_snapshot_files(&unsealed.id).await?;
                Ok(Gain { snapshot_removed: Some(unsealed.id.0), ..Gain::default() })
            }
        }
    }

    pub(super) async fn undo_run_installer(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        if let Some(ours) = known.iter().find(|snapshot| self.is_of_job(snapshot, cx)) {
            let name = self.installer_name(&ours.id);
            self.docker
                .remove(&name, true)
                .await
                .or_else(gone_is_fine)
                .map_err(docker_error("removing the installer"))?;
        }
        Ok(Gain::default())
    }

    /// Deletes a snapshot's files. Who calls this has made sure that nobody stands on them.
    pub async fn remove_snapshot_files(&self, id: &SnapshotId) -> Result<(), StepError> {
        let dir = self.snapshot_dir(id);
        blocking(move || folders::remove(&dir)).await?.map_err(folders::disk_error("deleting the snapshot's files"))
    }

    /// The image that the snapshot was built with. Where the daemon lost it and the recipe has moved on, it cannot be
    /// made again: then the present one takes its place, on record.
    async fn ensure_pinned(&self, cx: &StepCx<'_>, snapshot: &Snapshot) -> Result<Gain, StepError> {
        let note = snapshot.id.to_string();
        if self.docker.image(&snapshot.image).await.map_err(docker_error("looking for the image"))?.is_some() {
            return Ok(Gain::note(note));
        }
        let (present, _) = self.ensure_image(cx).await?;
        if present == snapshot.image {
            return Ok(Gain::note(note));
        }
        cx.out.line(
            "The image of this snapshot is gone and its recipe or base has changed since; using the recipe's present image.",
        );
        Ok(Gain { snapshot: Some(Snapshot { image: present, ..snapshot.clone() }), ..Gain::default() }.with_note(note))
    }

    /// Finds what the next drive stands on, waits for it where another job builds it, and makes sure of its image.
    pub(super) async fn ensure_snapshot(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        self.daemon().await?;
        let (mut told, mut last_look) = (false, false);
        loop {
            let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
            // A server stays on its own snapshot; only a new drive takes the newest.
            let own = cx.server()?.owned.drive.as_ref().map(|drive| &drive.snapshot);
            let found = match own {
                Some(own) => known.iter().find(|snapshot| snapshot.id == *own),
                None => golden(&known, cx.game()),
            };
            if let Some(snapshot) = found {
                let files = self.snapshot_files(&snapshot.id);
                if !blocking(move || files.is_dir()).await? {
                    return Err(StepError::fatal(format!(
                        "The files of snapshot `{}` are gone from the disk. `/snapshot build` makes a new one, and `/server update` moves this server to it.",
                        snapshot.id
                    )));
                }
                return self.ensure_pinned(cx, snapshot).await;
            }
            let builder = builder_of(cx.journal, cx.game(), Some(cx.job.id)).await.map_err(StepError::Retry)?;
            let Some(builder) = builder else {
                if !last_look {
                    // A build may have ended between the two looks; what it sealed is on record now.
                    last_look = true;
                    continue;
                }
                return Err(StepError::fatal(format!(
                    "There is no snapshot of `{}` to start from. `/snapshot build` makes one.",
                    cx.game()
                )));
            };
            if !told {
                cx.out.line(format!("Job {builder} installs the game; waiting for it."));
                told = true;
            }
            tokio::time::sleep(WAIT_FOR_BUILDER).await;
        }
    }
}

pub(super) fn gone_is_fine(error: DockerError) -> Result<(), DockerError> {
    match error {
        DockerError::Gone(_) => Ok(()),
        other => Err(other),
    }
}

pub(super) fn path_text(path: &Path) -> Result<String, StepError> {
    let text = path.to_str().ok_or_else(|| {
        StepError::fatal(format!(
            "The folder {} has a name that Docker cannot take. Choose another data_dir.",
            path.display()
        ))
    })?;
    Ok(text.to_owned())
}
