//! Minecraft's server list ping (Java Edition, 1.7 and later) over TCP, on the port that the game is played on.
//! Source of the facts: https://minecraft.wiki/w/Java_Edition_protocol/Server_List_Ping.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BufMut;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Answer, QueryError, names, text, unreachable};

/// How long a server may take from the connection to its answer.
const QUERY_TIMEOUT_MS: u64 = 2500;
/// An answer with an icon has some 20 KB.
const MAX_ANSWER_BYTES: usize = 256 << 10;

const HANDSHAKE: u8 = 0;
const STATUS: u8 = 0;
/// "No version in particular": a server then names its own.
const ANY_VERSION: [u8; 5] = [0xff, 0xff, 0xff, 0xff, 0x0f];
const NEXT_IS_STATUS: u8 = 1;

pub async fn minecraft(address: SocketAddr) -> Result<Answer, QueryError> {
    let started = Instant::now();
    let status = timeout(Duration::from_millis(QUERY_TIMEOUT_MS), status(address));
    let status = status.await.map_err(|_| QueryError::Timeout)??;
    Ok(Answer { latency: started.elapsed(), ..read(&status)? })
}

/// The JSON text with which the server describes itself.
async fn status(address: SocketAddr) -> Result<Vec<u8>, QueryError> {
    let mut stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.write_all(&question(address)).await.map_err(unreachable)?;
    let size = varint(&mut stream).await?;
    if size > MAX_ANSWER_BYTES {
        return Err(QueryError::Protocol("it is too long".into()));
    }
    let mut packet = vec![0; size];
    stream.read_exact(&mut packet).await.map_err(unreachable)?;
    let mut rest = packet.as_slice();
    if varint(&mut rest).await? != usize::from(STATUS) {
        return Err(QueryError::Protocol("it answers another question".into()));
    }
    let length = varint(&mut rest).await?;
    rest.get(..length).map(<[u8]>::to_vec).ok_or_else(|| QueryError::Protocol("it ends too early".into()))
}

/// A handshake that names the server as we see it, then the question. Each packet begins with its size.
fn question(address: SocketAddr) -> Vec<u8> {
    let host = address.ip().to_string();
    let mut handshake = vec![HANDSHAKE];
    handshake.extend_from_slice(&ANY_VERSION);
    handshake.put_u8(u8::try_from(host.len()).expect("an address has at most 45 letters"));
    handshake.extend_from_slice(host.as_bytes());
    handshake.put_u16(address.port());
    handshake.put_u8(NEXT_IS_STATUS);
    let mut out = vec![u8::try_from(handshake.len()).expect("an address has at most 45 letters")];
    out.append(&mut handshake);
    out.extend_from_slice(&[1, STATUS]);
    out
}

