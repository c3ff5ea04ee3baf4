//! A Discord that goes away in the middle: the gateway drops, sessions cannot be resumed, everything is down for a
//! while, a token of an interaction runs out. What was under way goes on, and its end is told.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Cut, Discord, Outage, User};
use serde_json::json;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::model::job::Step;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

struct Room {
    discord: Discord,
    home: Home,
    bob: User,
}

async fn discord() -> Option<Discord> {
    let world = json!({
        "channels": ["general"],
        "roles": [{"name": "players"}],
        "users": [{"name": "alice", "permissions": ["manage_guild"]}, {"name": "bob", "roles": ["players"]}],
    });
    Discord::start(world).await
}

async fn room() -> Option<(Room, Bot)> {
    Some(room_in(discord().await?).await)
}

async fn room_in(discord: Discord) -> (Room, Bot) {
    room_at(Home::new(), discord).await
}

async fn room_at(home: Home, discord: Discord) -> (Room, Bot) {
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));
    let room = Room { discord, home, bob };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.slash(&alice, "general", "/server create name:world game:toy").await;
    room.discord.wait_for("general", "world.*offline").await;
    (room, bot)
}

impl Room {
    /// A start that takes some seconds, because its step has to be tried again.
    async fn slow_start(&self) {
        self.home.outside.fault(Way::Run, Step::StartGame, Kind::Retry, 3);
        self.discord.slash(&self.bob, "general", "/server start server:world").await;
        self.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    }

    async fn told_once(&self) {
        self.discord.wait_for("general", "`world` is up").await;
        let up = self.discord.messages("general").await.iter().filter(|message| message.text.contains("is up")).count();
        assert_eq!(up, 1, "{}", self.discord.channel_text("general").await);
    }

