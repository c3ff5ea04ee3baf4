//! A name in DNS that follows a server: made when it starts, taken away when it stops. Two ways to write to a zone,
//! [`rfc2136`] (name servers of one's own) and [`cloudflare`], behind the small trait [`Zone`]; [`Dns`] is what the
//! rest of the program holds.
//!
//! A zone belongs to people, and Spawnpoint is a guest in it. So a name is touched only if nothing at all stands there,
//! or if a TXT record of this very instance stands beside it ([`marker`], the custom of ExternalDNS). Everything else
//! is refused with [`DnsError::Foreign`]. Both implementations look, decide with the pure functions here, and change;
//! each of these may be done twice, so a lost answer is cured by doing it again.

pub mod cloudflare;
mod name;
pub mod rfc2136;

pub use cloudflare::Cloudflare;
pub use name::HostName;
pub use rfc2136::{Algorithm, Rfc2136};

use async_trait::async_trait;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The whole of one `set` or `remove`, with all tries.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(90);
/// Shorter than that and resolvers ask more often than a zone's host likes.
pub const MIN_TTL_SECONDS: u32 = 10;
/// Longer than a day and friends sit on the address of a host that is long gone.
pub const MAX_TTL_SECONDS: u32 = 86_400;

#[async_trait]
pub trait Zone: Send + Sync {
    /// Makes the name lead to this address and to no other: an older address goes, of either family.
    async fn set(&self, name: &HostName, address: IpAddr, ttl_seconds: u32) -> Result<(), DnsError>;
    /// Takes the name away. Fine when nothing stands there.
    async fn remove(&self, name: &HostName) -> Result<(), DnsError>;
    /// What the zone holds at this very name, without what a wildcard would answer for it.
    async fn get(&self, name: &HostName) -> Result<Option<Entry>, DnsError>;
}

/// For people: each is a sentence that names the zone's keeper and never a key or a token.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// It may go well later: no answer, too many requests, an error of theirs.
    #[error("{why}")]
    Busy { why: String, after: Option<Duration> },
    /// Something stands at this name that this Spawnpoint did not make. It was left alone.
    #[error("{0}")]
    Foreign(String),
    /// The key or token is wrong, or lacks the right.
    #[error("{0}")]
    Denied(String),
    /// The request itself is refused: a name outside of the zone, a zone that is not there, a value that cannot be.
    #[error("{0}")]
    Refused(String),
    /// An answer that is not what the protocol's description says.
    #[error("{0}")]
    Strange(String),
}

impl DnsError {
    fn busy(why: impl Into<String>) -> DnsError {
        DnsError::Busy { why: why.into(), after: None }
    }
}

/// What stands at a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub addresses: Vec<IpAddr>,
    /// Of the addresses.
    pub ttl_seconds: Option<u32>,
    /// Every TXT record, its strings joined.
    pub texts: Vec<String>,
    /// Kinds of records that were seen beside addresses and texts, for instance `CNAME`.
    pub others: Vec<String>,
}

/// Whose a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Ours,
    /// Another Spawnpoint's, with its instance.
    Another(String),
    /// Somebody's who wrote it by other means.
    Somebody,
}

impl Entry {
    pub fn owner(&self, instance: &str) -> Owner {
        let mut owners = self.texts.iter().filter_map(|text| instance_of(text));
        match owners.next() {
            None => Owner::Somebody,
            Some(first) if first == instance || owners.any(|other| other == instance) => Owner::Ours,
            Some(first) => Owner::Another(first.to_owned()),
        }
    }

    fn lead(&mut self, address: IpAddr, ttl_seconds: u32) {
        self.addresses.push(address);
        self.ttl_seconds = Some(ttl_seconds);
    }

    /// Another kind of record. A CNAME answers every question, and once is enough to say so.
    fn beside(&mut self, kind: &str) {
        if !self.others.iter().any(|other| other == kind) {
            self.others.push(kind.to_owned());
        }
    }

    /// Whether who joins this name gets anywhere. A text or a mail exchanger of somebody's is no such thing.
    fn leads(&self) -> bool {
        !self.addresses.is_empty() || self.others.iter().any(|kind| kind == "CNAME")
    }
}

