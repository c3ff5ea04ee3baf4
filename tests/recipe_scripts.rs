//! The scripts of every recipe: their form, and those of the games that cannot be downloaded here, run against stand-ins
//! for what they fetch and for the games themselves.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes longer than a moment, on a machine that is not otherwise busy.
const PATIENCE: Duration = Duration::from_secs(60);
const SCRIPTS: [&str; 5] = ["bootstrap", "install", "start", "stop", "healthcheck"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a tool is there. Without it a test is left out on a laptop, and fails where everything must be tested.
fn have(tool: &str) -> bool {
    let found =
        std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|dir| dir.join(tool).is_file());
    if !found {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{tool} is missing");
        println!("skipped: there is no {tool} (apt-get install {tool})");
    }
    found
}

fn scripts() -> Vec<PathBuf> {
    let mut found = vec![];
    for folder in ["game-scripts", "tests/recipes"] {
        for recipe in std::fs::read_dir(root().join(folder)).unwrap() {
            let recipe = recipe.unwrap().path();
            found.extend(SCRIPTS.iter().map(|name| recipe.join(name)).filter(|path| path.exists()));
        }
    }
    assert!(found.len() >= 4 * 5, "the scripts were not found: {found:?}");
    found.sort();
    found
}

#[test]
fn every_script_stops_at_its_first_error() {
    for path in scripts() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_ne!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o111, 0, "{path:?} cannot be executed");
        let first = text.lines().next().unwrap_or_default();
        let (strict, shell) = match first {
            "#!/usr/bin/env bash" => ("set -euo pipefail", "bash"),
            // Where an image has no more than busybox.
            "#!/bin/sh" => ("set -eu", "sh"),
            other => panic!("{path:?} begins with {other}"),
        };
        let command = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
        assert_eq!(command, Some(strict), "{path:?}: the first command");
        let read = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(read.status.success(), "{path:?}: {}", String::from_utf8_lossy(&read.stderr));
    }
}

/// The cloud backend refuses a host without it, and by then the host costs money.
#[test]
fn every_game_brings_rsync_because_worlds_travel_with_it() {
    for recipe in std::fs::read_dir(root().join("game-scripts")).unwrap() {
        let path = recipe.unwrap().path().join("bootstrap");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let installs = text.lines().any(|line| !line.starts_with('#') && line.contains("rsync"));
        assert!(installs, "{path:?} does not install rsync");
    }
}

/// A host that has just come up may be at its own packages, and `apt-get update` waits for nobody.
#[test]
fn every_bootstrap_tries_again_what_apt_could_not_do_at_once() {
    for recipe in std::fs::read_dir(root().join("game-scripts")).unwrap() {
        let game: &'static str = recipe.unwrap().file_name().into_string().unwrap().leak();
        let place = Place::new(game);
        let apt = "#!/usr/bin/env bash\necho \"$*\" >>\"$STAND_IN/calls\"\n\
            if [[ $* == *update* ]] && mkdir \"$STAND_IN/locked\" 2>/dev/null; then\n\
            echo 'E: Could not get lock /var/lib/apt/lists/lock'; exit 100\nfi\n";
        place.tool("apt-get", apt);
        // What would change the machine that the tests run on, or is not there.
        for tool in ["rm", "sed", "sleep", "dpkg", "debconf-set-selections", "apt-cache", "java"] {
            place.tool(tool, "#!/bin/sh\nexit 0\n");
        }
        let said = place.run("bootstrap", &[]).unwrap_or_else(|said| said);
        let calls = place.calls();
        let words = calls.lines().map(|call| if call.contains("update") { "update" } else { "install" });
        assert_eq!(words.collect::<Vec<_>>(), ["update", "update", "install"], "{game}: {said}");
        assert!(calls.lines().last().unwrap().contains("rsync"), "{calls}");
    }
}

#[test]
fn shellcheck_finds_nothing() {
    if !have("shellcheck") {
        return;
    }
    let found = Command::new("shellcheck").args(scripts()).output().unwrap();
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stdout));
}

/// A machine of its own for one game: its folder, and a folder of stand-ins that come first on PATH.
struct Place {
    dir: tempfile::TempDir,
    game: &'static str,
}

