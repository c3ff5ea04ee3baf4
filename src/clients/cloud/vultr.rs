//! Vultr, API v2, as <https://www.vultr.com/api> describes it. Instances carry tags without values. A firewall group has
//! no tags but a description, which holds them as words.

use super::http::{Http, Meaning, PAGES_MAX, Provider, Reading, meaning_of_words, millionths, moment_ms};
use super::{
    CloudApi, CloudError, Extra, FirewallSpec, Host, HostSpec, HostState, Image, Labels, Offer, OpenPort, USUAL_DEBIAN,
    is_fit,
};
use super::{TAG_SERVER, instance_tag};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use uuid::Uuid;

static PROVIDER: Provider = Provider {
    title: "Vultr",
    key: "[cloud.vultr] token",
    rights: "API access switched on, and this machine's address in its access control list",
    url: "https://api.vultr.com/v2",
    allowance_trickles: false,
    read,
};

const PER_PAGE: u32 = 500;
/// An hour that was begun is billed whole
/// (<https://docs.vultr.com/support/platform/billing/how-am-i-billed-for-my-servers>).
const UNIT_MS: i64 = 3_600_000;
/// Where a plan has only its monthly price: that is what 672 hours cost and the most that a month does. Newer plans
/// count 730 and say what an hour costs.
const HOURS_A_MONTH: f64 = 672.0;
/// So many regions are asked at once, and no more: a provider counts requests.
const REGIONS_AT_ONCE: usize = 8;

pub(super) struct Vultr {
    http: Http,
}

impl Vultr {
    pub fn open(token: &SecretString, url: Option<&str>) -> Result<Vultr, CloudError> {
        Ok(Vultr { http: Http::open(&PROVIDER, token, url)? })
    }

    /// All pages of a list; `key` is what its entries stand under.
    async fn list<T: DeserializeOwned>(&self, path: &str, key: &str) -> Result<Vec<T>, CloudError> {
        let mut all = vec![];
        let mut query = vec![("per_page", PER_PAGE.to_string())];
        for _ in 0..PAGES_MAX {
            let mut answer: Page = self.http.get(path, &query).await?;
            let entries = answer.lists.remove(key).unwrap_or(Value::Null);
            let entries: Vec<T> = serde_json::from_value(entries)
                .map_err(|_| self.http.odd(&format!("{path} has no list of {key} as its description says")))?;
            all.extend(entries);
            match answer.meta["links"]["next"].as_str() {
                None | Some("") => return Ok(all),
                Some(next) => query = vec![("per_page", PER_PAGE.to_string()), ("cursor", next.to_owned())],
            }
        }
        Err(self.http.odd(&format!("{path} has pages without end")))
    }

    async fn instances(&self) -> Result<Vec<Instance>, CloudError> {
        self.list("/instances", "instances").await
    }

    /// Vultr says "4xx" for what it does not find, and not always 404. Whether a refusal means that is seen in the list.
    async fn is_gone(&self, id: Uuid) -> Result<bool, CloudError> {
        Ok(!self.instances().await?.iter().any(|instance| instance.id == id.to_string()))
    }

    async fn groups(&self, instance: &str) -> Result<Vec<Group>, CloudError> {
        let all: Vec<Group> = self.list("/firewalls", "firewall_groups").await?;
        let tag = instance_tag(instance);
        Ok(all.into_iter().filter(|group| group.words().any(|word| word == tag)).collect())
    }

    /// Adds the rules that are missing and takes away those that are too many: also what a first try left half done.
    async fn set_rules(&self, group: Uuid, ports: &[OpenPort]) -> Result<(), CloudError> {
        let path = format!("/firewalls/{group}/rules");
        let mut wanted = wanted(ports);
        let present: Vec<Rule> = self.list(&path, "firewall_rules").await?;
        for rule in present {
            let everybody = rule.subnet_size == 0;
            if !(everybody && wanted.remove(&(rule.ip_type, rule.protocol.to_lowercase(), rule.port))) {
                self.http.delete(&format!("{path}/{}", rule.id)).await?;
            }
        }
        for (ip_type, protocol, port) in wanted {
            let subnet = if ip_type == "v4" { "0.0.0.0" } else { "::" };
            let body =
                json!({ "ip_type": ip_type, "protocol": protocol, "port": port, "subnet": subnet, "subnet_size": 0 });
            self.http.post::<Value>(&path, &body).await?;
        }
        Ok(())
    }

