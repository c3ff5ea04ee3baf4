//! What an OpenTTD server says of itself over TCP, on the port that the game is played on, to whoever asks before
//! joining. (Over UDP it has said nothing but "here" since version 12.) The layout grows with the versions of the game
//! and says which one it is; one that is newer than this file is an answer without a count.
//! Source of the facts: OpenTTD, src/network/core/game_info.h and src/network/core/tcp_game.h.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Answer, QueryError, text, unreachable};

/// How long a server may take from the connection to its answer. It stops for seconds while it writes a large map.
const QUERY_TIMEOUT_MS: u64 = 2500;
/// Size (itself included) and type: "what game is this?".
const CLIENT_GAME_INFO: [u8; 3] = [3, 0, 7];
const SERVER_GAME_INFO: u8 = 6;
const SERVER_FULL: u8 = 0;
const SERVER_BANNED: u8 = 1;
/// The layouts that we can read: OpenTTD 13 sends 6, OpenTTD 14 sends 7.
const OLDEST_LAYOUT: u8 = 5;
const NEWEST_LAYOUT: u8 = 7;
const LANDSCAPES: [&str; 4] = ["temperate", "sub-arctic", "sub-tropical", "toyland"];

pub async fn openttd(address: SocketAddr) -> Result<Answer, QueryError> {
    let started = Instant::now();
    let packet = timeout(Duration::from_millis(QUERY_TIMEOUT_MS), game_info(address));
    let (kind, body) = packet.await.map_err(|_| QueryError::Timeout)??;
    let answer = match kind {
        SERVER_GAME_INFO => decode(&body)?,
        SERVER_FULL => return Err(QueryError::Unreachable("it has no place for another connection".into())),
        SERVER_BANNED => return Err(QueryError::Unreachable("it has banned this address".into())),
        _ => return Err(QueryError::Protocol("it answers another question".into())),
    };
    Ok(Answer { latency: started.elapsed(), ..answer })
}

/// The type and the content of the first packet.
async fn game_info(address: SocketAddr) -> Result<(u8, Vec<u8>), QueryError> {
    let mut stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.write_all(&CLIENT_GAME_INFO).await.map_err(unreachable)?;
    let size = stream.read_u16_le().await.map_err(unreachable)?;
    let kind = stream.read_u8().await.map_err(unreachable)?;
    let mut body = vec![0; usize::from(size).saturating_sub(3)];
    stream.read_exact(&mut body).await.map_err(unreachable)?;
    Ok((kind, body))
}

fn decode(body: &[u8]) -> Result<Answer, QueryError> {
    match body.first() {
        Some(OLDEST_LAYOUT..=NEWEST_LAYOUT) => {
            read(&mut Reader(body)).ok_or_else(|| QueryError::Protocol("it ends too early".into()))
        }
        Some(_) => Ok(Answer::default()),
        None => Err(QueryError::Protocol("it is empty".into())),
    }
}

fn read(packet: &mut Reader<'_>) -> Option<Answer> {
    let layout = packet.number()?;
    if layout >= 7 {
        packet.skip(8)?;
    }
    let grf_layout = if layout >= 6 { packet.number()? } else { 0 };
    // The game script and its version, then the NewGRFs.
    packet.skip(4)?;
    packet.string()?;
    for _ in 0..packet.number()? {
        match grf_layout {
            0 => packet.skip(20)?,
            1 => {
                packet.skip(20)?;
                packet.string()?;
            }
            2 => packet.skip(4)?,
            // The rest cannot be found.
            _ => return Some(Answer::default()),
        }
    }
    // Two dates and three counts of companies.
    packet.skip(8 + 3)?;
    let name = packet.string()?;
    let version = packet.string()?;
    if layout <= 5 {
        packet.skip(1)?;
    }
    let _has_password = packet.number()?;
    let max_players = packet.number()?;
    // People who only watch are among them.
    let players = packet.number()?;
    let _watching = packet.number()?;
    if layout <= 5 {
        packet.string()?;
    }
    let (width, height) = (packet.size()?, packet.size()?);
    let landscape = LANDSCAPES.get(usize::from(packet.number()?)).unwrap_or(&"unknown land");
    Some(Answer {
        players: Some(players.into()),
        max_players: Some(max_players.into()),
        bots: None,
        names: Vec::new(),
        map: Some(format!("{landscape}, {width} × {height}")),
        version: text(&version),
        name: text(&name),
        latency: Duration::ZERO,
    })
}

