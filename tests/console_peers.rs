//! Consoles and queries against servers that others wrote: two RCON servers in Python, a Minecraft server in
//! JavaScript, and the real OpenTTD and OpenArena in containers, with players who join and leave.

#[path = "common/openttd.rs"]
mod openttd_client;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use openttd_client::PLAY;
use secrecy::SecretString;
use spawnpoint::clients::console::openttd::OpenTtdAdmin;
use spawnpoint::clients::console::quake3::Quake3Rcon;
use spawnpoint::clients::console::source::SourceRcon;
use spawnpoint::clients::console::{Console, ConsoleError, Reply, openttd, quake3, source};
use spawnpoint::clients::query;
use spawnpoint::drivers::talk::{self, Typist};
use spawnpoint::engine::ConsoleFault;
use spawnpoint::model::host::Place;
use spawnpoint::model::recipe::{ConsoleProtocol, Recipe};
use spawnpoint::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use spawnpoint::model::{GuildId, ServerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

const PASSWORD: &str = "s3cret-for-tests";
const DEADLINE: Duration = Duration::from_secs(60);

fn password() -> SecretString {
    PASSWORD.into()
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// On a laptop a tool may be missing; where every test has to run (CI) it may not.
fn skipped(why: &str) {
    assert!(std::env::var("CI").is_err(), "{why}");
    println!("skipped: {why}");
}

/// Asks until the answer is there.
async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A server that says its port in a line `port=…` and ends when its input does.
struct Peer {
    process: Child,
    address: SocketAddr,
}

impl Peer {
    fn rcon(kind: &str) -> Option<Peer> {
        let python = environment("python-env", "console")?;
        Some(Peer::start(Command::new(python).arg(here("tests/console/peers.py")).args([kind, PASSWORD])))
    }

    fn minecraft(world: &Path) -> Option<Peer> {
        let packages = environment("node-env", "minecraft")?;
        let mut node = Command::new("node");
        Some(Peer::start(node.arg(here("tests/minecraft/peer.js")).arg(world).env("NODE_PATH", packages)))
    }

    fn start(command: &mut Command) -> Peer {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (found, port) = mpsc::channel();
        // It reads to the end, so that the peer never waits for us.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(port) = line.strip_prefix("port=") {
                    let _ = found.send(port.parse::<u16>().unwrap());
                }
            }
        });
        let port = port.recv_timeout(DEADLINE).expect("the peer says its port");
        Peer { process, address: ([127, 0, 0, 1], port).into() }
    }

    fn order(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{line}").unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What one of scripts/lib made ready for a test tool.
fn environment(script: &str, name: &str) -> Option<PathBuf> {
    let made = Command::new(here("scripts/lib").join(script)).arg(name).output().unwrap();
    if !made.status.success() {
        skipped(&String::from_utf8_lossy(&made.stderr));
        return None;
    }
    Some(String::from_utf8(made.stdout).unwrap().trim().into())
}

/// What every server of Source RCON has to be good for, whichever way it speaks.
async fn speaks_source_rcon(kind: &str) {
    let Some(peer) = Peer::rcon(kind) else { return };
    let mut console = SourceRcon::connect(peer.address, &password()).await.unwrap();

    let reply = console.command("say olé").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.answered), ("you said say olé", true));

    let reply = console.command("long").await.unwrap();
    let whole: String = (0..4000).map(|number| format!("line {number} é\n")).collect();
    assert!(reply.text == whole && !reply.truncated, "{} of {} bytes came", reply.text.len(), whole.len());

    // Longer than the pause within an answer, and longer than the wait for the probe.
    assert_eq!(console.command("slow").await.unwrap().text, "at last");
    let reply = console.command("silent").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.truncated), ("", false));
    for number in 0..20 {
        let reply = console.command(&format!("number {number}")).await.unwrap();
        assert_eq!(reply.text, format!("you said number {number}"));
    }

    sent_blindly(peer.address, source::unanswered(&password(), "say bye"), "you said say bye").await;

    let wrong = SourceRcon::connect(peer.address, &"a guess".into()).await.err().unwrap();
    assert!(matches!(wrong, ConsoleError::WrongPassword), "{wrong}");

    let address = peer.address;
    drop(peer);
    let gone = console.command("say hi").await;
    assert!(matches!(gone, Err(ConsoleError::Unreachable(_))), "{gone:?}");
    let gone = SourceRcon::connect(address, &password()).await.err().unwrap();
    assert!(matches!(gone, ConsoleError::Unreachable(_)), "{gone}");
}

