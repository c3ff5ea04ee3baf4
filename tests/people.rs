//! What people may do with each other's servers, and hostile names: conversations about permissions, names and
//! limits.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Answer, Discord, Fault, User};
use serde_json::json;
use spawnpoint::drivers::fake::{Kind, Way};
use spawnpoint::model::ServerId;
use spawnpoint::model::job::Step;
use spawnpoint::model::server::{Server, Wanted};
use spawnpoint::model::world::BackupId;
use std::time::Duration;
use tokio::time::Instant;

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
        self.whole(line, self.discord.slash(who, "general", line).await).await
    }

    async fn click(&self, who: &User, button: &str) -> String {
        self.whole(button, self.discord.click(who, "general", button).await).await
    }

    async fn whole(&self, what: &str, answer: Answer) -> String {
        let early = answer.thinking || answer.text.is_none();
        let answer = if early { self.discord.finished(&answer).await } else { answer };
        answer.text.unwrap_or_else(|| panic!("{what}: no answer"))
    }

    /// Clicks a button of the panel of `world`, once the panel shows this state.
    async fn press(&self, who: &User, state: &str, button: &str) -> String {
        let shown = format!(r"(?s)^Spawnpoint:\s+\*\*`world`\*\* · Toy · {state}\n.*\[{button}\]");
        let panel = self.discord.wait_for("general", &shown).await;
        let button = panel.components.iter().find(|one| one["label"] == button).unwrap();
        let id = button["custom_id"].as_str().unwrap();
        self.whole(id, self.discord.click_on(who, "general", &panel.id, id).await.unwrap()).await
    }

    /// The message of the job that an answer names, once it begins with these words.
    async fn told(&self, answer: &str, words: &str) -> String {
        let job = answer.split_once("(job ").and_then(|(_, rest)| rest.split_once(')')).map(|(job, _)| job);
        let job = job.unwrap_or_else(|| panic!("no job in {answer}"));
        self.discord.wait_for("general", &format!(r"(?s)^Spawnpoint:\s+\*\*{words}.*Job {job} ·")).await.text
    }

    /// How often games were stopped and started.
    fn stops_and_starts(&self) -> (usize, usize) {
        let calls = self.home.outside.get().calls.clone();
        let count = |step| calls.iter().filter(|call| **call == (Way::Run, step)).count();
        (count(Step::StopGame), count(Step::StartGame))
    }

    /// The version of the world that a server's drive holds.
    fn on_drive(&self, server: &ServerId) -> Option<u64> {
        let things = self.home.outside.get();
        things.drives.values().find(|drive| drive.server == *server).and_then(|drive| drive.world)
    }

    /// Waits until the watcher has looked some more times.
    async fn watched(&self) {
        let looks = || self.home.outside.get().looks;
        let (enough, until) = (looks() + 10, Instant::now() + Duration::from_secs(30));
        while looks() < enough {
            assert!(Instant::now() < until, "nobody looks any more");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn up(&self, name: &str) {
        self.ask(&self.bob, &format!("/server start server:{name}")).await;
        self.discord.wait_for("general", &format!("`{name}` is up")).await;
        self.discord.wait_for("general", &format!("(?s)`{name}`.*running")).await;
    }
}

async fn world(bot: &Bot) -> Server {
    let servers = bot.store.servers_everywhere().await.unwrap();
    servers.into_iter().find(|server| server.name.as_str() == "world").unwrap()
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
    for line in ["/admin audit", "/snapshot list"] {
        assert!(room.discord.try_slash(&room.alice, "general", line).await.is_ok(), "{line}");
        let hidden = room.discord.try_slash(&room.bob, "general", line).await;
        assert!(hidden.is_err(), "{line}: who may not administer does not see the command");
    }
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
    let id = world(&bot).await.id;
    let question = "End the game of `world` at once? What it has not saved is lost";
    let asked = room.ask(&room.bob, "/server kill server:world").await;
    assert!(asked.contains(question) && asked.contains("[Kill it]"), "{asked}");
    let refused = room.click(&room.bob, "Kill it").await;
    assert!(refused.contains("needs the permission “admin”"), "{refused}");
    room.ask(&room.alice, "/server kill server:world").await;
    let left = room.click(&room.alice, "Leave it").await;
    assert!(left.contains("Nothing was done."), "{left}");
    let asked = room.ask(&room.alice, "/server kill server:world").await;
    assert!(asked.contains(question), "{asked}");
    assert!(room.home.outside.is_running(&id), "nobody has said yes who may");
    assert_eq!(world(&bot).await.wanted, Wanted::On);
    let killed = room.click(&room.alice, "Kill it").await;
    assert!(
        killed.contains("The game of `world` was ended at once. Its drive with the world is untouched."),
        "{killed}"
    );
    assert_eq!(room.home.outside.get().games[&id].exit_code, Some(137), "it had no time to end by itself");
    assert_eq!(room.stops_and_starts(), (0, 1));
    // Nobody takes it for a crash.
    room.watched().await;
    assert!(!room.home.outside.is_running(&id));
    assert_eq!(world(&bot).await.wanted, Wanted::Off);
    let started = room.press(&room.bob, "offline", "Start").await;
    assert!(started.contains("Starting `world` (job 2)"), "no job came between: {started}");
    room.told(&started, "`world` is up").await;
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_stops_and_starts_and_each_button_of_a_panel_does_what_it_says() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let id = world(&bot).await.id;
    room.home.outside.play(&id);
    let played = room.on_drive(&id);
    let table = [
        ("running", "Restart", "Restarting", (1, 2)),
        ("", "/server restart server:world", "Restarting", (2, 3)),
        ("", "/server stop server:world", "Stopping", (3, 3)),
        ("offline", "Start", "Starting", (3, 4)),
        ("running", "Stop", "Stopping", (4, 4)),
    ];
    for (job, (state, what, doing, counts)) in (2..).zip(table) {
        let answer = match state {
            "" => room.ask(&room.bob, what).await,
            state => room.press(&room.bob, state, what).await,
        };
        assert!(answer.contains(&format!("{doing} `world` (job {job}). Watch")), "{what}: {answer}");
        let up = doing != "Stopping";
        let told = room.told(&answer, if up { "`world` is up" } else { "`world` is stopped" }).await;
        assert!(told.contains("asked by bob"), "{what}: {told}");
        for (step, part) in [("Stopping the game", doing != "Starting"), ("Starting the game", up)] {
            assert_eq!(told.contains(&format!("✓ {step} (done")), part, "{what}: {told}");
        }
        assert_eq!((room.home.outside.is_running(&id), room.stops_and_starts()), (up, counts), "{what}");
        assert_eq!(room.on_drive(&id), played, "{what}");
    }
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_says_how_long_it_usually_takes_once_one_has_been_seen() {
    let Some((room, bot)) = room().await else { return };
    for (job, seen) in [(1, false), (4, true)] {
        // It stays in the middle, where its message can be read.
        room.home.outside.fault(Way::Run, Step::StartGame, Kind::Hang, 1);
        room.ask(&room.bob, "/server start server:world").await;
        let middle = format!(r"(?s)Job {job} .*▸ \*\*Starting the game\*\* \(now");
        let told = room.discord.wait_for("general", &middle).await.text;
        let line = |with: &str| told.lines().find(|line| line.contains(with)).unwrap().to_owned();
        assert_eq!(line("Job").contains(" so far, usually "), seen, "{told}");
        assert_eq!(line("▸").contains(", usually "), seen, "{told}");
        room.ask(&room.bob, "/server cancel server:world").await;
        room.discord.wait_for("general", &format!("(?s)was called off.*Job {job} ")).await;
        if !seen {
            room.up("world").await;
            room.ask(&room.bob, "/server stop server:world").await;
            room.discord.wait_for("general", "(?s)`world` is stopped.*Job 3 ").await;
        }
    }
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_shows_the_last_lines_to_whoever_may_read_it() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let silent = room.ask(&room.alice, "/server logs server:world").await;
    assert!(silent.contains("`world` has written nothing yet."), "{silent}");
    room.home.outside.get().says = (100..150).map(|turn| format!("turn {turn} is over")).collect();
    let refused = room.ask(&room.bob, "/server logs server:world").await;
    assert!(refused.contains("needs the permission “operate”") && !refused.contains("is over"), "{refused}");
    for (line, count) in [("/server logs server:world", 40), ("/server logs server:world lines:2", 2)] {
        let log = room.ask(&room.alice, line).await;
        assert!(log.contains("What `world` wrote last:"), "{log}");
        let shown: Vec<&str> = log.lines().map(str::trim).filter(|line| line.starts_with("turn")).collect();
        let last: Vec<String> = (150 - count..150).map(|turn| format!("turn {turn} is over")).collect();
        assert_eq!(shown, last, "{line}");
    }
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_made_now_or_at_the_next_start_as_was_asked() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let id = world(&bot).await.id;
    room.home.outside.play(&id);
    let played = room.on_drive(&id);
    let newest = room.ask(&room.alice, "/server update server:world when:now").await;
    assert!(newest.contains("already stands on the newest snapshot, `toy-1`"), "{newest}");
    let stands = async || {
        let server = world(&bot).await;
        (server.owned.drive.unwrap().snapshot.0, server.update_at_start)
    };
    let at_next_start = "`world` moves to the newest snapshot at its next start";

    room.ask(&room.alice, "/snapshot build game:toy").await;
    room.discord.wait_for("general", "(?s)The snapshot of `toy` is ready.*Job 2 ·").await;
    let odd = room.ask(&room.alice, "/server update server:world when:soon").await;
    assert!(odd.contains("`when` is `now` or `next-start`"), "{odd}");
    assert_eq!(stands().await, ("toy-1".to_owned(), false));
    let later = room.ask(&room.alice, "/server update server:world when:next-start").await;
    assert!(later.contains(at_next_start) && !later.contains("(job"), "{later}");
    assert!(bot.store.open_jobs_all().await.unwrap().is_empty(), "it runs on");
    assert_eq!(stands().await, ("toy-1".to_owned(), true));
    let restarted = room.ask(&room.bob, "/server restart server:world").await;
    assert!(restarted.contains("Restarting `world` (job 3)"), "{restarted}");
    let told = room.told(&restarted, "`world` is up").await;
    assert!(told.contains("✓ Changing to a fresh drive (done"), "{told}");
    assert_eq!(stands().await, ("toy-2".to_owned(), false));
    room.discord.wait_for("general", r"(?s)`world`\*\* · Toy · running.*Stands on `toy-2`").await;

    room.ask(&room.alice, "/snapshot build game:toy").await;
    room.discord.wait_for("general", "(?s)The snapshot of `toy` is ready.*Job 4 ·").await;
    let unsaid = room.ask(&room.alice, "/server update server:world").await;
    assert!(unsaid.contains(at_next_start), "{unsaid}");
    let refused = room.ask(&room.bob, "/server update server:world when:now").await;
    assert!(refused.contains("needs the permission “operate”"), "{refused}");
    let updated = room.ask(&room.alice, "/server update server:world when:now").await;
    assert!(updated.contains("Updating `world` (job 5). Watch"), "{updated}");
    let told = room.told(&updated, "`world` stands on the newest snapshot").await;
    for step in ["Stopping the game", "Keeping the backup", "Changing to a fresh drive", "Starting the game"] {
        assert!(told.contains(&format!("✓ {step} (done")), "{told}");
    }
    assert_eq!(stands().await, ("toy-4".to_owned(), false), "and nothing is left for the next start");
    room.discord.wait_for("general", r"(?s)`world`\*\* · Toy · running.*Stands on `toy-4`").await;
    assert!(room.home.outside.is_running(&id));
    assert_eq!(room.on_drive(&id), played, "its world came along");
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_person_is_retried_by_command_to_its_end() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let id = world(&bot).await.id;
    room.home.outside.play(&id);
    let idle = room.ask(&room.bob, "/server retry server:world").await;
    assert!(idle.contains("Nothing is under way on `world`"), "{idle}");
    room.home.outside.fault(Way::Run, Step::PullWorld, Kind::Before, 1);
    let stopped = room.ask(&room.bob, "/server stop server:world").await;
    let held = room.told(&stopped, "Stopping `world` waits for a person").await;
    assert!(held.contains("✗ **Copying the world** (failed)"), "{held}");
    assert!(room.home.outside.get().backups.is_empty());
    let refused = room.ask(&room.carol, "/server retry server:world").await;
    assert!(refused.contains("needs the permission “play”"), "{refused}");
    let again = room.ask(&room.bob, "/server retry server:world").await;
    assert!(again.contains("Trying “Copying the world” again (job 2)."), "{again}");
    let told = room.told(&stopped, "`world` is stopped").await;
    for step in ["Copying the world", "Keeping the backup", "Removing the container"] {
        assert!(told.contains(&format!("✓ {step} (done")), "{told}");
    }
    let saved: Vec<_> = room.home.outside.get().backups.values().map(|(_, version)| Some(*version)).collect();
    assert_eq!(saved, [room.on_drive(&id)]);
    let audit = room.ask(&room.alice, "/admin audit").await;
    assert!(audit.contains("bob · retry `world` · done"), "{audit}");
    assert!(audit.contains("carol · retry `world` · refused"), "{audit}");
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_a_restore_brings_that_world_back_and_keeps_the_one_before() {
    let Some((room, bot)) = room().await else { return };
    room.up("world").await;
    let id = world(&bot).await.id;
    let play = || {
        room.home.outside.play(&id);
        room.on_drive(&id).unwrap()
    };
    let old = play();
    let made = room.ask(&room.bob, "/backup create server:world").await;
    assert!(made.contains("Backing up `world` (job 2)"), "{made}");
    room.told(&made, "`world` is backed up").await;
    let backup = BackupId(room.home.keep_backup(&id));
    room.home.outside.get().backups.insert(backup.clone(), (id.clone(), old));
    let new = play();
    let asked = room.ask(&room.alice, &format!("/backup restore server:world backup:{}", backup.0)).await;
    assert!(asked.contains(&format!("Put `world` back to the backup `{}`?", backup.0)), "{asked}");
    assert!(bot.store.open_jobs_all().await.unwrap().is_empty(), "it was only asked");
    let restored = room.click(&room.alice, "Restore it").await;
    assert!(restored.contains("Restoring `world` (job 3). Watch"), "{restored}");
    let told = room.told(&restored, &format!("`world` has its world of `{}` again", backup.0)).await;
    for step in ["Stopping the game", "Keeping the backup", "Putting the world in place", "Starting the game"] {
        assert!(told.contains(&format!("✓ {step} (done")), "{told}");
    }
    assert!(room.home.outside.is_running(&id), "it ran before, so it runs again");
    assert_eq!(room.on_drive(&id), Some(old));
    assert_eq!(world(&bot).await.owned.world, Some(backup));
    let saved = room.home.outside.get().backups.values().any(|(_, version)| *version == new);
    assert!(saved, "what it was before can be had again");
    assert_eq!(room.home.outside.get().violations, [""; 0]);
    bot.end().await.unwrap();
}
