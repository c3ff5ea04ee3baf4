//! Linode (Akamai), API v4, as <https://techdocs.akamai.com/linode-api> describes it. Things carry tags without values;
//! lists are filtered by a header of JSON.

use super::http::{Http, PAGES_MAX, Provider, Reading, meaning_of_words, millionths, moment_ms, shortened};
use super::{
    CloudApi, CloudError, Extra, FirewallSpec, Host, HostSpec, HostState, Image, Labels, Offer, OpenPort, USUAL_DEBIAN,
    instance_tag, is_fit,
};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rand::RngExt;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

static PROVIDER: Provider = Provider {
    title: "Linode",
    key: "[cloud.linode] token",
    rights: "read and write access to Linodes and Firewalls, and read access to Volumes",
    url: "https://api.linode.com/v4",
    allowance_trickles: false,
    read,
};

const PER_PAGE: u32 = 500;
/// An hour that was begun is billed whole, up to the monthly price
/// (<https://techdocs.akamai.com/cloud-computing/docs/understanding-how-billing-works>).
const UNIT_MS: i64 = 3_600_000;
/// A firewall's label has 3 to 32 characters.
const FIREWALL_LABEL_MAX: usize = 32;
/// One rule of a firewall names at most so many ports.
const PORTS_PER_RULE: usize = 15;
/// A root password has 7 to 128 characters.
const ROOT_PASSWORD_LENGTH: usize = 64;

pub(super) struct Linode {
    http: Http,
}

impl Linode {
    pub fn open(token: &SecretString, url: Option<&str>) -> Result<Linode, CloudError> {
        Ok(Linode { http: Http::open(&PROVIDER, token, url)? })
    }

    /// All pages of a list, those with the tag where there is one.
    async fn list<T: DeserializeOwned>(&self, path: &str, tag: Option<&str>) -> Result<Vec<T>, CloudError> {
        let filter = tag.map(|tag| json!({ "tags": tag }));
        let mut all = vec![];
        for page in 1..=PAGES_MAX {
            let query = [("page", page.to_string()), ("page_size", PER_PAGE.to_string())];
            let answer: Page<T> = self.http.get_filtered(path, &query, filter.as_ref()).await?;
            all.extend(answer.data);
            if page >= answer.pages {
                return Ok(all);
            }
        }
        Err(self.http.odd(&format!("{path} has pages without end")))
    }

    async fn tagged<T: DeserializeOwned + Tagged>(&self, path: &str, instance: &str) -> Result<Vec<T>, CloudError> {
        let tag = instance_tag(instance);
        let all: Vec<T> = self.list(path, Some(&tag)).await?;
        // Again, because the filter is no part of the list's own description and a wrong host would be destroyed.
        Ok(all.into_iter().filter(|thing| thing.tags().contains(&tag)).collect())
    }

    fn host_of(&self, linode: Instance) -> Result<Host, CloudError> {
        let created_at_ms =
            moment_ms(&linode.created).ok_or_else(|| self.http.odd("a Linode's creation has no date that is one"))?;
        Ok(Host {
            id: linode.id.to_string(),
            name: linode.label,
            labels: labels_of(&linode.tags),
            state: state_of(&linode.status),
            address: linode.ipv4.iter().filter_map(|ip| ip.parse().ok()).find(is_public),
            region: linode.region,
            size: linode.size.unwrap_or_default(),
            created_at_ms,
        })
    }
}