/// A number of up to five bytes, seven bits each, the lowest first.
async fn varint(from: &mut (impl AsyncReadExt + Unpin)) -> Result<usize, QueryError> {
    let mut number = 0;
    for shift in (0..5).map(|byte| 7 * byte) {
        let byte = from.read_u8().await.map_err(unreachable)?;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(QueryError::Protocol("a number does not end".into()))
}

#[derive(Deserialize)]
struct Status {
    version: Option<Version>,
    players: Option<Players>,
    #[serde(default)]
    description: Value,
}

#[derive(Deserialize)]
struct Version {
    name: String,
}

#[derive(Deserialize)]
struct Players {
    max: Option<u32>,
    online: Option<u32>,
    /// Some of them. A server may leave it out.
    #[serde(default)]
    sample: Option<Vec<Player>>,
}

#[derive(Deserialize)]
struct Player {
    name: String,
}

fn read(json: &[u8]) -> Result<Answer, QueryError> {
    let status: Status = serde_json::from_slice(json).map_err(|error| QueryError::Protocol(error.to_string()))?;
    let (online, max, sample) = match status.players {
        Some(Players { max, online, sample }) => (online, max, sample.unwrap_or_default()),
        None => (None, None, Vec::new()),
    };
    let mut name = String::new();
    write_plain(&status.description, &mut name);
    Ok(Answer {
        players: online,
        max_players: max,
        bots: None,
        names: names(sample.iter().map(|player| player.name.as_str())),
        map: None,
        version: status.version.and_then(|version| text(&version.name)),
        name: text(&name),
        latency: Duration::ZERO,
    })
}

/// The words of a text component, which is a text, a list of components or a tree of them, without its colours.
fn write_plain(component: &Value, out: &mut String) {
    match component {
        Value::String(words) => {
            // `§` and the letter after it are a colour; a second line is another word.
            let mut letters = words.chars();
            while let Some(letter) = letters.next() {
                match letter {
                    '§' => drop(letters.next()),
                    '\n' => out.push(' '),
                    _ => out.push(letter),
                }
            }
        }
        Value::Array(parts) => parts.iter().for_each(|part| write_plain(part, out)),
        Value::Object(parts) => {
            for part in ["text", "extra"].iter().filter_map(|name| parts.get(*name)) {
                write_plain(part, out);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    /// A server that answers with these bytes and, like Minecraft, keeps the connection for a ping.
    async fn asked(answer: Vec<u8>) -> Result<Answer, QueryError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; question(address).len()];
            stream.read_exact(&mut heard).await.unwrap();
            let port = address.port().to_be_bytes();
            assert_eq!(heard, [b"\x13\x00\xff\xff\xff\xff\x0f\x09127.0.0.1", &port[..], &[1, 1, 0]].concat());
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read_u8().await;
        });
        minecraft(address).await
    }

    /// Sizes of two bytes each, which is right from 128 to 16383.
    fn packet(json: &str) -> Vec<u8> {
        let two = |number: usize| [(number & 0x7f) as u8 | 0x80, (number >> 7) as u8];
        [&two(json.len() + 3)[..], &[0], &two(json.len()), json.as_bytes()].concat()
    }

    #[tokio::test]
    async fn a_server_tells_who_is_on() {
        let json = r#"{"version":{"name":"Paper 1.21.4","protocol":769},"enforcesSecureChat":true,
            "description":{"text":"§aOur ","extra":[{"text":"hill","color":"red"},"\nNew!"]},
            "players":{"max":20,"online":2,"sample":[{"name":"Ann","id":"1"},{"name":"Bob","id":"2"}]}}"#;
        let answer = asked(packet(json)).await.unwrap();
        assert_eq!((answer.players, answer.max_players, answer.bots), (Some(2), Some(20), None));
        assert_eq!(answer.names, ["Ann", "Bob"]);
        assert_eq!(answer.version.as_deref(), Some("Paper 1.21.4"));
        assert_eq!(answer.name.as_deref(), Some("Our hill New!"));
        assert!(!answer.latency.is_zero());
    }

    #[tokio::test]
    async fn a_server_that_does_not_tell_has_an_unknown_count() {
        let json = format!(r#"{{"description":"A server","padding":"{}"}}"#, "x".repeat(128));
        let answer = asked(packet(&json)).await.unwrap();
        assert_eq!((answer.players, answer.max_players), (None, None));
        assert_eq!(answer.name.as_deref(), Some("A server"));
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_said() {
        for (answer, said) in [
            (vec![0x80; 5], "a number does not end"),
            (vec![0xff, 0xff, 0xff, 0x7f], "it is too long"),
            (vec![1, 9], "it answers another question"),
            (vec![2, 0, 9], "it ends too early"),
            (vec![3, 0, 1, b'{'], "EOF while parsing"),
        ] {
            let error = asked(answer).await.unwrap_err().to_string();
            assert!(error.starts_with("the server's answer cannot be read: ") && error.contains(said), "{error}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }

        #[test]
        fn no_colour_is_left_of_a_text(words in "[a-z§\n ]{0,40}") {
            let mut out = String::new();
            write_plain(&Value::String(words), &mut out);
            prop_assert!(!out.contains(['§', '\n']));
        }
    }
}
