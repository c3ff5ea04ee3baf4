//! The keeper on a host that is a container: toy games of every kind are started, watched and stopped by the script that
//! does it on real hosts, and it is killed wherever that could hurt. A container's restart is a host's reboot. Only the
//! last test has systemd in its host.

use spawnpoint::clients::console::quake3;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const KEEPER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/drivers/cloud/keeper.sh");
const ID: &str = "abcdefghij";
const DIR: &str = "/srv/spawnpoint/abcdefghij";
/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Host {
    container: String,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.container]).output();
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    assert!(output.status.success(), "docker {arguments:?}: {}", complained(&output));
    said(&output)
}

impl Host {
    /// `None`, with a word about it, where there is no Docker; an error where there has to be (CI).
    fn open(options: &[&str]) -> Option<Host> {
        Host::boot("keeper", options, &["sleep", "600"])
    }

    fn boot(image: &str, options: &[&str], first: &[&str]) -> Option<Host> {
        let there = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
        if !there {
            assert!(std::env::var("CI").is_err(), "no Docker daemon answers");
            println!("skipped: no Docker daemon");
            return None;
        }
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/test-images");
        assert!(Command::new(images).arg(image).status().unwrap().success(), "the host's image cannot be made");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let host = Host { container: format!("sp-keeper-{}-{number}", std::process::id()) };
        let mut run = vec!["run", "--detach", "--tmpfs", "/run", "--name", &host.container];
        if image == "keeper" {
            run.push("--init");
        }
        run.extend(options);
        let image = format!("spawnpoint-test/{image}:1");
        run.push(&image);
        run.extend(first);
        docker(&run);
        host.shell("mkdir -p /opt/spawnpoint");
        docker(&["cp", KEEPER, &format!("{}:/opt/spawnpoint/keeper", host.container)]);
        host.shell("chown root:root /opt/spawnpoint/keeper; chmod 0755 /opt/spawnpoint/keeper");
        Some(host)
    }

    /// A host with a server on it whose start script is this.
    fn with_game(options: &[&str], settings: &str, start: &str) -> Option<Host> {
        let host = Host::open(options)?;
        host.does(&["setup", ID]);
        host.put("settings", settings);
        host.script("start", start);
        Some(host)
    }

    fn exec(&self, command: &[&str], input: impl AsRef<[u8]>) -> Output {
        let mut child = Command::new("docker")
            .args(["exec", "--interactive", &self.container])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Who does not read its input may be gone before we have written it.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        child.wait_with_output().unwrap()
    }

    fn shell(&self, script: &str) -> String {
        let output = self.exec(&["bash", "-euc", script], "");
        assert!(output.status.success(), "{script}: {}", complained(&output));
        said(&output)
    }

    fn keeper(&self, arguments: &[&str]) -> Output {
        let mut command = vec!["/opt/spawnpoint/keeper"];
        command.extend(arguments);
        self.exec(&command, "")
    }

    /// What a call says that has to succeed.
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.keeper(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", complained(&output), self.state());
        said(&output)
    }

    /// The exit code and the sentence of a call that has to fail.
    fn refuses(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.keeper(arguments);
        assert!(!output.status.success(), "{arguments:?} succeeds: {}", said(&output));
        (output.status.code().unwrap(), complained(&output))
    }

    fn put(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = format!("{DIR}/{file}");
        let output = self.exec(&["bash", "-euc", "cat >\"$1\"", "put", &path], text);
        assert!(output.status.success(), "{file}: {}", complained(&output));
    }

    fn script(&self, name: &str, text: &str) {
        self.put(&format!("scripts/{name}"), format!("#!/usr/bin/env bash\nset -euo pipefail\n{text}\n"));
        self.shell(&format!("chmod 0755 {DIR}/scripts/{name}"));
    }

    fn status(&self, key: &str) -> String {
        let status = self.does(&["status", ID]);
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {key} in\n{status}")).to_owned()
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < PATIENCE, "it never came to this: {what}\n{}", self.state());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn until_status(&self, key: &str, value: &str) {
        self.until(&format!("{key}={value}"), || self.status(key) == value);
    }

    fn until_log(&self, line: &str) {
        self.until(&format!("{line:?} in the log"), || self.log().lines().any(|one| one == line));
    }

    fn log(&self) -> String {
        self.does(&["logs", ID, "1000"])
    }

    /// Everything that a person would look at after a failure.
    fn state(&self) -> String {
        let look = format!(
            "/opt/spawnpoint/keeper status {ID}; cat {DIR}/state/keeper.log; tail -n 20 {DIR}/state/log; ps -eo user,pid,ppid,args"
        );
        let output = self.exec(&["bash", "-c", &look], "");
        said(&output)
    }

    fn exists(&self, file: &str) -> bool {
        self.exec(&["test", "-e", &format!("{DIR}/{file}")], "").status.success()
    }
}

/// Saves slowly when it is asked to end, like a game with a large world.
const SAVES: &str = r#"
trap 'sleep 0.7; echo whole >world; exit 0' TERM
echo up
while :; do sleep 0.1; done
"#;

