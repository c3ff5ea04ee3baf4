//! What people may do with each other's servers, and hostile names: conversations about permissions, names and
//! limits.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Discord, Fault, User};
use serde_json::json;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::model::job::Step;

struct Room {
    discord: Discord,
    home: Home,
    alice: User,
    bob: User,
    carol: User,
}

async fn room() -> Option<(Room, Bot)> {
    let discord = Discord::start(json!({
        "channels": ["general"],
        "roles": [{"name": "players"}, {"name": "crew"}],
        "users": [
            {"name": "alice", "permissions": ["manage_guild"]},
            {"name": "bob", "roles": ["players"]},
            {"name": "carol", "roles": ["crew"]},
        ],
    }))
    .await?;
    let (alice, bob, carol) = (discord.user("alice"), discord.user("bob"), discord.user("carol"));
    let room = Room { discord, home: Home::new(), alice, bob, carol };
    let bot = Bot::start(&room.discord, &room.home).await;
    for name in ["world", "other"] {
        room.ask(&room.alice, &format!("/server create name:{name} game:toy")).await;
        room.discord.wait_for("general", &format!("`{name}`.*offline")).await;
    }
    Some((room, bot))
}

impl Room {
    async fn ask(&self, who: &User, line: &str) -> String {
        let answer = self.discord.slash(who, "general", line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        answer.text.unwrap_or_else(|| panic!("{line}: no answer"))
    }

    async fn up(&self, name: &str) {
        self.ask(&self.bob, &format!("/server start server:{name}")).await;
        self.discord.wait_for("general", &format!("`{name}` is up")).await;
        self.discord.wait_for("general", &format!("(?s)`{name}`.*running")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_for_one_server_is_for_that_server_and_can_be_taken_back() {
    let Some((room, bot)) = room().await else { return };
    let refused = room.ask(&room.carol, "/server start server:world").await;
    assert!(refused.contains("needs the permission “play”"), "{refused}");
    let granted = room.ask(&room.alice, "/admin grant permission:play role:crew server:world").await;
    assert!(granted.contains("Granted “play”"), "{granted}");
    let started = room.ask(&room.carol, "/server start server:world").await;
    assert!(started.contains("Starting `world`"), "{started}");
    room.discord.wait_for("general", "`world` is up").await;
    let other = room.ask(&room.carol, "/server start server:other").await;
    assert!(other.contains("needs the permission “play”"), "{other}");
    let taken = room.ask(&room.alice, "/admin revoke role:crew server:world").await;
    assert!(taken.contains("One grant was taken back"), "{taken}");
    let again = room.ask(&room.carol, "/server stop server:world").await;
    assert!(again.contains("needs the permission “play”"), "{again}");
    let audit = room.ask(&room.alice, "/admin audit").await;
    for word in ["grant", "revoke", "start", "carol", "alice"] {
        assert!(audit.contains(word), "{word} is not in {audit}");
    }
    let hidden = room.discord.try_slash(&room.bob, "general", "/admin audit").await;
    assert!(hidden.is_err(), "who may not administer does not see the command");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_granted_to_everyone_is_everyones() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/admin grant permission:play role:@everyone server:world").await;
    let started = room.ask(&room.carol, "/server start server:world").await;
    assert!(started.contains("Starting `world`"), "{started}");
    let other = room.ask(&room.carol, "/server start server:other").await;
    assert!(other.contains("needs the permission “play”"), "{other}");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guild_that_is_not_served_has_no_commands_and_its_buttons_do_nothing() {
    let Some((mut room, bot)) = room().await else { return };
    bot.end().await.unwrap();
    room.home.guilds = vec!["1".to_owned()];
    // For a while Discord does not take them away, and people still type them.
    let (commands, failure) = ("/applications/*/guilds/*/commands", Fault::Error { status: 500, code: 0 });
    room.discord.fault("PUT", commands, 2, failure).await;
    let bot = Bot::start(&room.discord, &room.home).await;
    let refused = "does not serve this Discord server";
    let typed = room.ask(&room.alice, "/server start server:world").await;
    assert!(typed.contains(refused), "{typed}");
    let offered = room.discord.autocomplete(&room.alice, "general", "/server start server:wor").await;
    assert_eq!(offered, Vec::<String>::new(), "what is in there is told to nobody");
    let pressed = room.discord.click(&room.alice, "general", "Start").await.text.unwrap();
    assert!(pressed.contains(refused), "{pressed}");
    let put = room.discord.wait_requests("PUT", commands, 4).await;
    assert_eq!(put.last().unwrap().body, json!([]), "the commands of an earlier time are taken away");
    assert!(bot.store.open_jobs_all().await.unwrap().is_empty());
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_sent_away_and_invited_again_while_it_was_off_has_its_commands() {
    let Some((room, bot)) = room().await else { return };
    bot.end().await.unwrap();
    room.discord.forget_commands().await;
    let bot = Bot::start(&room.discord, &room.home).await;
    let list = room.ask(&room.bob, "/server list").await;
    assert_eq!(list.matches("offline").count(), 2, "{list}");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_none_are_refused_with_a_sentence_and_make_nothing() {
    let Some((room, bot)) = room().await else { return };
    for name in ["Big", "a_b", "../etc", "it's", "ünïcode", "@everyone", "a--b", "-x", "x`y"] {
        let refused = room.ask(&room.alice, &format!("/server create name:{name} game:toy")).await;
        assert!(refused.contains("name is made of lower case letters"), "{name}: {refused}");
    }
    let taken = room.ask(&room.alice, "/server create name:world game:toy").await;
    assert!(taken.contains("already a server called `world`"), "{taken}");
    let unknown = room.ask(&room.bob, "/server start server:wrold").await;
    assert!(unknown.contains("no server called `wrold`") && unknown.contains("`world`"), "{unknown}");
    let game = room.ask(&room.alice, "/server create name:x game:tetris").await;
    assert!(game.contains("no recipe for that game") && game.contains("`toy`"), "{game}");
    let list = room.ask(&room.bob, "/server list").await;
    assert_eq!(list.matches("offline").count(), 2, "{list}");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_with_a_set_is_offered_while_typing() {
    let Some((room, bot)) = room().await else { return };
    let offered = async |line: &str| room.discord.autocomplete(&room.alice, "general", line).await;
    assert_eq!(offered("/server start server:wo").await.len(), 1);
    assert_eq!(offered("/server start server:").await.len(), 2);
    assert_eq!(offered("/server create name:x game:t").await.len(), 1);
    assert!(!offered("/admin grant permission:").await.is_empty());
    room.up("world").await;
    room.ask(&room.bob, "/backup create server:world").await;
    room.discord.wait_for("general", "(?i)backup.*(done|kept|is backed up)").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_extended_by_command_and_by_button() {
    let Some((room, bot)) = room().await else { return };
    let early = room.ask(&room.bob, "/server extend server:world duration:2h").await;
    assert!(early.contains("is not running"), "{early}");
    room.up("world").await;
    let odd = room.ask(&room.bob, "/server extend server:world duration:soon").await;
    assert!(odd.contains("Write for instance"), "{odd}");
    let before = bot.store.servers_everywhere().await.unwrap().iter().find_map(|server| server.lease_until).unwrap();
    let longer = room.ask(&room.bob, "/server extend server:world duration:2h").await;
    assert!(longer.contains("<t:"), "{longer}");
    let world = bot.store.servers_everywhere().await.unwrap().into_iter().find(|one| one.name.as_str() == "world");
    let panel = room.discord.wait_for("general", r"(?s)^Spawnpoint.*`world`.*running.*\[Extend\]").await;
    let button = format!("v1:extend:{}", world.unwrap().id);
    room.discord.click_on(&room.bob, "general", &panel.id, &button).await.unwrap();
    let after = bot.store.servers_everywhere().await.unwrap().iter().find_map(|server| server.lease_until).unwrap();
    assert_eq!(after - before, 3 * 60 * 60 * 1000, "two hours by command, one by button");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_time_limit_gets_none_while_it_is_backed_up() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server settings server:world variable:lease_minutes value:0").await;
    room.up("world").await;
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Hang, 1);
    room.ask(&room.bob, "/backup create server:world").await;
    room.discord.wait_for("general", "Copying the world\\*\\* \\(now").await;
    let refused = room.ask(&room.bob, "/server extend server:world duration:1h").await;
    assert!(refused.contains("without a time limit"), "{refused}");
    assert!(bot.store.servers_everywhere().await.unwrap().iter().all(|server| server.lease_until.is_none()));
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_host_is_started_and_not_restarted() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server create name:moon game:toy backend:cloud").await;
    let refused = room.ask(&room.bob, "/server restart server:moon").await;
    assert!(refused.contains("has no host. `/server start` starts it"), "{refused}");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_is_killed_only_after_a_question_to_whoever_asked() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let asked = room.ask(&room.alice, "/server kill server:world").await;
    assert!(asked.contains('?'), "{asked}");
    room.discord.wait_for("general", "(?s)`world`.*running").await;
    let refused = room.ask(&room.bob, "/server kill server:world").await;
    assert!(refused.contains('?') || refused.contains("permission"), "{refused}");
    bot.end().await.unwrap();
}
