//! Queries that the crate gamedig knows: Valve's A2S, and what else it has a name for.
//! It blocks, so it runs on a thread for blocking work, with short limits of its own. Its counts are corrected where they
//! are known to be wrong.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ::gamedig::games::minecraft::Server;
use ::gamedig::protocols::quake::QuakeVersion;
use ::gamedig::protocols::types::{
    CommonResponse, ExtraRequestSettings, GatherToggle, GenericResponse, ProprietaryProtocol, Protocol, TimeoutSettings,
};
use ::gamedig::protocols::valve::{self, Engine};
use ::gamedig::{GAMES, GDError, GDErrorKind, GDResult};

use super::{Answer, QueryError, names, text};

/// How long one read may take. A query is up to four of them.
const READ_TIMEOUT_MS: u64 = 1000;
/// How long a whole query may take, for the one who asks; the thread ends by itself.
const QUERY_TIMEOUT_MS: u64 = 2500;
/// Counter-Strike: Global Offensive and 2 count only people as players. Other games count their bots among them.
/// Seen at https://github.com/gamedig/node-gamedig/issues/297.
const COUNTS_PEOPLE_ONLY: [u32; 1] = [730];

/// Any game that answers Valve's A2S queries, whatever its app id.
pub async fn a2s(address: SocketAddr) -> Result<Answer, QueryError> {
    blocking(move || {
        let gather = valve::GatheringSettings {
            // Some games answer with the count and never with the names.
            players: GatherToggle::Try,
            rules: GatherToggle::Skip,
            check_app_id: false,
        };
        valve::query(&address, Engine::Source(None), Some(gather), Some(limits()?)).map(|response| read(&response))
    })
    .await
}

/// A game by its name in gamedig's list.
pub async fn gamedig(id: &str, address: SocketAddr) -> Result<Answer, QueryError> {
    let Some(game) = GAMES.get(id) else { return Err(QueryError::UnknownGame(id.to_owned())) };
    // gamedig 0.9.0 does not read the players of any Quake, and says that there are none.
    match &game.protocol {
        Protocol::Quake(QuakeVersion::Three) => return super::quake3(address).await,
        Protocol::Quake(QuakeVersion::One | QuakeVersion::Two) => {
            let mut answer = ask(game, address).await?;
            answer.players = None;
            return Ok(answer);
        }
        // gamedig reads until the server hangs up, without a limit.
        Protocol::PROPRIETARY(ProprietaryProtocol::Minecraft(None | Some(Server::Java))) => {
            return super::minecraft(address).await;
        }
        _ => {}
    }
    ask(game, address).await
}

async fn ask(game: &'static ::gamedig::games::types::Game, address: SocketAddr) -> Result<Answer, QueryError> {
    blocking(move || {
        let extra = ExtraRequestSettings {
            gather_players: Some(GatherToggle::Try),
            gather_rules: Some(GatherToggle::Skip),
            check_app_id: Some(false),
            ..game.request_settings.clone()
        };
        let (ip, port) = (address.ip(), Some(address.port()));
        ::gamedig::query_with_timeout_and_extra_settings(game, &ip, port, Some(limits()?), Some(extra))
            .map(|response| read(response.as_ref()))
    })
    .await
}

fn limits() -> GDResult<TimeoutSettings> {
    let limit = Some(Duration::from_millis(READ_TIMEOUT_MS));
    TimeoutSettings::new(limit, limit, limit, 0)
}

async fn blocking(query: impl FnOnce() -> GDResult<Answer> + Send + 'static) -> Result<Answer, QueryError> {
    let started = Instant::now();
    let query = tokio::task::spawn_blocking(query);
    match tokio::time::timeout(Duration::from_millis(QUERY_TIMEOUT_MS), query).await {
        Ok(Ok(Ok(answer))) => Ok(Answer { latency: started.elapsed(), ..answer }),
        Ok(Ok(Err(error))) => Err(why(&error)),
        // It panicked over what it read.
        Ok(Err(_)) => Err(QueryError::Protocol("it is not of this protocol".into())),
        Err(_) => Err(QueryError::Timeout),
    }
}

fn read(response: &dyn CommonResponse) -> Answer {
    let named = response.players().unwrap_or_default();
    let online = response.players_online();
    let (players, bots) = match response.as_original() {
        GenericResponse::Valve(valve) => {
            let bots = u32::from(valve.info.players_bots);
            (people(online, bots, valve.info.appid, named.len()), Some(bots))
        }
        GenericResponse::TheShip(_) => {
            let bots = response.players_bots().unwrap_or(0);
            (online.saturating_sub(bots), Some(bots))
        }
        _ => (online, response.players_bots()),
    };
    Answer {
        players: Some(players),
        max_players: Some(response.players_maximum()),
        bots,
        // With bots on, nobody says which names are theirs.
        names: if bots.unwrap_or(0) == 0 { names(named.iter().map(|player| player.name())) } else { Vec::new() },
        map: response.map().and_then(text),
        version: response.game_version().and_then(text),
        name: response.name().and_then(text),
        latency: Duration::ZERO,
    }
}