#[test]
fn a_game_is_set_up_started_stopped_and_removed() {
    let Some(host) = Host::open(&[]) else { return };
    assert_eq!(host.does(&["status", ID]), "state=none");
    host.does(&["setup", ID]);
    host.shell(&format!("mkdir {DIR}/game/save; echo 1 >{DIR}/game/save/world; ln -s /etc/shadow {DIR}/game/link"));
    host.does(&["setup", ID]);
    assert_eq!(
        host.shell(&format!("stat -c %U:%a {DIR}/game {DIR}/game/save/world {DIR}/scripts {DIR}/state /etc/shadow")),
        "sp-abcdefgh:750\nsp-abcdefgh:644\nroot:755\nroot:700\nroot:640"
    );
    assert_eq!(host.status("state"), "none");
    host.script("start", SAVES);

    assert_eq!(host.does(&["start", ID]), "started");
    assert_eq!(host.does(&["start", ID]), "already");
    host.until_log("up");
    assert_eq!(host.status("state"), "running");
    assert_eq!(host.status("exit_code"), "");
    let (code, sentence) = host.refuses(&["remove", ID]);
    assert_eq!((code, sentence.as_str()), (75, "keeper: the game abcdefghij still runs; stop it first"));

    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "whole");
    assert_eq!(host.status("state"), "stopped");
    assert_eq!(host.status("exit_code"), "0");
    assert_eq!(host.status("ended_by"), "stop");
    assert_eq!(host.does(&["stop", ID]), "was-off");
    assert_eq!(host.does(&["kill", ID]), "was-off");

    assert_eq!(host.does(&["start", ID]), "started");
    assert_eq!(host.does(&["kill", ID]), "killed");
    assert_eq!(host.status("ended_by"), "kill");

    assert_eq!(host.does(&["remove", ID]), "removed");
    assert_eq!(host.does(&["remove", ID]), "removed");
    assert_eq!(host.does(&["status", ID]), "state=none");
    assert_eq!(host.shell("ls /srv/spawnpoint; getent passwd sp-abcdefgh || echo gone"), "gone");
    // Nothing stays behind to look after nothing.
    host.until("no keeper runs", || host.shell("pgrep -c keeper || true") == "0");
}

#[test]
fn calls_that_make_no_sense_are_refused_with_a_sentence() {
    let Some(host) = Host::open(&[]) else { return };
    host.does(&["setup", ID]);
    let cases: &[(&[&str], i32)] = &[
        (&[], 64),
        (&["dance", ID], 64),
        (&["setup"], 64),
        (&["setup", "../etc"], 64),
        (&["setup", "a;reboot"], 64),
        (&["setup", "Abcdefghij"], 64),
        (&["setup", "-rf"], 64),
        (&["start", "nobodyhere"], 66),
        (&["start", ID], 66),
        (&["run-script", ID, "../../etc/passwd"], 64),
        (&["run-script", ID, "install"], 66),
        (&["logs", ID, "all"], 64),
        (&["type", ID], 64),
        (&["stop", ID, "somebody"], 64),
        (&["firewall"], 64),
        (&["firewall", "tcp:0"], 64),
        (&["firewall", "tcp:70000"], 64),
        (&["firewall", "icmp:1"], 64),
        // Its user would be that of the first.
        (&["setup", "abcdefghxx"], 69),
    ];
    for (arguments, expected) in cases {
        let (code, sentence) = host.refuses(arguments);
        assert_eq!(code, *expected, "{arguments:?}: {sentence}");
        assert!(sentence.starts_with("keeper: ") && sentence.lines().count() == 1, "{arguments:?}: {sentence}");
    }
}