const MARKER_HEAD: &str = "heritage=spawnpoint,spawnpoint/instance=";

/// The text beside a name that says whose it is.
pub fn marker(instance: &str) -> String {
    format!("{MARKER_HEAD}{instance}")
}

/// The instance in a marker; `None` for every other text.
fn instance_of(text: &str) -> Option<&str> {
    text.strip_prefix(MARKER_HEAD).filter(|instance| !instance.is_empty())
}

/// Why a name is not touched, and what to do about it.
fn foreign(name: &HostName, entry: &Entry, instance: &str) -> DnsError {
    let whose = match entry.owner(instance) {
        Owner::Another(other) => format!("belongs to another Spawnpoint, whose instance is {}", printable(&other)),
        Owner::Ours | Owner::Somebody => format!("holds {}, which this Spawnpoint did not make", shown(entry)),
    };
    DnsError::Foreign(format!(
        "The name {name} {whose}, so it was left as it is. Give the server another name, or delete these records first."
    ))
}

fn shown(entry: &Entry) -> String {
    let mut parts: Vec<String> = vec![];
    match entry.addresses.as_slice() {
        [] => {}
        [one] => parts.push(format!("the address {one}")),
        [first, ..] => parts.push(format!("{} addresses ({first} and others)", entry.addresses.len())),
    }
    parts.extend(entry.others.iter().map(|kind| format!("a {kind} record")));
    if !entry.texts.is_empty() {
        parts.push("a TXT record".to_owned());
    }
    match parts.is_empty() {
        true => "a record".to_owned(),
        false => parts.join(" and "),
    }
}

/// What others wrote into a zone may be shown, in a length and in characters that harm no message.
fn printable(text: &str) -> String {
    const LONGEST: usize = 64;
    text.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).take(LONGEST).collect()
}

/// Everything that one zone needs, as plain values.
#[derive(Clone, Debug)]
pub struct Settings {
    pub zone: String,
    pub ttl_seconds: u32,
    /// Which Spawnpoint this is: letters, digits and dashes. The same as long as its database lives.
    pub instance: String,
    pub provider: Provider,
}

#[derive(Clone, Debug)]
pub enum Provider {
    Rfc2136(rfc2136::Settings),
    Cloudflare(cloudflare::Settings),
}

/// One zone, ready to be written to. Cheap to clone.
#[derive(Clone)]
pub struct Dns {
    zone: Arc<dyn Zone>,
    suffix: HostName,
    ttl_seconds: u32,
}

impl Dns {
    /// Asks nobody yet: a name server that is away stops no program.
    ///
    /// # Errors
    /// A sentence about the value that cannot be right.
    pub fn from_config(settings: Settings) -> Result<Dns, DnsError> {
        let suffix = HostName::parse(&settings.zone)?;
        if !(MIN_TTL_SECONDS..=MAX_TTL_SECONDS).contains(&settings.ttl_seconds) {
            return Err(DnsError::Refused(format!(
                "A name in DNS can live from {MIN_TTL_SECONDS} to {MAX_TTL_SECONDS} seconds, not {}.",
                settings.ttl_seconds
            )));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if settings.instance.is_empty() || settings.instance.len() > 63 || !settings.instance.chars().all(plain) {
            return Err(DnsError::Refused(
                "The instance that marks records in DNS is 1 to 63 letters, digits and dashes.".into(),
            ));
        }
        let zone: Arc<dyn Zone> = match settings.provider {
            Provider::Rfc2136(given) => Arc::new(Rfc2136::new(suffix.clone(), &settings.instance, given)?),
            Provider::Cloudflare(given) => Arc::new(Cloudflare::new(suffix.clone(), &settings.instance, given)?),
        };
        Ok(Dns { zone, suffix, ttl_seconds: settings.ttl_seconds })
    }

    /// `friday.example.org` for `friday`. Two servers that want one label are for the caller to keep apart: for the
    /// zone they are one name of one owner, and the later one gets it.
    pub fn full_name(&self, label: &str) -> Result<HostName, DnsError> {
        HostName::below(label, &self.suffix)
    }

    /// `friday` for `friday.example.org`; `None` for a name that is not right below the zone.
    pub fn label_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let label = name.strip_suffix(self.suffix.to_string().as_str())?.strip_suffix('.')?;
        (!label.is_empty() && !label.contains('.')).then_some(label)
    }