/// Serves files by the address that they would be fetched from, and writes down how it was called.
const CURL: &str = r#"#!/usr/bin/env bash
set -euo pipefail
printf '%s\n' "curl $*" >>"$STAND_IN/calls"
output='' address=''
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=$2; shift ;;
        --user-agent | --proto | --retry | --retry-delay) shift ;;
        -*) ;;
        *) address=$1 ;;
    esac
    shift
done
served=$STAND_IN/served/${address//[\/:]/_}
[ -f "$served" ] || { echo "curl: (22) The requested URL returned error: 404" >&2; exit 22; }
cp "$served" "$output"
"#;

impl Place {
    fn new(game: &'static str) -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap(), game };
        for dir in ["bin", "game", "stand-in/served", "made"] {
            std::fs::create_dir_all(place.path(dir)).unwrap();
        }
        place.tool("curl", CURL);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn tool(&self, name: &str, text: &str) {
        self.executable(&format!("bin/{name}"), text);
    }

    fn executable(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn serve(&self, address: &str, content: &[u8]) {
        std::fs::write(self.path("stand-in/served").join(address.replace(['/', ':'], "_")), content).unwrap();
    }

    /// Packs what `fill` puts into a new folder, with a command that is run there.
    fn pack(&self, fill: impl FnOnce(&Path), command: &[&str]) -> Vec<u8> {
        let made = self.path("made");
        std::fs::remove_dir_all(&made).unwrap();
        std::fs::create_dir_all(made.join("in")).unwrap();
        fill(&made.join("in"));
        let packed = Command::new(command[0]).args(&command[1..]).current_dir(made.join("in")).output().unwrap();
        assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
        std::fs::read(made.join("packed")).unwrap()
    }

    fn script(&self, name: &str, env: &[(&str, &str)]) -> Command {
        let mut path = self.path("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        // Whoever runs the tests in the background has signals ignored, and a script could not listen to them any more.
        let mut command = Command::new("/usr/bin/env");
        command
            .arg("--default-signal")
            .arg(root().join("game-scripts").join(self.game).join(name))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path("game"))
            .env("GAME_DIR", self.path("game"))
            .env("STAND_IN", self.path("stand-in"))
            .envs(env.iter().copied())
            .current_dir(self.path("game"));
        command
    }

    fn run(&self, name: &str, env: &[(&str, &str)]) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.script(name, env).stdin(Stdio::null()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        if status.success() { Ok(said) } else { Err(said) }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Every file of the game's folder, one a line, with its content: to see that nothing has changed.
    fn files(&self) -> String {
        let mut all = vec![];
        let mut folders = vec![self.path("game")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                }
                let content = if path.is_file() { std::fs::read(&path).unwrap() } else { vec![] };
                let name = path.strip_prefix(self.path("game")).unwrap().display().to_string();
                all.push(format!("{name} {}", String::from_utf8_lossy(&content)));
            }
        }
        all.sort();
        all.join("\n")
    }

    fn calls(&self) -> String {
        self.read("stand-in/calls")
    }

    /// Starts the game and waits until it has said something.
    fn start(&self, env: &[(&str, &str)], ready: &str) -> Running<'_> {
        let said = self.path("said");
        let log = std::fs::File::create(&said).unwrap();
        let child = self
            .script("start", env)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut running = Running { place: self, child };
        running.until("it is ready", |said| said.contains(ready));
        running
    }
}

struct Running<'a> {
    place: &'a Place,
    child: Child,
}

impl Running<'_> {
    fn said(&self) -> String {
        self.place.read("said")
    }

    fn until(&mut self, what: &str, done: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.said()) {
            assert!(Instant::now() < deadline, "waited for: {what}\n{}", self.said());
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(done(&self.said()), "it ended with {status} before: {what}\n{}", self.said());
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sha256(content: &[u8]) -> String {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), content).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

/// A game that says what it was called with, and that it saved when it is told to end.
fn game(signal: &str) -> String {
    let mut text = String::from("#!/usr/bin/env bash\n");
    writeln!(text, "trap 'echo saved; exit 0' {signal}").unwrap();
    text += "printf '<%s>' \"${0##*/}\" \"$@\"; echo\necho ready\nwhile :; do read -r -t 1 line || true; done\n";
    text
}

// ---- Minecraft -----------------------------------------------------------------------------------------------------