#[test]
fn scripts_get_their_environment_and_nobody_else_sees_it() {
    let Some(host) = Host::open(&[]) else { return };
    host.does(&["setup", ID]);
    host.put("env", "export JOIN_PASSWORD='it'\\''s; $(touch /oops) \"secret\"'\nexport HOME='/elsewhere'\n");
    host.does(&["setup", ID]);
    assert_eq!(host.shell(&format!("stat -c %U:%a {DIR}/env")), "root:600");

    host.script(
        "install",
        r#"echo "$JOIN_PASSWORD|$(id -un)|$PWD|$HOME|$GAME_DIR|$WORLD_DIR"; echo words >&2; touch mine; exit 7"#,
    );
    let output = host.keeper(&["run-script", ID, "install"]);
    assert_eq!(
        said(&output),
        format!(r#"it's; $(touch /oops) "secret"|sp-abcdefgh|{DIR}/game|{DIR}/game|{DIR}/game|{DIR}/game"#)
    );
    assert_eq!((complained(&output), output.status.code()), ("words".into(), Some(7)));
    assert_eq!(
        host.shell(&format!("stat -c %U {DIR}/game/mine; ls /oops 2>/dev/null || echo none")),
        "sp-abcdefgh\nnone"
    );

    host.script("bootstrap", r#"echo "$(id -un)|$HOME|$DEBIAN_FRONTEND"; apt-config dump DPkg::Lock::Timeout"#);
    assert_eq!(
        host.does(&["run-script", ID, "bootstrap", "as-root"]),
        "root|/root|noninteractive\nDPkg::Lock::Timeout \"300\";",
        "apt waits for whoever else installs something"
    );

    // An installing that a broken connection ended in the middle.
    host.shell(": >/var/lib/dpkg/updates/0001");
    host.script("bootstrap", "apt-get install -y bash >/dev/null 2>&1 && echo installs");
    assert_eq!(host.does(&["run-script", ID, "bootstrap", "as-root"]), "installs");

    // The user of the game cannot become another one, and sees neither the settings nor the log.
    host.script("try", &format!("grep NoNewPrivs /proc/self/status; cat {DIR}/env {DIR}/state/log 2>&1 || true"));
    let tried = host.does(&["run-script", ID, "try"]);
    assert_eq!(tried.lines().next(), Some("NoNewPrivs:\t1"));
    assert_eq!(tried.matches("Permission denied").count(), 2, "{tried}");

    host.script("start", "echo up; sleep 600");
    host.does(&["start", ID]);
    host.until_log("up");
    // Every process as anybody on the host sees it.
    let lines = host.shell("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    assert!(lines.contains("sleep 600") && !lines.contains("secret"), "{lines}");
    assert_eq!(host.does(&["kill", ID]), "killed");
}

#[test]
fn a_start_that_returns_leaves_a_game_that_counts_as_running() {
    let start = r#"
setsid bash -c 'trap "echo saved >world; exit 0" TERM; echo daemon; while :; do sleep 0.1; done' &
echo returns"#;
    let Some(host) = Host::with_game(&[], "", start) else { return };
    host.does(&["start", ID]);
    host.until_log("daemon");
    host.until_status("exit_code", "0");
    assert_eq!(host.status("state"), "running");
    assert_eq!(host.does(&["start", ID]), "already");
    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "saved");
    assert_eq!(host.status("state"), "stopped");
}

#[test]
fn a_crash_is_told_with_its_exit_code_and_last_words() {
    let Some(host) = Host::with_game(&[], "", "echo last words; exit 3") else { return };
    for _ in 0..2 {
        assert_eq!(host.does(&["start", ID]), "started");
        host.until_status("state", "stopped");
        assert_eq!(host.status("exit_code"), "3");
        assert_eq!(host.status("ended_by"), "itself");
        // Of this run only, however often it crashed.
        assert_eq!(host.log(), "last words");
    }
}

#[test]
fn a_game_that_is_gone_before_anybody_looks_is_heard_all_the_same() {
    let Some(host) = Host::with_game(&[], "", "echo last words; exit 3") else { return };
    // Between the game's begin and the first look stands a question for the time.
    let slow = "#!/bin/sh\nsleep 1\nexec /bin/date \"$@\"\n";
    host.shell(&format!("printf '{slow}' >/usr/local/bin/date && chmod 755 /usr/local/bin/date"));
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_status("state", "stopped");
    assert_eq!(host.status("exit_code"), "3");
    assert_eq!(host.log(), "last words");
}

#[test]
fn a_game_that_will_not_end_is_ended_by_force_after_its_time() {
    let stubborn =
        "trap '' TERM INT HUP; (trap '' TERM; while :; do sleep 0.1; done) & echo up; while :; do sleep 0.1; done";
    let Some(host) = Host::with_game(&[], "grace_s=2\n", stubborn) else { return };
    host.does(&["start", ID]);
    host.until_log("up");
    let begin = Instant::now();
    assert_eq!(host.does(&["stop", ID]), "forced");
    assert!(begin.elapsed() >= Duration::from_secs(1), "it had no time at all");
    assert_eq!(host.shell("pgrep -c -u sp-abcdefgh || true"), "0");
    assert_eq!(host.status("exit_code"), "137");
}

#[test]
fn the_recipes_signal_reaches_a_game_behind_a_shell() {
    // The shell passes nothing on, and a game that a shell put into the background would be deaf to SIGINT.
    let start = r#"perl -e '$| = 1; $SIG{INT} = sub { open my $f, ">", "world"; print $f "saved\n"; exit 0 }; $SIG{TERM} = "IGNORE"; print "up\n"; sleep 1 while 1'
echo after"#;
    let Some(host) = Host::with_game(&[], "grace_s=20\nsignal=SIGINT\n", start) else { return };
    host.does(&["start", ID]);
    host.until_log("up");
    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "saved");
}

#[test]
fn the_stop_script_is_asked_first_and_never_trusted_alone() {
    let start = r#"trap 'echo signalled; exit 0' TERM; echo $$ >pid; echo up; while [ ! -e enough ]; do sleep 0.1; done; echo asked"#;
    let Some(host) = Host::with_game(&[], "grace_s=6\nstop_script=1\n", start) else { return };
    let cases = [
        ("echo stopping; touch enough; while [ -e /proc/$(<pid) ]; do sleep 0.1; done", "stopped", "stopping\nasked"),
        // It fails, or claims to have done it: the signal still can.
        ("exit 1", "stopped", "signalled"),
        ("exit 0", "stopped", "signalled"),
        // It hangs: there is no time left for asking.
        ("sleep 600", "forced", ""),
    ];
    for (stop, how, words) in cases {
        host.script("stop", stop);
        host.shell(&format!("rm -f {DIR}/game/enough"));
        assert_eq!(host.does(&["start", ID]), "started");
        host.until_log("up");
        assert_eq!(host.does(&["stop", ID]), how, "{stop}");
        // The shell of a game whose child is killed a moment earlier may say so.
        let log = host.log();
        let said: Vec<&str> = log.lines().skip(1).filter(|line| !line.contains("Killed")).collect();
        assert_eq!(said.join("\n"), words, "{stop}");
        assert_eq!(host.shell("pgrep -c -u sp-abcdefgh || true"), "0", "{stop}");
    }
}

#[test]
fn a_chatty_game_cannot_fill_the_disk() {
    // 160 MB, as fast as it can.
    let start =
        "head -c 160000000 < <(yes 'I have so much to say, and I say all of it'); echo; echo done talking; sleep 600";
    let Some(host) = Host::with_game(&[], "", start) else { return };
    host.does(&["start", ID]);
    host.until_log("done talking");
    let kept: u64 = host.shell(&format!("du -sb {DIR}/state | cut -f 1")).parse().unwrap();
    assert!(kept < 60_000_000, "{kept} bytes are kept");
    assert!(kept > 8_000_000, "only {kept} bytes are kept");
    host.does(&["kill", ID]);
}

#[test]
fn on_a_full_disk_a_game_still_plays_and_stops() {
    let start = r#"echo up; cat /dev/zero >filler 2>/dev/null || true; for i in {1..300}; do echo "line $i of many that have no room"; done
trap 'rm filler; echo saved >world; exit 5' TERM; touch full; while :; do sleep 0.1; done"#;
    let Some(host) = Host::with_game(&["--tmpfs", "/srv/spawnpoint:size=3m,exec"], "deadman_s=600\n", start) else {
        return;
    };
    host.does(&["start", ID]);
    host.until("the disk is full", || host.exists("game/full"));
    assert_eq!(host.status("state"), "running");
    host.does(&["beat", ID]);
    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.status("exit_code"), "5");
    assert_eq!(host.status("ended_by"), "stop");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "saved");

    host.shell(&format!("cat /dev/zero >{DIR}/game/filler 2>/dev/null || true"));
    let output = host.keeper(&["start", ID]);
    assert!(output.status.success() || complained(&output).contains("full"), "{}", complained(&output));
}

