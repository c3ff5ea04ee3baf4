//! Money in the channel: what a start costs, the meter on the panel, the bill, and budgets. A host of these stories
//! costs 0.01 $ for every hour that was begun.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Discord, User};
use insta::assert_snapshot;
use regex::Regex;
use serde_json::json;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::model::bill::Spending;
use spawnpoint::model::job::Step;

struct Room {
    discord: Discord,
    home: Home,
    alice: User,
    bob: User,
    carol: User,
}

/// A guild with alice, who administers it, bob, who plays, and carol, who has just come by.
async fn room(spending: Spending) -> Option<Room> {
    let discord = Discord::start(json!({
        "channels": ["general", "games"],
        "roles": [{"name": "players"}],
        "users": [
            {"name": "alice", "permissions": ["manage_guild"]},
            {"name": "bob", "roles": ["players"]},
            {"name": "carol"},
        ],
    }))
    .await?;
    let (alice, bob, carol) = (discord.user("alice"), discord.user("bob"), discord.user("carol"));
    let mut home = Home::new();
    home.spending = spending;
    home.outside.get().hosts_have_age = true;
    Some(Room { discord, home, alice, bob, carol })
}

/// Times and months differ from run to run.
fn steady(text: &str) -> String {
    let times = Regex::new(r"under 1 s|\b\d+ (s|min)\b").unwrap();
    let month = Regex::new(r"[A-Z][a-z]+ 20\d\d").unwrap();
    let whole_month = Regex::new(r"always on: \d+\.\d\d").unwrap();
    let text = month.replace_all(text, "<month>");
    let text = whole_month.replace_all(&text, "always on: <amount>");
    let text = times.replace_all(&text, "<time>");
    text.replace("<time> <time>", "<time>").replace('\u{200b}', "")
}

impl Room {
    async fn ask(&self, who: &User, channel: &str, line: &str) -> String {
        let answer = self.discord.slash(who, channel, line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        assert!(answer.ephemeral, "{line}: everybody saw {:?}", answer.text);
        steady(&common::discord::redact(&answer.text.expect("an answer")))
    }

    /// The panel of `world`, once it shows this.
    async fn panel(&self, pattern: &str) -> String {
        self.discord.wait_for("games", pattern).await;
        steady(&common::discord::redact(&self.discord.channel_text("games").await))
    }

    async fn with_world(&self) {
        self.ask(&self.alice, "games", "/server create name:world game:toy backend:cloud").await;
        self.discord.wait_for("games", "world.*offline").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_its_price_the_panel_runs_a_meter_and_cost_shows_the_bill() {
    let Some(room) = room(Spending { guild: vec!["10 USD".parse().unwrap()], ..Spending::default() }).await else {
        return;
    };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    story += &format!("\n--- panel\n{}\n--- bill\n", room.panel("billing: ON").await);
    story += &room.ask(&room.carol, "general", "/cost").await;
    room.ask(&room.bob, "general", "/server stop server:world").await;
    story += &format!("\n--- panel\n{}\n--- bill\n", room.panel("billing: off").await);
    for line in [
        "/cost server:world month:2019-01",
        "/cost server:nothing",
        "/cost month:november",
        "/cost user:carol",
        "/server list",
    ] {
        story += &(room.ask(&room.carol, "general", line).await + "\n");
    }
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_exists_is_never_called_offline() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.panel("running").await;
    // Its world cannot be read, and somebody closes the stop as it is: the host is still there.
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    room.ask(&room.bob, "general", "/server stop server:world").await;
    let mut story = room.panel("waits for a person").await;
    story += "\n---\n";
    story += &room.ask(&room.alice, "general", "/server cancel server:world").await;
    story += &format!("\n---\n{}\n---\n", room.panel("not running, but its host still bills").await);
    story += &room.ask(&room.carol, "general", "/server list").await;
    // It can be stopped like any other.
    story += &format!("\n{}", room.ask(&room.bob, "general", "/server stop server:world").await);
    room.panel("offline").await;
    assert!(room.home.outside.get().hosts.is_empty());
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_spent_the_budget_starts_nothing_until_an_admin_raises_it() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.alice, "general", "/admin grant permission:operate user:bob").await;
    let mut story = String::new();
    for (who, line) in [
        (&room.bob, "/server settings server:world variable:budget value:\"0 USD\""),
        (&room.alice, "/server settings server:world variable:budget value:lots"),
        (&room.alice, "/server settings server:world variable:budget value:\"0.005 USD\""),
        (&room.alice, "/server settings server:world variable:budget value:\"5 EUR\""),
        (&room.bob, "/server start server:world"),
        (&room.alice, "/server settings server:world variable:budget value:\"0 USD\""),
        (&room.bob, "/server start server:world"),
        (&room.alice, "/server settings server:world variable:stop_at_billing_unit value:perhaps"),
        (&room.alice, "/server settings server:world variable:budget value:\"0.01 USD\""),
        (&room.bob, "/server start server:world"),
    ] {
        story += &(room.ask(who, "general", line).await + "\n");
    }
    room.discord.wait_for("general", "is up").await;
    // One hour is what the budget has, and that is begun: the channel hears of it.
    room.discord.wait_for("general", "is spent: 0.01").await;
    room.ask(&room.bob, "general", "/server stop server:world").await;
    room.panel("billing: off").await;
    story += &room.ask(&room.bob, "general", "/server start server:world").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}
