//! Hetzner Cloud, as <https://docs.hetzner.cloud/reference/cloud> describes it. Everything that can be had carries
//! labels with values, and lists are asked for by a label selector.
//!
//! Locations are named, data centers never: their part of the API answers 410 since October 2026
//! (<https://docs.hetzner.cloud/changelog#2026-06-02-datacenters-deprecated>).

use super::http::{Http, Meaning, PAGES_MAX, Provider, Reading, millionths, moment_ms};
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
    title: "Hetzner",
    key: "[cloud.hetzner] token",
    rights: "read and write permission in its project",
    url: "https://api.hetzner.cloud/v1",
    // 3600 requests an hour, one of which comes back each second.
    allowance_trickles: true,
    read,
};

const PER_PAGE: u32 = 50;
/// An hour that was begun is billed whole, up to the monthly price
/// (<https://docs.hetzner.com/cloud/billing/faq>).
const UNIT_MS: i64 = 3_600_000;

const LABEL_INSTANCE: &str = "spawnpoint-instance";
const LABEL_SERVER: &str = "spawnpoint-server";
const LABEL_JOB: &str = "spawnpoint-job";

pub(super) struct Hetzner {
    http: Http,
}

impl Hetzner {
    pub fn open(token: &SecretString, url: Option<&str>) -> Result<Hetzner, CloudError> {
        Ok(Hetzner { http: Http::open(&PROVIDER, token, url)? })
    }

    /// All pages of a list; `key` is what its entries stand under.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        key: &str,
        instance: Option<&str>,
    ) -> Result<Vec<T>, CloudError> {
        let mut all = vec![];
        let mut page = Some(1);
        for _ in 0..PAGES_MAX {
            let Some(number) = page else { return Ok(all) };
            let mut query = vec![("page", number.to_string()), ("per_page", PER_PAGE.to_string())];
            query.extend(instance.map(|instance| ("label_selector", format!("{LABEL_INSTANCE}={instance}"))));
            let mut answer: Page = self.http.get(path, &query).await?;
            let entries = answer.lists.remove(key).unwrap_or(Value::Null);
            let entries: Vec<T> = serde_json::from_value(entries)
                .map_err(|_| self.http.odd(&format!("{path} has no list of {key} as its description says")))?;
            all.extend(entries);
            page = answer.meta.pagination.next_page;
        }
        Err(self.http.odd(&format!("{path} has pages without end")))
    }

    fn host_of(&self, server: Server) -> Result<Host, CloudError> {
        let created_at_ms =
            moment_ms(&server.created).ok_or_else(|| self.http.odd("a server's creation has no date that is one"))?;
        Ok(Host {
            id: server.id.to_string(),
            name: server.name,
            labels: labels_of(&server.labels),
            state: state_of(&server.status),
            address: server.public_net.ipv4.and_then(|ipv4| ipv4.ip.parse().ok()),
            region: server.location.name,
            size: server.server_type.name,
            created_at_ms,
        })
    }
}

