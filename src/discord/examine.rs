//! What `spawnpoint doctor` can say about Discord: whether the token is right, in which guilds the bot is, and which
//! permission is missing there.

use super::connect::http;
use crate::config;
use serenity::all::Permissions;

/// What the invite link in the README asks for.
pub const NEEDED: Permissions = Permissions::VIEW_CHANNEL
    .union(Permissions::SEND_MESSAGES)
    .union(Permissions::SEND_MESSAGES_IN_THREADS)
    .union(Permissions::ATTACH_FILES)
    .union(Permissions::READ_MESSAGE_HISTORY);

/// One sentence for each thing that was looked at, and whether it is fine.
pub async fn examine(config: &config::Discord) -> Vec<(bool, String)> {
    let http = match http(config) {
        Ok(http) => http,
        Err(exit) => return vec![(false, exit.to_string())],
    };
    let bot = match http.get_current_user().await {
        Ok(bot) => bot,
        Err(error) => return vec![(false, format!("Discord does not accept the token, or does not answer: {error}"))],
    };
    let mut findings = vec![(true, format!("The token is good; the bot is called {}.", bot.name))];
    let guilds = match http.get_guilds(None, None).await {
        Ok(guilds) => guilds,
        Err(error) => {
            findings.push((false, format!("Discord did not say in which guilds the bot is: {error}")));
            return findings;
        }
    };
    let invite = format!(
        "https://discord.com/oauth2/authorize?client_id={}&scope=bot+applications.commands&permissions={}",
        bot.id,
        NEEDED.bits()
    );
    if guilds.is_empty() {
        findings.push((false, format!("The bot is in no guild yet. Open {invite} and choose one.")));
    }
    for wanted in &config.guilds {
        if !guilds.iter().any(|guild| guild.id.to_string() == *wanted) {
            findings.push((
                false,
                format!("The bot is not in guild {wanted}, which the configuration names. Open {invite}"),
            ));
        }
    }
    for guild in &guilds {
        if !config.guilds.is_empty() && !config.guilds.contains(&guild.id.to_string()) {
            findings.push((true, format!("The bot is in “{}” as well, which `guilds` leaves out.", guild.name)));
            continue;
        }
        let missing = NEEDED - guild.permissions;
        findings.push(match guild.permissions.administrator() || missing.is_empty() {
            true => (true, format!("In “{}” the bot has the permissions it needs.", guild.name)),
            false => {
                let names = missing.get_permission_names().join(", ");
                (false, format!("In “{}” the bot's role lacks: {names}. Give it these, or open {invite}", guild.name))
            }
        });
    }
    findings
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
