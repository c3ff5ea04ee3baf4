//! One evening on a rented host, whole: the real binary, a Discord that is not Discord's, a provider that is not
//! Hetzner and whose hosts are containers with the real cloud-init and sshd, a real game from Debian, and a friend who
//! joins it with the game's own client. Nobody stops it: the idle rule does, and the host is gone. The next evening the
//! world is as it was.

mod common {
    pub mod cloud;
    pub mod discord;
    pub mod openttd;
}
#[path = "common/stage.rs"]
mod stage;

use common::cloud::{Clouds, Options};
use common::discord::{Discord, User, redact};
use common::openttd::{LESS_CPU, PLAY};
use regex::Regex;
use serde_json::json;
use stage::{docker_or_skip, test_image};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CHANNEL: &str = "game-night";
/// A start installs a game from a mirror, on a machine that may be busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The binary with a home of its own. What it rents goes with the stand-in.
struct Bot {
    child: Child,
    home: tempfile::TempDir,
}

impl Bot {
    fn start(discord: &Discord, clouds: &Clouds) -> Bot {
        let home = tempfile::Builder::new().prefix("spawnpoint-cloud-story-").tempdir().unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_spawnpoint"))
            .arg("run")
            .current_dir(home.path())
            .env("SPAWNPOINT_DATA_DIR", home.path().join("data"))
            .env("SPAWNPOINT_GAME_SCRIPTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("game-scripts"))
            .env("SPAWNPOINT_DISCORD__TOKEN", discord.token())
            .env("SPAWNPOINT_DISCORD__API_URL", discord.api_url())
            .env("SPAWNPOINT_DOCKER__ENABLED", "false")
            .env("SPAWNPOINT_CLOUD__HETZNER__TOKEN", "a-token")
            .env("SPAWNPOINT_CLOUD__HETZNER__API_URL", clouds.url("hetzner"))
            .env("SPAWNPOINT_BUDGET__GUILD_MONTHLY", "10 EUR")
            .env("SPAWNPOINT_WATCH__EVERY_SECONDS", "1")
            .env("SPAWNPOINT_IDLE__STOP_AFTER_MINUTES", "1")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Bot { child, home }
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default());
        }
    }
}

/// A friend's computer: a container with the game as Debian packs it, on this machine's network.
struct Friend {
    container: String,
}

const CLIENT: &str = r#"
    config=$HOME/.config/openttd
    mkdir -p "$config"
    version='[version]\nversion_string = 13.0\nversion_number = 1D086D64\nini_version = 2\n[network]\n'
    printf "${version}client_name = Cleo\n" >"$config/private.cfg"
    printf "${version}use_relay_service = never\n" >"$config/openttd.cfg"
    cd /usr/share/games/openttd
    play /usr/games/openttd "$ADDRESS"
"#;

impl Friend {
    fn join(address: &str) -> Friend {
        let address = format!("ADDRESS={address}");
        let image = "spawnpoint-test/openttd:1";
        let container = docker(&[
            "run",
            "-d",
            "-i",
            LESS_CPU,
            "--network",
            "host",
            "-e",
            &address,
            image,
            "sh",
            "-c",
            &format!("{PLAY}{CLIENT}"),
        ]);
        Friend { container }
    }

    /// As a person closes the game.
    fn leave(self) {
        docker(&["kill", "--signal", "TERM", &self.container]);
    }
}

impl Drop for Friend {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let out = Command::new("docker").args(["logs", &self.container]).output().unwrap();
            println!("the friend's game said: {}", String::from_utf8_lossy(&out.stderr));
        }
        let _ = Command::new("docker").args(["rm", "-f", &self.container]).output();
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().expect("the docker command line client can be run");
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Times, months and addresses differ from run to run.
fn steady(text: &str) -> String {
    let rules = [
        (r"127\.\d+\.\d+\.\d+", "<address>"),
        (r"[A-Z][a-z]+ 20\d\d", "<month>"),
        (r"always on: \d+\.\d\d", "always on: <amount>"),
        (r"\b\d+ (s|min)\b", "<time>"),
        (r"\b\d+(\.\d+)? (B|KB|MB)\b", "<size>"),
        (r"(under )?(<time> )*<time>", "<time>"),
        (r"\d{8}T\d{6}Z-\w+", "<backup>"),
    ];
    let text = rules
        .iter()
        .fold(redact(text), |text, (rule, with)| Regex::new(rule).unwrap().replace_all(&text, *with).into_owned());
    text.replace('\u{200b}', "")
}

