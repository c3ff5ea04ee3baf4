//! UDP ports of a host, reached from here. SSH carries no datagrams, so a few lines of Perl on the host do: every
//! Debian has `perl-base`. Each datagram travels in a frame of two numbers of 16 bits (which local sender, how many
//! bytes) and its bytes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Ssh;
use super::error::SshError;
use super::quote::quoted;
use super::session::{Event, Session};

/// How long the host may take to start the relay.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How many local senders a relay tells apart; one more takes the place of the oldest.
const SENDERS: u16 = 64;
/// A datagram that the connection does not take in this time is lost, as datagrams are.
const SEND_LIMIT: Duration = Duration::from_secs(5);
const DATAGRAM_MAX_BYTES: usize = 65_507;
/// The relay's first bytes.
const HELLO: &[u8] = b"relay\n";

/// Ends with its stdin, so a lost connection leaves nothing behind.
const RELAY: &str = r#"use strict; use warnings; use Socket;
my $to = sockaddr_in(shift, inet_aton("127.0.0.1"));
my ($in, %socket) = ("");
binmode STDIN; binmode STDOUT;
sub out { my $all = shift; while (length $all) { my $n = syswrite STDOUT, $all; exit 0 unless $n; substr($all, 0, $n) = ""; } }
out("relay\n");
while (1) {
  my $bits = ""; vec($bits, 0, 1) = 1; vec($bits, fileno $_, 1) = 1 for values %socket;
  next if select($bits, undef, undef, undef) < 0;
  if (vec($bits, 0, 1)) {
    sysread(STDIN, $in, 65536, length $in) or exit 0;
    while (length $in >= 4) {
      my ($who, $size) = unpack "nn", $in;
      last if length $in < 4 + $size;
      my $data = substr $in, 4, $size; substr($in, 0, 4 + $size) = "";
      if (!$socket{$who}) {
        socket(my $new, PF_INET, SOCK_DGRAM, 0) or die "no socket: $!\n";
        connect($new, $to) or die "no socket: $!\n";
        $socket{$who} = $new;
      }
      send($socket{$who}, $data, 0);
    }
  }
  for my $who (keys %socket) {
    next unless vec($bits, fileno $socket{$who}, 1);
    next unless defined recv($socket{$who}, my $data, 65536, 0);
    out(pack("nn", $who, length $data) . $data);
  }
}"#;

/// A port of the host on this machine's loopback, until it is dropped. It does not survive its connection, so each use
/// opens its own.
#[derive(Debug)]
pub struct LocalUdp {
    pub address: SocketAddr,
    open: CancellationToken,
    _guard: DropGuard,
}

impl LocalUdp {
    pub fn is_open(&self) -> bool {
        !self.open.is_cancelled()
    }
}

impl Ssh {
    /// Passes datagrams between a port here and 127.0.0.1:`port` on the host. Each local sender is a sender of its own
    /// there.
    pub async fn local_udp(&self, port: u16) -> Result<LocalUdp, SshError> {
        let refused = |error: std::io::Error| SshError::Refused(format!("no local port could be opened: {error}"));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
        let address = socket.local_addr().map_err(refused)?;
        let what = "starting the datagram relay";
        // Apart: a flood of datagrams holds no command up.
        let command = format!("exec {}", quoted(&["perl", "-e", RELAY, &port.to_string()])?);
        let ssh = self.apart();
        let starting = async {
            let mut session = ssh.session(command).await?;
            let rest = hello(&mut session).await?;
            Ok((session, rest))
        };
        let (session, rest) = timeout(START_LIMIT, starting)
            .await
            .unwrap_or(Err(SshError::Timeout { what: what.into(), limit: START_LIMIT }))?;
        let open = CancellationToken::new();
        let over = open.clone();
        tokio::spawn(async move {
            over.run_until_cancelled(relay(session, rest, socket)).await;
            over.cancel();
            drop(ssh);
        });
        Ok(LocalUdp { address, open: open.clone(), _guard: open.drop_guard() })
    }
}

