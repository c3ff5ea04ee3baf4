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

mod digitalocean;
mod hetzner;
mod http;
mod linode;
mod vultr;

use async_trait::async_trait;
use secrecy::SecretString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// The providers that [`open`] knows, by the names that the configuration has for them.
pub const PROVIDERS: [&str; 4] = ["linode", "hetzner", "digitalocean", "vultr"];

/// A provider's API by its name in the configuration. `api_url` replaces the provider's own address, without a slash
/// at its end. Asks nothing yet: a wrong token shows with the first call.
pub fn open(provider: &str, token: SecretString, api_url: Option<&str>) -> Result<Arc<dyn CloudApi>, CloudError> {
    Ok(match provider {
        "linode" => Arc::new(linode::Linode::open(&token, api_url)?),
        "hetzner" => Arc::new(hetzner::Hetzner::open(&token, api_url)?),
        "digitalocean" => Arc::new(digitalocean::DigitalOcean::open(&token, api_url)?),
        "vultr" => Arc::new(vultr::Vultr::open(&token, api_url)?),
        other => {
            let known = PROVIDERS.join(", ");
            return Err(CloudError::Refused(format!("`{other}` is no provider of hosts: there are {known}.")));
        }
    })
}

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
    /// The provider's own public systems that a host can come with: Debian and Ubuntu for x86, with cloud-init, no older
    /// than [`OLDEST`]. What is kept privately in the account is never among them.
    async fn images(&self) -> Result<Vec<Image>, CloudError>;
    /// Makes the firewall of one server, or finds the one with this name and these labels and sets its ports; gives its
    /// id. `None` where the provider has none to offer.
    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError>;
    /// Fine when it is gone already. [`CloudError::Busy`] while a host that leaves still holds on to it.
    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError>;
    /// Takes away what only said whose something was, where labels are things of their own and nothing carries them any
    /// more. Costs nothing where it stays, so it fails nothing.
    async fn forget_labels(&self, _labels: &Labels) {}
    /// Everything else with this instance's label: firewalls, keys, volumes.
    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError>;
    /// Fine when it is gone already.
    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError>;
}

/// What everything of ours carries at a provider. Written as the provider writes such things: labels, or tags made of
/// [`Labels::tags`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Which Spawnpoint made it: lower case letters, digits and dashes, at most 37.
    pub instance: String,
    /// The server it is for; likewise. Empty where somebody took it off by hand.
    pub server: String,
    /// The job that made it; likewise.
    pub job: String,
}

/// Linode allows a tag 3 to 50 characters, and is the strictest. One letter for the key leaves room for a UUID.
const TAG_INSTANCE: &str = "spawnpoint-i-";
const TAG_SERVER: &str = "spawnpoint-s-";
const TAG_JOB: &str = "spawnpoint-j-";

impl Labels {
    /// For providers whose tags have no values: `spawnpoint-i-…`, `spawnpoint-s-…`, `spawnpoint-j-…` for instance,
    /// server and job.
    pub fn tags(&self) -> [String; 3] {
        [instance_tag(&self.instance), format!("{TAG_SERVER}{}", self.server), format!("{TAG_JOB}{}", self.job)]
    }

    /// Takes the tags apart again; `None` when they do not name an instance.
    pub fn from_tags<'a>(tags: impl Iterator<Item = &'a str> + Clone) -> Option<Labels> {
        let value = |prefix: &str| tags.clone().find_map(|tag| tag.strip_prefix(prefix).map(str::to_owned));
        Some(Labels {
            instance: value(TAG_INSTANCE)?,
            server: value(TAG_SERVER).unwrap_or_default(),
            job: value(TAG_JOB).unwrap_or_default(),
        })
    }
}

/// The tag that everything of one instance carries.
fn instance_tag(instance: &str) -> String {
    format!("{TAG_INSTANCE}{instance}")
}

#[derive(Clone)]
pub struct HostSpec {
    /// A host name: lower case letters, digits and dashes, at most 63 characters. The same for every try of one job.
    pub name: String,
    pub labels: Labels,
    pub region: String,
    pub size: String,
    /// The provider's word for an image; `None`: its Debian of the release below, for the size's processor.
    pub image: Option<String>,
    /// A release of Debian, from 12 on.
    pub debian: u32,
    /// The cloud-init user data, as text. It holds the host's private key: never logged, never in an error.
    pub user_data: String,
    /// From [`CloudApi::open_firewall`], called with the same instance and server in its labels.
    pub firewall: Option<String>,
}