struct Room {
    discord: Discord,
    /// What was seen, for the snapshot.
    story: String,
}

impl Room {
    async fn ask(&self, who: &User, line: &str) -> String {
        let answer = self.discord.slash(who, CHANNEL, line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        answer.text.expect("an answer")
    }

    /// Asks, and keeps the answer for the snapshot.
    async fn tells(&mut self, who: &User, line: &str) -> String {
        let answer = self.ask(who, line).await;
        self.story += &format!("--- {line}\n{}\n", steady(&answer));
        answer
    }

    /// The message of the channel that matches, once there is one.
    async fn sees(&self, pattern: &str) -> String {
        let wanted = Regex::new(&format!("(?s){pattern}")).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = self.discord.messages(CHANNEL).await;
            if let Some(found) = all.into_iter().find(|message| wanted.is_match(&message.text)) {
                return found.text;
            }
            assert!(Instant::now() < deadline, "no {pattern} in\n{}", self.discord.channel_text(CHANNEL).await);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The same, kept for the snapshot.
    async fn shows(&mut self, title: &str, pattern: &str) -> String {
        let text = self.sees(pattern).await;
        self.story += &format!("--- {title}\n{}\n", steady(&text));
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evening_on_a_rented_host_and_the_next_one() {
    if !docker_or_skip().await {
        return;
    }
    test_image("openttd");
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let Some(discord) = Discord::start(json!({
        "channels": [CHANNEL],
        "roles": [{"name": "players"}],
        "users": [{"name": "Ada", "permissions": ["manage_guild"]}, {"name": "Ben", "roles": ["players"]}],
    }))
    .await
    else {
        return;
    };
    let (ada, ben) = (discord.user("Ada"), discord.user("Ben"));
    let bot = Bot::start(&discord, &clouds);
    let mut room = Room { discord, story: String::new() };

    room.tells(&ada, "/server create name:friday-trains game:openttd backend:cloud").await;
    room.shows("the panel", "friday-trains.*offline.*A start rents").await;
    assert!(clouds.living().is_empty(), "nothing is rented before a start");

    room.tells(&ben, "/server start server:friday-trains").await;
    room.shows("the start", "`friday-trains` is up").await;
    let idle = r"running.*Nobody is on \(room for 8\).*Nobody is on: it stops.*billing: ON";
    let panel = room.shows("the panel", idle).await;
    let hosts = clouds.living();
    assert_eq!(hosts.len(), 1, "{hosts:#?}");
    let address = format!("{}:3979", hosts[0].address);
    assert!(panel.contains(&address), "{panel}");

    let cleo = Friend::join(&address);
    // She is on, and the idle line is gone.
    room.shows("a friend is on", r"1 of 8 players on[^\n]*\n *Runs until[^\n]*\n *billing: ON").await;
    // The first who joins founds a company; a new map has none.
    let companies = room.ask(&ada, "/console server:friday-trains command:companies").await;
    assert!(companies.contains("Year Founded: 1950"), "{companies}");
    cleo.leave();

    // Nobody stops it.
    room.shows("a warning", "Nobody is on `friday-trains`. It stops in").await;
    room.sees("`friday-trains` is stopped").await;
    room.shows("the panel", "friday-trains.*offline.*billing: off.*Last backup").await;
    nothing_is_rented(&clouds);
    let list = room.tells(&ben, "/backup list server:friday-trains").await;
    assert!(list.contains("at a stop"), "{list}");
    room.tells(&ben, "/cost").await;

    // The next evening.
    room.tells(&ben, "/server start server:friday-trains").await;
    room.sees("friday-trains.*running.*billing: ON").await;
    let companies = room.ask(&ada, "/console server:friday-trains command:companies").await;
    assert!(companies.contains("Year Founded: 1950"), "the company of the first evening: {companies}");
    room.tells(&ben, "/server stop server:friday-trains").await;
    room.sees("friday-trains.*offline.*billing: off").await;
    nothing_is_rented(&clouds);
    assert_eq!(clouds.hosts().len(), 2, "an evening, a host");
    room.tells(&ben, "/cost").await;
    drop(bot);
    insta::assert_snapshot!(room.story);
}

/// No host, and none of what came with one.
fn nothing_is_rented(clouds: &Clouds) {
    assert!(clouds.living().is_empty(), "{:#?}", clouds.living());
    assert!(clouds.things().is_empty(), "{:#?}", clouds.things());
}
