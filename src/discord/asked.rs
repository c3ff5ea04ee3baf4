//! One interaction, whatever it came from (a command, a button, a form): who asks, from where, and how to answer.
//! The first answer goes out within Discord's three seconds whatever the work behind it does.

use super::commands::Front;
use super::compose;
use super::ids::{Asker, Filled};
use super::render::Said;
use super::trouble::{Trouble, trouble};
use crate::app::{Answer, App, Refusal};
use crate::model::access::{Actor, Caller};
use crate::model::{GuildId, Ms};
use poise::serenity_prelude as serenity;
use serenity::Permissions;
use std::future::Future;
use std::time::Duration;

/// Work that takes longer is answered with "thinking" first. Discord gives three seconds, the way there included.
const ANSWER_WITHIN: Duration = Duration::from_millis(1200);
/// Right after a start an interaction may come before Discord has told us the guild's roles.
const ROLES_WITHIN: Duration = Duration::from_millis(800);
/// An interaction's token lives 15 minutes; a minute earlier nothing is answered any more.
const TOKEN_LIFE: Duration = Duration::from_secs(14 * 60);

pub struct Asked<'a> {
    pub ctx: &'a serenity::Context,
    pub app: &'a App,
    front: &'a Front,
    id: serenity::InteractionId,
    token: &'a str,
    pub user: &'a serenity::User,
    guild: Option<serenity::GuildId>,
    member: Option<&'a serenity::Member>,
    pub channel: serenity::ChannelId,
    channel_kind: Option<serenity::ChannelType>,
    app_permissions: Option<Permissions>,
}

impl<'a> Asked<'a> {
    pub fn command(ctx: &'a serenity::Context, front: &'a Front, from: &'a serenity::CommandInteraction) -> Asked<'a> {
        Asked {
            ctx,
            front,
            app: &front.app,
            id: from.id,
            token: &from.token,
            user: &from.user,
            guild: from.guild_id,
            member: from.member.as_deref(),
            channel: from.channel_id,
            channel_kind: from.channel.as_ref().map(|channel| channel.kind),
            app_permissions: from.app_permissions,
        }
    }

    pub fn component(
        ctx: &'a serenity::Context,
        front: &'a Front,
        from: &'a serenity::ComponentInteraction,
    ) -> Asked<'a> {
        Asked {
            ctx,
            front,
            app: &front.app,
            id: from.id,
            token: &from.token,
            user: &from.user,
            guild: from.guild_id,
            member: from.member.as_ref(),
            channel: from.channel_id,
            channel_kind: from.channel.as_ref().map(|channel| channel.kind),
            app_permissions: from.app_permissions,
        }
    }

