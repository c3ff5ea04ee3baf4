//! Drives: a server's writable layer on a snapshot. An overlay that the daemon mounts where it can, a copy (reflinked
//! where the file system can) where it cannot; both behind the same words. What a drive was made as it stays: its folder
//! says it, whatever the daemon and the configuration say by then.

use super::folders::{clear, disk_error, make_dir, make_dir_in_place, remove, to_disk};
use super::snapshots::{gone_is_fine, path_text};
use super::{DockerDriver, GAME_DIR, blocking, docker_error};
use crate::clients::docker::{ContainerSpec, DockerError, Mount, OverlayVolume};
use crate::drivers::{blocking_while_wanted, sync_dir};
use crate::engine::{StepCx, StepError};
use crate::model::drive::{DriveRef, SnapshotId, golden};
use crate::model::job::{Action, Gain, Step};
use crate::model::server::Server;
use crate::model::world::WorldAt;
use std::collections::HashSet;
use std::io::{self, ErrorKind::NotFound};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// The folder of all drives, in the data folder.
pub(super) const DRIVES: &str = "drives";
/// Lies in a drive's folder from the first moment in which a world may have been written to it. It stays: where a world
/// arrived, the record says so.
const PUSH_BEGUN: &str = ".push-begun";
/// What a whole copy is called until it is whole.
const PARTIAL: &str = ".partial";

/// How a drive is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveKind {
    /// Files of the snapshot are seen through, and copied up one by one when they are changed.
    Overlay,
    /// A whole copy: for daemons that cannot mount overlays for us.
    Copy,
}

/// What something takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    /// Blocks in use; a file with several names counts once.
    pub bytes: u64,
}

impl DockerDriver {
    pub(super) fn drive_dir(&self, id: &str) -> PathBuf {
        self.settings.data_dir.join(DRIVES).join(id)
    }

    pub(super) fn volume_name(&self, id: &str) -> String {
        format!("{}-drive-{id}", self.prefix())
    }

    async fn kind_of(&self, drive: &DriveRef) -> Result<DriveKind, StepError> {
        let dir = self.drive_dir(&drive.id);
        let found = blocking(move || kind_on_disk(&dir)).await?;
        found.ok_or_else(|| StepError::fatal(format!("The folder of the drive `{}` does not hold a drive.", drive.id)))
    }

    pub(super) async fn mount(&self, drive: &DriveRef) -> Result<Mount, StepError> {
        Ok(match self.kind_of(drive).await? {
            DriveKind::Overlay => Mount::Volume { name: self.volume_name(&drive.id), target: GAME_DIR.to_owned() },
            DriveKind::Copy => Mount::Bind {
                source: path_text(&self.drive_dir(&drive.id).join("files"))?,
                target: GAME_DIR.to_owned(),
                read_only: false,
            },
        })
    }

    /// The name of the drive that a job makes: the same at every try.
    fn new_drive_id(&self, cx: &StepCx<'_>) -> Result<String, StepError> {
        Ok(format!("{}-{}", cx.server()?.id, cx.job.id))
    }

    pub(super) async fn clone_drive(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        if let Some(drive) = &server.owned.drive {
            let dir = self.drive_dir(&drive.id);
            if blocking(move || dir.is_dir()).await? {
                // Volumes are found again by name; one that was pruned is declared anew on the same folders.
                self.declare(server, drive).await?;
                return Ok(Gain::note("already there"));
            }
            if drive.world == WorldAt::Played {
                let last = server.owned.world.as_ref().map_or("There is no backup of it.".to_owned(), |backup| {
                    format!("`/backup restore` with `{backup}` begins again from its last backup.")
                });
                return Err(StepError::fatal(format!("The drive of this server is gone from the disk. {last}")));
            }
            // Somebody deleted its folder; its volume would stay behind for ever.
            self.clear_old_container(cx, &self.container_name(server)).await?;
            self.destroy_drive(&drive.id).await?;
        }
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let newest = golden(&known, &server.game)
            .ok_or_else(|| StepError::fatal("There is no snapshot to clone a drive from."))?;
        let drive = DriveRef { id: self.new_drive_id(cx)?, snapshot: newest.id.clone(), world: WorldAt::Empty };
        self.begin_drive(server, &drive).await?;
        let mut owned = server.owned.clone();
        owned.drive = Some(drive);
        Ok(Gain::owned(owned).with_note(newest.id.to_string()))
    }