#[async_trait]
impl CloudApi for Hetzner {
    fn name(&self) -> &'static str {
        "hetzner"
    }

    async fn hosts(&self, instance: &str) -> Result<Vec<Host>, CloudError> {
        let servers: Vec<Server> = self.list("/servers", "servers", Some(instance)).await?;
        servers.into_iter().map(|server| self.host_of(server)).collect()
    }

    async fn host(&self, id: &str) -> Result<Option<Host>, CloudError> {
        let found: Option<OneServer> = self.http.find(&format!("/servers/{}", number(id)?)).await?;
        found.map(|found| self.host_of(found.server)).transpose()
    }

    async fn create(&self, spec: &HostSpec) -> Result<Host, CloudError> {
        let firewalls = match &spec.firewall {
            Some(id) => vec![json!({ "firewall": number(id)? })],
            None => vec![],
        };
        // The addresses are made with the server, and go with it; ones made apart would stay and bill.
        let body = json!({
            "name": spec.name,
            "labels": labels_for(&spec.labels),
            "server_type": spec.size,
            "location": spec.region,
            "image": spec.image.clone().unwrap_or_else(|| debian(spec.debian)),
            "user_data": spec.user_data,
            "firewalls": firewalls,
            "public_net": { "enable_ipv4": true, "enable_ipv6": true },
            "start_after_create": true,
        });
        let made: OneServer = self.http.post("/servers", &body).await?;
        self.host_of(made.server)
    }

    async fn destroy(&self, id: &str) -> Result<(), CloudError> {
        self.http.delete(&format!("/servers/{}", number(id)?)).await
    }

    async fn offers(&self) -> Result<Vec<Offer>, CloudError> {
        let Pricing { pricing } = self.http.get("/pricing", &[]).await?;
        let types: Vec<ServerType> = self.list("/server_types", "server_types", None).await?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        offers_of(&pricing, &types, now_ms).ok_or_else(|| self.http.odd("a price is no amount of EUR or USD"))
    }

    async fn images(&self) -> Result<Vec<Image>, CloudError> {
        // For both kinds of processor the name is the same; x86 is what games are made for.
        let all: Vec<System> = self.list("/images?type=system&architecture=x86", "images", None).await?;
        let system = |one: System| {
            let title = format!("{} {}", one.os_flavor, one.os_version.unwrap_or_default());
            let fit = one.kind == "system" && one.deprecated.is_none() && one.architecture == "x86" && is_fit(&title);
            Some(Image { word: one.name?, title: one.description, usual: false }).filter(|_| fit)
        };
        let images = all.into_iter().filter_map(system);
        Ok(images.map(|image| Image { usual: image.word == debian(USUAL_DEBIAN), ..image }).collect())
    }

    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError> {
        let mine: Vec<Firewall> = self.list("/firewalls", "firewalls", Some(&spec.labels.instance)).await?;
        let Some(found) = mine.into_iter().find(|firewall| firewall.name == spec.name) else {
            let body = json!({ "name": spec.name, "labels": labels_for(&spec.labels), "rules": rules(&spec.ports) });
            let made: OneFirewall = self.http.post("/firewalls", &body).await?;
            return Ok(Some(made.firewall.id.to_string()));
        };
        if found.ports() != wanted(&spec.ports) {
            let path = format!("/firewalls/{}/actions/set_rules", found.id);
            self.http.post::<Value>(&path, &json!({ "rules": rules(&spec.ports) })).await?;
        }
        Ok(Some(found.id.to_string()))
    }

    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError> {
        self.http.delete(&format!("/firewalls/{}", number(id)?)).await
    }

    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError> {
        let mut extras = vec![];
        for (kind, path, key) in EXTRAS {
            let things: Vec<Labelled> = self.list(path, key, Some(instance)).await?;
            extras.extend(things.into_iter().map(|thing| Extra {
                kind,
                id: thing.id.to_string(),
                server: thing.labels.get(LABEL_SERVER).cloned(),
                name: thing.name,
            }));
        }
        Ok(extras)
    }

    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError> {
        let known = EXTRAS.iter().find(|(kind, ..)| *kind == extra.kind);
        let (_, path, _) = known.ok_or_else(|| self.http.odd(&format!("there is no {} to delete", extra.kind)))?;
        self.http.delete(&format!("{path}/{}", number(&extra.id)?)).await
    }
}

const EXTRAS: [(&str, &str, &str); 3] =
    [("firewall", "/firewalls", "firewalls"), ("SSH key", "/ssh_keys", "ssh_keys"), ("volume", "/volumes", "volumes")];

/// Codes: <https://docs.hetzner.cloud/reference/cloud#errors>.
fn read(_status: u16, body: &Value) -> Reading {
    let error = &body["error"];
    let meaning = match error["code"].as_str().unwrap_or_default() {
        "resource_unavailable" | "placement_error" => Meaning::NoCapacity,
        "resource_limit_exceeded" | "server_limit_exceeded" => Meaning::Quota,
        "locked" | "conflict" | "resource_in_use" | "maintenance" | "robot_unavailable" | "timeout" => Meaning::Busy,
        _ => Meaning::AsStatus,
    };
    Reading { meaning, words: error["message"].as_str().unwrap_or_default().to_owned() }
}

/// Ids are numbers here. Another's id never becomes part of a path.
fn number(id: &str) -> Result<u64, CloudError> {
    id.parse().map_err(|_| CloudError::Refused(format!("`{id}` is no id that Hetzner gives.")))
}

