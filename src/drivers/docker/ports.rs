//! Port numbers: each server keeps its own from start to start, so that friends can save the address. A number is
//! taken only when no other server has it and nothing else on this machine listens there.

use super::DockerDriver;
use crate::engine::{StepCx, StepError};
use crate::model::recipe::{Port, PortProtocol, Recipe};
use std::collections::{BTreeMap, HashSet};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

impl DockerDriver {
    /// A number for each port of the recipe: the one it had, the recipe's own, or the next free one of the range; never
    /// one of those to avoid.
    pub(super) async fn choose_ports(
        &self,
        cx: &StepCx<'_>,
        recipe: &Recipe,
        avoid: &HashSet<u16>,
    ) -> Result<BTreeMap<String, u16>, StepError> {
        let server = cx.server()?;
        let mut in_hand = self.chosen_ports.lock().await;
        let others = cx.journal.servers().await.map_err(StepError::Retry)?;
        in_hand.retain(|id, _| others.iter().any(|other| other.id == *id));
        let written = others.iter().filter(|other| other.id != server.id).flat_map(|other| other.owned.ports.values());
        let of_others = in_hand.iter().filter(|(id, _)| **id != server.id).flat_map(|(_, ports)| ports.values());
        let mut taken: HashSet<u16> = written.chain(of_others).chain(avoid).copied().collect();
        let free = |port: &Port, number| is_free(self.bind_address(port.private), number, port.protocol);
        // Who lost a number to another Spawnpoint would go on to meet it at each next one.
        let first = if avoid.is_empty() { 0 } else { scatter(&server.id.0, avoid.len()) };
        let chosen = choose(&recipe.ports, &server.owned.ports, self.settings.ports, first, &mut taken, &free).ok_or_else(|| {
            StepError::fatal(format!(
                "All ports from {} to {} are taken on this machine. Stop a server, or widen `ports` under [docker] in the configuration.",
                self.settings.ports.0, self.settings.ports.1
            ))
        })?;
        for (name, number) in &chosen {
            if let Some(had) = server.owned.ports.get(name).filter(|had| *had != number) {
                cx.out.line(format!("Port {had} is taken by another program now; {name} moves to {number}."));
            }
        }
        in_hand.insert(server.id.clone(), chosen.clone());
        Ok(chosen)
    }

    /// Console ports are for this machine alone, whatever the operator publishes the game on.
    pub(super) fn bind_address(&self, private: bool) -> IpAddr {
        match private {
            true if self.settings.publish_address.is_loopback() => self.settings.publish_address,
            true => IpAddr::from([127, 0, 0, 1]),
            false => self.settings.publish_address,
        }
    }

    /// Where Spawnpoint itself reaches a port of the game.
    pub(super) fn reach(&self, private: bool, number: u16) -> SocketAddr {
        let address = self.bind_address(private);
        let address = if address.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address };
        SocketAddr::new(address, number)
    }

    /// What friends paste.
    pub(super) fn join_address(&self, port: u16) -> String {
        spoken(&self.public_host(), port)
    }

    /// Where that is: the name the operator gave, or the address that games are published on.
    pub(super) fn public_host(&self) -> String {
        match &self.settings.public_address {
            Some(name) => name.clone(),
            None if self.settings.publish_address.is_unspecified() => {
                own_address().unwrap_or_else(|| "localhost".to_owned())
            }
            None => self.settings.publish_address.to_string(),
        }
    }
}

/// A number that another server, or another try, hardly ever has.
fn scatter(server: &str, attempt: usize) -> usize {
    let mut hasher = std::hash::DefaultHasher::new();
    (server, attempt).hash(&mut hasher);
    usize::try_from(hasher.finish() % u64::from(u16::MAX)).unwrap_or_default()
}

/// A port together with those that count on from it takes a number only where all of them find theirs free. Those of the
/// range are tried from the `first_tried`th on. `None` when the range is used up.
fn choose(
    ports: &BTreeMap<String, Port>,
    had: &BTreeMap<String, u16>,
    range: (u16, u16),
    first_tried: usize,
    taken: &mut HashSet<u16>,
    free: &dyn Fn(&Port, u16) -> bool,
) -> Option<BTreeMap<String, u16>> {
    let mut chosen = BTreeMap::new();
    for (name, first) in ports.iter().filter(|(_, port)| port.offset_from.is_none()) {
        let followers: Vec<(&String, &Port)> =
            ports.iter().filter(|(_, port)| port.offset_from.as_ref() == Some(name)).collect();
        // Where the whole group would stand if its first port had this number.
        let group = |number: u16| -> Option<Vec<(&String, u16)>> {
            let mut places = vec![(name, first, number)];
            for (name, port) in &followers {
                let distance = i32::from(port.number) - i32::from(first.number);
                let number = u16::try_from(i32::from(number) + distance).ok()?;
                places.push((name, port, number));
            }
            let all_free = places.iter().all(|(_, port, number)| !taken.contains(number) && free(port, *number));
            all_free.then(|| places.into_iter().map(|(name, _, number)| (name, number)).collect())
        };
        let (low, high) = (usize::from(range.0), usize::from(range.1));
        let size = high.saturating_sub(low) + 1;
        let in_turn = (0..size).filter_map(|n| u16::try_from(low + (first_tried + n) % size).ok());
        let candidates = had.get(name).copied().into_iter().chain([first.number]).chain(in_turn);
        let places = candidates.into_iter().find_map(group)?;
        taken.extend(places.iter().map(|(_, number)| *number));
        chosen.extend(places.into_iter().map(|(name, number)| (name.clone(), number)));
    }
    Some(chosen)
}