    pub(super) async fn undo_clone_drive(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let id = self.new_drive_id(cx)?;
        let kept = server.owned.drive.as_ref().is_some_and(|drive| drive.id != id);
        if kept || cx.job.has_begun(Step::StartGame) || cx.job.has_begun(Step::ReplaceDrive) {
            // It was there before, or a game has written on it: what it holds may be the only copy.
            return Ok(Gain::default());
        }
        self.destroy_drive(&id).await?;
        let mut owned = server.owned.clone();
        owned.drive = None;
        Ok(Gain::owned(owned))
    }

    /// A fresh drive in place of the present one: on the newest snapshot for an update, on the same one for a
    /// restore. The engine has made sure that the world was kept by this very job.
    pub(super) async fn replace_drive(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(old) = server.owned.drive.clone() else { return Ok(Gain::note("there was no drive yet")) };
        let known = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let newest = golden(&known, &server.game).map(|snapshot| snapshot.id.clone());
        let snapshot = match cx.job.action {
            Action::Restore { .. } if self.has_snapshot(&old.snapshot).await? => Some(old.snapshot.clone()),
            Action::Restore { .. } | Action::Start | Action::Update => newest,
            Action::Stop | Action::Restart | Action::Backup | Action::Delete => newest,
            Action::Move { .. } | Action::BuildSnapshot => newest,
        };
        let snapshot = snapshot.ok_or_else(|| StepError::fatal("There is no snapshot to clone a drive from."))?;
        let new = DriveRef { id: self.new_drive_id(cx)?, snapshot, world: WorldAt::Empty };
        if old.id != new.id {
            self.begin_drive(server, &new).await?;
            self.destroy_drive(&old.id).await?;
        }
        let note = new.snapshot.to_string();
        let mut owned = server.owned.clone();
        owned.drive = Some(new);
        Ok(Gain::owned(owned).with_note(note))
    }

    pub(super) async fn delete_drive(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        if let Some(drive) = &server.owned.drive {
            self.destroy_drive(&drive.id).await?;
        }
        let mut owned = server.owned.clone();
        owned.drive = None;
        Ok(Gain::owned(owned))
    }

    /// Makes sure that a drive on which no game has run is as empty as its record says, and notes on it that a world is
    /// about to be written. What an earlier push left is half a world, or one that nobody asks for any more: laid under
    /// another, its files would be part of that.
    pub(super) async fn empty_for_a_world(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        drive: &DriveRef,
    ) -> Result<(), StepError> {
        let (dir, mark) = (self.drive_dir(&drive.id), self.drive_dir(&drive.id).join(PUSH_BEGUN));
        let (looked_at, begun) = (dir.clone(), mark.clone());
        if blocking(move || begun.exists() || !looked_at.is_dir()).await? {
            self.clear_old_container(cx, &self.container_name(server)).await?;
            self.destroy_drive(&drive.id).await?;
            self.make_drive(server, drive).await?;
        }
        let note = move || std::fs::File::create(&mark)?.sync_all().and_then(|()| sync_dir(&dir));
        blocking(note).await?.map_err(disk_error("noting that a world is written"))
    }

    async fn has_snapshot(&self, id: &SnapshotId) -> Result<bool, StepError> {
        let files = self.snapshot_files(id);
        blocking(move || files.is_dir()).await
    }

    /// Makes a drive that is not on record yet. What a try that was cut off has left is empty, and may stand on a snapshot
    /// that was the newest then.
    async fn begin_drive(&self, server: &Server, drive: &DriveRef) -> Result<(), StepError> {
        let (dir, upper) = (self.drive_dir(&drive.id), self.drive_dir(&drive.id).join("upper"));
        if blocking(move || upper.read_dir().is_ok_and(|mut files| files.next().is_some())).await? {
            return Err(StepError::fatal(format!(
                "The folder {} holds the files of a drive that nothing is known of, perhaps because an older database was \
                 put in place. Look at it and move it away; then try again.",
                dir.display()
            )));
        }
        if blocking(move || dir.is_dir()).await? {
            self.destroy_drive(&drive.id).await?;
        }
        self.make_drive(server, drive).await
    }