#[async_trait]
impl CloudApi for Linode {
    fn name(&self) -> &'static str {
        "linode"
    }

    async fn hosts(&self, instance: &str) -> Result<Vec<Host>, CloudError> {
        let linodes: Vec<Instance> = self.tagged("/linode/instances", instance).await?;
        linodes.into_iter().map(|linode| self.host_of(linode)).collect()
    }

    async fn host(&self, id: &str) -> Result<Option<Host>, CloudError> {
        let found: Option<Instance> = self.http.find(&format!("/linode/instances/{}", number(id)?)).await?;
        found.map(|linode| self.host_of(linode)).transpose()
    }

    async fn create(&self, spec: &HostSpec) -> Result<Host, CloudError> {
        let mut body = json!({
            "label": spec.name,
            "tags": spec.labels.tags(),
            "type": spec.size,
            "region": spec.region,
            "image": spec.image.clone().unwrap_or_else(|| debian(spec.debian)),
            // An image asks for a password or a key. Nobody learns this one: the way in is the key in the user data.
            "root_pass": root_password(),
            "metadata": { "user_data": BASE64.encode(&spec.user_data) },
            "backups_enabled": false,
            "private_ip": false,
            "booted": true,
            // With Linode's newer interfaces a firewall is given for each; said here, both kinds of account do the same.
            "interface_generation": "legacy_config",
        });
        if let Some(id) = &spec.firewall {
            body["firewall_id"] = json!(number(id)?);
        }
        let made: Instance = self.http.post("/linode/instances", &body).await?;
        self.host_of(made)
    }

    async fn destroy(&self, id: &str) -> Result<(), CloudError> {
        self.http.delete(&format!("/linode/instances/{}", number(id)?)).await
    }

    async fn offers(&self) -> Result<Vec<Offer>, CloudError> {
        let types: Vec<Type> = self.list("/linode/types", None).await?;
        let regions: Vec<Region> = self.list("/regions", None).await?;
        let availability: Vec<Availability> = self.list("/regions/availability", None).await?;
        Ok(offers_of(&types, &regions, &availability))
    }

    async fn images(&self) -> Result<Vec<Image>, CloudError> {
        let all: Vec<System> = self.list("/images", None).await?;
        let fit = all.into_iter().filter(|one| {
            let boots = one.capabilities.iter().any(|can| can == "cloud-init");
            one.is_public && !one.deprecated && boots && is_fit(&one.label)
        });
        Ok(fit.map(|one| Image { usual: one.id == debian(USUAL_DEBIAN), word: one.id, title: one.label }).collect())
    }

    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError> {
        let label = shortened(&spec.name, FIREWALL_LABEL_MAX);
        let mine: Vec<Firewall> = self.tagged("/networking/firewalls", &spec.labels.instance).await?;
        let Some(found) = mine.into_iter().find(|firewall| firewall.label == label) else {
            let body = json!({ "label": label, "tags": spec.labels.tags(), "rules": rules(&spec.ports) });
            let made: Firewall = self.http.post("/networking/firewalls", &body).await?;
            return Ok(Some(made.id.to_string()));
        };
        if found.rules.ports() != wanted(&spec.ports) {
            let path = format!("/networking/firewalls/{}/rules", found.id);
            self.http.put::<Value>(&path, &rules(&spec.ports)).await?;
        }
        Ok(Some(found.id.to_string()))
    }

    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError> {
        self.http.delete(&format!("/networking/firewalls/{}", number(id)?)).await
    }

    /// Firewalls and volumes. SSH keys belong to a person's profile here, carry no tags, and none are made.
    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError> {
        let mut extras = vec![];
        for (kind, path) in EXTRAS {
            let things: Vec<Labelled> = self.tagged(path, instance).await?;
            extras.extend(things.into_iter().map(|thing| Extra {
                kind,
                id: thing.id.to_string(),
                server: Some(labels_of(&thing.tags).server).filter(|server| !server.is_empty()),
                name: thing.label,
            }));
        }
        Ok(extras)
    }

    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError> {
        let known = EXTRAS.iter().find(|(kind, _)| *kind == extra.kind);
        let (_, path) = known.ok_or_else(|| self.http.odd(&format!("there is no {} to delete", extra.kind)))?;
        self.http.delete(&format!("{path}/{}", number(&extra.id)?)).await
    }
}

const EXTRAS: [(&str, &str); 2] = [("firewall", "/networking/firewalls"), ("volume", "/volumes")];

/// `{"errors": [{"reason": …, "field": …}]}`, without codes.
fn read(status: u16, body: &Value) -> Reading {
    let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = |error: &Value| {
        let reason = error["reason"].as_str()?;
        Some(match error["field"].as_str() {
            Some(field) => format!("{field}: {reason}"),
            None => reason.to_owned(),
        })
    };
    let words = errors.iter().filter_map(said).collect::<Vec<_>>().join("; ");
    Reading { meaning: meaning_of_words(status, &words), words }
}

/// The word for a release of Debian.
fn debian(release: u32) -> String {
    format!("linode/debian{release}")
}

/// Ids are numbers here. Another's id never becomes part of a path.
fn number(id: &str) -> Result<u64, CloudError> {
    id.parse().map_err(|_| CloudError::Refused(format!("`{id}` is no id that Linode gives.")))
}

fn labels_of(tags: &[String]) -> Labels {
    Labels::from_tags(tags.iter().map(String::as_str)).unwrap_or_default()
}

fn state_of(status: &str) -> HostState {
    match status {
        "running" | "rebooting" => HostState::Running,
        "offline" | "shutting_down" | "stopped" | "billing_suspension" => HostState::Off,
        "deleting" => HostState::Leaving,
        // provisioning, booting, migrating, rebuilding, cloning, restoring, and what may come: it is there and bills.
        _ => HostState::Starting,
    }
}