/// What is left of a packet. Every method is None when it ends too early.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn size(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.number()?, self.number()?]))
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// Up to its NUL.
    fn string(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let string = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.skip(end + 1)?;
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), layout in 0u8..10) {
            let _ = decode(&bytes);
            let _ = decode(&[&[layout], bytes.as_slice()].concat());
        }

        #[test]
        fn a_packet_that_is_cut_is_no_answer(layout in OLDEST_LAYOUT..=NEWEST_LAYOUT, cut in 0usize..60) {
            let body = body(layout);
            // Whether it is dedicated is its last byte, which is not read.
            let cut = cut.min(body.len() - 2);
            prop_assert!(decode(&body[..cut]).is_err());
        }
    }

    /// As the table in game_info.h lays out this version: one NewGRF, 2 of 25 clients, a map of 256 x 512.
    fn body(layout: u8) -> Vec<u8> {
        let mut out = vec![layout];
        let mut since = |first: u8, last: u8, bytes: &[u8]| {
            if (first..=last).contains(&layout) {
                out.extend_from_slice(bytes);
            }
        };
        since(7, 7, &[9; 8]);
        since(6, 7, &[1]);
        since(5, 7, b"\xff\xff\xff\xffscript\0");
        since(5, 7, &[1]);
        since(5, 7, &[7; 20]);
        since(6, 7, b"a grf\0");
        since(5, 7, &[5; 8]);
        since(5, 7, &[15, 1, 10]);
        since(5, 7, b"Trains\x0013.0\0");
        since(5, 5, &[1]);
        since(5, 7, &[0, 25, 2, 1]);
        since(5, 5, b"a map\0");
        since(5, 7, &[0, 1, 0, 2, 1, 1]);
        out
    }

    async fn asked(kind: u8, body: &[u8]) -> Result<Answer, QueryError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let size = u16::try_from(body.len() + 3).unwrap().to_le_bytes();
        let packet = [&size, &[kind][..], body].concat();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; 3];
            stream.read_exact(&mut question).await.unwrap();
            assert_eq!(question, CLIENT_GAME_INFO);
            stream.write_all(&packet).await.unwrap();
        });
        openttd(address).await
    }

    #[tokio::test]
    async fn every_layout_so_far_is_read() {
        for layout in OLDEST_LAYOUT..=NEWEST_LAYOUT {
            let answer = asked(SERVER_GAME_INFO, &body(layout)).await.unwrap();
            assert_eq!((answer.players, answer.max_players), (Some(2), Some(25)), "{layout}");
            assert_eq!(answer.name.as_deref(), Some("Trains"), "{layout}");
            assert_eq!(answer.version.as_deref(), Some("13.0"), "{layout}");
            assert_eq!(answer.map.as_deref(), Some("sub-arctic, 256 × 512"), "{layout}");
        }
    }

    #[tokio::test]
    async fn a_layout_of_the_future_is_an_answer_without_a_count() {
        let answer = asked(SERVER_GAME_INFO, &[NEWEST_LAYOUT + 1, 1, 2, 3]).await.unwrap();
        assert_eq!(Answer { latency: Duration::ZERO, ..answer }, Answer::default());
    }

    #[tokio::test]
    async fn an_answer_that_is_none_is_said() {
        for (kind, body, said) in [
            (SERVER_GAME_INFO, body(6)[..30].to_vec(), "the server's answer cannot be read: it ends too early"),
            (SERVER_FULL, vec![], "the server cannot be reached: it has no place for another connection"),
            (99, vec![], "the server's answer cannot be read: it answers another question"),
        ] {
            assert_eq!(asked(kind, &body).await.unwrap_err().to_string(), said);
        }
    }
}