    async fn make_drive(&self, server: &Server, drive: &DriveRef) -> Result<(), StepError> {
        let dir = self.drive_dir(&drive.id);
        let owner = self.settings.ids.game;
        match self.daemon().await?.drives {
            DriveKind::Overlay => {
                blocking(move || make_dir(&dir.join("upper"), owner).and_then(|()| make_dir(&dir.join("work"), owner)))
                    .await?
                    .map_err(disk_error("making the drive's folders"))?;
            }
            DriveKind::Copy => {
                let from = self.snapshot_files(&drive.snapshot);
                blocking_while_wanted(move |unwanted| copy_tree(&from, &dir, owner, &unwanted))
                    .await?
                    .map_err(disk_error("copying the snapshot"))?;
            }
        }
        self.declare(server, drive).await
    }

    /// Tells the daemon about the drive. Nothing is mounted until a container uses it.
    async fn declare(&self, server: &Server, drive: &DriveRef) -> Result<(), StepError> {
        if self.kind_of(drive).await? == DriveKind::Copy {
            return Ok(());
        }
        let name = self.volume_name(&drive.id);
        if self.docker.volume(&name).await.map_err(docker_error("looking for the drive's volume"))?.is_some() {
            return Ok(());
        }
        let dir = self.drive_dir(&drive.id);
        let volume = OverlayVolume {
            name,
            lower: path_text(&self.snapshot_files(&drive.snapshot))?,
            upper: path_text(&dir.join("upper"))?,
            work: path_text(&dir.join("work"))?,
            labels: self.labels(Some(&server.id), "drive"),
        };
        self.docker.create_overlay_volume(&volume).await.map_err(docker_error("making the drive's volume"))?;
        Ok(())
    }

    pub(super) async fn destroy_drive(&self, id: &str) -> Result<(), StepError> {
        // A container that still names the volume keeps it; hands that an interrupted transfer left are ours.
        self.docker
            .remove(&self.hands_name(id), true)
            .await
            .or_else(gone_is_fine)
            .map_err(docker_error("removing a helper container"))?;
        match self.docker.remove_volume(&self.volume_name(id)).await {
            Ok(()) | Err(DockerError::Gone(_)) => {}
            Err(error) => return Err(docker_error("removing the drive's volume")(error)),
        }
        let dir = self.drive_dir(id);
        blocking(move || remove(&dir)).await?.map_err(disk_error("deleting the drive's folder"))
    }

    fn hands_name(&self, drive: &str) -> String {
        format!("{}-hands-{drive}", self.prefix())
    }

    /// A container on the drive that is made and never started: how files on a drive are read and written through
    /// the daemon, which sees the merged view and may do what an ordinary user may not. The first of these images that
    /// the daemon still holds is taken.
    pub(super) async fn hands(
        &self,
        server: &Server,
        drive: &DriveRef,
        images: &[String],
    ) -> Result<String, StepError> {
        self.declare(server, drive).await?;
        let name = self.hands_name(&drive.id);
        self.docker
            .remove(&name, true)
            .await
            .or_else(gone_is_fine)
            .map_err(docker_error("removing an old helper container"))?;
        let mut spec = ContainerSpec {
            name,
            // It is never started, only looked into. But Docker wants a command, and an image may name none.
            entrypoint: vec!["true".to_owned()],
            labels: self.labels(Some(&server.id), "hands"),
            user: Some(self.daemon().await?.user()),
            mounts: vec![self.mount(drive).await?],
            ..ContainerSpec::default()
        };
        let mut gone = DockerError::Gone("there is no image to reach it with".to_owned());
        for image in images {
            spec.image.clone_from(image);
            match self.docker.create(&spec).await {
                // Somebody has removed it since it was looked for.
                Err(error @ DockerError::Gone(_)) => gone = error,
                made => return made.map_err(docker_error("reaching the drive")),
            }
        }
        Err(docker_error("reaching the drive")(gone))
    }

    pub(super) async fn let_go(&self, drive: &DriveRef) -> Result<(), StepError> {
        let name = self.hands_name(&drive.id);
        self.docker.remove(&name, true).await.or_else(gone_is_fine).map_err(docker_error("removing a helper container"))
    }
}

