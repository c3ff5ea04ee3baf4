//! DigitalOcean, API v2, as <https://docs.digitalocean.com/reference/api/digitalocean> describes it. Droplets carry tags
//! without values.
//!
//! A firewall has no labels; its tags say which droplets it guards. So each server gets one tag more, with instance
//! and server in it, which its droplet and its firewall share: the firewall is known by it, and guards the droplet from
//! its first moment. Tags are things of their own here and stay when nothing carries them; those that would pile up
//! are taken away with what they were for.

use super::http::{Http, PAGES_MAX, Provider, Reading, meaning_of_words, millionths, moment_ms};
use super::instance_tag;
use super::{
    CloudApi, CloudError, Extra, FirewallSpec, Host, HostSpec, HostState, Image, Labels, Offer, OpenPort, USUAL_DEBIAN,
    is_fit,
};
use async_trait::async_trait;
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

static PROVIDER: Provider = Provider {
    title: "DigitalOcean",
    key: "[cloud.digitalocean] token",
    rights: "full access, or the scopes droplet, firewall and tag with create, read, update and delete, and block_storage:read",
    url: "https://api.digitalocean.com/v2",
    allowance_trickles: false,
    read,
};

const PER_PAGE: u32 = 200;
/// Since January 2026 droplets are billed by the second, for 60 of them or $0.01 at least
/// (<https://docs.digitalocean.com/products/droplets/details/pricing>). Counted in minutes here: that is never less than
/// the bill but for the first cent, and at most a minute more.
const UNIT_MS: i64 = 60_000;

const TAG_FIREWALL: &str = "spawnpoint-f-";

pub(super) struct DigitalOcean {
    http: Http,
}

impl DigitalOcean {
    pub fn open(token: &SecretString, url: Option<&str>) -> Result<DigitalOcean, CloudError> {
        Ok(DigitalOcean { http: Http::open(&PROVIDER, token, url)? })
    }

    /// All pages of a list; `key` is what its entries stand under. Pages are counted instead of following the links in
    /// the answer, which name a host.
    async fn list<T: DeserializeOwned>(&self, path: &str, key: &str, tag: Option<&str>) -> Result<Vec<T>, CloudError> {
        let mut all = vec![];
        for page in 1..=PAGES_MAX {
            let mut query = vec![("page", page.to_string()), ("per_page", PER_PAGE.to_string())];
            query.extend(tag.map(|tag| ("tag_name", tag.to_owned())));
            let mut answer: Page = self.http.get(path, &query).await?;
            let odd = || self.http.odd(&format!("{path} has no list of {key} as its description says"));
            // A list without entries is null in some of their answers. One that is missing is not an empty one: a host
            // that is not in it would be made again.
            let entries = answer.lists.remove(key).ok_or_else(odd)?;
            let entries: Option<Vec<T>> = serde_json::from_value(entries).map_err(|_| odd())?;
            all.extend(entries.into_iter().flatten());
            if answer.links["pages"]["next"].is_null() {
                return Ok(all);
            }
        }
        Err(self.http.odd(&format!("{path} has pages without end")))
    }

    /// The firewalls of an instance, each with its server.
    async fn firewalls(&self, instance: &str) -> Result<Vec<(String, Firewall)>, CloudError> {
        let all: Vec<Firewall> = self.list("/firewalls", "firewalls", None).await?;
        let prefix = firewall_tag(instance, "");
        let mine = |firewall: Firewall| {
            let server = firewall.tags.iter().flatten().find_map(|tag| tag.strip_prefix(&prefix))?.to_owned();
            Some((server, firewall))
        };
        Ok(all.into_iter().filter_map(mine).collect())
    }

    /// What was made is gone by now; a tag that stays costs nothing and says nothing wrong, so it fails nothing.
    async fn forget_tag(&self, tag: &str) {
        if let Err(error) = self.http.delete(&format!("/tags/{tag}")).await {
            tracing::warn!(tag, %error, "A tag that nothing carries any more stays at DigitalOcean.");
        }
    }

