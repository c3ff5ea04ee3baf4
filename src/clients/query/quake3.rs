//! The status of a Quake 3 server over UDP. In the list of players a bot has ping 0, but so may a person on the same
//! machine or network; ioquake3 therefore says in its short answer how many are human.
//! Source of the facts: ioquake3, code/server/sv_main.c (SVC_Status, SVC_Info).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Answer, QueryError, ask, names, text, udp_to};

const PREFIX: &[u8] = b"\xff\xff\xff\xff";

pub async fn quake3(address: SocketAddr) -> Result<Answer, QueryError> {
    let socket = udp_to(address).await?;
    let started = Instant::now();
    let mut status = ask(&socket, b"\xff\xff\xff\xffgetstatus", parse_status).await?;
    let latency = started.elapsed();
    // Asked only when it matters. Without an answer the pings decide.
    if status.players.iter().any(|player| player.ping == 0) {
        let info = ask(&socket, b"\xff\xff\xff\xffgetinfo", parse_info).await;
        status.humans = info.unwrap_or_default();
    }
    Ok(Answer { latency, ..status.answer() })
}

#[derive(Debug, Default)]
struct Status {
    name: Option<String>,
    map: Option<String>,
    version: Option<String>,
    max_players: Option<u32>,
    players: Vec<Player>,
    humans: Option<u32>,
}

#[derive(Debug)]
struct Player {
    ping: i64,
    name: String,
}

impl Status {
    fn answer(self) -> Answer {
        let on = count(self.players.len());
        let far = count(self.players.iter().filter(|player| player.ping != 0).count());
        // Never fewer than those with a ping: a human in a slot that is kept for friends is missing in the short answer.
        let people = self.humans.unwrap_or(0).clamp(far, on);
        let shown = self.players.iter().filter(|player| people == on || player.ping != 0);
        Answer {
            players: Some(people),
            bots: Some(on - people),
            max_players: self.max_players,
            names: names(shown.map(|player| player.name.as_str())),
            map: self.map,
            version: self.version,
            name: self.name,
            latency: Duration::ZERO,
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One line of `\key\value` pairs, then one line a player: score, ping and the name in quotes.
fn parse_status(datagram: &[u8]) -> Option<Status> {
    let body = datagram.strip_prefix(PREFIX)?.strip_prefix(b"statusResponse\n")?;
    let body = String::from_utf8_lossy(body);
    let mut lines = body.lines();
    let about = lines.next().unwrap_or_default();
    Some(Status {
        name: value(about, "sv_hostname").and_then(|name| text(&plain(name))),
        map: value(about, "mapname").and_then(text),
        version: value(about, "version").and_then(text),
        max_players: value(about, "sv_maxclients").and_then(|max| max.parse().ok()),
        players: lines.filter_map(player).collect(),
        humans: None,
    })
}

/// How many are human, where the server says so.
fn parse_info(datagram: &[u8]) -> Option<Option<u32>> {
    let body = datagram.strip_prefix(PREFIX)?.strip_prefix(b"infoResponse\n")?;
    let body = String::from_utf8_lossy(body);
    Some(value(body.trim_end(), "g_humanplayers").and_then(|humans| humans.parse().ok()))
}

fn value<'a>(pairs: &'a str, key: &str) -> Option<&'a str> {
    let mut words = pairs.strip_prefix('\\')?.split('\\');
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        if name.eq_ignore_ascii_case(key) {
            return Some(value);
        }
    }
    None
}

fn player(line: &str) -> Option<Player> {
    let (_score, rest) = line.split_once(' ')?;
    let (ping, name) = rest.split_once(' ')?;
    let name = plain(name.trim().trim_matches('"'));
    Some(Player { ping: ping.parse().ok()?, name })
}

/// Without colours: `^` and the character after it.
fn plain(coloured: &str) -> String {
    let mut out = String::with_capacity(coloured.len());
    let mut letters = coloured.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '^' && letters.peek().is_some_and(|next| *next != '^') {
            letters.next();
        } else {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::net::UdpSocket;

    const STATUS: &str = "\\sv_hostname\\^1OA ^7test\\mapname\\oa_dm1\\version\\ioq3 1.36\\sv_maxclients\\8\n";

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..3) {
            let kind: &[u8] = [b"".as_slice(), b"\xff\xff\xff\xffstatusResponse\n", b"\xff\xff\xff\xffinfoResponse\n"][kind as usize];
            let datagram = [kind, &bytes].concat();
            let _ = parse_status(&datagram).map(Status::answer);
            let _ = parse_info(&datagram);
        }

        #[test]
        fn lines_of_any_players_never_panic(body in "[\\\\0-9 \"^a-z\n-]{0,100}", humans: Option<u32>) {
            let datagram = format!("statusResponse\n{STATUS}{body}");
            let mut status = parse_status(&[PREFIX, datagram.as_bytes()].concat()).unwrap();
            status.humans = humans;
            let on = status.players.len() as u32;
            let answer = status.answer();
            prop_assert_eq!(answer.players.unwrap() + answer.bots.unwrap(), on);
        }
    }

    /// A server with these lines of players, which says how many are human or does not know such a thing.
    async fn asked(players: &str, humans: Option<&str>) -> Answer {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let status = [PREFIX, b"statusResponse\n", STATUS.as_bytes(), players.as_bytes()].concat();
        let humans = humans.map(|humans| format!("\\g_humanplayers\\{humans}")).unwrap_or_default();
        let info = [PREFIX, b"infoResponse\n\\mapname\\oa_dm1", humans.as_bytes()].concat();
        tokio::spawn(async move {
            let mut bytes = [0; 100];
            while let Ok((size, from)) = socket.recv_from(&mut bytes).await {
                let answer = if bytes[..size].ends_with(b"getinfo") { &info } else { &status };
                socket.send_to(answer, from).await.unwrap();
            }
        });
        quake3(address).await.unwrap()
    }

    #[tokio::test]
    async fn an_empty_server_says_what_it_is() {
        let answer = asked("", None).await;
        assert_eq!((answer.players, answer.bots, answer.max_players), (Some(0), Some(0), Some(8)));
        assert_eq!(answer.name.as_deref(), Some("OA test"));
        assert_eq!(answer.map.as_deref(), Some("oa_dm1"));
        assert_eq!(answer.version.as_deref(), Some("ioq3 1.36"));
    }

    #[tokio::test]
    async fn bots_are_no_people() {
        let mixed = "3 48 \"^2Ann a\"\n0 0 \"Gargoyle\"\n";
        for (players, humans, counted, shown) in [
            (mixed, None, (1, 1), vec!["Ann a"]),
            (mixed, Some("1"), (1, 1), vec!["Ann a"]),
            // On the same machine a person's ping is 0 as well.
            (mixed, Some("2"), (2, 0), vec!["Ann a", "Gargoyle"]),
            ("0 0 \"Gargoyle\"\n", None, (0, 1), vec![]),
            ("0 0 \"Ann\"\n", Some("1"), (1, 0), vec!["Ann"]),
            // A slot for friends is not in that count.
            (mixed, Some("0"), (1, 1), vec!["Ann a"]),
        ] {
            let answer = asked(players, humans).await;
            assert_eq!((answer.players, answer.bots), (Some(counted.0), Some(counted.1)), "{players} {humans:?}");
            assert_eq!(answer.names, shown, "{players} {humans:?}");
        }
    }
}
