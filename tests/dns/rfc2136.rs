//! Dynamic updates with TSIG, to a real name server. What the zone holds is read by `dig`.

use crate::bind::{NameServer, SECRET, SECRET_512, SECRET_STRANGER, dns, settings, with_key};
use spawnpoint::clients::dns::{Algorithm, Dns, DnsError, HostName, Owner, Rfc2136, Zone, rfc2136};
use spawnpoint::config::Config;
use spawnpoint::program;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

const NOTHING: [&str; 0] = [];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_name_follows_its_server_and_goes_with_it() {
    let Some(server) = NameServer::start() else { return };
    let dns = server.dns("blue");
    assert_eq!(dns.look("friday").await.unwrap(), None);

    let name = dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(name.as_str(), "friday.example.org");
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.1"]);
    assert_eq!(server.ttl("friday.example.org", "A"), Some(60));
    assert_eq!(server.dig("friday.example.org", "TXT"), ["\"heritage=spawnpoint,spawnpoint/instance=blue\""]);

    // Twice is once, in whatever case it is asked for.
    dns.point("Friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.1"]);

    dns.point("friday", ip("192.0.2.2")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.2"]);

    // The other family's address would lead half of the friends to a host that is gone.
    dns.point("friday", ip("2001:db8::2")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "AAAA"), ["2001:db8::2"]);
    assert_eq!(server.dig("friday.example.org", "A"), NOTHING);
    dns.point("friday", ip("::ffff:192.0.2.3")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.3"]);
    assert_eq!(server.dig("friday.example.org", "AAAA"), NOTHING);

    let entry = dns.look("friday").await.unwrap().unwrap();
    assert_eq!((entry.addresses.as_slice(), entry.ttl_seconds), ([ip("192.0.2.3")].as_slice(), Some(60)));
    assert_eq!(entry.owner("blue"), Owner::Ours);

    dns.clear("friday").await.unwrap();
    assert_eq!(server.dig("friday.example.org", "ANY"), NOTHING);
    let before = server.serial();
    dns.clear("friday").await.unwrap();
    dns.clear("never-was").await.unwrap();
    assert_eq!(server.serial(), before);
}

#[tokio::test]
async fn the_configuration_is_all_it_takes() {
    let Some(server) = NameServer::start() else { return };
    let text = format!(
        "[dns]\nzone = \"Example.org.\"\nprovider = \"rfc2136\"\nttl_seconds = 120\n[dns.rfc2136]\nserver = \"{}\"\n\
         key_name = \"second\"\nkey_secret = \"{SECRET_512}\"\nalgorithm = \"hmac-sha512\"\n",
        server.address
    );
    let config = Config::parse(&text, std::iter::empty()).unwrap();
    let dns = program::names(&config, "0123456789abcdef").unwrap().expect("a zone is named");
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.1"]);
    assert_eq!(server.ttl("friday.example.org", "A"), Some(120));
    assert!(program::names(&Config::default(), "x").unwrap().is_none());
    let broken = Config::parse(&text.replace(SECRET_512, "hush!"), std::iter::empty()).unwrap();
    let error = format!("{:#}", program::names(&broken, "x").err().expect("a secret that is none"));
    assert!(error.contains("base64") && !error.contains("hush"), "{error}");
}