    pub fn form(ctx: &'a serenity::Context, front: &'a Front, from: &'a serenity::ModalInteraction) -> Asked<'a> {
        Asked {
            ctx,
            front,
            app: &front.app,
            id: from.id,
            token: &from.token,
            user: &from.user,
            guild: from.guild_id,
            member: from.member.as_ref(),
            channel: from.channel_id,
            channel_kind: from.channel.as_ref().map(|channel| channel.kind),
            app_permissions: from.app_permissions,
        }
    }

    pub fn now(&self) -> Ms {
        self.app.now()
    }

    pub fn asker(&self) -> Asker {
        Asker::new(self.user.id.get(), self.now())
    }

    /// Who asks, with what they hold in the guild at this moment. Discord sends all of it along but the roles' names.
    pub async fn caller(&self) -> Answer<Caller> {
        let (Some(guild), Some(member)) = (self.guild, self.member) else {
            return Err(Refusal::Invalid("Servers belong to a Discord server: ask there, not in private.".to_owned()));
        };
        self.served()?;
        let permissions = member.permissions.unwrap_or_default();
        Ok(Caller {
            actor: Actor::Discord { id: self.user.id.to_string(), name: member.display_name().to_owned() },
            guild: GuildId(guild.to_string()),
            // Everybody has the role @everyone, whose id is the guild's; Discord does not list it.
            roles: member.roles.iter().map(ToString::to_string).chain([guild.to_string()]).collect(),
            role_names: self.role_names(guild, member).await,
            admin: permissions.intersects(Permissions::ADMINISTRATOR | Permissions::MANAGE_GUILD),
        })
    }

    /// Whether this Spawnpoint is there for the guild: Discord may hold commands and buttons of an earlier time.
    fn served(&self) -> Answer<()> {
        match self.guild {
            Some(guild) if !self.front.serves(guild) => Err(Refusal::NotAllowed(
                "This Spawnpoint does not serve this Discord server. Its operator can add it to `guilds` in the \
                 configuration."
                    .to_owned(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    async fn role_names(&self, guild: serenity::GuildId, member: &serenity::Member) -> Vec<String> {
        let known = || {
            let guild = self.ctx.cache.guild(guild)?;
            let name = |id| guild.roles.get(id).map(|role| role.name.clone());
            Some(member.roles.iter().filter_map(name).collect())
        };
        let until = tokio::time::Instant::now() + ROLES_WITHIN;
        while !member.roles.is_empty() && tokio::time::Instant::now() < until {
            if let Some(names) = known() {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        known().unwrap_or_default()
    }

    pub fn channel_id(&self) -> Option<String> {
        Some(self.channel.to_string())
    }

    /// Whether the bot may tell in this channel how a job goes; the sentence names what is missing.
    pub fn may_tell_here(&self) -> Answer<()> {
        use serenity::ChannelType::{NewsThread, PrivateThread, PublicThread};
        let Some(own) = self.app_permissions else { return Ok(()) };
        let send = match self.channel_kind {
            Some(PublicThread | PrivateThread | NewsThread) => {
                (Permissions::SEND_MESSAGES_IN_THREADS, "Send Messages in Threads")
            }
            _ => (Permissions::SEND_MESSAGES, "Send Messages"),
        };
        let missing: Vec<&str> = [(Permissions::VIEW_CHANNEL, "View Channel"), send]
            .into_iter()
            .filter(|(permission, _)| !own.intersects(*permission | Permissions::ADMINISTRATOR))
            .map(|(_, name)| name)
            .collect();
        match missing.as_slice() {
            [] => Ok(()),
            missing => Err(Refusal::Invalid(format!(
                "I could not tell you here how it goes: in <#{}> I lack the permission “{}”. Nothing was done. Give it \
                 to my role in the channel's settings, or ask in another channel.",
                self.channel,
                missing.join("” and “")
            ))),
        }
    }

    /// Every answer goes through here, so nothing is done for a guild that is not served.
    async fn if_served(&self, work: impl Future<Output = Answer<Said>>) -> Answer<Said> {
        self.served()?;
        work.await
    }

    /// Does the work and answers with what came of it, to the asker alone.
    pub async fn answer(&self, work: impl Future<Output = Answer<Said>>) {
        let work = self.if_served(work);
        tokio::pin!(work);
        let quick = tokio::time::timeout(ANSWER_WITHIN, &mut work).await;
        let sent = match quick {
            Ok(result) => {
                self.respond(serenity::CreateInteractionResponse::Message(compose::answer(&said(result)))).await
            }
            Err(_) => {
                let wait = serenity::CreateInteractionResponseMessage::new().ephemeral(true);
                match self.respond(serenity::CreateInteractionResponse::Defer(wait)).await {
                    // The asker hears nothing, but what was begun is brought to its end.
                    Err(error) => {
                        drop(said(work.await));
                        Err(error)
                    }
                    Ok(()) => match tokio::time::timeout(TOKEN_LIFE, work).await {
                        Ok(result) => self.respond_late(&said(result)).await,
                        Err(_) => Err(Trouble::TokenGone),
                    },
                }
            }
        };
        quiet(sent);
    }

    /// Answers a button by changing the message that it stands on, for questions that are answered once.
    pub async fn replace(&self, work: impl Future<Output = Answer<Said>>) {
        let work = self.if_served(work);
        tokio::pin!(work);
        let quick = tokio::time::timeout(ANSWER_WITHIN, &mut work).await;
        let sent = match quick {
            Ok(result) => {
                let message = compose::answer(&said(result));
                self.respond(serenity::CreateInteractionResponse::UpdateMessage(message)).await
            }
            Err(_) => {
                let first = self.respond(serenity::CreateInteractionResponse::Acknowledge).await;
                let result = said(work.await);
                match first {
                    Ok(()) => self.respond_late(&result).await,
                    Err(error) => Err(error),
                }
            }
        };
        quiet(sent);
    }

    /// Opens a form. It must be the first answer, so what it needs has to be quick.
    pub async fn open(&self, filled: &Filled, title: &str, inputs: Vec<serenity::CreateInputText>) {
        if let Err(refusal) = self.served() {
            return self.answer(async { Err(refusal) }).await;
        }
        let Some(id) = filled.id() else {
            return self
                .answer(async {
                    Err(Refusal::Invalid(
                        "That is too long for a form. Give the settings with the option `settings`.".to_owned(),
                    ))
                })
                .await;
        };
        let rows = inputs.into_iter().map(serenity::CreateActionRow::InputText).collect();
        let form = serenity::CreateModal::new(id, super::render::text::clip(title, 45)).components(rows);
        quiet(self.respond(serenity::CreateInteractionResponse::Modal(form)).await);
    }

    async fn respond(&self, response: serenity::CreateInteractionResponse) -> Result<(), Trouble> {
        use serenity::Builder;
        response.execute(self.ctx, (self.id, self.token)).await.map_err(|error| trouble(&error))
    }

    async fn respond_late(&self, said: &Said) -> Result<(), Trouble> {
        use serenity::Builder;
        let sent = compose::late_answer(said).execute(self.ctx, self.token).await;
        sent.map(|_| ()).map_err(|error| trouble(&error))
    }
}

/// What a person reads. Our own faults are logged here, once, with their chain.
fn said(result: Answer<Said>) -> Said {
    match result {
        Ok(said) => said,
        Err(refusal) => {
            if let Refusal::Ours(error) = &refusal {
                tracing::error!("A command failed: {error:#}");
            }
            Said::new(refusal.to_string())
        }
    }
}

/// An answer that nobody waits for any more is no fault.
fn quiet(sent: Result<(), Trouble>) {
    match sent {
        Ok(()) => {}
        Err(Trouble::TokenGone | Trouble::MessageGone) => {
            tracing::debug!("An interaction was over before it was answered.");
        }
        Err(
            trouble @ (Trouble::ChannelGone
            | Trouble::ChannelClosed(_)
            | Trouble::Unauthorized
            | Trouble::Later(_)
            | Trouble::Refused(_)),
        ) => {
            tracing::warn!("An interaction could not be answered: {trouble}");
        }
    }
}
