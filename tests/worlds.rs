//! Conversations about worlds, whole: a Discord that is not Discord's, the program, and a game in a real container. And
//! what retention leaves of a server's worlds, with a game that the fake plays.

mod common {
    pub mod discord;
}
#[path = "common/stage.rs"]
mod stage;

use common::discord::{Discord, User, redact};
use insta::assert_snapshot;
use regex::Regex;
use secrecy::SecretString;
use serde_json::json;
use spawnpoint::config;
use spawnpoint::discord;
use spawnpoint::drivers::fake::Outside;
use spawnpoint::model::JobId;
use spawnpoint::model::access::Caller;
use spawnpoint::model::server::{Backend, State};
use stage::{Stage, docker_or_skip, test_image};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Sizes on disk are the file system's, and backups are named after the time.
fn steady(text: &str) -> String {
    let mut text = redact(text).replace('\u{200b}', "");
    let id = Regex::new(r"\d{8}T\d{6}Z-[0-9a-z]+").unwrap();
    let mut ids: Vec<String> = id.find_iter(&text).map(|found| found.as_str().to_owned()).collect();
    ids.sort();
    ids.dedup();
    for (at, id) in ids.iter().enumerate() {
        text = text.replace(id, &format!("<backup {}>", at + 1));
    }
    let on_disk = Regex::new(r"[\d.]+ (bytes|KB) on disk").unwrap();
    on_disk.replace_all(&text, "<some> on disk").into_owned()
}

struct Room {
    discord: Discord,
    alice: User,
    bob: User,
    stage: Stage,
    stop: CancellationToken,
    front: JoinHandle<Result<(), spawnpoint::discord::Exit>>,
}

/// A guild with alice, who administers it, and bob, who plays: `world` is up, in a container. As few backups are kept
/// as can be: what stays beyond that stays because of a doubt.
async fn room() -> Option<Room> {
    if !docker_or_skip().await {
        return None;
    }
    test_image("busybox");
    let discord = Discord::start(json!({
        "channels": ["general"],
        "roles": [{"name": "players"}],
        "users": [{"name": "alice", "permissions": ["manage_guild"]}, {"name": "bob", "roles": ["players"]}],
    }))
    .await?;
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));
    let stage = Stage::open("tests/recipes", |config| {
        (config.backups.keep_last, config.backups.keep_daily, config.backups.keep_weekly) = (1, 0, 0);
    })
    .await;
    let front = config::Discord {
        token: Some(SecretString::from(discord.token().to_owned())),
        api_url: discord.api_url().to_owned(),
        ..config::Discord::default()
    };
    let stop = CancellationToken::new();
    let (app, front_stop) = (stage.program.app.clone(), stop.clone());
    let front = tokio::spawn(async move { discord::run(app, &front, discord::WHOLE_WITHIN, front_stop).await });
    let mut room = Room { discord, alice, bob, stage, stop, front };
    room.ask(&room.alice, "/server create name:world game:toy").await;
    room.ask(&room.bob, "/server start server:world").await;
    room.discord.wait_for("general", "`world` is up").await;
    let guild = room.stage.program.store.servers_everywhere().await.unwrap()[0].guild.clone();
    room.stage.caller = Caller::operator(guild);
    Some(room)
}

impl Room {
    async fn close(self) {
        self.stop.cancel();
        self.front.await.unwrap().unwrap();
        self.stage.close().await;
    }

