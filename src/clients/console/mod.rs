//! Talking to a game's console. One trait, one file per protocol; what a command means is the recipe's business.

pub mod openttd;
pub mod quake3;
pub mod source;
mod wire;

use async_trait::async_trait;
use std::time::Duration;

/// A connection on which commands can be given, one after the other.
#[async_trait]
pub trait Console: Send {
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError>;

    /// From now on an answer may take so long to begin: the game works before it answers. A console that cannot tell work
    /// from silence goes on as ever.
    fn be_patient(&mut self, first_word: Duration) {
        let _ = first_word;
    }
}

/// What came back. Some commands are carried out without a word, so silence is a reply and not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// False when nothing answered this command: it was carried out without a word, the server hung up on it (as one
    /// that stops does), or it was lost on the way. True with an empty text is a server that says "done" by itself.
    pub answered: bool,
    /// True when the end of the answer is missing: it was longer than the cap, or the server hung up inside it.
    pub truncated: bool,
}

/// Why a command could not be given. No variant can carry a password.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("the console cannot be reached: {0}")]
    Unreachable(String),
    #[error("the console refused the password")]
    WrongPassword,
    #[error("the console did not answer in time")]
    NoAnswer,
    #[error("this line cannot be sent: {0}")]
    LineRefused(&'static str),
    #[error("the console broke its protocol: {0}")]
    Protocol(&'static str),
}

/// Refuses what would become a second command or be cut off on the way.
fn check_line(line: &str, max_bytes: usize) -> Result<(), ConsoleError> {
    if line.contains(['\n', '\r', '\0']) {
        return Err(ConsoleError::LineRefused("it holds a line break or a NUL"));
    }
    if line.len() > max_bytes {
        return Err(ConsoleError::LineRefused("it is too long"));
    }
    Ok(())
}

/// Some servers do this over a wrong password. So does a container's published port while its game does not listen yet,
/// which is far more common.
fn ended_in_login() -> ConsoleError {
    ConsoleError::Unreachable("the server hung up during the login (still starting? a wrong password?)".into())
}
