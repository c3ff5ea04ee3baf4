//! Tells Discord which commands there are: per guild, where it takes effect at once, and only when they changed.

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
    hash: String,
}

pub fn registered(commands: &[poise::Command<Arc<super::commands::Front>, serenity::Error>]) -> Registered {
    let commands = poise::builtins::create_application_commands(commands);
    let mut hasher = DefaultHasher::new();
    for command in &commands {
        serde_json::to_string(command).expect("commands are plain data").hash(&mut hasher);
    }
    Registered { commands, hash: format!("{:016x}", hasher.finish()) }
}

/// Registers in one guild, trying on in the background until it worked. `anew`: the bot was just invited, so whatever
/// was registered before is gone.
pub fn register(app: App, http: Arc<serenity::Http>, guild: serenity::GuildId, what: Arc<Registered>, anew: bool) {
    tokio::spawn(async move {
        let mut pause = Duration::from_secs(5);
        while let Err(error) = registered_in(&app, &http, guild, &what, anew).await {
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
    anew: bool,
) -> anyhow::Result<()> {
    let application = http.application_id().map(serenity::ApplicationId::get).unwrap_or_default();
    let (key, value) = (format!("discord.commands.{guild}"), format!("{application}:{}", what.hash));
    if !anew && app.telling().meta(&key).await?.as_ref() == Some(&value) {
        return Ok(());
    }
    guild.set_commands(http, what.commands.clone()).await?;
    app.telling().set_meta(&key, &value).await?;
    tracing::info!(%guild, "The commands are registered.");
    Ok(())
}