/// The numbers of an IPv6 address would run into that of the port.
fn spoken(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{host}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

/// Those of these numbers that the daemon's complaint about a port names, or all of them where it names none.
pub(super) fn named_in(complaint: &str, ports: &BTreeMap<String, u16>) -> Vec<u16> {
    let names = |number: u16| {
        let number = format!(":{number}");
        complaint
            .match_indices(&number)
            .any(|(at, _)| !complaint[at + number.len()..].starts_with(|next: char| next.is_ascii_digit()))
    };
    let named: Vec<u16> = ports.values().copied().filter(|number| names(*number)).collect();
    if named.is_empty() { ports.values().copied().collect() } else { named }
}

/// The address this machine uses towards the rest of its network. Nothing is sent: a datagram socket is only pointed.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address of the documentation range (RFC 5737): the routing table is asked, and nobody is contacted.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

/// Whether nothing on this machine listens there: asked of the kernel, by binding for a moment.
fn is_free(address: IpAddr, number: u16, protocol: PortProtocol) -> bool {
    let at = SocketAddr::new(address, number);
    let tcp = || TcpListener::bind(at).is_ok();
    let udp = || UdpSocket::bind(at).is_ok();
    match protocol {
        PortProtocol::Tcp => tcp(),
        PortProtocol::Udp => udp(),
        PortProtocol::Both => tcp() && udp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, offset_from: Option<&str>) -> Port {
        let offset_from = offset_from.map(str::to_owned);
        Port { number, protocol: PortProtocol::Udp, private: false, join: false, offset_from }
    }

    fn chosen(had: &[(&str, u16)], busy: &[u16]) -> Option<String> {
        chosen_from(0, had, busy)
    }

    fn chosen_from(first_tried: usize, had: &[(&str, u16)], busy: &[u16]) -> Option<String> {
        let ports = [
            ("game", port(2456, None)),
            // Before the port that it counts from in the alphabet, and below it in number.
            ("auth", port(2455, Some("game"))),
            ("query", port(2457, Some("game"))),
            ("rcon", port(2500, None)),
        ];
        let ports = ports.map(|(name, port)| (name.to_owned(), port)).into();
        let had = had.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect();
        let free = |_: &Port, number: u16| !busy.contains(&number);
        let chosen = choose(&ports, &had, (27000, 27008), first_tried, &mut HashSet::new(), &free)?;
        Some(chosen.iter().map(|(name, number)| format!("{name} {number}")).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn ports_that_count_on_from_another_keep_their_distance_or_all_move() {
        assert_eq!(chosen(&[], &[]).unwrap(), "auth 2455, game 2456, query 2457, rcon 2500");
        // One number of the three is somebody's: none of them stays.
        assert_eq!(chosen(&[], &[2457]).unwrap(), "auth 26999, game 27000, query 27001, rcon 2500");
        assert_eq!(chosen(&[], &[2455, 26999, 27003]).unwrap(), "auth 27000, game 27001, query 27002, rcon 2500");
        assert_eq!(chosen(&[], &[2456, 27001, 27004]).unwrap(), "auth 27005, game 27006, query 27007, rcon 2500");
        // What a server had comes first, and what one group took the next port does not get.
        assert_eq!(chosen(&[("game", 2499)], &[]).unwrap(), "auth 2498, game 2499, query 2500, rcon 27000");
        assert_eq!(chosen(&[("game", 65535)], &[]).unwrap(), "auth 2455, game 2456, query 2457, rcon 2500");
        let every_third: Vec<u16> = (2455..=2457).chain((26999..=27009).step_by(3)).collect();
        assert_eq!(chosen(&[], &every_third), None);
        // The whole of the range is tried, wherever that begins.
        assert_eq!(chosen_from(16, &[], &[2456]).unwrap(), "auth 27006, game 27007, query 27008, rcon 2500");
        assert_eq!(chosen_from(8, &[], &[2456, 27008]).unwrap(), "auth 26999, game 27000, query 27001, rcon 2500");
        assert_eq!(chosen_from(8, &[], &every_third), None);
    }

    #[test]
    fn an_address_can_be_pasted() {
        assert_eq!(spoken("play.example.org", 3979), "play.example.org:3979");
        assert_eq!(spoken("192.0.2.7", 3979), "192.0.2.7:3979");
        assert_eq!(spoken("2001:db8::5", 3979), "[2001:db8::5]:3979");
    }

    #[test]
    fn the_port_that_the_daemon_complains_about_is_told_from_the_others() {
        let ports = [("game", 2700), ("rcon", 27001)].map(|(name, number)| (name.to_owned(), number)).into();
        let named = |complaint: &str| named_in(complaint, &ports);
        assert_eq!(named("Bind for 127.0.0.1:27001 failed: port is already allocated"), [27001]);
        assert_eq!(named("listen udp4 0.0.0.0:2700: bind: address already in use"), [2700]);
        assert_eq!(named("failed to bind host port for 0.0.0.0:2700:172.17.0.2:2700/udp"), [2700]);
        assert_eq!(named("Bind for [::]:2700 failed"), [2700]);
        assert_eq!(named("a port is in use"), [2700, 27001]);
    }

    #[test]
    fn a_number_that_another_program_listens_on_is_not_free() {
        let home = IpAddr::from([127, 0, 0, 1]);
        let tcp = TcpListener::bind((home, 0)).unwrap();
        let number = tcp.local_addr().unwrap().port();
        assert!(!is_free(home, number, PortProtocol::Tcp));
        assert!(!is_free(home, number, PortProtocol::Both));
        assert!(is_free(home, number, PortProtocol::Udp));
        drop(tcp);
        assert!(is_free(home, number, PortProtocol::Tcp));
    }
}