#[tokio::test]
async fn a_key_that_may_not_is_refused_with_its_reason() {
    let Some(server) = NameServer::start() else { return };
    let at = server.address.to_string();
    let (short, long) = (Algorithm::HmacSha256, Algorithm::HmacSha512);
    let before = server.serial();
    for (key, secret, algorithm, reason) in [
        ("spawnpoint", SECRET_512, short, "another secret"),
        ("nobody", SECRET, short, "knows no key"),
        ("spawnpoint", SECRET, long, "knows no key"),
        ("stranger", SECRET_STRANGER, short, "may not change"),
    ] {
        let error = with_key(&at, "blue", key, secret, algorithm).point("friday", ip("192.0.2.1")).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DnsError::Denied(_)) && text.contains(reason), "{key}: {text}");
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(server.serial(), before);
    with_key(&at, "blue", "Second.", SECRET_512, long).point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_zone_that_the_server_does_not_keep_is_named() {
    let Some(server) = NameServer::start() else { return };
    let at = server.address.to_string();
    for zone in ["example.com", "games.example.org", "org"] {
        let settings = settings(zone, &at, "blue", "spawnpoint", SECRET, Algorithm::HmacSha256);
        let error = Dns::from_config(settings).unwrap().point("friday", ip("192.0.2.1")).await.unwrap_err();
        assert!(matches!(error, DnsError::Refused(_) | DnsError::Denied(_)), "{zone}: {error:?}");
        assert!(error.to_string().contains(zone), "{error}");
    }
}

#[tokio::test]
async fn a_name_outside_of_the_zone_is_refused_before_anybody_is_asked() {
    let settings = rfc2136::Settings {
        server: "127.0.0.1:1".into(),
        key_name: "spawnpoint".into(),
        key_secret: SECRET.to_owned().into(),
        algorithm: Algorithm::HmacSha256,
    };
    let zone = Rfc2136::new(HostName::parse("example.org").unwrap(), "blue", settings).unwrap();
    for name in ["friday.example.com", "example.org", "notexample.org", "org"] {
        let name = HostName::parse(name).unwrap();
        let results =
            [zone.set(&name, ip("192.0.2.1"), 60).await, zone.remove(&name).await, zone.get(&name).await.map(|_| ())];
        for result in results {
            assert!(matches!(result, Err(DnsError::Refused(_))), "{name}: {result:?}");
        }
    }
    let dns = dns("127.0.0.1:1", "blue");
    for (label, address) in [("*", "192.0.2.1"), ("", "192.0.2.1"), ("@", "192.0.2.1"), ("friday", "0.0.0.0")] {
        assert!(matches!(dns.point(label, ip(address)).await, Err(DnsError::Refused(_))), "{label} {address}");
    }
}

#[tokio::test]
async fn what_somebody_else_wrote_is_left_alone() {
    let Some(server) = NameServer::start() else { return };
    let dns = server.dns("blue");
    server.dns("red").point("theirs", ip("192.0.2.7")).await.unwrap();
    let before = server.serial();
    // Label, what the refusal names, and whether taking it away is refused too: nothing that leads nowhere is ours.
    for (label, named, leads) in [
        ("www", "192.0.2.80", true),
        ("www6", "2001:db8::80", true),
        ("alias", "CNAME", true),
        ("theirs", "instance is red", true),
        ("mail", "a record", false),
        ("spf", "TXT", false),
        ("delegated", "a record", false),
    ] {
        let error = dns.point(label, ip("192.0.2.1")).await.unwrap_err();
        assert!(matches!(error, DnsError::Foreign(_)) && error.to_string().contains(named), "{label}: {error}");
        match dns.clear(label).await {
            Err(DnsError::Foreign(_)) if leads => {}
            Ok(()) if !leads => {}
            other => panic!("clearing {label}: {other:?}"),
        }
    }
    assert_eq!(server.serial(), before);
    assert_eq!(server.dig("theirs.example.org", "A"), ["192.0.2.7"]);
}

#[tokio::test]
async fn a_wildcard_answers_for_no_name_and_hides_none() {
    let Some(server) = NameServer::start() else { return };
    let dns = server.dns("blue");
    assert_eq!(server.dig("a.wild.example.org", "A"), ["192.0.2.99"]);
    assert_eq!(dns.look("a.wild").await.unwrap(), None);
    dns.clear("a.wild").await.unwrap();
    dns.point("a.wild", ip("192.0.2.1")).await.unwrap();
    assert_eq!(server.dig("a.wild.example.org", "A"), ["192.0.2.1"]);
    dns.clear("a.wild").await.unwrap();
    assert_eq!(server.dig("a.wild.example.org", "A"), ["192.0.2.99"]);
    // A name that exists only because another stands below it is free.
    dns.point("down", ip("192.0.2.2")).await.unwrap();
    assert_eq!(server.dig("down.example.org", "A"), ["192.0.2.2"]);
    dns.clear("down").await.unwrap();
    assert_eq!(server.dig("deep.down.example.org", "A"), ["192.0.2.98"]);
}

