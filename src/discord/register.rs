//! Tells Discord which commands there are: per guild, where it takes effect at once, and only when they changed. A bot
//! that was sent away loses them, also while it was not running, so Discord is asked which it holds.

use crate::app::App;
use poise::serenity_prelude as serenity;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// Pauses between tries grow up to this: a guild may have invited the bot without `applications.commands`.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The commands as Discord takes them, and a fingerprint of them.
pub struct Registered {
    commands: Vec<serenity::CreateCommand>,
    /// Sorted.
    names: Vec<String>,
    hash: String,
}

pub fn registered(commands: &[poise::Command<Arc<super::commands::Front>, serenity::Error>]) -> Registered {
    let mut names: Vec<String> = commands.iter().map(|command| command.name.to_string()).collect();
    names.sort_unstable();
    let commands = poise::builtins::create_application_commands(commands);
    let mut hasher = DefaultHasher::new();
    for command in &commands {
        serde_json::to_string(command).expect("commands are plain data").hash(&mut hasher);
    }
    Registered { commands, names, hash: format!("{:016x}", hasher.finish()) }
}

/// Registers in one guild, trying on in the background until it worked.
pub fn register(app: App, http: Arc<serenity::Http>, guild: serenity::GuildId, what: Arc<Registered>) {
    tokio::spawn(async move {
        let mut pause = Duration::from_secs(5);
        while let Err(error) = registered_in(&app, &http, guild, &what).await {
            tracing::warn!(%guild, "The commands could not be registered; trying again in {} s: {error:#}", pause.as_secs());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    });
}

async fn registered_in(
    app: &App,
    http: &serenity::Http,
    guild: serenity::GuildId,
    what: &Registered,
) -> anyhow::Result<()> {
    let application = http.application_id().map(serenity::ApplicationId::get).unwrap_or_default();
    let (key, value) = (format!("discord.commands.{guild}"), format!("{application}:{}", what.hash));
    let mut there: Vec<String> = guild.get_commands(http).await?.into_iter().map(|command| command.name).collect();
    there.sort_unstable();
    if there == what.names && (there.is_empty() || app.telling().meta(&key).await?.as_ref() == Some(&value)) {
        return Ok(());
    }
    guild.set_commands(http, what.commands.clone()).await?;
    app.telling().set_meta(&key, &value).await?;
    match what.commands.as_slice() {
        [] => tracing::info!(%guild, "This guild is not served; its commands are taken away."),
        _ => tracing::info!(%guild, "The commands are registered."),
    }
    Ok(())
}