/// Waits for the relay's first word, or says why it did not come.
async fn hello(session: &mut Session) -> Result<BytesMut, SshError> {
    let (mut out, mut said) = (BytesMut::new(), vec![]);
    let mut ended = None;
    while let Some(event) = session.next().await {
        match event {
            Event::Out(bytes) => out.extend_from_slice(&bytes),
            Event::Err(bytes) => said.extend_from_slice(&bytes[..bytes.len().min(1024)]),
            Event::Ended(how) => ended = Some(how),
        }
        if out.starts_with(HELLO) {
            out.advance(HELLO.len());
            return Ok(out);
        }
    }
    let last = String::from_utf8_lossy(&said).lines().map(String::from).collect();
    match ended {
        Some(ended) => Err(SshError::Exit { what: "the datagram relay (perl)".into(), ended, last }),
        None => Err(session.broken("starting the datagram relay")),
    }
}

async fn relay(mut session: Session, rest: BytesMut, socket: UdpSocket) {
    let mut stdin = session.stdin();
    let mut senders = Senders::default();
    let mut arrived = rest;
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        tokio::select! {
            event = session.next() => match event {
                Some(Event::Out(bytes)) => {
                    arrived.extend_from_slice(&bytes);
                    while let Some((sender, datagram)) = next_frame(&mut arrived) {
                        if let Some(address) = senders.address(sender) {
                            // A sender that has gone needs no answer.
                            let _ = socket.send_to(&datagram, address).await;
                        }
                    }
                }
                Some(Event::Err(_)) => {}
                Some(Event::Ended(_)) | None => return,
            },
            received = socket.recv_from(&mut buffer) => {
                // An error here is the echo of a datagram to a sender that has gone.
                let Ok((size, from)) = received else { continue };
                if !forward(&mut stdin, senders.number(from), &buffer[..size]).await {
                    return;
                }
            }
        }
    }
}

/// False once the connection is of no use: a frame that was sent in part spoils what follows.
async fn forward(stdin: &mut (impl AsyncWrite + Unpin), sender: u16, datagram: &[u8]) -> bool {
    let mut frame = BytesMut::with_capacity(4 + datagram.len());
    frame.put_u16(sender);
    frame.put_u16(datagram.len() as u16);
    frame.put_slice(datagram);
    matches!(timeout(SEND_LIMIT, stdin.write_all(&frame)).await, Ok(Ok(())))
}

fn next_frame(arrived: &mut BytesMut) -> Option<(u16, Bytes)> {
    if arrived.len() < 4 {
        return None;
    }
    let sender = u16::from_be_bytes([arrived[0], arrived[1]]);
    let size = usize::from(u16::from_be_bytes([arrived[2], arrived[3]]));
    if arrived.len() < 4 + size {
        return None;
    }
    arrived.advance(4);
    Some((sender, arrived.split_to(size).freeze()))
}

/// Local senders and the numbers they have on the wire.
#[derive(Default)]
struct Senders {
    numbers: HashMap<SocketAddr, u16>,
    addresses: HashMap<u16, SocketAddr>,
    next: u16,
}

impl Senders {
    fn number(&mut self, from: SocketAddr) -> u16 {
        if let Some(number) = self.numbers.get(&from) {
            return *number;
        }
        let number = self.next;
        self.next = (self.next + 1) % SENDERS;
        if let Some(old) = self.addresses.insert(number, from) {
            self.numbers.remove(&old);
        }
        self.numbers.insert(from, number);
        number
    }

    fn address(&self, number: u16) -> Option<SocketAddr> {
        self.addresses.get(&number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_however_they_are_chopped() {
        let mut wire = BytesMut::new();
        let all = [0, 1, 0, 2, b'h', b'i', 0, 2, 0, 0, 0, 3];
        let mut found = vec![];
        for byte in all {
            wire.put_u8(byte);
            found.extend(next_frame(&mut wire));
        }
        assert_eq!(found, [(1, Bytes::from_static(b"hi")), (2, Bytes::new())]);
    }

    #[test]
    fn one_sender_too_many_takes_the_place_of_the_oldest() {
        let mut senders = Senders::default();
        let from = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        for port in 0..SENDERS {
            assert_eq!(senders.number(from(1000 + port)), port);
        }
        assert_eq!(senders.number(from(1000)), 0);
        assert_eq!(senders.number(from(9000)), 0);
        assert_eq!(senders.address(0), Some(from(9000)));
        assert_eq!(senders.number(from(1000)), 1);
    }
}