const BUILDS: &str = "https://fill.papermc.io/v3/projects/paper/versions/26.2/builds";
const JAR: &str = "https://fill-data.papermc.io/v1/objects/abc/paper-26.2-129.jar";

/// The answer's shape as docs.papermc.io has it, newest first; what the script does not read is left out.
fn builds(sha256: &str) -> String {
    let build = |id: u32, channel: &str, url: &str| {
        format!(
            r#"{{"id":{id},"channel":"{channel}","downloads":{{"server:default":{{"name":"p.jar","checksums":{{"sha256":"{sha256}"}},"size":4,"url":"{url}"}}}}}}"#
        )
    };
    let other = "https://fill-data.papermc.io/v1/objects/abc/other.jar";
    format!("[{},{},{}]", build(131, "BETA", other), build(129, "STABLE", JAR), build(90, "STABLE", other))
}

fn minecraft() -> Option<Place> {
    if !have("jq") {
        return None;
    }
    let place = Place::new("minecraft");
    place.tool(
        "java",
        "#!/usr/bin/env bash\nset -eu\necho \"java $*\" >>\"$STAND_IN/calls\"\n[ ! -e \"$STAND_IN/no-mojang\" ] || { echo 'Failed to download original jar'; exit 1; }\nmkdir -p cache libraries versions/26.2\ncat paper.jar >versions/26.2/paper-26.2.jar\n",
    );
    place.serve(JAR, b"a new Paper");
    place.serve(BUILDS, builds(&sha256(b"a new Paper")).as_bytes());
    Some(place)
}

#[test]
fn minecraft_takes_the_newest_stable_build_and_checks_it() {
    let Some(place) = minecraft() else { return };
    place.run("install", &[]).unwrap();
    let files = place.files();
    assert_eq!(
        files,
        "cache \nlibraries \npaper.jar a new Paper\nversions \nversions/26.2 \nversions/26.2/paper-26.2.jar a new Paper"
    );
    let calls = place.calls();
    assert!(calls.contains(JAR) && calls.contains("--proto =https") && calls.contains("Spawnpoint/"), "{calls}");
    assert!(calls.contains("java -Dpaperclip.patchonly=true -jar paper.jar"), "{calls}");
    place.run("install", &[]).unwrap();
    assert_eq!(place.files(), files, "twice is once");
}