fn labels_for(labels: &Labels) -> Value {
    json!({ LABEL_INSTANCE: labels.instance, LABEL_SERVER: labels.server, LABEL_JOB: labels.job })
}

fn labels_of(labels: &BTreeMap<String, String>) -> Labels {
    let value = |key: &str| labels.get(key).cloned().unwrap_or_default();
    Labels { instance: value(LABEL_INSTANCE), server: value(LABEL_SERVER), job: value(LABEL_JOB) }
}

/// The word for a release of Debian.
fn debian(release: u32) -> String {
    format!("debian-{release}")
}

fn state_of(status: &str) -> HostState {
    match status {
        "running" => HostState::Running,
        "off" | "stopping" => HostState::Off,
        "deleting" => HostState::Leaving,
        // initializing, starting, migrating, rebuilding, unknown: it is there, and it bills.
        _ => HostState::Starting,
    }
}

fn rules(ports: &[OpenPort]) -> Vec<Value> {
    let everybody = ["0.0.0.0/0", "::/0"];
    let rule = |(port, protocol): (String, String)| json!({ "direction": "in", "protocol": protocol, "port": port, "source_ips": everybody });
    wanted(ports).into_iter().map(rule).collect()
}

/// As the API writes them, in one order.
fn wanted(ports: &[OpenPort]) -> BTreeSet<(String, String)> {
    ports.iter().map(|port| (port.number.to_string(), if port.udp { "udp" } else { "tcp" }.to_owned())).collect()
}

/// The gross price: what is paid in the end. A public IPv4 address is billed apart and added, because a host has one.
fn offers_of(pricing: &Prices, types: &[ServerType], now_ms: i64) -> Option<Vec<Offer>> {
    let currency = match pricing.currency.as_str() {
        "EUR" => "EUR",
        "USD" => "USD",
        _ => return None,
    };
    let ipv4 = pricing.primary_ips.iter().find(|address| address.kind == "ipv4");
    let mut offers = vec![];
    for size in types {
        for price in &size.prices {
            let address = ipv4.and_then(|ipv4| ipv4.prices.iter().find(|one| one.location == price.location));
            let sum = |of: fn(&PriceAt) -> &Amount| {
                let address = address.map_or(Some(0), |address| of(address).gross());
                Some(of(price).gross()? + address?)
            };
            let location = size.locations.iter().find(|location| location.name == price.location);
            offers.push(Offer {
                size: size.name.clone(),
                region: price.location.clone(),
                cpus: size.cores,
                memory_mb: (size.memory * 1024.0) as u32,
                arm: size.architecture == "arm",
                disk_gb: size.disk as u32,
                hourly: sum(|price| &price.price_hourly)?,
                monthly: Some(sum(|price| &price.price_monthly)?),
                currency,
                unit_ms: UNIT_MS,
                // A size has prices for locations, too, in which it is not to be had.
                available: location.is_some_and(|location| location.available_at(now_ms)),
            });
        }
    }
    Some(offers)
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    meta: Meta,
    #[serde(flatten)]
    lists: BTreeMap<String, Value>,
}

#[derive(Default, Deserialize)]
struct Meta {
    pagination: Pagination,
}

#[derive(Default, Deserialize)]
struct Pagination {
    next_page: Option<u32>,
}

#[derive(Deserialize)]
struct OneServer {
    server: Server,
}

#[derive(Deserialize)]
struct Server {
    id: u64,
    name: String,
    status: String,
    created: String,
    labels: BTreeMap<String, String>,
    public_net: PublicNet,
    location: Named,
    server_type: Named,
}

#[derive(Deserialize)]
struct PublicNet {
    ipv4: Option<Address>,
}

