//! Source RCON over TCP, as SRCDS and Minecraft speak it. Packets: little-endian size, id, kind, text, two NULs.
//! Source: https://developer.valvesoftware.com/wiki/Source_RCON_Protocol and https://minecraft.wiki/w/RCON.
//! Servers disagree on the end of a long answer, so it ends with the echo of a probe or with quiet time. The probe goes
//! out only when the command has been read: Minecraft hangs up when two packets come out of one read.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout, timeout_at};

use super::wire::Wire;
use super::{Console, ConsoleError, Reply, check_line, ended_in_login};

/// How long the connection may take, and the login after it.
const CONNECT_TIMEOUT_S: u64 = 5;
/// How long a server may think before the first word of its answer, where nobody has more patience.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long the rest of an answer may take beyond that.
const REST_TIMEOUT_S: u64 = 5;
/// After this much silence the command has been read, and a probe can ask whether an answer is coming at all.
const PROBE_AFTER_MS: u64 = 1000;
/// How long a server may be silent within an answer before that counts as over, when it does not echo the probe.
const QUIET_MS: u64 = 700;
/// Minecraft reads at most this many bytes of a command.
const MAX_LINE_BYTES: usize = 1446;
/// No known server sends larger packets by much; more means that we lost the thread.
const MAX_PACKET_BYTES: usize = 1 << 20;
/// What is kept of one answer.
const MAX_ANSWER_BYTES: usize = 1 << 20;

const AUTH: i32 = 3;
const AUTH_RESPONSE: i32 = 2;
const EXEC: i32 = 2;
const RESPONSE: i32 = 0;

pub struct SourceRcon {
    wire: Wire,
    /// The id of the last packet sent: always above 0, as some servers drop the rest and -1 means "wrong password".
    last_id: i32,
    /// The server hung up, so a further command cannot be given.
    ended: bool,
    first_word: Duration,
}

#[derive(Debug, PartialEq)]
struct Packet {
    id: i32,
    kind: i32,
    body: Vec<u8>,
}

fn encode(id: i32, kind: i32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 14);
    out.put_i32_le(i32::try_from(body.len() + 10).expect("lines and passwords are short"));
    out.put_i32_le(id);
    out.put_i32_le(kind);
    out.extend_from_slice(body);
    out.extend_from_slice(&[0, 0]);
    out
}

/// A login and one line as bytes to be sent one after the other, for a sender that cannot read the answers.
pub fn unanswered(password: &SecretString, line: &str) -> Vec<Vec<u8>> {
    vec![encode(1, AUTH, password.expose_secret().as_bytes()), encode(2, EXEC, line.as_bytes())]
}

/// Takes one whole packet off the buffer, or nothing when more bytes are needed.
fn take_packet(buffer: &mut BytesMut) -> Result<Option<Packet>, ConsoleError> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let size = usize::try_from(i32::from_le_bytes(*head)).unwrap_or(0);
    if !(10..=MAX_PACKET_BYTES).contains(&size) {
        return Err(ConsoleError::Protocol("a packet has an impossible size"));
    }
    if buffer.len() < 4 + size {
        return Ok(None);
    }
    buffer.advance(4);
    let mut packet = buffer.split_to(size);
    let (id, kind) = (packet.get_i32_le(), packet.get_i32_le());
    Ok(Some(Packet { id, kind, body: packet[..packet.len() - 2].to_vec() }))
}

impl SourceRcon {
    pub async fn connect(address: SocketAddr, password: &SecretString) -> Result<Self, ConsoleError> {
        let limit = Duration::from_secs(CONNECT_TIMEOUT_S);
        check_line(password.expose_secret(), MAX_LINE_BYTES)?;
        let wire = Wire::connect(address, limit).await?;
        let mut console = Self { wire, last_id: 1, ended: false, first_word: FIRST_WORD };
        console.send(&encode(1, AUTH, password.expose_secret().as_bytes())).await?;
        let answer = timeout(limit, async {
            // SRCDS sends an empty RESPONSE before the verdict, Minecraft does not.
            loop {
                let Some(packet) = console.receive().await? else { return Err(ended_in_login()) };
                if packet.kind == AUTH_RESPONSE {
                    return if packet.id == -1 { Err(ConsoleError::WrongPassword) } else { Ok(()) };
                }
            }
        });
        answer.await.map_err(|_| ConsoleError::NoAnswer)??;
        Ok(console)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), ConsoleError> {
        let sent = self.wire.send(bytes).await;
        self.ended |= matches!(sent, Err(ConsoleError::NoAnswer));
        sent
    }

    async fn receive(&mut self) -> Result<Option<Packet>, ConsoleError> {
        self.wire.receive(take_packet).await
    }
}

