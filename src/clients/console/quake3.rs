//! Quake 3 rcon over UDP, as ioquake3 and its games speak it: "rcon PASSWORD LINE" behind four 0xFF bytes, answered by
//! datagrams of "print\n" and about 1,000 bytes of text each, without a number and without an end. There is no login:
//! the password goes with every command, unencrypted, so the console's port must not be open to the world.
//! Source of the facts: ioquake3, code/server/sv_main.c (SVC_RemoteCommand) and code/qcommon/net_chan.c.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::{Console, ConsoleError, Reply, check_line};

/// A game answers between two frames; one that is silent for so long has nothing to say, as after `quit`.
const FIRST_WORD_TIMEOUT_MS: u64 = 3000;
/// How long a server may be silent within an answer before that counts as over. It holds long answers back a little.
const QUIET_MS: u64 = 600;
/// How long a whole command may take.
const COMMAND_TIMEOUT_S: u64 = 15;
/// The engine reads a command into 1,024 bytes; the rest would be cut off in silence.
const MAX_REQUEST_BYTES: usize = 1000;
/// What is kept of one answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const PREFIX: &[u8] = b"\xff\xff\xff\xff";

pub struct Quake3Rcon {
    socket: UdpSocket,
    password: SecretString,
}

impl Quake3Rcon {
    /// Sends nothing yet: a wrong password shows with the first command.
    pub async fn connect(address: SocketAddr, password: &SecretString) -> Result<Self, ConsoleError> {
        let exposed = password.expose_secret();
        check_line(exposed, MAX_REQUEST_BYTES)?;
        // It is one word of a line of words.
        if exposed.is_empty() || exposed.contains(|c: char| c.is_whitespace() || c == '"' || !c.is_ascii()) {
            return Err(ConsoleError::LineRefused(
                "its password is empty or holds a space, a quote or another letter than ASCII",
            ));
        }
        let unreachable = |e: std::io::Error| ConsoleError::Unreachable(e.to_string());
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
        // From now on, datagrams from elsewhere are dropped.
        socket.connect(address).await.map_err(unreachable)?;
        Ok(Self { socket, password: password.clone() })
    }
}

/// One line as the datagram that carries it, for a sender that cannot read the answer.
pub fn unanswered(password: &SecretString, line: &str) -> Vec<Vec<u8>> {
    vec![request(password, line)]
}

fn request(password: &SecretString, line: &str) -> Vec<u8> {
    [PREFIX, b"rcon ", password.expose_secret().as_bytes(), b" ", line.as_bytes()].concat()
}

/// The text in a datagram of an answer, or nothing for another datagram.
fn text_of(datagram: &[u8]) -> Option<&[u8]> {
    datagram.strip_prefix(PREFIX)?.strip_prefix(b"print\n")
}

#[async_trait]
impl Console for Quake3Rcon {
    /// Not sent again when nothing comes back: the command may have been carried out.
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError> {
        check_line(line, MAX_REQUEST_BYTES)?;
        let words = format!("rcon {} {line}", self.password.expose_secret());
        check_line(&words, MAX_REQUEST_BYTES)?;
        let mut datagram = vec![0; 1 << 16];
        // Late words of an earlier answer.
        while self.socket.try_recv(&mut datagram).is_ok() {}
        let unreachable = |e: std::io::Error| ConsoleError::Unreachable(e.to_string());
        self.socket.send(&[PREFIX, words.as_bytes()].concat()).await.map_err(unreachable)?;

        let sent = Instant::now();
        let deadline = sent + Duration::from_secs(COMMAND_TIMEOUT_S);
        let mut patience = sent + Duration::from_millis(FIRST_WORD_TIMEOUT_MS);
        let (mut bytes, mut answered, mut truncated) = (Vec::new(), false, false);
        loop {
            let size = match timeout_at(patience.min(deadline), self.socket.recv(&mut datagram)).await {
                Ok(Ok(size)) => size,
                // Nobody listens on that port.
                Ok(Err(error)) if !answered => return Err(unreachable(error)),
                Ok(Err(_)) => break,
                Err(_) => {
                    truncated |= answered && Instant::now() >= deadline;
                    break;
                }
            };
            let Some(text) = text_of(&datagram[..size]) else { continue };
            answered = true;
            let room = MAX_ANSWER_BYTES - bytes.len();
            truncated |= text.len() > room;
            bytes.extend_from_slice(&text[..text.len().min(room)]);
            patience = Instant::now() + Duration::from_millis(QUIET_MS);
        }
        // The whole answer and not a part of it: a player may say these words.
        match bytes.trim_ascii() {
            b"Bad rconpassword." => Err(ConsoleError::WrongPassword),
            b"No rconpassword set on the server." => Err(ConsoleError::Protocol("the server has no rcon password")),
            _ => Ok(Reply { text: String::from_utf8_lossy(&bytes).into_owned(), answered, truncated }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), answer: bool) {
            let whole = if answer { [PREFIX, b"print\n", &bytes].concat() } else { bytes.clone() };
            prop_assert!(!answer || text_of(&whole) == Some(&bytes[..]));
        }
    }