    fn host_of(&self, droplet: Droplet) -> Result<Host, CloudError> {
        let created_at_ms = moment_ms(&droplet.created_at)
            .ok_or_else(|| self.http.odd("a droplet's creation has no date that is one"))?;
        let public = droplet.networks.v4.iter().find(|network| network.kind == "public");
        Ok(Host {
            id: droplet.id.to_string(),
            name: droplet.name,
            labels: Labels::from_tags(droplet.tags.iter().map(String::as_str)).unwrap_or_default(),
            state: state_of(&droplet.status),
            address: public.and_then(|network| network.ip_address.parse().ok()),
            region: droplet.region.slug,
            size: droplet.size_slug,
            created_at_ms,
        })
    }
}

#[async_trait]
impl CloudApi for DigitalOcean {
    fn name(&self) -> &'static str {
        "digitalocean"
    }

    async fn hosts(&self, instance: &str) -> Result<Vec<Host>, CloudError> {
        let tag = instance_tag(instance);
        let droplets: Vec<Droplet> = self.list("/droplets", "droplets", Some(&tag)).await?;
        let mine = droplets.into_iter().filter(|droplet| droplet.tags.contains(&tag));
        mine.map(|droplet| self.host_of(droplet)).collect()
    }

    async fn host(&self, id: &str) -> Result<Option<Host>, CloudError> {
        let found: Option<OneDroplet> = self.http.find(&format!("/droplets/{}", number(id)?)).await?;
        found.map(|found| self.host_of(found.droplet)).transpose()
    }

    async fn create(&self, spec: &HostSpec) -> Result<Host, CloudError> {
        let mut tags = spec.labels.tags().to_vec();
        if spec.firewall.is_some() {
            tags.push(firewall_tag(&spec.labels.instance, &spec.labels.server));
        }
        let image = spec.image.clone().unwrap_or_else(|| debian(spec.debian));
        // One's own images have numbers, and are asked for by them.
        let image = image.parse::<u64>().map_or_else(|_| json!(image), |id| json!(id));
        let body = json!({
            "name": spec.name,
            "tags": tags,
            "region": spec.region,
            "size": spec.size,
            "image": image,
            "user_data": spec.user_data,
            "backups": false,
            "ipv6": false,
            "monitoring": false,
            "with_droplet_agent": false,
        });
        let made: OneDroplet = self.http.post("/droplets", &body).await?;
        self.host_of(made.droplet)
    }

    async fn destroy(&self, id: &str) -> Result<(), CloudError> {
        let path = format!("/droplets/{}", number(id)?);
        self.http.delete(&path).await
    }

    async fn offers(&self) -> Result<Vec<Offer>, CloudError> {
        let sizes: Vec<Size> = self.list("/sizes", "sizes", None).await?;
        let regions: Vec<Region> = self.list("/regions", "regions", None).await?;
        Ok(offers_of(&sizes, &regions))
    }

    async fn images(&self) -> Result<Vec<Image>, CloudError> {
        let all: Vec<System> = self.list("/images?type=distribution", "images", None).await?;
        let system = |one: System| {
            let title = format!("{} {}", one.distribution, one.name);
            let fit = one.public && one.kind == "base" && one.status == "available" && is_fit(&title);
            Some(Image { word: one.slug?, title, usual: false }).filter(|_| fit)
        };
        let images = all.into_iter().filter_map(system);
        Ok(images.map(|image| Image { usual: image.word == debian(USUAL_DEBIAN), ..image }).collect())
    }

    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError> {
        let Labels { instance, server, .. } = &spec.labels;
        let tag = firewall_tag(instance, server);
        let body = json!({
            "name": spec.name,
            "tags": [tag],
            "inbound_rules": rules(&spec.ports),
            "outbound_rules": everything_out(),
        });
        let mut mine = self.firewalls(instance).await?.into_iter();
        let Some((_, found)) = mine.find(|(of, firewall)| of == server && firewall.name == spec.name) else {
            // A firewall takes only tags that exist; making one that does is fine.
            self.http.post::<Value>("/tags", &json!({ "name": tag })).await?;
            let made: OneFirewall = self.http.post("/firewalls", &body).await?;
            return Ok(Some(made.firewall.id));
        };
        if found.ports() != wanted(&spec.ports) {
            self.http.put::<Value>(&format!("/firewalls/{}", word(&found.id)?), &body).await?;
        }
        Ok(Some(found.id))
    }

    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError> {
        let path = format!("/firewalls/{}", word(id)?);
        let Some(found) = self.http.find::<OneFirewall>(&path).await? else { return Ok(()) };
        self.http.delete(&path).await?;
        for tag in found.firewall.tags.iter().flatten().filter(|tag| tag.starts_with(TAG_FIREWALL)) {
            self.forget_tag(tag).await;
        }
        Ok(())
    }

    /// The job's tag. A droplet that has not left yet, a second one that was made by mistake, or one of another instance
    /// whose jobs count alike would lose it with the tag.
    async fn forget_labels(&self, labels: &Labels) {
        let [_, _, tag] = labels.tags();
        match self.list::<Droplet>("/droplets", "droplets", Some(&tag)).await {
            Ok(carriers) if carriers.is_empty() => self.forget_tag(&tag).await,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(tag, %error, "Whether a tag is in use at DigitalOcean is not known; it stays.")
            }
        }
    }

    /// Firewalls and volumes. SSH keys carry no tags here, and none are made.
    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError> {
        let mut extras = vec![];
        for (server, firewall) in self.firewalls(instance).await? {
            extras.push(Extra { kind: FIREWALL, id: firewall.id, name: firewall.name, server: Some(server) });
        }
        let volumes: Vec<Volume> = self.list("/volumes", "volumes", None).await?;
        for volume in volumes {
            let labels = Labels::from_tags(volume.tags.iter().flatten().map(String::as_str));
            let Some(labels) = labels.filter(|labels| labels.instance == instance) else { continue };
            let server = Some(labels.server).filter(|server| !server.is_empty());
            extras.push(Extra { kind: VOLUME, id: volume.id, name: volume.name, server });
        }
        Ok(extras)
    }

    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError> {
        match extra.kind {
            FIREWALL => self.delete_firewall(&extra.id).await,
            VOLUME => self.http.delete(&format!("/volumes/{}", word(&extra.id)?)).await,
            other => Err(self.http.odd(&format!("there is no {other} to delete"))),
        }
    }
}

