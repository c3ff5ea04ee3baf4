//! Names in a zone that Cloudflare keeps, by its API v4 (developers.cloudflare.com/api, "DNS records"). The token needs
//! the right `DNS Write` for the zone (and `Zone Read` where the zone's id is to be found by its name).
//!
//! The API has no prerequisites, so a name is claimed in two movements: the marker first, then a look whether it is
//! alone. Of two markers the older one holds, and its later neighbour steps back before it has written an address. One
//! change follows one look, until nothing is left to change; that is also how a lost answer is cured.

use super::{DnsError, Entry, HostName, Owner, Zone, foreign, instance_of, marker};
use async_trait::async_trait;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::OnceCell;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How often one look or one change is tried.
const TRIES: u32 = 4;
/// Before the second try; twice that before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A longer `Retry-After` is for the caller to wait out: Cloudflare's own can be five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// Looks of one `set` or `remove`; three or four are usual.
const ROUNDS: u32 = 12;
/// The most that the list gives at once without asking for more, and far more than one name holds.
const PER_PAGE: u32 = 100;
/// Pages of one list before it is called endless.
const MOST_PAGES: u32 = 50;
/// Automatic, in Cloudflare's language. Its shortest otherwise is 60 seconds.
const SHORTEST_TTL_SECONDS: u32 = 60;

#[derive(Clone, Debug)]
pub struct Settings {
    pub token: SecretString,
    /// Found by the zone's name where it is not given, for which the token needs one right more.
    pub zone_id: Option<String>,
    pub api_url: String,
}

pub struct Cloudflare {
    zone: HostName,
    instance: String,
    token: SecretString,
    api_url: String,
    zone_id: OnceCell<String>,
    http: reqwest::Client,
}

impl Cloudflare {
    pub fn new(zone: HostName, instance: &str, settings: Settings) -> Result<Cloudflare, DnsError> {
        let refused = |why: &str| DnsError::Refused(why.to_owned());
        let token = settings.token.expose_secret().trim().to_owned();
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            return Err(refused("Cloudflare's token is empty or holds what no token holds; copy it again."));
        }
        let given = settings.zone_id.filter(|id| !id.is_empty());
        if given.as_ref().is_some_and(|id| id.len() > 32 || !id.chars().all(|c| c.is_ascii_hexdigit())) {
            return Err(refused(
                "Cloudflare's id of a zone is 32 hexadecimal digits; it stands on the zone's overview page.",
            ));
        }
        let api_url = settings.api_url.trim_end_matches('/').to_owned();
        if reqwest::Url::parse(&api_url).ok().is_none_or(|url| !matches!(url.scheme(), "http" | "https")) {
            return Err(refused("The address of Cloudflare's API is no http address."));
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            // The token goes where it was meant to go and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("spawnpoint/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|_| refused("The connection to Cloudflare could not be prepared."))?;
        let zone_id = OnceCell::new_with(given);
        Ok(Cloudflare { zone, instance: instance.to_owned(), token: token.into(), api_url, zone_id, http })
    }

    async fn zone_id(&self) -> Result<&str, DnsError> {
        let found = self.zone_id.get_or_try_init(|| async {
            let zones: Vec<ZoneAnswer> = self.list("zones", &[("name", self.zone.as_str())]).await?;
            let ours = |zone: &ZoneAnswer| HostName::parse(&zone.name).is_ok_and(|name| name == self.zone);
            match zones.into_iter().find(ours) {
                Some(zone) => checked_id(zone.id),
                None => Err(DnsError::Refused(format!(
                    "Cloudflare shows no zone {} to this token. Give the zone's id, or a token with the rights Zone \
                     Read and DNS Write for it.",
                    self.zone
                ))),
            }
        });
        Ok(found.await?)
    }

    /// Everything that stands at the name, the oldest first.
    async fn records(&self, name: &HostName) -> Result<Vec<Stored>, DnsError> {
        let path = format!("zones/{}/dns_records", self.zone_id().await?);
        let mut records: Vec<Stored> = self.list(&path, &[("name.exact", name.as_str())]).await?;
        // Their filter is a help, not a proof.
        records.retain(|record| HostName::parse(&record.name).is_ok_and(|found| found == *name));
        records.sort_by(|one, other| (one.created_on, &one.id).cmp(&(other.created_on, &other.id)));
        Ok(records)
    }

