//! What `spawnpoint doctor` says about Discord: the program itself in a terminal, beside a stand-in, over the data of a
//! bot that has run. What it says of machines and providers is in trust.rs.

mod common {
    pub mod bot;
    pub mod discord;
}

use common::bot::{Bot, Home};
use common::discord::{Discord, Fault};
use serde_json::json;
use std::process::Command;

/// Its sentences about Discord, and whether it was content with everything.
async fn doctor(discord: &Discord, home: &Home, token: &str) -> String {
    let path = |name: &str| home.path().join(name).display().to_string();
    let config = format!(
        "data_dir = {:?}\ngame_scripts = {:?}\n[database]\nurl = {:?}\n[docker]\nenabled = false\n\
         [discord]\napi_url = {:?}\ntoken = {token:?}\n",
        path(""),
        path("game-scripts"),
        format!("sqlite:{}", path("test.db")),
        discord.api_url()
    );
    std::fs::write(path("config.toml"), config).expect("it is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_spawnpoint"));
    command.args(["--config", &path("config.toml"), "doctor"]).env_remove("SPAWNPOINT_DISCORD__TOKEN");
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let about_discord = |line: &&str| ["“Friends”", "token", "Discord"].iter().any(|word| line.contains(word));
    let said: Vec<&str> = text.lines().filter(about_discord).collect();
    assert!(!said.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let ids = regex::Regex::new("client_id=[0-9]+").expect("a pattern");
    ids.replace_all(&format!("{}\n(content: {})\n", said.join("\n"), output.status.success()), "client_id=…").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_what_keeps_the_bot_from_working_in_a_guild() {
    let world = json!({
        "channels": ["general", "rules", "attic"],
        "users": [{"name": "alice", "permissions": ["manage_guild"]}],
    });
    let Some(discord) = Discord::start(world).await else { return };
    let (alice, home) = (discord.user("alice"), Home::new());
    let bot = Bot::start(&discord, &home).await;
    discord.slash(&alice, "general", "/server create name:world game:toy").await;
    discord.wait_for("general", "world.*offline").await;
    bot.end().await.unwrap();

    let mut story = String::from("All is well.\n");
    story += &doctor(&discord, &home, discord.token()).await;
    story += "\nIt is shut out of the channel of its panel, and may not write in another.\n";
    discord.deny_bot("general", &["view_channel", "send_messages"]).await;
    discord.deny_bot("rules", &["send_messages"]).await;
    story += &doctor(&discord, &home, discord.token()).await;
    story += "\nIt is shut out of all.\n";
    discord.deny_bot("attic", &["view_channel"]).await;
    story += &doctor(&discord, &home, discord.token()).await;
    story += "\nIt was invited without its commands.\n";
    for channel in ["general", "rules", "attic"] {
        discord.deny_bot(channel, &[]).await;
    }
    let refused = Fault::Error { status: 403, code: 50001 };
    discord.fault("GET", "/applications/*/guilds/*/commands", 1, refused).await;
    story += &doctor(&discord, &home, discord.token()).await;
    story += "\nThe token is of yesterday.\n";
    story += &doctor(&discord, &home, &discord.token().replace("stand1", "stand0")).await;
    insta::assert_snapshot!(story);
}
