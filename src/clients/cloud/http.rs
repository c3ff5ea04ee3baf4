//! What the four providers have in common: JSON over HTTPS with a bearer token, answers that say "not now", and lists
//! in pages. What an error of theirs means is each provider's own business; it tells by a [`Reading`].
//!
//! A GET or DELETE is tried a few times, for seconds; who called tries again after that, for as long as it likes. A
//! POST or PUT is sent once, because nobody knows whether a request without an answer was carried out.

use super::CloudError;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

const CONNECT_TIMEOUT_S: u64 = 10;
/// For a whole exchange. Making a host takes some providers ten seconds.
const ANSWER_TIMEOUT_S: u64 = 60;
/// How often a GET or DELETE is sent before the caller hears of it.
const TRIES: u32 = 3;
/// The pause before the second try; it doubles.
const PAUSE_MS: u64 = 500;
/// A provider that asks for a longer pause than this is not waited for in here.
const PAUSE_MAX_S: u64 = 10;
/// Nobody asks to be left alone for longer than this; a value above it is a clock that is wrong.
const AFTER_MAX_S: u64 = 3600;
/// The longest answer that is read. The largest real one, Linode's availability, has a few hundred kilobytes a page.
const ANSWER_MAX_BYTES: usize = 16 << 20;
/// How much of a provider's own explanation is passed on, in characters.
const EXPLANATION_MAX: usize = 300;
/// No list of ours has more pages; a provider that goes on for ever is stopped here.
pub(super) const PAGES_MAX: u32 = 100;

/// What sets a provider apart, for the messages and for reading its errors.
pub(super) struct Provider {
    /// As people write it.
    pub title: &'static str,
    /// Where the token comes from: `[cloud.linode] token`.
    pub key: &'static str,
    /// The rights that its token needs, as the provider calls them.
    pub rights: &'static str,
    pub url: &'static str,
    /// The reset header says when the whole allowance is back, and some of it is back much sooner.
    pub allowance_trickles: bool,
    pub read: fn(u16, &Value) -> Reading,
}

/// What an answer that is an error means.
pub(super) struct Reading {
    pub meaning: Meaning,
    /// The provider's own words.
    pub words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What its status says: 401 and 403 are about rights, 429 and 5xx pass, the others are a refusal.
    AsStatus,
    NoCapacity,
    Quota,
    /// The token is right, and may not do this.
    Forbidden,
    /// Something else has to end first.
    Busy,
}

pub(super) struct Http {
    provider: &'static Provider,
    client: reqwest::Client,
    base: String,
    token: SecretString,
}

/// An answer with a status of success, or the error of a provider.
enum Failure {
    /// 404, for the callers to whom that is an answer.
    Missing(CloudError),
    Other(CloudError),
}

impl Failure {
    fn into_error(self) -> CloudError {
        match self {
            Failure::Missing(error) | Failure::Other(error) => error,
        }
    }
}

impl Http {
    pub fn open(provider: &'static Provider, token: &SecretString, url: Option<&str>) -> Result<Http, CloudError> {
        // The token goes to the host that the configuration names and to no other: redirects are not followed.
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(CONNECT_TIMEOUT_S))
            .timeout(Duration::from_secs(ANSWER_TIMEOUT_S))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("spawnpoint/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CloudError::Refused(format!("No HTTP client could be made: {}", chain(&error))))?;
        let base = url.unwrap_or(provider.url).trim_end_matches('/').to_owned();
        let well_formed = reqwest::Url::parse(&base)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.query().is_none());
        if !well_formed {
            let key = provider.key.replace("token", "api_url");
            return Err(CloudError::Refused(format!("`{key}` is not an address that begins with https://.")));
        }
        let http = Http { provider, client, base, token: token.expose_secret().trim().to_owned().into() };
        http.authorization()?;
        Ok(http)
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, CloudError> {
        self.get_filtered(path, query, None).await
    }