impl std::fmt::Debug for HostSpec {
    /// Leaves the user data out: it holds a private key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HostSpec { name, labels, region, size, image, debian, user_data, firewall } = self;
        f.debug_struct("HostSpec")
            .field("name", name)
            .field("labels", labels)
            .field("region", region)
            .field("size", size)
            .field("image", image)
            .field("debian", debian)
            .field("user_data", &format_args!("{} bytes", user_data.len()))
            .field("firewall", firewall)
            .finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirewallSpec {
    /// Begins with a letter; letters, digits and dashes. Where a provider allows less, a longer one is shortened, always
    /// in the same way.
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
    /// The processor is an ARM one; most games are made for x86 only.
    pub arm: bool,
    pub disk_gb: u32,
    /// Millionths of `currency` for an hour.
    pub hourly: i64,
    /// The most that a month costs, in millionths, where the provider caps it.
    pub monthly: Option<i64>,
    /// `USD` or `EUR`.
    pub currency: &'static str,
    /// What the time is rounded up to for the bill, in milliseconds.
    pub unit_ms: i64,
    pub available: bool,
}

/// A system that a host can come with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The provider's word for it, for [`HostSpec::image`].
    pub word: String,
    /// As people call it: `Debian 12`.
    pub title: String,
    /// What a host gets when none is named, for most games: it is [`USUAL_DEBIAN`].
    pub usual: bool,
}

/// The release of Debian for games that say nothing of theirs.
pub const USUAL_DEBIAN: u32 = 12;

/// The oldest releases of each family that games are prepared on: what came before gets no updates any more.
const OLDEST: [(&str, u32); 2] = [("Debian", 12), ("Ubuntu", 22)];

/// Whether a title like `Ubuntu 24.04 LTS x64` names a system that games can be prepared on.
fn is_fit(title: &str) -> bool {
    let mut words = title.split_whitespace();
    let (Some(family), Some(version)) = (words.next(), words.next()) else { return false };
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    OLDEST
        .iter()
        .any(|(known, oldest)| family.eq_ignore_ascii_case(known) && major.is_some_and(|major| major >= *oldest))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        // The longest that each can be: a UUID with its dashes, and a job's number.
        let uuid = "0193d3a4-7f2b-7c11-9a8e-5d0c7b6a4f21".to_owned();
        Labels { instance: uuid.clone(), server: uuid, job: i64::MAX.to_string() }
    }

    #[test]
    fn tags_fit_the_strictest_of_the_providers_and_come_apart_again() {
        let tags = labels().tags();
        for tag in &tags {
            assert!((3..=50).contains(&tag.len()), "{tag}: Linode takes 3 to 50 characters");
            assert!(tag.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')), "{tag}");
        }
        let among_others = ["web", "spawnpoint"].into_iter().chain(tags.iter().map(String::as_str));
        assert_eq!(Labels::from_tags(among_others), Some(labels()));
        assert_eq!(Labels::from_tags(["web", "spawnpoint-s-x"].into_iter()), None);
    }

    #[test]
    fn who_prints_a_request_for_a_host_sees_no_key() {
        let spec = HostSpec {
            name: "host".into(),
            labels: labels(),
            region: "r".into(),
            size: "s".into(),
            image: None,
            debian: USUAL_DEBIAN,
            user_data: "PRIVATE KEY".into(),
            firewall: None,
        };
        let text = format!("{spec:?}");
        assert!(!text.contains("PRIVATE") && text.contains("11 bytes"), "{text}");
    }

    #[test]
    fn only_systems_that_still_get_updates_are_offered() {
        for title in ["Debian 12", "Debian 13 x64 (trixie)", "debian 12", "Ubuntu 22.04 LTS", "Ubuntu 24.04 (LTS) x64"]
        {
            assert!(is_fit(title), "{title}");
        }
        for title in ["Debian 11", "Ubuntu 20.04 LTS", "Fedora 44", "AlmaLinux 9", "Debian", "Debian testing", ""] {
            assert!(!is_fit(title), "{title}");
        }
    }

    #[test]
    fn a_provider_that_is_not_known_is_named_with_those_that_are() {
        let error = open("aws", "t".into(), None).err().expect("an error");
        assert_eq!(error.to_string(), "`aws` is no provider of hosts: there are linode, hetzner, digitalocean, vultr.");
    }
}