/// Sends what is made for a host that has lost Spawnpoint, as the host does: one after the other, each once there was
/// some answer to the one before. Until this was heard.
async fn sent_blindly(address: SocketAddr, parts: Vec<Vec<u8>>, wanted: &str) {
    let heard = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut heard, mut chunk) = (vec![], [0; 4096]);
        for part in parts {
            stream.write_all(&part).await.unwrap();
            let read = stream.read(&mut chunk).await.unwrap();
            heard.extend_from_slice(&chunk[..read]);
        }
        while !String::from_utf8_lossy(&heard).contains(wanted) {
            let read = stream.read(&mut chunk).await.unwrap();
            assert!(read > 0, "it hung up after {:?}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&chunk[..read]);
        }
    };
    tokio::time::timeout(DEADLINE, heard).await.unwrap_or_else(|_| panic!("{wanted:?} was not heard"));
}

#[tokio::test]
async fn rconx_speaks_as_source_servers_do() {
    speaks_source_rcon("rconx").await;
}

#[tokio::test]
async fn rcon_fake_speaks_as_minecraft_does() {
    speaks_source_rcon("rcon-fake").await;
}

#[tokio::test]
async fn a_real_minecraft_server_is_understood() {
    let world = tempfile::tempdir().unwrap();
    let Some(mut peer) = Peer::minecraft(world.path()) else { return };
    let address = peer.address;
    let empty = query::minecraft(address).await.unwrap();
    assert_eq!((empty.players, empty.max_players), (Some(0), Some(4)), "{empty:?}");
    assert_eq!(empty.name.as_deref(), Some("A test hill"));
    assert_eq!(empty.version.as_deref(), Some("1.16.5"));

    let players = async |wanted| {
        eventually(&format!("{wanted} players"), || async {
            query::minecraft(address).await.ok().filter(|answer| answer.players == Some(wanted))
        })
        .await
    };
    peer.order("join");
    players(1).await;
    peer.order("leave");
    players(0).await;
}

fn docker(arguments: &[&str]) -> Output {
    Command::new("docker").args(arguments).output().unwrap()
}

/// A real game in a container of its own, which goes when the test does.
struct Game {
    container: String,
}

