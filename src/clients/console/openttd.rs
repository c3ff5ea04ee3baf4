//! OpenTTD's admin port over TCP: log in with the admin password, then have console commands carried out. Packets:
//! little-endian size (itself included), type, content; strings end with a NUL. An answer is one packet a line and has
//! a proper end. The password is sent as it is, which is all that versions up to 13 know and what newer ones do with
//! `allow_insecure_admin_login`, so the port must not be open to the world.
//! Source of the facts: OpenTTD, docs/admin_network.md and src/network/core/tcp_admin.h.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::Wire;
use super::{Console, ConsoleError, Reply, check_line, ended_in_login};

/// How long the connection may take, and the login after it.
const CONNECT_TIMEOUT_S: u64 = 5;
/// How long a whole command may take, where nobody has more patience.
const COMMAND_TIMEOUT_S: u64 = 15;
/// The server reads a command into 500 bytes, its NUL included, and a password into 33.
const MAX_LINE_BYTES: usize = 499;
const MAX_PASSWORD_BYTES: usize = 32;
/// What is kept of one answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The size and the type.
const HEAD_BYTES: usize = 3;

const ADMIN_JOIN: u8 = 0;
const ADMIN_RCON: u8 = 5;
const SERVER_FULL: u8 = 100;
const SERVER_BANNED: u8 = 101;
const SERVER_ERROR: u8 = 102;
const SERVER_PROTOCOL: u8 = 103;
const SERVER_WELCOME: u8 = 104;
const SERVER_RCON: u8 = 120;
const SERVER_RCON_END: u8 = 125;
/// The error that says so; the others mean that we are not understood. Version 13 hangs up before it has sent it.
const ERROR_WRONG_PASSWORD: u8 = 10;

pub struct OpenTtdAdmin {
    wire: Wire,
    /// An answer was not read to its end, so a further command cannot be given.
    ended: bool,
    limit: Duration,
}

#[derive(Debug, PartialEq)]
struct Packet {
    kind: u8,
    body: Bytes,
}

