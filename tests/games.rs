//! Real games, installed by their own recipes into real containers, and joined by their own clients. Minutes rather than
//! seconds; .config/nextest.toml lets one run at a time.

#[path = "common/openttd.rs"]
mod openttd;
#[path = "common/stage.rs"]
mod stage;

use openttd::{LESS_CPU, PLAY};
use spawnpoint::config::Config;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::server::{Players, State};
use stage::{Stage, docker_or_skip, test_image};
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const CI: &str = "CI";

/// A stage with the recipes that are shipped, if this machine can run games.
async fn games(tweak: impl FnOnce(&mut Config)) -> Option<Stage> {
    if !docker_or_skip().await {
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/base-image");
    let made = Command::new(&script).output().expect("scripts/lib/base-image can be run");
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr);
        assert!(std::env::var(CI).is_err(), "no base image: {why}");
        println!("skipped: no base image ({})", why.trim());
        return None;
    }
    Some(Stage::open("game-scripts", tweak).await)
}

/// A container beside the game, on the machine's network as a friend's computer is.
struct Client {
    container: String,
}

impl Client {
    /// A client that can be run in the image that the game runs in.
    async fn join(stage: &Stage, server: &str, script: &str) -> Client {
        let filter = format!("label=spawnpoint.instance={}", stage.instance);
        let image =
            docker(&["ps", "--filter", &filter, "--filter", "label=spawnpoint.role=game", "--format", "{{.Image}}"]);
        Client::join_from(&image, stage, server, script).await
    }

    /// Runs `script` with the server's snapshot read-only at /srv/game, and the server's address in `$HOST` and `$PORT`.
    async fn join_from(image: &str, stage: &Stage, server: &str, script: &str) -> Client {
        let view = stage.program.app.status(&stage.caller, server).await.unwrap();
        let address = view.address.expect("a running server has an address");
        let (host, port) = address.rsplit_once(':').unwrap();
        let files = stage.config.data_dir.join("snapshots").join(view.snapshot.unwrap()).join("files");
        let mount = format!("{}:/srv/game:ro", files.display());
        let label = format!("spawnpoint.instance={}", stage.instance);
        let container = docker(&[
            "run",
            "-d",
            "-i",
            LESS_CPU,
            "--network",
            "host",
            "--user",
            "4242:4242",
            "--label",
            &label,
            "-v",
            &mount,
            "-e",
            "HOME=/tmp/home",
            "-e",
            &format!("HOST={host}"),
            "-e",
            &format!("PORT={port}"),
            "--entrypoint",
            "sh",
            image,
            "-c",
            script,
        ]);
        Client { container }
    }

    /// As a person closes the game, which says goodbye before it is gone.
    fn leave(self) {
        docker(&["stop", "-t", "5", &self.container]);
    }

    /// A warning of Spawnpoint's is on this friend's screen.
    async fn sees_a_warning(&self, stage: &Stage, server: &str) {
        let server = stage.program.store.server_by_name(&stage.caller.guild, server).await.unwrap().unwrap();
        let driver = stage.program.engine.driver(server.backend).unwrap();
        driver.tell(&server, "The time is over in 5 minutes.").await.unwrap();
        let shown = async || self.log().contains("The time is over in 5 minutes.").then_some(());
        stage.until("the warning on the friend's screen", shown).await;
    }