    /// An image is an operating system by its number, a snapshot by its UUID, or an application by its name.
    async fn image(&self, spec: &HostSpec) -> Result<(&'static str, Value), CloudError> {
        let Some(image) = &spec.image else {
            let systems: Vec<System> = self.list("/os", "os").await?;
            let found = systems.iter().find(|os| os.is_debian(spec.debian) && os.arch == "x64");
            let found =
                found.ok_or_else(|| CloudError::Refused(format!("Vultr has no Debian {} to offer.", spec.debian)))?;
            return Ok(("os_id", json!(found.id)));
        };
        if let Ok(system) = image.parse::<u64>() {
            return Ok(("os_id", json!(system)));
        }
        let key = if image.parse::<Uuid>().is_ok() { "snapshot_id" } else { "image_id" };
        Ok((key, json!(image)))
    }

    /// A region, and the plans that it has left.
    async fn left_in(&self, region: &str) -> Result<(String, Vec<String>), CloudError> {
        let there: Availability = self.http.get(&format!("/regions/{}/availability", word(region)?), &[]).await?;
        Ok((region.to_owned(), there.available_plans))
    }

    fn host_of(&self, instance: Instance) -> Result<Host, CloudError> {
        let created_at_ms = moment_ms(&instance.date_created)
            .ok_or_else(|| self.http.odd("an instance's creation has no date that is one"))?;
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        Ok(Host {
            state: instance.state(),
            id: instance.id,
            labels: Labels::from_tags(instance.tags.iter().map(String::as_str)).unwrap_or_default(),
            name: instance.label,
            address: instance.main_ip.parse().ok().filter(|address| *address != nowhere),
            region: instance.region,
            size: instance.plan,
            created_at_ms,
        })
    }
}