impl Game {
    /// Its ports are published on this address only, which no other test uses. `script` is what it runs, and `$PASSWORD`
    /// is in its environment.
    fn start(image: &str, address: &str, ports: &[&str], script: &str) -> Option<Game> {
        if !Command::new("docker").arg("info").output().is_ok_and(|out| out.status.success()) {
            skipped("no Docker");
            return None;
        }
        let made = Command::new(here("scripts/lib/test-images")).arg(image).output().unwrap();
        if !made.status.success() {
            skipped(&format!("no image of {image}: {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        let game = Game { container: format!("sp-test-peer-{image}") };
        game.remove();
        let published: Vec<String> = ports.iter().map(|port| format!("--publish={address}:{port}")).collect();
        let mut arguments = vec!["run", "--detach", "--label=spawnpoint-test=console-peers", "--name", &game.container];
        arguments.extend(published.iter().map(String::as_str));
        let secret = format!("PASSWORD={PASSWORD}");
        let image = format!("spawnpoint-test/{image}:1");
        arguments.extend(["--env", &secret, &image, "sh", "-ec", script]);
        let run = docker(&arguments);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        Some(game)
    }

    fn running(&self) -> bool {
        docker(&["inspect", "--format={{.State.Running}}", &self.container]).stdout.starts_with(b"true")
    }

    fn sh(&self, script: &str) {
        let done = docker(&["exec", "--detach", &self.container, "sh", "-ec", script]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn remove(&self) {
        docker(&["rm", "--force", "--volumes", &self.container]);
    }
}

impl Drop for Game {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = docker(&["logs", "--tail=30", &self.container]);
            println!("{}{}", String::from_utf8_lossy(&logs.stdout), String::from_utf8_lossy(&logs.stderr));
        }
        self.remove();
    }
}

/// Version 13 empties the passwords of files without the first block.
const OPENTTD: &str = r#"
settings() {
    mkdir -p "$1/.config/openttd"
    for file in openttd secrets private; do
        printf '[version]\nversion_string = 13.0\nversion_number = 1D086D64\nini_version = 2\n' >"$1/.config/openttd/$file.cfg"
    done
    printf '[network]\nserver_game_type = local\nuse_relay_service = never\nmax_init_time = 1000\nmax_join_time = 2000\n[misc]\ngraphicsset = "OpenGFX"\n' >>"$1/.config/openttd/openttd.cfg"
    printf '[network]\nadmin_password = %s\n' "$PASSWORD" >>"$1/.config/openttd/secrets.cfg"
    printf '[network]\nserver_name = Test rails\nclient_name = %s\n' "$2" >>"$1/.config/openttd/private.cfg"
}
"#;

#[tokio::test]
async fn the_real_openttd_is_understood() {
    let serve = format!("{OPENTTD}\nsettings /home/game Server; exec openttd -D 0.0.0.0:3979");
    let ports = ["3979:3979/tcp", "3977:3977/tcp"];
    let Some(game) = Game::start("openttd", "127.0.61.1", &ports, &serve) else { return };
    let (server, admin): (SocketAddr, SocketAddr) =
        ("127.0.61.1:3979".parse().unwrap(), "127.0.61.1:3977".parse().unwrap());
    let empty = eventually("a server that answers", || async { query::openttd(server).await.ok() }).await;
    assert_eq!((empty.players, empty.max_players), (Some(0), Some(25)), "{empty:?}");
    assert_eq!(empty.name.as_deref(), Some("Test rails"));
    assert_eq!(empty.version.as_deref(), Some("13.0"));
    assert_eq!(empty.map.as_deref(), Some("temperate, 256 × 256"));

    let mut console = OpenTtdAdmin::connect(admin, &password()).await.unwrap();
    let reply = console.command("server_info").await.unwrap();
    assert!(reply.answered && !reply.truncated && reply.text.contains("clients:"), "{reply:?}");
    // Hundreds of lines, each a packet.
    let reply = console.command("list_settings").await.unwrap();
    assert!(reply.text.lines().count() > 200 && !reply.truncated, "{} lines", reply.text.lines().count());
    sent_blindly(admin, openttd::unanswered(&password(), "server_info"), "clients:").await;
    // It hangs up before it has sent its reason.
    let wrong = OpenTtdAdmin::connect(admin, &"a guess".into()).await.err().unwrap();
    assert!(wrong.to_string().contains("a wrong password?"), "{wrong}");

    // A real client without a screen, beside the server.
    let join = format!(
        "{OPENTTD}\n{PLAY}\nexport HOME=/home/game/ann; settings $HOME Ann; play openttd 127.0.0.1:3979 & echo $! >/tmp/ann; wait"
    );
    game.sh(&join);
    let players = async |wanted| {
        eventually(&format!("{wanted} players"), || async {
            query::openttd(server).await.ok().filter(|answer| answer.players == Some(wanted))
        })
        .await
    };
    players(1).await;
    let reply = eventually("her name", || async {
        let mut console = OpenTtdAdmin::connect(admin, &password()).await.unwrap();
        Some(console.command("clients").await.unwrap()).filter(|reply| reply.text.contains("Ann"))
    })
    .await;
    println!("clients: {}", reply.text.trim());
    game.sh("kill $(cat /tmp/ann)");
    players(0).await;

    let quit = console.command("quit").await.unwrap();
    println!("quit: {quit:?}");
    eventually("its end", || async { (!game.running()).then_some(()) }).await;
    assert!(matches!(console.command("clients").await, Err(ConsoleError::Unreachable(_))));
}

/// A game at an address, as far as a warning needs it.
struct At(SocketAddr);

#[async_trait]
impl Typist for At {
    async fn type_within(&self, _: &Server, line: &str, _: Option<Duration>) -> Result<Reply, ConsoleFault> {
        let mut console = talk::console_at(ConsoleProtocol::Quake3Rcon, self.0, &password()).await?;
        console.command(line).await.map_err(|error| ConsoleFault::Silent(error.to_string()))
    }
}

/// Of one address it hears ten words at once, and drops what is more. A warning is said again until it was heard.
async fn told_while_nothing_more_is_heard(game: &Game, address: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let drain = async || {
        for _ in 0..40 {
            for part in quake3::unanswered(&password(), "status") {
                socket.send_to(&part, address).await.unwrap();
            }
        }
    };
    let mut console = Quake3Rcon::connect(address, &password()).await.unwrap();
    // Each second one word is heard again, and this may be the moment.
    let dropped = async {
        loop {
            drain().await;
            if !console.command("say perhaps").await.unwrap().answered {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, dropped).await.expect("a word that is dropped");
    drain().await;
    // Of a recipe whose engine has no other console.
    let recipe = std::fs::read_to_string(here("game-scripts/openarena/recipe.toml")).unwrap().replace(
        "protocol = \"stdin\"\nmax_line_bytes = 255\n",
        "protocol = \"quake3_rcon\"\nport = \"game\"\non_game_port = true\n",
    );
    let recipe = Recipe::parse(&recipe, "recipe.toml").unwrap();
    let server = Server {
        id: ServerId("arena".into()),
        guild: GuildId("1".into()),
        name: ServerName::parse("arena").unwrap(),
        game: "openarena".into(),
        backend: Backend::Docker,
        settings: Default::default(),
        limits: Limits::default(),
        place: Place::default(),
        wanted: Wanted::On,
        owned: Owned::default(),
        lease_until: None,
        channel: None,
        update_at_start: false,
        created_at: 0,
        deleted_at: None,
    };
    talk::say(&At(address), Some(&recipe), &server, "It stops soon.").await.unwrap();
    eventually("what was said in the game's log", async || {
        let said = docker(&["logs", &game.container]);
        let said = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        said.contains("It stops soon.").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_real_openarena_is_understood() {
    let serve = "exec openarena-server +set dedicated 1 +set net_port 27960 +set rconPassword \"$PASSWORD\" +set sv_hostname '^1Test ^7arena' +set sv_maxclients 8 +map oa_dm1";
    let Some(game) = Game::start("openarena", "127.0.61.2", &["27960:27960/udp"], serve) else { return };
    let server: SocketAddr = "127.0.61.2:27960".parse().unwrap();
    let empty = eventually("a server that answers", || async { query::quake3(server).await.ok() }).await;
    assert_eq!((empty.players, empty.bots, empty.max_players), (Some(0), Some(0), Some(8)), "{empty:?}");
    assert_eq!(empty.name.as_deref(), Some("Test arena"));
    assert_eq!(empty.map.as_deref(), Some("oa_dm1"));
    assert!(empty.version.is_some_and(|version| version.starts_with("ioq3")));

    let mut console = Quake3Rcon::connect(server, &password()).await.unwrap();
    let reply = console.command("status").await.unwrap();
    assert!(reply.text.contains("map: oa_dm1"), "{reply:?}");
    // Ten datagrams without an end, of which the last line counts what was listed.
    let reply = console.command("cvarlist").await.unwrap();
    let (listed, counted) = reply.text.trim_end().rsplit_once("\n\n").unwrap();
    assert!(counted.starts_with(&format!("{} total cvars", listed.lines().count())), "{counted}");
    assert!(reply.text.len() > 8000, "{} bytes", reply.text.len());
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    // One address may ask so often in a while.
    let answer = eventually("an answer to what a host sends", || async {
        for part in quake3::unanswered(&password(), "status") {
            socket.send_to(&part, server).await.unwrap();
        }
        let mut answer = vec![0; 2048];
        let came = tokio::time::timeout(Duration::from_secs(1), socket.recv(&mut answer)).await.ok()?.unwrap();
        Some(String::from_utf8_lossy(&answer[..came]).into_owned())
    })
    .await;
    assert!(answer.contains("map: oa_dm1"), "{answer}");
    told_while_nothing_more_is_heard(&game, server).await;
    // It hears one word in a second from now on.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut wrong = Quake3Rcon::connect(server, &"a-guess".into()).await.unwrap();
    assert!(matches!(wrong.command("status").await, Err(ConsoleError::WrongPassword)));

    let bots = async |wanted| {
        eventually(&format!("{wanted} bots"), || async {
            query::quake3(server).await.ok().filter(|answer| answer.bots == Some(wanted))
        })
        .await
    };
    console.command("addbot gargoyle 1").await.unwrap();
    console.command("addbot grism 1").await.unwrap();
    let answer = bots(2).await;
    assert_eq!((answer.players, answer.names.len()), (Some(0), 0), "bots are no people: {answer:?}");
    console.command("kick all").await.unwrap();
    bots(0).await;

    // It ends without a word.
    let quit = console.command("quit").await;
    assert!(matches!(&quit, Ok(reply) if !reply.answered), "{quit:?}");
    eventually("its end", || async { (!game.running()).then_some(()) }).await;
}