#[test]
fn without_a_beat_players_are_warned_and_the_game_is_stopped() {
    let Some(host) = Host::with_game(&[], "deadman_s=3\nwarn_wait_s=1\ngrace_s=20\n", SAVES) else { return };
    // A console that answers each message, as those of games do, and writes down what it got.
    let console = r#"use IO::Socket::INET; my $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 27555, Listen => 1, ReuseAddr => 1) or die;
open my $up, ">", "/tmp/listens"; close $up;
my $c = $l->accept; open my $f, ">", "/tmp/heard"; $f->autoflush(1); while (sysread $c, my $b, 4096) { print $f "[$b]"; syswrite $c, "ok\0" }"#;
    host.shell("cat /dev/null >/tmp/console.pl");
    host.exec(&["bash", "-c", "cat >/tmp/console.pl"], console);
    docker(&["exec", "--detach", &host.container, "perl", "/tmp/console.pl"]);
    host.until("the console listens", || host.shell("ls /tmp").contains("listens"));
    host.shell(&format!("printf 'tcp 27555\n' >{DIR}/warn/target; printf 'login\\0x' >{DIR}/warn/01.send; printf 'say bye' >{DIR}/warn/02.send"));

    host.does(&["start", ID]);
    host.until_log("up");
    for _ in 0..6 {
        host.does(&["beat", ID]);
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(host.status("deadman"), "armed");
    host.until_status("state", "stopped");
    assert_eq!(host.status("deadman"), "fired");
    assert_eq!(host.status("ended_by"), "deadman");
    assert_eq!(host.status("exit_code"), "0");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "whole");
    assert_eq!(host.shell("tr '\\0' '0' </tmp/heard"), "[login0x][say bye]");

    // The next run begins anew, and nobody to be warned keeps nothing from being stopped.
    host.put("settings", "deadman_s=1\nwarn_wait_s=0\ngrace_s=20\n");
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_status("state", "stopped");
    assert_eq!(host.status("deadman"), "fired");

    // Over UDP the warning is one datagram, byte for byte what a Quake 3 console takes. This one never answers.
    let password = "it's $(a) \"secret\"".to_owned().into();
    let [datagram] = &quake3::unanswered(&password, "say bye")[..] else { panic!("one datagram") };
    let console = r#"use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 27960, Proto => "udp") or die;
open my $up, ">", "/tmp/listens-udp"; close $up;
open my $f, ">", "/tmp/heard-udp"; $f->autoflush(1); while (defined $s->recv(my $b, 4096)) { print $f unpack("H*", $b), "\n" }"#;
    host.exec(&["bash", "-c", "cat >/tmp/udp.pl"], console);
    docker(&["exec", "--detach", &host.container, "perl", "/tmp/udp.pl"]);
    host.until("the console listens", || host.shell("ls /tmp").contains("listens-udp"));
    host.shell(&format!("rm {DIR}/warn/*.send; printf 'udp 27960\n' >{DIR}/warn/target"));
    host.put("warn/00.send", datagram);
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_status("state", "stopped");
    assert_eq!(host.status("deadman"), "fired");
    let hex: String = datagram.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(host.shell("cat /tmp/heard-udp"), hex);
    assert!(hex.starts_with("ffffffff72636f6e20"), "{hex}");
}

