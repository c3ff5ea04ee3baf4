//! Companies that rent hosts by the hour, behind one small trait. Each file speaks one company's API, in that API's
//! words, and turns its answers into the few that the trait knows. Nothing here decides: which size, whether to pay,
//! when to destroy is for the caller.
//!
//! What every implementation promises:
//! - everything it makes carries [`Labels`], and `hosts` finds it by them, page after page, also right after `create`;
//! - `create` may be called again after a lost answer: the caller looks with `hosts` before it does, and a name or
//!   label that exists already is reported, not doubled;
//! - `destroy` of what is gone already is fine; that it was accepted says nothing, `host` says when it is gone;
//! - a 429 or 5xx is [`CloudError::Busy`], with the provider's `Retry-After`; nothing is retried in here without end.

use async_trait::async_trait;
use std::net::IpAddr;
use std::time::Duration;

#[async_trait]
pub trait CloudApi: Send + Sync {
    /// `linode`, `hetzner`, `digitalocean`, `vultr`.
    fn name(&self) -> &'static str;
    /// Every host that carries this instance's label, whatever its state.
    async fn hosts(&self, instance: &str) -> Result<Vec<Host>, CloudError>;
    /// `None` when the provider says that there is no such host.
    async fn host(&self, id: &str) -> Result<Option<Host>, CloudError>;
    async fn create(&self, spec: &HostSpec) -> Result<Host, CloudError>;
    /// Asks for its end; with everything that came with it and would go on to bill. Fine when it is gone already.
    async fn destroy(&self, id: &str) -> Result<(), CloudError>;
    /// What can be rented, with prices. Sizes that exist but cannot be had now say so.
    async fn offers(&self) -> Result<Vec<Offer>, CloudError>;
    /// Makes the firewall of one server, or finds the one with this name; gives its id. `None` where the provider has
    /// none to offer.
    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError>;
    /// Fine when it is gone already.
    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError>;
    /// Everything else with this instance's label: firewalls, keys, volumes.
    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError>;
    /// Fine when it is gone already.
    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError>;
}

/// What everything of ours carries at a provider. Written as the provider writes such things: labels, or tags made of
/// [`Labels::tags`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Which Spawnpoint made it: lower case letters, digits and dashes.
    pub instance: String,
    /// The server it is for.
    pub server: String,
    /// The job that made it.
    pub job: String,
}

impl Labels {
    /// For providers whose tags have no values: `spawnpoint-instance-…`, `spawnpoint-server-…`, `spawnpoint-job-…`.
    pub fn tags(&self) -> [String; 3] {
        [tag("instance", &self.instance), tag("server", &self.server), tag("job", &self.job)]
    }

    /// Takes the tags apart again; `None` when they are not ours.
    pub fn from_tags<'a>(tags: impl Iterator<Item = &'a str> + Clone) -> Option<Labels> {
        let value = |key: &str| {
            let prefix = format!("{TAG}-{key}-");
            tags.clone().find_map(|tag| tag.strip_prefix(&prefix).map(str::to_owned))
        };
        Some(Labels { instance: value("instance")?, server: value("server")?, job: value("job").unwrap_or_default() })
    }
}

const TAG: &str = "spawnpoint";

/// One tag for providers whose tags have no values.
pub fn tag(key: &str, value: &str) -> String {
    format!("{TAG}-{key}-{value}")
}

#[derive(Clone, Debug)]
pub struct HostSpec {
    /// A host name: lower case letters, digits and dashes, at most 63 characters. The same for every try of one job.
    pub name: String,
    pub labels: Labels,
    pub region: String,
    pub size: String,
    /// The provider's word for an image; `None`: its Debian 12.
    pub image: Option<String>,
    /// The cloud-init user data, as text. It holds the host's private key: never logged, never in an error.
    pub user_data: String,
    /// From [`CloudApi::open_firewall`].
    pub firewall: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallSpec {
    pub name: String,
    pub labels: Labels,
    /// Open to everybody; everything else that comes in is dropped. SSH is among them when the caller says so.
    pub ports: Vec<OpenPort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPort {
    pub number: u16,
    pub udp: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub id: String,
    pub name: String,
    pub labels: Labels,
    pub state: HostState,
    pub address: Option<IpAddr>,
    pub region: String,
    pub size: String,
    /// When it was created, in milliseconds since 1970, as the provider says.
    pub created_at_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostState {
    /// Being made or booted: it bills already.
    Starting,
    Running,
    /// Powered off. It bills all the same.
    Off,
    /// Its end was accepted and has not come yet.
    Leaving,
}

/// One size in one region.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub size: String,
    pub region: String,
    pub cpus: u32,
    pub memory_mb: u32,
    pub disk_gb: u32,
    /// Millionths of `currency` for an hour.
    pub hourly: i64,
    /// The most that a month costs, in millionths, where the provider caps it.
    pub monthly: Option<i64>,
    /// `USD` or `EUR`.
    pub currency: &'static str,
    /// The smallest time that is billed, in milliseconds.
    pub unit_ms: i64,
    pub available: bool,
}

/// Something of ours at a provider that is no host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// `firewall`, `SSH key`, `volume`.
    pub kind: &'static str,
    pub id: String,
    pub name: String,
    pub server: Option<String>,
}

/// For people: each is a sentence that names the provider and never the token.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// It may go well later: too many requests, an error of theirs, no answer. Whether a `create` has happened is
    /// not known: look before trying again.
    #[error("{why}")]
    Busy { why: String, after: Option<Duration> },
    /// This size cannot be had in this region now; another may.
    #[error("{0}")]
    NoCapacity(String),
    /// The account may not have more of these.
    #[error("{0}")]
    Quota(String),
    /// The token is wrong, expired, or lacks a right.
    #[error("{0}")]
    Denied(String),
    /// The request itself is refused: a size, region or image that does not exist.
    #[error("{0}")]
    Refused(String),
    /// An answer that is not what the API's description says.
    #[error("{0}")]
    Strange(String),
}
