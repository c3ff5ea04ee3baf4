//! Measures what docs/benchmarks.md reports, each beside something that does the same job: `scripts/bench` runs it.
//! Prints a table in Markdown. Nothing in here is a test: a slow machine fails nothing.

#[path = "../tests/common/discord.rs"]
mod discord;
#[path = "../tests/common/stage.rs"]
mod stage;

use discord::Discord;
use serde_json::json;
use spawnpoint::model::GuildId;
use spawnpoint::model::access::Caller;
use spawnpoint::model::job::Step;
use spawnpoint::model::view::{JobView, spoken_bytes};
use stage::{Stage, docker_or_skip, test_image};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Names another program than the one that was built with this.
const GIVEN: &str = "SPAWNPOINT_BENCH_BINARY";
const SERVERS: usize = 20;
const STARTS: usize = 10;
const COMMANDS_PER_S: u64 = 200;
const LOAD_S: u64 = 10;
const WATCHED: usize = 1000;
const WATCHED_FOR: Duration = Duration::from_secs(60);

fn main() {
    // Cargo passes `--bench`, which says nothing here.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        if !docker_or_skip().await {
            return;
        }
        test_image("busybox");
        println!("| what | Spawnpoint | beside it | |\n|---|---|---|---|");
        if wanted("drives") {
            drives("1 MB in 20 files", 20, 1 << 20).await;
            drives("20 GB (sparse) in 100,000 files", 100_000, 20 << 30).await;
        }
        if wanted("starts") {
            starts().await;
        }
        if wanted("discord") {
            with_discord().await;
        }
        if wanted("watched") {
            watched().await;
        }
    });
}

/// All parts, or those that were named.
fn wanted(part: &str) -> bool {
    let mut named = std::env::args().skip(1).filter(|one| !one.starts_with("--")).peekable();
    named.peek().is_none() || named.any(|one| one == part)
}

fn row(what: &str, ours: &str, beside: &str, note: &str) {
    println!("| {what} | {ours} | {beside} | {note} |");
}

/// Median and 95th percentile, in milliseconds.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
    format!("{:.0} ms (p95 {:.0} ms, n {})", at(0.5), at(0.95), times.len())
}

fn took(view: &JobView, step: Step) -> f64 {
    let step = view.steps.iter().find(|one| one.label == step.label()).expect("the step is in the plan");
    (step.ended_at.unwrap() - step.started_at.unwrap()) as f64
}

/// The toy with another install: so many small files, and one sparse file that makes up the rest.
fn recipes_with(files: usize, bytes: u64) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/toy");
    let copied = Command::new("cp").arg("-a").arg(&toy).arg(home.path()).status().unwrap();
    assert!(copied.success());
    let install = format!(
        "#!/bin/sh\nset -eu\ncd \"$GAME_DIR\"\nmkdir -p maps\ni=0\nwhile [ $i -lt {files} ]; do\n  d=maps/$((i / 1000))\n  [ $((i % 1000)) -ne 0 ] || mkdir -p $d\n  echo tile >$d/$i\n  i=$((i + 1))\ndone\ndd if=/dev/zero of=maps/big bs=1 count=0 seek={bytes} 2>/dev/null\n"
    );
    std::fs::write(home.path().join("toy/install"), install).unwrap();
    home
}

