//! What `spawnpoint doctor` can say about Discord: whether the token is right, in which guilds the bot is, whether it may
//! have commands there, and which permission is missing, in the guild or in one of its channels.

use super::connect::{Exit, http};
use super::trouble::{Trouble, trouble};
use crate::config;
use serenity::all::{ChannelType, CurrentUser, GuildInfo, Http, Permissions};

/// What the invite link in the README asks for.
pub const NEEDED: Permissions = Permissions::VIEW_CHANNEL
    .union(Permissions::SEND_MESSAGES)
    .union(Permissions::SEND_MESSAGES_IN_THREADS)
    .union(Permissions::ATTACH_FILES)
    .union(Permissions::READ_MESSAGE_HISTORY);

/// Guilds and channels that are named at most; whoever serves more has seen the pattern by then.
const GUILDS_LOOKED_AT: usize = 20;
const CHANNELS_NAMED: usize = 10;

/// How the thing is that a sentence is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Fine,
    /// It may be meant so.
    Note,
    Wrong,
}

type Finding = (Health, String);

/// One sentence for each thing that was looked at. `posted_in` are the channels in which something of ours stands.
pub async fn examine(config: &config::Discord, posted_in: &[String]) -> Vec<Finding> {
    let http = match http(config) {
        Ok(http) => http,
        Err(exit) => return vec![(Health::Wrong, exit.to_string())],
    };
    let bot = match http.get_current_user().await {
        Ok(bot) => bot,
        Err(error) => {
            return vec![match trouble(&error) {
                Trouble::Unauthorized => (Health::Wrong, Exit::WrongToken.to_string()),
                trouble => (Health::Wrong, format!("Discord does not answer: {trouble}. Try again later.")),
            }];
        }
    };
    http.set_application_id(bot.id.get().into());
    let mut findings = vec![(Health::Fine, format!("The token is good; the bot is called {}.", bot.name))];
    let guilds = match http.get_guilds(None, None).await {
        Ok(guilds) => guilds,
        Err(error) => {
            let why = trouble(&error);
            findings.push((Health::Wrong, format!("Discord did not say in which guilds the bot is: {why}.")));
            return findings;
        }
    };
    let invite = format!(
        "https://discord.com/oauth2/authorize?client_id={}&scope=bot+applications.commands&permissions={}",
        bot.id,
        NEEDED.bits()
    );
    if guilds.is_empty() {
        findings.push((Health::Wrong, format!("The bot is in no guild yet. Open {invite} and choose one.")));
    }
    for wanted in &config.guilds {
        if !guilds.iter().any(|guild| guild.id.to_string() == *wanted) {
            findings.push((
                Health::Wrong,
                format!("The bot is not in guild {wanted}, which the configuration names. Open {invite}"),
            ));
        }
    }
    let is_served = |guild: &GuildInfo| config.guilds.is_empty() || config.guilds.contains(&guild.id.to_string());
    let (served, others): (Vec<_>, Vec<_>) = guilds.into_iter().partition(is_served);
    for guild in &others {
        let name = &guild.name;
        findings.push((Health::Fine, format!("The bot is in “{name}” as well, which `guilds` leaves out.")));
    }
    for guild in served.iter().take(GUILDS_LOOKED_AT) {
        findings.push(role(guild, &invite));
        findings.extend(commands(&http, guild, &invite).await);
        match channels(&http, &bot, guild, posted_in).await {
            Ok(channels) => findings.extend(said_of(&guild.name, &channels)),
            Err(error) => {
                let why = trouble(&error);
                findings.push((Health::Note, format!("Discord did not show the channels of “{}”: {why}.", guild.name)));
            }
        }
    }
    if served.len() > GUILDS_LOOKED_AT {
        let more = served.len() - GUILDS_LOOKED_AT;
        findings.push((Health::Note, format!("{more} more guilds were not looked at.")));
    }
    findings
}

