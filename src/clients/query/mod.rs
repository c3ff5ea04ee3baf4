//! Asking a game who is on, in the ways that server browsers do. One file per protocol; what a count means for a lease
//! is not decided here. Everything in an answer was written by players or by strangers: it is short and one line, but
//! may still hold markup.

mod gamedig;
mod minecraft;
mod openttd;
mod quake3;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;

pub use self::gamedig::{a2s, gamedig};
pub use self::minecraft::minecraft;
pub use self::openttd::openttd;
pub use self::quake3::quake3;

/// How long a server may take to answer one datagram.
const UDP_WAIT_MS: u64 = 700;
/// How often a datagram is sent: they do get lost, and asking twice does no harm.
const UDP_TRIES: usize = 3;
/// What is kept of a text, in characters.
const TEXT_MAX_CHARS: usize = 100;
/// How many names are kept.
const NAMES_MAX: usize = 128;

/// What a server says of itself. What it does not say, or says in a way that we cannot read, is None and never zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// People who are on, without bots.
    pub players: Option<u32>,
    /// Places for people and bots.
    pub max_players: Option<u32>,
    pub bots: Option<u32>,
    /// Names of people, as far as they are told apart from bots; some may be missing.
    pub names: Vec<String>,
    pub map: Option<String>,
    pub version: Option<String>,
    /// What the server calls itself.
    pub name: Option<String>,
    /// From the question to the end of the answer.
    pub latency: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server's answer cannot be read: {0}")]
    Protocol(String),
    #[error("there is no query named {0:?}")]
    UnknownGame(String),
}

fn unreachable(error: std::io::Error) -> QueryError {
    QueryError::Unreachable(error.to_string())
}

/// A socket that hears only this address.
async fn udp_to(address: SocketAddr) -> Result<UdpSocket, QueryError> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
    socket.connect(address).await.map_err(unreachable)?;
    Ok(socket)
}

/// Sends the question until a datagram comes back that `wanted` likes.
async fn ask<T>(socket: &UdpSocket, question: &[u8], wanted: impl Fn(&[u8]) -> Option<T>) -> Result<T, QueryError> {
    let mut datagram = vec![0; 1 << 16];
    for _ in 0..UDP_TRIES {
        socket.send(question).await.map_err(unreachable)?;
        let heard = timeout(Duration::from_millis(UDP_WAIT_MS), async {
            loop {
                let size = socket.recv(&mut datagram).await.map_err(unreachable)?;
                if let Some(answer) = wanted(&datagram[..size]) {
                    return Ok(answer);
                }
            }
        });
        if let Ok(answer) = heard.await {
            return answer;
        }
    }
    Err(QueryError::Timeout)
}

/// One short line without control characters, or nothing. Those that turn the direction of writing are among them: a name
/// would turn what stands after it.
fn text(raw: &str) -> Option<String> {
    let turns = |c| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let line: String = raw.chars().filter(|c| !c.is_control() && !turns(*c)).take(TEXT_MAX_CHARS).collect();
    let line = line.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

fn names<'a>(raw: impl Iterator<Item = &'a str>) -> Vec<String> {
    raw.filter_map(text).take(NAMES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lost_datagram_is_sent_again_and_a_strange_one_is_passed_over() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let socket = udp_to(server.local_addr().unwrap()).await.unwrap();
        let answering = async {
            let mut bytes = [0; 10];
            server.recv_from(&mut bytes).await.unwrap();
            let (_, from) = server.recv_from(&mut bytes).await.unwrap();
            server.send_to(b"what?", from).await.unwrap();
            server.send_to(b"pong", from).await.unwrap();
        };
        let asking = ask(&socket, b"ping", |datagram| (datagram == b"pong").then_some(7));
        assert_eq!(tokio::join!(answering, asking).1.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_closed_port_and_silence_are_told_apart() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let answer = quake3(closed).await;
        assert!(matches!(answer, Err(QueryError::Unreachable(_))), "{answer:?}");
        let answer = quake3(silent.local_addr().unwrap()).await;
        assert!(matches!(answer, Err(QueryError::Timeout)), "{answer:?}");
    }

    #[test]
    fn texts_of_strangers_are_short_lines() {
        assert_eq!(text(" a\nb\u{1b}[31m\0 ").as_deref(), Some("ab[31m"));
        assert_eq!(text("\u{202e}nnA\u{202c}").as_deref(), Some("nnA"));
        assert_eq!(text(" \n"), None);
        assert_eq!(text(&"é".repeat(500)).unwrap().chars().count(), 100);
    }
}