    /// The bot hears what people do.
    async fn hears(&self) {
        let answer = self.discord.slash(&self.bob, "general", "/server list").await;
        assert!(answer.text.clone().unwrap_or_default().contains("world"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_gateway_is_taken_up_again_and_the_job_goes_on() {
    let Some((room, bot)) = room().await else { return };
    for cut in [Cut::Abort, Cut::Reconnect, Cut::Close(4000)] {
        let before = room.discord.gateway().await.resumes;
        room.discord.drop_gateway(cut).await;
        room.discord.wait_gateway(json!({"resumes": before + 1})).await;
        room.hears().await;
    }
    room.slow_start().await;
    room.discord.drop_gateway(Cut::Abort).await;
    room.told_once().await;
    bot.end().await.unwrap();
}

/// A connection that looks open and is dead: only the missing acknowledgement of a heartbeat tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_acknowledges_nothing_is_left_and_the_word_comes_all_the_same() {
    let Some(discord) = discord().await else { return };
    discord.heartbeat(Duration::from_secs(1)).await;
    let (room, bot) = room_in(discord).await;
    let before = room.discord.wait_gateway(json!({"connected": 1, "heartbeats": 2})).await.connections;
    room.slow_start().await;
    room.discord.withhold_acks(true).await;
    room.discord.wait_gateway(json!({"connections": before + 1})).await;
    room.discord.withhold_acks(false).await;
    room.told_once().await;
    room.discord.wait_gateway(json!({"connected": 1})).await;
    room.hears().await;
    bot.end().await.unwrap();
}

/// A connection that looks alive and is never whole: heartbeats are acknowledged, and who resumes or identifies is not
/// answered. serenity would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_answers_nobody_is_left_and_the_word_comes_all_the_same() {
    let Some(discord) = discord().await else { return };
    let mut home = Home::new();
    home.whole_within = Duration::from_secs(5);
    discord.heartbeat(Duration::from_secs(1)).await;
    let (room, bot) = room_at(home, discord).await;
    room.slow_start().await;
    room.discord.silence(true).await;
    let before = room.discord.gateway().await.connections;
    room.discord.drop_gateway(Cut::Abort).await;
    // The first is left for the second.
    room.discord.wait_gateway(json!({"connections": before + 2})).await;
    room.told_once().await;
    room.discord.silence(false).await;
    room.discord.wait_gateway(json!({"connected": 1})).await;
    room.hears().await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_resumed_is_begun_anew() {
    let Some((room, bot)) = room().await else { return };
    room.slow_start().await;
    room.discord.refuse_resumes(1).await;
    room.discord.drop_gateway(Cut::Abort).await;
    room.told_once().await;
    room.hears().await;
    assert!(room.discord.gateway().await.identifies >= 2);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_in_the_middle_of_a_start_only_delays_the_word() {
    let Some((room, bot)) = room().await else { return };
    for outage in [Outage::Unavailable, Outage::Reset] {
        room.slow_start().await;
        room.discord.outage(outage).await;
        // The job does not need Discord: it ends while nobody can be told.
        let job = bot.store.open_jobs_all().await.unwrap().first().map(|job| job.id);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while let Some(id) = job
            && bot.store.job(id).await.unwrap().unwrap().1.is_none()
        {
            assert!(tokio::time::Instant::now() < deadline, "the job waits for Discord");
            tokio::task::yield_now().await;
        }
        room.discord.outage(Outage::Over).await;
        room.discord.wait_for("general", "`world` is up").await;
        room.hears().await;
        room.discord.slash(&room.bob, "general", "/server stop server:world").await;
        room.discord.wait_for("general", "`world` is stopped").await;
    }
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ran_out_does_not_end_the_telling() {
    let Some((room, bot)) = room().await else { return };
    room.slow_start().await;
    room.discord.advance(Duration::from_secs(16 * 60)).await;
    room.told_once().await;
    room.hears().await;
    bot.end().await.unwrap();
}

/// Longer than serenity's own pause before it identifies anew.
const AGAIN: Duration = Duration::from_secs(12);
const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_drops_the_bot_again_and_again_does_not_cost_its_token() {
    let (Some(discord), home) = (discord().await, Home::new()) else { return };
    discord.session_starts(13, HOUR).await;
    discord.close_after_ready(4009).await;
    let bot = Bot::start(&discord, &home).await;
    discord.wait_gateway(json!({"identifies": 3})).await;
    assert!(discord.never_in(AGAIN, json!({"identifies": 4})).await, "the last ten are left for a person");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_may_not_identify_waits_until_it_may() {
    let (Some(discord), home) = (discord().await, Home::new()) else { return };
    let reset = Duration::from_secs(5);
    let (asked, bob) = (Instant::now(), discord.user("bob"));
    discord.session_starts(0, reset).await;
    let bot = Bot::start(&discord, &home).await;
    discord.wait_gateway(json!({"identifies": 1})).await;
    assert!(asked.elapsed() >= reset, "it identified after {:?}", asked.elapsed());
    let answer = discord.slash(&bob, "general", "/server list").await;
    assert!(answer.text.is_some(), "{answer:?}");
    bot.end().await.unwrap();
    discord.session_starts(0, HOUR).await;
    let bot = Bot::start(&discord, &home).await;
    discord.wait_requests("GET", "/gateway/bot", 3).await;
    let ended = Instant::now();
    bot.end().await.unwrap();
    assert!(ended.elapsed() < Duration::from_secs(15), "nobody waits for the reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_ends_while_it_looks_for_discord_ends_at_once_and_is_gone() {
    // At once, and when serenity has given its shard up and tries to start another.
    for looking in [Duration::ZERO, AGAIN] {
        let Some((room, bot)) = room().await else { return };
        room.discord.outage(Outage::Reset).await;
        let before = room.discord.gateway().await;
        room.discord.never_in(looking, json!({"connections": before.connections + 1})).await;
        let ended = Instant::now();
        bot.end().await.unwrap();
        // Serenity gets a few seconds to end its shards, and may need them all.
        assert!(ended.elapsed() < Duration::from_secs(15), "it took {:?}", ended.elapsed());
        room.discord.outage(Outage::Over).await;
        let comes_back = json!({"connections": before.connections + 1});
        assert!(room.discord.never_in(AGAIN, comes_back).await, "what is left of it connects after {looking:?}");
    }
}

/// What this process says to its operator.
static LOG: Mutex<Vec<u8>> = Mutex::new(vec![]);

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_ends_nothing() {
    let Some((room, bot)) = room().await else { return };
    let before = room.discord.gateway().await;
    let interaction = |kind: u8| json!({"id": "1", "application_id": "1", "type": kind, "token": "t", "version": 1});
    let heard = || String::from_utf8_lossy(&LOG.lock().unwrap()).matches("nobody was answered").count();
    tracing_subscriber::fmt().with_writer(|| Log).init();
    for (event, payload) in [
        ("SOMETHING_NEW", json!({"of": ["next", "year"]})),
        ("GUILD_CREATE", json!({"id": "none"})),
        ("MESSAGE_CREATE", json!(null)),
        ("INTERACTION_CREATE", interaction(2)),
        ("INTERACTION_CREATE", interaction(99)),
        ("INTERACTION_CREATE", json!([])),
    ] {
        room.discord.dispatch(event, payload.clone()).await;
        room.hears().await;
    }
    assert_eq!(heard(), 3, "the operator reads of each interaction that could not be read");
    for text in ["no JSON", "{}", r#"{"op": 99, "d": null}"#, r#"{"op": 0, "s": null, "t": null, "d": null}"#] {
        room.discord.say_on_gateway(text).await;
        room.hears().await;
    }
    assert_eq!(room.discord.gateway().await.connections, before.connections, "and it costs no connection");
    bot.end().await.unwrap();
}
