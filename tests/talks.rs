//! More conversations with the whole bot: the console, questions with buttons, warnings, hostile names, and what
//! people do at the same time or to the channel itself. Each is one story with what was read.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Answer, Discord, User, redact};
use insta::assert_snapshot;
use regex::Regex;
use serde_json::json;
use spawnpoint::app::Choice;
use spawnpoint::bus::Nudge;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::engine::Journal;
use spawnpoint::model::access::Caller;
use spawnpoint::model::job::Step;
use spawnpoint::model::server::Server;
use spawnpoint::model::view::Notice;
use spawnpoint::model::{HOUR_MS, ServerId};
use std::time::Duration;

struct Room {
    discord: Discord,
    home: Home,
    alice: User,
    bob: User,
}

/// A guild with alice, who administers it, and bob, who plays; `world` is made, its panel stands in `games`.
async fn room() -> Option<(Room, Bot)> {
    let discord = Discord::start(json!({
        "channels": ["general", "games"],
        "roles": [{"name": "players"}],
        "users": [{"name": "alice", "permissions": ["manage_guild"]}, {"name": "bob", "roles": ["players"]}],
    }))
    .await?;
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));
    let room = Room { discord, home: Home::new(), alice, bob };
    let bot = Bot::start(&room.discord, &room.home).await;
    room.discord.slash(&room.alice, "games", "/server create name:world game:needy settings:WORLD_NAME=x").await;
    room.discord.wait_for("games", "world.*offline").await;
    Some((room, bot))
}

/// Times and names of backups differ from run to run.
fn steady(text: &str) -> String {
    let rules = [
        (r"under 1 s|\b\d+ s\b|\b\d+ min\b|\b1 h\b", "<time>"),
        (r", usually <time>", ""),
        (r"\d{8}T\d{6}Z-[0-9a-z]+", "<backup>"),
        (r"under <time>", "<time>"),
        (r"(<time> )+<time>", "<time>"),
    ];
    let mut text = redact(text).replace('\u{200b}', "");
    for (pattern, with) in rules {
        text = Regex::new(pattern).unwrap().replace_all(&text, with).into_owned();
    }
    text
}

impl Room {
    async fn whole(&self, answer: Answer) -> String {
        let answer =
            if answer.text.is_none() || answer.thinking { self.discord.finished(&answer).await } else { answer };
        let said = answer.text.clone().expect("an answer");
        assert!(answer.ephemeral || said.contains("sees this"), "everybody saw {said}");
        steady(&said) + "\n"
    }

    async fn ask(&self, who: &User, line: &str) -> String {
        self.whole(self.discord.slash(who, "general", line).await).await
    }

    async fn click(&self, who: &User, channel: &str, button: &str) -> String {
        self.whole(self.discord.click(who, channel, button).await).await
    }

    async fn up(&self) {
        self.ask(&self.bob, "/server start server:world").await;
        self.discord.wait_for("general", "`world` is up").await;
        self.discord.wait_for("games", "world.*running").await;
    }

    async fn world(&self, bot: &Bot) -> ServerId {
        bot.store.servers_everywhere().await.unwrap()[0].id.clone()
    }

    async fn count(&self, channel: &str, words: &str) -> usize {
        self.discord.messages(channel).await.iter().filter(|message| message.text.contains(words)).count()
    }