#[async_trait]
impl CloudApi for Vultr {
    fn name(&self) -> &'static str {
        "vultr"
    }

    /// All instances are listed, because their list's filter knows only the one tag of old.
    async fn hosts(&self, instance: &str) -> Result<Vec<Host>, CloudError> {
        let tag = instance_tag(instance);
        let mine = self.instances().await?.into_iter().filter(|instance| instance.tags.contains(&tag));
        mine.map(|instance| self.host_of(instance)).collect()
    }

    async fn host(&self, id: &str) -> Result<Option<Host>, CloudError> {
        let id = parse(id)?;
        match self.http.find::<OneInstance>(&format!("/instances/{id}")).await {
            Ok(found) => found.map(|found| self.host_of(found.instance)).transpose(),
            Err(error @ CloudError::Refused(_)) => {
                if self.is_gone(id).await? {
                    Ok(None)
                } else {
                    Err(error)
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn create(&self, spec: &HostSpec) -> Result<Host, CloudError> {
        let (image_key, image) = self.image(spec).await?;
        let mut body = json!({
            "region": spec.region,
            "plan": spec.size,
            "label": spec.name,
            "hostname": spec.name,
            "tags": spec.labels.tags(),
            "user_data": BASE64.encode(&spec.user_data),
            "backups": "disabled",
            "enable_ipv6": false,
            "ddos_protection": false,
            "activation_email": false,
        });
        body[image_key] = image;
        if let Some(id) = &spec.firewall {
            body["firewall_group_id"] = json!(parse(id)?.to_string());
        }
        let made: OneInstance = self.http.post("/instances", &body).await?;
        self.host_of(made.instance)
    }

    async fn destroy(&self, id: &str) -> Result<(), CloudError> {
        let id = parse(id)?;
        match self.http.delete(&format!("/instances/{id}")).await {
            Err(error @ CloudError::Refused(_)) => {
                if self.is_gone(id).await? {
                    Ok(())
                } else {
                    Err(error)
                }
            }
            other => other,
        }
    }

    async fn offers(&self) -> Result<Vec<Offer>, CloudError> {
        let plans: Vec<Plan> = self.list("/plans", "plans").await?;
        // The list of plans says where they are sold, each region what of that it has left.
        let regions: BTreeSet<&String> = plans.iter().flat_map(|plan| &plan.locations).collect();
        // Owned by the future, so that it can be sent between threads.
        let asked: Vec<_> = regions.into_iter().map(|region| self.left_in(region)).collect();
        let left: BTreeMap<String, Vec<String>> =
            stream::iter(asked).buffer_unordered(REGIONS_AT_ONCE).try_collect().await?;
        Ok(offers_of(&plans, &left))
    }

    async fn images(&self) -> Result<Vec<Image>, CloudError> {
        let systems: Vec<System> = self.list("/os", "os").await?;
        let fit = systems.into_iter().filter(|os| os.arch == "x64" && is_fit(&os.name));
        let image = |os: System| Image { word: os.id.to_string(), usual: os.is_debian(USUAL_DEBIAN), title: os.name };
        Ok(fit.map(image).collect())
    }

    async fn open_firewall(&self, spec: &FirewallSpec) -> Result<Option<String>, CloudError> {
        let [instance, server, _job] = spec.labels.tags();
        let mut mine = self.groups(&spec.labels.instance).await?.into_iter();
        let same =
            |group: &Group| group.words().any(|word| word == spec.name) && group.words().any(|word| word == server);
        let id = match mine.find(same) {
            Some(found) => found.id,
            None => {
                let body = json!({ "description": format!("{} {instance} {server}", spec.name) });
                let made: OneGroup = self.http.post("/firewalls", &body).await?;
                made.firewall_group.id
            }
        };
        self.set_rules(parse(&id)?, &spec.ports).await?;
        Ok(Some(id))
    }

    async fn delete_firewall(&self, id: &str) -> Result<(), CloudError> {
        self.http.delete(&format!("/firewalls/{}", parse(id)?)).await
    }

    /// Firewalls. SSH keys and block storage have a name and no tags here, and none are made.
    async fn extras(&self, instance: &str) -> Result<Vec<Extra>, CloudError> {
        let extra = |group: Group| {
            let name = group.words().next().unwrap_or_default().to_owned();
            let server = group.words().find_map(|word| word.strip_prefix(TAG_SERVER)).map(str::to_owned);
            Extra { kind: FIREWALL, id: group.id, name, server }
        };
        Ok(self.groups(instance).await?.into_iter().map(extra).collect())
    }

    async fn delete_extra(&self, extra: &Extra) -> Result<(), CloudError> {
        match extra.kind {
            FIREWALL => self.delete_firewall(&extra.id).await,
            other => Err(self.http.odd(&format!("there is no {other} to delete"))),
        }
    }
}

const FIREWALL: &str = "firewall";

/// `{"error": …, "status": …}`, without codes.
fn read(status: u16, body: &Value) -> Reading {
    let words = body["error"].as_str().unwrap_or_default().to_owned();
    // A machine that the access control list leaves out gets 401 like a wrong key, and a new key would not help it:
    // <https://github.com/vultr/vultr-csi/issues/97>
    let elsewhere = status == 401 && words.starts_with("Unauthorized IP address");
    let meaning = if elsewhere { Meaning::Forbidden } else { meaning_of_words(status, &words) };
    Reading { meaning, words }
}

/// Ids are UUIDs here. Another's id never becomes part of a path.
fn parse(id: &str) -> Result<Uuid, CloudError> {
    id.parse().map_err(|_| CloudError::Refused(format!("`{id}` is no id that Vultr gives.")))
}

/// Each port needs a rule for either kind of address.
fn wanted(ports: &[OpenPort]) -> BTreeSet<(String, String, String)> {
    let rule = |ip: &str, port: &OpenPort| {
        (ip.to_owned(), if port.udp { "udp" } else { "tcp" }.to_owned(), port.number.to_string())
    };
    ports.iter().flat_map(|port| [rule("v4", port), rule("v6", port)]).collect()
}

/// A region is a short word; only such a one becomes part of a path.
fn word(region: &str) -> Result<&str, CloudError> {
    let plain = !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain { Ok(region) } else { Err(CloudError::Strange(format!("Vultr has a region with the name `{region}`."))) }
}

fn offers_of(plans: &[Plan], left: &BTreeMap<String, Vec<String>>) -> Vec<Offer> {
    let at = |plan: &Plan, region: &String| Offer {
        size: plan.id.clone(),
        region: region.clone(),
        cpus: plan.vcpu_count,
        memory_mb: plan.ram,
        arm: false,
        disk_gb: plan.disk,
        hourly: millionths(plan.hourly_cost.unwrap_or(plan.monthly_cost / HOURS_A_MONTH)),
        monthly: Some(millionths(plan.monthly_cost)),
        currency: "USD",
        unit_ms: UNIT_MS,
        available: left.get(region).is_some_and(|plans| plans.contains(&plan.id)),
    };
    plans.iter().flat_map(|plan| plan.locations.iter().map(move |region| at(plan, region))).collect()
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    meta: Value,
    #[serde(flatten)]
    lists: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct OneInstance {
    instance: Instance,
}

/// What is needed of one; its answer to `create` has a password, which is not even read.
#[derive(Deserialize)]
struct Instance {
    id: String,
    #[serde(default)]
    label: String,
    status: String,
    power_status: String,
    date_created: String,
    #[serde(default)]
    main_ip: String,
    region: String,
    plan: String,
    #[serde(default)]
    tags: Vec<String>,
}

impl Instance {
    fn state(&self) -> HostState {
        match (self.status.as_str(), self.power_status.as_str()) {
            ("active", "running") => HostState::Running,
            ("active" | "suspended", _) => HostState::Off,
            // pending, resizing, and what may come: it is there, and it bills. One that leaves is simply gone.
            _ => HostState::Starting,
        }
    }
}

#[derive(Deserialize)]
struct OneGroup {
    firewall_group: Group,
}

#[derive(Deserialize)]
struct Group {
    id: String,
    #[serde(default)]
    description: String,
}

impl Group {
    fn words(&self) -> impl Iterator<Item = &str> {
        self.description.split_whitespace()
    }
}

#[derive(Deserialize)]
struct Rule {
    id: u64,
    ip_type: String,
    protocol: String,
    #[serde(default)]
    port: String,
    subnet_size: u8,
}

#[derive(Deserialize)]
struct System {
    id: u64,
    name: String,
    arch: String,
}

impl System {
    /// It has no word of its own but a number; its name is `Debian 12 x64 (bookworm)`.
    fn is_debian(&self, release: u32) -> bool {
        self.name.starts_with(&format!("Debian {release} "))
    }
}

#[derive(Deserialize)]
struct Availability {
    available_plans: Vec<String>,
}

#[derive(Deserialize)]
struct Plan {
    id: String,
    vcpu_count: u32,
    ram: u32,
    disk: u32,
    monthly_cost: f64,
    hourly_cost: Option<f64>,
    locations: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_costs_what_the_plan_says_or_its_part_of_a_month() {
        let plan = |id: &str, hourly: Value| {
            json!({ "id": id, "vcpu_count": 1, "ram": 1024, "disk": 25, "monthly_cost": 5.04, "hourly_cost": hourly,
                    "locations": ["fra", "ewr"] })
        };
        let plans = json!([plan("new", json!(0.007)), plan("old", Value::Null)]);
        let left = BTreeMap::from([("fra".to_owned(), vec!["new".to_owned()])]);
        let offers = offers_of(&serde_json::from_value::<Vec<Plan>>(plans).expect("plans"), &left);
        let short: Vec<_> = offers.iter().map(|o| (o.size.as_str(), o.region.as_str(), o.hourly)).collect();
        assert_eq!(short, [("new", "fra", 7_000), ("new", "ewr", 7_000), ("old", "fra", 7_500), ("old", "ewr", 7_500)]);
        assert_eq!(offers[0].monthly, Some(5_040_000));
        assert_eq!(offers.iter().map(|offer| offer.available).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn an_instance_without_an_address_yet_has_none() {
        let vultr = Vultr::open(&"t".into(), None).expect("a client");
        let instance = json!({
            "id": "4f0f12e5-1f84-404f-aa84-85f431ea5ec2", "label": "x", "status": "pending", "power_status": "running",
            "date_created": "2021-09-14T13:22:20+00:00", "main_ip": "0.0.0.0", "region": "fra", "plan": "p",
            "tags": ["spawnpoint-i-a", "spawnpoint-s-b"], "default_password": "secret",
        });
        let host = vultr.host_of(serde_json::from_value(instance).expect("an instance")).expect("a host");
        assert_eq!((host.address, host.state), (None, HostState::Starting));
        assert_eq!(host.labels, Labels { instance: "a".into(), server: "b".into(), job: String::new() });
    }
}
