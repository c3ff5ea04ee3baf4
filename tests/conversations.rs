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
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
    let bot = Bot::start(&room.discord, &room.home).await;
    room.with_world().await;
    room.ask(&room.bob, "general", "/server start server:world").await;
    let first = room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    room.discord.delete_message("general", &first.id).await;
    let second = room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    assert_ne!(first.id, second.id);
    room.discord.delete_message("general", &second.id).await;
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
    // Forbidden in the middle of a job: the job goes on, and the bot stops asking Discord.
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
    story += &room.ask(&room.alice, "general", "/server settings server:cave variable:PASSWORD value:tea").await;
    story += &format!("\n{}", room.ask(&room.alice, "general", "/server settings server:cave variable:PASSWORD").await);
    assert_snapshot!(story, @r"
    form Needy Game needs to know:
      WORLD_NAME:  <What the world is called. (a text of at most 4000 characters)>
    Spawnpoint (only alice sees this):
      `cave` is made: Needy Game on docker. Start it with `/server start` or the button on its panel.
    alice used /server settings
    Spawnpoint (only alice sees this):
      **Settings of `cave`** (Needy Game)
      The buttons open forms. An emptied field goes back to its default.
      `SIZE` SIZE: `small` (default)
      `WORLD_NAME` WORLD\_NAME: `Deep, dark`
      `memory_mb` Memory \(MB\): `64` (default)
      `idle_minutes` Idle stop \(minutes\): not set
      `lease_minutes` Time limit \(minutes\): not set
      `PASSWORD` PASSWORD: secret, never shown
      [1–5]
    form Settings of cave:
      SIZE (optional):  <Default small. One of small, large. How large.>
      WORLD_NAME: Deep, dark <Any text. What the world is called.>
      Memory (MB) (optional):  <Default 64. A whole number from 0 to 1048576. How much memory the game may use.>
      Idle stop (minutes) (optional):  <A whole number from 0 to 10080. Stops after so many minutes with nobody on; 0 never.>
      Time limit (minutes) (optional):  <A whole number from 0 to 10080. A start ends by itself after this, unless extended; 0 never.>
    Spawnpoint (only alice sees this):
      `SIZE` is one of `small`, `large`
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `PASSWORD` of `cave`.
    alice used /server settings
    Spawnpoint (only alice sees this):
      `PASSWORD` of `cave`: secret, never shown
      What friends type. Any text.
      It is secret, so it is neither shown nor asked for in a form. Set it with `/server settings server:cave variable:PASSWORD value:…`; only you see that.
    ");
    assert!(!room.ask(&room.alice, "general", "/admin audit").await.contains("tea"));
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
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then its drive is deleted. Backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice used /server delete
    Spawnpoint (only alice sees this):
      Nothing was done.
    bob used /server delete
    Spawnpoint (only bob sees this):
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then its drive is deleted. Backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    bob used /server delete
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    alice used /server delete
    Spawnpoint (only alice sees this):
      Delete `world`? If it runs, it is stopped; a last backup of its world is made, then its drive is deleted. Backups stay.
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
async fn where_a_host_is_rented_is_chosen_when_a_server_is_made_and_changed_while_it_has_none() {
    let Some(room) = room().await else { return };
    room.home.outside.get().hosts_have_age = true;
    let bot = Bot::start(&room.discord, &room.home).await;
    let complete = async |line: &str| room.discord.autocomplete(&room.alice, "general", line).await;
    assert_eq!(complete("/server create backend:").await, ["cloud", "docker"]);
    assert_eq!(complete("/server create provider:").await, ["fake"]);
    assert_eq!(complete("/server create provider:fake region:").await, ["here (fake)", "there (fake)"]);
    assert_eq!(complete("/server create region:there size:").await, ["small (fake, 0.01 $ an hour)"]);
    assert_eq!(complete("/server create provider:other size:").await, [""; 0]);
    let mut story = String::new();
    for line in [
        "/server create name:moon game:toy backend:cloud provider:fake region:moon",
        "/server create name:moon game:toy backend:docker region:here",
        "/server create name:moon game:toy backend:cloud region:../here",
        "/server create name:moon game:toy provider:fake region:here size:large",
    ] {
        story += &format!("{}\n", room.ask(&room.alice, "games", line).await);
    }
    room.discord.wait_for("games", "moon.*offline").await;
    story += &format!("--- games\n{}\n", room.channel("games").await);
    assert_eq!(
        complete("/server settings server:moon variable:size value:").await,
        ["small (fake, 0.01 $ an hour)", "large (fake, 0.01 $ an hour)"]
    );
    for line in [
        "/server settings server:moon variable:size value:small",
        "/server settings server:moon variable:region value:there",
        "/server settings server:moon variable:size value:large",
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
      `moon` runs in a container on this machine, so no provider, region or size applies to it.
    alice used /server create
    Spawnpoint (only alice sees this):
      A region is one word of letters, digits, dashes, dots and underscores, at most 64 characters long, as the provider writes it.
    alice used /server create
    Spawnpoint (only alice sees this):
      `moon` is made: Toy on cloud. Start it with `/server start` or the button on its panel.
    --- games
    Spawnpoint:
      **`moon`** · Toy · offline
      Rented at `fake` in `here` as `large`
      A start rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h.
      -# Looked at <t:…>
      [Start] [Stop (disabled)] [Restart (disabled)] [Extend (disabled)] [Console (disabled)]
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `size` of `moon`.
    alice used /server settings
    Spawnpoint (only alice sees this):
      Changed `region` of `moon`.
    alice used /server settings
    Spawnpoint (only alice sees this):
      There is no size `large` to rent. There are: `small`.
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
      Rented at `fake` in `there` as `small`
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