    async fn list<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        filter: &[(&str, &str)],
    ) -> Result<Vec<T>, DnsError> {
        let mut all = vec![];
        for page in 1..=MOST_PAGES {
            let numbers = [("page", page.to_string()), ("per_page", PER_PAGE.to_string())];
            let mut query: Vec<(&str, &str)> = filter.to_vec();
            query.extend(numbers.iter().map(|(key, number)| (*key, number.as_str())));
            let answer: Answer<Vec<T>> = self.patiently(Method::GET, path, &query, None).await?;
            let got = answer.result.unwrap_or_default();
            let last = got.is_empty() || answer.result_info.and_then(|info| info.total_pages).unwrap_or(1) <= page;
            all.extend(got);
            if last {
                return Ok(all);
            }
        }
        Err(DnsError::Strange(format!("Cloudflare's list of {path} has no end.")))
    }

    /// One change. What it made or found gone is seen by the look that follows.
    async fn apply(&self, name: &HostName, change: Change) -> Result<(), DnsError> {
        let records = format!("zones/{}/dns_records", self.zone_id().await?);
        let (method, path, body) = match change {
            Change::Create { kind, content, ttl_seconds } => {
                let mut body = record(kind, &content, ttl_seconds);
                body["name"] = json!(name.as_str());
                body["comment"] = json!("Made by Spawnpoint, which also takes it away.");
                (Method::POST, records, Some(body))
            }
            Change::Replace { id, kind, content, ttl_seconds } => {
                (Method::PATCH, format!("{records}/{id}"), Some(record(kind, &content, ttl_seconds)))
            }
            Change::Delete { id } => (Method::DELETE, format!("{records}/{id}"), None),
        };
        match self.once::<Value>(method, &path, &[], body.as_ref()).await {
            Ok(_) => Ok(()),
            Err(Failed::Overtaken) => Ok(()),
            Err(Failed::Really(error)) => Err(error),
        }
    }

    async fn patiently<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer<T>, DnsError> {
        let mut tries = Tries::default();
        loop {
            match self.once(method.clone(), path, query, body).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Really(error)) => tries.pause(error).await?,
                Err(Failed::Overtaken) => {
                    return Err(DnsError::Strange(format!("Cloudflare says of {path} that it is not there.")));
                }
            }
        }
    }

    async fn once<T: for<'de> Deserialize<'de>>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer<T>, Failed> {
        let mut request = self
            .http
            .request(method, format!("{}/{path}", self.api_url))
            .query(query)
            .bearer_auth(self.token.expose_secret());
        if let Some(body) = body {
            request = request.json(body);
        }
        // The address holds no secret, but it is of no use to people either.
        let lost = |error: reqwest::Error| {
            let why = match (error.is_timeout(), error.is_connect()) {
                (true, _) => "it did not answer in time",
                (false, true) => "no connection",
                (false, false) => "the connection broke before the answer was there",
            };
            DnsError::busy(format!("Cloudflare cannot be reached: {why}."))
        };
        let answer = request.send().await.map_err(lost)?;
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let text = answer.bytes().await.map_err(lost)?;
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            let why = match status {
                StatusCode::TOO_MANY_REQUESTS => "Cloudflare takes no more requests for now (429).".to_owned(),
                other => format!("Cloudflare has a fault of its own ({}).", other.as_u16()),
            };
            return Err(DnsError::Busy { why, after: after.map(Duration::from_secs) }.into());
        }
        // With an error, `result` may be an empty object or nothing; only the errors count then.
        let outcome: Outcome = serde_json::from_slice(&text).map_err(|_| unlike(status))?;
        if !outcome.success || !status.is_success() {
            return Err(failure(status, &outcome.errors, &self.zone));
        }
        Ok(serde_json::from_slice(&text).map_err(|_| unlike(status))?)
    }

    /// Looks and changes by turns until there is nothing to change.
    async fn settle(
        &self,
        name: &HostName,
        next: impl Fn(&[Stored]) -> Result<Option<Change>, DnsError> + Send,
    ) -> Result<(), DnsError> {
        name.admitted_to(&self.zone)?;
        let mut tries = Tries::default();
        for _ in 0..ROUNDS {
            let records = self.records(name).await?;
            let Some(change) = next(&records)? else { return Ok(()) };
            if let Err(error) = self.apply(name, change).await {
                tries.pause(error).await?;
            }
        }
        Err(DnsError::busy(format!("Somebody else keeps changing the name {name} at this moment.")))
    }
}

#[async_trait]
impl Zone for Cloudflare {
    async fn set(&self, name: &HostName, address: IpAddr, ttl_seconds: u32) -> Result<(), DnsError> {
        let ttl_seconds = ttl_seconds.max(SHORTEST_TTL_SECONDS);
        self.settle(name, |records| next_to_set(name, records, &self.instance, address, ttl_seconds)).await
    }

    async fn remove(&self, name: &HostName) -> Result<(), DnsError> {
        self.settle(name, |records| next_to_remove(name, records, &self.instance)).await
    }