async fn drives(what: &str, files: usize, bytes: u64) {
    let recipes = recipes_with(files, bytes);
    let stage = Stage::open(recipes.path().to_str().unwrap(), |_| {}).await;
    stage.succeeds(stage.program.app.snapshot_build(&stage.caller, "toy", None).await.unwrap()).await;
    let mut clones = vec![];
    for n in 0..SERVERS {
        let name = format!("toy-{n}");
        stage.create(&name, "toy", &[]).await;
        let view = stage.start(&name).await;
        clones.push(took(&view, Step::CloneDrive));
        if n >= 5 {
            // A running toy takes memory; its drive stays to be measured.
            stage.program.app.kill(&stage.caller, &name).await.unwrap();
        }
    }
    let snapshot = stage.config.data_dir.join("snapshots/toy-1/files");
    let own: Vec<u64> = stage.program.app.snapshots(&stage.caller).await.unwrap()[0]
        .drives
        .iter()
        .filter_map(|(_, bytes)| *bytes)
        .collect();
    let own = own.iter().sum::<u64>() / own.len() as u64;
    let copy = stage.home.join("copy");
    let began = Instant::now();
    assert!(Command::new("cp").arg("-a").arg(&snapshot).arg(&copy).status().unwrap().success());
    let copied_ms = began.elapsed().as_secs_f64() * 1000.0;
    let copied = disk_bytes(&copy);
    row(&format!("clone a drive, {what}"), &spread(clones), &format!("{copied_ms:.0} ms"), "`cp -a`");
    row("its bytes, with what one start wrote", &spoken_bytes(own), &spoken_bytes(copied), "`cp -a`");
    let base = stage.home.join("base.qcow2");
    let made =
        Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&base).arg(bytes.to_string()).status();
    if made.is_ok_and(|made| made.success()) {
        let mut times = vec![];
        for n in 0..SERVERS {
            let clone = stage.home.join(format!("clone-{n}.qcow2"));
            let began = Instant::now();
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
                .arg(&base)
                .arg(&clone)
                .status();
            times.push(began.elapsed().as_secs_f64() * 1000.0);
            assert!(made.unwrap().success());
        }
        let size = disk_bytes(&stage.home.join("clone-0.qcow2"));
        row(
            "",
            "",
            &format!("{}, {}", spread(times), spoken_bytes(size)),
            "`qemu-img create -b`, not yet attached or mounted",
        );
    }
    stage.close().await;
}

fn disk_bytes(path: &Path) -> u64 {
    let out = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&out.stdout).split_whitespace().next().unwrap().parse().unwrap()
}

/// From the command to "people can join", beside `docker run` of the same image on the same files.
async fn starts() {
    let stage = Stage::open("tests/recipes", |_| {}).await;
    stage.create("toy", "toy", &[]).await;
    stage.start("toy").await;
    let (mut ours, mut theirs) = (vec![], vec![]);
    let mut last = None;
    for _ in 0..STARTS {
        stage.stop_server("toy").await;
        let view = stage.start("toy").await;
        ours.push((view.ended_at.unwrap() - view.created_at) as f64);
        last = Some(view);
    }
    let filter = format!("label=spawnpoint.instance={}", stage.instance);
    let image =
        sh(&format!("docker ps --filter {filter} --filter label=spawnpoint.role=game --format '{{{{.Image}}}}'"));
    let files = stage.config.data_dir.join("snapshots/toy-1/files");
    for n in 0..STARTS {
        let scratch = stage.home.join(format!("scratch-{n}"));
        sh(&format!(
            "mkdir -p {0}/u {0}/w && chown -R 4242:4242 {0} && docker volume create -d local -o type=overlay -o device=overlay -o o=lowerdir={1},upperdir={0}/u,workdir={0}/w bench-{n}",
            scratch.display(),
            files.display()
        ));
        let began = Instant::now();
        let script = format!(
            "docker run -d --name bench-{n} --user 4242:4242 --cap-drop ALL --security-opt no-new-privileges -i -v bench-{n}:/srv/game -e GAME_DIR=/srv/game -e BEHAVIOUR=good -e MOTTO=hello -e TOY_SECRET=x -e PORT_GAME=27100 -p 127.0.99.1:27100:27100/udp --memory 64m --cpus 1 --pids-limit 64 --entrypoint /opt/spawnpoint/run {image} >/dev/null"
        );
        sh(&script);
        wait_for_line(&format!("bench-{n}"), "ready to join");
        theirs.push(began.elapsed().as_secs_f64() * 1000.0);
        sh(&format!("docker rm -f bench-{n} >/dev/null; docker volume rm bench-{n} >/dev/null"));
    }
    row(
        "start a container server, command to ready",
        &spread(ours),
        &spread(theirs),
        "`docker run` and `docker logs`, same image and mount",
    );
    let view = last.unwrap();
    let steps: Vec<String> = view
        .steps
        .iter()
        .map(|step| format!("{} {}", step.label, step.ended_at.unwrap() - step.started_at.unwrap()))
        .collect();
    row("where its last start spent its time (ms)", &steps.join(", "), "", "");
    stage.close().await;
}

