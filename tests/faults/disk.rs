//! A disk that is full: a small file system of its own under the data folder.

use super::*;
use spawnpoint::app::Choice;
use spawnpoint::model::server::State;
use std::collections::BTreeMap;

/// A file system in memory, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(megabytes: usize) -> SmallDisk {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::Builder::new().prefix("spawnpoint-disk-").tempdir().unwrap();
        let size = format!("size={megabytes}m,mode=755");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path()).status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        SmallDisk(home)
    }

    fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(self.0.path()).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Takes all room but this much.
    fn fill_but(&self, bytes: u64) -> PathBuf {
        let path = self.0.path().join("somebody-elses");
        std::fs::write(&path, vec![1; (self.free_bytes() - bytes) as usize]).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: whatever of a failed test still stands on it goes with it.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn an_install_that_does_not_fit_says_so_and_gives_the_room_back() {
    if !ready().await || !root_or_skip("a small disk") {
        return;
    }
    let huge = "dd if=/dev/zero of=maps/big bs=1048576 count=64";
    let variants = Variants::new()
        .with("huge", &[("install", "dd if=/dev/zero of=maps/big bs=1024 count=2048 2>/dev/null", huge)]);
    let disk = SmallDisk::new(24);
    let stage = Stage::open(variants.path(), |config| config.data_dir = disk.0.path().join("data")).await;
    stage.create("world", "huge", &[]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let said = sentence(&stage, job, Outcome::Failed).await;
    assert!(said.contains("disk is full") && said.contains("Free some space"), "{said}");
    assert!(disk.free_bytes() > 16 << 20, "{} bytes are free", disk.free_bytes());
    assert!(stage.program.app.snapshots(&stage.caller).await.unwrap().is_empty());
    assert!(containers_of(&stage, "installer").is_empty());
    close(stage, &variants).await;
}

#[tokio::test]
async fn a_full_disk_under_the_records_is_said_and_nothing_is_lost() {
    if !ready().await || !root_or_skip("a small disk") {
        return;
    }
    let disk = SmallDisk::new(24);
    let stage = Stage::open("tests/recipes", |config| config.data_dir = disk.0.path().join("data")).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let others = disk.fill_but(0);
    // There may be some room within the files of the database.
    let mut refused = None;
    for number in 0..200 {
        let motto = BTreeMap::from([("MOTTO".to_owned(), format!("{number} {}", "much ".repeat(40)))]);
        if let Err(refusal) = app.settings_apply(&stage.caller, "world", motto).await {
            refused = Some(refusal.to_string());
            break;
        }
    }
    let refused = refused.expect("nothing can be written down");
    assert!(refused.contains("is full") && refused.contains("make room"), "{refused}");
    let stop = app.stop(&stage.caller, "world", None).await;
    assert!(stop.as_ref().err().is_none_or(|refusal| refusal.to_string().contains("is full")), "{stop:?}");
    std::fs::remove_file(others).unwrap();
    let job = match stop {
        Ok(job) => job,
        Err(_) => app.stop(&stage.caller, "world", None).await.unwrap(),
    };
    assert_eq!(stage.end_of(job).await.outcome, Some(Outcome::Succeeded));
    assert_eq!(app.backups(&stage.caller, "world").await.unwrap().len(), 1);
    stage.start("world").await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    stage.close().await;
}

#[tokio::test]
async fn a_backup_that_does_not_fit_holds_the_stop_until_there_is_room() {
    if !ready().await || !root_or_skip("a small disk") {
        return;
    }
    let large = "mkdir -p world settings .spawnpoint\ndd if=/dev/urandom of=world/large bs=1048576 count=6 2>/dev/null";
    let variants = Variants::new().with("large", &[("start", "mkdir -p world settings .spawnpoint", large)]);
    let disk = SmallDisk::new(48);
    let stage = Stage::open(variants.path(), |config| config.data_dir = disk.0.path().join("data")).await;
    let app = &stage.program.app;
    stage.create("world", "large", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let others = disk.fill_but(4 << 20);
    let job = app.stop(&stage.caller, "world", None).await.unwrap();
    let said = sentence(&stage, job, Outcome::Held).await;
    assert!(said.contains("no space left on the disk"), "{said}");
    assert_eq!(app.status(&stage.caller, "world").await.unwrap().state, State::Failed);
    assert!(app.backups(&stage.caller, "world").await.unwrap().is_empty());
    assert_eq!(drive_folders(&stage).len(), 1);
    assert!(disk.free_bytes() > 3 << 20, "half a backup keeps no room: {} bytes are free", disk.free_bytes());
    std::fs::remove_file(others).unwrap();
    app.choose(&stage.caller, "world", Choice::Retry).await.unwrap();
    stage
        .until("the stop that was tried again", async || {
            (app.job_view(job).await.unwrap().outcome == Some(Outcome::Succeeded)).then_some(())
        })
        .await;
    assert_eq!(app.backups(&stage.caller, "world").await.unwrap().len(), 1);
    stage.start("world").await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    close(stage, &variants).await;
}