const FIREWALL: &str = "firewall";
const VOLUME: &str = "volume";

/// `{"id": "unprocessable_entity", "message": …}`; the id only repeats the status.
fn read(status: u16, body: &Value) -> Reading {
    let words = body["message"].as_str().unwrap_or_default().to_owned();
    Reading { meaning: meaning_of_words(status, &words), words }
}

fn firewall_tag(instance: &str, server: &str) -> String {
    format!("{TAG_FIREWALL}{instance}-{server}")
}

/// Droplets have numbers. Another's id never becomes part of a path.
fn number(id: &str) -> Result<u64, CloudError> {
    id.parse().map_err(|_| CloudError::Refused(format!("`{id}` is no id that DigitalOcean gives.")))
}

/// Everything else has a UUID.
fn word(id: &str) -> Result<uuid::Uuid, CloudError> {
    id.parse().map_err(|_| CloudError::Refused(format!("`{id}` is no id that DigitalOcean gives.")))
}

/// The word for a release of Debian.
fn debian(release: u32) -> String {
    format!("debian-{release}-x64")
}

fn state_of(status: &str) -> HostState {
    match status {
        "active" => HostState::Running,
        "off" | "archive" => HostState::Off,
        // new, and what may come: it is there, and it bills. One that leaves is simply gone.
        _ => HostState::Starting,
    }
}

/// Protocols and ports in one order, as the API writes them.
fn wanted(ports: &[OpenPort]) -> BTreeSet<(String, String)> {
    ports.iter().map(|port| (if port.udp { "udp" } else { "tcp" }.to_owned(), port.number.to_string())).collect()
}

const EVERYBODY: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn rules(ports: &[OpenPort]) -> Vec<Value> {
    let rule = |(protocol, ports): (String, String)| json!({ "protocol": protocol, "ports": ports, "sources": { "addresses": EVERYBODY } });
    wanted(ports).into_iter().map(rule).collect()
}

