//! What went wrong with a request to Discord, by what it means for us.

use futures::FutureExt;
use poise::serenity_prelude as serenity;
use std::panic::AssertUnwindSafe;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The interaction is over: answered already, too old, or Discord has forgotten it. Nobody waits any more.
    TokenGone,
    /// The message was deleted.
    MessageGone,
    /// The channel was deleted.
    ChannelGone,
    /// The channel is closed to the bot now, and may be opened again; the text says how.
    ChannelClosed(&'static str),
    /// The bot's own token is not (or no longer) valid.
    Unauthorized,
    /// Too much, an outage, a lost connection: the same again later may work.
    Later(String),
    /// The same again would fail again.
    Refused(String),
}

impl Trouble {
    /// The same again later may work.
    pub fn may_pass(&self) -> bool {
        match self {
            Trouble::Later(_) | Trouble::ChannelClosed(_) | Trouble::TokenGone | Trouble::Unauthorized => true,
            Trouble::MessageGone | Trouble::ChannelGone | Trouble::Refused(_) => false,
        }
    }
}

pub fn trouble(error: &serenity::Error) -> Trouble {
    let serenity::Error::Http(error) = error else {
        return match error {
            // Written before it is sent: the same text would fail again.
            serenity::Error::Json(_) | serenity::Error::Format(_) | serenity::Error::Model(_) => {
                Trouble::Refused(error.to_string())
            }
            error => Trouble::Later(error.to_string()),
        };
    };
    let serenity::HttpError::UnsuccessfulRequest(response) = error else {
        return Trouble::Later(without_token(&error.to_string()));
    };
    match (response.error.code, response.status_code.as_u16()) {
        (10062 | 10015 | 50027 | 40060, _) => Trouble::TokenGone,
        (10008, _) => Trouble::MessageGone,
        (10003, _) => Trouble::ChannelGone,
        (50001, _) => Trouble::ChannelClosed("the bot may not see the channel (View Channel)"),
        (50013, _) => Trouble::ChannelClosed("the bot may not write in the channel (Send Messages)"),
        (50083, _) => Trouble::ChannelClosed("the thread is archived; any message in it opens it again"),
        (_, 401) => Trouble::Unauthorized,
        (_, 429 | 500..) => Trouble::Later(format!("Discord answered {}", response.status_code)),
        (code, _) => Trouble::Refused(format!("Discord answered {code}: {}", response.error.message)),
    }
}

/// What the work comes to. A mistake of ours in it is a trouble of this one message: those behind it are not held up, and
/// it is tried again.
pub async fn unharmed<T>(work: impl Future<Output = T>) -> Result<T, Trouble> {
    let mistake = |_| Trouble::Later("Spawnpoint made a mistake in it. The log has the details".to_owned());
    AssertUnwindSafe(work).catch_unwind().await.map_err(mistake)
}

/// Errors of the HTTP client name the address, and an interaction's address holds its token.
fn without_token(text: &str) -> String {
    text.split(" for url (").next().unwrap_or_default().to_owned()
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Trouble::TokenGone => f.write_str("the interaction is over"),
            Trouble::MessageGone => f.write_str("the message was deleted"),
            Trouble::ChannelGone => f.write_str("the channel does not exist any more"),
            Trouble::ChannelClosed(why) => f.write_str(why),
            Trouble::Unauthorized => f.write_str("Discord does not know the bot's token"),
            Trouble::Later(why) | Trouble::Refused(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mistake_in_one_message_is_a_trouble_that_may_pass() {
        let trouble = unharmed(async { panic!("a mistake") }).await.unwrap_err();
        assert!(trouble.may_pass(), "{trouble}");
        assert_eq!(unharmed(async { 7 }).await.unwrap(), 7);
    }
}