#[async_trait]
impl Console for SourceRcon {
    async fn command(&mut self, line: &str) -> Result<Reply, ConsoleError> {
        check_line(line, MAX_LINE_BYTES)?;
        self.ended |= self.wire.hung_up().await;
        if self.ended {
            return Err(ConsoleError::Unreachable("the server hung up".into()));
        }
        let id = self.last_id % (i32::MAX - 2) + 1;
        let probe = id + 1;
        self.last_id = probe;
        self.send(&encode(id, EXEC, line.as_bytes())).await?;
        let sent = Instant::now();
        let first_word = sent + self.first_word;
        let deadline = first_word + Duration::from_secs(REST_TIMEOUT_S);
        let (mut bytes, mut answered, mut truncated, mut probed) = (Vec::new(), false, false, false);
        loop {
            let patience = match (answered, probed) {
                (true, _) => Instant::now() + Duration::from_millis(QUIET_MS),
                (false, true) => first_word,
                (false, false) => sent + Duration::from_millis(PROBE_AFTER_MS),
            };
            let packet = match timeout_at(patience.min(deadline), self.receive()).await {
                Ok(Ok(Some(packet))) => packet,
                // A server that was told to stop hangs up, politely or not. Half a packet means a lost end.
                Ok(Ok(None) | Err(ConsoleError::Unreachable(_))) => {
                    self.ended = true;
                    truncated |= self.wire.holds_half_a_packet();
                    break;
                }
                Ok(Err(error)) => {
                    self.ended = true;
                    return Err(error);
                }
                Err(_) if !answered && !probed => {
                    probed = true;
                    if self.send(&encode(probe, RESPONSE, b"")).await.is_err() {
                        self.ended = true;
                        break;
                    }
                    continue;
                }
                Err(_) => {
                    // More was coming when time ran out: the rest would be taken for the next command's answer.
                    truncated |= self.wire.holds_half_a_packet() || Instant::now() >= deadline && answered;
                    break;
                }
            };
            if packet.id == probe {
                break;
            }
            // Others are late: answers and echoes that an earlier command did not wait for.
            if packet.id == id {
                answered = true;
                let room = MAX_ANSWER_BYTES - bytes.len();
                truncated |= packet.body.len() > room;
                bytes.extend_from_slice(&packet.body[..packet.body.len().min(room)]);
                if !probed {
                    probed = true;
                    // A server that hung up right after its answer cannot be asked; reading says so next.
                    let _ = self.send(&encode(probe, RESPONSE, b"")).await;
                }
            }
        }
        // Decoded once, as a character may be split between packets.
        Ok(Reply { text: String::from_utf8_lossy(&bytes).into_owned(), answered, truncated })
    }

    fn be_patient(&mut self, first_word: Duration) {
        self.first_word = first_word;
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
            while let Ok(Some(_)) = take_packet(&mut buffer) {}
        }