    async fn no_pings(&self) {
        for channel in ["general", "games"] {
            let pings: Vec<_> = self.discord.messages(channel).await.into_iter().flat_map(|one| one.pings).collect();
            assert!(pings.is_empty(), "{pings:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_button_asks_for_a_line_and_answers_it() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server settings server:world variable:PASSWORD value:hush").await;
    room.up().await;
    let form = room.discord.click(&room.alice, "games", "Console").await;
    let mut story = format!("{}\n", form.modal.clone().expect("a form"));
    room.home.outside.get().answer = "the seed is hush, the @everyone of seeds".into();
    story += &room.whole(room.discord.modal(&form, &[("Command", "seed")]).await).await;
    let form = room.discord.click(&room.bob, "games", "Console").await;
    story += &room.whole(room.discord.modal(&form, &[("Command", "seed")]).await).await;
    assert_eq!(room.home.outside.get().told, ["seed"], "only who may has typed");
    assert_snapshot!(story, @r"
    form Console of world:
      Command:  <What to type, as the game understands it>
    Spawnpoint (only alice sees this):
      `world` answered `seed`:
      ```
      the seed is ••••, the @everyone of seeds
      ```
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    ");
    room.no_pings().await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_console_answer_comes_as_a_file_without_secrets() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server settings server:world variable:PASSWORD value:hush").await;
    room.up().await;
    room.home.outside.get().answer = "@everyone says hush ```\n".repeat(1_000_000 / 24);
    let mut story = room.ask(&room.alice, "/console server:world command:players").await;
    room.home.outside.get().answer = "0123456789abcdef".repeat(9_000_000 / 16);
    story += &room.ask(&room.alice, "/console server:world command:players").await;
    assert_snapshot!(story, @r"
    alice used /console
    Spawnpoint (only alice sees this):
      `world` answered `players`:
      41666 lines, 1.3 MB: all of it is in the file.
      file console.txt, 1333311 bytes
    alice used /console
    Spawnpoint (only alice sees this):
      `world` answered `players`:
      1 line, 9.0 MB: the end of it is in the file.
      file console.txt, 8000000 bytes
    ");
    let sent = room.discord.requests("POST", "/interactions/*/*/callback").await;
    let late = room.discord.requests("PATCH", "/webhooks/*/*/messages/@original").await;
    let text = format!("{:?}", sent.iter().chain(&late).map(|request| &request.files).collect::<Vec<_>>());
    assert!(text.contains("console.txt") && !text.contains("hush"), "{}", text.chars().take(300).collect::<String>());
    room.no_pings().await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_admin_goes_on_without_a_step_and_is_told_what_is_lost() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    room.ask(&room.bob, "/server stop server:world").await;
    room.discord.wait_for("general", "waits for a person").await;
    let mut story = String::new();
    for who in [&room.bob, &room.alice] {
        story += &room.click(who, "general", "Go on without it").await;
        story += &room.click(who, "general", "Go on without it").await;
    }
    // Without a copy there is nothing to compare: the next step says so, and nothing is destroyed either.
    room.discord.wait_for("general", "Comparing the copy\\*\\* \\(failed").await;
    story += &steady(&room.discord.channel_text("general").await);
    assert_snapshot!(story, @r"
    Spawnpoint (only bob sees this):
      Go on without “Copying the world” (job 2)? There would be no backup of the world as it is now. Older backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Go on without it] [Leave it]
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    Spawnpoint (only alice sees this):
      Go on without “Copying the world” (job 2)? There would be no backup of the world as it is now. Older backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Go on without it] [Leave it]
    Spawnpoint (only alice sees this):
      Going on without “Copying the world” (job 2).
    Spawnpoint:
      **`world` is up.** Join at `127.0.0.1:3979`
      -# Job 1 · needy · asked by bob · took <time>
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
      **Stopping `world` waits for a person**
      -# Job 2 · needy · asked by bob · since <t:…>
      ✓ Telling the players (done in <time>)
      ✓ Stopping the game (done in <time>)
      » Copying the world (left out by an admin)
      ✗ **Comparing the copy** (failed): The copy is not the world.
      ◦ Keeping the backup
      ◦ Removing the container
      Nothing was undone and nothing destroyed. Try again, go on without that step (admins; it is asked first what is lost), or leave everything as it is.
      [Try again] [Go on without it] [Leave it]
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_counts_for_the_step_that_was_asked_about_and_cancel_is_no_way_around_a_right() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    room.home.outside.fault(Way::Run, Step::VerifyWorld, Kind::Before, 1);
    room.ask(&room.bob, "/server stop server:world").await;
    room.discord.wait_for("general", "waits for a person").await;
    let mut story = room.ask(&room.bob, "/server cancel server:world").await;
    story += &room.click(&room.alice, "general", "Go on without it").await;
    // While alice thinks, bob tries again: the job waits at another step when she says yes.
    story += &room.click(&room.bob, "general", "Try again").await;
    room.discord.wait_for("general", "Comparing the copy\\*\\* \\(failed").await;
    story += &room.click(&room.alice, "general", "Go on without it").await;
    story += &room.click(&room.alice, "general", "Go on without it").await;
    story += &room.click(&room.alice, "general", "Go on without it").await;
    // What was left out keeps its error, and is not what the next question is about.
    room.discord.wait_for("general", "Keeping the backup\\*\\* \\(failed").await;
    story += &room.click(&room.alice, "general", "Go on without it").await;
    let said = room.ask(&room.alice, "/admin audit").await;
    story += &said.lines().filter(|line| line.contains("abandon") || line.contains("cancel")).collect::<String>();
    assert_snapshot!(story, @r"
    bob used /server cancel
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    Spawnpoint (only alice sees this):
      Go on without “Copying the world” (job 2)? There would be no backup of the world as it is now. Older backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Go on without it] [Leave it]
    Spawnpoint (only bob sees this):
      Trying “Copying the world” again (job 2).
    Spawnpoint (only alice sees this):
      Job 2 went on since you were asked and waits at another step now, so nothing was done. Look at it again.
    Spawnpoint (only alice sees this):
      Go on without “Comparing the copy” (job 2)? There would be no backup of the world as it is now. Older backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Go on without it] [Leave it]
    Spawnpoint (only alice sees this):
      Going on without “Comparing the copy” (job 2).
    Spawnpoint (only alice sees this):
      Go on without “Keeping the backup” (job 2)? There would be no backup of the world as it is now. Older backups stay.
      -# Only you can answer. The question ends <t:…>.
      [Go on without it] [Leave it]
      <t:…> · bob · abandon `world` · refused: That needs the permission “operate”. An admin can grant it with \`/admin grant\`.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cancel_of_a_build_calls_off_that_build_also_where_a_server_has_its_name() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server create name:toy game:needy settings:WORLD_NAME=x").await;
    room.home.outside.fault(Way::Run, Step::RunInstaller, Kind::Hang, 2);
    room.ask(&room.alice, "/snapshot build game:toy").await;
    room.discord.wait_for("general", "Installing the game\\*\\* \\(now").await;
    let mut story = room.ask(&room.bob, "/server cancel server:toy").await;
    story += &room.click(&room.bob, "general", "Cancel").await;
    story += &room.click(&room.alice, "general", "Cancel").await;
    room.discord.wait_for("general", "was called off").await;
    room.ask(&room.alice, "/snapshot build game:toy").await;
    room.discord.wait_for("general", "Installing the game\\*\\* \\(now").await;
    story += &room.ask(&room.alice, "/server cancel server:toy").await;
    assert_snapshot!(story, @r"
    bob used /server cancel
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    Spawnpoint (only bob sees this):
      That needs the permission “admin”. An admin can grant it with `/admin grant`.
    Spawnpoint (only alice sees this):
      Calling off the build (job 1). What it made is undone.
    alice used /server cancel
    Spawnpoint (only alice sees this):
      Calling off the build (job 2). What it made is undone.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_asked_first_and_only_who_was_asked_answers() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    let world = room.world(&bot).await;
    let id = room.home.keep_backup(&world);
    let offered = room.discord.autocomplete(&room.alice, "general", "/backup restore server:world backup:").await;
    assert_eq!(offered.len(), 1, "{offered:?}");
    let mut story = room.ask(&room.alice, "/backup restore server:world backup:nothing").await;
    story += &room.click(&room.alice, "general", "Restore it").await;
    let asked = room.discord.slash(&room.alice, "general", &format!("/backup restore server:world backup:{id}")).await;
    story += &room.whole(asked.clone()).await;
    // Discord shows the question to alice alone.
    let forged = room.discord.click_on(&room.bob, "general", &asked.message.unwrap(), "Restore it").await;
    story += &format!("bob cannot see it: {}\n", forged.is_err());
    story += &room.ask(&room.bob, &format!("/backup restore server:world backup:{id}")).await;
    story += &room.click(&room.bob, "general", "Restore it").await;
    assert_snapshot!(story, @r"
    alice used /backup restore
    Spawnpoint (only alice sees this):
      Put `world` back to the backup `nothing`? Its world as it is now is backed up first; if it runs, it is stopped and started again.
      -# Only you can answer. The question ends <t:…>.
      [Restore it] [Leave it]
    alice used /backup restore
    Spawnpoint (only alice sees this):
      `world` has no backup of that name. `/backup list` shows them.
    alice used /backup restore
    Spawnpoint (only alice sees this):
      Put `world` back to the backup `<backup>`? Its world as it is now is backed up first; if it runs, it is stopped and started again.
      -# Only you can answer. The question ends <t:…>.
      [Restore it] [Leave it]
    bob cannot see it: true
    bob used /backup restore
    Spawnpoint (only bob sees this):
      Put `world` back to the backup `<backup>`? Its world as it is now is backed up first; if it runs, it is stopped and started again.
      -# Only you can answer. The question ends <t:…>.
      [Restore it] [Leave it]
    bob used /backup restore
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    ");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_in_use_stays_and_the_answer_names_who_uses_it() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    let mut story = String::new();
    story += &room.ask(&room.alice, "/snapshot list").await;
    let offered = room.discord.autocomplete(&room.alice, "general", "/snapshot delete snapshot:").await;
    story += &format!("offered: {offered:?}\n");
    story += &room.ask(&room.alice, "/snapshot delete snapshot:needy-1").await;
    story += &room.click(&room.alice, "general", "Delete it").await;
    room.ask(&room.alice, "/server delete server:world").await;
    room.click(&room.alice, "general", "Delete it").await;
    room.discord.wait_for("general", "is deleted").await;
    story += &room.ask(&room.alice, "/snapshot delete snapshot:needy-1").await;
    story += &room.click(&room.alice, "general", "Delete it").await;
    story += &room.ask(&room.alice, "/snapshot list").await;
    assert_snapshot!(story, @r#"
    alice used /snapshot list
    Spawnpoint (only alice sees this):
      **Snapshots**: an unknown amount shared by the drives on them, an unknown amount that drives hold alone
      `needy-1` · size unknown · <t:…> · golden: new drives are cloned from it · the recipe has changed since; `/snapshot build` makes a new one · 1 drive: world (size unknown)
    offered: ["needy-1 · size unknown"]
    alice used /snapshot delete
    Spawnpoint (only alice sees this):
      Delete the snapshot `needy-1`? The next start of its game may have to install again.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice used /snapshot delete
    Spawnpoint (only alice sees this):
      `needy-1` is in use: the drives of `world` stand on it. `/server update` moves a server to a newer one.
    alice used /snapshot delete
    Spawnpoint (only alice sees this):
      Delete the snapshot `needy-1`? The next start of its game may have to install again.
      -# Only you can answer. The question ends <t:…>.
      [Delete it] [Leave it]
    alice used /snapshot delete
    Spawnpoint (only alice sees this):
      `needy-1` is deleted.
    alice used /snapshot list
    Spawnpoint (only alice sees this):
      There is no snapshot yet. A game's first start makes one, or `/snapshot build`.
    "#);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_told_once_also_over_a_restart() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    let world = room.world(&bot).await;
    let minutes = |count: i64| Some(bot_now() + count * 60_000 + 30_000);
    bot.store.set_lease(&world, minutes(8)).await.unwrap();
    let first = room.discord.wait_for("general", "The time of `world` is over").await;
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    bot.store.set_lease(&world, minutes(1)).await.unwrap();
    room.discord.wait_for("general", "The time of `world` is over in 1 min").await;
    assert_eq!(room.count("general", "The time of `world` is over").await, 2, "ten minutes before and two before");

    room.discord.click_on(&room.bob, "general", &first.id, &format!("v1:extend:{world}")).await.unwrap();
    room.ask(&room.alice, "/server settings server:world variable:idle_minutes value:2").await;
    room.home.outside.players(&world, Some(1));
    room.discord.wait_for("games", "1 player").await;
    room.home.outside.players(&world, Some(0));
    room.discord.wait_for("general", "Nobody is on `world`").await;
    bot.end().await.unwrap();
    let bot = Bot::start(&room.discord, &room.home).await;
    // Told in their order: when the next one is there, no older one is still on its way.
    bot.store.set_lease(&world, minutes(1)).await.unwrap();
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while room.count("general", "The time of `world` is over").await < 3 {
        assert!(tokio::time::Instant::now() < until, "the third warning of the time's end did not come");
    }
    assert_eq!(room.count("general", "Nobody is on `world`").await, 1);
    bot.end().await.unwrap();
}

fn bot_now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_of_players_are_only_names() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    let world = room.world(&bot).await;
    let names = [
        "@everyone",
        "**bold** _x_",
        "`tick` ```",
        "\u{1b}[31mred\u{1b}[0m",
        "a\u{202e}gnp.exe",
        "[x](https://evil.example)",
        "||spoiler||",
        "# big\n> quote",
    ];
    {
        let mut things = room.home.outside.get();
        let game = things.games.get_mut(&world).unwrap();
        game.names = names.iter().map(ToString::to_string).collect();
        game.players = Some(8);
        things.answer = names.join(", ");
    }
    let mut story = room.discord.wait_for("games", "8 players").await.text;
    story = steady(&story) + "\n" + &room.ask(&room.bob, "/server status server:world").await;
    story += &room.ask(&room.alice, "/console server:world command:players").await;
    assert!(!story.contains('\u{202e}') && !story.contains('\u{1b}'));
    assert_snapshot!(story, @r"
    Spawnpoint:
      **`world`** · Needy Game · running
      Join at `127.0.0.1:3979`
      8 players on: @everyone, \*\*bold\*\* \_x\_, \`tick\` \`\`\`, red, agnp.exe, \[x\]\(https://evil.example\), \|\|spoiler\|\|, \# big \> quote
      Runs until <t:…> (<t:…>)
      Stands on `needy-1`
      -# Looked at <t:…>
      [Start (disabled)] [Stop] [Restart] [Extend] [Console]
    bob used /server status
    Spawnpoint (only bob sees this):
      **`world`** · Needy Game · running
      Join at `127.0.0.1:3979`
      8 players on: @everyone, \*\*bold\*\* \_x\_, \`tick\` \`\`\`, red, agnp.exe, \[x\]\(https://evil.example\), \|\|spoiler\|\|, \# big \> quote
      Runs until <t:…> (<t:…>)
      Stands on `needy-1`
      -# Looked at <t:…>
      [Start (disabled)] [Stop] [Restart] [Extend] [Console]
    alice used /console
    Spawnpoint (only alice sees this):
      `world` answered `players`:
      ```
      @everyone, **bold** _x_, `tick` ```, red, agnp.exe, [x](https://evil.example), ||spoiler||, # big
      > quote
      ```
    ");
    room.no_pings().await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn games_are_shown_and_everything_is_offered_while_typing() {
    let Some((room, bot)) = room().await else { return };
    let mut story = room.ask(&room.bob, "/game list").await;
    story += &room.ask(&room.bob, "/game show game:needy").await;
    story += &room.ask(&room.bob, "/game show game:tetris").await;
    let world = room.world(&bot).await;
    room.home.keep_backup(&world);
    room.up().await;
    for line in [
        "/game show game:ne",
        "/console server:world command:s",
        "/backup restore server:world backup:",
        "/snapshot delete snapshot:nee",
        "/server extend server:world duration:",
        "/server extend server:world duration:3h",
    ] {
        let offered = room.discord.autocomplete(&room.alice, "general", line).await;
        story += &steady(&format!("{line} → {offered:?}\n"));
    }
    assert_snapshot!(story, @r#"
    bob used /game list
    Spawnpoint (only bob sees this):
      **Games**; `/game show` tells more about one
      `needy` · **Needy Game** · not installed yet: the first start takes longer
      `toy` · **Toy** · not installed yet: the first start takes longer
    bob used /game show
    Spawnpoint (only bob sees this):
      **Needy Game** (`needy`)
      For tests.
      Ports: game 27100/udp · memory: 64 MB · console: standard input · keeps a world
      Not installed yet: the first start, or `/snapshot build`, installs it.
      Settings:
      `PASSWORD`: What friends type. (a text of at most 4000 characters, secret)
      `SIZE`: How large. (one of \`small\`, \`large\`, default `small`)
      `WORLD_NAME`: What the world is called. (a text of at most 4000 characters, needed)
    bob used /game show
    Spawnpoint (only bob sees this):
      There is no recipe for that game. There are: `needy` and `toy`.
    /game show game:ne → ["Needy Game (needy)"]
    /console server:world command:s → ["save", "seed"]
    /backup restore server:world backup: → ["<backup> · at a stop · 0 files"]
    /snapshot delete snapshot:nee → ["needy-1 · size unknown"]
    /server extend server:world duration: → ["<time>", "<time>", "2 h", "4 h", "8 h", "1 d"]
    /server extend server:world duration:3h → ["3 h"]
    "#);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_deleted_in_the_middle_of_a_job_stops_nothing() {
    let Some((room, bot)) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Retry, 2);
    room.ask(&room.bob, "/server start server:world").await;
    room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    room.discord.delete_channel("general").await;
    room.discord.wait_for("games", "world.*running").await;
    let asked = room.discord.requests("POST", "/channels/*/messages").await.len();
    // What is to be said in the channel that is gone is let go; the next job speaks where it was asked for.
    let world = room.world(&bot).await;
    bot.store.set_lease(&world, Some(bot_now() + 90_000)).await.unwrap();
    room.discord.slash(&room.bob, "games", "/server stop server:world").await;
    room.discord.wait_for("games", "`world` is stopped").await;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !bot.store.notices_waiting().await.unwrap().is_empty() {
        assert!(tokio::time::Instant::now() < until, "a notice for a channel that is gone waits for ever");
        tokio::task::yield_now().await;
    }
    let more = room.discord.requests("POST", "/channels/*/messages").await.len() - asked;
    assert!(more <= 2, "{more} messages: the bot goes on asking for a channel that is gone");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_was_closed_for_a_while_is_told_how_things_are() {
    let Some((room, bot)) = room().await else { return };
    room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
    room.ask(&room.bob, "/server start server:world").await;
    room.discord.wait_for("general", "Starting the game\\*\\* \\(now").await;
    room.discord.wait_for("games", "world.*starting").await;
    let shut = ["view_channel", "send_messages"];
    for channel in ["general", "games"] {
        room.discord.deny_bot(channel, &shut).await;
    }
    let edits = room.discord.requests("PATCH", "/channels/*/messages/*").await.len();
    let guild = bot.store.servers_everywhere().await.unwrap()[0].guild.clone();
    bot.app.choose(&Caller::operator(guild), "world", Choice::Cancel).await.unwrap();
    room.discord.wait_requests("PATCH", "/channels/*/messages/*", edits + 2).await;
    for channel in ["general", "games"] {
        room.discord.deny_bot(channel, &[]).await;
    }
    room.discord.wait_for("general", "was called off").await;
    room.discord.wait_for("games", "world.*offline").await;
    for channel in ["general", "games"] {
        assert_eq!(room.discord.messages(channel).await.len(), 1, "{channel}: the message that was there goes on");
    }
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_falls_due_while_its_channel_is_closed_is_told_once_when_it_is_open_again() {
    let Some((room, bot)) = room().await else { return };
    room.up().await;
    room.discord.deny_bot("general", &["view_channel", "send_messages"]).await;
    let asked = room.discord.requests("POST", "/channels/*/messages").await.len();
    let world = room.world(&bot).await;
    bot.store.set_lease(&world, Some(bot_now() + 8 * 60_000)).await.unwrap();
    room.discord.wait_requests("POST", "/channels/*/messages", asked + 1).await;
    // Behind it wait one that nobody needs any more, and one for a channel that is open.
    let server = bot.store.server_any(&world).await.unwrap().unwrap();
    let panel = bot.store.panel(&world).await.unwrap().unwrap();
    let old = Notice::IdleStop { server: "world".into(), in_ms: 60_000 };
    bot.store.notice(&server, &old, bot_now() - 7 * HOUR_MS).await.unwrap();
    let shrunk = Notice::Shrunk { server: "world".into(), backup: "b".into(), was_bytes: 9000, now_bytes: 9 };
    let other = Server { channel: Some(panel.channel), ..server };
    bot.store.notice(&other, &shrunk, bot_now()).await.unwrap();
    for _ in 0..100 {
        bot.bus.nudge(Nudge::Notice);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    room.discord.wait_for("games", "is much smaller").await;
    let waits_for = async |count: usize| {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        while bot.store.notices_waiting().await.unwrap().len() > count {
            assert!(tokio::time::Instant::now() < until, "more than {count} notices wait for ever");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    waits_for(1).await;
    let tried = room.discord.requests("POST", "/channels/*/messages").await.len() - asked - 1;
    assert!(tried <= 4, "{tried} tries: the bot hammers at a channel that is closed");
    room.discord.deny_bot("general", &[]).await;
    room.discord.wait_for("general", "The time of `world` is over").await;
    waits_for(0).await;
    assert_eq!(room.count("general", "The time of `world` is over").await, 1);
    assert_eq!(room.count("general", "Nobody is on").await, 0, "it was too old");
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_who_start_at_once_start_it_once() {
    let Some((room, bot)) = room().await else { return };
    let line = "/server start server:world";
    let (one, two) = tokio::join!(room.ask(&room.alice, line), room.ask(&room.bob, line));
    let started = [&one, &two].iter().filter(|answer| answer.contains("Starting `world` (job 1)")).count();
    let busy = [&one, &two].iter().filter(|answer| answer.contains("`world` is busy")).count();
    assert_eq!((started, busy), (1, 1), "{one}\n{two}");
    room.discord.wait_for("general", "`world` is up").await;
    assert_eq!(room.count("general", "`world` is up").await, 1);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_with_a_value_that_cannot_be_changes_nothing() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.alice, "/server settings server:world").await;
    let mut story = String::new();
    for wrong in [("Memory (MB)", "lots"), ("SIZE", "huge"), ("Processors", "0"), ("Idle stop (minutes)", "-1")] {
        let form = room.discord.click(&room.alice, "general", "1–5").await;
        let typed = [wrong, ("WORLD_NAME", "changed")];
        story += &room.whole(room.discord.modal(&form, &typed).await).await;
    }
    story += &room.ask(&room.alice, "/server settings server:world").await;
    assert!(!story.contains("changed"), "{story}");
    assert_snapshot!(story, @r"
    Spawnpoint (only alice sees this):
      `memory_mb` is a whole number from 16 to 1048576.
    Spawnpoint (only alice sees this):
      `SIZE` is one of `small`, `large`
    Spawnpoint (only alice sees this):
      `cpus` is a number from 0.05 to 256, for instance `1.5`.
    Spawnpoint (only alice sees this):
      `idle_minutes` is a whole number from 0 to 10080.
    alice used /server settings
    Spawnpoint (only alice sees this):
      **Settings of `world`** (Needy Game)
      The buttons open forms. An emptied field goes back to its default. A secret one does with the option `reset`.
      `SIZE` SIZE: `small` (default)
      `WORLD_NAME` WORLD\_NAME: `x`
      `memory_mb` Memory \(MB\): `64` (default)
      `cpus` Processors: `1` (default)
      `idle_minutes` Idle stop \(minutes\): not set
      `lease_minutes` Time limit \(minutes\): not set
      `pids` Processes: `2048` (default)
      `PASSWORD` PASSWORD: secret, never shown
      [1–5] [6–7]
    ");
    bot.end().await.unwrap();
}