/// Follows a container's log until the line is there, and no longer: `grep -q` would wait for the line after it.
fn wait_for_line(container: &str, wanted: &str) {
    let mut follow = Command::new("docker")
        .args(["logs", "-f", container])
        .stdout(Stdio::piped())
        .spawn()
        .expect("docker can be run");
    let out = BufReader::new(follow.stdout.take().expect("it is piped"));
    let found = out.lines().map_while(Result::ok).any(|line| line.contains(wanted));
    let _ = follow.kill();
    let _ = follow.wait();
    assert!(found, "{container} ended without saying `{wanted}`");
}

fn sh(script: &str) -> String {
    let out = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// The real binary, connected, with twenty servers: its memory at rest, and its answers under load. Beside it stands a
/// parrot that has the same answers ready: what is left then is the time of the stand-in, of serenity and of the load.
async fn with_discord() {
    let world = json!({"channels": ["general"], "users": [{"name": "ada", "permissions": ["manage_guild"]}]});
    let Some(discord) = Discord::start(world).await else { return };
    let discord = Arc::new(discord);
    let home = tempfile::tempdir().unwrap();
    let mut child = program()
        .arg("run")
        .current_dir(home.path())
        .env("SPAWNPOINT_DATA_DIR", home.path().join("data"))
        .env("SPAWNPOINT_GAME_SCRIPTS", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes"))
        .env("SPAWNPOINT_DISCORD__TOKEN", discord.token())
        .env("SPAWNPOINT_DISCORD__API_URL", discord.api_url())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let ada = discord.user("ada");
    for n in 0..SERVERS {
        discord.slash(&ada, "general", &format!("/server create name:toy-{n} game:toy")).await;
    }
    // Rest, so that what creating took is given back.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let rest = memory(child.id());
    let before = (processor_ms(child.id()), processor_ms(discord.pid()));
    let ours = answers(&discord).await;
    let used = (processor_ms(child.id()) - before.0, processor_ms(discord.pid()) - before.1);
    let loaded = memory(child.id());
    let _ = child.kill();
    let _ = child.wait();

    let parrot = Parrot::of(&discord).await;
    let http = serenity::http::HttpBuilder::new(discord.token()).proxy(discord.api_url()).ratelimiter_disabled(true);
    let intents = serenity::all::GatewayIntents::GUILDS;
    let client = serenity::all::ClientBuilder::new_with_http(http.build(), intents).event_handler(parrot).await;
    let mut client = client.unwrap();
    let shards = client.shard_manager.clone();
    let talking = tokio::spawn(async move { client.start().await });
    let before = processor_ms(discord.pid());
    let beside = answers(&discord).await;
    let standin = processor_ms(discord.pid()) - before;
    shards.shutdown_all().await;
    let _ = talking.await;

    let each = |all_ms: f64| format!("{:.2} ms", all_ms / (COMMANDS_PER_S * LOAD_S) as f64);
    row(
        &format!("answer to an interaction, {COMMANDS_PER_S} a second for {LOAD_S} s, every other a list of {SERVERS}"),
        &ours,
        &beside,
        "a parrot with the same answers at hand",
    );
    row("processor time for each, of the program", &each(used.0), "", "");
    row("processor time for each, of the stand-in", &each(used.1), &each(standin), "one thread");
    row("memory at rest, connected, 20 servers", &rest, "", "resident");
    row("memory after that load", &loaded, "", "resident");
}

/// People ask at a steady pace; how long they wait for the first answer.
async fn answers(discord: &Arc<Discord>) -> String {
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / COMMANDS_PER_S));
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..COMMANDS_PER_S * LOAD_S {
        tick.tick().await;
        let (discord, ada) = (discord.clone(), discord.user("ada"));
        let line = if n % 2 == 0 {
            "/server list".to_owned()
        } else {
            format!("/server status server:toy-{}", n % SERVERS as u64)
        };
        asked.spawn(async move {
            let began = Instant::now();
            let answer = discord.slash(&ada, "general", &line).await;
            (began.elapsed().as_secs_f64() * 1000.0, answer.kind.is_some())
        });
    }
    let answers = asked.join_all().await;
    let unanswered = answers.iter().filter(|(_, answered)| !answered).count();
    let mut times: Vec<f64> = answers.into_iter().map(|(time, _)| time).collect();
    times.sort_by(f64::total_cmp);
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    format!("p50 {:.0} ms, p99 {:.0} ms, {unanswered} unanswered", at(0.5), at(0.99))
}