#[tokio::test]
async fn the_longest_name_that_fits_works() {
    let Some(server) = NameServer::start() else { return };
    let dns = server.dns("blue");
    let part = "a".repeat(63);
    // 253 characters with `.example.org`.
    let label = format!("{part}.{part}.{part}.{}", "b".repeat(253 - 12 - 3 * 64));
    let name = dns.point(&label, ip("192.0.2.1")).await.unwrap();
    assert_eq!(name.as_str().len(), 253);
    assert_eq!(server.dig(name.as_str(), "A"), ["192.0.2.1"]);
    dns.clear(&label).await.unwrap();
    assert!(matches!(dns.point(&format!("{label}b"), ip("192.0.2.1")).await, Err(DnsError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_spawnpoints_one_gets_the_name_and_the_other_a_reason() {
    let Some(server) = NameServer::start() else { return };
    let (blue, red) = (server.dns("blue"), server.dns("red"));
    for round in 0..10 {
        let label = format!("name-{round}");
        let (one, other) = tokio::join!(blue.point(&label, ip("192.0.2.1")), red.point(&label, ip("192.0.2.2")));
        let (address, owner) = match (one, other) {
            (Ok(_), Err(DnsError::Foreign(why))) => {
                assert!(why.contains("blue"), "{why}");
                ("192.0.2.1", "blue")
            }
            (Err(DnsError::Foreign(why)), Ok(_)) => {
                assert!(why.contains("red"), "{why}");
                ("192.0.2.2", "red")
            }
            odd => panic!("{odd:?}"),
        };
        assert_eq!(server.dig(&format!("{label}.example.org"), "A"), [address]);
        let text = server.dig(&format!("{label}.example.org"), "TXT");
        assert!(text.len() == 1 && text[0].contains(owner), "{text:?}");
    }
    // One that sets while it also takes away, as after a crash: in the end it is the one or the other, whole.
    for round in 0..10 {
        let label = format!("both-{round}");
        blue.point(&label, ip("192.0.2.1")).await.unwrap();
        let (set, cleared) = tokio::join!(blue.point(&label, ip("192.0.2.3")), blue.clear(&label));
        set.unwrap();
        cleared.unwrap();
        let name = format!("{label}.example.org");
        let left = (server.dig(&name, "A").len(), server.dig(&name, "TXT").len());
        assert!(left == (0, 0) || left == (1, 1), "{left:?}");
    }
}

#[tokio::test]
async fn a_text_that_somebody_put_beside_the_marker_stays() {
    let Some(server) = NameServer::start() else { return };
    let dns = server.dns("blue");
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    let script = format!(
        "server {} {}\nzone example.org\nkey hmac-sha256:spawnpoint {SECRET}\nupdate add friday.example.org 60 TXT \"a note\"\nsend\n",
        server.address.ip(),
        server.address.port()
    );
    let mut nsupdate = std::process::Command::new("nsupdate")
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("nsupdate is there: bind9-dnsutils");
    std::io::Write::write_all(&mut nsupdate.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(nsupdate.wait().unwrap().success());
    dns.point("friday", ip("192.0.2.2")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.2"]);
    dns.clear("friday").await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), NOTHING);
    assert_eq!(server.dig("friday.example.org", "TXT"), ["\"a note\""]);
}

#[tokio::test]
async fn a_server_that_is_away_is_worth_another_try() {
    // Nobody listens there, and nobody else gets it meanwhile.
    let held = TcpSocket::new_v4().unwrap();
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let silent = held.local_addr().unwrap();
    for server in [silent.to_string(), "no-such-host.invalid".into()] {
        let error = dns(&server, "blue").point("friday", ip("192.0.2.1")).await.unwrap_err();
        assert!(matches!(error, DnsError::Busy { .. }), "{error:?}");
        assert!(error.to_string().contains("cannot be reached"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dns = dns(&silent.local_addr().unwrap().to_string(), "blue");
    let started = tokio::time::Instant::now();
    let error = dns.clear("friday").await.unwrap_err();
    assert!(matches!(error, DnsError::Busy { .. }), "{error:?}");
    assert!(started.elapsed() < std::time::Duration::from_secs(91));
}

/// Carries questions and answers between a client and the name server, and loses what it is told to.
struct Between {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Between {
    /// The name server does what it is asked; of each `every` answers one is lost.
    async fn losing(server: SocketAddr, every: usize) -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let question = framed(&mut client).await;
                let mut behind = TcpStream::connect(server).await.unwrap();
                behind.write_all(&question).await.unwrap();
                let answer = framed(&mut behind).await;
                if counter.fetch_add(1, Ordering::SeqCst) % every != every - 1 {
                    client.write_all(&answer).await.unwrap();
                }
            }
        });
        Between { address, asked }
    }

    /// Answers every question with success, signed by nobody.
    async fn lying() -> Between {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let question = framed(&mut client).await;
                counter.fetch_add(1, Ordering::SeqCst);
                // The same id and operation, answer and no error, every section empty.
                let header = [question[2], question[3], question[4] | 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                client.write_all(&[&[0, 12][..], &header].concat()).await.unwrap();
            }
        });
        Between { address, asked }
    }

    /// Only by UDP, as where a firewall lets nothing else through.
    async fn without_tcp(server: SocketAddr) -> Between {
        // The number is held for TCP too, and nobody listens there.
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = tcp.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            let _held = tcp;
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let behind = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                behind.send_to(&buffer[..length], server).await.unwrap();
                let length = behind.recv(&mut buffer).await.unwrap();
                // A stranger's guess comes first, and is not believed.
                socket.send_to(&[0xff; 12], client).await.unwrap();
                socket.send_to(&buffer[..length], client).await.unwrap();
            }
        });
        Between { address, asked }
    }

    fn dns(&self) -> Dns {
        dns(&self.address.to_string(), "blue")
    }
}