    /// With Linode's header that says which entries of a list are wanted.
    pub async fn get_filtered<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
        filter: Option<&Value>,
    ) -> Result<T, CloudError> {
        let answer = self.patiently(Method::GET, path, query, filter).await.map_err(Failure::into_error)?;
        self.parse(path, &answer)
    }

    /// `None` for 404.
    pub async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, CloudError> {
        match self.patiently(Method::GET, path, &[], None).await {
            Ok(answer) => self.parse(path, &answer).map(Some),
            Err(Failure::Missing(_)) => Ok(None),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    /// Fine when it is gone already.
    pub async fn delete(&self, path: &str) -> Result<(), CloudError> {
        match self.patiently(Method::DELETE, path, &[], None).await {
            Ok(_) | Err(Failure::Missing(_)) => Ok(()),
            Err(Failure::Other(error)) => Err(error),
        }
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CloudError> {
        self.send(Method::POST, path, body).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CloudError> {
        self.send(Method::PUT, path, body).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, CloudError> {
        let request = self.request(method, path)?.json(body);
        let answer = self.once(request).await.map_err(Failure::into_error)?;
        self.parse(path, &answer)
    }

    async fn patiently(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        filter: Option<&Value>,
    ) -> Result<Vec<u8>, Failure> {
        let mut tried = 0;
        loop {
            let mut request = self.request(method.clone(), path).map_err(Failure::Other)?.query(query);
            if let Some(filter) = filter {
                request = request.header("X-Filter", filter.to_string());
            }
            let failure = match self.once(request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            tried += 1;
            let Failure::Other(CloudError::Busy { after, .. }) = &failure else { return Err(failure) };
            let pause = after.unwrap_or(Duration::from_millis(PAUSE_MS << (tried - 1)));
            if tried >= TRIES || pause > Duration::from_secs(PAUSE_MAX_S) {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, CloudError> {
        let url = format!("{}{path}", self.base);
        Ok(self.client.request(method, url).header(AUTHORIZATION, self.authorization()?))
    }

    fn authorization(&self) -> Result<HeaderValue, CloudError> {
        let key = self.provider.key;
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.token.expose_secret()))
            .map_err(|_| CloudError::Denied(format!("The token in `{key}` has a character that no token can have.")))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn once(&self, request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        let title = self.provider.title;
        let no_answer = |error: reqwest::Error| {
            // Without its address: that may hold a query, and the sentence names the provider already.
            let why = format!("{title} does not answer: {}", chain(&error.without_url()));
            Failure::Other(CloudError::Busy { why, after: None })
        };
        let mut answer = request.send().await.map_err(no_answer)?;
        let status = answer.status();
        let headers = answer.headers().clone();
        let mut body = vec![];
        while let Some(chunk) = answer.chunk().await.map_err(no_answer)? {
            if body.len() + chunk.len() > ANSWER_MAX_BYTES {
                return Err(Failure::Other(CloudError::Strange(format!("{title} sent an answer without an end."))));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        let error = self.error(status, &headers, &body);
        Err(if status == StatusCode::NOT_FOUND { Failure::Missing(error) } else { Failure::Other(error) })
    }

    fn error(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CloudError {
        let Provider { title, key, rights, .. } = self.provider;
        if status.is_redirection() {
            return CloudError::Strange(format!("{title} wants to send us to another address; that is not followed."));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let Reading { meaning, words } = (self.provider.read)(status.as_u16(), &body);
        let words = self.explanation(&words);
        let said = if words.is_empty() { format!("status {}", status.as_u16()) } else { words };
        let after = || {
            let now = jiff::Timestamp::now();
            pause_asked_for(headers, now.as_second(), self.provider.allowance_trickles)
        };
        match meaning {
            Meaning::NoCapacity => CloudError::NoCapacity(format!("{title} has none of these to give now: {said}")),
            Meaning::Quota => CloudError::Quota(format!("{title} does not let this account have more: {said}")),
            Meaning::Forbidden => self.forbidden(&said),
            Meaning::Busy => CloudError::Busy { why: format!("{title} is not ready for this: {said}"), after: after() },
            Meaning::AsStatus => match status.as_u16() {
                401 => CloudError::Denied(format!(
                    "{title} does not accept the token in `{key}` ({said}). Make a new one with {rights}, and put it there."
                )),
                403 => self.forbidden(&said),
                429 => CloudError::Busy { why: format!("{title} asks for fewer requests: {said}"), after: after() },
                408 | 425 | 500.. => {
                    CloudError::Busy { why: format!("{title} has trouble of its own: {said}"), after: after() }
                }
                _ => CloudError::Refused(format!("{title} refuses this: {said}")),
            },
        }
    }

    fn forbidden(&self, said: &str) -> CloudError {
        let Provider { title, key, rights, .. } = self.provider;
        CloudError::Denied(format!("{title} does not allow this to the token in `{key}` ({said}). It needs {rights}."))
    }

    /// The provider's words as one short line, and never with the token in it, should it send that back.
    fn explanation(&self, words: &str) -> String {
        let token = self.token.expose_secret();
        let masked = if token.is_empty() { words.to_owned() } else { words.replace(token, "…") };
        let line = masked.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(EXPLANATION_MAX) {
            Some((cut, _)) => format!("{}…", &line[..cut]),
            None => line,
        }
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<T, CloudError> {
        // `()` is for answers that are not looked at; they may be empty.
        let answer = if answer.is_empty() { b"null" } else { answer };
        serde_json::from_slice(answer).map_err(|error| self.strange(path, error))
    }

    /// The error's own text says which field at which column, and may quote what stood there; only the place is kept.
    fn strange(&self, path: &str, error: serde_json::Error) -> CloudError {
        let (title, path) = (self.provider.title, path.split('?').next().unwrap_or_default());
        let what = match error.classify() {
            serde_json::error::Category::Data => "has a field that it should not have, or lacks one",
            serde_json::error::Category::Syntax | serde_json::error::Category::Eof => "is not JSON",
            serde_json::error::Category::Io => "could not be read",
        };
        let column = error.column();
        CloudError::Strange(format!("{title}'s answer to {path} {what} (column {column})."))
    }

    pub fn odd(&self, what: &str) -> CloudError {
        CloudError::Strange(format!("{}: {what}.", self.provider.title))
    }
}

/// Everything an error has to say, its causes included: reqwest keeps "connection refused" in the third.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// `Retry-After` as seconds or a date (RFC 9110), else the moment at which the allowance is back: Linode has
/// `X-RateLimit-Reset`, DigitalOcean and Hetzner `RateLimit-Reset`, in seconds since 1970. Linode was seen to send
/// negative ones (linode_api4-python, issue 72); these are no answer.
fn pause_asked_for(headers: &HeaderMap, now_s: i64, allowance_trickles: bool) -> Option<Duration> {
    /// Hetzner gives one request back each second, of 3600 an hour: this is enough for a call or two.
    const TRICKLE_S: u64 = 5;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let whole = |seconds: i64| u64::try_from(seconds).ok().map(|seconds| seconds.min(AFTER_MAX_S));
    let asked = text("retry-after").and_then(|after| match after.parse::<i64>() {
        Ok(seconds) => whole(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(after).ok()?.timestamp();
            Some(whole(date.as_second() - now_s).unwrap_or(0))
        }
    });
    let reset = || {
        let moment = text("ratelimit-reset").or_else(|| text("x-ratelimit-reset"))?.parse::<i64>().ok()?;
        let seconds = whole(moment - now_s)?;
        Some(if allowance_trickles { seconds.min(TRICKLE_S) } else { seconds })
    };
    asked.or_else(reset).map(Duration::from_secs)
}

/// For the providers whose errors are sentences without a code: Linode, DigitalOcean and Vultr. The words are those of
/// messages that people reported, but for "Server is currently locked" (Vultr), which is a guess: "Account Limit reached. Please open a support ticket" (pulumi/templates, issue 184),
/// "creating this/these droplet(s) will exceed your droplet limit" (DigitalOcean), "sold out", "not available in the
/// selected location" (Vultr), "Size is not available in this region" (DigitalOcean), "No open slots for this plan"
/// (vagrant-linode, issue 24), "Droplet already has a pending event." (DigitalOcean), "Linode busy." (Linode).
pub(super) fn meaning_of_words(status: u16, words: &str) -> Meaning {
    const QUOTA: [&str; 6] = [
        "limit reached",
        "limit has been reached",
        "exceed your",
        "reached the maximum",
        "limit for this account",
        "maximum number",
    ];
    const CAPACITY: [&str; 9] = [
        "sold out",
        "no open slots",
        "capacity",
        "not available in this region",
        "not available in the selected",
        "not currently available",
        "currently unavailable",
        "unavailable in this region",
        "out of stock",
    ];
    const IN_USE: [&str; 4] = ["in use", "still attached", "is attached", "is linked"];
    const AT_WORK: [&str; 3] = ["pending event", "linode busy", "currently locked"];
    // A token that lacks a right, too many requests and trouble of their own are what their status says.
    if !matches!(status, 400 | 403 | 409 | 412 | 422) {
        return Meaning::AsStatus;
    }
    let words = words.to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| words.contains(sign));
    if has(&QUOTA) {
        Meaning::Quota
    } else if status != 403 && has(&CAPACITY) {
        Meaning::NoCapacity
    } else if status != 403 && (has(&IN_USE) || has(&AT_WORK)) {
        Meaning::Busy
    } else {
        Meaning::AsStatus
    }
}

/// A moment as the providers write it, in milliseconds since 1970. Linode leaves the zone out and means UTC.
pub(super) fn moment_ms(text: &str) -> Option<i64> {
    let zoned = text.parse::<jiff::Timestamp>();
    let plain = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    zoned.ok().or_else(|| plain().map(|moment| moment.timestamp())).map(|moment| moment.as_millisecond())
}

/// An amount in millionths. The providers' floats carry their noise (0.00743999984115362) below that.
pub(super) fn millionths(amount: f64) -> i64 {
    (amount * 1e6).round() as i64
}

/// A name cut to what a provider allows: a part of it, and a hash of the whole, so that two long names stay two.
pub(super) fn shortened(name: &str, max: usize) -> String {
    const HASH: usize = 8;
    if name.len() <= max {
        return name.to_owned();
    }
    let start: String = name.chars().take(max - HASH - 1).collect();
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}-{}", start.trim_end_matches('-'), &hash[..HASH])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn a_pause_is_read_however_it_is_said() {
        let now = 1_784_894_400; // 2026-07-24T12:00:00Z
        let table = [
            ("retry-after", "7", false, Some(7)),
            ("retry-after", "Fri, 24 Jul 2026 12:00:30 GMT", false, Some(30)),
            ("retry-after", "Fri, 24 Jul 2026 11:00:00 GMT", false, Some(0)),
            ("retry-after", "-1509450059", false, None),
            ("retry-after", "soon", false, None),
            ("retry-after", "999999", false, Some(3600)),
            ("ratelimit-reset", "1784894460", false, Some(60)),
            ("ratelimit-reset", "1784896000", true, Some(5)),
            ("x-ratelimit-reset", "1784894410", false, Some(10)),
            ("x-ratelimit-reset", "-1", false, None),
        ];
        for (name, value, trickles, seconds) in table {
            let asked = pause_asked_for(&headers(&[(name, value)]), now, trickles);
            assert_eq!(asked, seconds.map(Duration::from_secs), "{name}: {value}");
        }
        let both = headers(&[("x-ratelimit-reset", "1784894410"), ("retry-after", "2")]);
        assert_eq!(pause_asked_for(&both, now, false), Some(Duration::from_secs(2)));
    }

    #[test]
    fn sentences_are_told_apart() {
        let table = [
            (400, "Account Limit reached. Please open a support ticket.", Meaning::Quota),
            (422, "creating this/these droplet(s) will exceed your droplet limit", Meaning::Quota),
            (
                400,
                "Server add failed: You have reached the maximum monthly fee limit for this account.",
                Meaning::Quota,
            ),
            (400, "Plan is sold out", Meaning::NoCapacity),
            (422, "Size is not available in this region.", Meaning::NoCapacity),
            (400, "Firewall group is in use", Meaning::Busy),
            (422, "Droplet already has a pending event.", Meaning::Busy),
            (400, "Linode busy.", Meaning::Busy),
            (400, "Unable to destroy server: Server is currently locked", Meaning::Busy),
            (400, "region is not valid", Meaning::AsStatus),
            (429, "API limit reached", Meaning::AsStatus),
            (403, "You are not authorized: capacity", Meaning::AsStatus),
            (503, "capacity", Meaning::AsStatus),
        ];
        for (status, words, meaning) in table {
            assert_eq!(meaning_of_words(status, words), meaning, "{status} {words}");
        }
    }

    #[test]
    fn moments_amounts_and_names() {
        assert_eq!(moment_ms("1970-01-01T00:00:01"), Some(1000));
        assert_eq!(moment_ms("1970-01-01T01:00:01+01:00"), Some(1000));
        assert_eq!(moment_ms("yesterday"), None);
        assert_eq!(millionths(0.00743999984115362), 7_440);
        assert_eq!(shortened("spawnpoint-a", 32), "spawnpoint-a");
        let long = shortened("spawnpoint-0193d3a4-7f2b-7c11-9a8e", 32);
        assert!(long.len() <= 32 && long.starts_with("spawnpoint-0193d3a4"), "{long}");
        assert_ne!(long, shortened("spawnpoint-0193d3a4-7f2b-7c11-9a8f", 32));
    }

    static NOWHERE: Provider = Provider {
        title: "Nowhere",
        key: "[cloud.nowhere] token",
        rights: "the right to write",
        url: "https://nowhere.invalid/v1",
        allowance_trickles: false,
        read: |_, body| Reading {
            meaning: Meaning::AsStatus,
            words: body["why"].as_str().unwrap_or_default().to_owned(),
        },
    };

    #[test]
    fn no_token_is_seen_in_an_error_even_if_the_provider_sends_it_back() {
        let http = Http::open(&NOWHERE, &"hunter2".into(), None).expect("a client");
        let body = br#"{"why": "the token hunter2\n is wrong"}"#;
        let error = http.error(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body);
        assert_eq!(
            error.to_string(),
            "Nowhere does not accept the token in `[cloud.nowhere] token` (the token … is wrong). Make a new one with \
             the right to write, and put it there."
        );
        let header = http.authorization().expect("a header");
        assert!(!format!("{header:?}{:?}", http.request(Method::GET, "/x").expect("a request")).contains("hunter2"));
    }

    #[test]
    fn an_address_that_is_none_and_a_token_that_cannot_be_one_are_named_at_once() {
        for url in ["nowhere", "ftp://x", "https://x/?token=1"] {
            let error = Http::open(&NOWHERE, &"t".into(), Some(url)).err().expect("an error").to_string();
            assert_eq!(error, "`[cloud.nowhere] api_url` is not an address that begins with https://.", "{url}");
        }
        let error = Http::open(&NOWHERE, &"a\nb".into(), None).err().expect("an error").to_string();
        assert_eq!(error, "The token in `[cloud.nowhere] token` has a character that no token can have.");
    }
}