#[test]
fn the_console_on_standard_input_hears_lines_and_warnings() {
    let start = r#"echo up; while read -r line; do echo "heard $line"; done; echo closed"#;
    let Some(host) = Host::with_game(&[], "console=stdin\ndeadman_s=600\nwarn_wait_s=0\n", start) else { return };
    host.does(&["start", ID]);
    host.until_log("up");
    for line in ["say $(reboot) 'hello'", "list"] {
        let typed = host.exec(&["/opt/spawnpoint/keeper", "type", ID], format!("{line}\nand no more"));
        assert!(typed.status.success(), "{}", complained(&typed));
        host.until_log(&format!("heard {line}"));
    }
    // However quick the answer is, who asks hears it, and nothing that was said before.
    for number in 0..5 {
        let heard = host.shell(&format!("echo again {number} | /opt/spawnpoint/keeper ask {ID} | head -n 1"));
        assert_eq!(heard, format!("heard again {number}"));
    }
    assert_eq!(
        host.shell(&format!("/opt/spawnpoint/keeper follow {ID} all | head -n 2")),
        "up\nheard say $(reboot) 'hello'"
    );
    host.shell(&format!("printf 'stdin\n' >{DIR}/warn/target; printf 'say bye\n' >{DIR}/warn/01.send"));
    host.put("settings", "console=stdin\ndeadman_s=1\nwarn_wait_s=0\n");
    host.until_status("state", "stopped");
    let again: String = (0..5).map(|number| format!("heard again {number}\n")).collect();
    assert_eq!(host.log(), format!("up\nheard say $(reboot) 'hello'\nheard list\n{again}heard say bye"));
    let typed = host.exec(&["/opt/spawnpoint/keeper", "type", ID], "list\n");
    assert_eq!(complained(&typed), "keeper: the game abcdefghij does not run");
}

#[test]
fn two_starts_at_once_begin_one_game() {
    let Some(host) = Host::with_game(&[], "", "echo $$ >>begun; exec sleep 600") else { return };
    for round in 1..=4 {
        let said = host.shell(&format!(
            "for i in 1 2 3 4; do /opt/spawnpoint/keeper start {ID} & done | sort | uniq -c | tr -s ' \\n' ' '; wait"
        ));
        assert_eq!(said.trim(), "3 already 1 started");
        host.until("it has begun", || host.exists("game/begun"));
        assert_eq!(host.shell(&format!("wc -l <{DIR}/game/begun")), round.to_string());
        // And two stops end it once, together.
        let said = host
            .shell(&format!("for i in 1 2; do /opt/spawnpoint/keeper stop {ID} & done | sort | tr '\\n' ' '; wait"));
        assert_eq!(said.trim(), "stopped was-off");
    }
}

#[test]
fn a_keeper_that_is_killed_anywhere_is_simply_called_again() {
    let start = "echo $$ >>begun\ntrap 'sleep 0.3; echo whole >world; exit 0' TERM\nwhile :; do sleep 0.05; done";
    let Some(host) = Host::with_game(&[], "grace_s=20\n", start) else { return };
    let cut = |verb: &str, after_ms: u32| {
        host.shell(&format!(
            "/opt/spawnpoint/keeper {verb} {ID} >/dev/null 2>&1 & pid=$!; sleep 0.{after_ms:03}; kill -9 $pid 2>/dev/null || true; wait || true"
        ));
    };
    for (before, after_ms) in [2, 10, 20, 30, 40, 55, 70, 90, 120, 180, 260].into_iter().enumerate() {
        host.shell(&format!("rm -f {DIR}/game/world"));
        cut("start", after_ms);
        let second = host.does(&["start", ID]);
        assert!(second == "started" || second == "already", "{second}");
        host.until("it has begun", || {
            host.shell(&format!("cat {DIR}/game/begun 2>/dev/null | wc -l")) == (before + 1).to_string()
        });
        cut("stop", after_ms);
        let second = host.does(&["stop", ID]);
        assert!(second == "stopped" || second == "was-off", "{second}");
        // The start that was cut off may have left a second process beside the game, which looks once it is its turn.
        host.until_status("state", "stopped");
        assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "whole", "after {after_ms} ms");
    }
    cut("remove", 30);
    assert_eq!(host.does(&["remove", ID]), "removed");
}

