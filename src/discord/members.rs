//! What somebody holds in a guild at this moment, asked of Discord by its REST API: for schedules, whose makers are not
//! there when they are due. It takes no intent, and a member who lost a role a minute ago has lost it here.

use super::connect;
use super::trouble::{Trouble, trouble};
use crate::app;
use crate::app::Members;
use crate::config;
use crate::model::GuildId;
use crate::model::access::{Actor, Caller};
use anyhow::Context;
use async_trait::async_trait;
use poise::serenity_prelude as serenity;
use serenity::{Http, Member, PartialGuild, Permissions};
use std::sync::Arc;

/// The members that Discord knows of, in the guilds that are served.
///
/// # Errors
/// No token, or an address that cannot be used.
pub fn members(config: &config::Discord) -> Result<Arc<dyn Members>, connect::Exit> {
    Ok(Arc::new(Asked { http: connect::http(config)?, guilds: config.guilds.clone() }))
}

struct Asked {
    http: Http,
    /// Guilds that are served; empty means all.
    guilds: Vec<String>,
}

#[async_trait]
impl Members for Asked {
    async fn member(&self, guild: &GuildId, user: &str) -> anyhow::Result<app::Member> {
        if !self.guilds.is_empty() && !self.guilds.contains(&guild.0) {
            return Ok(app::Member::Gone);
        }
        let id = |text: &str| text.parse::<u64>().ok().filter(|id| *id > 0).context("that is no id of Discord's");
        let (guild_id, user_id) = (serenity::GuildId::new(id(&guild.0)?), serenity::UserId::new(id(user)?));
        let asked = async {
            let whole = self.http.get_guild(guild_id).await?;
            Ok::<_, serenity::Error>((whole, self.http.get_member(guild_id, user_id).await?))
        };
        match asked.await {
            Ok((whole, member)) => Ok(found(guild, &whole, &member, serenity::Timestamp::now())),
            Err(error) if is_unknown(&error) => Ok(app::Member::Gone),
            Err(error) => Err(anyhow::anyhow!("{}", trouble(&error)).context("asking Discord about a member")),
        }
    }
}

/// There is no such member, user or guild any more, as Discord itself says.
fn is_unknown(error: &serenity::Error) -> bool {
    const UNKNOWN: [isize; 3] = [10_004, 10_007, 10_013];
    let code = match error {
        serenity::Error::Http(serenity::HttpError::UnsuccessfulRequest(response)) => response.error.code,
        _ => return false,
    };
    // A bot that was sent away may not see the guild.
    UNKNOWN.contains(&code) || matches!(trouble(error), Trouble::ChannelClosed(_))
}

/// Discord times out nobody who administers a guild.
fn found(guild: &GuildId, whole: &PartialGuild, member: &Member, now: serenity::Timestamp) -> app::Member {
    let admin = whole.member_permissions(member).administrator();
    match member.communication_disabled_until {
        Some(until) if until > now && !admin => app::Member::TimedOut,
        Some(_) | None => app::Member::Here(caller(guild, whole, member)),
    }
}

fn caller(guild: &GuildId, whole: &PartialGuild, member: &Member) -> Caller {
    let name = |id| whole.roles.get(id).map(|role| role.name.clone());
    let permissions = whole.member_permissions(member);
    Caller {
        actor: Actor::Discord { id: member.user.id.to_string(), name: member.display_name().to_owned() },
        guild: guild.clone(),
        // Everybody has the role @everyone, whose id is the guild's.
        roles: member.roles.iter().map(ToString::to_string).chain([guild.0.clone()]).collect(),
        role_names: member.roles.iter().filter_map(name).collect(),
        admin: permissions.intersects(Permissions::ADMINISTRATOR | Permissions::MANAGE_GUILD),
    }
}
