//! Posting and editing the bot's own messages, by the ids that are kept with jobs and panels.

use super::compose;
use super::render::Said;
use super::trouble::{Trouble, trouble};
use poise::serenity_prelude as serenity;

/// A message that stands now.
pub struct Posted {
    pub id: String,
    /// It shows what was to be said. A second try after a lost answer finds the first message, with its older text.
    pub as_said: bool,
}

/// Posts a message; `once` makes a second try after a lost answer find the first message instead of doubling it.
/// At most 25 characters.
pub async fn post(http: &serenity::Http, channel: &str, said: &Said, once: &str) -> Result<Posted, Trouble> {
    let nonce = serenity::Nonce::String(once.to_owned());
    let message = compose::message(said).nonce(nonce).enforce_nonce(true);
    match channel_id(channel)?.send_message(http, message).await {
        Ok(message) => Ok(Posted { id: message.id.to_string(), as_said: message.content == said.text }),
        Err(error) => Err(trouble(&error)),
    }
}

pub async fn edit(http: &serenity::Http, channel: &str, message: &str, said: &Said) -> Result<(), Trouble> {
    let id = message.parse::<u64>().ok().filter(|id| *id > 0).ok_or(Trouble::MessageGone)?;
    let sent = channel_id(channel)?.edit_message(http, serenity::MessageId::new(id), compose::edit(said)).await;
    sent.map(|_| ()).map_err(|error| trouble(&error))
}

fn channel_id(text: &str) -> Result<serenity::ChannelId, Trouble> {
    // Id 0 makes serenity panic, and a channel that is no number is none of Discord's.
    let id = text.parse::<u64>().ok().filter(|id| *id > 0);
    id.map(serenity::ChannelId::new).ok_or(Trouble::Refused("the channel is not one of Discord's".to_owned()))
}