    /// Makes the name lead to this address and to no other. Safe to do twice. Gives the whole name.
    pub async fn point(&self, label: &str, address: IpAddr) -> Result<HostName, DnsError> {
        let name = self.full_name(label)?;
        // An IPv4 address in IPv6's clothes would become an AAAA record that leads nowhere.
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() {
            return Err(DnsError::Refused(format!("{address} is no address that {name} could lead to.")));
        }
        self.in_time(&name, self.zone.set(&name, address, self.ttl_seconds)).await?;
        Ok(name)
    }

    /// Takes the name away. Safe to do twice.
    pub async fn clear(&self, label: &str) -> Result<(), DnsError> {
        let name = self.full_name(label)?;
        self.in_time(&name, self.zone.remove(&name)).await
    }

    pub async fn look(&self, label: &str) -> Result<Option<Entry>, DnsError> {
        let name = self.full_name(label)?;
        self.in_time(&name, self.zone.get(&name)).await
    }

    async fn in_time<T>(
        &self,
        name: &HostName,
        work: impl Future<Output = Result<T, DnsError>>,
    ) -> Result<T, DnsError> {
        match tokio::time::timeout(OPERATION_TIMEOUT, work).await {
            Ok(done) => done,
            Err(_) => Err(DnsError::busy(format!(
                "The name {name} could not be changed within {} seconds. Whether it was is not known; it can be done again.",
                OPERATION_TIMEOUT.as_secs()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(texts: &[&str]) -> Entry {
        Entry { texts: texts.iter().map(|text| text.to_string()).collect(), ..Entry::default() }
    }

    #[test]
    fn a_name_is_ours_only_with_our_own_marker() {
        let mine = marker("blue");
        let cases = [
            (entry(&[&mine]), Owner::Ours),
            (entry(&["v=spf1 -all", &mine]), Owner::Ours),
            (entry(&[]), Owner::Somebody),
            (entry(&["heritage=external-dns,external-dns/owner=blue"]), Owner::Somebody),
            (entry(&["heritage=spawnpoint,spawnpoint/instance="]), Owner::Somebody),
            (entry(&[&marker("red")]), Owner::Another("red".into())),
            (entry(&[&marker("blue2")]), Owner::Another("blue2".into())),
        ];
        for (entry, owner) in cases {
            assert_eq!(entry.owner("blue"), owner, "{:?}", entry.texts);
        }
    }

    #[test]
    fn a_refusal_says_what_stands_there_and_what_to_do() {
        let name = HostName::parse("friday.example.org").unwrap();
        let say = |entry: Entry| foreign(&name, &entry, "blue").to_string();
        let there = |addresses: &[[u8; 4]], others: &[&str], texts: &[&str]| Entry {
            addresses: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
            others: others.iter().map(|kind| kind.to_string()).collect(),
            ..entry(texts)
        };
        insta::assert_snapshot!(
            [
                say(there(&[[192, 0, 2, 1]], &[], &[])),
                say(there(&[[192, 0, 2, 1], [192, 0, 2, 2]], &[], &["x"])),
                say(there(&[], &["CNAME"], &[])),
                say(there(&[], &[], &[])),
                say(there(&[], &[], &[&marker("red`@everyone`")])),
            ]
            .join("\n"),
            @"
            The name friday.example.org holds the address 192.0.2.1, which this Spawnpoint did not make, so it was left as it is. Give the server another name, or delete these records first.
            The name friday.example.org holds 2 addresses (192.0.2.1 and others) and a TXT record, which this Spawnpoint did not make, so it was left as it is. Give the server another name, or delete these records first.
            The name friday.example.org holds a CNAME record, which this Spawnpoint did not make, so it was left as it is. Give the server another name, or delete these records first.
            The name friday.example.org holds a record, which this Spawnpoint did not make, so it was left as it is. Give the server another name, or delete these records first.
            The name friday.example.org belongs to another Spawnpoint, whose instance is redeveryone, so it was left as it is. Give the server another name, or delete these records first.
            ");
    }
}
