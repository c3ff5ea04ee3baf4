//! A rootless Docker daemon, which is an ordinary user's own: nobody is root but in name.

use super::user::{UID, User};
use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Where Debian's docker.io has it.
const SCRIPT: &str = "/usr/share/docker.io/contrib/dockerd-rootless.sh";
const NEEDED: [&str; 4] = ["/usr/bin/rootlesskit", "/usr/bin/newuidmap", "/usr/bin/slirp4netns", SCRIPT];
/// It is there in some seconds; a machine that builds meanwhile takes its time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Nobody on this machine changes: only what is started here has a name for the user, ids to hand out, and a device for
/// its network.
const SURROUNDINGS: &str = r#"
set -eu
home=$1 uid=$2 script=$3
cp /etc/passwd "$home/passwd"
echo "rootless:x:$uid:$uid::$home/own:/bin/sh" >>"$home/passwd"
echo "rootless:300000:65536" >"$home/subids"
mknod "$home/tun" c 10 200
chmod 666 "$home/tun"
mount --bind "$home/passwd" /etc/passwd
mount --bind "$home/subids" /etc/subuid
mount --bind "$home/subids" /etc/subgid
mount --bind "$home/tun" /dev/net/tun
cd "$home/own"
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all --ambient-caps=-all \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$home/own" XDG_RUNTIME_DIR="$home/own" \
    "$script" --data-root "$home/own/data" --host "unix://$home/own/docker.sock"
"#;

struct Rootless {
    daemon: Child,
    home: tempfile::TempDir,
}

impl Rootless {
    fn start() -> Option<Rootless> {
        if let Some(missing) = NEEDED.iter().find(|needed| !Path::new(needed).exists()) {
            assert!(std::env::var("CI").is_err(), "a rootless daemon needs {missing}");
            println!("skipped: a rootless daemon needs {missing}");
            return None;
        }
        let home = tempfile::Builder::new().prefix("spawnpoint-rootless-").tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(home.path().join("own")).unwrap();
        chown(home.path().join("own"), Some(UID), Some(UID)).unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let daemon = Command::new("unshare")
            .args(["--mount", "sh", "-c", SURROUNDINGS, "sh"])
            .arg(home.path())
            .args([UID.to_string().as_str(), SCRIPT])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut rootless = Rootless { daemon, home };
        let deadline = Instant::now() + START_LIMIT;
        while !rootless.docker(&["version"]).status.success() {
            if rootless.daemon.try_wait().unwrap().is_some() || Instant::now() > deadline {
                let log = std::fs::read_to_string(rootless.home.path().join("log")).unwrap();
                println!("skipped: no rootless daemon starts here:\n{log}");
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(rootless)
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.home.path().join("own/docker.sock").display())
    }

    fn docker(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("docker").args(["--host", &self.endpoint()]).args(arguments).output().unwrap()
    }

    fn says(&self, arguments: &[&str]) -> String {
        let done = self.docker(arguments);
        assert!(done.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// There is no registry, so it gets the image from the other daemon.
    fn has(&self, image: &str) {
        let carry = format!("docker save {image} | docker --host {} load", self.endpoint());
        let done = Command::new("bash").args(["-o", "pipefail", "-c", &carry]).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.daemon),
            rustix::process::Signal::TERM,
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

#[tokio::test]
async fn an_ordinary_user_runs_servers_on_a_rootless_daemon_of_its_own() {
    if !ready().await || !root_or_skip("becoming another user") {
        return;
    }
    let Some(rootless) = Rootless::start() else { return };
    rootless.has("spawnpoint-test/busybox:1");
    // On such a daemon as on any, and without a registry.
    let variants = Variants::new().with("own", &[]);
    let user = User::of_no_group();
    let stage = Stage::open_idle(variants.path(), |config| config.docker.endpoint = Some(rootless.endpoint())).await;
    let app = &stage.program.app;
    let owned = Command::new("chown").arg("-R").arg(format!("{UID}:{UID}")).arg(&stage.config.data_dir).status();
    assert!(owned.unwrap().success());
    let as_user = |arguments: &[&str]| {
        let mut command = user.command(variants.path(), arguments);
        command
            .env("DOCKER_HOST", rootless.endpoint())
            .env("SPAWNPOINT_DATA_DIR", &stage.config.data_dir)
            .env("SPAWNPOINT_DOCKER__PUBLISH_ADDRESS", stage.config.docker.publish_address.to_string());
        command
    };
    let doctor = as_user(&["doctor"]).output().unwrap();
    let doctor = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.contains(&format!("fine   Games run as user {UID}:{UID}. In their containers")), "{doctor}");
    assert!(doctor.contains("note   This daemon is rootless, so a drive is a whole copy"), "{doctor}");

    let mut command = as_user(&["run", "--without-discord"]);
    command.stderr(std::fs::File::create(stage.home.join("binary.log")).unwrap());
    let running = user::Running(command.spawn().unwrap());
    stage.create("world", "own", &[]).await;
    stage.start("world").await;
    stage.turns("world", 2).await;
    let game = rootless.says(&["ps", "-q", "--filter", "label=spawnpoint.role=game"]);
    assert_eq!(rootless.says(&["inspect", "--format", "{{.Config.User}}", &game]), "0:0");
    // Root there, and of nothing: what it can do is what the user can.
    let status = rootless.says(&["exec", &game, "cat", "/proc/1/status"]);
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    let turns = drive_folders(&stage).remove(0).join("files/world/turns");
    assert_eq!(std::fs::metadata(&turns).unwrap().uid(), UID);
    stage.stop_server("world").await;
    stage.starts_with("world", 2).await;
    stage.turns("world", 1).await;
    let backup = app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();
    stage.succeeds(app.restore(&stage.caller, "world", &backup, None).await.unwrap()).await;
    assert!(log_of(&stage, "world").await.contains("with 2 turns"));
    let turns = drive_folders(&stage).remove(0).join("files/world/turns");
    assert_eq!(std::fs::metadata(&turns).unwrap().uid(), UID, "what was put there is the user's too");
    stage.succeeds(app.delete(&stage.caller, "world", "world", None).await.unwrap()).await;
    assert!(drive_folders(&stage).is_empty(), "{:?}", drive_folders(&stage));
    assert_eq!(rootless.says(&["ps", "-aq"]), "");
    drop(running);
    stage.work_now().close().await;
}