/// A packet of strings, which is all that we send.
fn encode(kind: u8, strings: &[&str]) -> Vec<u8> {
    let size = HEAD_BYTES + strings.iter().map(|string| string.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    out.put_u16_le(u16::try_from(size).expect("lines and passwords are short"));
    out.put_u8(kind);
    for string in strings {
        out.extend_from_slice(string.as_bytes());
        out.put_u8(0);
    }
    out
}

/// A login and one line as bytes to be sent one after the other, for a sender that cannot read the answers.
pub fn unanswered(password: &SecretString, line: &str) -> Vec<Vec<u8>> {
    let join = [password.expose_secret(), env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")];
    vec![encode(ADMIN_JOIN, &join), encode(ADMIN_RCON, &[line])]
}

/// Takes one whole packet off the buffer, or nothing when more bytes are needed.
fn take_packet(buffer: &mut BytesMut) -> Result<Option<Packet>, ConsoleError> {
    let Some(head) = buffer.first_chunk::<2>() else { return Ok(None) };
    let size = usize::from(u16::from_le_bytes(*head));
    if size < HEAD_BYTES {
        return Err(ConsoleError::Protocol("a packet has an impossible size"));
    }
    if buffer.len() < size {
        return Ok(None);
    }
    let mut body = buffer.split_to(size).freeze();
    body.advance(2);
    let kind = body.get_u8();
    Ok(Some(Packet { kind, body }))
}

/// One line of an answer: a colour, then the text up to its NUL.
fn line_of(body: &[u8]) -> Option<&[u8]> {
    body.get(2..)?.split(|byte| *byte == 0).next()
}

impl OpenTtdAdmin {
    pub async fn connect(address: SocketAddr, password: &SecretString) -> Result<Self, ConsoleError> {
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
        check_line(password.expose_secret(), MAX_PASSWORD_BYTES)?;
        let wire = Wire::connect(address, limit).await?;
        let mut console = Self { wire, ended: false, limit: Duration::from_secs(COMMAND_TIMEOUT_S) };
        let join = [password.expose_secret(), env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION")];
        console.wire.send(&encode(ADMIN_JOIN, &join)).await?;
        timeout(limit, console.welcome()).await.map_err(|_| ConsoleError::NoAnswer)??;
        Ok(console)
    }

    async fn welcome(&mut self) -> Result<(), ConsoleError> {
        let mut known = false;
        loop {
            let Some(packet) = self.wire.receive(take_packet).await? else {
                return Err(ended_in_login());
            };
            match packet.kind {
                SERVER_PROTOCOL => known = true,
                SERVER_WELCOME if known => return Ok(()),
                SERVER_ERROR if packet.body.first() == Some(&ERROR_WRONG_PASSWORD) => {
                    return Err(ConsoleError::WrongPassword);
                }
                SERVER_ERROR => return Err(ConsoleError::Protocol("the server refused this way to log in")),
                SERVER_FULL => return Err(ConsoleError::Unreachable("no place for another admin".into())),
                SERVER_BANNED => return Err(ConsoleError::Unreachable("the server has banned this address".into())),
                // The protocol wants packets that one does not know to be ignored.
                _ => {}
            }
        }
    }
}

#[async_trait]
impl Console for OpenTtdAdmin {
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError> {
        check_line(line, MAX_LINE_BYTES)?;
        if self.ended || self.wire.hung_up().await {
            return Err(ConsoleError::Unreachable("the server hung up".into()));
        }
        // Until the end has been read: what is left over would be taken for the next command's answer.
        self.ended = true;
        self.wire.send(&encode(ADMIN_RCON, &[line])).await?;
        let deadline = Instant::now() + self.limit;
        let (mut lines, mut answered, mut truncated) = (Vec::<u8>::new(), false, false);
        loop {
            let packet = match timeout_at(deadline, self.wire.receive(take_packet)).await {
                Ok(Ok(Some(packet))) => packet,
                // A server that was told to quit hangs up, politely or not. A line without the end is half an answer.
                Ok(Ok(None) | Err(ConsoleError::Unreachable(_))) => {
                    truncated |= answered;
                    break;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) if !answered => return Err(ConsoleError::NoAnswer),
                Err(_) => {
                    truncated = true;
                    break;
                }
            };
            match packet.kind {
                SERVER_RCON => {
                    let Some(line) = line_of(&packet.body) else {
                        return Err(ConsoleError::Protocol("an answer has no text"));
                    };
                    answered = true;
                    if lines.len() + line.len() < MAX_ANSWER_BYTES {
                        lines.extend_from_slice(line);
                        lines.push(b'\n');
                    } else {
                        truncated = true;
                    }
                }
                SERVER_RCON_END => {
                    answered = true;
                    self.ended = false;
                    break;
                }
                SERVER_ERROR => return Err(ConsoleError::Protocol("the server refused the command")),
                // The game's news: a new map, its shutdown.
                _ => {}
            }
        }
        Ok(Reply { text: String::from_utf8_lossy(&lines).into_owned(), answered, truncated })
    }

    /// `save` of a large map stops the game for seconds.
    fn be_patient(&mut self, first_word: Duration) {
        self.limit = first_word;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(packet)) = take_packet(&mut buffer) {
                line_of(&packet.body);
            }
        }

        #[test]
        fn a_packet_split_anywhere_is_read_whole(text in "[a-zé]{0,50}", cut in 0usize..60) {
            let bytes = encode(SERVER_RCON, &[&text]);
            let cut = cut.min(bytes.len() - 1);
            let mut buffer = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(take_packet(&mut buffer).unwrap(), None);
            buffer.extend_from_slice(&bytes[cut..]);
            let packet = take_packet(&mut buffer).unwrap().unwrap();
            prop_assert_eq!(packet.body.strip_suffix(b"\0"), Some(text.as_bytes()));
        }
    }

    fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u16_le(u16::try_from(body.len() + HEAD_BYTES).unwrap());
        out.put_u8(kind);
        out.extend_from_slice(body);
        out
    }

    fn said(text: &str) -> Vec<u8> {
        raw(SERVER_RCON, &[&[1, 0], text.as_bytes(), &[0]].concat())
    }

    fn welcome() -> Vec<u8> {
        [raw(SERVER_PROTOCOL, &[1, 0]), raw(SERVER_WELCOME, b"a name\0")].concat()
    }

    /// Answers the login and then each command with the next of these, and hangs up after the last.
    async fn server(answers: Vec<Vec<u8>>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Packet>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, hears) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut peer = OpenTtdAdmin { wire: Wire::over(stream), ended: false, limit: Duration::ZERO };
            for answer in answers {
                let Ok(Some(packet)) = peer.wire.receive(take_packet).await else { return };
                let _ = told.send(packet);
                peer.wire.send(&answer).await.unwrap();
            }
        });
        (address, hears)
    }

    #[tokio::test]
    async fn an_answer_is_all_lines_up_to_its_end() {
        let news = raw(SERVER_WELCOME + 1, b"");
        let answer = [said("Client #1"), news, said("Client #2 é"), raw(SERVER_RCON_END, b"clients\0")].concat();
        let silent = raw(SERVER_RCON_END, b"pause\0");
        let (address, mut hears) = server(vec![welcome(), answer, silent]).await;
        let mut console = OpenTtdAdmin::connect(address, &"adm1n".into()).await.unwrap();
        let reply = console.command("clients").await.unwrap();
        assert_eq!(reply, Reply { text: "Client #1\nClient #2 é\n".into(), answered: true, truncated: false });
        let reply = console.command("pause").await.unwrap();
        assert_eq!(reply, Reply { text: String::new(), answered: true, truncated: false });
        let join = hears.recv().await.unwrap();
        assert!(join.kind == ADMIN_JOIN && join.body.starts_with(b"adm1n\0spawnpoint\0"));
        assert_eq!(hears.recv().await.unwrap(), Packet { kind: ADMIN_RCON, body: b"clients\0".as_slice().into() });
    }

    #[tokio::test]
    async fn a_login_that_fails_says_why() {
        for (answer, said) in [
            (raw(SERVER_ERROR, &[ERROR_WRONG_PASSWORD]), "the console refused the password"),
            (raw(SERVER_ERROR, &[4]), "the console broke its protocol: the server refused this way to log in"),
            (raw(SERVER_FULL, b""), "the console cannot be reached: no place for another admin"),
            (
                vec![],
                "the console cannot be reached: the server hung up during the login (still starting? a wrong password?)",
            ),
            (vec![0, 0], "the console broke its protocol: a packet has an impossible size"),
        ] {
            let (address, _hears) = server(vec![answer]).await;
            let error = OpenTtdAdmin::connect(address, &"guess".into()).await.err().unwrap();
            assert_eq!(error.to_string(), said);
        }
    }

    #[tokio::test]
    async fn a_server_that_quits_ends_its_answer_and_takes_no_further_command() {
        for (answer, answered, truncated) in [(vec![], false, false), (said("half"), true, true)] {
            let (address, _hears) = server(vec![welcome(), answer]).await;
            let mut console = OpenTtdAdmin::connect(address, &"adm1n".into()).await.unwrap();
            let reply = console.command("quit").await.unwrap();
            assert_eq!((reply.answered, reply.truncated), (answered, truncated));
            assert!(matches!(console.command("clients").await, Err(ConsoleError::Unreachable(_))));
        }
    }
}
