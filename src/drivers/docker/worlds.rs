//! Worlds between a drive and the vault. A world is read through the daemon, which sees the drive as the game does,
//! twice: once to copy it and once to compare the copy, read back from the disk, with the original.

use super::folders::{disk_error, to_disk};
use super::paths::WorldPaths;
use super::{DockerDriver, GAME_DIR, blocking, docker_error};
use crate::drivers::backups::{Backups, NOTHING_KEPT, note_of, vault_error};
use crate::drivers::blocking_while_wanted;
use crate::engine::{StepCx, StepError};
use crate::model::drive::DriveRef;
use crate::model::job::{Action, Gain};
use crate::model::server::Server;
use crate::model::view::{spoken_bytes, spoken_files};
use crate::model::world::{BackupId, WorldAt};
use crate::vault::{self, OwnerId, Pack, Selection, Staging};
use tokio_util::io::SyncIoBridge;
use tokio_util::sync::CancellationToken;

/// A live world that changes under our hands is read again so often before it is kept as it is.
const LIVE_TRIES: usize = 3;
/// And one that no game writes to: a second copy is not damaged on the way like the first one.
const QUIET_TRIES: usize = 2;
/// Bytes that wait between the vault's thread and the daemon.
const PIPE_BYTES: usize = 256 * 1024;

/// Where a world is read from.
struct Source {
    container: String,
    /// Made for this, and to be let go.
    hands: bool,
}

impl DockerDriver {
    /// Nothing to save: the game has no world, or never had a drive to keep one on.
    fn worldless(&self, cx: &StepCx<'_>) -> Result<bool, StepError> {
        let server = cx.server()?;
        Ok(self.backups.worldless(&server.game) || server.owned.drive.is_none())
    }

    async fn source(&self, server: &Server, drive: &DriveRef) -> Result<Source, StepError> {
        let name = self.container_name(server);
        if self.docker.inspect(&name).await.map_err(docker_error("looking for the container"))?.is_some() {
            return Ok(Source { container: name, hands: false });
        }
        let images = self.images_on_daemon(&server.game).await?;
        Ok(Source { container: self.hands(server, drive, &images).await?, hands: true })
    }

    async fn drop_source(&self, source: Source, drive: &DriveRef) -> Result<(), StepError> {
        if source.hands { self.let_go(drive).await } else { Ok(()) }
    }

    /// The drive whose world belongs into the vault. A drive that was made and never played on holds an older world
    /// than the vault, or none: kept, it would take the place of the present one.
    fn to_save(&self, server: &Server) -> Option<DriveRef> {
        let newer = |drive: &DriveRef| drive.must_push(server.owned.world.as_ref()).is_none();
        server.owned.drive.clone().filter(|drive| newer(drive) && !self.backups.worldless(&server.game))
    }

