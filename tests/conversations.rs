//! Conversations with the whole bot through a Discord that is not Discord's: what people type, and what the channel
//! shows then.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Discord, Fault, User};
use insta::assert_snapshot;
use regex::Regex;
use serde_json::json;
use spawnpoint::discord::Exit;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::model::job::Step;
use spawnpoint::model::{MINUTE_MS, ServerId};

struct Room {
    discord: Discord,
    home: Home,
    alice: User,
    bob: User,
    carol: User,
}

/// A guild with alice, who administers it, bob, who plays, and carol, who has just come by.
async fn room() -> Option<Room> {
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
    Some(Room { discord, home: Home::new(), alice, bob, carol })
}

/// Times differ from run to run.
fn steady(text: &str) -> String {
    let times = Regex::new(r"under 1 s|\b\d+ s\b|\b\d+ min\b").unwrap();
    let usual = Regex::new(r", usually <time>").unwrap();
    let text = times.replace_all(text, "<time>");
    let text = usual.replace_all(&text, "");
    text.replace("under <time>", "<time>").replace("<time> <time>", "<time>").replace('\u{200b}', "")
}

impl Room {
    async fn channel(&self, channel: &str) -> String {
        steady(&self.discord.channel_text(channel).await)
    }

    /// What somebody alone reads after a command.
    async fn ask(&self, who: &User, channel: &str, line: &str) -> String {
        let answer = self.discord.slash(who, channel, line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        assert!(answer.ephemeral, "{line}: everybody saw {:?}", answer.text);
        steady(&common::discord::redact(&answer.text.expect("an answer")))
    }

    /// A server called `world`, made by alice, with its panel in another channel.
    async fn with_world(&self) {
        self.ask(&self.alice, "games", "/server create name:world game:toy").await;
        self.discord.wait_for("games", "world.*offline").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_starts_a_server_and_the_channel_watches() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = String::new();
    story += &room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    room.discord.wait_for("games", "world.*running").await;
    story += &format!("\n--- general\n{}\n--- games\n{}", room.channel("general").await, room.channel("games").await);
    assert_snapshot!(story, @r"
    bob used /server start
    Spawnpoint (only bob sees this):
      Starting `world` (job 1). Watch #general.
    --- general
    Spawnpoint:
      **`world` is up.** Join at `127.0.0.1:3979`
      -# Job 1 · toy · asked by bob · took <time>
      ✓ Building the container image (done in <time>)
      ✓ Making room for the snapshot (done in <time>)
      ✓ Installing the game (done in <time>)
      ✓ Sealing the snapshot (done in <time>)
      ✓ Finding the snapshot (done in <time>)
      ✓ Cloning the drive (done in <time>)
      ✓ Putting the world in place (done in <time>)
      ✓ Creating the container (done in <time>)
      ✓ Starting the game (done in <time>)
      ✓ Waiting until people can join (done in <time>)
      It runs until <t:…>; `/server extend` lengthens that.
    --- games
    Spawnpoint:
      **`world`** · Toy · running
      Join at `127.0.0.1:3979`
      Who is on is unknown
      Runs until <t:…> (<t:…>)
      Stands on `toy-1`
      -# Looked at <t:…>
      [Start (disabled)] [Stop] [Restart] [Extend] [Console]
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_who_may() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = String::new();
    for (who, line) in [
        (&room.carol, "/server start server:world"),
        (&room.carol, "/server list"),
        (&room.bob, "/console server:world command:help"),
        (&room.bob, "/server create name:mine game:toy"),
        (&room.alice, "/admin grant permission:operate user:carol server:world"),
        (&room.carol, "/console server:world command:help"),
        (&room.alice, "/admin audit"),
    ] {
        story += &format!("{}: {line}\n{}\n", who.name, room.ask(who, "general", line).await);
    }
    assert_snapshot!(story, @r"
    carol: /server start server:world
    carol used /server start
    Spawnpoint (only carol sees this):
      That needs the permission “play”: a role named “players” has it, and an admin can grant it with `/admin grant`.
    carol: /server list
    carol used /server list
    Spawnpoint (only carol sees this):
      **Servers**
      `world` · Toy · offline
    bob: /console server:world command:help
    bob used /console
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    bob: /server create name:mine game:toy
    bob used /server create
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    alice: /admin grant permission:operate user:carol server:world
    alice used /admin grant
    Spawnpoint (only alice sees this):
      Granted “operate” for `world`: use the console, read logs, change settings, create, restore, update and move servers.
    carol: /console server:world command:help
    carol used /console
    Spawnpoint (only carol sees this):
      `world` is not running.
    alice: /admin audit
    alice used /admin audit
    Spawnpoint (only alice sees this):
      **Grants**
      @carol · operate · `world`
      **Audit log**, newest first
      <t:…> · carol · console `world` (help) · refused: \`world\` is not running.
      <t:…> · alice · grant `world` (operate to user <id>) · done
      <t:…> · bob · create `mine` (toy) · refused: That needs the permission “operate”. An admin can grant it with \`/admin grant\`.
      <t:…> · bob · console `world` (help) · refused: That needs the permission “operate”. An admin can grant it with \`/admin grant\`.
      <t:…> · carol · start `world` · refused: That needs the permission “play”: a role named “players” has it, and an admin can grant it with \`/admin grant\`.
      <t:…> · alice · create `world` (toy) · done
    ");
    assert_eq!(room.channel("general").await, "", "nothing was said to everybody");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_server_says_who_is_at_it() {
    let Some(room) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    let mut story = room.ask(&room.alice, "general", "/server stop server:world").await;
    // The button on the message does what the command does, and only for who may.
    let denied = room.discord.click(&room.carol, "general", "Cancel").await;
    story += &format!("\n{}", steady(&denied.text.unwrap()));
    let answer = room.discord.click(&room.bob, "general", "Cancel").await;
    story += &format!("\n{}", steady(&answer.text.unwrap()));
    room.discord.wait_for("general", "was called off").await;
    story += &format!("\n--- general\n{}", room.channel("general").await);
    assert_snapshot!(story, @r"
    alice used /server stop
    Spawnpoint (only alice sees this):
      `world` is busy: bob asked for “start” <time> ago (job 1). Wait for it, or call it off with `/server cancel`.
    Spawnpoint (only carol sees this):
      That needs the permission “play”: a role named “players” has it, and an admin can grant it with `/admin grant`.
    Spawnpoint (only bob sees this):
      Calling off the start (job 1). What it made is undone.
    --- general
    Spawnpoint:
      **Starting `world` was called off**
      -# Job 1 · toy · asked by bob · took <time>
      ↩ Building the container image (undone)
      ↩ Making room for the snapshot (undone)
      ↩ Installing the game (undone)
      ↩ Sealing the snapshot (undone)
      ↩ Finding the snapshot (undone)
      ↩ Cloning the drive (undone)
      ↩ Putting the world in place (undone)
      ↩ Creating the container (undone)
      ↩ Starting the game (undone): Called off.
      ◦ Waiting until people can join
      What was made was undone.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_fails_is_shown_with_its_last_words() {
    let Some(room) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Before, 1);
    room.home.outside.get().says = vec!["cannot bind @everyone ```".into()];
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "Starting `world` failed\\*\\*").await;
    assert_snapshot!(room.channel("general").await, @r"
    Spawnpoint:
      **Starting `world` failed**
      -# Job 1 · toy · asked by bob · took <time>
      ↩ Building the container image (undone)
      ↩ Making room for the snapshot (undone)
      ↩ Installing the game (undone)
      ↩ Sealing the snapshot (undone)
      ↩ Finding the snapshot (undone)
      ↩ Cloning the drive (undone)
      ↩ Putting the world in place (undone)
      ↩ Creating the container (undone)
      ↩ Starting the game (undone): It broke before it began.
      ◦ Waiting until people can join
      ```
      cannot bind @everyone ```
      cannot bind @everyone ```
      ```
      What was made was undone; its world is safe.
    ");
    let pings: Vec<String> = room.discord.messages("general").await.into_iter().flat_map(|one| one.pings).collect();
    assert!(pings.is_empty(), "{pings:?}");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_was_restarted_in_the_middle_goes_on_with_the_same_message() {
    let Some(room) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    let before = room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    let after = room.discord.wait_for("general", "is up").await;
    assert_eq!(before.id, after.id);
    assert_eq!(room.discord.messages("general").await.len(), 1);
    // The panel's buttons outlive the bot that made them.
    room.discord.wait_for("games", "world.*running").await;
    let stopped = room.discord.click(&room.bob, "games", "Stop").await;
    assert_snapshot!(steady(&common::discord::redact(&stopped.text.unwrap())), @r"
    Spawnpoint (only bob sees this):
      Stopping `world` (job 2). Watch #games.
    ");
    room.discord.wait_for("games", "is stopped").await;
    assert_eq!(room.discord.requests("PUT", "/applications/*/guilds/*/commands").await.len(), 1, "registered once");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_message_is_posted_anew_once() {
    let Some(room) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 2);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    let first = room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    room.discord.delete_message("general", &first.id).await;
    let second = room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    assert_ne!(first.id, second.id);
    room.discord.delete_message("general", &second.id).await;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !bot.app.telling().jobs_to_tell().await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "a job whose message was deleted twice is still told of");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // The bot's next life does not begin again with it.
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    room.ask(&room.bob, "games", "/server cancel server:world").await;
    room.discord.wait_for("games", "world.*offline").await;
    assert!(room.discord.messages("general").await.is_empty(), "twice deleted is not wanted");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_where_the_bot_may_not_write_is_named_before_anything_is_done() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.discord.deny_bot("general", &["send_messages"]).await;
    let answer = room.ask(&room.bob, "general", "/server start server:world").await;
    assert_snapshot!(answer, @r"
    bob used /server start
    Spawnpoint (only bob sees this):
      I could not tell you here how it goes: in #general I lack the permission “Send Messages”. Nothing was done. Give it to my role in the channel's settings, or ask in another channel.
    ");
    assert!(room.ask(&room.bob, "games", "/server list").await.contains("offline"));
    // Forbidden in the middle of a job: the job goes on.
    room.discord.deny_bot("general", &[]).await;
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    room.discord.deny_bot("general", &["view_channel", "send_messages"]).await;
    room.ask(&room.bob, "games", "/server cancel server:world").await;
    room.discord.wait_for("games", "world.*offline").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_ends_the_bot_with_a_clear_word_and_without_identifying() {
    let Some(room) = room().await else { return };
    let bot = Bot::start_with(&room.discord, &room.home, "MTIz.wrong.token").await;
    let exit = bot.gave_up().await.unwrap_err();
    assert!(matches!(exit, Exit::WrongToken) && exit.needs_a_person());
    assert_eq!(room.discord.gateway().await.identifies, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_ask_for_what_is_needed_and_never_for_secrets() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    let discord = &room.discord;
    let asked = discord.slash(&room.alice, "general", "/server create name:cave game:needy").await;
    let mut story = format!("{}\n", asked.modal.clone().expect("a form"));
    let made = discord.modal(&asked, &[("WORLD_NAME", "Deep, dark")]).await;
    story += &format!("{}\n", steady(&made.text.unwrap()));
    story += &room.ask(&room.alice, "general", "/server settings server:cave").await;
    let page = discord.click(&room.alice, "general", "1–5").await;
    story += &format!("\n{}\n", page.modal.clone().expect("a form"));
    let saved = discord.modal(&page, &[("SIZE", "huge")]).await;
    story += &format!("{}\n", steady(&saved.text.unwrap()));
    story += &room.ask(&room.alice, "general", "/server settings server:cave variable:PASSWORD value:thyme").await;
    for rest in ["", " value:sage reset:true", " reset:true"] {
        let asked = format!("/server settings server:cave variable:PASSWORD{rest}");
        story += &format!("\n{}", room.ask(&room.alice, "general", &asked).await);
    }
    let cave = bot.store.servers_everywhere().await.unwrap().remove(0);
    assert!(!bot.store.secrets_of(&cave.id).await.unwrap().contains_key("PASSWORD"), "it is the recipe's own again");
    assert_snapshot!(story, @r"
    form Needy Game needs to know:
      WORLD_NAME:  <What the world is called. (a text of at most 4000 characters)>
    Spawnpoint (only alice sees this):
      `cave` is made: Needy Game on docker. Start it with `/server start` or the button on its panel.
    alice used /server settings
    Spawnpoint (only alice sees this):
      **Settings of `cave`** (Needy Game)
      The buttons open forms. An emptied field goes back to its default. A secret one does with the option `reset`.
      `SIZE` SIZE: `small` (default)
      `WORLD_NAME` WORLD\_NAME: `Deep, dark`
      `memory_mb` Memory \(MB\): `64` (default)
      `cpus` Processors: `1` (default)
      `idle_minutes` Idle stop \(minutes\): not set
      `lease_minutes` Time limit \(minutes\): not set
      `pids` Processes: `2048` (default)
      `PASSWORD` PASSWORD: secret, never shown
      [1–5] [6–7]
    form Settings of cave:
      SIZE (optional):  <Default small. One of small, large. How large.>
      WORLD_NAME: Deep, dark <Any text. What the world is called.>
      Memory (MB) (optional):  <Default 64. A whole number from 16 to 1048576. How much memory the game may use.>
      Processors (optional):  <Default 1. A number from 0.05 to 256. How many processors it may use, also a half.>
      Idle stop (minutes) (optional):  <A whole number from 0 to 10080. Stops after so many minutes with nobody on; 0 never.>
    Spawnpoint (only alice sees this):
      `SIZE` is one of `small`, `large`
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `PASSWORD` of `cave`.
    alice used /server settings
    Spawnpoint (only alice sees this):
      `PASSWORD` of `cave`: secret, never shown
      What friends type. Any text.
      It is secret, so it is neither shown nor asked for in a form. Set it with `/server settings server:cave variable:PASSWORD value:…`; only you see that. With `reset:True` in place of the value it goes back to its default.
    alice used /server settings
    Spawnpoint (only alice sees this):
      Give either a `value` or `reset:True`, not both.
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `PASSWORD` of `cave`.
    ");
    assert!(!room.ask(&room.alice, "general", "/admin audit").await.contains("thyme"));
    assert_eq!(discord.autocomplete(&room.bob, "general", "/server start server:ca").await, ["cave"]);
    assert_eq!(discord.autocomplete(&room.alice, "general", "/server create game:need").await, ["Needy Game (needy)"]);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_destroys_is_asked_first() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let mut story = room.ask(&room.alice, "general", "/server delete server:world").await;
    let kept = room.discord.click(&room.alice, "general", "Leave it").await;
    story += &format!("\n{}\n", steady(&kept.text.unwrap()));
    story += &room.ask(&room.bob, "general", "/server delete server:world").await;
    let refused = room.discord.click(&room.bob, "general", "Delete it").await;
    story += &format!("\n{}\n", steady(&refused.text.unwrap()));
    story += &room.ask(&room.alice, "general", "/server delete server:world").await;
    let done = room.discord.click(&room.alice, "general", "Delete it").await;
    story += &format!("\n{}", steady(&done.text.unwrap()));
    room.discord.wait_for("general", "is deleted").await;
    room.discord.wait_for("games", "of this panel is deleted").await;
    assert_snapshot!(story, @r"
    alice used /server delete
    Spawnpoint (only alice sees this):
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then the rest of it is deleted. Its backups stay with whoever runs this bot, and no command reaches them any more.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice used /server delete
    Spawnpoint (only alice sees this):
      Nothing was done.
    bob used /server delete
    Spawnpoint (only bob sees this):
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then the rest of it is deleted. Its backups stay with whoever runs this bot, and no command reaches them any more.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    bob used /server delete
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    alice used /server delete
    Spawnpoint (only alice sees this):
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then the rest of it is deleted. Its backups stay with whoever runs this bot, and no command reaches them any more.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice used /server delete
    Spawnpoint (only alice sees this):
      Deleting `world` (job 1). Watch #general.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_cannot_save_waits_for_a_person() {
    let Some(room) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    room.ask(&room.bob, "general", "/server stop server:world").await;
    room.discord.wait_for("general", "waits for a person").await;
    let again = room.discord.click(&room.bob, "general", "Try again").await;
    assert_snapshot!(steady(&again.text.unwrap()), @r"
    Spawnpoint (only bob sees this):
      Trying “Copying the world” again (job 2).
    ");
    room.discord.wait_for("general", "is stopped").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discord_that_stumbles_still_hears_the_end_once() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.discord.fault("POST", "/channels/*/messages", 1, Fault::LostAnswer).await;
    room.discord.fault("PATCH", "/channels/*/messages/*", 2, Fault::RateLimit { retry_after_s: 1.0 }).await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    assert_eq!(room.discord.messages("general").await.len(), 1, "a lost answer doubles nothing");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_was_posted_in_the_last_moment_of_a_life_is_kept_current_in_the_next() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.fault("POST", "/channels/*/messages", 1, Fault::LostAnswer).await;
    // It stands there, and Spawnpoint ends before it has heard so.
    room.with_world().await;
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("games", "world.*running").await;
    assert_eq!(room.discord.messages("games").await.len(), 1, "and none beside it");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_of_a_deleted_server_is_taken_down_though_spawnpoint_ends_meanwhile() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    let posted = room.discord.requests("POST", "/channels/*/messages").await;
    let edits = format!("{}/*", posted[0].path);
    room.discord.fault("PATCH", &edits, 1, Fault::Hang { seconds: 60.0 }).await;
    room.ask(&room.alice, "general", "/server delete server:world").await;
    room.discord.click(&room.alice, "general", "Delete it").await;
    room.discord.wait_for("general", "is deleted").await;
    // The edit that is under way says so, unless the machine stalled and it is one of the job before.
    room.discord.wait_requests("PATCH", &edits, 1).await;
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.wait_for("games", "of this panel is deleted").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panel_that_cannot_be_posted_where_it_was_wanted_is_posted_where_somebody_asks() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    let posts = "/channels/*/messages";
    room.discord.fault("POST", posts, 2, Fault::Error { status: 500, code: 0 }).await;
    room.ask(&room.alice, "games", "/server create name:world game:toy").await;
    room.discord.wait_requests("POST", posts, 1).await;
    bot.end().await.unwrap();
    room.discord.deny_bot("games", &["send_messages"]).await;
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.wait_requests("POST", posts, 2).await;
    room.ask(&room.bob, "general", "/server status server:world").await;
    room.discord.wait_for("general", "(?s)world.*offline.*Looked at").await;
    assert_eq!(room.discord.messages("general").await.len(), 1);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_host_is_rented_is_chosen_when_a_server_is_made_and_changed_while_it_has_none() {
    let Some(room) = room().await else { return };
    room.home.outside.get().hosts_have_age = true;
    let bot = Bot::start(&room.discord, &room.home).await;
    let complete = async |line: &str| room.discord.autocomplete(&room.alice, "general", line).await;
    assert_eq!(complete("/server create backend:").await, ["cloud", "docker"]);
    assert_eq!(complete("/server create provider:").await, ["fake · from 0.01 $ an hour"]);
    assert_eq!(
        complete("/server create provider:fake region:").await,
        ["here · from 0.01 $ an hour (fake)", "there · from 0.01 $ an hour (fake)"]
    );
    let small = "small · 0.01 $ an hour, 2 GB, 1 CPU (fake)";
    assert_eq!(complete("/server create region:there size:").await, [small]);
    assert_eq!(complete("/server create provider:other size:").await, [""; 0]);
    let images = ["Debian 12 (fake, the usual one)", "Ubuntu 24.04 LTS (fake)"];
    assert_eq!(complete("/server create provider:fake image:").await, images);
    assert_eq!(complete("/server create provider:other image:").await, [""; 0]);
    let mut story = String::new();
    for line in [
        "/server create name:moon game:toy backend:cloud provider:fake region:moon",
        "/server create name:moon game:toy backend:docker region:here",
        "/server create name:moon game:toy backend:cloud region:../here",
        "/server create name:moon game:toy backend:cloud image:arch",
        "/server create name:moon game:toy backend:cloud provider:ssh image:debian-12",
        "/server create name:moon game:toy provider:fake region:here size:large image:fake/ubuntu24",
    ] {
        story += &format!("{}\n", room.ask(&room.alice, "games", line).await);
    }
    room.discord.wait_for("games", "moon.*offline").await;
    story += &format!("--- games\n{}\n", room.channel("games").await);
    assert_eq!(
        complete("/server settings server:moon variable:size value:").await,
        [small, "large · 0.01 $ an hour, 8 GB, 4 CPUs (fake)"]
    );
    assert_eq!(complete("/server settings server:moon variable:image value:").await, images);
    for line in [
        "/server settings server:moon variable:size value:small",
        "/server settings server:moon variable:region value:there",
        "/server settings server:moon variable:size value:large",
        "/server settings server:moon variable:image",
        "/server settings server:moon variable:image value:windows",
        "/server settings server:moon variable:image value:debian-12",
        "/server start server:moon",
    ] {
        story += &format!("{}\n", room.ask(&room.alice, "general", line).await);
    }
    room.discord.wait_for("general", "is up").await;
    story += &format!(
        "{}\n",
        room.ask(&room.alice, "general", "/server settings server:moon variable:region value:here").await
    );
    room.discord.wait_for("games", "moon.*running").await;
    story += &format!("--- games\n{}", room.channel("games").await);
    assert_snapshot!(story, @r"
    alice used /server create
    Spawnpoint (only alice sees this):
      There is no region `moon` to rent. There are: `here` and `there`.
    alice used /server create
    Spawnpoint (only alice sees this):
      `moon` runs in a container on this machine, so no provider, region, size or image applies to it.
    alice used /server create
    Spawnpoint (only alice sees this):
      A region is one word of letters, digits, dashes, dots and underscores, at most 64 characters long, as the provider writes it.
    alice used /server create
    Spawnpoint (only alice sees this):
      There is no image `arch` for a rented host. There are: `debian-12` and `fake/ubuntu24`. Games are prepared on Debian and Ubuntu.
    alice used /server create
    Spawnpoint (only alice sees this):
      There is no provider `ssh` to rent. There are: `fake`.
    alice used /server create
    Spawnpoint (only alice sees this):
      `moon` is made: Toy on cloud. Start it with `/server start` or the button on its panel.
      A start rents a host (fake small in here): about 0.01 $ an hour.
    --- games
    Spawnpoint:
      **`moon`** · Toy · offline
      Rented at `fake` in `here` as `large` with `fake/ubuntu24`
      A start rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h.
      -# Looked at <t:…>
      [Start] [Stop (disabled)] [Restart (disabled)] [Extend (disabled)] [Console (disabled)]
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `size` of `moon`.
      A start rents a host (fake small in here): about 0.01 $ an hour.
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `region` of `moon`.
      A start rents a host (fake small in here): about 0.01 $ an hour.
    alice used /server settings
    Spawnpoint (only alice sees this):
      There is no size `large` to rent. There are: `small`.
    alice used /server settings
    Spawnpoint (only alice sees this):
      `image` of `moon`: `fake/ubuntu24`
      The system of its host, Debian or Ubuntu; empty: the Debian that the game needs. Any text.
      Change it with `/server settings server:moon variable:image value:…`; only you see that. With `reset:True` in place of the value it goes back to its default.
    alice used /server settings
    Spawnpoint (only alice sees this):
      There is no image `windows` for a rented host. There are: `debian-12` and `fake/ubuntu24`. Games are prepared on Debian and Ubuntu.
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `image` of `moon`.
      A start rents a host (fake small in here): about 0.01 $ an hour.
    alice used /server start
    Spawnpoint (only alice sees this):
      Starting `moon` (job 1). Watch #general.
      It rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h.
    alice used /server settings
    Spawnpoint (only alice sees this):
      `moon` has a host now, and a host cannot be moved: stop it first. Its next start rents the new one.
    --- games
    Spawnpoint:
      **`moon`** · Toy · running
      Join at `127.0.0.1:3979`
      Who is on is unknown
      Runs until <t:…> (<t:…>)
      billing: ON, 0.01 $ so far (0.01 $ an hour) · 0.01 $ this month
      Rented at `fake` in `there` as `small` with `debian-12`
      -# Looked at <t:…>
      [Start (disabled)] [Stop] [Restart] [Extend] [Console]
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_moves_to_a_rented_host_and_back_with_its_world() {
    let Some(room) = room().await else { return };
    room.home.outside.get().hosts_have_age = true;
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    room.discord.wait_for("general", "is up").await;
    let id = bot.store.servers_everywhere().await.unwrap().remove(0).id;
    room.home.outside.play(&id);
    let world = room.home.outside.get().present[&id];
    let mut story = String::new();
    for (who, line) in [
        (&room.bob, "/server move server:world backend:cloud"),
        (&room.alice, "/server move server:world backend:docker"),
        (&room.alice, "/server move server:world backend:moon"),
        (&room.alice, "/server move server:world backend:cloud"),
    ] {
        story += &format!("{}\n", room.ask(who, "general", line).await);
    }
    let answer = room.discord.click(&room.alice, "general", "Move it").await;
    story += &format!("{}\n", steady(&answer.text.unwrap()));
    room.discord.wait_for("general", "runs on a rented host from now on").await;
    story += &format!("--- general\n{}\n", room.channel("general").await);
    assert!(room.home.outside.get().drives.is_empty(), "its drive is gone, its world is in the vault");
    let answer = room.discord.click(&room.bob, "general", "Start it").await;
    story += &format!("{}\n", steady(&common::discord::redact(&answer.text.unwrap())));
    room.discord.wait_for("games", "world.*running").await;
    let hosts: Vec<_> = room.home.outside.get().hosts.values().map(|host| host.world).collect();
    assert_eq!(hosts, [Some(world)]);
    story += &format!("{}\n", room.ask(&room.alice, "games", "/server move server:world backend:docker").await);
    room.discord.click(&room.alice, "games", "Move it").await;
    room.discord.wait_for("games", "runs in a container on this machine from now on").await;
    assert!(room.home.outside.get().hosts.is_empty());
    room.ask(&room.alice, "games", "/server start server:world").await;
    room.discord.wait_for("games", "world.*is up").await;
    let drives: Vec<_> = room.home.outside.get().drives.values().map(|drive| drive.world).collect();
    assert_eq!(drives, [Some(world)]);
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    assert_snapshot!(story, @r"
    bob used /server move
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    alice used /server move
    Spawnpoint (only alice sees this):
      `world` is on the docker backend already.
    alice used /server move
    Spawnpoint (only alice sees this):
      A backend is `docker` or `cloud`.
    alice used /server move
    Spawnpoint (only alice sees this):
      Move `world`, so that it runs on a rented host? It runs now, so it is stopped first. A backup of its world is made, then its drive here is deleted. It is not started again by itself. There it costs 0.01 $ for each hour that its host exists (`small`, `here`, `fake`).
      -# Only you can answer. The question ends <t:…>.
      [Move it] [Leave it]
    alice used /server move
    Spawnpoint (only alice sees this):
      Moving `world` (job 2). Watch #general.
      A start rents a host (fake small in here): about 0.01 $ an hour.
    --- general
    Spawnpoint:
      **`world` is up.** Join at `127.0.0.1:3979`
      -# Job 1 · toy · asked by bob · took <time>
      ✓ Building the container image (done in <time>)
      ✓ Making room for the snapshot (done in <time>)
      ✓ Installing the game (done in <time>)
      ✓ Sealing the snapshot (done in <time>)
      ✓ Finding the snapshot (done in <time>)
      ✓ Cloning the drive (done in <time>)
      ✓ Putting the world in place (done in <time>)
      ✓ Creating the container (done in <time>)
      ✓ Starting the game (done in <time>)
      ✓ Waiting until people can join (done in <time>)
      It runs until <t:…>; `/server extend` lengthens that.
    Spawnpoint:
      **`world` runs on a rented host from now on.**
      -# Job 2 · toy · asked by alice · took <time>
      ✓ Telling the players (done in <time>)
      ✓ Stopping the game (done in <time>)
      ✓ Copying the world (done in <time>, 1 file)
      ✓ Comparing the copy (done in <time>)
      ✓ Keeping the backup (done in <time>)
      ✓ Removing the container (done in <time>)
      ✓ Deleting the drive (done in <time>)
      It is not started by itself: the next start brings its newest world there.
      [Start it]
    Spawnpoint (only bob sees this):
      Starting `world` (job 3). Watch #general.
      It rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h.
    alice used /server move
    Spawnpoint (only alice sees this):
      Move `world`, so that it runs in a container on this machine? It runs now, so it is stopped first. A backup of its world is kept before its host goes, if it has one. It is not started again by itself. There it costs nothing but this machine's room and memory.
      -# Only you can answer. The question ends <t:…>.
      [Move it] [Leave it]
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_forgotten_is_told_and_given_back_or_deleted_by_an_admin() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.ask(&room.alice, "games", "/server create name:moon game:toy backend:cloud").await;
    room.discord.wait_for("games", "moon.*offline").await;
    let id = bot.store.servers_everywhere().await.unwrap().remove(0).id;
    let mut story = format!("{}\n", room.ask(&room.alice, "general", "/admin orphans").await);
    let made = bot.app.now() - 90 * MINUTE_MS;
    // Hours that began in the month before are on that month's bill, so in a month's first hours the sum is another.
    let sum = Regex::new(r"0\.0[012] \$ so far").unwrap();
    let month = Regex::new(r"(?m)^ *billing: off.*\n").unwrap();
    let steady = |text: &str| month.replace_all(&sum.replace_all(&steady(text), "<sum> so far"), "").into_owned();
    room.home.outside.plant_host("forgotten", &id, made);
    let world = room.home.outside.get().hosts["forgotten"].world;
    room.discord.wait_for("games", "belongs to no server").await;
    // The buttons outlive the bot that made them, and it tells nothing twice.
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    story += &format!("{}\n", steady(&room.ask(&room.alice, "general", "/admin orphans").await));
    for (who, button) in [
        (&room.bob, "Delete it"),
        (&room.bob, "Give it back"),
        (&room.alice, "Delete it"),
        (&room.alice, "Give it back"),
    ] {
        let answer = room.discord.click(who, "games", button).await;
        story +=
            &format!("{} presses {button}\n{}\n", who.name, steady(&common::discord::redact(&answer.text.unwrap())));
    }
    // Nobody wants the server on, so the world on it is saved like any other, and the host goes.
    room.discord.wait_for("games", "is stopped").await;
    room.discord.wait_for("games", "moon[^\n]*offline.*A start rents").await;
    story += &format!("--- games\n{}\n", steady(&room.channel("games").await));
    {
        let things = room.home.outside.get();
        assert!(things.hosts.is_empty(), "{:?}", things.hosts);
        assert!(things.backups.values().any(|(of, kept)| *of == id && Some(*kept) == world));
    }
    // Older than the backup by now: that is said before its world becomes the newest.
    room.home.outside.plant_host("older", &id, made);
    room.ask(&room.alice, "general", "/admin orphans").await;
    for button in ["Give back 1", "Leave it"] {
        let answer = room.discord.click(&room.alice, "general", button).await;
        story += &format!("{}\n", steady(&common::discord::redact(&answer.text.unwrap())));
    }
    assert!(room.home.outside.get().hosts.remove("older").is_some(), "nothing was done");
    room.home.outside.plant_host("strange", &ServerId("unknown".into()), made);
    story += &format!("{}\n", steady(&room.ask(&room.alice, "general", "/admin orphans").await));
    let answer = room.discord.click(&room.alice, "general", "Delete 1").await;
    story += &format!("{}\n", steady(&common::discord::redact(&answer.text.unwrap())));
    let answer = room.discord.click(&room.alice, "general", "Delete it").await;
    story += &format!("{}\n", steady(&common::discord::redact(&answer.text.unwrap())));
    assert!(room.home.outside.get().hosts.is_empty());
    room.home.outside.get().blind = true;
    story += &format!("{}\n", steady(&room.ask(&room.alice, "general", "/admin orphans").await));
    room.home.outside.get().blind = false;
    let audit = room.ask(&room.alice, "general", "/admin audit").await;
    story += &audit.lines().filter(|line| line.contains("orphan")).collect::<Vec<_>>().join("\n");
    assert_snapshot!(story, @r"
    alice used /admin orphans
    Spawnpoint (only alice sees this):
      **Nothing lies around**: everything with this Spawnpoint's label belongs to a server.
    alice used /admin orphans
    Spawnpoint (only alice sees this):
      **1 thing with this Spawnpoint's label that no server has**
      1. host (id `forgotten`) at fake · 1 h <time> old · 0.01 $ an hour, <sum> so far · made for `moon`
      [Give back 1] [Delete 1]
    bob presses Delete it
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    bob presses Give it back
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    alice presses Delete it
    Spawnpoint (only alice sees this):
      Delete the host (id `forgotten`) at fake? (1 h <time> old, 0.01 $ an hour, <sum> so far) **A world may be on it that is in no backup; it would be lost.** There is no backup of `moon`. To save what is on it, give it back instead: then it is stopped with a backup.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice presses Give it back
    Spawnpoint (only alice sees this):
      The host `forgotten` (forgotten at fake) belongs to `moon` again. It should be off, so the world on it is saved now, and then the host goes.
    --- games
    Spawnpoint:
      **`moon`** · Toy · offline
      A start rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h.
      -# Looked at <t:…>
      [Start] [Stop (disabled)] [Restart (disabled)] [Extend (disabled)] [Console (disabled)]
    Spawnpoint:
      Found something with Spawnpoint's label that belongs to no server: host (id `forgotten`) at fake, 1 h <time> old, 0.01 $ an hour. It bills until somebody deletes it. It was left alone; an admin can decide. `/admin orphans` lists all.
      [Give it back] [Delete it]
    Spawnpoint:
      **`moon` is stopped**, its world is kept.
      -# Job 1 · toy · it ran although it should be off · took <time>
      ✓ Telling the players (done in <time>)
      ✓ Stopping the game (done in <time>)
      ✓ Copying the world (done in <time>, 1 file)
      ✓ Comparing the copy (done in <time>)
      ✓ Keeping the backup (done in <time>)
      ✓ Destroying the host (done in <time>)
      ✓ Waiting until the host is gone (done in <time>)
    Spawnpoint (only alice sees this):
      Give the host (id `older`) at fake back to `moon`? The newest backup is `backup-1`. **If something on that host was never saved, `moon` goes on with it**, also where people have played elsewhere since. No backup goes: `/backup restore` brings a later world back.
      -# Only you can answer. The question ends <t:…>.
      [Give it back] [Leave it]
    Spawnpoint (only alice sees this):
      Nothing was done.
    alice used /admin orphans
    Spawnpoint (only alice sees this):
      **1 thing with this Spawnpoint's label that no server has**
      1. host (id `strange`) at fake · 1 h <time> old · 0.01 $ an hour, <sum> so far · made for a server that nobody knows
      [Delete 1]
    Spawnpoint (only alice sees this):
      Delete the host (id `strange`) at fake? (1 h <time> old, 0.01 $ an hour, <sum> so far) **A world may be on it that is in no backup; it would be lost.** Nobody knows which server it was for.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    Spawnpoint (only alice sees this):
      Deleted the host `strange` (strange at fake).
    alice used /admin orphans
    Spawnpoint (only alice sees this):
      **Not everything could be looked at.** In the rest, everything belongs to a server.
      Could not be looked at: cloud. scripted: nobody can look
      Could not be looked at: docker. scripted: nobody can look
      <t:…> · alice · orphan delete (host \`strange\` \(strange at fake\)) · done
      <t:…> · alice · orphan adopt (host \`forgotten\` \(forgotten at fake\)) · done
      <t:…> · bob · orphan adopt (9bc98e9514628694) · refused: That needs the permission “admin”. An admin can grant it with \`/admin grant\`.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_somebody_took_away_is_told_with_what_was_lost() {
    let Some(room) = room().await else { return };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.ask(&room.alice, "games", "/server create name:moon game:toy backend:cloud").await;
    room.ask(&room.bob, "general", "/server start server:moon").await;
    room.discord.wait_for("general", "is up").await;
    room.home.outside.get().hosts.clear();
    let told = room.discord.wait_for("general", "The host of .moon. is gone").await;
    let id = bot.store.servers_everywhere().await.unwrap().remove(0).id;
    let told = steady(&common::discord::redact(&told.text)).replace(&id.0, "<id>");
    assert_snapshot!(told, @r"
    Spawnpoint:
      The host of `moon` is gone: fake says that there is no host `host-<id>-1`, and Spawnpoint did not destroy it. What was played since <t:…> is lost, and there is no backup. The next start rents another one.
    ");
    bot.end().await.unwrap();
}