/// What the bot may do in the guild as a whole.
fn role(guild: &GuildInfo, invite: &str) -> Finding {
    let missing = NEEDED - guild.permissions;
    if guild.permissions.administrator() || missing.is_empty() {
        return (Health::Fine, format!("In “{}” the bot's role has the permissions it needs.", guild.name));
    }
    let names = missing.get_permission_names().join(", ");
    (Health::Wrong, format!("In “{}” the bot's role lacks: {names}. Give it these, or open {invite}", guild.name))
}

/// Whether the bot may have commands there; asked as it is before they are registered.
async fn commands(http: &Http, guild: &GuildInfo, invite: &str) -> Option<Finding> {
    let name = &guild.name;
    match guild.id.get_commands(http).await.map_err(|error| trouble(&error)) {
        Ok(_) => None,
        // Of commands, “missing access” (50001) means that the invitation was for the bot alone.
        Err(Trouble::ChannelClosed(_)) => Some((
            Health::Wrong,
            format!(
                "In “{name}” the bot may not have commands: it was invited without `applications.commands`. Open \
                 {invite} and choose “{name}” again; nothing is lost by it."
            ),
        )),
        Err(why) => Some((Health::Note, format!("Discord did not show the bot's commands in “{name}”: {why}."))),
    }
}

/// A text channel, as far as the bot is concerned.
struct Channel {
    name: String,
    /// Something of ours stands in it.
    posted_in: bool,
    /// What the channel takes away of what the bot's role has.
    lacks: Permissions,
}

async fn channels(
    http: &Http,
    bot: &CurrentUser,
    guild: &GuildInfo,
    posted_in: &[String],
) -> serenity::Result<Vec<Channel>> {
    let whole = http.get_guild(guild.id).await?;
    let member = http.get_member(guild.id, bot.id).await?;
    let mut channels = http.get_channels(guild.id).await?;
    channels.retain(|channel| matches!(channel.kind, ChannelType::Text | ChannelType::News));
    channels.sort_by_key(|channel| (channel.position, channel.id));
    let seen = |channel: serenity::all::GuildChannel| {
        let has = whole.user_permissions_in(&channel, &member);
        let lacks = (NEEDED & whole.member_permissions(&member)) - has;
        // Who cannot see a channel can do nothing in it: one word says it.
        let lacks = if lacks.view_channel() { Permissions::VIEW_CHANNEL } else { lacks };
        Channel { posted_in: posted_in.contains(&channel.id.to_string()), name: channel.name, lacks }
    };
    Ok(channels.into_iter().map(seen).collect())
}

fn said_of(guild: &str, channels: &[Channel]) -> Vec<Finding> {
    let silent = Permissions::VIEW_CHANNEL | Permissions::SEND_MESSAGES;
    if !channels.is_empty() && channels.iter().all(|channel| channel.lacks.intersects(silent)) {
        let text = format!(
            "In “{guild}” there is no text channel in which the bot may write. Give its role View Channel and Send \
             Messages in the settings of one."
        );
        return vec![(Health::Wrong, text)];
    }
    let needed = channels.iter().filter(|channel| channel.posted_in && !channel.lacks.is_empty());
    let needed = needed.map(|Channel { name, lacks, .. }| {
        let text = format!(
            "In “{guild}” the bot lacks {} in #{name}, where it tells about servers. Give it to the bot's role in the \
             channel's settings, under Permissions.",
            lacks.get_permission_names().join(", ")
        );
        (Health::Wrong, text)
    });
    let others = |channel: &&Channel| !channel.posted_in && channel.lacks.send_messages();
    let names: Vec<String> = channels.iter().filter(others).map(|channel| format!("#{}", channel.name)).collect();
    let more = match names.len().saturating_sub(CHANNELS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = names.iter().take(CHANNELS_NAMED).cloned().collect::<Vec<_>>().join(", ");
    let text = format!(
        "In “{guild}” the bot lacks Send Messages in {named}{more}. That is fine unless people are to use it there."
    );
    needed.take(CHANNELS_NAMED).chain((!names.is_empty()).then_some((Health::Note, text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_invite_asks_for_what_the_readme_says() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&format!("permissions={}", NEEDED.bits())), "{}", NEEDED.bits());
    }
}