/// One message with the two bytes of its length.
async fn framed(stream: &mut TcpStream) -> Vec<u8> {
    let length = stream.read_u16().await.unwrap();
    let mut message = length.to_be_bytes().to_vec();
    message.resize(2 + usize::from(length), 0);
    stream.read_exact(&mut message[2..]).await.unwrap();
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_cured_by_asking_again() {
    let Some(server) = NameServer::start() else { return };
    // With 2 the answer to the update itself is lost, with 3 one of the looks before it.
    for (every, label) in [(2, "two"), (3, "three")] {
        let between = Between::losing(server.address, every).await;
        let dns = between.dns();
        dns.point(label, ip("192.0.2.1")).await.unwrap();
        dns.point(label, ip("192.0.2.2")).await.unwrap();
        let name = format!("{label}.example.org");
        assert_eq!(server.dig(&name, "A"), ["192.0.2.2"]);
        assert_eq!(server.dig(&name, "TXT").len(), 1);
        dns.clear(label).await.unwrap();
        assert_eq!(server.dig(&name, "A"), NOTHING);
        assert!(between.asked.load(Ordering::SeqCst) > 6);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_signed_is_not_believed() {
    let between = Between::lying().await;
    let error = between.dns().point("friday", ip("192.0.2.1")).await.unwrap_err();
    assert!(matches!(error, DnsError::Strange(_)) && error.to_string().contains("not signed"), "{error:?}");
    assert_eq!(between.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn udp_serves_where_tcp_does_not() {
    let Some(server) = NameServer::start() else { return };
    let between = Between::without_tcp(server.address).await;
    let dns = between.dns();
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), ["192.0.2.1"]);
    dns.clear("friday").await.unwrap();
    assert_eq!(server.dig("friday.example.org", "A"), NOTHING);
    assert!(between.asked.load(Ordering::SeqCst) > 4);
}