    /// Answers each command with these datagrams and hands back what it was told.
    async fn server(answer: Vec<Vec<u8>>) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (told, hears) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut bytes = [0; 2000];
            while let Ok((size, from)) = socket.recv_from(&mut bytes).await {
                for part in &answer {
                    socket.send_to(part, from).await.unwrap();
                }
                let _ = told.send(bytes[..size].to_vec());
            }
        });
        (address, hears)
    }

    fn print(text: &str) -> Vec<u8> {
        [PREFIX, b"print\n", text.as_bytes()].concat()
    }

    #[tokio::test]
    async fn an_answer_of_many_datagrams_is_one_text() {
        let (address, mut hears) =
            server(vec![print("map: oa_dm1\n"), b"\xff\xff\xff\xffdisconnect".to_vec(), print("num")]).await;
        let mut console = Quake3Rcon::connect(address, &"s3cret".into()).await.unwrap();
        let reply = console.command("status").await.unwrap();
        assert_eq!(reply, Reply { text: "map: oa_dm1\nnum".into(), answered: true, truncated: false });
        assert_eq!(hears.recv().await.unwrap(), b"\xff\xff\xff\xffrcon s3cret status");
    }

    #[tokio::test]
    async fn silence_is_a_reply_and_a_wrong_password_is_not() {
        let (address, _hears) = server(vec![]).await;
        let mut console = Quake3Rcon::connect(address, &"s3cret".into()).await.unwrap();
        assert!(!console.command("quit").await.unwrap().answered);
        let (address, _hears) = server(vec![print("Bad rconpassword.\n")]).await;
        let mut console = Quake3Rcon::connect(address, &"guess".into()).await.unwrap();
        assert!(matches!(console.command("status").await, Err(ConsoleError::WrongPassword)));
        let (address, _hears) = server(vec![print("bob: Bad rconpassword.\n")]).await;
        let mut console = Quake3Rcon::connect(address, &"s3cret".into()).await.unwrap();
        assert!(console.command("status").await.unwrap().answered);
    }

    #[tokio::test]
    async fn what_the_engine_would_read_differently_is_refused() {
        let (address, _hears) = server(vec![]).await;
        for password in ["", "two words", "\"", "a\nb", "é"] {
            let refused = Quake3Rcon::connect(address, &password.into()).await;
            assert!(matches!(refused, Err(ConsoleError::LineRefused(_))), "{password:?}");
        }
        let mut console = Quake3Rcon::connect(address, &"s3cret".into()).await.unwrap();
        for line in ["say hi\nquit", &"x".repeat(995)] {
            assert!(matches!(console.command(line).await, Err(ConsoleError::LineRefused(_))), "{line}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_not_silence() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut console = Quake3Rcon::connect(closed, &"s3cret".into()).await.unwrap();
        assert!(matches!(console.command("status").await, Err(ConsoleError::Unreachable(_))));
    }
}
