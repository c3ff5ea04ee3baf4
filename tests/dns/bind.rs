//! A name server of a test's own: `named` from Debian's bind9, on a free port of 127.0.0.1, with a zone, keys and a
//! folder that go with it.

use spawnpoint::clients::dns::{Algorithm, Dns, Provider, Settings, rfc2136};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `sixteen bytes!!!!` and more, in base64; each key has its own.
pub const SECRET: &str = "c3Bhd25wb2ludCBtYXkgY2hhbmdlIG5hbWVzISEhISE=";
pub const SECRET_512: &str = "dGhpcyBvbmUgc2lnbnMgd2l0aCBzaGE1MTIsIHdoaWNoIGlzIGxvbmdlcg==";
pub const SECRET_STRANGER: &str = "YSBrbm93biBrZXkgdGhhdCBtYXkgY2hhbmdlIG5vdGhpbmc=";

const ZONE: &str = r#"$TTL 300
@            SOA   ns.example.org. people.example.org. 1 3600 600 86400 30
@            NS    ns.example.org.
ns           A     192.0.2.53
www          A     192.0.2.80
www6         AAAA  2001:db8::80
alias        CNAME www.example.org.
mail         MX    10 www.example.org.
spf          TXT   "v=spf1 -all"
delegated    NS    ns.elsewhere.net.
*.wild       A     192.0.2.99
deep.down    A     192.0.2.98
"#;

pub struct NameServer {
    named: Child,
    pub address: SocketAddr,
    _home: tempfile::TempDir,
}

impl NameServer {
    /// `None` on a laptop without a name server; CI has one.
    pub fn start() -> Option<NameServer> {
        let named = ["/usr/sbin/named", "/usr/local/sbin/named"].into_iter().find(|path| Path::new(path).exists());
        let Some(named) = named else {
            assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "no named; install bind9");
            println!("skipped: no named (Debian: bind9)");
            return None;
        };
        // A port that was free a moment ago may be taken now, though hardly five times over.
        (0..5).find_map(|_| NameServer::listening(named)).or_else(|| panic!("no port for the name server"))
    }

    /// `None` when somebody else took the port first.
    fn listening(named: &str) -> Option<NameServer> {
        let home = tempfile::Builder::new().prefix("spawnpoint-dns-").tempdir().unwrap();
        let address = free_port();
        let (at, port) = (home.path().display(), address.port());
        let key = |name: &str, algorithm: &str, secret: &str| {
            format!("key \"{name}\" {{ algorithm {algorithm}; secret \"{secret}\"; }};\n")
        };
        let keys = key("spawnpoint", "hmac-sha256", SECRET)
            + &key("second", "hmac-sha512", SECRET_512)
            + &key("stranger", "hmac-sha256", SECRET_STRANGER);
        let config = format!(
            r#"{keys}
options {{
  directory "{at}"; pid-file none; session-keyfile none; managed-keys-directory "{at}";
  listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  recursion no; dnssec-validation no; notify no; allow-transfer {{ none; }};
}};
controls {{ }};
zone "example.org" {{
  type primary; file "{at}/zone";
  update-policy {{ grant spawnpoint zonesub A AAAA TXT; grant second zonesub A AAAA TXT; }};
}};
"#
        );
        std::fs::write(home.path().join("named.conf"), config).unwrap();
        std::fs::write(home.path().join("zone"), ZONE).unwrap();
        let mut named = Command::new(named)
            .args(["-g", "-n", "1", "-c"])
            .arg(home.path().join("named.conf"))
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("named starts");
        let mut said = String::new();
        let mut lines = BufReader::new(named.stderr.take().unwrap()).lines();
        for line in lines.by_ref() {
            let line = line.unwrap();
            if line.ends_with(" running") {
                // What it says later must go somewhere, or it stops.
                std::thread::spawn(move || lines.for_each(drop));
                // Without its port it runs all the same.
                let taken = said.contains("address in use");
                let server = NameServer { named, address, _home: home };
                return (!taken).then_some(server);
            }
            said += &(line + "\n");
        }
        named.wait().expect("it was started here");
        panic!("named ended at once:\n{said}");
    }

    /// What the zone answers, as `dig` reads it.
    pub fn dig(&self, name: &str, kind: &str) -> Vec<String> {
        let mut lines = self.dug(name, kind, &["+short"]);
        lines.sort();
        lines
    }

    /// The time to live of the first answer.
    pub fn ttl(&self, name: &str, kind: &str) -> Option<u32> {
        let lines = self.dug(name, kind, &["+noall", "+answer"]);
        lines.first()?.split_whitespace().nth(1)?.parse().ok()
    }

    /// Changes with every change of the zone, and with nothing else.
    pub fn serial(&self) -> String {
        let soa = self.dig("example.org", "SOA");
        soa[0].split(' ').nth(2).expect("a serial number").to_owned()
    }

    fn dug(&self, name: &str, kind: &str, how: &[&str]) -> Vec<String> {
        let output = Command::new("dig")
            .args(how)
            .args([
                &format!("@{}", self.address.ip()),
                "-p",
                &self.address.port().to_string(),
                // A datagram of some other test may come to a port that was free a moment ago.
                "+tcp",
                "+tries=2",
                "+time=3",
                name,
                kind,
            ])
            .output()
            .expect("dig is there: bind9-dnsutils");
        assert!(output.status.success(), "dig {name} {kind}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[allow(dead_code, reason = "only a test of the driver needs it")]
    /// From now on the system takes connections and questions for it, and no answer comes.
    pub fn hangs(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.named.id().to_string()]).status().unwrap();
        assert!(stopped.success(), "it runs until here");
    }

    pub fn dns(&self, instance: &str) -> Dns {
        dns(&self.address.to_string(), instance)
    }
}

/// Free for TCP and UDP both. BIND listens on addresses that an interface has, so there is but 127.0.0.1.
fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.named.kill().expect("it runs until here");
        self.named.wait().expect("it was started here");
    }
}

pub fn dns(server: &str, instance: &str) -> Dns {
    with_key(server, instance, "spawnpoint", SECRET, Algorithm::HmacSha256)
}

pub fn with_key(server: &str, instance: &str, name: &str, secret: &str, algorithm: Algorithm) -> Dns {
    Dns::from_config(settings("example.org", server, instance, name, secret, algorithm)).unwrap()
}

pub fn settings(zone: &str, server: &str, instance: &str, name: &str, secret: &str, algorithm: Algorithm) -> Settings {
    let key = rfc2136::Settings {
        server: server.into(),
        key_name: name.into(),
        key_secret: secret.to_owned().into(),
        algorithm,
    };
    Settings { zone: zone.into(), ttl_seconds: 60, instance: instance.into(), provider: Provider::Rfc2136(key) }
}