#[test]
fn minecraft_leaves_nothing_of_a_download_that_is_not_what_was_published() {
    let Some(place) = minecraft() else { return };
    place.run("install", &[]).unwrap();
    let before = place.files();
    place.serve(JAR, b"something else");
    let said = place.run("install", &[]).unwrap_err();
    assert!(said.contains("paper.jar is not the file that PaperMC published"), "{said}");
    assert_eq!(place.files(), before);

    let cases = [
        (builds("short"), "build 129 has no address or no SHA-256"),
        (builds("x").replace("STABLE", "ALPHA"), "there is no stable build for Minecraft 26.2"),
        ("[]".to_owned(), "there is no stable build for Minecraft 26.2"),
        (r#"{"ok":false,"message":"no such version"}"#.to_owned(), "the list of builds is not what PaperMC documents"),
        ("<html>".to_owned(), "the list of builds is not what PaperMC documents"),
        (builds(&sha256(b"something else")).replace("https://", "http://"), "build 129 has no address or no SHA-256"),
    ];
    for (answer, why) in cases {
        place.serve(BUILDS, answer.as_bytes());
        let said = place.run("install", &[]).unwrap_err();
        assert!(said.contains(why), "{answer}: {said}");
        assert_eq!(place.files(), before, "{answer}");
    }
    // Paper's own download fails after the jar was checked.
    place.serve(BUILDS, builds(&sha256(b"something else")).as_bytes());
    std::fs::write(place.path("stand-in/no-mojang"), "").unwrap();
    place.run("install", &[]).unwrap_err();
    assert_eq!(place.files(), before);
}

#[test]
fn minecraft_runs_only_for_who_accepted_its_licence() {
    let place = Place::new("minecraft");
    place.tool("java", &game("TERM"));
    let said = place.run("start", &[]).unwrap_err();
    assert!(said.contains("https://aka.ms/MinecraftEULA"), "{said}");
    assert_eq!(place.files(), "");

    let mut running = place.start(&[("EULA", "accepted")], "ready");
    assert!(running.said().starts_with("<java><-XX:"), "{}", running.said());
    assert_eq!(place.read("game/eula.txt"), "eula=true\n");
    place.run("stop", &[]).unwrap();
    assert_eq!(running.end(), Some(0));
    assert!(running.said().ends_with("saved\n"), "{}", running.said());
    place.run("stop", &[]).expect("a game that does not run is stopped");
}

#[test]
fn a_stop_never_takes_a_stranger_for_the_game() {
    let place = Place::new("minecraft");
    let mut stranger = Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::create_dir_all(place.path("game/.spawnpoint")).unwrap();
    // The number is the stranger's by now, the start time is that of a game long gone.
    std::fs::write(place.path("game/.spawnpoint/pid"), format!("{} 1\n", stranger.id())).unwrap();
    for game in ["minecraft", "valheim", "factorio", "terraria"] {
        Place { dir: tempfile::tempdir().unwrap(), game }.run_in(&place, "stop");
    }
    assert_eq!(stranger.try_wait().unwrap(), None, "it still runs");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

impl Place {
    /// Runs this game's script on the folder of another.
    fn run_in(&self, other: &Place, name: &str) {
        let pid = other.read("game/.spawnpoint/pid");
        let out = self.script(name, &[]).env("GAME_DIR", other.path("game")).current_dir(other.path("game")).output();
        assert!(out.unwrap().status.success());
        std::fs::write(other.path("game/.spawnpoint/pid"), pid).unwrap();
    }
}

// ---- Valheim -------------------------------------------------------------------------------------------------------

/// Does, at each call, what the next line of `$STAND_IN/plan` says.
const STEAMCMD: &str = r#"#!/usr/bin/env bash
set -euo pipefail
echo "steamcmd $*" >>"$STAND_IN/calls"
touch "$HOME/update-of-itself"
read -r now <"$STAND_IN/plan"
sed -i 1d "$STAND_IN/plan"
case $now in
    works) mkdir -p linux64; echo server >valheim_server.x86_64; echo "Success! App '896660' fully installed." ;;
    half) echo half >valheim_server.x86_64; echo "Error! App '896660' state is 0x602 after update job."; exit 8 ;;
    lies) echo "nothing happened" ;;
    *) echo "!!! Fatal Error: Steamcmd needs to be online to update."; exit 254 ;;
esac
"#;

fn valheim(plan: &str) -> Place {
    let place = Place::new("valheim");
    place.tool("steamcmd", STEAMCMD);
    // Its pauses between the tries are not what is tested.
    place.tool("sleep", "#!/bin/sh\nexit 0\n");
    std::fs::write(place.path("stand-in/plan"), plan).unwrap();
    place
}

#[test]
fn valheim_is_installed_without_an_account_and_tried_again() {
    let place = valheim("fails\nlies\nworks\nworks\n");
    place.run("install", &[]).unwrap();
    assert_eq!(place.files(), "linux64 \nvalheim_server.x86_64 server\n", "and nothing of steamcmd's own");
    assert_ne!(std::fs::metadata(place.path("game/valheim_server.x86_64")).unwrap().permissions().mode() & 0o100, 0);
    let calls = place.calls();
    assert_eq!(calls.lines().count(), 3, "{calls}");
    let dir = place.path("game");
    assert!(
        calls.contains(&format!(
            "+force_install_dir {} +login anonymous +app_update 896660 validate +quit",
            dir.display()
        )),
        "{calls}"
    );
    place.run("install", &[]).unwrap();
    assert_eq!(place.files(), "linux64 \nvalheim_server.x86_64 server\n", "twice is once");
}

#[test]
fn valheim_leaves_no_half_of_a_server() {
    let place = valheim("fails\nfails\nhalf\nfails\nhalf\nworks\n");
    let said = place.run("install", &[]).unwrap_err();
    assert!(said.contains("steamcmd could not install app 896660 in 5 tries"), "{said}");
    assert_eq!(place.files(), "");
}