    fn log(&self) -> String {
        let out = Command::new("docker").args(["logs", &self.container]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the client said: {}", self.log());
        }
        docker(&["rm", "-f", &self.container]);
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().expect("the docker command line client can be run");
    assert!(out.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

async fn players_are(stage: &Stage, server: &str, wanted: u32) {
    let what = format!("{wanted} players on {server}");
    players_until(stage, server, &what, |players| players.online == Some(wanted)).await;
}

async fn players_until(stage: &Stage, server: &str, what: &str, so: impl Fn(&Players) -> bool) -> Players {
    let look = async || stage.program.app.status(&stage.caller, server).await.unwrap().players.filter(&so);
    stage.until(what, look).await
}

async fn console(stage: &Stage, server: &str, line: &str) -> String {
    stage.program.app.console(&stage.caller, server, line).await.unwrap()
}

/// What the recipe suggests first is harmless and is answered.
async fn first_suggestion_answers(stage: &Stage, server: &str) -> String {
    let all = stage.program.app.console_suggestions(&stage.caller.guild, server, "").await;
    let answer = console(stage, server, &all[0]).await;
    assert!(!answer.trim().is_empty(), "{} says nothing", all[0]);
    answer
}

const OPENTTD_CLIENT: &str = r#"
    config=$HOME/.config/openttd
    mkdir -p "$config"
    version='[version]\nversion_string = 13.0\nversion_number = 1D086D64\nini_version = 2\n[network]\n'
    printf "${version}client_name = Ada\n" >"$config/private.cfg"
    printf "${version}use_relay_service = never\n" >"$config/openttd.cfg"
    # What this friend reads on the screen goes to a terminal too. To a file it would be written when the game ends. The
    # game may read these commands more than once, and `script` ends one that is on.
    script -qfc "tty >$HOME/terminal; sleep infinity" /dev/null </dev/null &
    until [ -s "$HOME/terminal" ]; do sleep 0.1; done
    mkdir -p "$HOME/.local/share/openttd/scripts"
    printf 'script\nscript %s\n' "$(cat "$HOME/terminal")" >"$HOME/.local/share/openttd/scripts/autoexec.scr"
    cd /srv/game/usr/share/games/openttd
    play /srv/game/usr/games/openttd "$HOST:$PORT"
"#;

/// "What game is this?", as lists of servers ask before anybody joins.
const OPENTTD_PING: [u8; 3] = [3, 0, 7];

/// A list of servers that asks again and again, a scan of ports that connects and goes, and somebody who connects, says
/// nothing and stays.
async fn knock(address: &str, answers: &mut u32) -> Infallible {
    let mut lurker = None;
    let mut pace = tokio::time::interval(Duration::from_millis(250));
    loop {
        pace.tick().await;
        // Nobody opens where the game has ended.
        let Ok(mut list) = TcpStream::connect(address).await else { continue };
        drop(TcpStream::connect(address).await);
        if lurker.is_none() {
            lurker = TcpStream::connect(address).await.ok();
        }
        if list.write_all(&OPENTTD_PING).await.is_ok() && list.read_u8().await.is_ok() {
            *answers += 1;
        }
    }
}

#[tokio::test]
async fn openttd_falls_asleep_when_the_last_friend_leaves_and_wakes_on_the_same_map() {
    let Some(stage) = games(|config| config.idle.stop_after_minutes = 1).await else { return };
    let app = &stage.program.app;
    stage.create("trains", "openttd", &[("STARTING_YEAR", "1975"), ("MAP_SIZE", "64")]).await;
    stage.start("trains").await;
    let info = first_suggestion_answers(&stage, "trains").await;
    assert!(info.contains("Current/maximum clients"), "{info}");
    players_are(&stage, "trains", 0).await;
    // Nobody is on, so the game stands still.
    assert!(console(&stage, "trains", "getdate").await.contains("1975-01-01"));

    // A client whose connection fails says so in its menu and waits there; a friend would try again.
    let ada = Client::join(&stage, "trains", &format!("{PLAY}{OPENTTD_CLIENT}")).await;
    players_are(&stage, "trains", 1).await;
    let clients = console(&stage, "trains", "clients").await;
    assert!(clients.contains("Ada"), "{clients}");
    // She counts before she has the map, and only who has it is told anything.
    let joined = async || {
        app.logs(&stage.caller, "trains", 200).await.unwrap().contains("Ada has joined the game").then_some(())
    };
    stage.until("Ada in the game", joined).await;
    ada.sees_a_warning(&stage, "trains").await;
    let moves = async || (!console(&stage, "trains", "getdate").await.contains("1975-01-0")).then_some(());
    stage.until("ten days of the game", moves).await;
    // A backup of the running game has it save first.
    stage.succeeds(app.backup(&stage.caller, "trains", None).await.unwrap()).await;
    let saves = console(&stage, "trains", "ls").await;
    assert!(saves.contains("spawnpoint.sav"), "{saves}");
    ada.leave();
    players_are(&stage, "trains", 0).await;

    // Nobody stops it: the idle rule does, and keeps the world. Whoever only knocks is nobody.
    let address = app.status(&stage.caller, "trains").await.unwrap().address.unwrap();
    let stopped = stage.until("the idle stop", async || {
        let view = app.status(&stage.caller, "trains").await.unwrap();
        (view.state == State::Offline && view.job.is_none()).then_some(view)
    });
    let mut answers = 0;
    let asleep = tokio::select! {
        view = stopped => view,
        never = knock(&address, &mut answers) => match never {},
    };
    assert!(answers > 30, "it has answered {answers} knocks");
    assert!(asleep.last_backup.is_some_and(|backup| backup.present), "the world was kept");
    stage.start("trains").await;
    let companies = console(&stage, "trains", "companies").await;
    assert!(companies.contains("Year Founded: 1975"), "the company of the first evening: {companies}");
    let date = console(&stage, "trains", "getdate").await;
    assert!(!date.contains("1975-01-0"), "{date}");
    stage.stop_server("trains").await;
    stage.close().await;
}

/// It draws, so it has a screen that nobody sees; `Xvfb` writes the number of one that is free.
const OPENARENA_CLIENT: &str = r#"
    mkdir -p "$HOME"
    cd "$HOME"
    mkfifo screen
    Xvfb -displayfd 3 -screen 0 320x240x24 -nolisten tcp 3>screen &
    read -r number <screen
    export DISPLAY=":$number" LIBGL_ALWAYS_SOFTWARE=1
    exec /usr/games/openarena +set s_initsound 0 +set cl_renderer opengl1 +set r_fullscreen 0 +set r_mode -1 \
        +set r_customwidth 320 +set r_customheight 240 +set r_picmip 16 +set com_maxfps 10 \
        +set name Ada +connect "$HOST:$PORT"
"#;

/// Whoever reaches the port that friends join finds no console there, whatever password they try.
async fn has_no_rcon(stage: &Stage, server: &str) {
    let address = stage.program.app.status(&stage.caller, server).await.unwrap().address.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for password in ["a-guess", "\"\""] {
        let line = [b"\xff\xff\xff\xffrcon ", password.as_bytes(), b" status"].concat();
        let mut answer = vec![0; 2048];
        let asked = async || {
            socket.send_to(&line, &address).await.unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await.ok()?.unwrap();
            Some(String::from_utf8_lossy(&answer[..heard]).into_owned())
        };
        let said = stage.until("a word about rcon", asked).await;
        assert!(said.contains("No rconpassword set on the server"), "{said}");
    }
}

#[tokio::test]
async fn openarena_counts_people_and_not_bots_and_its_console_is_closed_to_them() {
    // To the engine everybody here is one address, and one address is answered ten times at once and then once a second.
    let Some(stage) = games(|config| config.watch.every_seconds = 5).await else { return };
    test_image("openarena-client");
    let app = &stage.program.app;
    // A map that is not there is said at once.
    stage.create("arena", "openarena", &[("MAP", "nowhere")]).await;
    let end = stage.end_of(app.start(&stage.caller, "arena", None).await.unwrap()).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let error = end.steps.iter().find_map(|step| step.error.clone()).unwrap_or_default();
    assert!(error.contains("There is no map called nowhere."), "{error}");
    app.settings_apply(&stage.caller, "arena", [("MAP".to_owned(), "oa_dm2".to_owned())].into()).await.unwrap();

    stage.start("arena").await;
    let status = first_suggestion_answers(&stage, "arena").await;
    assert!(status.contains("map: oa_dm2"), "{status}");
    let about = console(&stage, "arena", "cvarlist").await;
    assert!(about.len() > 8000 && about.contains(" total cvars"), "{about}");
    // As much as the engine reads at once is one line to it; what is longer is not sent.
    let longest = format!("echo {}", "x".repeat(250));
    let echoed = console(&stage, "arena", &longest).await;
    assert!(echoed.lines().any(|line| line == "x".repeat(250)), "{echoed}");
    let refused = app.console(&stage.caller, "arena", &format!("{longest}x")).await.unwrap_err().to_string();
    assert!(refused.contains("256 bytes long, and this game reads 255 at once"), "{refused}");
    has_no_rcon(&stage, "arena").await;
    console(&stage, "arena", "seta capturelimit 5").await;
    console(&stage, "arena", "addbot gargoyle 1").await;
    let players = players_until(&stage, "arena", "the bot", |players| players.bots == Some(1)).await;
    assert_eq!((players.online, players.map.as_deref()), (Some(0), Some("oa_dm2")), "{players:?}");
    assert!(players.version.as_ref().is_some_and(|version| version.starts_with("ioq3")), "{players:?}");
    assert!(players.latency_ms.is_some(), "{players:?}");

    let ada = Client::join_from("spawnpoint-test/openarena-client:1", &stage, "arena", OPENARENA_CLIENT).await;
    let log_says = async |what: &str| {
        let log = async || app.logs(&stage.caller, "arena", 200).await.unwrap().contains(what).then_some(());
        stage.until(what, log).await;
    };
    log_says("Ada^7 entered the game").await;
    let players = players_until(&stage, "arena", "Ada beside the bot", |players| players.online == Some(1)).await;
    // On the same machine her ping may be 0, as a bot's is. Then she is counted, and nobody says which of the two she is.
    let named = players.names.is_empty() || players.names == ["Ada"];
    assert!(players.bots == Some(1) && named, "{players:?}");
    ada.sees_a_warning(&stage, "arena").await;
    ada.leave();
    log_says("Ada^7 disconnected").await;
    players_are(&stage, "arena", 0).await;

    // What was set for good on the console outlives the container.
    stage.stop_server("arena").await;
    stage.start("arena").await;
    let kept = console(&stage, "arena", "capturelimit").await;
    assert!(kept.contains("\"5"), "{kept}");
    stage.stop_server("arena").await;
    stage.close().await;
}

const SUPERTUXKART_CLIENT: &str = r#"
    mkdir -p "$HOME"
    cd "$HOME"
    export SUPERTUXKART_DATADIR=/srv/game/usr/share/games/supertuxkart
    exec stdbuf -oL /srv/game/usr/games/supertuxkart --no-graphics --no-sound --network-ai=1 \
        --connect-now="$HOST:$PORT" --server-password="$PASSWORD"
"#;

#[tokio::test]
async fn supertuxkart_tells_in_its_log_who_is_on_and_asks_friends_for_the_password() {
    let Some(stage) = games(|_| {}).await else { return };
    stage.create("karts", "supertuxkart", &[("SERVER_PASSWORD", "banana"), ("GREETING", "Mind the peel")]).await;
    stage.start("karts").await;
    let peers = first_suggestion_answers(&stage, "karts").await;
    assert!(peers.contains("No peers exist"), "{peers}");
    players_are(&stage, "karts", 0).await;

    let stranger = Client::join(&stage, "karts", &format!("PASSWORD=apple{SUPERTUXKART_CLIENT}")).await;
    stage.until("the refusal", async || stranger.log().contains("password").then_some(())).await;
    drop(stranger);
    players_are(&stage, "karts", 0).await;
    let friend = Client::join(&stage, "karts", &format!("PASSWORD=banana{SUPERTUXKART_CLIENT}")).await;
    players_are(&stage, "karts", 1).await;
    let peers = console(&stage, "karts", "listpeers").await;
    assert!(!peers.contains("No peers exist"), "{peers}");
    friend.leave();
    players_are(&stage, "karts", 0).await;
    stage.stop_server("karts").await;
    stage.close().await;
}
