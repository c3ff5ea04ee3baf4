//! Names at Cloudflare, against a stand-in that keeps records and answers in the shapes that Cloudflare documents
//! (developers.cloudflare.com/api: "List Zones", "List, Create, Update and Delete DNS Record", "Rate limits"). It can be
//! told to answer 429, to fail, or to do what it is asked and lose the answer.

use serde_json::{Value, json};
use spawnpoint::clients::dns::{Cloudflare, Dns, DnsError, HostName, Owner, Provider, Settings, Zone, cloudflare};
use spawnpoint::config::Config;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const ZONE_ID: &str = "023e105f4ecef8ad9ca31a8372d0c353";
const TOKEN: &str = "a-token-that-is-nobodys";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Answers 429 with this `Retry-After`, and does nothing.
    TooMany(u64),
    /// Answers 502 in HTML, as a proxy does.
    Broken,
    /// Does it, and hangs up before the answer.
    Lost,
    /// Somebody adds this record just after the request was done: type and content.
    Meanwhile(&'static str, &'static str),
}

#[derive(Default)]
struct State {
    records: Vec<Value>,
    made: u64,
    /// What goes wrong with the requests to come, one each; `None` goes well.
    troubles: VecDeque<Option<Trouble>>,
    /// Method and path of every request.
    asked: Vec<String>,
    /// A page is this long at most, whatever is asked for.
    page: usize,
}

struct StandIn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl StandIn {
    async fn start() -> StandIn {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { page: 100, ..State::default() }));
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        StandIn { address, state }
    }

    fn settings(&self, token: &str, zone_id: Option<&str>) -> cloudflare::Settings {
        cloudflare::Settings {
            token: token.to_owned().into(),
            zone_id: zone_id.map(str::to_owned),
            api_url: format!("http://{}/client/v4/", self.address),
        }
    }

    fn dns(&self, instance: &str) -> Dns {
        self.dns_with(instance, "example.org", self.settings(TOKEN, None))
    }

    fn dns_with(&self, instance: &str, zone: &str, settings: cloudflare::Settings) -> Dns {
        let provider = Provider::Cloudflare(settings);
        let settings = Settings { zone: zone.into(), ttl_seconds: 60, instance: instance.into(), provider };
        Dns::from_config(settings).unwrap()
    }

    /// A record that somebody made by hand.
    fn put(&self, kind: &str, name: &str, content: &str) {
        self.state.lock().unwrap().add(json!({ "type": kind, "name": name, "content": content, "ttl": 1 }));
    }

    fn trouble(&self, troubles: &[Option<Trouble>]) {
        self.state.lock().unwrap().troubles = troubles.iter().copied().collect();
    }

    /// `A 192.0.2.1 60`, in order.
    fn holds(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let at_name = state.records.iter().filter(|record| record["name"] == name);
        let mut lines: Vec<String> = at_name
            .map(|record| {
                let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", text("type"), text("content"), record["ttl"])
            })
            .collect();
        lines.sort();
        lines
    }

    fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }
}

impl State {
    fn add(&mut self, given: Value) -> Value {
        self.made += 1;
        let mut record = given;
        record["id"] = json!(format!("{:032x}", self.made));
        record["proxiable"] = json!(record["type"] != "TXT");
        if record["proxied"].is_null() {
            record["proxied"] = json!(false);
        }
        record["created_on"] = json!(format!("2026-11-21T08:00:{:02}.12345Z", self.made));
        record["modified_on"] = record["created_on"].clone();
        record["meta"] = json!({});
        record["settings"] = json!({});
        record["tags"] = json!([]);
        self.records.push(record.clone());
        record
    }