#[test]
fn the_processes_beside_a_game_bring_each_other_back() {
    let start = "trap 'echo bye; exit 4' TERM; i=0; while :; do echo $((i++)); sleep 0.1; done";
    let Some(host) = Host::with_game(&[], "deadman_s=600\ngrace_s=20\n", start) else { return };
    host.does(&["start", ID]);
    host.until_log("3");
    for role in ["serve", "watch", "serve"] {
        host.until("both are there", || {
            host.shell(&format!("pgrep -cf 'keeper serve {ID}' || true; pgrep -cf 'keeper watch {ID}' || true"))
                .lines()
                .all(|count| count != "0")
        });
        host.shell(&format!("kill -9 $(pgrep -of 'keeper {role} {ID}')"));
        host.until("it is back", || !host.shell(&format!("pgrep -of 'keeper {role} {ID}' || true")).is_empty());
    }
    assert_eq!(host.status("state"), "running");
    assert_eq!(host.does(&["start", ID]), "already");
    let last: u32 = host.log().lines().last().unwrap().parse().unwrap();
    host.until_log(&(last + 20).to_string());
    assert_eq!(host.does(&["stop", ID]), "stopped");
    // Not one of its words was lost; how it ended, only its first companion could have known.
    let log = host.log();
    let words: Vec<&str> = log.lines().collect();
    let (bye, numbers) = words.split_last().unwrap();
    assert_eq!(*bye, "bye");
    assert!(numbers.iter().enumerate().all(|(at, number)| *number == at.to_string()), "{log}");
    assert_eq!(host.status("exit_code"), "");
    assert_eq!(host.status("ended_by"), "stop");
}

#[test]
fn a_health_check_is_not_the_game_and_a_leftover_makes_room() {
    let Some(host) = Host::with_game(&[], "", "exit 3") else { return };
    host.script("healthcheck", "touch checking; sleep 600");
    host.does(&["start", ID]);
    host.until_status("state", "stopped");
    // Its caller is killed while it hangs.
    host.shell(&format!("/opt/spawnpoint/keeper run-script {ID} healthcheck & pid=$!; until [ -e {DIR}/game/checking ]; do sleep 0.05; done; kill -9 $pid; wait || true"));
    assert_eq!(host.status("state"), "stopped");
    host.script("healthcheck", "exit 0");
    host.does(&["run-script", ID, "healthcheck"]);
    assert_eq!(host.shell("pgrep -c -u sp-abcdefgh || true"), "0");
    assert_eq!(host.status("exit_code"), "3");
}

#[test]
fn after_a_reboot_the_game_is_off_and_can_be_started() {
    let Some(host) = Host::with_game(&[], "deadman_s=600\n", SAVES) else { return };
    host.does(&["start", ID]);
    host.until_log("up");
    docker(&["kill", &host.container]);
    docker(&["start", &host.container]);
    assert_eq!(host.status("state"), "stopped");
    assert_eq!(host.status("exit_code"), "");
    assert_eq!(host.status("deadman"), "off");
    assert_eq!(host.does(&["stop", ID]), "was-off");
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_log("up");
    assert_eq!(host.does(&["stop", ID]), "stopped");
}

/// What was played is still there, and nobody may take the host for one on which nothing ever was.
#[test]
fn a_start_that_is_cut_off_does_not_make_an_earlier_game_one_that_never_was() {
    let Some(host) = Host::with_game(&[], "", SAVES) else { return };
    host.does(&["start", ID]);
    host.until_log("up");
    host.does(&["stop", ID]);
    host.shell("mv /usr/bin/mkfifo /usr/bin/mkfifo.away");
    host.refuses(&["start", ID]);
    assert_eq!(host.status("state"), "stopped");
    // Nobody knows of this run how it ended, so nobody takes the last one's end for it.
    assert_eq!(host.status("ended_by"), "");
    host.shell("mv /usr/bin/mkfifo.away /usr/bin/mkfifo");
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_log("up");
    host.does(&["stop", ID]);
}

#[test]
fn who_follows_hears_new_lines_across_files_and_leaves_nothing_behind() {
    let start = r#"echo early; while [ ! -e go ]; do sleep 0.1; done; echo first; head -c 30000000 < <(yes); echo last; sleep 600"#;
    let Some(host) = Host::with_game(&[], "", start) else { return };
    host.does(&["start", ID]);
    host.until_log("early");
    // The reader goes while the caller stays; nothing is ever written again, and still nothing stays.
    host.shell(&format!(
        "/opt/spawnpoint/keeper follow {ID} | grep --line-buffered -v '^y$' >/tmp/followed & sleep 1
        touch {DIR}/game/go
        until grep -q last /tmp/followed; do sleep 0.1; done
        pgrep -x tail >/dev/null
        pkill -x grep
        while pgrep -x tail >/dev/null; do sleep 0.1; done"
    ));
    assert_eq!(host.shell("cat /tmp/followed"), "first\nlast");
    // The caller goes while somebody still holds the other end.
    host.shell(&format!("/opt/spawnpoint/keeper follow {ID} | sleep 300 >/dev/null 2>&1 & until pgrep -x tail >/dev/null; do sleep 0.1; done"));
    host.until("no tail runs", || host.shell("pgrep -cx tail || true") == "0");
    host.does(&["kill", ID]);
}

