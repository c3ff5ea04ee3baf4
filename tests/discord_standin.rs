//! Proves the stand-in Discord with a small real bot (serenity and poise, as ours), so that other tests may trust it.
//!
//! What is claimed here is Discord's behaviour, not Spawnpoint's: the bot below exists for these tests only.

mod common {
    pub mod discord;
}

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::discord::{Cut, Discord, Fault, Outage, parse_slash, redact};
use insta::assert_snapshot;
use poise::serenity_prelude as serenity;
use serde_json::json;
use serenity::{
    ButtonStyle, ChannelId, ComponentInteraction, CreateActionRow, CreateAllowedMentions, CreateAttachment,
    CreateButton, CreateEmbed, CreateInputText, CreateInteractionResponse, CreateInteractionResponseMessage,
    CreateMessage, CreateModal, CreateSelectMenu, CreateSelectMenuKind, CreateSelectMenuOption, EditMessage, FullEvent,
    GuildId, Http, HttpError, InputTextStyle, MessageId, ModalInteraction,
};
use tokio::{sync::Semaphore, task::JoinHandle};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Context<'a> = poise::Context<'a, Data, Error>;

// ------------------------------------------------------------------------------------------------------- the bot

#[derive(Clone, Default)]
struct Data {
    /// What commands failed with, as `401/50027`.
    failures: Arc<Mutex<Vec<String>>>,
    /// A permit lets a command that waits go on.
    gate: Gate,
}

#[derive(Clone)]
struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    async fn pass(&self) {
        self.0.acquire().await.expect("it is never closed").forget();
    }

    fn open(&self) {
        self.0.add_permits(1);
    }
}

