//! Talking to a game, once it is known where it listens: its console, what it tells its players, who is on. Which
//! protocol it speaks is the recipe's word; how its ports are reached is the backend's.

use crate::clients::console::{
    Console, ConsoleError, Reply, openttd::OpenTtdAdmin, quake3::Quake3Rcon, source::SourceRcon,
};
use crate::clients::query::{self, Answer};
use crate::engine::ConsoleFault;
use crate::model::recipe::{ConsoleProtocol, PlayersInLog, Query, QueryProtocol};
use crate::model::server::Players;
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;

/// One look at a game may take so long; a game that does not answer by then has an unknown count.
pub const QUERY_LIMIT: Duration = Duration::from_secs(3);
/// A game that says in its log how many are on is believed if it said so within so many lines.
pub const COUNT_WITHIN_LINES: usize = 1000;
/// One console command, connecting included.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(15);
/// A game that answers on its own output is taken to have finished after this much quiet.
pub const STDIN_QUIET: Duration = Duration::from_millis(600);
/// And its first word may take this long.
pub const STDIN_FIRST: Duration = Duration::from_secs(3);
/// Bytes of an answer that are kept.
pub const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Players get this long to say good-bye when somebody is on.
pub const GOODBYE: Duration = Duration::from_secs(5);

/// Asks a game who is on; `None` when it does not answer, which is not zero.
pub async fn ask(query: &Query, address: SocketAddr) -> Option<Players> {
    let answer = match &query.protocol {
        QueryProtocol::A2s => query::a2s(address).await,
        QueryProtocol::Minecraft => query::minecraft(address).await,
        QueryProtocol::Quake3 => query::quake3(address).await,
        QueryProtocol::Openttd => query::openttd(address).await,
        QueryProtocol::Gamedig => query::gamedig(query.id.as_deref().unwrap_or_default(), address).await,
    };
    match answer {
        Ok(answer) => Some(players_of(answer)),
        Err(error) => {
            tracing::debug!("A query was not answered: {error}");
            None
        }
    }
}

/// What a game's last [`COUNT_WITHIN_LINES`] lines say of who is on.
pub fn count_in_log(players: &PlayersInLog, lines: &[String]) -> Players {
    let said = players.online(lines.iter().map(String::as_str));
    // A log that was read from its beginning and says nothing is a game that nobody joined. The beginning of a longer
    // one is unknown.
    let online = said.or((lines.len() < COUNT_WITHIN_LINES).then_some(0));
    Players { online, ..Players::default() }
}

/// A console that is reached over the network.
///
/// # Errors
/// [`ConsoleFault::None`] for standard input, which no address leads to.
pub async fn console_at(
    protocol: ConsoleProtocol,
    address: SocketAddr,
    password: &SecretString,
) -> Result<Box<dyn Console>, ConsoleFault> {
    Ok(match protocol {
        ConsoleProtocol::SourceRcon | ConsoleProtocol::MinecraftRcon => {
            Box::new(SourceRcon::connect(address, password).await.map_err(fault)?)
        }
        ConsoleProtocol::Quake3Rcon => Box::new(Quake3Rcon::connect(address, password).await.map_err(fault)?),
        ConsoleProtocol::OpenttdAdmin => Box::new(OpenTtdAdmin::connect(address, password).await.map_err(fault)?),
        ConsoleProtocol::Stdin => return Err(ConsoleFault::None),
    })
}

/// What people read of an answer.
pub fn text_of(reply: Reply) -> String {
    match reply {
        Reply { answered: false, .. } => String::new(),
        Reply { truncated: true, text, .. } => format!("{text}\n(the answer was longer and is cut here)"),
        Reply { text, .. } => text,
    }
}

fn players_of(answer: Answer) -> Players {
    Players {
        online: answer.players,
        max: answer.max_players,
        bots: answer.bots,
        names: answer.names,
        map: answer.map,
        version: answer.version,
        latency_ms: Some(answer.latency.as_millis() as u64),
        answers: true,
    }
}

pub fn fault(error: ConsoleError) -> ConsoleFault {
    match error {
        ConsoleError::LineRefused(why) => ConsoleFault::Refused(why.to_owned()),
        ConsoleError::Unreachable(_)
        | ConsoleError::WrongPassword
        | ConsoleError::NoAnswer
        | ConsoleError::Protocol(_) => ConsoleFault::Silent(error.to_string()),
    }
}
