//! Dynamic update of a zone (RFC 2136), signed with a shared key (TSIG, RFC 8945): what BIND, Knot, PowerDNS and NSD's
//! neighbours take. Every change carries as prerequisite what was seen before it, so the name server itself refuses it
//! when somebody was quicker; nothing is overwritten in between. Answers are believed only if they are signed as well.
//!
//! TCP comes first, because an answer lost on the way is rarer there; UDP where the server cannot be reached by TCP.

use super::{DnsError, Entry, HostName, Owner, Zone, foreign, marker};
use async_trait::async_trait;
use base64::Engine;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_proto::rr::rdata::tsig::{TsigAlgorithm, TsigError};
use hickory_proto::rr::rdata::{A, AAAA, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use secrecy::{ExposeSecret, SecretString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// Connecting, and one question with its answer.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often one question is asked before it is given up.
const TRIES: u32 = 3;
/// Before the second try; twice that before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// How often a change is decided anew because somebody else changed the name between look and change.
const ROUNDS: u32 = 4;
/// RFC 8945 recommends five minutes for how far clocks may be apart.
const FUDGE_S: u16 = 300;
const PORT: u16 = 53;
/// The most that a message over TCP can have, and more than a UDP answer to us ever has.
const LONGEST_MESSAGE: usize = 65_535;

/// With a shorter key the signature is guessed sooner than it should be.
const SHORTEST_KEY_BYTES: usize = 16;

#[derive(Clone, Debug)]
pub struct Settings {
    /// `192.0.2.53`, `ns.example.org:53`, `[2001:db8::53]:53`.
    pub server: String,
    pub key_name: String,
    /// In base64, as `tsig-keygen` writes it.
    pub key_secret: SecretString,
    pub algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha256,
    HmacSha512,
}

pub struct Rfc2136 {
    zone: HostName,
    instance: String,
    server: String,
    signer: TSigner,
}

impl Rfc2136 {
    pub fn new(zone: HostName, instance: &str, settings: Settings) -> Result<Rfc2136, DnsError> {
        let refused = |why: String| DnsError::Refused(why);
        let key_name = Name::from_ascii(settings.key_name.trim().to_ascii_lowercase())
            .ok()
            .filter(|name| name.num_labels() > 0)
            .ok_or_else(|| refused("The name of the DNS key is no name; copy it from the name server.".into()))?;
        let secret = base64::engine::general_purpose::STANDARD
            .decode(settings.key_secret.expose_secret().trim())
            .map_err(|_| refused("The secret of the DNS key is not base64; copy it as tsig-keygen wrote it.".into()))?;
        if secret.len() < SHORTEST_KEY_BYTES {
            return Err(refused(format!(
                "The secret of the DNS key has {} bytes, which is too short; make one with tsig-keygen.",
                secret.len()
            )));
        }
        let algorithm = match settings.algorithm {
            Algorithm::HmacSha256 => TsigAlgorithm::HmacSha256,
            Algorithm::HmacSha512 => TsigAlgorithm::HmacSha512,
        };
        let signer = TSigner::new(secret, algorithm, key_name, FUDGE_S)
            .map_err(|_| refused("The DNS key cannot be used with this algorithm.".into()))?;
        let server = with_port(&settings.server)?;
        Ok(Rfc2136 { zone, instance: instance.to_owned(), server, signer })
    }

    fn origin(&self) -> Result<Name, DnsError> {
        wire(&self.zone)
    }

    /// An update that demands and changes nothing yet.
    fn update(&self) -> Result<Message, DnsError> {
        let mut zone = Query::new();
        zone.set_name(self.origin()?).set_query_class(DNSClass::IN).set_query_type(RecordType::SOA);
        let mut message = Message::query();
        message.metadata.op_code = OpCode::Update;
        message.metadata.recursion_desired = false;
        message.add_zone(zone);
        Ok(message)
    }

    /// Whether the zone has a node of this name. An update that only demands is how to ask: a query would be answered
    /// by a wildcard.
    async fn in_use(&self, name: &HostName) -> Result<bool, DnsError> {
        let mut probe = self.update()?;
        probe.add_pre_requisite(bare(name, RecordType::ANY, DNSClass::ANY)?);
        match self.changed(probe).await? {
            Change::Done => Ok(true),
            Change::Overtaken => Ok(false),
        }
    }

    async fn records(&self, name: &HostName, kind: RecordType) -> Result<Vec<Record>, DnsError> {
        let wanted = wire(name)?;
        let mut message = Message::query();
        message.metadata.recursion_desired = false;
        message.add_query(Query::query(wanted.clone(), kind));
        let answer = self.ask(message).await?;
        match answer.response_code {
            ResponseCode::NoError => {
                Ok(answer.answers.iter().filter(|record| record.name == wanted).cloned().collect())
            }
            ResponseCode::NXDomain => Ok(vec![]),
            code => Err(self.refusal(code)),
        }
    }

    /// What stands at the name at one moment: several questions, and then one that asks whether all of it still holds.
    async fn look(&self, name: &HostName) -> Result<Option<Seen>, DnsError> {
        for _ in 0..ROUNDS {
            if !self.in_use(name).await? {
                return Ok(None);
            }
            let (mut entry, mut texts) = (Entry::default(), vec![]);
            let mut still = self.update()?;
            for kind in [RecordType::TXT, RecordType::A, RecordType::AAAA] {
                let (of_kind, others): (Vec<Record>, Vec<Record>) =
                    self.records(name, kind).await?.into_iter().partition(|record| record.record_type() == kind);
                // A CNAME answers every question.
                others.iter().for_each(|record| entry.beside(&record.record_type().to_string()));
                match of_kind.is_empty() {
                    true => {
                        still.add_pre_requisite(bare(name, kind, DNSClass::NONE)?);
                    }
                    false => demand(&mut still, &of_kind),
                }
                for record in of_kind {
                    match &record.data {
                        RData::A(A(address)) => entry.lead(IpAddr::V4(*address), record.ttl),
                        RData::AAAA(AAAA(address)) => entry.lead(IpAddr::V6(*address), record.ttl),
                        RData::TXT(text) => {
                            entry.texts.push(joined(text));
                            texts.push(record);
                        }
                        other => entry.beside(&other.record_type().to_string()),
                    }
                }
            }
            still.add_pre_requisite(bare(name, RecordType::ANY, DNSClass::ANY)?);
            match self.changed(still).await? {
                Change::Done => return Ok(Some(Seen { entry, texts })),
                Change::Overtaken => {}
            }
        }
        Err(self.contested(name))
    }

    /// Sends an update. Prerequisites that do not hold are no error: somebody was quicker.
    async fn changed(&self, update: Message) -> Result<Change, DnsError> {
        let answer = self.ask(update).await?;
        match answer.response_code {
            ResponseCode::NoError => Ok(Change::Done),
            ResponseCode::NXDomain | ResponseCode::YXDomain | ResponseCode::NXRRSet | ResponseCode::YXRRSet => {
                Ok(Change::Overtaken)
            }
            code => Err(self.refusal(code)),
        }
    }

    /// A refusal that is signed, or an error that claims to be one: neither says that anything was done.
    fn refusal(&self, code: ResponseCode) -> DnsError {
        let (zone, server, key) = (&self.zone, &self.server, self.signer.signer_name());
        match code {
            ResponseCode::Refused => DnsError::Denied(format!(
                "The name server {server} refused: the key {key} may not change names in {zone}, or not ask for them."
            )),
            ResponseCode::NotAuth | ResponseCode::NotZone => DnsError::Refused(format!(
                "The name server {server} does not keep the zone {zone}. The zone in the configuration must be its \
                 whole name there, and the server its primary."
            )),
            ResponseCode::NotImp => {
                DnsError::Refused(format!("The name server {server} takes no dynamic updates (RFC 2136)."))
            }
            ResponseCode::ServFail => {
                DnsError::busy(format!("The name server {server} could not do it now (SERVFAIL); its log says why."))
            }
            other => DnsError::Strange(format!("The name server {server} answered “{other}” about the zone {zone}.")),
        }
    }

    async fn ask(&self, message: Message) -> Result<Message, DnsError> {
        let mut pause = FIRST_PAUSE;
        for attempt in 1.. {
            // Signed anew each time: the time of signing is part of it.
            match self.ask_once(message.clone()).await {
                Err(DnsError::Busy { .. }) if attempt < TRIES => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                result => return result,
            }
        }
        unreachable!("the last try returns")
    }

    async fn ask_once(&self, mut message: Message) -> Result<Message, DnsError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let odd = |_| DnsError::Strange("A question to the name server could not be written down.".to_owned());
        let verifier = message.finalize(&self.signer, now).map_err(odd)?;
        let bytes = message.to_vec().map_err(odd)?;
        let raw = self.carried(&bytes).await?;
        let strange = |what: &str| DnsError::Strange(format!("The name server {} {what}.", self.server));
        let answer = Message::from_vec(&raw).map_err(|_| strange("gave an answer that is no DNS message"))?;
        if answer.id != message.id || answer.message_type != MessageType::Response || answer.op_code != message.op_code
        {
            return Err(strange("gave an answer to another question"));
        }
        // RFC 8945 5.3.2: who does not know the key cannot sign, so these errors come without a signature.
        if let Some(error) = answer.signature().and_then(|record| record.data.error) {
            return Err(self.key_refused(error));
        }
        let verified = verifier.is_some_and(|mut verifier| verifier.verify(&raw).is_ok());
        if !verified {
            return Err(match answer.response_code {
                ResponseCode::NoError => strange(
                    "gave an answer that is not signed with the key. Either somebody stands in between, or this \
                     machine's clock is wrong",
                ),
                code => self.refusal(code),
            });
        }
        match answer.response_code {
            ResponseCode::ServFail => Err(self.refusal(ResponseCode::ServFail)),
            _ => Ok(answer),
        }
    }

    fn key_refused(&self, error: TsigError) -> DnsError {
        let (server, key) = (&self.server, self.signer.signer_name());
        DnsError::Denied(match error {
            TsigError::BadKey => {
                format!("The name server {server} knows no key of the name {key} and this algorithm.")
            }
            TsigError::BadSig => format!("The name server {server} has another secret for the key {key}."),
            TsigError::BadTime => format!(
                "The clocks of this machine and of the name server {server} are more than {} minutes apart.",
                FUDGE_S / 60
            ),
            TsigError::BadTrunc | TsigError::Unknown(_) => {
                format!("The name server {server} does not accept the key {key}.")
            }
        })
    }

    /// Takes the message there and the answer back.
    async fn carried(&self, message: &[u8]) -> Result<Vec<u8>, DnsError> {
        let server = &self.server;
        let away = |why: &dyn std::fmt::Display| {
            DnsError::busy(format!(
                "The name server {server} cannot be reached: {why}. Is it running, and its port open?"
            ))
        };
        let found = tokio::time::timeout(EXCHANGE_TIMEOUT, tokio::net::lookup_host(server)).await;
        let addresses: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(away(&error)),
            Err(_) => return Err(away(&"its name was not found in time")),
        };
        let mut last = io::Error::other("its name has no address");
        for address in addresses {
            match tokio::time::timeout(EXCHANGE_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    return match tokio::time::timeout(EXCHANGE_TIMEOUT, over_tcp(stream, message)).await {
                        Ok(Ok(answer)) => Ok(answer),
                        Ok(Err(error)) => Err(away(&error)),
                        Err(_) => Err(away(&"it did not answer in time")),
                    };
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            // If this fails too, what TCP said is the better explanation.
            if let Ok(Ok(answer)) = tokio::time::timeout(EXCHANGE_TIMEOUT, over_udp(address, message)).await {
                return Ok(answer);
            }
        }
        Err(away(&last))
    }
}

struct Seen {
    entry: Entry,
    /// The TXT records of the entry as they came: all of them, since a prerequisite is about a whole set.
    texts: Vec<Record>,
}

/// These sets of records are still exactly as they were seen.
fn demand(update: &mut Message, seen: &[Record]) {
    for record in seen {
        let mut record = record.clone();
        record.ttl = 0;
        update.add_pre_requisite(record);
    }
}

enum Change {
    Done,
    /// The name was no longer as it was seen.
    Overtaken,
}

#[async_trait]
impl Zone for Rfc2136 {
    async fn set(&self, name: &HostName, address: IpAddr, ttl_seconds: u32) -> Result<(), DnsError> {
        name.admitted_to(&self.zone)?;
        for _ in 0..ROUNDS {
            let mut update = self.update()?;
            match self.look(name).await? {
                None => {
                    update.add_pre_requisite(bare(name, RecordType::ANY, DNSClass::NONE)?);
                    let text = TXT::new(vec![marker(&self.instance)]);
                    update.add_update(Record::from_rdata(wire(name)?, ttl_seconds, RData::TXT(text)));
                }
                Some(Seen { entry, texts }) => match entry.owner(&self.instance) {
                    Owner::Ours => {
                        demand(&mut update, &texts);
                        update.add_update(bare(name, RecordType::A, DNSClass::ANY)?);
                        update.add_update(bare(name, RecordType::AAAA, DNSClass::ANY)?);
                    }
                    Owner::Another(_) | Owner::Somebody => return Err(foreign(name, &entry, &self.instance)),
                },
            }
            let data = match address {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            };
            update.add_update(Record::from_rdata(wire(name)?, ttl_seconds, data));
            match self.changed(update).await? {
                Change::Done => return Ok(()),
                Change::Overtaken => {}
            }
        }
        Err(self.contested(name))
    }

    async fn remove(&self, name: &HostName) -> Result<(), DnsError> {
        name.admitted_to(&self.zone)?;
        for _ in 0..ROUNDS {
            let Some(Seen { entry, texts }) = self.look(name).await? else { return Ok(()) };
            match entry.owner(&self.instance) {
                Owner::Ours => {}
                // Somebody's text, or a mail exchanger: nothing that leads to a server of ours.
                Owner::Somebody if !entry.leads() => return Ok(()),
                Owner::Another(_) | Owner::Somebody => return Err(foreign(name, &entry, &self.instance)),
            }
            let mut update = self.update()?;
            demand(&mut update, &texts);
            update.add_update(bare(name, RecordType::A, DNSClass::ANY)?);
            update.add_update(bare(name, RecordType::AAAA, DNSClass::ANY)?);
            // The marker alone: another text beside it is somebody's.
            let text = TXT::new(vec![marker(&self.instance)]);
            let mut ours = Record::from_rdata(wire(name)?, 0, RData::TXT(text));
            ours.dns_class = DNSClass::NONE;
            update.add_update(ours);
            match self.changed(update).await? {
                Change::Done => return Ok(()),
                Change::Overtaken => {}
            }
        }
        Err(self.contested(name))
    }

    async fn get(&self, name: &HostName) -> Result<Option<Entry>, DnsError> {
        name.admitted_to(&self.zone)?;
        Ok(self.look(name).await?.map(|seen| seen.entry))
    }
}

impl Rfc2136 {
    fn contested(&self, name: &HostName) -> DnsError {
        DnsError::busy(format!("Somebody else keeps changing the name {name} at this moment."))
    }
}

/// A record without data, which is how prerequisites and deletions are written.
fn bare(name: &HostName, kind: RecordType, class: DNSClass) -> Result<Record, DnsError> {
    let mut record = Record::update0(wire(name)?, 0, kind);
    record.dns_class = class;
    Ok(record)
}

fn wire(name: &HostName) -> Result<Name, DnsError> {
    let mut wire = Name::from_ascii(name.as_str())
        .map_err(|_| DnsError::Refused(format!("The name {name} cannot be written in DNS.")))?;
    wire.set_fqdn(true);
    Ok(wire)
}

fn joined(text: &TXT) -> String {
    text.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()
}

/// `server` with the usual port where it names none.
fn with_port(server: &str) -> Result<String, DnsError> {
    let server = server.trim();
    if let Ok(address) = server.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, PORT).to_string());
    }
    if server.parse::<SocketAddr>().is_ok() {
        return Ok(server.to_owned());
    }
    let (host, port) = server.rsplit_once(':').unwrap_or((server, "53"));
    match (HostName::parse(host), port.parse::<u16>()) {
        (Ok(host), Ok(port)) if port != 0 => Ok(format!("{host}:{port}")),
        _ => Err(DnsError::Refused(
            "The DNS server is written as an address or a name, with a port if it is not 53: for instance \
             192.0.2.53, ns.example.org:53 or [2001:db8::53]:53."
                .into(),
        )),
    }
}

