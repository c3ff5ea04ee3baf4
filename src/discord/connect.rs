//! The connection to Discord's gateway: made, watched, made anew, and ended when the program ends. serenity resumes by
//! itself after ordinary drops; what it does not come back from is found here by the watchdog.

use super::asked::Asked;
use super::commands::{self, Front, presses};
use super::register;
use super::render::text;
use super::trouble::{Trouble, trouble};
use crate::app::Refusal;
use crate::config;
use poise::serenity_prelude as serenity;
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// One request to Discord takes at most so long; serenity has no limit of its own.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// serenity gets so long to say goodbye. While it reconnects it never does.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);
/// A connection that is not whole for so long is made anew. Identifying is limited to 1000 times a day.
const DEAD_AFTER: Duration = Duration::from_secs(180);
const WATCH_EVERY: Duration = Duration::from_secs(15);
/// Pauses between tries to reach Discord.
const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A connection that lasted so long was a good one: the next pause is short again.
const LASTED: Duration = Duration::from_secs(600);

/// Why this front ended although nobody stopped it.
#[derive(Debug, thiserror::Error)]
pub enum Exit {
    #[error(
        "There is no Discord token. Put it into the configuration as `token` under [discord], or into the environment \
         as SPAWNPOINT_DISCORD__TOKEN. The README tells where to get one."
    )]
    NoToken,
    #[error(
        "Discord does not accept the token. Copy it anew from the Developer Portal (Bot, Reset Token). Spawnpoint does \
         not try again by itself, because Discord resets a token that is tried too often."
    )]
    WrongToken,
    #[error(
        "Discord does not allow the intents that Spawnpoint asks for. It asks for Guilds alone, which needs no \
         permission: look at the application in the Developer Portal."
    )]
    Intents,
    #[error("`api_url` under [discord] cannot be used: {0}")]
    Address(String),
}

impl Exit {
    /// Starting again would not help; a person has to change something first.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Exit::NoToken | Exit::WrongToken | Exit::Intents | Exit::Address(_) => true,
        }
    }
}

/// How one connection ended.
enum End {
    Stopped,
    Lost(String),
    Fatal(Exit),
}

/// A client for Discord's REST API.
pub fn http(config: &config::Discord) -> Result<serenity::Http, Exit> {
    let token = config.token.as_ref().map(|token| token.expose_secret().trim()).filter(|token| !token.is_empty());
    let token = token.ok_or(Exit::NoToken)?;
    // A token is a header: what cannot stand in one was not copied right.
    if token.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Err(Exit::WrongToken);
    }
    let client = reqwest::Client::builder().use_rustls_tls().timeout(REQUEST_LIMIT);
    let builder = serenity::HttpBuilder::new(token);
    let address = config.api_url.trim_end_matches('/');
    let build = |client: reqwest::ClientBuilder| client.build().map_err(|error| Exit::Address(error.to_string()));
    if address == config::DISCORD_URL {
        return Ok(builder.client(build(client)?).build());
    }
    if !(address.starts_with("http://") || address.starts_with("https://")) {
        return Err(Exit::Address("it begins with http:// or https://".to_owned()));
    }
    // A stand-in is on this machine, beyond no proxy. serenity asks Discord itself if its rate limiter is left on.
    Ok(builder.client(build(client.no_proxy())?).proxy(address).ratelimiter_disabled(true).build())
}