    pub(super) async fn pull_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(drive) = self.to_save(server) else {
            return Ok(Gain::note("there is no world to save"));
        };
        let dir = self.drive_dir(&drive.id);
        if !blocking(move || dir.is_dir()).await? {
            return match cx.job.action {
                // The drive was lost; a restore is the way out and must not be stopped by it.
                Action::Restore { .. } => Ok(Gain::note("the drive is gone, so there is nothing to save")),
                Action::Start | Action::Stop | Action::Restart | Action::Backup => Err(drive_gone()),
                Action::Update | Action::Delete | Action::Move { .. } | Action::BuildSnapshot => Err(drive_gone()),
            };
        }
        if self.backups.kept(cx).await?.is_some() {
            return Ok(Gain::note("already in the vault"));
        }
        let source = self.source(server, &drive).await?;
        let read = self.read_world(cx, &source).await;
        self.drop_source(source, &drive).await?;
        let staging = read?;
        let size = staging.size();
        Ok(Gain::note(format!("{}, {}", spoken_files(size.files), spoken_bytes(size.bytes))))
    }

    async fn read_world(&self, cx: &StepCx<'_>, source: &Source) -> Result<Staging, StepError> {
        let mut staging = self.backups.stage(cx).await?;
        let (paths, selection) = (self.paths(cx, source)?, self.backups.selection(cx.game())?);
        blocking_while_wanted(move |unwanted| match fill(&mut staging, &paths, &selection, &unwanted) {
            Ok(()) => Ok(staging),
            Err(error) => {
                // Half a copy is worth nothing, and on a full disk not even its failure could be written down.
                staging.discard().map_err(vault_error("dropping half a copy"))?;
                Err(error)
            }
        })
        .await?
    }

    pub(super) async fn verify_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(drive) = self.to_save(server) else {
            return Ok(Gain::default());
        };
        let dir = self.drive_dir(&drive.id);
        if self.backups.kept(cx).await?.is_some() || !blocking(move || dir.is_dir()).await? {
            return Ok(Gain::default());
        }
        let live = self.is_running(server).await?;
        let source = self.source(server, &drive).await?;
        let compared = self.compare_world(cx, &source, live).await;
        self.drop_source(source, &drive).await?;
        compared
    }

    async fn compare_world(&self, cx: &StepCx<'_>, source: &Source, live: bool) -> Result<Gain, StepError> {
        let tries = if live { LIVE_TRIES } else { QUIET_TRIES };
        let mut difference = String::new();
        for attempt in 1..=tries {
            if attempt > 1 {
                let what = if live { "The game wrote while it was read" } else { "The copy is another" };
                cx.out.line(format!("{what} ({difference}); reading it again."));
                drop(self.read_world(cx, source).await?);
            }
            let staging = self.backups.stage(cx).await?;
            let files = staging.size().files;
            if !staging.is_filled() {
                return Err(StepError::fatal(
                    "The copy of the world is not in the vault any more. Try again from the beginning.",
                ));
            }
            let found = self.compare_once(cx, source, staging).await?;
            if found.is_whole() {
                self.backups.must_not_be_elsewhere(cx, files, cx.server()?.created_at).await?;
                return Ok(Gain::note(format!("{} entries are the same on both sides", found.same)));
            }
            difference = first_of(&found);
        }
        match live {
            // Bytes are better kept than dropped: the backup says of itself that it was not verified.
            true => Ok(Gain::note(format!("the game kept writing, so this copy may be torn: {difference}"))),
            false => Err(StepError::retry(format!("The copy of the world differs from the original: {difference}"))),
        }
    }

    async fn compare_once(
        &self,
        cx: &StepCx<'_>,
        source: &Source,
        mut staging: Staging,
    ) -> Result<vault::Comparison, StepError> {
        let (paths, selection) = (self.paths(cx, source)?, self.backups.selection(cx.game())?);
        blocking_while_wanted(move |unwanted| {
            let mut comparing = staging.comparing().map_err(vault_error("comparing the world"))?;
            paths.read(&unwanted, |tar, shift| {
                comparing.read(tar, &selection, shift).map_err(vault_error("comparing the world"))
            })?;
            comparing.finish().map_err(vault_error("comparing the world"))
        })
        .await?
    }

    fn paths(&self, cx: &StepCx<'_>, source: &Source) -> Result<WorldPaths, StepError> {
        WorldPaths::new(&self.docker, &source.container, &self.recipe(cx.game())?.world.paths)
    }

    pub(super) async fn keep_backup(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(drive) = self.to_save(server) else {
            return Ok(Gain::default());
        };
        let dir = self.drive_dir(&drive.id);
        let there = blocking(move || dir.is_dir()).await?;
        let live = self.is_running(server).await?;
        if !there && self.backups.kept(cx).await?.is_none() {
            return Ok(Gain { world_lost: drive.world == WorldAt::Played, ..Gain::default() });
        }
        let Some(backup) = self.backups.keep(cx, live).await? else { return Ok(Gain::note(NOTHING_KEPT)) };
        let id = BackupId(backup.id.as_str().to_owned());
        let mut owned = server.owned.clone();
        // A live world has moved on since; the drive stays the newest.
        let world = if live { WorldAt::Played } else { WorldAt::Backup(id.clone()) };
        owned.drive = Some(DriveRef { world, ..drive });
        owned.world = Some(id);
        Ok(Gain::owned(owned).with_note(note_of(&backup)))
    }

    pub(super) async fn undo_pull_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        if self.worldless(cx)? {
            return Ok(Gain::default());
        }
        if let Some(drive) = &cx.server()?.owned.drive {
            self.let_go(drive).await?;
        }
        self.backups.discard(cx).await
    }

    pub(super) async fn push_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        // Chosen by a person; it becomes the present world only when it is all there.
        let chosen = cx.job.action.chosen_backup();
        let Some(drive) = server.owned.drive.clone() else {
            let Some(backup) = chosen else { return Ok(Gain::note("there is no drive yet")) };
            return self.backups.name_world(server, backup).await;
        };
        let wanted = match (chosen, &drive.world) {
            (Some(backup), WorldAt::Backup(held)) if held == backup => None,
            (Some(backup), WorldAt::Empty | WorldAt::Backup(_) | WorldAt::Played) => Some(backup),
            (None, WorldAt::Empty | WorldAt::Backup(_) | WorldAt::Played) => {
                drive.must_push(server.owned.world.as_ref())
            }
        };
        let Some(wanted) = wanted.cloned() else { return Ok(Gain::note("the drive holds the newest world")) };
        if drive.world != WorldAt::Empty {
            return Err(StepError::fatal(match chosen {
                Some(_) => format!(
                    "The drive still holds another world, so `{wanted}` was not put there. The drive was to be replaced first; `/backup restore` tries again."
                ),
                None => format!(
                    "The drive holds an older world than the newest backup, `{wanted}`. `/backup restore` puts that backup in its place."
                ),
            }));
        }
        let (id, report) = self.backups.sound(server, &wanted).await?;
        let owner = Backups::owner(server)?;
        let images = self.images_on_daemon(&server.game).await?;
        self.empty_for_a_world(cx, server, &drive).await?;
        let hands = self.hands(server, &drive, &images).await?;
        let pushed = self.upload_world(&hands, owner, id).await;
        self.let_go(&drive).await?;
        pushed?;
        // On record it is the newest world from here on, and no other is put over it, also after a power cut.
        let dir = self.drive_dir(&drive.id);
        blocking(move || to_disk(&dir)).await?.map_err(disk_error("writing the world to the disk"))?;
        let mut owned = server.owned.clone();
        owned.drive = Some(DriveRef { world: WorldAt::Backup(wanted.clone()), ..drive });
        owned.world = Some(wanted.clone());
        let note = format!("{wanted}, {}, {}", spoken_files(report.files), spoken_bytes(report.bytes));
        Ok(Gain::owned(owned).with_note(note))
    }

    async fn upload_world(&self, hands: &str, owner: OwnerId, id: vault::BackupId) -> Result<(), StepError> {
        let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
        let (vault, (uid, gid)) = (self.backups.vault.clone(), self.daemon().await?.inside);
        let writer = SyncIoBridge::new(writer);
        let packing = tokio::task::spawn_blocking(move || {
            let how = Pack { prefix: "", uid: uid.into(), gid: gid.into() };
            vault.pack(&owner, &id, writer, &how)
        });
        let sent = self.docker.upload_tar(hands, GAME_DIR, reader).await;
        let packed =
            packing.await.map_err(|error| StepError::fatal(format!("packing the world was cut off: {error}")))?;
        match (packed, sent) {
            // The pipe broke because the daemon took no more, and it says why.
            (Err(vault::Error::Sink(_)), Err(sent)) => Err(docker_error("writing the world to the drive")(sent)),
            (packed, sent) => {
                packed.map_err(vault_error("reading the backup"))?;
                sent.map_err(docker_error("writing the world to the drive"))
            }
        }
    }

    pub(super) async fn undo_push_world(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        if let Some(drive) = &cx.server()?.owned.drive {
            self.let_go(drive).await?;
        }
        Ok(Gain::default())
    }
}

fn fill(
    staging: &mut Staging,
    paths: &WorldPaths,
    selection: &Selection,
    unwanted: &CancellationToken,
) -> Result<(), StepError> {
    let mut reading = staging.reading().map_err(vault_error("beginning the backup"))?;
    paths.read(unwanted, |tar, shift| reading.read(tar, selection, shift).map_err(vault_error("copying the world")))?;
    reading.finish().map_err(vault_error("copying the world"))
}

/// One difference, for people.
fn first_of(found: &vault::Comparison) -> String {
    let count = found.missing.len() + found.extra.len() + found.differing.len();
    let first = match (found.differing.first(), found.missing.first(), found.extra.first()) {
        (Some(differing), _, _) => format!("{}: {}", differing.path, differing.why),
        (None, Some(missing), _) => format!("{missing} is not in the copy"),
        (None, None, Some(extra)) => format!("{extra} is not in the original any more"),
        (None, None, None) => String::new(),
    };
    if count > 1 { format!("{first} (and {} more)", count - 1) } else { first }
}

fn drive_gone() -> StepError {
    StepError::fatal(
        "The drive of this server is gone from the disk, so its world cannot be saved. `/backup restore` begins again from a backup.",
    )
}