    async fn ask(&self, who: &User, line: &str) -> String {
        let answer = self.discord.slash(who, "general", line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        assert!(answer.ephemeral, "{line}: everybody saw {:?}", answer.text);
        answer.text.expect("an answer")
    }

    async fn click(&self, who: &User, button: &str) -> String {
        let answer = self.discord.click(who, "general", button).await;
        let answer = if answer.text.is_none() { self.discord.finished(&answer).await } else { answer };
        answer.text.expect("an answer")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_that_shrank_is_kept_beside_the_larger_one_until_a_person_accepts_it() {
    let Some(room) = room().await else { return };
    let (alice, bob, stage) = (&room.alice, &room.bob, &room.stage);
    let mut job = 1;
    let backup = async |job: &mut i64| {
        *job += 1;
        room.ask(bob, "/backup create server:world").await;
        stage.succeeds(JobId(*job)).await;
    };
    let newest = async || stage.program.app.backups(&stage.caller, "world").await.unwrap()[0].id.clone();

    room.ask(alice, "/console server:world command:grow").await;
    backup(&mut job).await;
    let large = newest().await;
    room.ask(alice, "/console server:world command:wipe").await;
    let nothing = room.discord.autocomplete(alice, "general", "/backup accept server:world backup:").await;
    assert!(nothing.is_empty(), "nothing is in doubt yet: {nothing:?}");
    backup(&mut job).await;
    let small = newest().await;
    let notice = room.discord.wait_for("general", "Look at the world of `world`").await;
    // Nobody has decided: the next backup takes neither of the two away.
    backup(&mut job).await;

    let mut story = format!("{}\n", notice.text);
    story += &format!("{}\n", room.ask(bob, "/backup list server:world").await);
    story += &format!("{}\n", room.click(bob, "Accept it").await);
    let line = format!("/backup accept server:world backup:{large}");
    story += &format!("{}\n", room.ask(alice, &line).await);
    let offered = room.discord.autocomplete(alice, "general", "/backup accept server:world backup:").await;
    story += &format!("offered: {offered:?}\n");
    story += &format!("{}\n", room.click(alice, "Accept it").await);
    story += &format!("{}\n", room.click(alice, "Leave it").await);
    story += &format!("{}\n", room.ask(alice, &format!("/backup accept server:world backup:{small}")).await);
    story += &format!("{}\n", room.click(alice, "Accept it").await);
    story += &format!("{}\n", room.ask(alice, &format!("/backup accept server:world backup:{small}")).await);
    story += &format!("{}\n", room.ask(bob, "/backup list server:world").await);
    backup(&mut job).await;
    story += &format!("{}\n", room.ask(bob, "/backup list server:world").await);
    let audit = room.ask(alice, "/admin audit").await;
    let accepts: Vec<&str> = audit.lines().filter(|line| line.contains("· accept ")).collect();
    story += &accepts.join("\n");
    assert_snapshot!(steady(&story), @r#"
    Spawnpoint:
      Look at the world of `world`: its newest backup `<backup 2>` is much smaller than the one before, 2 bytes instead of 192 bytes. Both are kept until somebody decides. Something was lost? `/backup restore` goes back. It is meant to be like that? Then accept it.
      [Accept it]
    bob used /backup list
    Spawnpoint (only bob sees this):
      **3 backups of `world`**, <some> on disk that no other backup shares
      A world became much smaller. Until somebody decides, no backup that could undo it goes. Was it meant? `/backup accept` says so. Was something lost? `/backup restore` goes back to one before it.
      `<backup 3>` · <t:…> · 1 file, 2 bytes · asked for by bob · the present world
      `<backup 2>` · <t:…> · 1 file, 2 bytes · asked for by bob · careful: much smaller than the one before: 1 file, 2 B instead of 21 files, 192 B
      `<backup 1>` · <t:…> · 21 files, 192 bytes · asked for by bob
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    alice used /backup accept
    Spawnpoint (only alice sees this):
      The backup `<backup 1>` is not much smaller than the one before it; there is nothing to accept.
    offered: ["<backup 2> · much smaller than the one before: 1 file, 2 B instead of 21 files, 192 B"]
    Spawnpoint (only alice sees this):
      Accept the backup `<backup 2>` of `world`? It is much smaller than the one before: 1 file, 2 B instead of 21 files, 192 B. If you accept it, this smaller world counts as the right one, and the backups of the larger one go when it is their time. If something was lost, leave it: `/backup restore` goes back.
      -# Only you can answer. The question ends <t:…>.
      [Accept it] [Leave it]
    Spawnpoint (only alice sees this):
      Nothing was done.
    alice used /backup accept
    Spawnpoint (only alice sees this):
      Accept the backup `<backup 2>` of `world`? It is much smaller than the one before: 1 file, 2 B instead of 21 files, 192 B. If you accept it, this smaller world counts as the right one, and the backups of the larger one go when it is their time. If something was lost, leave it: `/backup restore` goes back.
      -# Only you can answer. The question ends <t:…>.
      [Accept it] [Leave it]
    alice used /backup accept
    Spawnpoint (only alice sees this):
      Accepted the backup `<backup 2>` of `world`. Its world counts as the right one; from the next backup on, older ones go again when it is their time.
    alice used /backup accept
    Spawnpoint (only alice sees this):
      The backup `<backup 2>` was accepted already; there is nothing to accept.
    bob used /backup list
    Spawnpoint (only bob sees this):
      **3 backups of `world`**, <some> on disk that no other backup shares
      `<backup 3>` · <t:…> · 1 file, 2 bytes · asked for by bob · the present world
      `<backup 2>` · <t:…> · 1 file, 2 bytes · asked for by bob
      `<backup 1>` · <t:…> · 21 files, 192 bytes · asked for by bob
    bob used /backup list
    Spawnpoint (only bob sees this):
      **2 backups of `world`**, <some> on disk that no other backup shares
      `<backup 4>` · <t:…> · 1 file, 2 bytes · asked for by bob · the present world
      `<backup 3>` · <t:…> · 1 file, 2 bytes · asked for by bob
      <t:…> · alice · accept `world` (<backup 2>) · refused: The backup \`<backup 2>\` was accepted already; there is nothing to accept.
      <t:…> · alice · accept `world` (<backup 2>) · done
      <t:…> · alice · accept `world` (<backup 1>) · refused: The backup \`<backup 1>\` is not much smaller than the one before it; there is nothing to accept.
      <t:…> · bob · accept `world` (<backup 2>) · refused: That needs the permission “operate”. An admin can grant it with \`/admin grant\`.
    "#);

    room.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_a_doubted_world_asks_which_one() {
    let Some(room) = room().await else { return };
    let (alice, bob) = (&room.alice, &room.bob);
    let mut job = 1;
    let mut then = async |who: &User, lines: &[&str]| {
        for line in lines {
            room.ask(who, line).await;
        }
        job += 1;
        room.stage.succeeds(JobId(job)).await;
    };
    let state = async || room.stage.program.app.status(&room.stage.caller, "world").await.unwrap().state;
    let grow = "/console server:world command:grow";
    then(alice, &[grow, "/backup create server:world"]).await;
    then(alice, &["/console server:world command:wipe", "/backup create server:world"]).await;
    // Small as the one before, and still nobody has said that this is right.
    then(bob, &["/server stop server:world"]).await;

    let mut story = format!("{}\n", room.ask(bob, "/server start server:world").await);
    story += &format!("{}\n", room.click(bob, "Go back to the good one").await);
    room.ask(alice, "/server start server:world").await;
    story += &format!("{}\n", room.click(alice, "Leave it").await);
    assert_eq!(state().await, State::Offline);
    let unasked = room.stage.program.app.start(&room.stage.caller, "world", None).await.unwrap_err();
    story += &format!("unattended: {unasked}\n");
    room.ask(bob, "/server start server:world").await;
    story += &format!("{}\n", room.click(bob, "Start with it").await);
    room.stage.succeeds(JobId(5)).await;
    story += &format!("{}\n", room.stage.program.app.logs(&room.stage.caller, "world", 1).await.unwrap());
    assert_snapshot!(steady(&story), @r#"
    bob used /server start
    Spawnpoint (only bob sees this):
      The world of `world` is in doubt: it is the backup `<backup 2>` (<t:…>, 1 file, 2 bytes), and that is much smaller than the world was. The newest good one is `<backup 1>` (<t:…>, 21 files, 192 bytes). Which one shall it be? Neither is lost by that. Going back takes the permission “operate”, and leaves it off: start it then. `/backup accept` says that a smaller world is right, and ends the question.
      -# Only you can answer. The question ends <t:…>.
      [Start with it] [Go back to the good one] [Leave it]
    bob used /server start
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    alice used /server start
    Spawnpoint (only alice sees this):
      Nothing was done.
    unattended: `world` was not started, because its world is in doubt: it is the backup `<backup 2>`, and that is much smaller than the world was. `/server start` asks whether to begin with it or to go back to `<backup 1>`.
    bob used /server start
    Spawnpoint (only bob sees this):
      Starting `world` (job 5). Watch #general.
    hello: ready to join on 27100 with 0 turns
    "#);
    room.close().await;
}

/// Its own first step keeps the present world, and as little as can be kept is kept beside that.
#[tokio::test]
async fn a_restore_never_lets_the_backup_go_that_it_restores() {
    for backend in Backend::ALL {
        let outside = Outside::default();
        let stage = Stage::open_on_with("tests/recipes", backend, &outside, |config| {
            (config.backups.keep_last, config.backups.keep_daily, config.backups.keep_weekly) = (1, 0, 0);
        })
        .await;
        let app = &stage.program.app;
        stage.create("world", "toy", &[]).await;
        for _ in 0..2 {
            stage.start("world").await;
            app.console(&stage.caller, "world", "turn").await.unwrap();
            stage.stop_server("world").await;
        }
        stage.start("world").await;
        app.console(&stage.caller, "world", "turn").await.unwrap();
        let old = app.backups(&stage.caller, "world").await.unwrap().last().unwrap().id.clone();
        stage.succeeds(app.restore(&stage.caller, "world", &old, None).await.unwrap()).await;
        let log = app.logs(&stage.caller, "world", 50).await.unwrap();
        assert!(log.contains("with 1 turns"), "{backend:?}: {log}");
        stage.close().await;
        assert!(outside.get().violations.is_empty(), "{backend:?}: {:#?}", outside.get().violations);
    }
}

#[tokio::test]
async fn a_damaged_backup_is_told_with_all_that_is_wrong() {
    let outside = Outside::default();
    let stage = Stage::open_on("tests/recipes", Backend::Docker, &outside).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    app.console(&stage.caller, "world", "turn").await.unwrap();
    stage.stop_server("world").await;
    let vault = spawnpoint::vault::Vault::open(&stage.config.data_dir.join("vault")).unwrap();
    let owner = vault.owners().unwrap().remove(0);
    let files = vault.home(&owner, vault.list(&owner).unwrap()[0].id()).join("files");
    std::fs::write(files.join("world/strange"), "nobody kept this").unwrap();
    let end = stage.end_of(app.start(&stage.caller, "world", None).await.unwrap()).await;
    let why = end.steps.iter().find_map(|step| step.error.clone()).unwrap_or_default();
    assert!(why.contains("0 files are missing, 0 have changed and 1 were added"), "{why}");
    std::fs::remove_file(files.join("world/strange")).unwrap();
    stage.close().await;
}