fn is_public(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if !v4.is_private() && !v4.is_unspecified())
}

/// Linode asks for several kinds of characters; the first four are one of each.
fn root_password() -> String {
    const KINDS: [&[u8]; 4] = [b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"0123456789", b"-_.+="];
    let mut random = rand::rng();
    let kinds = KINDS.iter().cycle().take(ROOT_PASSWORD_LENGTH);
    kinds.map(|kind| char::from(kind[random.random_range(0..kind.len())])).collect()
}

/// Ports and protocols in one order, as the API writes them.
fn wanted(ports: &[OpenPort]) -> BTreeSet<(&'static str, u16)> {
    ports.iter().map(|port| (if port.udp { "UDP" } else { "TCP" }, port.number)).collect()
}

fn rules(ports: &[OpenPort]) -> Value {
    let mut inbound = vec![];
    for protocol in ["TCP", "UDP"] {
        let numbers: Vec<_> = wanted(ports).into_iter().filter(|(of, _)| *of == protocol).map(|(_, n)| n).collect();
        for (at, some) in numbers.chunks(PORTS_PER_RULE).enumerate() {
            inbound.push(json!({
                "label": format!("spawnpoint-{}-{}", protocol.to_lowercase(), at + 1),
                "action": "ACCEPT",
                "protocol": protocol,
                "ports": some.iter().map(u16::to_string).collect::<Vec<_>>().join(","),
                "addresses": { "ipv4": ["0.0.0.0/0"], "ipv6": ["::/0"] },
            }));
        }
    }
    json!({ "inbound": inbound, "inbound_policy": "DROP", "outbound": [], "outbound_policy": "ACCEPT" })
}

/// What a region must be able to do: without the metadata service a host would never read what it is told at its first
/// boot.
const NEEDED: [&str; 2] = ["Linodes", "Metadata"];

fn offers_of(types: &[Type], regions: &[Region], availability: &[Availability]) -> Vec<Offer> {
    // Sizes that can be had wherever Linodes can are not listed there.
    let listed: HashMap<(&str, &str), bool> =
        availability.iter().map(|one| ((one.plan.as_str(), one.region.as_str()), one.available)).collect();
    let mut offers = vec![];
    for region in
        regions.iter().filter(|region| NEEDED.iter().all(|can| region.capabilities.iter().any(|one| one == can)))
    {
        for size in types {
            let own = size.region_prices.iter().find(|price| price.id == region.id);
            let (hourly, monthly) =
                own.map_or((size.price.hourly, size.price.monthly), |own| (own.hourly, own.monthly));
            // A size without a price of its own in a place is one that is not sold there.
            let Some(hourly) = hourly else { continue };
            let there = listed.get(&(size.id.as_str(), region.id.as_str())).copied().unwrap_or(true);
            offers.push(Offer {
                size: size.id.clone(),
                region: region.id.clone(),
                cpus: size.vcpus,
                memory_mb: size.memory,
                arm: false,
                disk_gb: size.disk / 1024,
                hourly: millionths(hourly),
                monthly: monthly.map(millionths),
                currency: "USD",
                unit_ms: UNIT_MS,
                available: there && region.status == "ok",
            });
        }
    }
    offers
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
    pages: u32,
}

trait Tagged {
    fn tags(&self) -> &[String];
}

#[derive(Deserialize)]
struct Instance {
    id: u64,
    label: String,
    status: String,
    created: String,
    region: String,
    #[serde(rename = "type")]
    size: Option<String>,
    #[serde(default)]
    ipv4: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
}

impl Tagged for Instance {
    fn tags(&self) -> &[String] {
        &self.tags
    }
}

#[derive(Deserialize)]
struct Labelled {
    id: u64,
    label: String,
    #[serde(default)]
    tags: Vec<String>,
}

impl Tagged for Labelled {
    fn tags(&self) -> &[String] {
        &self.tags
    }
}

#[derive(Deserialize)]
struct Firewall {
    id: u64,
    label: String,
    #[serde(default)]
    tags: Vec<String>,
    rules: Rules,
}

impl Tagged for Firewall {
    fn tags(&self) -> &[String] {
        &self.tags
    }
}

#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    inbound: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    protocol: String,
    #[serde(default)]
    ports: Option<String>,
}

