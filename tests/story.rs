//! One evening, whole: the real binary, a Discord that is not Discord's, a real Docker daemon and a real game from
//! Debian. With `SPAWNPOINT_PICTURE=FILE` the channel's picture for the README is taken on the way.

mod common {
    pub mod discord;
    pub mod front_door;
}
#[path = "common/stage.rs"]
mod stage;

use common::discord::{Discord, Fault, Request};
use common::front_door::FrontDoor;
use serde_json::json;
use stage::docker_or_skip;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const EDITS: &str = "/channels/*/messages/*";

/// The binary with a home of its own; what it made on the daemon goes with it.
struct Bot {
    child: Child,
    home: tempfile::TempDir,
}

impl Bot {
    fn start(discord: &Discord, door: &FrontDoor, home: tempfile::TempDir) -> Bot {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_spawnpoint"))
            .arg("run")
            .current_dir(home.path())
            .env_remove("SPAWNPOINT_PICTURE")
            .env("SPAWNPOINT_DATA_DIR", home.path().join("data"))
            .env("SPAWNPOINT_GAME_SCRIPTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("game-scripts"))
            .env("SPAWNPOINT_DISCORD__TOKEN", discord.token())
            .env_remove("SPAWNPOINT_DISCORD__API_URL")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .envs(door.environment())
            .env("SPAWNPOINT_DOCKER__PUBLISH_ADDRESS", "127.0.77.1")
            .env("SPAWNPOINT_DOCKER__PUBLIC_ADDRESS", "play.example.org")
            .env("SPAWNPOINT_WATCH__EVERY_SECONDS", "1")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        Bot { child, home }
    }

    /// `kill -9`, and a new one in its place.
    fn restart(mut self, discord: &Discord, door: &FrontDoor) -> Bot {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let home = std::mem::replace(&mut self.home, tempfile::tempdir().unwrap());
        Bot::start(discord, door, home)
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default());
        }
        let mounted = self.data().display().to_string();
        // By the folder that the drives are in, because a failed test may not know its instance.
        let script = format!(
            "for c in $(docker ps -aq --filter label=spawnpoint.instance); do \
               docker inspect $c --format '{{{{range .Mounts}}}}{{{{.Name}}}} {{{{end}}}}' | xargs -r docker volume inspect --format '{{{{.Options.o}}}}' | grep -q '{mounted}' && docker rm -f $c; done; \
             for v in $(docker volume ls -q --filter label=spawnpoint.instance); do docker volume inspect $v --format '{{{{.Options.o}}}}' | grep -q '{mounted}' && docker volume rm $v; done"
        );
        if self.data().exists() {
            let _ = Command::new("sh").args(["-c", &script]).output();
        }
    }
}

/// What Spawnpoint tries again by itself it tries after two seconds.
const UNDER_WAY_S: f64 = 1.5;

/// After each refusal nothing more was asked before the time that Discord had named, but what was under way already.
fn left_alone_when_it_asked(edits: &[Request]) {
    let refused: Vec<_> = edits.iter().filter(|edit| edit.status == 429).collect();
    assert!(refused.len() >= 2, "of {} edits Discord refused {}", edits.len(), refused.len());
    for edit in refused {
        let after_s = edit.answer["retry_after"].as_f64().unwrap();
        let too_soon = edits.iter().find(|next| (UNDER_WAY_S..after_s - 0.1).contains(&(next.at_s - edit.at_s)));
        assert!(too_soon.is_none(), "{edit:#?} was refused for {after_s} s; and then {too_soon:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evening_with_a_real_game() {
    if !docker_or_skip().await {
        return;
    }
    let Some(discord) = Discord::start(json!({
        "channels": ["game-night"],
        "roles": [{"name": "players"}],
        "users": [{"name": "Ada", "permissions": ["manage_guild"]}, {"name": "Ben", "roles": ["players"]}],
    }))
    .await
    else {
        return;
    };
    let (ada, ben) = (discord.user("Ada"), discord.user("Ben"));
    let channel = "game-night";
    let door = FrontDoor::open(discord.api_url()).await;
    let bot = Bot::start(&discord, &door, tempfile::Builder::new().prefix("spawnpoint-story-").tempdir().unwrap());

    discord.slash(&ada, channel, "/server create name:friday-trains game:openttd").await;
    discord.wait_for(channel, "friday-trains.*offline").await;
    discord.slash(&ben, channel, "/server start server:friday-trains").await;
    discord.wait_for(channel, "Installing the game").await;
    if let Some(picture) = std::env::var_os("SPAWNPOINT_PICTURE") {
        discord.wait_for(channel, "(?s)Installing the game.*(Get:|Unpacking|Fetched)").await;
        screenshot(&discord.page_url(channel), Path::new(&picture));
    }
    // The bot dies in the middle of the first start; the channel's one message simply goes on.
    let bot = bot.restart(&discord, &door);
    discord.wait_for(channel, "`friday-trains` is up").await;
    // From now on Discord takes so many edits of a channel, and twice it wants to be left alone for longer.
    discord.limit("PATCH", EDITS, 2, Duration::from_secs(5)).await;
    discord.fault("PATCH", EDITS, 2, Fault::RateLimit { retry_after_s: 8.0 }).await;
    let up = discord.messages(channel).await.iter().filter(|message| message.text.contains("is up")).count();
    assert_eq!(up, 1, "{}", discord.channel_text(channel).await);
    discord.wait_for(channel, r"(?s)friday-trains.*running.*play\.example\.org:3979.*Nobody is on").await;

    let answer = discord.slash(&ada, channel, "/console server:friday-trains command:server_info").await;
    let answer = if answer.thinking { discord.finished(&answer).await } else { answer };
    assert!(answer.text.clone().unwrap_or_default().contains("clients"), "{answer:?}");

    discord.slash(&ben, channel, "/server stop server:friday-trains").await;
    discord.wait_for(channel, "(?s)friday-trains.*(stopped|is off|offline)").await;
    discord.wait_for(channel, "Last backup").await;
    let list = discord.slash(&ben, channel, "/backup list server:friday-trains").await;
    let list = if list.thinking { discord.finished(&list).await } else { list };
    assert!(list.text.clone().unwrap_or_default().contains("at a stop"), "{list:?}");

    // The next evening the world is as it was.
    discord.slash(&ben, channel, "/server start server:friday-trains").await;
    discord.wait_for(channel, "(?s)is up.*is up|job 3.*is up|is up.*[Jj]ob 3").await;

    // And when the evenings are over, nothing is left of it but its backups.
    let asked = discord.slash(&ada, channel, "/server delete server:friday-trains").await;
    assert!(asked.ephemeral, "{asked:?}");
    discord.click(&ada, channel, "Delete it").await;
    discord.wait_for(channel, "friday-trains. is deleted").await;
    let left = std::fs::read_dir(bot.data().join("drives")).into_iter().flatten().count();
    assert_eq!(left, 0, "the drive is gone");
    left_alone_when_it_asked(&discord.requests("PATCH", EDITS).await);
    drop(bot);
}

fn screenshot(url: &str, to: &Path) {
    let profile = tempfile::tempdir().unwrap();
    let taken = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--window-size=900,590", "--force-device-scale-factor=1.5", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", to.display()))
        .arg(url)
        .output()
        .expect("chromium can be run");
    assert!(to.exists(), "{}", String::from_utf8_lossy(&taken.stderr));
}