/// Stays connected until `stop`.
pub async fn stay(front: Arc<Front>, config: &config::Discord, stop: &CancellationToken) -> Result<(), Exit> {
    let mut pause = PAUSE_MIN;
    loop {
        let since = Instant::now();
        let reached = tokio::select! {
            () = stop.cancelled() => Err(End::Stopped),
            reached = reachable(config) => reached,
        };
        let end = match reached {
            Ok(()) => connected(front.clone(), config, stop).await,
            Err(end) => end,
        };
        let why = match end {
            End::Stopped => return Ok(()),
            End::Fatal(exit) => return Err(exit),
            End::Lost(why) => why,
        };
        if since.elapsed() > LASTED {
            pause = PAUSE_MIN;
        }
        tracing::warn!("Not connected to Discord; trying again in {} s: {why}", pause.as_secs());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Asks Discord with the token before any connection is made: a wrong token is never identified with, and while
/// Discord does not answer serenity would fall back to an address of its own and keep it.
async fn reachable(config: &config::Discord) -> Result<(), End> {
    let http = http(config).map_err(End::Fatal)?;
    match http.get_bot_gateway().await {
        Ok(_) => Ok(()),
        Err(error) => Err(match trouble(&error) {
            Trouble::Unauthorized => End::Fatal(Exit::WrongToken),
            trouble => End::Lost(trouble.to_string()),
        }),
    }
}

async fn connected(front: Arc<Front>, config: &config::Discord, stop: &CancellationToken) -> End {
    let http = match http(config) {
        Ok(http) => http,
        Err(exit) => return End::Fatal(exit),
    };
    let framework = poise::Framework::builder()
        .options(poise::FrameworkOptions {
            commands: commands::all(),
            on_error: |error| Box::pin(failed(error)),
            event_handler: |context, event| Box::pin(happened(context, event)),
            allowed_mentions: Some(serenity::CreateAllowedMentions::new()),
            ..poise::FrameworkOptions::default()
        })
        .initialize_owners(false)
        .setup(move |_, ready, _| {
            // Nothing here may fail: without user data every command would hang.
            tracing::info!("Connected to Discord as {}, in {} guilds.", ready.user.name, ready.guilds.len());
            Box::pin(async move { Ok(front) })
        })
        .build();
    // Guilds alone: no privileged intent, nobody's messages are read.
    let client = serenity::ClientBuilder::new_with_http(http, serenity::GatewayIntents::GUILDS)
        .framework(framework)
        .raw_event_handler(Unknown);
    let mut client = match client.await {
        Ok(client) => client,
        Err(error) => return End::Lost(trouble(&error).to_string()),
    };
    let shards = client.shard_manager.clone();
    let end = tokio::select! {
        () = stop.cancelled() => End::Stopped,
        result = client.start() => ended(result),
        () = dead(shards.clone()) => End::Lost(format!("no heartbeat for {} s", DEAD_AFTER.as_secs())),
    };
    if tokio::time::timeout(SHUTDOWN_LIMIT, shards.shutdown_all()).await.is_err() {
        tracing::debug!("The connection to Discord did not say goodbye in time.");
    }
    end
}

fn ended(result: Result<(), serenity::Error>) -> End {
    use serenity::GatewayError;
    match result {
        Ok(()) => End::Lost("the connection was ended".to_owned()),
        // Close codes 4004, 4013 and 4014: the same again would fail again.
        Err(serenity::Error::Gateway(GatewayError::InvalidAuthentication)) => End::Fatal(Exit::WrongToken),
        Err(serenity::Error::Gateway(GatewayError::InvalidGatewayIntents | GatewayError::DisallowedGatewayIntents)) => {
            End::Fatal(Exit::Intents)
        }
        Err(error) => match trouble(&error) {
            Trouble::Unauthorized => End::Fatal(Exit::WrongToken),
            trouble => End::Lost(trouble.to_string()),
        },
    }
}

/// Returns when no shard was connected for too long. serenity waits without a limit when a connection is half made.
async fn dead(shards: Arc<serenity::ShardManager>) {
    let mut alive = Instant::now();
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        // The lock is only held for moments; a runner that holds it for ever is one more way of being dead.
        if let Ok(runners) = tokio::time::timeout(WATCH_EVERY, shards.runners.lock()).await
            && runners.values().any(|runner| runner.stage == serenity::ConnectionStage::Connected)
        {
            alive = Instant::now();
        }
        if alive.elapsed() > DEAD_AFTER {
            return;
        }
    }
}

/// Everything that is no slash command.
async fn happened(
    context: poise::FrameworkContext<'_, Arc<Front>, serenity::Error>,
    event: &serenity::FullEvent,
) -> Result<(), serenity::Error> {
    let (ctx, front) = (context.serenity_context, context.user_data);
    match event {
        serenity::FullEvent::InteractionCreate { interaction: serenity::Interaction::Component(from) } => {
            presses::pressed(&Asked::component(ctx, front, from), &from.data.custom_id).await;
        }
        serenity::FullEvent::InteractionCreate { interaction: serenity::Interaction::Modal(from) } => {
            let asked = Asked::form(ctx, front, from);
            commands::forms::filled(&asked, &front.panels, from).await;
        }
        serenity::FullEvent::GuildCreate { guild, .. } => {
            let what = if front.serves(guild.id) { front.commands.clone() } else { front.no_commands.clone() };
            register::register(front.app.clone(), ctx.http.clone(), guild.id, what);
        }
        _ => {}
    }
    Ok(())
}

/// What the framework could not hand to a command. Commands answer for themselves, so these are rare.
async fn failed(error: poise::FrameworkError<'_, Arc<Front>, serenity::Error>) {
    match error {
        poise::FrameworkError::CommandPanic { payload, ctx, .. } => {
            tracing::error!("The command /{} panicked: {}", ctx.command().qualified_name, payload.unwrap_or_default());
            apologize(ctx, "Something went wrong inside Spawnpoint. Its operator finds the details in the log.").await;
        }
        poise::FrameworkError::ArgumentParse { error, ctx, .. } => {
            apologize(ctx, &format!("That cannot be used: {}", text::plain(&error.to_string(), text::REMARK_SHOWN)))
                .await;
        }
        poise::FrameworkError::CommandStructureMismatch { ctx, description, .. } => {
            tracing::warn!("Discord holds an older form of a command: {description}");
            apologize(ctx.into(), "The commands have just changed. Try again in a minute.").await;
        }
        poise::FrameworkError::UnknownInteraction { interaction, .. } => {
            tracing::warn!("Discord holds a command that is not ours any more: /{}", interaction.data.name);
        }
        poise::FrameworkError::GuildOnly { ctx, .. } => {
            apologize(ctx, "Servers belong to a Discord server: ask there, not in private.").await;
        }
        error => match error {
            poise::FrameworkError::Command { error, .. } | poise::FrameworkError::EventHandler { error, .. } => {
                tracing::warn!("A request to Discord failed: {}", trouble(&error));
            }
            error => tracing::warn!("The command framework reported: {error}"),
        },
    }
}

async fn apologize(ctx: poise::Context<'_, Arc<Front>, serenity::Error>, sentence: &str) {
    if let poise::Context::Application(ctx) = ctx {
        let asked = Asked::command(ctx.framework.serenity_context, ctx.framework.user_data, ctx.interaction);
        asked.answer(async { Err(Refusal::Invalid(sentence.to_owned())) }).await;
    }
}

/// Interactions that serenity cannot read would do nothing at all, silently.
struct Unknown;

#[serenity::async_trait]
impl serenity::RawEventHandler for Unknown {
    async fn raw_event(&self, _: serenity::Context, event: serenity::Event) {
        if let serenity::Event::Unknown(event) = event
            && event.kind == "INTERACTION_CREATE"
        {
            tracing::warn!("Discord sent an interaction of a form that is not known; nobody was answered.");
        }
    }
}