/// People among those that A2S counts. More bots than players, or more names, show that the bots are counted apart.
fn people(online: u32, bots: u32, app: u32, named: usize) -> u32 {
    if COUNTS_PEOPLE_ONLY.contains(&app) || bots > online || named > online as usize {
        return online;
    }
    online - bots
}

fn why(error: &GDError) -> QueryError {
    let io = error.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
    if let Some(io) = io {
        return match io.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => QueryError::Timeout,
            _ => QueryError::Unreachable(io.to_string()),
        };
    }
    match error.kind {
        GDErrorKind::PacketSend | GDErrorKind::SocketConnect | GDErrorKind::SocketBind => {
            QueryError::Unreachable("no connection".into())
        }
        GDErrorKind::PacketReceive => QueryError::Timeout,
        _ => QueryError::Protocol(format!("{:?}", error.kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, UdpSocket};

    #[test]
    fn bots_are_no_people() {
        for (online, bots, app, named, people_on) in [
            (5, 0, 440, 5, 5),
            (5, 2, 440, 5, 3),
            (2, 2, 440, 0, 0),
            (1, 7, 240, 0, 1),
            (3, 2, 240, 5, 3),
            (3, 3, 730, 0, 3),
        ] {
            assert_eq!(people(online, bots, app, named), people_on, "{online} {bots} {app} {named}");
        }
    }

    #[tokio::test]
    async fn a_game_without_a_name_is_said() {
        let error = gamedig("chess", "127.0.0.1:1".parse().unwrap()).await.unwrap_err();
        assert_eq!(error.to_string(), "there is no query named \"chess\"");
    }

    #[tokio::test]
    async fn silence_and_a_closed_port_are_errors_within_the_limit() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let started = Instant::now();
        assert!(matches!(a2s(silent.local_addr().unwrap()).await, Err(QueryError::Timeout)));
        assert!(started.elapsed() < Duration::from_millis(QUERY_TIMEOUT_MS + 500));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for id in ["minecraft", "minecraftlegacy16"] {
            let answer = gamedig(id, closed).await;
            assert!(matches!(answer, Err(QueryError::Unreachable(_))), "{id}: {answer:?}");
        }
    }

    /// An A2S server as https://developer.valvesoftware.com/wiki/Server_queries describes it: each question has to bring
    /// the challenge that the first one was answered with.
    async fn a2s_server(bots: u8, tells_names: bool) -> SocketAddr {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let info = [
            b"\xff\xff\xff\xffI\x11A hall\0de_dust\0valheim\0Valheim\0\0\0\x03\x0a",
            &[bots][..],
            b"dl\0\x011.0.0.0\0",
        ];
        let names = [
            b"\xff\xff\xff\xffD\x03".as_slice(),
            b"\0Ann\0\x01\0\0\0\0\0\x80\x3f",
            b"\0Bob\0\x02\0\0\0\0\0\x80\x3f",
            b"\0\0\0\0\0\0\0\0\x80\x3f",
        ];
        let (info, names) = (info.concat(), names.concat());
        tokio::spawn(async move {
            let mut bytes = [0; 100];
            while let Ok((size, from)) = server.recv_from(&mut bytes).await {
                let answer: &[u8] = match (bytes[4], bytes[..size].ends_with(b"CHAL")) {
                    (b'T', true) => &info,
                    (b'U', true) if tells_names => &names,
                    (b'U', _) if !tells_names => continue,
                    _ => b"\xff\xff\xff\xffACHAL",
                };
                server.send_to(answer, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a2s_is_read() {
        let answer = a2s(a2s_server(0, true).await).await.unwrap();
        assert_eq!((answer.players, answer.max_players, answer.bots), (Some(3), Some(10), Some(0)));
        // One is still connecting, and has no name.
        assert_eq!(answer.names, ["Ann", "Bob"]);
        assert_eq!(answer.name.as_deref(), Some("A hall"));
        assert_eq!(answer.map.as_deref(), Some("de_dust"));
        assert_eq!(answer.version.as_deref(), Some("1.0.0.0"));
        assert!(!answer.latency.is_zero());
    }

    #[tokio::test]
    async fn a2s_without_names_is_still_a_count() {
        let answer = a2s(a2s_server(2, false).await).await.unwrap();
        assert_eq!((answer.players, answer.bots), (Some(1), Some(2)));
        let answer = gamedig("valheim", a2s_server(1, true).await).await.unwrap();
        assert_eq!((answer.players, answer.bots, answer.names.len()), (Some(2), Some(1), 0));
    }
}