async fn over_tcp(mut stream: TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    // In one piece: some servers do not wait for the rest of a question.
    let framed = [&length.to_be_bytes()[..], message].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// One question, one answer; who loses one asks again.
async fn over_udp(address: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let here: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(here).await?;
    socket.connect(address).await?;
    socket.send(message).await?;
    let mut answer = vec![0; LONGEST_MESSAGE];
    loop {
        let length = socket.recv(&mut answer).await?;
        // A late answer to an earlier question, or a stranger's guess, is not ours.
        if length >= 2 && message.len() >= 2 && answer[..2] == message[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_has_the_usual_one() {
        for (given, meant) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("NS.example.org.", "ns.example.org:53"),
            ("ns.example.org:5353", "ns.example.org:5353"),
        ] {
            assert_eq!(with_port(given).unwrap(), meant);
        }
        for wrong in ["", "ns.example.org:0", "ns.example.org:dns", "https://ns.example.org", "192.0.2.53:99999"] {
            assert!(with_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_that_cannot_be_right_is_refused_without_showing_it() {
        let zone = HostName::parse("example.org").unwrap();
        let with = |name: &str, secret: &str| {
            let settings = Settings {
                server: "192.0.2.53".into(),
                key_name: name.into(),
                key_secret: secret.to_owned().into(),
                algorithm: Algorithm::HmacSha256,
            };
            Rfc2136::new(zone.clone(), "blue", settings).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(with("spawnpoint", "c2l4dGVlbiBieXRlcyEhISEhIQ==").is_ok());
        for (name, secret) in
            [("spawnpoint", "hush!"), ("spawnpoint", "aHVzaA=="), ("", "c2l4dGVlbiBieXRlcyEhISEhIQ==")]
        {
            let error = with(name, secret).unwrap_err();
            assert!(error.contains("key") && !error.contains("hush") && !error.contains("aHVz"), "{error}");
        }
    }
}
