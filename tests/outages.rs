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
use std::time::Duration;

struct Room {
    discord: Discord,
    home: Home,
    bob: User,
}

async fn room() -> Option<(Room, Bot)> {
    let discord = Discord::start(json!({
        "channels": ["general"],
        "roles": [{"name": "players"}],
        "users": [{"name": "alice", "permissions": ["manage_guild"]}, {"name": "bob", "roles": ["players"]}],
    }))
    .await?;
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));
    let room = Room { discord, home: Home::new(), bob };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.slash(&alice, "general", "/server create name:world game:toy").await;
    room.discord.wait_for("general", "world.*offline").await;
    Some((room, bot))
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
