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
use spawnpoint::model::bill::{STOP_AHEAD_MS, Spending};
use spawnpoint::model::cost::{Other, Price, Quote};
use spawnpoint::model::job::Step;
use spawnpoint::model::{HOUR_MS, ServerId};

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

    async fn press(&self, who: &User, button: &str) -> String {
        let answer = self.discord.click(who, "general", button).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        steady(&common::discord::redact(&answer.text.unwrap_or_default()))
    }

    /// The panel of `world`, once it shows this.
    async fn panel(&self, pattern: &str) -> String {
        self.discord.wait_for("games", pattern).await;
        steady(&common::discord::redact(&self.discord.channel_text("games").await))
    }

    /// Hosts whose paid unit has a stop's time and these seconds, so that what happens at its end happens soon.
    fn units_of(&self, seconds: i64) {
        let price =
            Price { hourly: 120_000, monthly: None, currency: "USD".into(), unit_ms: STOP_AHEAD_MS + seconds * 1000 };
        self.home.outside.get().price = Some(price);
    }

    fn only_host(&self) -> ServerId {
        let things = self.home.outside.get();
        things.hosts.values().next().expect("a host").server.clone()
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
    story += &format!("\n--- panel\n{}\n--- bill\n", room.panel("running.*billing: ON").await);
    story += &room.ask(&room.carol, "general", "/cost").await;
    room.ask(&room.bob, "general", "/server stop server:world").await;
    story += &format!("\n--- panel\n{}\n--- bill\n", room.panel("offline.*billing: off").await);
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
    room.panel("offline.*billing: off").await;
    story += &room.ask(&room.bob, "general", "/server start server:world").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_warns_and_then_stops_with_the_world_kept() {
    // The first unit costs 0.0107 $, more than half of it.
    let spending = Spending { warn_percent: 50, guild: vec!["0.02 USD".parse().unwrap()], ..Spending::default() };
    let Some(room) = room(spending).await else { return };
    room.units_of(20);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    room.home.outside.play(&room.only_host());
    room.discord.wait_for("general", r"This guild's budget for .* is 53 % spent: 0\.011 \$ of 0\.02 \$").await;
    room.discord.wait_for("general", r"`world` is stopped\*\*, its world is kept.*budget").await;
    assert_eq!(room.home.outside.get().backups.len(), 1, "its world is saved");
    assert!(room.home.outside.get().hosts.is_empty());
    // What is left is less than another unit costs.
    let story = room.ask(&room.bob, "general", "/server start server:world").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_it_uses_up_the_time_that_is_paid_for() {
    let Some(mut room) = room(Spending::default()).await else { return };
    room.home.lease_ms = 1000;
    room.units_of(15);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let line = "/server settings server:world variable:stop_at_billing_unit value:true";
    room.ask(&room.alice, "general", line).await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    // Its time is over, and it runs on until just before the unit ends.
    let panel = room.panel("until then it is paid for").await;
    assert_snapshot!(panel);
    room.discord.wait_for("general", r"`world` is stopped\*\*, its world is kept").await;
    room.panel("offline.*billing: off").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_starts_that_a_budget_has_room_for_one_of_are_not_both_begun() {
    let Some(room) = room(Spending { guild: vec!["0.01 USD".parse().unwrap()], ..Spending::default() }).await else {
        return;
    };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.alice, "games", "/server create name:cave game:toy backend:cloud").await;
    room.home.outside.fault(Way::Run, Step::CreateHost, Kind::Hang, 1);
    let mut story = room.ask(&room.bob, "general", "/server start server:world").await;
    story += &format!("\n{}\n", room.ask(&room.bob, "general", "/server start server:cave").await);
    // What is called off costs nothing.
    room.ask(&room.bob, "general", "/server cancel server:world").await;
    room.discord.wait_for("general", "was called off").await;
    story += &room.ask(&room.bob, "general", "/server start server:cave").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_cannot_be_had_is_said_and_where_there_is_a_budget_nothing_starts() {
    let Some(room) = room(Spending { guild: vec!["1 USD".parse().unwrap()], ..Spending::default() }).await else {
        return;
    };
    room.home.outside.get().no_quote = Some("There is no size `huge`.".into());
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = format!("{}\n", room.ask(&room.carol, "general", "/server status server:world").await);
    story += &room.ask(&room.bob, "general", "/server start server:world").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_costs_more_than_people_know_asks_which_host_it_shall_be() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    let (alice, bob) = (&room.alice, &room.bob);
    let said = room.ask(alice, "games", "/server create name:world game:toy backend:cloud").await;
    let mut story = format!("{said}\n---\n");
    room.discord.wait_for("games", "world.*offline").await;
    let price = |hourly| Price { hourly, monthly: None, currency: "USD".into(), unit_ms: HOUR_MS };
    let quote = |provider: &str, region: &str, size: &str, hourly| Quote {
        provider: provider.into(),
        region: region.into(),
        size: size.into(),
        cpus: None,
        memory_mb: None,
        price: Some(price(hourly)),
    };
    {
        let mut things = room.home.outside.get();
        things.price = Some(price(30_000));
        let (big, other) = (quote("fake", "there", "big", 20_000), quote("another", "near", "tiny", 5_000));
        things.others =
            vec![Other { quote: big, named: true, usual: false }, Other { quote: other, named: true, usual: false }];
    }
    room.ask(bob, "general", "/server start server:world").await;
    let question = room.discord.channel_text_for(bob, "general").await;
    story += &format!("{}\n---\n", steady(&common::discord::redact(&question)));
    story += &format!("{}\n", room.press(bob, "Leave it").await);
    room.ask(bob, "general", "/server start server:world").await;
    story += &format!("{}\n", room.press(bob, "big in there, 0.02 $ an hour").await);
    assert_eq!(room.home.outside.get().hosts.len(), 0, "nothing is rented before somebody said yes");
    room.home.outside.get().refused = true;
    story += &format!("{}\n", room.ask(bob, "general", "/server start server:world").await);
    room.home.outside.get().refused = false;
    room.ask(bob, "general", "/server start server:world").await;
    story += &format!("{}\n", room.press(bob, "small in here, 0.03 $ an hour").await);
    room.discord.wait_for("general", "is up").await;
    // The usual one's new price is known from then on.
    room.ask(bob, "general", "/server stop server:world").await;
    room.panel("offline.*billing: off").await;
    story += &room.ask(bob, "general", "/server start server:world").await;
    story += &format!("\n---\n{}", room.ask(alice, "general", "/admin audit server:world").await);
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_your_own_costs_nothing_and_no_budget_stops_it() {
    let Some(room) = room(Spending { guild: vec!["0 USD".parse().unwrap()], ..Spending::default() }).await else {
        return;
    };
    room.home.outside.get().own_machines = true;
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    story += &format!("\n{}\n", room.panel("running").await);
    story += &room.ask(&room.carol, "general", "/cost").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_time_says_what_it_costs() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.alice, "games", "/server create name:cave game:toy backend:docker").await;
    let mut story = String::new();
    for server in ["world", "cave"] {
        room.ask(&room.bob, "general", &format!("/server start server:{server}")).await;
        room.discord.wait_for("general", &format!("`{server}` is up")).await;
        story += &(room.ask(&room.bob, "general", &format!("/server extend server:{server} duration:2h")).await + "\n");
    }
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

/// An admin goes on without seeing the host go: the bill does not end with that.
async fn leave_the_host(room: &Room, line: &str, button: &str, done: &str) {
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    room.home.outside.fault(Way::Run, Step::DestroyHost, Kind::Before, 1);
    room.ask(&room.alice, "general", line).await;
    room.press(&room.alice, button).await;
    room.discord.wait_for("general", "waits for a person").await;
    for failed in ["Destroying the host", "Waiting until the host is gone"] {
        room.discord.wait_for("general", &format!(r"{failed}\*\* \(failed\)")).await;
        room.press(&room.alice, "Go on without it").await;
        room.press(&room.alice, "Go on without it").await;
    }
    room.discord.wait_for("general", done).await;
    assert_eq!(room.home.outside.get().hosts.len(), 1, "it is still there");
}

async fn delete_and_leave_the_host(room: &Room) {
    leave_the_host(room, "/server delete server:world", "Delete it", "is deleted").await;
}

async fn move_and_leave_the_host(room: &Room) {
    let done = "runs in a container on this machine from now on";
    leave_the_host(room, "/server move server:world backend:docker", "Move it", done).await;
}

fn without_ids(story: &str) -> String {
    Regex::new("host-[a-z0-9]{10}-").unwrap().replace_all(story, "host-<id>-").into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_a_deleted_server_is_on_the_bill_until_it_is_deleted() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    delete_and_leave_the_host(&room).await;
    let mut story = format!("{}\n", room.ask(&room.carol, "general", "/cost").await);
    story += &(room.ask(&room.alice, "general", "/admin orphans").await + "\n");
    room.press(&room.alice, "Delete 1").await;
    story += &(room.press(&room.alice, "Delete it").await + "\n");
    story += &room.ask(&room.carol, "general", "/cost").await;
    bot.end().await.unwrap();
    assert_snapshot!(without_ids(&story));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_of_a_deleted_server_is_on_the_bill_until_somebody_ended_it_by_hand() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    delete_and_leave_the_host(&room).await;
    assert_snapshot!(ended_by_hand(&room).await);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_a_moved_server_left_is_on_the_bill_until_somebody_ended_it_by_hand() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    move_and_leave_the_host(&room).await;
    assert_snapshot!(ended_by_hand(&room).await);
    bot.end().await.unwrap();
}

/// Somebody ended it at the provider's site; the next sweep sees it.
async fn ended_by_hand(room: &Room) -> String {
    let mut story = format!("{}\n", room.ask(&room.carol, "general", "/cost").await);
    room.home.outside.get().hosts.clear();
    story += &(room.ask(&room.alice, "general", "/admin orphans").await + "\n");
    story += &room.ask(&room.carol, "general", "/cost").await;
    without_ids(&story)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_moves_back_has_the_host_again_that_it_left_and_pays_once() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    move_and_leave_the_host(&room).await;
    let mut story = format!("{}\n", room.ask(&room.alice, "general", "/admin orphans").await);
    room.ask(&room.alice, "games", "/server move server:world backend:cloud").await;
    room.discord.click(&room.alice, "games", "Move it").await;
    room.discord.wait_for("games", "runs on a rented host from now on").await;
    room.ask(&room.bob, "games", "/server start server:world").await;
    room.discord.wait_for("games", "is up").await;
    story += &(room.ask(&room.carol, "general", "/cost").await + "\n");
    room.ask(&room.bob, "games", "/server stop server:world").await;
    room.discord.wait_for("games", "is stopped").await;
    story += &room.ask(&room.carol, "general", "/cost").await;
    bot.end().await.unwrap();
    assert_snapshot!(without_ids(&story));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_of_a_server_whose_job_waits_is_shown_with_that_reason_and_without_buttons() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    room.ask(&room.bob, "general", "/server stop server:world").await;
    room.discord.wait_for("general", "waits for a person").await;
    let server = room.only_host();
    room.home.outside.plant_host("second", &server, bot.app.now() - HOUR_MS);
    let story = room.ask(&room.alice, "general", "/admin orphans").await;
    assert_snapshot!(story);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_an_unchanged_budget_is_for_everybody_who_may_change_the_rest() {
    let Some(room) = room(Spending::default()).await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.alice, "general", "/admin grant permission:operate user:bob").await;
    room.ask(&room.alice, "general", "/server settings server:world variable:budget value:\"5 EUR\"").await;
    let mut story = room.ask(&room.bob, "general", "/server settings server:world").await;
    for typed in [("Memory (MB)", "2048"), ("Budget for a month", "500 EUR"), ("Budget for a month", "")] {
        let form = room.discord.click(&room.bob, "general", "1–5").await;
        let answer = room.discord.modal(&form, &[typed]).await;
        story += &format!("\n{typed:?}: {}", steady(&answer.text.expect("an answer")));
    }
    assert_snapshot!(story);
    bot.end().await.unwrap();
}