    /// Status and body, as documented.
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        if request.token.as_deref() != Some(&format!("Bearer {TOKEN}")) {
            return refused(403, 10_000, "Authentication error");
        }
        let records = format!("/client/v4/zones/{ZONE_ID}/dns_records");
        let (path, method) = (request.path.as_str(), request.method.as_str());
        if path == "/client/v4/zones" && method == "GET" {
            let ours = request.query("name").is_none_or(|name| name == "example.org");
            let zone =
                json!({ "id": ZONE_ID, "name": "example.org", "status": "active", "paused": false, "type": "full" });
            let zones = if ours { vec![zone] } else { vec![] };
            return listed(zones, request, self.page);
        }
        let Some(rest) = path.strip_prefix(&records) else {
            return refused(404, 7_003, "Could not route to the zone, perhaps your object identifier is invalid?");
        };
        match (method, rest.strip_prefix('/')) {
            ("GET", None) => {
                let wanted = request.query("name.exact");
                let shown = |record: &&Value| wanted.as_ref().is_none_or(|name| record["name"] == **name);
                let found: Vec<Value> = self.records.iter().filter(shown).cloned().collect();
                listed(found, request, self.page)
            }
            ("POST", None) => {
                let same =
                    |record: &&Value| ["type", "name", "content"].iter().all(|key| record[*key] == request.body[*key]);
                if self.records.iter().any(|record| same(&record)) {
                    return refused(400, 81_058, "An identical record already exists.");
                }
                let at_name = self.records.iter().filter(|record| record["name"] == request.body["name"]);
                if request.body["type"] != "TXT" && at_name.clone().any(|record| record["type"] == "CNAME") {
                    return refused(400, 81_054, "A CNAME record with that host already exists.");
                }
                if request.body["ttl"].as_u64().is_none_or(|ttl| ttl != 1 && !(60..=86_400).contains(&ttl)) {
                    return refused(
                        400,
                        9_021,
                        "Invalid TTL. Must be between 60 and 86400 seconds, or 1 for Automatic.",
                    );
                }
                (200, fine(self.add(request.body.clone())))
            }
            ("PATCH", Some(id)) => match self.records.iter_mut().find(|record| record["id"] == id) {
                None => refused(404, 81_044, "Record does not exist."),
                Some(record) => {
                    for (key, value) in request.body.as_object().expect("an object") {
                        record[key] = value.clone();
                    }
                    (200, fine(record.clone()))
                }
            },
            ("DELETE", Some(id)) => {
                let before = self.records.len();
                self.records.retain(|record| record["id"] != id);
                match self.records.len() == before {
                    true => refused(404, 81_044, "Record does not exist."),
                    false => (200, fine(json!({ "id": id }))),
                }
            }
            _ => refused(405, 10_405, "Method not allowed"),
        }
    }
}

fn fine(result: Value) -> Value {
    json!({ "success": true, "errors": [], "messages": [], "result": result })
}

fn listed(all: Vec<Value>, request: &Request, most: usize) -> (u16, Value) {
    let number = |key: &str, usual: usize| request.query(key).and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (page, per_page) = (number("page", 1), number("per_page", 100).min(most));
    let shown: Vec<Value> = all.iter().skip((page - 1) * per_page).take(per_page).cloned().collect();
    let info = json!({
        "page": page, "per_page": per_page, "count": shown.len(), "total_count": all.len(),
        "total_pages": all.len().div_ceil(per_page),
    });
    let mut answer = fine(json!(shown));
    answer["result_info"] = info;
    (200, answer)
}

fn refused(status: u16, code: u32, message: &str) -> (u16, Value) {
    let errors = json!([{ "code": code, "message": message }]);
    (status, json!({ "success": false, "errors": errors, "messages": [], "result": null }))
}

struct Request {
    method: String,
    path: String,
    query: String,
    token: Option<String>,
    body: Value,
}

impl Request {
    fn query(&self, key: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    }

    async fn read(stream: &mut TcpStream) -> Option<Request> {
        let (mut bytes, mut piece) = (vec![], [0; 4096]);
        loop {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let header = |name: &str| {
                    head.lines().skip(1).find_map(|line| {
                        let (key, value) = line.split_once(':')?;
                        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                    })
                };
                let length: usize = header("content-length").map_or(0, |text| text.parse().unwrap());
                while bytes.len() < end + 4 + length {
                    let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
                    bytes.extend_from_slice(&piece[..read]);
                }
                let mut words = head.lines().next().unwrap().split(' ');
                let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap());
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                let body = serde_json::from_slice(&bytes[end + 4..]).unwrap_or(Value::Null);
                let token = header("authorization");
                return Some(Request { method, path: path.into(), query: query.into(), token, body });
            }
            let read = stream.read(&mut piece).await.ok().filter(|read| *read > 0)?;
            bytes.extend_from_slice(&piece[..read]);
        }
    }
}