impl Rules {
    /// Empty where a rule is none that we would make, so that the rules are set anew.
    fn ports(&self) -> BTreeSet<(&'static str, u16)> {
        let mut ports = BTreeSet::new();
        for rule in &self.inbound {
            let protocol = match rule.protocol.as_str() {
                "TCP" => "TCP",
                "UDP" => "UDP",
                _ => return BTreeSet::new(),
            };
            for number in rule.ports.as_deref().unwrap_or_default().split(',') {
                let Ok(number) = number.trim().parse() else { return BTreeSet::new() };
                ports.insert((protocol, number));
            }
        }
        ports
    }
}

#[derive(Deserialize)]
struct Type {
    id: String,
    vcpus: u32,
    /// In megabytes, as is the disk.
    memory: u32,
    disk: u32,
    price: TypePrice,
    #[serde(default)]
    region_prices: Vec<RegionPrice>,
}

#[derive(Deserialize)]
struct TypePrice {
    hourly: Option<f64>,
    monthly: Option<f64>,
}

#[derive(Deserialize)]
struct RegionPrice {
    id: String,
    hourly: Option<f64>,
    monthly: Option<f64>,
}

#[derive(Deserialize)]
struct Region {
    id: String,
    status: String,
    capabilities: Vec<String>,
}

#[derive(Deserialize)]
struct Availability {
    region: String,
    plan: String,
    available: bool,
}

/// An image, as the API calls it.
#[derive(Deserialize)]
struct System {
    id: String,
    label: String,
    is_public: bool,
    deprecated: bool,
    #[serde(default)]
    capabilities: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_the_price_of_its_region_and_is_there_unless_it_says_not() {
        let types = serde_json::from_value::<Vec<Type>>(json!([{
            "id": "g6-standard-1", "vcpus": 1, "memory": 2048, "disk": 51200,
            "price": { "hourly": 0.018, "monthly": 12.0 },
            "region_prices": [{ "id": "br-gru", "hourly": 0.0252, "monthly": 16.8 }],
        }]));
        let regions = serde_json::from_value::<Vec<Region>>(json!([
            { "id": "de-fra-2", "status": "ok", "capabilities": ["Linodes", "Metadata"] },
            { "id": "br-gru", "status": "ok", "capabilities": ["Metadata", "Linodes"] },
            { "id": "us-outage", "status": "outage", "capabilities": ["Linodes", "Metadata"] },
            { "id": "no-first-boot", "status": "ok", "capabilities": ["Linodes"] },
            { "id": "storage-only", "status": "ok", "capabilities": ["Object Storage"] },
        ]));
        let availability = serde_json::from_value::<Vec<Availability>>(json!([
            { "region": "br-gru", "plan": "g6-standard-1", "available": false },
        ]));
        let offers = offers_of(&types.expect("types"), &regions.expect("regions"), &availability.expect("a list"));
        let short: Vec<_> = offers.iter().map(|o| (o.region.as_str(), o.hourly, o.monthly, o.available)).collect();
        assert_eq!(
            short,
            [
                ("de-fra-2", 18_000, Some(12_000_000), true),
                ("br-gru", 25_200, Some(16_800_000), false),
                ("us-outage", 18_000, Some(12_000_000), false)
            ]
        );
        assert_eq!((offers[0].disk_gb, offers[0].memory_mb), (50, 2048));
    }

    #[test]
    fn many_ports_make_several_rules_that_are_read_back_as_the_same_ports() {
        let ports: Vec<_> = (1..=20).map(|at| OpenPort { number: 100 * at, udp: at == 20 }).collect();
        let made = rules(&ports);
        let listed: Vec<_> = made["inbound"].as_array().expect("rules").iter().map(|rule| &rule["ports"]).collect();
        assert_eq!(listed.len(), 3, "{made}");
        assert_eq!(listed[1], "1600,1700,1800,1900");
        let read: Rules = serde_json::from_value(made).expect("rules");
        assert_eq!(read.ports(), wanted(&ports));
    }

    #[test]
    fn reasons_are_read_with_their_fields() {
        let body = json!({ "errors": [{ "reason": "Label must be unique", "field": "label" }, { "reason": "No." }] });
        assert_eq!(read(400, &body).words, "label: Label must be unique; No.");
    }

    #[test]
    fn a_root_password_is_long_mixed_and_never_the_same() {
        let (one, other) = (root_password(), root_password());
        assert!(one.len() == ROOT_PASSWORD_LENGTH && one != other);
        assert!(one.chars().any(|c| c.is_ascii_uppercase()) && one.chars().any(|c| c.is_ascii_digit()));
    }
}