/// Without these nothing leaves the droplet. "0" stands for every port.
fn everything_out() -> Vec<Value> {
    let rule = |protocol| json!({ "protocol": protocol, "ports": "0", "destinations": { "addresses": EVERYBODY } });
    ["tcp", "udp", "icmp"].map(rule).to_vec()
}

/// A size names the regions that have it now; a region names those that it has at all.
fn offers_of(sizes: &[Size], regions: &[Region]) -> Vec<Offer> {
    let mut offers = vec![];
    for region in regions {
        for size in sizes {
            let now = size.regions.contains(&region.slug);
            if !now && !region.sizes.contains(&size.slug) {
                continue;
            }
            offers.push(Offer {
                size: size.slug.clone(),
                region: region.slug.clone(),
                cpus: size.vcpus,
                memory_mb: size.memory,
                arm: false,
                disk_gb: size.disk,
                hourly: millionths(size.price_hourly),
                monthly: Some(millionths(size.price_monthly)),
                currency: "USD",
                unit_ms: UNIT_MS,
                available: now && size.available && region.available,
            });
        }
    }
    offers
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    links: Value,
    #[serde(flatten)]
    lists: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct OneDroplet {
    droplet: Droplet,
}

#[derive(Deserialize)]
struct Droplet {
    id: u64,
    name: String,
    status: String,
    created_at: String,
    size_slug: String,
    region: Slug,
    networks: Networks,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Slug {
    slug: String,
}

#[derive(Deserialize)]
struct Networks {
    #[serde(default)]
    v4: Vec<Network>,
}

#[derive(Deserialize)]
struct Network {
    ip_address: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Volume {
    id: String,
    name: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OneFirewall {
    firewall: Firewall,
}

#[derive(Deserialize)]
struct Firewall {
    id: String,
    name: String,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    inbound_rules: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
struct Rule {
    protocol: String,
    ports: String,
}

impl Firewall {
    fn ports(&self) -> BTreeSet<(String, String)> {
        self.inbound_rules.iter().flatten().map(|rule| (rule.protocol.clone(), rule.ports.clone())).collect()
    }
}

#[derive(Deserialize)]
struct Size {
    slug: String,
    vcpus: u32,
    memory: u32,
    disk: u32,
    price_hourly: f64,
    price_monthly: f64,
    regions: Vec<String>,
    available: bool,
}

#[derive(Deserialize)]
struct Region {
    slug: String,
    available: bool,
    sizes: Vec<String>,
}

/// An image, as the API calls it. Only the provider's own have slugs.
#[derive(Deserialize)]
struct System {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    distribution: String,
    slug: Option<String>,
    public: bool,
    status: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_there_where_size_and_region_both_say_so() {
        let size = |slug: &str, regions: &[&str], available| {
            json!({ "slug": slug, "vcpus": 1, "memory": 1024, "disk": 25, "price_hourly": 0.00743999984115362,
                    "price_monthly": 5, "regions": regions, "available": available })
        };
        let sizes = json!([size("small", &["fra1", "ams3"], true), size("old", &["fra1"], false)]);
        let sizes: Vec<Size> = serde_json::from_value(sizes).expect("sizes");
        let regions: Vec<Region> = serde_json::from_value(json!([
            { "slug": "fra1", "available": true, "sizes": ["small", "old"] },
            { "slug": "ams3", "available": false, "sizes": [] },
            { "slug": "nyc1", "available": true, "sizes": ["small"] },
        ]))
        .expect("regions");
        let offers = offers_of(&sizes, &regions);
        let short: Vec<_> = offers.iter().map(|o| (o.size.as_str(), o.region.as_str(), o.available)).collect();
        assert_eq!(
            short,
            [("small", "fra1", true), ("old", "fra1", false), ("small", "ams3", false), ("small", "nyc1", false)]
        );
        assert_eq!((offers[0].hourly, offers[0].monthly), (7_440, Some(5_000_000)));
    }

    #[test]
    fn an_id_that_is_none_never_becomes_part_of_a_path() {
        assert!(number("1/../2").is_err() && word("../droplets").is_err());
    }
}