/// How the drive in this folder was made; `None` where there is none.
pub(super) fn kind_on_disk(dir: &Path) -> Option<DriveKind> {
    let has = |name: &str| dir.join(name).is_dir();
    match (has("upper"), has("files") || has(PARTIAL)) {
        (true, _) => Some(DriveKind::Overlay),
        (false, true) => Some(DriveKind::Copy),
        (false, false) => None,
    }
}

/// The folder that holds what is a drive's own, for measuring.
pub(super) fn own_files(dir: &Path) -> PathBuf {
    match kind_on_disk(dir) {
        Some(DriveKind::Overlay) | None => dir.join("upper"),
        Some(DriveKind::Copy) => dir.join("files"),
    }
}

/// Counts files and the blocks they use. Folders that cannot be entered are an error, never a zero; a file that a game
/// removes meanwhile is none.
pub fn usage(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    for entry in walkdir::WalkDir::new(path) {
        let found = match entry.and_then(|entry| entry.metadata()) {
            Err(error) if error.depth() > 0 && error.io_error().is_some_and(|io| io.kind() == NotFound) => continue,
            found => found?,
        };
        if !found.is_dir() {
            usage.files += 1;
        }
        if found.nlink() == 1 || found.is_dir() || seen.insert((found.dev(), found.ino())) {
            usage.bytes += found.blocks() * 512;
        }
    }
    Ok(usage)
}

/// A whole copy in `to/files`, put in place only when it is complete. One that is called off ends at the next file, and
/// makes no folder anew that was cleared away by then.
fn copy_tree(from: &Path, to: &Path, owner: (u32, u32), unwanted: &CancellationToken) -> io::Result<()> {
    let (done, partial) = (to.join("files"), to.join(PARTIAL));
    if done.is_dir() {
        return Ok(());
    }
    clear(&partial)?;
    std::fs::create_dir_all(to)?;
    for entry in walkdir::WalkDir::new(from) {
        if unwanted.is_cancelled() {
            return Err(io::Error::other("it was called off"));
        }
        let entry = entry?;
        let target = partial.join(entry.path().strip_prefix(from).expect("the walk stays below its root"));
        let found = entry.metadata()?;
        if found.is_dir() {
            make_dir_in_place(&target, owner)?;
            // The snapshot's own folder is sealed; the copy is there to be written.
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(found.mode() | 0o700))?;
        } else if found.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target)?;
            std::os::unix::fs::lchown(&target, Some(owner.0), Some(owner.1))?;
        } else {
            copy_file(entry.path(), &target)?;
            chown(&target, Some(owner.0), Some(owner.1))?;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(found.mode() & 0o7777))?;
        }
    }
    // A power cut must not leave the name of what is whole on what is not.
    to_disk(&partial)?;
    std::fs::rename(&partial, &done)?;
    sync_dir(to)
}