#[derive(Deserialize)]
struct Address {
    ip: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Labelled {
    id: u64,
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct OneFirewall {
    firewall: Firewall,
}

#[derive(Deserialize)]
struct Firewall {
    id: u64,
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    direction: String,
    protocol: String,
    port: Option<String>,
}

impl Firewall {
    fn ports(&self) -> BTreeSet<(String, String)> {
        let inward = self.rules.iter().filter(|rule| rule.direction == "in");
        inward.map(|rule| (rule.port.clone().unwrap_or_default(), rule.protocol.clone())).collect()
    }
}

#[derive(Deserialize)]
struct Pricing {
    pricing: Prices,
}

#[derive(Deserialize)]
struct Prices {
    currency: String,
    primary_ips: Vec<AddressPrices>,
}

#[derive(Deserialize)]
struct AddressPrices {
    #[serde(rename = "type")]
    kind: String,
    prices: Vec<PriceAt>,
}

#[derive(Deserialize)]
struct ServerType {
    name: String,
    cores: u32,
    /// In gigabytes.
    memory: f64,
    disk: f64,
    architecture: String,
    prices: Vec<PriceAt>,
    locations: Vec<Location>,
}

#[derive(Deserialize)]
struct PriceAt {
    location: String,
    price_hourly: Amount,
    price_monthly: Amount,
}

#[derive(Deserialize)]
struct Amount {
    gross: String,
}

impl Amount {
    fn gross(&self) -> Option<i64> {
        self.gross.parse().ok().filter(|amount: &f64| amount.is_finite()).map(millionths)
    }
}

#[derive(Deserialize)]
struct Location {
    name: String,
    /// Since April 2026 (<https://docs.hetzner.cloud/changelog#2026-04-01-datacenter-deprecations>).
    available: Option<bool>,
    deprecation: Option<Deprecation>,
}

#[derive(Deserialize)]
struct Deprecation {
    unavailable_after: String,
}

impl Location {
    fn available_at(&self, now_ms: i64) -> bool {
        let ended = self.deprecation.as_ref().and_then(|end| moment_ms(&end.unavailable_after));
        self.available.unwrap_or(true) && ended.is_none_or(|end_ms| now_ms < end_ms)
    }
}

/// An image, as the API calls it. Only the provider's own have names.
#[derive(Deserialize)]
struct System {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    description: String,
    os_flavor: String,
    os_version: Option<String>,
    architecture: String,
    deprecated: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_gross_with_its_address_and_says_where_it_can_be_had() {
        let amount = |gross: &str| json!({ "net": "0", "gross": gross });
        let price = |location: &str, hourly: &str, monthly: &str| json!({ "location": location, "price_hourly": amount(hourly), "price_monthly": amount(monthly) });
        let prices: Prices = serde_json::from_value(json!({
            "currency": "EUR",
            "primary_ips": [{ "type": "ipv4", "prices": [price("fsn1", "0.000952", "0.595")] }],
        }))
        .expect("prices");
        let size: ServerType = serde_json::from_value(json!({
            "name": "cax11", "cores": 2, "memory": 4.0, "disk": 40, "architecture": "arm",
            "prices": [price("fsn1", "0.0071400000000000", "4.5101"), price("hel1", "0.00714", "4.5101"),
                       price("ash", "0.00714", "4.5101")],
            "locations": [
                { "name": "fsn1", "available": true, "deprecation": null },
                { "name": "hel1", "deprecation": { "unavailable_after": "2026-01-01T00:00:00Z" } },
            ],
        }))
        .expect("a size");
        let now_ms = 1_800_000_000_000;
        let offers = offers_of(&prices, &[size], now_ms).expect("offers");
        let short: Vec<_> = offers.iter().map(|o| (o.region.as_str(), o.hourly, o.monthly, o.available)).collect();
        assert_eq!(
            short,
            [
                ("fsn1", 8_092, Some(5_105_100), true),
                ("hel1", 7_140, Some(4_510_100), false),
                ("ash", 7_140, Some(4_510_100), false)
            ]
        );
        assert!(offers[0].arm && offers[0].memory_mb == 4096 && offers[0].disk_gb == 40 && offers[0].cpus == 2);
    }

    #[test]
    fn codes_are_told_apart() {
        let table = [
            ("resource_unavailable", Meaning::NoCapacity),
            ("placement_error", Meaning::NoCapacity),
            ("resource_limit_exceeded", Meaning::Quota),
            ("resource_in_use", Meaning::Busy),
            ("uniqueness_error", Meaning::AsStatus),
        ];
        for (code, meaning) in table {
            let reading = read(422, &json!({ "error": { "code": code, "message": "why" } }));
            assert_eq!((reading.meaning, reading.words.as_str()), (meaning, "why"), "{code}");
        }
    }
}