        #[test]
        fn a_packet_split_anywhere_is_read_whole(body in "[a-zé]{0,50}", cut in 0usize..60) {
            let bytes = encode(7, RESPONSE, body.as_bytes());
            let cut = cut.min(bytes.len() - 1);
            let mut buffer = BytesMut::from(&bytes[..cut]);
            prop_assert_eq!(take_packet(&mut buffer).unwrap(), None);
            buffer.extend_from_slice(&bytes[cut..]);
            prop_assert_eq!(take_packet(&mut buffer).unwrap(), Some(Packet { id: 7, kind: RESPONSE, body: body.into_bytes() }));
        }
    }

    /// What a stand-in does once it has given its answer.
    enum Then {
        EchoTheProbe,
        IgnoreTheProbe,
        HangUp,
    }

    /// Logs in with what `verdict` says and answers the first command with `parts`, each sent as it is.
    /// Like Minecraft, it hangs up when more than one packet comes out of a read.
    async fn server(verdict: Vec<u8>, parts: Vec<Vec<u8>>, then: Then) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut peer = SourceRcon { wire: Wire::over(stream), last_id: 1, ended: false, first_word: FIRST_WORD };
            peer.receive().await.unwrap();
            peer.send(&verdict).await.unwrap();
            let Ok(Some(command)) = peer.receive().await else { return };
            if peer.wire.holds_half_a_packet() {
                return;
            }
            for part in parts {
                peer.send(&part).await.unwrap();
            }
            if matches!(then, Then::HangUp) {
                return;
            }
            let probe = peer.receive().await.unwrap().unwrap();
            assert_eq!(probe.id, command.id + 1);
            if matches!(then, Then::EchoTheProbe) {
                peer.send(&encode(probe.id, RESPONSE, b"")).await.unwrap();
            }
            let _ = peer.receive().await;
        });
        address
    }

    /// The first command of a connection has this id.
    fn part(body: &[u8]) -> Vec<u8> {
        encode(2, RESPONSE, body)
    }

    async fn ask(address: SocketAddr) -> (SourceRcon, Reply) {
        let mut console = SourceRcon::connect(address, &"pw".into()).await.unwrap();
        let reply = console.command("say hi").await.unwrap();
        (console, reply)
    }

    #[tokio::test]
    async fn srcds_and_minecraft_are_both_understood() {
        let srcds = [encode(1, RESPONSE, b""), encode(1, AUTH_RESPONSE, b"")].concat();
        let minecraft = encode(1, AUTH_RESPONSE, b"");
        for (verdict, then) in [(srcds, Then::EchoTheProbe), (minecraft, Then::IgnoreTheProbe)] {
            let (_, reply) = ask(server(verdict, vec![part(b"caf\xc3"), part(b"\xa9")], then).await).await;
            assert_eq!(reply, Reply { text: "café".into(), answered: true, truncated: false });
        }
    }

    #[tokio::test]
    async fn an_answer_to_an_earlier_command_is_not_taken_for_this_one() {
        let late = vec![encode(77, RESPONSE, b"late"), part(b"mine")];
        let (_, reply) = ask(server(encode(1, AUTH_RESPONSE, b""), late, Then::EchoTheProbe).await).await;
        assert_eq!(reply.text, "mine");
    }

    #[tokio::test]
    async fn a_command_carried_out_without_a_word_is_no_error() {
        let (mut console, reply) = ask(server(encode(1, AUTH_RESPONSE, b""), vec![], Then::EchoTheProbe).await).await;
        assert_eq!(reply, Reply { text: String::new(), answered: false, truncated: false });
        assert!(matches!(console.command("a\nb").await, Err(ConsoleError::LineRefused(_))));
    }

    /// As Minecraft does while it saves: the probe waits with everything else, and is answered after the command.
    #[tokio::test]
    async fn a_server_that_works_before_it_answers_is_waited_for_by_who_has_the_patience() {
        for (patience_ms, answered) in [(PROBE_AFTER_MS + 500, false), (PROBE_AFTER_MS + 60_000, true)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (stream, _) = listener.accept().await.unwrap();
                let mut peer =
                    SourceRcon { wire: Wire::over(stream), last_id: 1, ended: false, first_word: FIRST_WORD };
                peer.receive().await.unwrap();
                peer.send(&encode(1, AUTH_RESPONSE, b"")).await.unwrap();
                let (command, probe) = (peer.receive().await.unwrap().unwrap(), peer.receive().await.unwrap().unwrap());
                tokio::time::sleep(Duration::from_millis(1500)).await;
                let _ = peer.send(&encode(command.id, RESPONSE, b"Saved the game")).await;
                let _ = peer.send(&encode(probe.id, RESPONSE, b"Unknown request 0")).await;
                let _ = peer.receive().await;
            });
            let mut console = SourceRcon::connect(address, &"pw".into()).await.unwrap();
            console.be_patient(Duration::from_millis(patience_ms));
            assert_eq!(console.command("save-all flush").await.unwrap().answered, answered);
        }
    }

    #[tokio::test]
    async fn a_server_that_stops_ends_its_answer_and_takes_no_further_command() {
        let whole = part(b"Stopping the server");
        let half = whole[..whole.len() - 5].to_vec();
        for (parts, answered, truncated) in
            [(vec![], false, false), (vec![whole.clone()], true, false), (vec![whole, half], true, true)]
        {
            let (mut console, reply) = ask(server(encode(1, AUTH_RESPONSE, b""), parts, Then::HangUp).await).await;
            assert_eq!((reply.answered, reply.truncated), (answered, truncated));
            assert!(matches!(console.command("list").await, Err(ConsoleError::Unreachable(_))));
        }
    }

    #[tokio::test]
    async fn nonsense_is_said_and_ends_the_connection() {
        let nonsense = vec![[0xff; 20].to_vec()];
        let address = server(encode(1, AUTH_RESPONSE, b""), nonsense, Then::HangUp).await;
        let mut console = SourceRcon::connect(address, &"pw".into()).await.unwrap();
        assert!(matches!(console.command("list").await, Err(ConsoleError::Protocol(_))));
        assert!(matches!(console.command("list").await, Err(ConsoleError::Unreachable(_))));
    }

    #[tokio::test]
    async fn a_wrong_password_and_a_closed_port_are_told_apart() {
        let address = server(encode(-1, AUTH_RESPONSE, b""), vec![], Then::HangUp).await;
        assert!(matches!(SourceRcon::connect(address, &"pw".into()).await, Err(ConsoleError::WrongPassword)));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(matches!(SourceRcon::connect(closed, &"pw".into()).await, Err(ConsoleError::Unreachable(_))));
    }
}
