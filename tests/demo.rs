//! `scripts/demo --cloud` as people run it, but for the game, which is the toy: two evenings on hosts of the stand-in, and
//! nothing of them is left. And the demo in containers when it is ended before its time; the whole of it is watched by
//! `registry` and `faults`.

mod common {
    pub mod cloud;
}

use common::cloud::{Clouds, Options};
use rustix::process::{Pid, Signal, kill_process};
use spawnpoint::clients::docker::Docker;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What scripts/lib/test-images holds while it builds. It is empty and lies where all temporary files do.
const LOCK: &str = "spawnpoint-test-images.lock";

/// Processes that have this in their environment: whatever the script has started, and they have.
fn processes_with(word: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("Linux").flatten().map(|entry| entry.path());
    // One that ends meanwhile, or is somebody else's, is none of the script's.
    let ours = all.filter(|path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(word)
    });
    ours.map(|path| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ")).collect()
}

/// Everything that is said of the machines of all stand-ins, also those of other tests.
fn machines() -> String {
    // Others remove theirs meanwhile; what is gone in between is not what is looked for.
    let script = "docker ps -aq --filter label=spawnpoint.standin | xargs -r docker inspect 2>/dev/null || true";
    String::from_utf8(Command::new("sh").args(["-c", script]).output().expect("docker runs").stdout).expect("text")
}

#[test]
fn two_evenings_on_rented_hosts_are_shown_and_nothing_of_them_is_left() {
    // Only to see that Docker, Python and the image are there.
    if Clouds::start(&Options::default()).is_none() {
        return;
    }
    let (root, temporary) = (Path::new(env!("CARGO_MANIFEST_DIR")), tempfile::tempdir().unwrap());
    let done = Command::new(root.join("scripts/demo"))
        .args(["--cloud", "toy"])
        .env("PROGRAM", env!("CARGO_BIN_EXE_spawnpoint"))
        .env("SPAWNPOINT_GAME_SCRIPTS", root.join("tests/recipes"))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .output()
        .expect("the script runs");
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}\n{errors}");

    let (_, demo) = said.split_once("\n== The demo\n").expect("it begins");
    let scenes: Vec<&str> = demo.lines().filter(|line| line.starts_with("== ")).collect();
    insta::assert_snapshot!(scenes.join("\n"), @"
    == What an evening would cost  (/server create name:friday-world game:toy backend:cloud)
    == A host is rented and the game starts on it  (/server start)
    == Who is on, and what it costs  (the panel in the channel)
    == It stops: the world comes home, then the host goes  (/server stop)
    == The next evening: another host, the same world  (/server start)
    == And it stops again  (/server stop)
    == What it would have cost  (/cost)
    == Cleaning up
    ");
    for told in [
        "  It rents a host (hetzner cx23 in fsn1): about 0.0067 € an hour, at most 0.08 € for 12 h.",
        "  billing: ON, 0.0067 € so far",
        "  billing: off · 0.0067 € this month",
        ": 1 file, the same on both sides",
        "\n  Removed the server and its backups.",
        "\n  The provider lists no host, key or firewall any more. Hosts rented and gone: 2.",
        "\nThat was an evening on a rented host, rented from nobody.",
    ] {
        assert!(demo.contains(told), "it does not say {told:?}: {demo}");
    }

    let hosts: Vec<&str> = demo.lines().filter_map(|line| line.split("running, 127.").nth(1)).collect();
    let [host] = &hosts[..] else { panic!("one host was seen running: {demo}") };
    assert!(!machines().contains(&format!("\"127.{host}\"")), "the machine of 127.{host} is still there: {demo}");
    let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == LOCK), "{left:?}");
    let alive = processes_with(temporary.path().to_str().expect("its name is text"));
    assert!(alive.is_empty(), "still running: {alive:?}");
}

/// One that a failed test leaves running.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether Docker has anything whose description names this folder: mounts, and the volumes of drives.
fn on_the_daemon(folder: &Path) -> Vec<&'static str> {
    let mut found = vec![];
    for (list, inspect) in [("docker ps -aq", "docker inspect"), ("docker volume ls -q", "docker volume inspect")] {
        // Others make and remove theirs meanwhile; what is gone in between is not what is looked for.
        let script = format!("{list} | xargs -r {inspect} 2>/dev/null || true");
        let all = Command::new("sh").args(["-c", &script]).output().expect("docker runs").stdout;
        if String::from_utf8_lossy(&all).contains(folder.to_str().expect("its name is text")) {
            found.push(list);
        }
    }
    found
}