/// Shares the blocks where the file system can (btrfs, XFS), and copies where it cannot.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = std::fs::File::open(from)?;
    let target = std::fs::File::create(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_hard_link_is_counted_once() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("a"), vec![1; 100_000]).unwrap();
        let one = usage(home.path()).unwrap();
        std::fs::hard_link(home.path().join("a"), home.path().join("b")).unwrap();
        let two = usage(home.path()).unwrap();
        assert_eq!((one.files, two.files, one.bytes), (1, 2, two.bytes));
    }

    #[test]
    fn what_goes_while_it_is_measured_is_no_error() {
        let home = tempfile::tempdir().unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    (0..50).for_each(|name| std::fs::write(home.path().join(name.to_string()), "x").unwrap());
                    (0..50).for_each(|name| std::fs::remove_file(home.path().join(name.to_string())).unwrap());
                }
            });
            let measured: io::Result<Vec<Usage>> = (0..2000).map(|_| usage(home.path())).collect();
            done.store(true, Ordering::Relaxed);
            measured.unwrap();
        });
        let nowhere = usage(&home.path().join("nowhere")).map(|usage| usage.files);
        assert_eq!(nowhere.unwrap_err().kind(), NotFound);
    }

    #[test]
    fn a_copied_drive_is_whole_and_writable() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        std::fs::create_dir_all(from.join("dir")).unwrap();
        std::fs::write(from.join("dir/file"), "content").unwrap();
        std::os::unix::fs::symlink("file", from.join("dir/link")).unwrap();
        std::fs::set_permissions(&from, std::fs::Permissions::from_mode(0o555)).unwrap();
        let me = std::fs::metadata(home.path()).unwrap();
        assert_eq!(kind_on_disk(&to), None);
        copy_tree(&from, &to, (me.uid(), me.gid()), &CancellationToken::new()).unwrap();
        assert_eq!(kind_on_disk(&to), Some(DriveKind::Copy));
        assert_eq!(std::fs::read_to_string(to.join("files/dir/link")).unwrap(), "content");
        std::fs::write(to.join("files/new"), "x").unwrap();
    }

    #[test]
    fn a_copy_that_is_called_off_makes_nothing_anew() {
        let home = tempfile::tempdir().unwrap();
        let (from, to) = (home.path().join("from"), home.path().join("to"));
        (0..20_000).for_each(|number| std::fs::create_dir_all(from.join(number.to_string()).join("in")).unwrap());
        let me = std::fs::metadata(home.path()).unwrap();
        let owner = (me.uid(), me.gid());
        let unwanted = CancellationToken::new();
        std::thread::scope(|scope| {
            let copy = scope.spawn(|| copy_tree(&from, &to, owner, &unwanted));
            while to.join(PARTIAL).read_dir().map_or(0, Iterator::count) < 10 {
                assert!(!copy.is_finished(), "it was too quick");
            }
            // As it is undone: its thread may not have heard of it yet.
            remove(&to).unwrap();
            unwanted.cancel();
            copy.join().unwrap().unwrap_err();
        });
        assert!(!to.exists(), "a drive that nobody knows of");
        copy_tree(&from, &to, owner, &unwanted).unwrap_err();
        assert_eq!(kind_on_disk(&to), None);
    }

    /// An XFS in a file, unmounted at the end.
    struct Xfs(tempfile::TempDir);

    impl Xfs {
        /// `None`, and it says why, where there is no such file system or nobody may mount one.
        fn mount() -> Option<Xfs> {
            let home = tempfile::tempdir().unwrap();
            let (image, at) = (home.path().join("image"), home.path().join("at"));
            std::fs::File::create(&image).unwrap().set_len(400 << 20).unwrap();
            std::fs::create_dir(&at).unwrap();
            let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image).status();
            if !made.is_ok_and(|made| made.success()) {
                assert!(std::env::var("CI").is_err(), "mkfs.xfs is missing: install xfsprogs");
                println!("skipped: no mkfs.xfs");
                return None;
            }
            let mounted = Command::new("mount").args(["-o", "loop"]).args([&image, &at]).output().unwrap();
            if !mounted.status.success() {
                println!("skipped: nothing can be mounted here: {}", String::from_utf8_lossy(&mounted.stderr));
                return None;
            }
            Some(Xfs(home))
        }

        fn at(&self) -> PathBuf {
            self.0.path().join("at")
        }

        fn free_bytes(&self) -> u64 {
            rustix::fs::sync();
            let seen = rustix::fs::statvfs(self.at()).unwrap();
            seen.f_bavail * seen.f_frsize
        }
    }

    impl Drop for Xfs {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.at()).status();
        }
    }

    #[test]
    fn a_copy_shares_its_blocks_where_the_file_system_can() {
        let Some(disk) = Xfs::mount() else { return };
        let (from, to) = (disk.at().join("from"), disk.at().join("to"));
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("map"), vec![7; 64 << 20]).unwrap();
        let before = disk.free_bytes();
        let me = std::fs::metadata(disk.at()).unwrap();
        copy_tree(&from, &to, (me.uid(), me.gid()), &CancellationToken::new()).unwrap();
        let taken = before.saturating_sub(disk.free_bytes());
        assert!(taken < 1 << 20, "the copy of 64 MB took {taken} bytes");
        // It is a copy all the same.
        std::fs::write(to.join("files/map"), "new").unwrap();
        assert_eq!(std::fs::metadata(from.join("map")).unwrap().len(), 64 << 20);
    }
}