/// Answers as ours did, without a look at anything.
struct Parrot {
    list: serde_json::Value,
    status: serde_json::Value,
}

impl Parrot {
    async fn of(discord: &Discord) -> Parrot {
        let answers = discord.requests("POST", "/interactions/*/callback").await.into_iter().map(|one| one.body);
        let is_list = |body: &serde_json::Value| body["data"]["content"].as_str().unwrap().starts_with("**Servers**");
        let (lists, others): (Vec<_>, Vec<_>) = answers.partition(is_list);
        Parrot { list: lists.last().unwrap().clone(), status: others.last().unwrap().clone() }
    }
}

#[serenity::async_trait]
impl serenity::all::EventHandler for Parrot {
    async fn interaction_create(&self, ctx: serenity::all::Context, from: serenity::all::Interaction) {
        let serenity::all::Interaction::Command(from) = from else { return };
        let said = if from.data.options[0].name == "list" { &self.list } else { &self.status };
        ctx.http.create_interaction_response(from.id, &from.token, said, vec![]).await.unwrap();
    }
}

/// The real binary with a thousand servers that are off: what the watcher takes by itself. None of them has a container.
async fn watched() {
    let mut stage = Stage::open_idle("tests/recipes", |_| {}).await;
    for n in 0..WATCHED {
        // A guild has at most a hundred.
        stage.caller = Caller::operator(GuildId(format!("guild-{}", n / 100)));
        stage.create(&format!("toy-{n}"), "toy", &[]).await;
    }
    let mut child = program()
        .args(["run", "--without-discord"])
        .current_dir(&stage.home)
        .env("SPAWNPOINT_DATA_DIR", &stage.config.data_dir)
        .env("SPAWNPOINT_GAME_SCRIPTS", &stage.config.game_scripts)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The start itself is not what is measured.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (began, before) = (Instant::now(), processor_ms(child.id()));
    tokio::time::sleep(WATCHED_FOR).await;
    let share = (processor_ms(child.id()) - before) / began.elapsed().as_millis() as f64 * 100.0;
    row(
        &format!("{WATCHED} servers watched, all off, over {} s", WATCHED_FOR.as_secs()),
        &format!("{share:.1} % of one core, {}", spoken_bytes(resident(child.id()))),
        "",
        "without Discord, a look every 15 s",
    );
    let _ = child.kill();
    let _ = child.wait();
}

/// What a process has used of the processor, from fields 14 and 15 of its stat line in hundredths of a second.
fn processor_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(')').unwrap();
    after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap() * 10.0).sum()
}

/// The program as it is started by hand: it takes a variable of ours for a setting that it does not know.
fn program() -> Command {
    let given = std::env::var_os(GIVEN);
    let mut program = Command::new(given.map_or_else(|| env!("CARGO_BIN_EXE_spawnpoint").into(), PathBuf::from));
    program.env_remove(GIVEN);
    program
}

fn resident(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS")
}

/// What is resident, and how much of it is the program's own and not mapped from its file.
fn memory(pid: u32) -> String {
    format!("{}, {} of it not from its file", spoken_bytes(resident(pid)), spoken_bytes(status_bytes(pid, "RssAnon")))
}

fn status_bytes(pid: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