/// One request to a connection, which is enough for a test.
async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(request) = Request::read(&mut stream).await else { return };
    let answer = {
        let mut state = state.lock().unwrap();
        state.asked.push(format!("{} {}", request.method, request.path));
        let json = |(status, body): (u16, Value)| {
            format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n") + &tail(&body.to_string())
        };
        match state.troubles.pop_front().flatten() {
            None => json(state.answer(&request)),
            Some(Trouble::TooMany(after)) => {
                let (status, body) =
                    refused(429, 10_000, "Rate limited. Please wait and consider throttling your request speed");
                format!("HTTP/1.1 {status} x\r\nretry-after: {after}\r\n") + &tail(&body.to_string())
            }
            Some(Trouble::Broken) => "HTTP/1.1 502 x\r\ncontent-type: text/html\r\n".to_owned() + &tail("<html>"),
            Some(Trouble::Lost) => {
                state.answer(&request);
                return;
            }
            Some(Trouble::Meanwhile(kind, content)) => {
                let answer = state.answer(&request);
                let name = "friday.example.org";
                state.add(json!({ "type": kind, "name": name, "content": content, "ttl": 1 }));
                json(answer)
            }
        }
    };
    let _ = stream.write_all(answer.as_bytes()).await;
}

fn tail(body: &str) -> String {
    format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

const MARKER: &str = "TXT \"heritage=spawnpoint,spawnpoint/instance=blue\" 60";
const RED: &str = "\"heritage=spawnpoint,spawnpoint/instance=red\"";
const NAME: &str = "friday.example.org";
const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_name_follows_its_server_and_goes_with_it() {
    let cloudflare = StandIn::start().await;
    let dns = cloudflare.dns("blue");
    assert_eq!(dns.look("friday").await.unwrap(), None);
    assert_eq!(dns.point("Friday", ip("192.0.2.1")).await.unwrap().as_str(), NAME);
    assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.1 60", MARKER]);
    // Twice is once, and the second time nothing is written.
    let before = cloudflare.asked().len();
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert!(cloudflare.asked()[before..].iter().all(|asked| asked.starts_with("GET")));
    dns.point("friday", ip("192.0.2.2")).await.unwrap();
    assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.2 60", MARKER]);
    dns.point("friday", ip("2001:db8::2")).await.unwrap();
    assert_eq!(cloudflare.holds(NAME), ["AAAA 2001:db8::2 60", MARKER]);
    let entry = dns.look("friday").await.unwrap().unwrap();
    assert_eq!((entry.addresses.as_slice(), entry.owner("blue")), ([ip("2001:db8::2")].as_slice(), Owner::Ours));
    dns.clear("friday").await.unwrap();
    assert_eq!(cloudflare.holds(NAME), NOTHING);
    dns.clear("friday").await.unwrap();
    // The zone's id was looked up once.
    assert_eq!(cloudflare.asked().iter().filter(|asked| asked.ends_with("/zones")).count(), 1);
}

#[tokio::test]
async fn what_the_configuration_says_leads_to_the_zone() {
    let cloudflare = StandIn::start().await;
    let named = |more: &str| {
        let text = format!(
            "[dns]\nzone = \"example.org\"\nprovider = \"cloudflare\"\nttl_seconds = 90\n[dns.cloudflare]\n\
             token = \"{TOKEN}\"\napi_url = \"http://{}/client/v4\"\n{more}",
            cloudflare.address
        );
        let config = Config::parse(&text, std::iter::empty()).unwrap();
        spawnpoint::program::names(&config, "blue").unwrap().unwrap()
    };
    named("").point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.1 90", &MARKER.replace(" 60", " 90")]);
    let zones = || cloudflare.asked().iter().filter(|asked| asked.ends_with("/zones")).count();
    assert_eq!(zones(), 1);
    // Whose token may not list zones writes the id down.
    named(&format!("zone_id = \"{ZONE_ID}\"")).clear("friday").await.unwrap();
    assert_eq!((cloudflare.holds(NAME), zones()), (vec![], 1));
}

#[tokio::test]
async fn what_people_changed_in_the_dashboard_is_set_right() {
    let cloudflare = StandIn::start().await;
    let dns = cloudflare.dns("blue");
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    cloudflare.put("A", NAME, "192.0.2.66");
    cloudflare.put("AAAA", NAME, "2001:db8::66");
    for record in &mut cloudflare.state.lock().unwrap().records {
        // The proxy carries no game.
        record["proxied"] = json!(record["content"] == "192.0.2.1");
    }
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.1 60", MARKER]);
    assert!(cloudflare.state.lock().unwrap().records.iter().all(|record| record["proxied"] == false));
}

#[tokio::test]
async fn what_somebody_else_wrote_is_left_alone() {
    for (kind, content, named, leads) in [
        ("A", "192.0.2.80", "192.0.2.80", true),
        ("AAAA", "2001:db8::80", "2001:db8::80", true),
        ("CNAME", "www.example.org", "CNAME", true),
        ("MX", "www.example.org", "MX", false),
        ("TXT", "\"v=spf1 -all\"", "TXT", false),
        ("TXT", RED, "instance is red", true),
    ] {
        let cloudflare = StandIn::start().await;
        let dns = cloudflare.dns("blue");
        cloudflare.put(kind, NAME, content);
        let error = dns.point("friday", ip("192.0.2.1")).await.unwrap_err();
        assert!(matches!(error, DnsError::Foreign(_)) && error.to_string().contains(named), "{kind}: {error}");
        assert_eq!(matches!(dns.clear("friday").await, Err(DnsError::Foreign(_))), leads, "{kind}");
        assert_eq!(cloudflare.holds(NAME), [format!("{kind} {content} 1")]);
        assert!(cloudflare.asked().iter().all(|asked| asked.starts_with("GET")));
    }
}

#[tokio::test]
async fn who_claims_a_name_later_steps_back() {
    // Requests: the zone, the list, the claim. Somebody comes in after the list, or after the claim.
    for (after, kind, content) in
        [(1, "TXT", RED), (1, "A", "192.0.2.80"), (1, "CNAME", "www.example.org"), (2, "CNAME", "www.example.org")]
    {
        let cloudflare = StandIn::start().await;
        let mut troubles = vec![None; after];
        troubles.push(Some(Trouble::Meanwhile(kind, content)));
        cloudflare.trouble(&troubles);
        let error = cloudflare.dns("blue").point("friday", ip("192.0.2.1")).await.unwrap_err();
        assert!(matches!(error, DnsError::Foreign(_)), "{kind}: {error:?}");
        let theirs = format!("{kind} {content} 1");
        assert!(cloudflare.holds(NAME).contains(&theirs) && !cloudflare.holds(NAME).join(" ").contains("A 192.0.2.1 "));
        if after == 1 {
            assert_eq!(cloudflare.holds(NAME), [theirs]);
        }
    }
    // And who claimed it first goes on, whoever comes after.
    let cloudflare = StandIn::start().await;
    cloudflare.trouble(&[None, None, Some(Trouble::Meanwhile("TXT", RED))]);
    cloudflare.dns("blue").point("friday", ip("192.0.2.1")).await.unwrap();
    assert!(cloudflare.holds(NAME).contains(&"A 192.0.2.1 60".to_owned()));
    let error = cloudflare.dns("red").point("friday", ip("192.0.2.2")).await.unwrap_err();
    assert!(error.to_string().contains("instance is blue"), "{error}");
    assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.1 60", MARKER]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_spawnpoints_one_gets_the_name() {
    let cloudflare = StandIn::start().await;
    let (blue, red) = (cloudflare.dns("blue"), cloudflare.dns("red"));
    for round in 0..20 {
        let label = format!("name-{round}");
        let results = tokio::join!(blue.point(&label, ip("192.0.2.1")), red.point(&label, ip("192.0.2.2")));
        let (address, owner) = match results {
            (Ok(_), Err(DnsError::Foreign(_))) => ("192.0.2.1", "blue"),
            (Err(DnsError::Foreign(_)), Ok(_)) => ("192.0.2.2", "red"),
            odd => panic!("{odd:?}"),
        };
        let holds = cloudflare.holds(&format!("{label}.example.org"));
        assert!(holds.len() == 2 && holds[0].contains(address) && holds[1].contains(owner), "{holds:?}");
    }
}

#[tokio::test]
async fn every_lost_answer_and_every_hiccup_is_cured() {
    // Each request of making a name, changing its family and taking it away fails once, in each way.
    let troubles = [Trouble::Lost, Trouble::Broken, Trouble::TooMany(0)];
    let cases = troubles.into_iter().flat_map(|trouble| (0..16).map(move |at| (trouble, at)));
    futures::future::join_all(cases.map(|(trouble, at)| async move {
        let cloudflare = StandIn::start().await;
        let mut troubles = vec![None; at];
        troubles.push(Some(trouble));
        cloudflare.trouble(&troubles);
        let dns = cloudflare.dns("blue");
        dns.point("friday", ip("192.0.2.1")).await.unwrap_or_else(|error| panic!("{trouble:?} at {at}: {error}"));
        assert_eq!(cloudflare.holds(NAME), ["A 192.0.2.1 60", MARKER], "{trouble:?} at {at}");
        dns.point("friday", ip("2001:db8::1")).await.unwrap();
        assert_eq!(cloudflare.holds(NAME), ["AAAA 2001:db8::1 60", MARKER], "{trouble:?} at {at}");
        dns.clear("friday").await.unwrap();
        assert_eq!(cloudflare.holds(NAME), NOTHING, "{trouble:?} at {at}");
        assert!(cloudflare.asked().len() >= 16, "every request had its turn: {:?}", cloudflare.asked());
    }))
    .await;
}

#[tokio::test]
async fn a_429_is_waited_out_when_it_is_short_and_told_when_it_is_long() {
    let cloudflare = StandIn::start().await;
    let dns = cloudflare.dns("blue");
    cloudflare.trouble(&[Some(Trouble::TooMany(1))]);
    let started = Instant::now();
    dns.point("friday", ip("192.0.2.1")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    cloudflare.trouble(&[Some(Trouble::TooMany(300))]);
    match dns.clear("friday").await.unwrap_err() {
        DnsError::Busy { after: Some(after), why } => assert!(after.as_secs() == 300 && why.contains("429"), "{why}"),
        other => panic!("{other:?}"),
    }
    // Tries have an end.
    cloudflare.trouble(&[Some(Trouble::TooMany(0)); 12]);
    let before = cloudflare.asked().len();
    assert!(matches!(dns.clear("friday").await, Err(DnsError::Busy { .. })));
    assert_eq!(cloudflare.asked().len() - before, 4);
}

#[tokio::test]
async fn a_list_of_many_pages_is_read_to_its_end() {
    let cloudflare = StandIn::start().await;
    cloudflare.state.lock().unwrap().page = 2;
    for number in 0..5 {
        cloudflare.put("TXT", NAME, &format!("\"note {number}\""));
    }
    cloudflare.put("A", NAME, "192.0.2.80");
    let entry = cloudflare.dns("blue").look("friday").await.unwrap().unwrap();
    assert_eq!((entry.texts.len(), entry.addresses.len()), (5, 1));
}

#[tokio::test]
async fn what_is_wrong_is_said_without_the_token() {
    let cloudflare = StandIn::start().await;
    let wrong_token = cloudflare.dns_with("blue", "example.org", cloudflare.settings("not-the-token", None));
    let wrong_zone = cloudflare.dns_with("blue", "example.com", cloudflare.settings(TOKEN, None));
    let wrong_id = cloudflare.dns_with("blue", "example.org", cloudflare.settings(TOKEN, Some("abcdef")));
    // Nobody listens there, and nobody else gets it meanwhile.
    let held = TcpSocket::new_v4().unwrap();
    held.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let away = held.local_addr().unwrap();
    let mut nobody = cloudflare.settings(TOKEN, Some(ZONE_ID));
    nobody.api_url = format!("http://{away}");
    let nobody = cloudflare.dns_with("blue", "example.org", nobody);
    let mut all = String::new();
    for dns in [wrong_token, wrong_zone, wrong_id, nobody] {
        let error = dns.point("friday", ip("192.0.2.1")).await.unwrap_err();
        let kind = match &error {
            DnsError::Busy { .. } => "busy",
            DnsError::Foreign(_) => "foreign",
            DnsError::Denied(_) => "denied",
            DnsError::Refused(_) => "refused",
            DnsError::Strange(_) => "strange",
        };
        all += &format!("{kind}: {error}\n");
    }
    assert!(!all.contains(TOKEN) && !all.contains("not-the-token"));
    insta::assert_snapshot!(all, @r"
    denied: Cloudflare does not accept the token for the zone example.org (it says: Authentication error, 10000). It needs the right DNS Write for this zone.
    refused: Cloudflare shows no zone example.com to this token. Give the zone's id, or a token with the rights Zone Read and DNS Write for it.
    refused: Cloudflare does not have what was asked for in the zone example.org (it says: Could not route to the zone, perhaps your object identifier is invalid?, 7003). Check the zone's id.
    busy: Cloudflare cannot be reached: no connection.
    ");
}

#[tokio::test]
async fn a_name_outside_of_the_zone_is_refused_before_anybody_is_asked() {
    let standin = StandIn::start().await;
    let zone = HostName::parse("example.org").unwrap();
    let zone = Cloudflare::new(zone, "blue", standin.settings(TOKEN, None)).unwrap();
    let name = HostName::parse("friday.example.com").unwrap();
    for result in
        [zone.set(&name, ip("192.0.2.1"), 60).await, zone.remove(&name).await, zone.get(&name).await.map(|_| ())]
    {
        assert!(matches!(result, Err(DnsError::Refused(_))), "{result:?}");
    }
    assert_eq!(standin.asked(), NOTHING);
}