/// Ends the demo of a toy when it says this, and gives what it says from then on and of its end.
fn demo_ended_at(line: &str, signal: Signal, listens: bool) -> (String, String) {
    let home = tempfile::Builder::new().prefix("spawnpoint-ended-").tempdir().unwrap();
    let temporary = home.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    // Games run as another user, and their folders lie below.
    for folder in [home.path(), &temporary] {
        std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let recipe = home.path().join("recipes/toy");
    std::fs::create_dir_all(&recipe).unwrap();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/toy")).unwrap().flatten() {
        std::fs::copy(file.path(), recipe.join(file.file_name())).unwrap();
    }
    // Long enough to be ended, and an image that is no other test's.
    let install = std::fs::read_to_string(recipe.join("install")).unwrap();
    let slow = format!("# {}\ncd \"$GAME_DIR\"\nsleep 3\n", home.path().display());
    std::fs::write(recipe.join("install"), install.replace("cd \"$GAME_DIR\"\n", &slow)).unwrap();
    let mut demo = Running(
        Command::new(env!("CARGO_BIN_EXE_spawnpoint"))
            .args(["demo", "--game", "toy"])
            .env("SPAWNPOINT_GAME_SCRIPTS", home.path().join("recipes"))
            .env("TMPDIR", &temporary)
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts"),
    );
    let mut output = BufReader::new(demo.0.stdout.take().expect("it is piped"));
    let mut said = String::new();
    while !said.lines().last().is_some_and(|last| last.contains(line)) {
        assert!(output.read_line(&mut said).unwrap() > 0, "it ended before {line:?}: {said}");
    }
    // A step is said to run a moment before its container is there.
    let deadline = Instant::now() + Duration::from_secs(20);
    while on_the_daemon(&temporary).is_empty() {
        assert!(Instant::now() < deadline, "nothing runs that could be left: {said}");
    }
    // Who closes a terminal reads no more.
    let mut output = listens.then_some(output);
    kill_process(Pid::from_child(&demo.0), signal).expect("it runs");
    let mut rest = String::new();
    if let Some(output) = &mut output {
        output.read_to_string(&mut rest).unwrap();
    }
    let mut errors = String::new();
    demo.0.stderr.take().expect("it is piped").read_to_string(&mut errors).unwrap();
    let ended = demo.0.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "{said}{rest}{errors}");
    assert_eq!(on_the_daemon(&temporary), Vec::<&str>::new(), "{said}{rest}{errors}");
    let left: Vec<_> = std::fs::read_dir(&temporary).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}: {said}{rest}{errors}");
    (rest, errors)
}

/// Its servers, its drives and its folder go as with Ctrl-C.
#[tokio::test]
async fn a_demo_in_containers_that_is_ended_leaves_nothing_behind() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Err(error) = Docker::connect(None).expect("the usual socket is an endpoint").ping().await {
        assert!(std::env::var("CI").is_err(), "no Docker daemon: {error}");
        println!("skipped: no Docker daemon ({error})");
        return;
    }
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/test-images");
    assert!(Command::new(images).arg("busybox").output().unwrap().status.success(), "the image is made");

    let (rest, errors) = demo_ended_at("friday-world: running", Signal::TERM, true);
    assert!(rest.contains("\n== Cleaning up\n  Removed both servers"), "{rest}{errors}");
    assert_eq!(errors, "the demo stopped: it was told to end (SIGTERM)\n");
    // A server that starts, and an installer that no server has asked for, with nobody there to read of it.
    let (_, errors) = demo_ended_at("== sunday-world, on a drive", Signal::HUP, false);
    assert_eq!(errors, "the demo stopped: its terminal was closed (SIGHUP)\n");
    let (_, errors) = demo_ended_at("runs       Installing the game", Signal::HUP, false);
    assert_eq!(errors, "the demo stopped: its terminal was closed (SIGHUP)\n");
    let (_, errors) = demo_ended_at("runs       Installing the game", Signal::INT, true);
    assert_eq!(errors, "the demo stopped: interrupted\n");
}