struct Bot {
    http: Arc<Http>,
    data: Data,
    running: JoinHandle<serenity::Result<()>>,
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Bot {
    async fn start(discord: &Discord) -> Self {
        Self::start_with(discord, discord.token()).await
    }

    async fn start_with(discord: &Discord, token: &str) -> Self {
        let data = Data::default();
        let shared = data.clone();
        let framework = poise::Framework::builder()
            .options(poise::FrameworkOptions {
                commands: vec![server(), work(), slow(), grant(), secret(), panel(), shout()],
                event_handler: |framework, event| Box::pin(on_event(framework.serenity_context, event)),
                on_error: |error| Box::pin(note_failure(error)),
                ..Default::default()
            })
            .setup(move |ctx, ready, framework| {
                Box::pin(async move {
                    for guild in &ready.guilds {
                        poise::builtins::register_in_guild(ctx, &framework.options().commands, guild.id).await?;
                    }
                    Ok(shared)
                })
            })
            .build();
        // With serenity's own rate limiter the proxy would be ignored and the real Discord be called.
        let http = serenity::HttpBuilder::new(token).proxy(discord.api_url()).ratelimiter_disabled(true).build();
        let mut client = serenity::ClientBuilder::new_with_http(http, serenity::GatewayIntents::GUILDS)
            .framework(framework)
            .await
            .expect("a client");
        let http = Arc::clone(&client.http);
        Self { http, data, running: tokio::spawn(async move { client.start().await }) }
    }

    fn failures(&self) -> Vec<String> {
        self.data.failures.lock().expect("not poisoned").clone()
    }
}

/// What Discord said, as `status/code`.
fn said(error: &serenity::Error) -> String {
    match error {
        serenity::Error::Http(HttpError::UnsuccessfulRequest(r)) => {
            format!("{}/{}", r.status_code.as_u16(), r.error.code)
        }
        other => format!("{other:?}"),
    }
}

async fn note_failure(error: poise::FrameworkError<'_, Data, Error>) {
    if let poise::FrameworkError::Command { error, ctx, .. } = error {
        let text = error.downcast_ref::<serenity::Error>().map_or_else(|| error.to_string(), said);
        ctx.data().failures.lock().expect("not poisoned").push(text);
    }
}

#[poise::command(slash_command, subcommands("start"), subcommand_required)]
async fn server(_: Context<'_>) -> Result<(), Error> {
    Ok(())
}

async fn servers(_: Context<'_>, typed: &str) -> serenity::CreateAutocompleteResponse {
    let found = ["world", "worldly", "desert"].into_iter().filter(|name| name.starts_with(typed));
    serenity::CreateAutocompleteResponse::new()
        .set_choices(found.map(|name| serenity::AutocompleteChoice::new(name, name)).collect())
}

/// Start a server
#[poise::command(slash_command)]
async fn start(
    ctx: Context<'_>,
    #[description = "Which one"]
    #[autocomplete = "servers"]
    server: String,
    #[description = "For how many minutes"]
    #[min = 1]
    #[max = 600]
    minutes: Option<u32>,
) -> Result<(), Error> {
    ctx.say(format!("Starting **{server}** for {} min.", minutes.unwrap_or(60))).await?;
    let mut message = ctx.channel_id().send_message(&ctx.http(), CreateMessage::new().content("step 1 of 3")).await?;
    for step in 2..=3 {
        message.edit(&ctx.http(), EditMessage::new().content(format!("step {step} of 3"))).await?;
    }
    let embed =
        CreateEmbed::new().title(&server).field("Address", "play.example:2456", true).description("Ready in 1.25 s.");
    let stop = CreateButton::new(format!("v1:stop:{server}")).label("Stop").style(ButtonStyle::Danger);
    let start = CreateButton::new(format!("v1:start:{server}")).label("Start").disabled(true);
    let row = CreateActionRow::Buttons(vec![stop, start, CreateButton::new_link("https://example.org").label("Map")]);
    message.edit(&ctx.http(), EditMessage::new().content("").embed(embed).components(vec![row])).await?;
    Ok(())
}

/// Takes a while
#[poise::command(slash_command)]
async fn work(ctx: Context<'_>) -> Result<(), Error> {
    ctx.defer().await?;
    ctx.data().gate.pass().await;
    ctx.say("Worked.").await?;
    Ok(())
}

/// Never answers in time
#[poise::command(slash_command)]
async fn slow(ctx: Context<'_>) -> Result<(), Error> {
    ctx.data().gate.pass().await;
    ctx.say("Too late.").await?;
    Ok(())
}

/// Options of every kind
#[poise::command(slash_command)]
async fn grant(
    ctx: Context<'_>,
    #[description = "Who"] user: serenity::User,
    #[description = "What"] role: serenity::Role,
    #[description = "Where"] channel: serenity::GuildChannel,
    #[description = "For good"] forever: bool,
    #[description = "Why"] note: Option<String>,
) -> Result<(), Error> {
    let locale = ctx.locale().unwrap_or("?").to_owned();
    ctx.say(format!("{} {} {} {forever} {note:?} {locale}", user.name, role.name, channel.name)).await?;
    Ok(())
}

/// For those who manage the guild
#[poise::command(slash_command, default_member_permissions = "MANAGE_GUILD", ephemeral)]
async fn secret(ctx: Context<'_>) -> Result<(), Error> {
    ctx.send(poise::CreateReply::default().content("psst").attachment(CreateAttachment::bytes(*b"line\n", "log.txt")))
        .await?;
    Ok(())
}

/// Buttons and a menu
#[poise::command(slash_command)]
async fn panel(ctx: Context<'_>) -> Result<(), Error> {
    ctx.serenity_context().set_activity(Some(serenity::ActivityData::custom("2 playing")));
    let buttons = CreateActionRow::Buttons(vec![
        CreateButton::new("settings").label("Settings"),
        CreateButton::new("count:1").label("Count"),
    ]);
    let options = vec![CreateSelectMenuOption::new("Monday", "mon"), CreateSelectMenuOption::new("Tuesday", "tue")];
    let menu = CreateSelectMenu::new("day", CreateSelectMenuKind::String { options }).placeholder("Which backup");
    let components = vec![buttons, CreateActionRow::SelectMenu(menu)];
    ctx.send(poise::CreateReply::default().content("Panel").components(components)).await?;
    Ok(())
}

/// Mentions
#[poise::command(slash_command)]
async fn shout(ctx: Context<'_>, #[description = "Loud"] aloud: bool) -> Result<(), Error> {
    let message = CreateMessage::new().content(format!("@everyone <@{}>", ctx.author().id));
    let message = if aloud { message } else { message.allowed_mentions(CreateAllowedMentions::new()) };
    ctx.channel_id().send_message(&ctx.http(), message).await?;
    ctx.say("done").await?;
    Ok(())
}

async fn on_event(ctx: &serenity::Context, event: &FullEvent) -> Result<(), Error> {
    let FullEvent::InteractionCreate { interaction } = event else { return Ok(()) };
    if let Some(component) = interaction.as_message_component() {
        on_component(ctx, component).await?;
    }
    if let Some(modal) = interaction.as_modal_submit() {
        on_modal(ctx, modal).await?;
    }
    Ok(())
}

async fn on_component(ctx: &serenity::Context, component: &ComponentInteraction) -> serenity::Result<()> {
    let answer = CreateInteractionResponseMessage::new();
    let response = match component.data.custom_id.as_str() {
        "settings" => {
            let text = |label, id| CreateInputText::new(InputTextStyle::Short, label, id);
            let fields = vec![
                CreateActionRow::InputText(text("Name", "name").value("world").max_length(8)),
                CreateActionRow::InputText(text("Note", "note").required(false).placeholder("anything")),
            ];
            CreateInteractionResponse::Modal(CreateModal::new("v1:settings", "Settings of world").components(fields))
        }
        "day" => {
            let serenity::ComponentInteractionDataKind::StringSelect { values } = &component.data.kind else {
                return Ok(());
            };
            CreateInteractionResponse::Message(answer.content(format!("chose {values:?}")).ephemeral(true))
        }
        other => {
            let count: u32 = other.strip_prefix("count:").and_then(|n| n.parse().ok()).unwrap_or(0);
            let button = CreateButton::new(format!("count:{}", count + 1)).label("Count");
            let row = CreateActionRow::Buttons(vec![button]);
            CreateInteractionResponse::UpdateMessage(answer.content(format!("Panel {count}")).components(vec![row]))
        }
    };
    component.create_response(&ctx.http, response).await
}

async fn on_modal(ctx: &serenity::Context, modal: &ModalInteraction) -> serenity::Result<()> {
    let mut values = Vec::new();
    for row in &modal.data.components {
        for part in &row.components {
            if let serenity::ActionRowComponent::InputText(input) = part {
                values.push(format!("{}={}", input.custom_id, input.value.as_deref().unwrap_or("")));
            }
        }
    }
    let answer = CreateInteractionResponseMessage::new().content(values.join(" ")).ephemeral(true);
    modal.create_response(&ctx.http, CreateInteractionResponse::Message(answer)).await
}

// ----------------------------------------------------------------------------------------------------- the world

/// `None` is a printed skip.
async fn friends() -> Option<(Discord, Bot)> {
    let discord = Discord::start(json!({
        "channels": ["general", {"name": "servers", "topic": "What runs"}],
        "roles": [{"name": "players"}],
        "users": [{"name": "alice", "permissions": ["manage_guild"], "locale": "de"}, {"name": "bob", "roles": ["players"]}],
    }))
    .await?;
    let bot = Bot::start(&discord).await;
    Some((discord, bot))
}

async fn channel(discord: &Discord, bot: &Bot, name: &str) -> ChannelId {
    discord.wait_gateway(json!({"connected": 1})).await;
    let guild = bot.http.get_guilds(None, None).await.expect("guilds")[0].id;
    let channels = bot.http.get_channels(guild).await.expect("channels");
    channels.iter().find(|channel| channel.name == name).expect("a channel of that name").id
}

// ------------------------------------------------------------------------------------------------- conversations

#[tokio::test]
async fn a_slash_command_is_answered_and_a_message_is_edited_in_place() {
    let Some((discord, _bot)) = friends().await else { return };
    let alice = discord.user("alice");

    let answer = discord.slash(&alice, "general", "/server start server:world minutes:90").await;
    assert_eq!(answer.kind.as_deref(), Some("message"));
    discord.wait_for("general", "Ready").await;
    assert_snapshot!(discord.channel_text("general").await, @r#"
    alice used /server start
    Spawnpoint:
      Starting **world** for 90 min.
    Spawnpoint:
      ▌ world
      ▌ Ready in <time>.
      ▌ Address: play.example:2456
      [Stop] [Start (disabled)] [Map → https://example.org]
    "#);

    let edits = discord.requests("PATCH", "/channels/*/messages/*").await;
    assert_eq!(edits.len(), 3);
    assert!(edits.iter().all(|edit| edit.status == 200));
    let refused = discord.try_click(&alice, "general", "Start").await.expect_err("it is disabled");
    assert!(refused.0.contains("disabled"), "{refused}");
    discord.try_click(&alice, "general", "Map").await.expect_err("a link asks nobody");
}

#[tokio::test]
async fn choices_come_from_the_bot_and_options_are_what_the_command_declares() {
    let Some((discord, _bot)) = friends().await else { return };
    let alice = discord.user("alice");

    assert_eq!(discord.autocomplete(&alice, "general", "/server start server:wor").await, ["world", "worldly"]);
    assert!(discord.autocomplete(&alice, "general", "/server start minutes:5 server:x").await.is_empty());

    let line = r#"/grant user:@bob role:players channel:#servers forever:true note:"a: \"b\"\nc""#;
    let answer = discord.slash(&alice, "general", line).await;
    assert_snapshot!(answer.content.expect("an answer"), @r#"bob players servers true Some("a: \"b\"\nc") de"#);

    for (line, why) in [
        ("/server start", "requires option 'server'"),
        ("/server start server:world minutes:601", "must be ≤ 600"),
        ("/server stop server:world", "no subcommand"),
        ("/server start server:world colour:red", "no option 'colour'"),
    ] {
        let refused = discord.try_slash(&alice, "general", line).await.expect_err(line);
        assert!(refused.0.contains(why), "{line}: {refused}");
    }
}

#[tokio::test]
async fn a_deferred_answer_thinks_and_then_speaks() {
    let Some((discord, bot)) = friends().await else { return };
    let alice = discord.user("alice");

    let answer = discord.slash(&alice, "general", "/work").await;
    assert!(answer.thinking);
    assert_snapshot!(discord.channel_text("general").await, @r#"
    alice used /work
    Spawnpoint is thinking…
    "#);
    bot.data.gate.open();
    let answer = discord.finished(&answer).await;
    assert_snapshot!(answer.text.expect("an answer"), @r#"
    alice used /work
    Spawnpoint:
      Worked.
    "#);
}

#[tokio::test]
async fn buttons_menus_and_forms_reach_the_bot() {
    let Some((discord, _bot)) = friends().await else { return };
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));
    discord.slash(&alice, "general", "/panel").await;
    discord.wait_presence("2 playing").await;

    let form = discord.click(&bob, "general", "Settings").await;
    assert_snapshot!(form.modal.as_deref().expect("a form"), @r#"
    form Settings of world:
      Name: world
      Note (optional):  <anything>
    "#);
    discord.try_modal(&form, &[("Name", "much too long")]).await.expect_err("eight characters are allowed");
    let answer = discord.modal(&form, &[("Note", "hello")]).await;
    assert_eq!(answer.content.as_deref(), Some("name=world note=hello"));
    discord.try_modal(&form, &[]).await.expect_err("a form is sent once");

    let chosen = discord.select(&alice, "general", "day", &["Tuesday"]).await.expect("an answer");
    assert_eq!(chosen.content.as_deref(), Some(r#"chose ["tue"]"#));

    discord.click(&alice, "general", "Count").await;
    let updated = discord.click(&bob, "general", "Count").await;
    assert_eq!(updated.kind.as_deref(), Some("update"));
    assert_snapshot!(discord.channel_text("general").await, @r#"
    alice used /panel
    Spawnpoint:
      Panel 2
      [Count]
    "#);
    assert_snapshot!(discord.channel_text_for(&bob, "general").await, @r#"
    alice used /panel
    Spawnpoint:
      Panel 2
      [Count]
    Spawnpoint (only bob sees this):
      name=world note=hello
    "#);
}

#[tokio::test]
async fn commands_answers_and_files_are_for_those_who_may_see_them() {
    let Some((discord, _bot)) = friends().await else { return };
    let (alice, bob) = (discord.user("alice"), discord.user("bob"));

    discord.slash(&alice, "general", "/secret").await;
    assert_snapshot!(discord.channel_text_for(&alice, "general").await, @r#"
    alice used /secret
    Spawnpoint (only alice sees this):
      psst
      file log.txt, 5 bytes
    "#);
    assert_eq!(discord.channel_text_for(&bob, "general").await, "");
    let refused = discord.try_slash(&bob, "general", "/secret").await.expect_err("bob does not manage the guild");
    assert!(refused.0.contains("not visible to this user"), "{refused}");

    let carol = discord.join(json!({"name": "carol", "permissions": ["manage_guild"]})).await;
    discord.slash(&carol, "servers", "/secret").await;
}

#[tokio::test]
async fn a_mention_is_told_from_its_text() {
    let Some((discord, _bot)) = friends().await else { return };
    let alice = discord.user("alice");

    discord.slash(&alice, "general", "/shout aloud:false").await;
    discord.slash(&alice, "servers", "/shout aloud:true").await;
    let quiet = &discord.messages("general").await[0];
    let loud = &discord.messages("servers").await[0];
    assert_eq!((quiet.content.as_str(), loud.content.as_str()), (loud.content.as_str(), quiet.content.as_str()));
    assert!(quiet.pings.is_empty());
    assert_eq!(loud.pings, ["@everyone", "@alice"]);
}

// ------------------------------------------------------------------------------------------------------ the rules

#[tokio::test]
async fn an_interaction_must_be_answered_in_time() {
    let world = json!({"users": ["alice"]});
    let Some(discord) = Discord::start_with(world, &["--ack-s", "0.5"]).await else { return };
    let bot = Bot::start(&discord).await;
    let alice = discord.user("alice");

    let answer = discord.slash(&alice, "general", "/slow").await;
    assert_eq!(answer.kind, None);
    bot.data.gate.open();
    let answers = discord.wait_requests("POST", "/interactions/*/callback", 1).await;
    assert_eq!((answers[0].status.clone(), answers[0].answer["code"].clone()), (404.into(), 10062.into()));
}

#[tokio::test]
async fn after_a_quarter_of_an_hour_the_answer_is_dead_and_the_message_is_not() {
    let Some((discord, bot)) = friends().await else { return };
    let alice = discord.user("alice");
    let general = channel(&discord, &bot, "general").await;
    let mut message = general.say(&bot.http, "running").await.expect("a message");

    let answer = discord.slash(&alice, "general", "/work").await;
    discord.advance(Duration::from_secs(16 * 60)).await;
    bot.data.gate.open();
    discord.wait_requests("POST", "/webhooks/*", 1).await;
    let token_gone = bot.http.get_original_interaction_response(&token_of(&discord, &answer.interaction).await).await;
    assert_eq!(said(&token_gone.expect_err("the token is dead")), "401/50027");

    message.edit(&bot.http, EditMessage::new().content("still running")).await.expect("a message does not expire");
    discord.wait_for("general", "still running").await;
    assert_eq!(bot.failures(), ["401/50027"]);
}

/// The token of an interaction, as the bot has used it.
async fn token_of(discord: &Discord, interaction: &str) -> String {
    let answered = discord.requests("POST", &format!("/interactions/{interaction}/*/callback")).await;
    answered[0].path.split('/').nth(3).expect("a token").to_owned()
}

#[tokio::test]
async fn forbidden_channels_and_deleted_messages_are_refused_as_discord_does() {
    let Some((discord, bot)) = friends().await else { return };
    let general = channel(&discord, &bot, "general").await;
    let mut message = general.say(&bot.http, "here").await.expect("a message");

    discord.deny_bot("general", &["send_messages"]).await;
    assert_eq!(said(&general.say(&bot.http, "x").await.expect_err("no permission")), "403/50013");
    discord.deny_bot("general", &["view_channel"]).await;
    assert_eq!(said(&general.say(&bot.http, "x").await.expect_err("no access")), "403/50001");
    discord.deny_bot("general", &[]).await;
    general.say(&bot.http, "again").await.expect("allowed again");

    discord.delete_message("general", &message.id.to_string()).await;
    let gone = message.edit(&bot.http, EditMessage::new().content("x")).await;
    assert_eq!(said(&gone.expect_err("it was deleted")), "404/10008");
    let nowhere = ChannelId::new(1).say(&bot.http, "x").await;
    assert_eq!(said(&nowhere.expect_err("no such channel")), "404/10003");
    let too_long = general.say(&bot.http, "x".repeat(2001)).await.expect_err("2000 are allowed");
    assert!(matches!(too_long, serenity::Error::Model(_)), "serenity itself refuses it: {too_long:?}");
}

#[tokio::test]
async fn a_wrong_token_is_turned_away() {
    let Some(discord) = Discord::start(json!({})).await else { return };
    let mut bot = Bot::start_with(&discord, "MTIz.wrong.token").await;
    let ended = (&mut bot.running).await.expect("no panic").expect_err("it cannot log in");
    assert!(matches!(ended, serenity::Error::Gateway(serenity::GatewayError::InvalidAuthentication)), "{ended:?}");
    assert_eq!(said(&bot.http.get_current_user().await.expect_err("unauthorized")), "401/0");
}

#[tokio::test]
async fn what_discord_would_not_take_is_a_violation() {
    let Some((discord, bot)) = friends().await else { return };
    let general = channel(&discord, &bot, "general").await;

    let body = json!({"content": "x", "colour": "red"});
    bot.http.send_message(general, vec![], &body).await.ok();
    let commands = json!([{"name": "Bad", "description": "x", "name_localizations": {"xx": "bad"}}]);
    bot.http.create_guild_commands(GuildId::new(1), &commands).await.ok();
    bot.http.delete_message_reactions(general, MessageId::new(5)).await.ok();

    let found: Vec<String> = discord.take_violations().await.into_iter().map(|v| v.what).collect();
    let expected: &[&str] = if discord.checks_openapi() {
        &["'colour' was unexpected", "lower case", "locale"]
    } else {
        &["lower case", "locale"]
    };
    for what in expected {
        assert!(found.iter().any(|v| v.contains(what)), "{what} is not in {found:#?}");
    }
}

// ----------------------------------------------------------------------------------------------- broken networks

#[tokio::test]
async fn a_dropped_connection_is_resumed_and_nothing_is_missed() {
    let Some((discord, _bot)) = friends().await else { return };
    let alice = discord.user("alice");
    discord.slash(&alice, "general", "/server start server:world").await;

    for (resumes, how) in [(1, Cut::Abort), (2, Cut::Close(4000)), (3, Cut::Reconnect)] {
        discord.drop_gateway(how).await;
        let answer = discord.slash_while_offline(&alice, "general", "/server start server:world").await;
        let answer = answer.expect("a person can do this");
        assert_eq!(answer.kind.as_deref(), Some("message"), "{:?}", discord.gateway().await);
        let gateway = discord.wait_gateway(json!({"resumes": resumes, "connected": 1})).await;
        assert_eq!((gateway.resumes, gateway.identifies), (resumes, 1));
    }
}

#[tokio::test]
async fn a_refused_resume_begins_a_new_session() {
    let Some((discord, _bot)) = friends().await else { return };
    let alice = discord.user("alice");
    discord.wait_gateway(json!({"connected": 1})).await;

    discord.refuse_resumes(1).await;
    discord.drop_gateway(Cut::Abort).await;
    let gateway = discord.wait_gateway(json!({"resumes_refused": 1, "identifies": 2, "connected": 1})).await;
    assert_eq!((gateway.resumes, gateway.identifies), (0, 2));
    discord.slash(&alice, "general", "/panel").await;

    discord.drop_gateway(Cut::Invalidate { resumable: false }).await;
    discord.wait_gateway(json!({"identifies": 3, "connected": 1})).await;
}

#[tokio::test]
async fn heartbeats_without_acknowledgement_end_the_connection() {
    let Some(discord) = Discord::start(json!({"users": ["alice"]})).await else { return };
    discord.heartbeat(Duration::from_secs(1)).await;
    let _bot = Bot::start(&discord).await;
    let before = discord.wait_gateway(json!({"connected": 1, "heartbeats": 2})).await;

    discord.withhold_acks(true).await;
    let again = discord.wait_gateway(json!({"connections": before.connections + 1})).await;
    discord.withhold_acks(false).await;
    discord.wait_gateway(json!({"connections": again.connections, "connected": 1})).await;
    discord.slash(&discord.user("alice"), "general", "/panel").await;
}

#[tokio::test]
async fn discord_may_be_away_for_a_while() {
    let Some((discord, bot)) = friends().await else { return };
    let alice = discord.user("alice");
    let general = channel(&discord, &bot, "general").await;

    discord.outage(Outage::Reset).await;
    general.say(&bot.http, "x").await.expect_err("nobody answers");
    discord.outage(Outage::Unavailable).await;
    let away = general.say(&bot.http, "x").await.expect_err("503");
    assert!(matches!(&away, serenity::Error::Http(e) if e.status_code().is_some_and(|s| s == 503)), "{away:?}");
    discord.outage(Outage::Over).await;

    discord.wait_gateway(json!({"connections": 2, "connected": 1})).await;
    discord.slash(&alice, "general", "/panel").await;
    assert_eq!(discord.gateway().await.connected, 1);
}

#[tokio::test]
async fn requests_fail_as_they_are_told_to() {
    let Some((discord, bot)) = friends().await else { return };
    let general = channel(&discord, &bot, "general").await;
    let messages = "/channels/*/messages";

    discord.fault("POST", messages, 2, Fault::RateLimit { retry_after_s: 1.5 }).await;
    for _ in 0..2 {
        assert_eq!(said(&general.say(&bot.http, "x").await.expect_err("too many")), "429/0");
    }
    general.say(&bot.http, "first").await.expect("the third is let through");
    assert_eq!(discord.requests("POST", messages).await[0].answer["retry_after"], 1.5);

    discord.fault("POST", messages, 1, Fault::Error { status: 500, code: 0 }).await;
    assert_eq!(said(&general.say(&bot.http, "x").await.expect_err("broken")), "500/0");
    discord.fault("POST", messages, 1, Fault::Reset).await;
    general.say(&bot.http, "x").await.expect_err("cut off before");
    discord.fault("POST", messages, 1, Fault::LostAnswer).await;
    general.say(&bot.http, "second").await.expect_err("cut off after");
    discord.fault("POST", messages, 1, Fault::Hang { seconds: 60.0 }).await;
    tokio::time::timeout(Duration::from_millis(300), general.say(&bot.http, "x")).await.expect_err("no answer");
    assert_snapshot!(discord.channel_text("general").await, @r#"
    Spawnpoint:
      first
    Spawnpoint:
      second
    "#);

    discord.limit("POST", "/channels/*/messages", 2, Duration::from_secs(60)).await;
    // The first bucket has seen requests already; another channel has its own.
    let servers = channel(&discord, &bot, "servers").await;
    servers.say(&bot.http, "1").await.expect("room for two");
    servers.say(&bot.http, "2").await.expect("room for two");
    assert_eq!(said(&servers.say(&bot.http, "3").await.expect_err("full")), "429/0");
    let refused = discord.requests("POST", messages).await.pop().expect("requests");
    assert!(refused.answer["retry_after"].as_f64().is_some_and(|wait| wait > 50.0), "{refused:?}");
}

// --------------------------------------------------------------------------------------------------- the harness

#[test]
fn a_command_line_is_read_as_the_client_would() {
    let check = |line: &str| match parse_slash(line) {
        Ok((path, options)) => format!("{path:?} {options:?}"),
        Err(refused) => refused.0,
    };
    assert_snapshot!(check("/server start server:world"), @r#"["server", "start"] [("server", "world")]"#);
    assert_snapshot!(check("/console server:world command:say hello there minutes: 5"), @r#"["console"] [("server", "world"), ("command", "say hello there"), ("minutes", "5")]"#);
    assert_snapshot!(check(r#"/server create name:"it's \"x:y\"\n@everyone" game:a"#), @r#"["server", "create"] [("name", "it's \"x:y\"\n@everyone"), ("game", "a")]"#);
    assert_snapshot!(check("/server list"), @r#"["server", "list"] []"#);
    assert_snapshot!(check("server start"), @r#""server start" does not begin with /"#);
    assert_snapshot!(check(r#"/x note:"open"#), @r#"an open quote in "x note:\"open""#);
}

#[test]
fn only_what_differs_from_run_to_run_is_redacted() {
    let text =
        "ready in 1 m 12 s (0.25 s, 350ms) <t:1700000000:R> job 12 of 123456789012345678, 30 min left, 12:34 done";
    assert_snapshot!(redact(text), @"ready in <time> (<time>, <time>) <t:…> job 12 of <id>, 30 min left, <time> done");
}
