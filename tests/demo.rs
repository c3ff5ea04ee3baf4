//! `scripts/demo --cloud` as people run it, but for the game, which is the toy: two evenings on hosts of the stand-in, and
//! nothing of them is left. The demo in containers is watched by `registry` and `faults`.

mod common {
    pub mod cloud;
}

use common::cloud::{Clouds, Options};
use std::path::Path;
use std::process::{Command, Stdio};

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