#[test]
fn valheim_is_started_as_its_makers_tell_and_ends_at_sigint() {
    let place = valheim("");
    place.executable("game/valheim_server.x86_64", &game("INT"));
    let env = [
        ("SERVER_NAME", "saturday"),
        ("PORT_GAME", "27001"),
        ("PASSWORD", "a \"b\" $(id)"),
        ("WORLD", "Dedicated"),
        ("PUBLIC", "false"),
        ("PRESET", "normal"),
        ("SAVE_INTERVAL_S", "600"),
    ];
    let mut running = place.start(&env, "ready");
    let saves = place.path("game/saves");
    assert_eq!(
        running.said().lines().next().unwrap(),
        format!(
            "<valheim_server.x86_64><-nographics><-batchmode><-name><saturday><-port><27001><-world><Dedicated>\
             <-password><a \"b\" $(id)><-public><0><-savedir><{}><-saveinterval><600><-backups><2>",
            saves.display()
        )
    );
    place.run("stop", &[]).unwrap();
    assert_eq!(running.end(), Some(0));
    assert!(running.said().ends_with("saved\n"), "{}", running.said());

    let mut hard = env;
    (hard[4], hard[5]) = (("PUBLIC", "true"), ("PRESET", "hard"));
    let running = place.start(&hard, "ready");
    assert!(
        running.said().contains("<-public><1>") && running.said().contains("<-preset><hard>"),
        "{}",
        running.said()
    );
    drop(running);

    // Rules that were set in the game since stay, and the way back is a change as well.
    let presets = |env: &[(&'static str, &'static str)]| {
        let mut running = place.start(env, "ready");
        let said = running.said().lines().next().unwrap_or_default().to_owned();
        place.run("stop", &[]).unwrap();
        running.end();
        said.split_once("<-preset>").map(|(_, preset)| preset.to_owned())
    };
    assert_eq!(presets(&hard), None, "the world has it already");
    let mut other = hard;
    other[3] = ("WORLD", "Another");
    assert_eq!(presets(&other).as_deref(), Some("<hard>"), "each world has its own");
    assert_eq!(presets(&env).as_deref(), Some("<normal>"));
    assert_eq!(presets(&env), None);

    // What Valheim would refuse in the middle of its log is refused at once.
    for password in ["1234", "satur", "edicat"] {
        let mut env = env;
        env[2] = ("PASSWORD", password);
        let said = place.run("start", &env).unwrap_err();
        assert!(said.contains("at least 5 characters") && !said.contains(password), "{said}");
    }
}

// ---- Terraria ------------------------------------------------------------------------------------------------------

const ARCHIVE: &str = "https://terraria.org/api/download/pc-dedicated-server/terraria-server-1456.zip";
const ZIP: [&str; 5] = ["python3", "-m", "zipfile", "-c", "../packed"];

fn terraria() -> Option<Place> {
    let tools = ["unzip", "python3"];
    tools.into_iter().all(have).then(|| Place::new("terraria"))
}

fn terraria_archive(place: &Place, server: &str) -> Vec<u8> {
    let fill = |dir: &Path| {
        for system in ["Linux", "Windows"] {
            std::fs::create_dir_all(dir.join("1456").join(system)).unwrap();
        }
        std::fs::write(dir.join("1456/Linux").join(server), "a server").unwrap();
        std::fs::write(dir.join("1456/Windows/TerrariaServer.exe"), "not ours").unwrap();
    };
    place.pack(fill, &[&ZIP[..], &["1456"]].concat())
}

#[test]
fn terraria_takes_the_linux_server_out_of_a_whole_archive() {
    let Some(place) = terraria() else { return };
    let whole = terraria_archive(&place, "TerrariaServer.bin.x86_64");
    place.serve(ARCHIVE, &whole);
    place.run("install", &[]).unwrap();
    let installed = place.files();
    assert_eq!(installed, "server \nserver/TerrariaServer.bin.x86_64 a server\nworlds ");
    let mode = std::fs::metadata(place.path("game/server/TerrariaServer.bin.x86_64")).unwrap().permissions().mode();
    assert_ne!(mode & 0o100, 0);
    std::fs::write(place.path("game/worlds/world.wld"), "played").unwrap();
    place.run("install", &[]).unwrap();
    let before = place.files();
    assert_eq!(before, format!("{installed}\nworlds/world.wld played"), "a second install touches no world");

    let mut damaged = whole.clone();
    let middle = damaged.len() / 4;
    damaged[middle] ^= 0xff;
    let cases = [
        (damaged, "the archive is damaged"),
        (b"<html>Gone</html>".to_vec(), "the archive is damaged"),
        (terraria_archive(&place, "readme.txt"), "the archive holds no 1456/Linux/TerrariaServer.bin.x86_64"),
    ];
    for (archive, why) in cases {
        place.serve(ARCHIVE, &archive);
        let said = place.run("install", &[]).unwrap_err();
        assert!(said.contains(why), "{said}");
        assert_eq!(place.files(), before, "{why}");
    }
    std::fs::remove_dir_all(place.path("stand-in/served")).unwrap();
    let said = place.run("install", &[]).unwrap_err();
    assert!(said.contains("could not be fetched"), "{said}");
    assert_eq!(place.files(), before);
}