#[test]
fn who_follows_from_the_beginning_hears_what_was_put_aside() {
    let start = "echo early; head -c 30000000 < <(yes); echo last; sleep 600";
    let Some(host) = Host::with_game(&[], "", start) else { return };
    host.does(&["start", ID]);
    host.until_log("last");
    assert!(host.exists("state/log.1"), "nothing was put aside");
    let follow = format!("timeout 20 /opt/spawnpoint/keeper follow {ID} all | grep -m 2 -v '^y$'");
    assert_eq!(host.shell(&follow), "early\nlast");
    host.does(&["kill", ID]);
}

#[test]
fn a_game_that_needs_too_much_memory_is_told_as_such() {
    let start = r#"echo up; perl -e 'my @a; push @a, "x" x 1000000 for 1..400'; echo survived"#;
    let Some(host) = Host::with_game(&["--memory", "96m", "--memory-swap", "96m"], "", start) else { return };
    host.does(&["start", ID]);
    // Who looks shares the game's memory here, and may be the one that the kernel ends.
    host.until("the end of the game", || {
        let looked = host.keeper(&["status", ID]);
        looked.status.success() && said(&looked).lines().any(|line| line == "state=stopped")
    });
    assert!(!host.log().contains("survived"));
    assert_eq!(host.status("oom"), "1");
    assert_eq!(host.status("exit_code"), "137");
}

#[test]
fn the_firewall_opens_what_is_named_and_never_shuts_ssh_out() {
    let Some(host) = Host::open(&["--cap-add", "NET_ADMIN"]) else { return };
    if host.exec(&["nft", "list", "tables"], "").status.code() != Some(0) {
        assert!(std::env::var("CI").is_err(), "nftables does not work in containers here");
        println!("skipped: nftables does not work in containers here");
        return;
    }
    // Somebody else's rules are left alone.
    host.shell("nft add table inet other");
    for _ in 0..2 {
        assert_eq!(host.does(&["firewall", "tcp:22", "udp:27015", "tcp:27015", "udp:27015"]), "set");
    }
    assert_eq!(
        // Where the host has a list of protocols, their names are shown.
        host.shell("nft list ruleset").replace("icmp, ipv6-icmp", "1, 58"),
        "table inet other {
}
table inet spawnpoint {
\tchain input {
\t\ttype filter hook input priority filter; policy drop;
\t\tiifname \"lo\" accept
\t\tct state established,related accept
\t\tmeta l4proto { 1, 58 } accept
\t\tudp dport { 68, 546 } accept
\t\ttcp dport 22 accept
\t\ttcp dport 27015 accept
\t\tudp dport 27015 accept
\t}
}"
    );
    let listener = "use IO::Socket::INET; for my $p (27015, 27016) { fork or do { my $l = IO::Socket::INET->new(LocalPort => $p, Listen => 5, ReuseAddr => 1) or die; while (my $c = $l->accept) { print $c \"hi\\n\"; close $c } } } wait";
    docker(&["exec", "--detach", &host.container, "perl", "-e", listener]);
    host.until("it listens", || host.shell("ss -Hltn").matches("2701").count() == 2);
    let address = docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &host.container]);
    let reaches = |port: u16| {
        let address = format!("{address}:{port}").parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    };
    assert!(reaches(27015));
    assert!(!reaches(27016));

    // A list without a way in for us gets one: the port of this connection, or the usual one.
    host.shell("SSH_CONNECTION='10.0.0.1 50000 10.0.0.2 2222' /opt/spawnpoint/keeper firewall udp:1");
    assert!(host.shell("nft list table inet spawnpoint").contains("tcp dport 2222 accept"));
    host.does(&["firewall", "udp:1"]);
    assert!(host.shell("nft list table inet spawnpoint").contains("tcp dport 22 accept"));

    for _ in 0..2 {
        assert_eq!(host.does(&["unfirewall"]), "unset");
    }
    assert_eq!(host.shell("nft list ruleset"), "table inet other {\n}");
    assert!(reaches(27016));
}

