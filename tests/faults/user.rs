//! Spawnpoint as an ordinary user who may use Docker's socket and nothing else of root's.

use super::*;
use spawnpoint::clients::docker::DEFAULT_SOCKET;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Child, Stdio};

/// A number that no account of a test machine has.
pub const UID: u32 = 51_515;

/// The binary where this user can run it, with a folder that is the user's own.
pub struct User {
    home: tempfile::TempDir,
    /// The group that may use the machine's own daemon.
    docker: Option<u32>,
}

impl User {
    fn new() -> User {
        User { docker: Some(std::fs::metadata(DEFAULT_SOCKET).unwrap().gid()), ..User::of_no_group() }
    }

    pub fn of_no_group() -> User {
        let home = tempfile::Builder::new().prefix("spawnpoint-user-").tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let binary = home.path().join("spawnpoint");
        std::fs::copy(env!("CARGO_BIN_EXE_spawnpoint"), &binary).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let own = home.path().join("own");
        std::fs::create_dir(&own).unwrap();
        chown(&own, Some(UID), Some(UID)).unwrap();
        User { home, docker: None }
    }

    fn own(&self) -> PathBuf {
        self.home.path().join("own")
    }

    pub fn command(&self, recipes: &str, arguments: &[&str]) -> Command {
        let groups = self.docker.map_or("--clear-groups".to_owned(), |group| format!("--groups={group}"));
        let uid = UID.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &uid, &groups])
            .args(["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"])
            .arg(self.home.path().join("spawnpoint"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.own())
            .env("SPAWNPOINT_GAME_SCRIPTS", recipes)
            .env("SPAWNPOINT_WATCH__EVERY_SECONDS", "1")
            .current_dir(self.own())
            .stdin(Stdio::null());
        command
    }
}

pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn an_ordinary_user_sees_the_whole_demo_and_nothing_is_left_of_it() {
    if !ready().await || !root_or_skip("becoming another user") {
        return;
    }
    let user = User::new();
    let variants = Variants::new().with("shown", &[]);
    let done = user.command(variants.path(), &["demo", "--game", "shown"]).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{errors}");
    assert!(said.contains("friday-world: running") && said.contains("That was the main job."), "{said}");
    let left: Vec<_> = std::fs::read_dir(user.own()).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    // Whatever it made on the daemon names its folder: the drives' volumes and the installer's mount.
    let own = user.own();
    for (list, inspect) in [("docker volume ls -q", "docker volume inspect"), ("docker ps -aq", "docker inspect")] {
        // Others make and remove theirs meanwhile; what is gone in between is not what is looked for.
        let script = format!("{list} | xargs -r {inspect} 2>/dev/null || true");
        let found = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(!String::from_utf8_lossy(&found.stdout).contains(own.to_str().unwrap()), "{list}: {said}");
    }
    let images = docker(&["images", "-q", "spawnpoint/shown"]);
    assert!(images.is_empty(), "{images}");
}

#[tokio::test]
async fn an_ordinary_user_starts_backs_up_stops_and_deletes_servers() {
    if !ready().await || !root_or_skip("becoming another user") {
        return;
    }
    let user = User::new();
    let variants = Variants::new().with("mine", &[]);
    // The stage asks and looks; all work is done by the binary, as the user.
    let stage = Stage::open_idle(variants.path(), |_| {}).await;
    let app = &stage.program.app;
    let owned = Command::new("chown").arg("-R").arg(format!("{UID}:{UID}")).arg(&stage.config.data_dir).status();
    assert!(owned.unwrap().success());
    let mut command = user.command(variants.path(), &["run", "--without-discord"]);
    command
        .env("SPAWNPOINT_DATA_DIR", &stage.config.data_dir)
        .env("SPAWNPOINT_DOCKER__PUBLISH_ADDRESS", stage.config.docker.publish_address.to_string())
        .stderr(std::fs::File::create(stage.home.join("binary.log")).unwrap());
    let running = Running(command.spawn().unwrap());
    stage.create("world", "mine", &[]).await;
    stage.start("world").await;
    let game = docker(&["inspect", "--format", "{{.Config.User}}", &container_of(&stage)]);
    assert_eq!(game, format!("{UID}:{UID}"));
    stage.turns("world", 2).await;
    stage.succeeds(app.backup(&stage.caller, "world", None).await.unwrap()).await;
    stage.stop_server("world").await;
    stage.start("world").await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    // What the kernel leaves in an overlay's work folder: root's, and closed to everybody.
    let drive = drive_folders(&stage).remove(0);
    let kernels = std::fs::metadata(drive.join("work/work")).unwrap();
    assert_eq!((kernels.uid(), kernels.mode() & 0o777), (0, 0));
    let backup = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    stage.succeeds(app.restore(&stage.caller, "world", &backup, None).await.unwrap()).await;
    assert!(!drive.exists(), "the restore put a fresh drive in its place");
    stage.succeeds(app.delete(&stage.caller, "world", "world", None).await.unwrap()).await;
    assert!(drive_folders(&stage).is_empty(), "{:?}", drive_folders(&stage));
    drop(running);
    let stage = stage.work_now();
    close(stage, &variants).await;
}
