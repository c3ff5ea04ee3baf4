//! The connection to Discord's gateway: made, watched, made anew, and ended when the program ends. serenity resumes by
//! itself after ordinary drops; what it does not come back from is found here by the watchdog.

use super::asked::Asked;
use super::commands::{self, Front, presses};
use super::gate::{Allowance, Gate};
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
/// A connection that was begun and is not whole after so long is made anew.
pub const WHOLE_WITHIN: Duration = Duration::from_secs(180);
/// The gate is opened so often for whoever stands before it.
const TURN_EVERY: Duration = Duration::from_millis(100);
/// With so few sessions left, Discord's limit is near and its end would cost the token (see `gate`). They are left for a
/// person who mends what went wrong and starts Spawnpoint again, and for other programs with this token.
const FEW_SESSIONS: u64 = 10;
/// Discord counts sessions for 24 hours; no wait for more of them is longer.
const RESET_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Pauses between tries to reach Discord. They bound no sessions: the gate does.
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
    #[error("no HTTP client could be made; the environment may name certificates or a proxy that cannot be read: {0}")]
    Client(String),
}

impl Exit {
    /// Starting again would not help; a person has to change something first.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Exit::NoToken | Exit::WrongToken | Exit::Intents | Exit::Address(_) | Exit::Client(_) => true,
        }
    }
}

/// How one connection ended.
enum End {
    Stopped,
    Lost(String),
    Fatal(Exit),
}

/// What Discord says to who asks for its gateway.
struct Reached {
    address: String,
    /// So many sessions may be begun.
    sessions: u64,
}

/// Why the gateway is not connected to yet.
enum Wait {
    Unreachable(String),
    FewSessions { remaining: u64, reset: Duration },
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
    let build = |client: reqwest::ClientBuilder| {
        client.build().map_err(|error| Exit::Client(format!("{:#}", anyhow::Error::from(error))))
    };
    if address == config::DISCORD_URL {
        return Ok(builder.client(build(client)?).build());
    }
    if !(address.starts_with("http://") || address.starts_with("https://")) {
        return Err(Exit::Address("it begins with http:// or https://".to_owned()));
    }
    // A stand-in is on this machine, beyond no proxy. serenity asks Discord itself if its rate limiter is left on.
    Ok(builder.client(build(client.no_proxy())?).proxy(address).ratelimiter_disabled(true).build())
}

/// Stays connected until `stop`. A connection that is not whole within `whole_within` is made anew.
pub async fn stay(
    front: Arc<Front>,
    config: &config::Discord,
    whole_within: Duration,
    stop: &CancellationToken,
) -> Result<(), Exit> {
    let mut pause = PAUSE_MIN;
    let mut allowance = Allowance::new(Instant::now());
    loop {
        let since = Instant::now();
        let reached = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            reached = reached(config) => reached?,
        };
        let why = match connected(front.clone(), config, reached, &mut allowance, whole_within, stop).await {
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

/// Asks Discord with the token before any connection is made, until it lets us: a wrong token is never identified with,
/// the last sessions are never begun, and while Discord does not answer serenity would fall back to an address of its
/// own and keep it.
async fn reached(config: &config::Discord) -> Result<Reached, Exit> {
    let mut pause = PAUSE_MIN;
    loop {
        match reachable(config).await? {
            Ok(reached) => return Ok(reached),
            Err(Wait::Unreachable(why)) => {
                tracing::warn!("Not connected to Discord; trying again in {} s: {why}", pause.as_secs());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(Wait::FewSessions { remaining, reset }) => {
                tracing::warn!(
                    "Discord lets this bot connect only {remaining} more times before it takes the token away, because \
                     it connected so often in the last 24 hours. Spawnpoint connects again in {} min, when there are \
                     more; games, leases and backups go on. Does another program use the same token?",
                    reset.as_secs().div_ceil(60)
                );
                tokio::time::sleep(reset).await;
            }
        }
    }
}

async fn reachable(config: &config::Discord) -> Result<Result<Reached, Wait>, Exit> {
    let gateway = match http(config)?.get_bot_gateway().await {
        Ok(gateway) => gateway,
        Err(error) => match trouble(&error) {
            Trouble::Unauthorized => return Err(Exit::WrongToken),
            trouble => return Ok(Err(Wait::Unreachable(trouble.to_string()))),
        },
    };
    let limit = gateway.session_start_limit;
    Ok(match limit.remaining.saturating_sub(FEW_SESSIONS) {
        0 => {
            let reset = Duration::from_millis(limit.reset_after).clamp(PAUSE_MIN, RESET_MAX);
            Err(Wait::FewSessions { remaining: limit.remaining, reset })
        }
        sessions => Ok(Reached { address: gateway.url, sessions }),
    })
}

async fn connected(
    front: Arc<Front>,
    config: &config::Discord,
    reached: Reached,
    allowance: &mut Allowance,
    whole_within: Duration,
    stop: &CancellationToken,
) -> End {
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
    allowance.told(reached.sessions);
    let mut gate = Gate::shut(&client, reached.address).await;
    let end = tokio::select! {
        () = stop.cancelled() => End::Stopped,
        result = client.start() => ended(result),
        end = watched(&shards, &mut gate, allowance, config, whole_within) => end,
    };
    drop(client);
    // From here on nothing of it connects again.
    gate.leads_to(String::new()).await;
    if tokio::time::timeout(SHUTDOWN_LIMIT, shards.shutdown_all()).await.is_err() {
        tracing::debug!("The connection to Discord did not say goodbye in time.");
    }
    tokio::spawn(gate.retire(shards));
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

/// Lets serenity connect, as often as is allowed. Returns when what it began is not whole for too long, because it waits
/// without a limit when a connection is half made; or with what a person has to mend.
async fn watched(
    shards: &serenity::ShardManager,
    gate: &mut Gate,
    allowance: &mut Allowance,
    config: &config::Discord,
    whole_within: Duration,
) -> End {
    let is_connected = |runner: &serenity::ShardRunnerInfo| runner.stage == serenity::ConnectionStage::Connected;
    let mut alive = Instant::now();
    loop {
        if let Some(asks) = allowance.spent(Instant::now()) {
            let wait = asks - Instant::now();
            if !wait.is_zero() {
                tracing::warn!(
                    "Discord was connected to too often in a short time; the next time is in {} s.",
                    wait.as_secs()
                );
            }
            tokio::time::sleep(wait).await;
            match reached(config).await {
                Ok(reached) => {
                    allowance.told(reached.sessions);
                    gate.leads_to(reached.address).await;
                }
                Err(exit) => return End::Fatal(exit),
            }
            alive = Instant::now();
        }
        if gate.turn().await {
            allowance.take();
            alive = Instant::now();
        }
        // The lock is only held for moments; a runner that holds it for ever is one more way of being dead.
        if shards.runners.try_lock().is_ok_and(|runners| runners.values().any(is_connected)) {
            alive = Instant::now();
        }
        if alive.elapsed() > whole_within {
            return End::Lost(format!("it was not whole within {} s", whole_within.as_secs()));
        }
        tokio::time::sleep(TURN_EVERY).await;
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