/// On a machine that others use as well: what is theirs stays as it is.
#[test]
fn private_ports_are_closed_to_the_network_while_the_game_runs_and_nothing_else_is() {
    let start = "exec perl -e 'use IO::Socket::INET; my @l = map { IO::Socket::INET->new(LocalPort => $_, Listen => 50, \
        ReuseAddr => 1) or die } 27015, 27016; sleep 600'";
    let settings = "private_ports=tcp:27015 udp:27015\n";
    let Some(host) = Host::with_game(&["--cap-add", "NET_ADMIN"], settings, start) else { return };
    if host.exec(&["nft", "list", "tables"], "").status.code() != Some(0) {
        assert!(std::env::var("CI").is_err(), "nftables does not work in containers here");
        println!("skipped: nftables does not work in containers here");
        return;
    }
    host.shell("nft add table inet other");
    let address = docker(&["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &host.container]);
    let reaches = |port: u16| {
        let address = format!("{address}:{port}").parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_ok()
    };
    let tables = || host.shell("nft list tables");
    let ours = format!("table inet other\ntable inet spawnpoint-{ID}");
    for how in ["stop", "kill", "stop"] {
        assert_eq!(host.does(&["start", ID]), "started");
        assert_eq!(host.does(&["start", ID]), "already");
        host.until("it listens", || host.shell("ss -Hltn").matches("2701").count() == 2);
        assert!(reaches(27016) && !reaches(27015));
        host.shell("exec 3<>/dev/tcp/127.0.0.1/27015");
        assert_eq!(tables(), ours);
        host.does(&[how, ID]);
        assert_eq!(tables(), "table inet other", "after {how}");
    }
    // A table that a killed keeper has left goes with the folder.
    host.shell(&format!("nft add table inet spawnpoint-{ID}"));
    assert_eq!(host.does(&["remove", ID]), "removed");
    assert_eq!(tables(), "table inet other");
}

#[test]
fn where_there_is_no_firewall_to_set_it_says_so() {
    let settings = "private_ports=tcp:27015\n";
    let Some(host) = Host::with_game(&[], settings, "sleep 600") else { return };
    assert_eq!(host.does(&["start", ID]), "no-nft\nstarted");
    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.does(&["firewall", "tcp:22"]), "no-nft");
    assert_eq!(host.does(&["unfirewall"]), "no-nft");
}

#[test]
fn under_systemd_a_game_is_a_unit_with_limits_that_ends_cleanly_with_the_host() {
    let options = [
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--tmpfs=/tmp",
        "--volume=/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "--env=container=docker",
    ];
    let Some(host) = Host::boot("keeper-systemd", &options, &["/sbin/init"]) else { return };
    host.until("systemd is up", || {
        let state = said(&host.exec(&["systemctl", "is-system-running"], ""));
        state == "running" || state == "degraded"
    });
    host.does(&["setup", ID]);
    host.put("settings", "grace_s=20\ndeadman_s=600\nmemory_mb=64\ncpus=0.5\npids=50\n");
    host.script("start", "trap 'echo whole >world; echo bye; exit 6' TERM\necho up; while :; do sleep 0.1; done");
    assert_eq!(host.does(&["start", ID]), "started");
    assert_eq!(host.does(&["start", ID]), "already");
    host.until_log("up");
    assert_eq!(
        host.shell(&format!(
            "systemctl show spawnpoint-{ID} -p CPUQuotaPerSecUSec,MemoryMax,TasksMax,NoNewPrivileges | sort"
        )),
        "CPUQuotaPerSecUSec=500ms\nMemoryMax=67108864\nNoNewPrivileges=yes\nTasksMax=50"
    );
    assert_eq!(host.shell(&format!("systemd-analyze verify /run/systemd/system/spawnpoint-{ID}.service 2>&1")), "");

    // The game goes on while systemd brings its companion back.
    let pid = || host.shell(&format!("systemctl show spawnpoint-{ID} -p MainPID --value"));
    let first = pid();
    host.shell(&format!("kill -9 {first}"));
    host.until("systemd has brought it back", || !["0", &first].contains(&pid().as_str()));
    assert_eq!(host.status("state"), "running");
    assert_eq!(host.does(&["stop", ID]), "stopped");
    assert_eq!(host.log(), "up\nbye");

    // What systemd does when the host is shut down.
    host.shell(&format!("rm {DIR}/game/world"));
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_log("up");
    host.shell(&format!("systemctl stop spawnpoint-{ID}"));
    assert_eq!(host.status("state"), "stopped");
    assert_eq!(host.status("ended_by"), "shutdown");
    assert_eq!(host.status("exit_code"), "6");
    assert_eq!(host.shell(&format!("cat {DIR}/game/world")), "whole");

    // The dead-man switch outlives the unit that it ends.
    host.put("settings", "grace_s=20\ndeadman_s=2\nwarn_wait_s=0\n");
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_status("state", "stopped");
    assert_eq!((host.status("deadman"), host.status("ended_by")), ("fired".into(), "deadman".into()));

    host.put("settings", "memory_mb=64\n");
    host.script("start", r#"perl -e 'my @a; push @a, "x" x 1000000 for 1..400'"#);
    assert_eq!(host.does(&["start", ID]), "started");
    host.until_status("state", "stopped");
    assert_eq!((host.status("oom"), host.status("exit_code")), ("1".into(), "137".into()));

    assert_eq!(host.does(&["remove", ID]), "removed");
    assert_eq!(host.shell("ls /run/systemd/system | grep spawnpoint || echo none"), "none");
}