/// Like Terraria: it ends, and saves, at `exit` only.
const TERRARIA: &str = r#"#!/usr/bin/env bash
printf '<%s>' "$@"; echo
echo "Listening on port 7777"
while read -r line; do
    case $line in
        exit) echo saved; exit 0 ;;
        playing) echo "No players connected." ;;
        *) echo "Invalid command." ;;
    esac
done
echo "end of input"
exit 3
"#;

#[test]
fn terraria_is_told_to_exit_and_hears_what_people_type() {
    use std::io::Write as _;
    let place = Place::new("terraria");
    place.executable("game/server/TerrariaServer.bin.x86_64", TERRARIA);
    let mut running = place.start(&[], "Listening");
    let config = place.path("game/serverconfig.txt");
    assert!(running.said().starts_with(&format!("<-config><{}>\n", config.display())), "{}", running.said());
    let mut typing = running.child.stdin.take().unwrap();
    typing.write_all(b"playing\n").unwrap();
    running.until("an answer", |said| said.contains("No players connected."));
    // The end of what people type is not the end of the game.
    drop(typing);
    place.run("stop", &[]).unwrap();
    assert_eq!(running.end(), Some(0));
    assert!(running.said().ends_with("saved\n"), "{}", running.said());
    assert_eq!(place.files().lines().filter(|line| line.contains(".spawnpoint/")).count(), 0, "{}", place.files());

    let mut again = place.start(&[], "Listening");
    let signal = Command::new("kill").args(["-TERM", &again.child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    assert_eq!(again.end(), Some(0), "SIGTERM to the start script is `exit` to the game");
    assert!(again.said().ends_with("saved\n"), "{}", again.said());
}

// ---- Factorio ------------------------------------------------------------------------------------------------------

const RELEASES: &str = "https://factorio.com/api/latest-releases";
const SUMS: &str = "https://factorio.com/download/sha256sums/";
const TARBALL: &str = "https://factorio.com/get-download/2.0.77/headless/linux64";

fn factorio() -> Option<Place> {
    if !["jq", "xz"].into_iter().all(have) {
        return None;
    }
    let place = Place::new("factorio");
    place.serve(RELEASES, br#"{"experimental":{"headless":"2.1.12"},"stable":{"alpha":"2.0.77","headless":"2.0.77"}}"#);
    serve_factorio(&place, "first");
    Some(place)
}

fn serve_factorio(place: &Place, content: &str) {
    let fill = |dir: &Path| {
        std::fs::create_dir_all(dir.join("factorio/bin/x64")).unwrap();
        std::fs::create_dir_all(dir.join("factorio/data")).unwrap();
        let program = dir.join("factorio/bin/x64/factorio");
        std::fs::write(&program, content).unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.join("factorio/data/server-settings.example.json"), "{}").unwrap();
    };
    let tarball = place.pack(fill, &["tar", "-cJf", "../packed", "factorio"]);
    place.serve(TARBALL, &tarball);
    let (sum, other) = (sha256(&tarball), "0".repeat(64));
    let sums = format!(
        "{other}  factorio-space-age_linux_2.0.77.tar.xz\n{other}  factorio-headless_linux_2.0.7.tar.xz\n\
         {sum}  factorio-headless_linux_2.0.77.tar.xz\n{other}  factorio-headless_linux_2.0.776.tar.xz\n"
    );
    place.serve(SUMS, sums.as_bytes());
}

const FACTORIO: &str = "factorio \nfactorio/bin \nfactorio/bin/x64 \nfactorio/bin/x64/factorio CONTENT\nfactorio/data \n\
    factorio/data/server-settings.example.json {}\nfactorio/server-settings.json {}";

#[test]
fn factorio_takes_the_stable_server_and_keeps_what_was_played() {
    let Some(place) = factorio() else { return };
    place.run("install", &[]).unwrap();
    assert_eq!(place.files(), FACTORIO.replace("CONTENT", "first"));
    std::fs::create_dir_all(place.path("game/factorio/saves")).unwrap();
    std::fs::write(place.path("game/factorio/saves/world.zip"), "played").unwrap();
    std::fs::write(place.path("game/factorio/server-adminlist.json"), "[\"ann\"]").unwrap();
    serve_factorio(&place, "second");
    place.run("install", &[]).unwrap();
    let expected = FACTORIO.replace("CONTENT", "second").replace(
        "\nfactorio/server-settings.json",
        "\nfactorio/saves \nfactorio/saves/world.zip played\nfactorio/server-adminlist.json [\"ann\"]\nfactorio/server-settings.json",
    );
    assert_eq!(place.files(), expected);
    place.run("install", &[]).unwrap();
    assert_eq!(place.files(), expected, "twice is once");
}

#[test]
fn factorio_leaves_nothing_of_a_download_that_is_not_what_was_published() {
    let Some(place) = factorio() else { return };
    let sums = place.read(&format!("stand-in/served/{}", SUMS.replace(['/', ':'], "_")));
    let cases = [
        (SUMS, sums.replace("headless_linux_2.0.77.", "headless_linux_2.0.78."), "publishes no SHA-256"),
        (SUMS, "0".repeat(64) + "  factorio_headless_x64_2.0.77.tar.xz\n", "not the one that factorio.com published"),
        (SUMS, "<html>".to_owned(), "publishes no SHA-256"),
        (RELEASES, r#"{"stable":{"headless":"../../x"}}"#.to_owned(), "names no stable headless version"),
        (RELEASES, r#"{"stable":{}}"#.to_owned(), "names no stable headless version"),
        (RELEASES, "<html>".to_owned(), "the list of releases is not what factorio.com documents"),
        (TARBALL, "something else".to_owned(), "not the one that factorio.com published"),
    ];
    for (address, answer, why) in cases {
        let before = place.read(&format!("stand-in/served/{}", RELEASES.replace(['/', ':'], "_")));
        place.serve(address, answer.as_bytes());
        let said = place.run("install", &[]).unwrap_err();
        assert!(said.contains(why), "{answer}: {said}");
        assert_eq!(place.files(), "", "{answer}");
        place.serve(RELEASES, before.as_bytes());
        serve_factorio(&place, "first");
    }
    place.run("install", &[]).expect("it was only the answers");
}

#[test]
fn factorio_makes_a_map_once_and_loads_the_newest_save_after_that() {
    let place = Place::new("factorio");
    let server = game("TERM").replace(
        "printf",
        "if [ \"$1\" = --create ]; then [ ! -e \"$STAND_IN/no-map\" ] || exit 1; echo map >\"$2\"; exit 0; fi\nprintf",
    );
    place.executable("game/factorio/bin/x64/factorio", &server);
    let env = [("PORT_GAME", "27001"), ("PORT_RCON", "27002"), ("CONSOLE_PASSWORD", "p w")];
    std::fs::write(place.path("stand-in/no-map"), "").unwrap();
    place.run("start", &env).unwrap_err();
    assert!(!place.path("game/factorio/saves/world.zip").exists(), "half a map is no save");
    std::fs::remove_file(place.path("stand-in/no-map")).unwrap();

    for (time, content) in [("first", "map\n"), ("second", "played")] {
        let mut running = place.start(&env, "ready");
        assert_eq!(place.read("game/factorio/saves/world.zip"), content, "the {time} time");
        assert!(
            running.said().contains(
                "<factorio><--start-server-load-latest><--port><27001><--rcon-port><27002><--rcon-password><p w>"
            ),
            "{}",
            running.said()
        );
        std::fs::write(place.path("game/factorio/saves/world.zip"), "played").unwrap();
        place.run("stop", &[]).unwrap();
        assert_eq!(running.end(), Some(0));
        assert!(running.said().ends_with("saved\n"), "{}", running.said());
    }
}