    async fn get(&self, name: &HostName) -> Result<Option<Entry>, DnsError> {
        name.admitted_to(&self.zone)?;
        let records = self.records(name).await?;
        Ok((!records.is_empty()).then(|| entry(&records)))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Create { kind: &'static str, content: String, ttl_seconds: u32 },
    Replace { id: String, kind: &'static str, content: String, ttl_seconds: u32 },
    Delete { id: String },
}

/// What to do next on the way to this address, from what stands there, the oldest first. `None`: it is done.
fn next_to_set(
    name: &HostName,
    records: &[Stored],
    instance: &str,
    address: IpAddr,
    ttl_seconds: u32,
) -> Result<Option<Change>, DnsError> {
    if records.is_empty() {
        // In quotes, which is how Cloudflare keeps texts.
        let content = format!("\"{}\"", marker(instance));
        return Ok(Some(Change::Create { kind: "TXT", content, ttl_seconds }));
    }
    match claim(records, instance) {
        Claim::Ours => {}
        Claim::Late { id } => return Ok(Some(Change::Delete { id })),
        Claim::None => return Err(foreign(name, &entry(records), instance)),
    }
    if records.iter().any(|record| record.kind == "CNAME") {
        return Err(foreign(name, &entry(records), instance));
    }
    let kind = kind_of(address);
    let mut same = records.iter().filter(|record| record.kind == kind);
    let Some(first) = same.next() else {
        return Ok(Some(Change::Create { kind, content: address.to_string(), ttl_seconds }));
    };
    if first.address() != Some(address) || first.ttl != ttl_seconds || first.proxied {
        let id = first.id.clone();
        return Ok(Some(Change::Replace { id, kind, content: address.to_string(), ttl_seconds }));
    }
    let stale = same.chain(records.iter().filter(|record| record.is_address() && record.kind != kind)).next();
    Ok(stale.map(|record| Change::Delete { id: record.id.clone() }))
}

/// The marker goes last: with half of it done, the rest is still ours.
fn next_to_remove(name: &HostName, records: &[Stored], instance: &str) -> Result<Option<Change>, DnsError> {
    match claim(records, instance) {
        Claim::Late { id } => Ok(Some(Change::Delete { id })),
        Claim::None => {
            let entry = entry(records);
            match entry.owner(instance) {
                Owner::Somebody if !entry.leads() => Ok(None),
                Owner::Ours | Owner::Another(_) | Owner::Somebody => Err(foreign(name, &entry, instance)),
            }
        }
        Claim::Ours => {
            let mine = marker(instance);
            let next = records.iter().find(|record| record.is_address());
            let next = next.or_else(|| records.iter().find(|record| record.text() == Some(&mine)));
            Ok(next.map(|record| Change::Delete { id: record.id.clone() }))
        }
    }
}

enum Claim {
    Ours,
    /// Ours stands there as well, and what somebody else made there is older.
    Late {
        id: String,
    },
    None,
}

fn claim(records: &[Stored], instance: &str) -> Claim {
    let owner = |record: &Stored| record.text().and_then(instance_of).map(str::to_owned);
    let Some(mine) = records.iter().find(|record| owner(record).is_some_and(|owner| owner == instance)) else {
        return Claim::None;
    };
    // Ours are made after the marker, so an older address was there when the name was claimed.
    let strictly_older = |record: &Stored| matches!((record.created_on, mine.created_on), (Some(a), Some(b)) if a < b);
    let older = records.iter().take_while(|record| record.id != mine.id);
    let mut rivals = older.filter(|record| owner(record).is_some() || (record.leads() && strictly_older(record)));
    match rivals.next() {
        None => Claim::Ours,
        Some(_) => Claim::Late { id: mine.id.clone() },
    }
}

fn entry(records: &[Stored]) -> Entry {
    let mut entry = Entry::default();
    for record in records {
        match (record.address(), record.text()) {
            (Some(address), _) => entry.lead(address, record.ttl),
            (None, Some(text)) => entry.texts.push(text.to_owned()),
            (None, None) => entry.beside(&record.kind),
        }
    }
    entry
}

fn kind_of(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "A",
        IpAddr::V6(_) => "AAAA",
    }
}

/// Never proxied: Cloudflare's proxy speaks HTTP, and games do not.
fn record(kind: &str, content: &str, ttl_seconds: u32) -> Value {
    let mut body = json!({ "type": kind, "content": content, "ttl": ttl_seconds });
    if kind != "TXT" {
        body["proxied"] = json!(false);
    }
    body
}

/// How often something was tried, and how long to wait before the next time.
struct Tries {
    made: u32,
    pause: Duration,
}

impl Default for Tries {
    fn default() -> Tries {
        Tries { made: 1, pause: FIRST_PAUSE }
    }
}

impl Tries {
    /// Waits if it is worth another try, and gives the error back if not.
    async fn pause(&mut self, error: DnsError) -> Result<(), DnsError> {
        let wanted = match &error {
            DnsError::Busy { after, .. } => after.unwrap_or(self.pause),
            DnsError::Foreign(_) | DnsError::Denied(_) | DnsError::Refused(_) | DnsError::Strange(_) => {
                return Err(error);
            }
        };
        if self.made >= TRIES || wanted > LONGEST_PAUSE {
            return Err(error);
        }
        tokio::time::sleep(wanted).await;
        self.made += 1;
        self.pause *= 2;
        Ok(())
    }
}

enum Failed {
    /// What was to be made is there, or what was to go is gone: look again.
    Overtaken,
    Really(DnsError),
}

impl From<DnsError> for Failed {
    fn from(error: DnsError) -> Failed {
        Failed::Really(error)
    }
}

/// Cloudflare's numbers for errors about records. They are not in the API's description but known to everybody who
/// writes records, and stable for years.
const RECORD_IS_NOT_THERE: i64 = 81_044;
const ALREADY_THERE: [i64; 4] = [81_053, 81_054, 81_057, 81_058];
/// A header that holds no token, a token that is none, one that is expired or taken back.
const TOKEN_IS_WRONG: [i64; 3] = [6_003, 9_106, 9_109];

fn failure(status: StatusCode, errors: &[Problem], zone: &HostName) -> Failed {
    let said = said(errors);
    if errors.iter().any(|one| one.code == RECORD_IS_NOT_THERE || ALREADY_THERE.contains(&one.code)) {
        return Failed::Overtaken;
    }
    let denied = errors.iter().any(|one| TOKEN_IS_WRONG.contains(&one.code));
    let error = match status {
        _ if denied => {
            DnsError::Denied(format!("Cloudflare does not accept the token{said}. Copy it again, or make a new one."))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => DnsError::Denied(format!(
            "Cloudflare does not accept the token for the zone {zone}{said}. It needs the right DNS Write for this zone."
        )),
        StatusCode::NOT_FOUND => DnsError::Refused(format!(
            "Cloudflare does not have what was asked for in the zone {zone}{said}. Check the zone's id."
        )),
        _ => DnsError::Refused(format!("Cloudflare refused to change the zone {zone}{said}.")),
    };
    Failed::Really(error)
}

/// Their words, so that people can look them up: short, and harmless in a message.
fn said(errors: &[Problem]) -> String {
    const LONGEST: usize = 160;
    let Some(first) = errors.first() else { return String::new() };
    let harmless = |c: &char| !c.is_control() && !matches!(c, '`' | '@' | '<' | '>' | '|');
    let text: String = first.message.trim().trim_end_matches('.').chars().filter(harmless).take(LONGEST).collect();
    format!(" (it says: {text}, {})", first.code)
}

fn unlike(status: StatusCode) -> DnsError {
    DnsError::Strange(format!(
        "Cloudflare gave an answer that is not what its description says (status {}).",
        status.as_u16()
    ))
}

/// Ids become part of an address, so they are only what ids are.
fn checked_id(id: String) -> Result<String, DnsError> {
    match !id.is_empty() && id.len() <= 64 && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        true => Ok(id),
        false => Err(DnsError::Strange("Cloudflare gave an id that is none.".to_owned())),
    }
}

fn id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked_id(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[derive(Deserialize)]
struct Outcome {
    success: bool,
    #[serde(default)]
    errors: Vec<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    result_info: Option<Pages>,
}

#[derive(Deserialize)]
struct Pages {
    total_pages: Option<u32>,
}

#[derive(Deserialize)]
struct ZoneAnswer {
    #[serde(deserialize_with = "id")]
    id: String,
    name: String,
}

/// A record as Cloudflare keeps it.
#[derive(Clone, Debug, Deserialize)]
struct Stored {
    #[serde(deserialize_with = "id")]
    id: String,
    #[serde(rename = "type")]
    kind: String,
    name: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    ttl: u32,
    #[serde(default)]
    proxied: bool,
    /// Who was first. Read as a time, since its decimals come in any number.
    created_on: Option<jiff::Timestamp>,
}

impl Stored {
    fn is_address(&self) -> bool {
        matches!(self.kind.as_str(), "A" | "AAAA")
    }

    fn leads(&self) -> bool {
        self.is_address() || self.kind == "CNAME"
    }

    fn address(&self) -> Option<IpAddr> {
        self.is_address().then(|| self.content.parse().ok()).flatten()
    }

    /// With or without the quotes: what was written before 2024 may lack them.
    fn text(&self) -> Option<&str> {
        let bare = |text| Some(text).and_then(|text: &str| text.strip_prefix('"')?.strip_suffix('"')).unwrap_or(text);
        (self.kind == "TXT").then(|| bare(self.content.as_str()))
    }
}
