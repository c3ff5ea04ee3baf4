//! A Discord that is not Discord's, for tests: starts `tests/discord/standin.py` and plays the people in it.
//!
//! A test reads like a chat log: `discord.slash(&alice, "general", "/server start server:world")`, then
//! `discord.channel_text("general")` is what the channel shows. The bot connects to `api_url()` with `token()` as it would
//! to the real thing. Not in here: any knowledge of our bot. The other side is `tests/discord/control.py`.
//!
//! When a `Discord` is dropped, the test fails if the bot has sent a request that Discord would not know or that
//! Discord's OpenAPI forbids.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[path = "discord_text.rs"]
mod text;

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

pub use text::{parse_slash, redact};

/// Longer than anything that the stand-in waits for by itself.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(90);
/// What `scripts/lib/python-env` exits with when Python itself is missing.
const TOOL_MISSING: i32 = 69;

/// A running stand-in with its world.
pub struct Discord {
    child: Child,
    info: Info,
    control: reqwest::Client,
}

#[derive(Deserialize)]
struct Info {
    api_url: String,
    token: String,
    application_id: String,
    control_url: String,
    openapi: bool,
}

/// Somebody in the guild.
#[derive(Clone, Debug)]
pub struct User {
    pub name: String,
}

/// What came back to the person who typed or clicked.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// Names the interaction, for `finished` and `submit_modal`.
    pub interaction: String,
    /// `message`, `deferred`, `deferred_update`, `update`, `modal`, `autocomplete`; `None`: "the application did not
    /// respond".
    pub kind: Option<String>,
    /// "… is thinking".
    pub thinking: bool,
    pub ephemeral: bool,
    pub message: Option<String>,
    /// The whole answer as the person reads it.
    pub text: Option<String>,
    /// Its bare text.
    pub content: Option<String>,
    pub followups: Vec<String>,
    /// The form that opened, as text.
    pub modal: Option<String>,
    choices: Option<Vec<Choice>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Choice {
    name: String,
}

/// A message as a person sees it.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    pub id: String,
    pub author: String,
    pub from_bot: bool,
    pub content: String,
    pub embeds: Vec<Value>,
    pub components: Vec<Value>,
    pub attachments: Vec<Value>,
    pub ephemeral: bool,
    pub thinking: bool,
    pub pinned: bool,
    /// Who was notified, as `@alice` or `@everyone`.
    pub pings: Vec<String>,
    pub text: String,
}

/// A request that the bot has sent, and what became of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    pub n: u64,
    pub at_s: f64,
    pub method: String,
    pub path: String,
    pub body: Value,
    pub files: Vec<Value>,
    /// A number, or `hang`, `reset`, `lost_answer` for one that was never answered.
    pub status: Value,
    /// The error that was answered.
    pub answer: Value,
}

/// The gateway's counters.
#[derive(Clone, Debug, Deserialize)]
pub struct Gateway {
    pub connections: u64,
    pub identifies: u64,
    pub resumes: u64,
    pub resumes_refused: u64,
    pub heartbeats: u64,
    /// Sessions with a live connection.
    pub connected: u64,
    /// The last presence that the bot has set.
    pub presence: Value,
}

/// Something that Discord would have refused, or that the stand-in cannot do.
#[derive(Clone, Debug, Deserialize)]
pub struct Violation {
    #[serde(rename = "where")]
    pub place: String,
    pub what: String,
}

/// What happens to the next requests of a route. `path` is a glob without `/api/v10`.
pub enum Fault {
    /// 429, to be retried after so many seconds.
    RateLimit { retry_after_s: f64 },
    /// An error of Discord's.
    Error { status: u16, code: u32 },
    /// The connection ends without an answer, and nothing has happened.
    Reset,
    /// It has happened, and the connection ends without an answer.
    LostAnswer,
    /// The answer comes after so many seconds.
    Hang { seconds: f64 },
}

/// How Discord is down.
#[derive(Clone, Copy)]
pub enum Outage {
    /// Every connection ends at once, REST and gateway.
    Reset,
    /// REST says 503, the gateway lets nobody in.
    Unavailable,
    Over,
}

/// Something that happens to the gateway's connections.
pub enum Cut {
    /// TCP ends without a word.
    Abort,
    /// A close frame with this code.
    Close(u16),
    /// Opcode 7.
    Reconnect,
    /// Opcode 9.
    Invalidate { resumable: bool },
}

/// Nobody in Discord's client could have done this, with the reason; or a wait ran out.
#[derive(Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Discord {
    /// Starts a stand-in with one guild, e.g. `json!({"channels": ["general"], "users": [{"name": "alice", "roles":
    /// ["players"]}], "roles": [{"name": "players"}]})`; see `World.build` in tests/discord/world.py for all it takes.
    /// `None`: this machine has no Python, which is a printed skip, or an error when `CI=true`.
    pub async fn start(world: Value) -> Option<Self> {
        Self::start_with(world, &[]).await
    }

    /// The same with more arguments for standin.py.
    pub async fn start_with(world: Value, arguments: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made =
            Command::new(root.join("scripts/lib/python-env")).arg("discord").output().expect("running python-env");
        if made.status.code() == Some(TOOL_MISSING) {
            let reason = String::from_utf8_lossy(&made.stderr).trim().to_owned();
            assert!(!is_ci(), "{reason}");
            println!("skipped: {reason}");
            return None;
        }
        assert!(made.status.success(), "python-env: {}", String::from_utf8_lossy(&made.stderr));
        let python = String::from_utf8(made.stdout).expect("a path of ASCII");

        let mut child = Command::new(python.trim())
            .arg(root.join("tests/discord/standin.py"))
            // The stand-in must not outlive a test that was killed.
            .args(["--until-stdin-closes", "--world", &world.to_string()])
            .args(arguments)
            // No __pycache__ in the source tree.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting the stand-in");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it was piped"))
            .read_line(&mut line)
            .expect("reading its first line");
        let info: Info = serde_json::from_str(&line).unwrap_or_else(|_| {
            child.kill().ok();
            panic!("the stand-in said {line:?} instead of where it listens; its errors are above")
        });
        if !info.openapi {
            let what = "requests against Discord's OpenAPI (SPAWNPOINT_SPECS names no folder)";
            assert!(!is_ci(), "not checked: {what}");
            println!("skipped: checking {what}");
        }
        let control = reqwest::Client::builder().no_proxy().timeout(CONTROL_TIMEOUT).build().expect("an HTTP client");
        Some(Self { child, info, control })
    }

    /// Its process, to measure it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the bot takes for `https://discord.com`.
    pub fn api_url(&self) -> &str {
        &self.info.api_url
    }

    pub fn token(&self) -> &str {
        &self.info.token
    }

    pub fn application_id(&self) -> u64 {
        self.info.application_id.parse().expect("a snowflake")
    }

    /// The channel as a web page, for a browser or a picture. `?theme=dark` and `?as=alice` may be added.
    pub fn page_url(&self, channel: &str) -> String {
        format!("{}/channels/{channel}", self.info.control_url)
    }

    // ------------------------------------------------------------------ people

    /// Somebody whom the world was started with.
    pub fn user(&self, name: &str) -> User {
        User { name: name.to_owned() }
    }

    /// Somebody joins the guild, e.g. `json!({"name": "bob", "roles": ["admins"], "permissions": ["manage_guild"]})`.
    pub async fn join(&self, person: Value) -> User {
        let name = person["name"].as_str().expect("a name").to_owned();
        self.ask::<Value>("join", person).await.unwrap_or_else(|e| panic!("{e}"));
        User { name }
    }

    /// Types a command as one would: `/server start server:world`; a value that holds a colon or a line break is quoted.
    /// Waits for the bot to be there and to know the command, then for its first answer.
    pub async fn slash(&self, user: &User, channel: &str, line: &str) -> Answer {
        self.try_slash(user, channel, line).await.unwrap_or_else(|e| panic!("{}: {line}: {e}", user.name))
    }

    /// The same; refused where Discord's client would not have let this person do it.
    pub async fn try_slash(&self, user: &User, channel: &str, line: &str) -> Result<Answer, Refused> {
        let (path, options) = parse_slash(line)?;
        let options: Map<String, Value> = options.into_iter().map(|(name, value)| (name, value.into())).collect();
        self.ask("slash", json!({"user": user.name, "channel": channel, "path": path, "options": options})).await
    }

    /// Types a command while the bot is away: the interaction waits for it, as Discord's do, for three seconds.
    pub async fn slash_while_offline(&self, user: &User, channel: &str, line: &str) -> Result<Answer, Refused> {
        let (path, options) = parse_slash(line)?;
        let options: Map<String, Value> = options.into_iter().map(|(name, value)| (name, value.into())).collect();
        let asked =
            json!({"user": user.name, "channel": channel, "path": path, "options": options, "even_offline": true});
        self.ask("slash", asked).await
    }

    /// The choices that pop up while the last option of `line` is typed.
    pub async fn autocomplete(&self, user: &User, channel: &str, line: &str) -> Vec<String> {
        let (path, mut options) = parse_slash(line).unwrap_or_else(|e| panic!("{e}"));
        let (option, value) = options.pop().unwrap_or_else(|| panic!("{line}: no option to complete"));
        let options: Map<String, Value> = options.into_iter().map(|(name, value)| (name, value.into())).collect();
        let asked = json!({"user": user.name, "channel": channel, "path": path, "options": options, "option": option,
            "value": value});
        let answer: Answer = self.ask("autocomplete", asked).await.unwrap_or_else(|e| panic!("{line}: {e}"));
        let choices = answer.choices.unwrap_or_else(|| panic!("{line}: the bot offered nothing"));
        choices.into_iter().map(|choice| choice.name).collect()
    }

    /// Clicks the button with this label on the newest message that has one.
    pub async fn click(&self, user: &User, channel: &str, label: &str) -> Answer {
        self.try_click(user, channel, label).await.unwrap_or_else(|e| panic!("{}: [{label}]: {e}", user.name))
    }

    pub async fn try_click(&self, user: &User, channel: &str, label: &str) -> Result<Answer, Refused> {
        self.ask("click", json!({"user": user.name, "channel": channel, "label": label})).await
    }

    /// Clicks a button of one message by its custom_id.
    pub async fn click_on(
        &self,
        user: &User,
        channel: &str,
        message: &str,
        custom_id: &str,
    ) -> Result<Answer, Refused> {
        let asked = json!({"user": user.name, "channel": channel, "message": message, "custom_id": custom_id});
        self.ask("click", asked).await
    }

    /// Chooses in the newest select menu with this custom_id: labels, or names of users, roles or channels.
    pub async fn select(
        &self,
        user: &User,
        channel: &str,
        custom_id: &str,
        values: &[&str],
    ) -> Result<Answer, Refused> {
        let asked = json!({"user": user.name, "channel": channel, "custom_id": custom_id, "values": values});
        self.ask("select", asked).await
    }

    /// Fills in the form that `opened` is, by the fields' labels, and sends it. Fields left out keep what stands in them.
    pub async fn modal(&self, opened: &Answer, fields: &[(&str, &str)]) -> Answer {
        self.try_modal(opened, fields).await.unwrap_or_else(|e| panic!("{e}"))
    }

    pub async fn try_modal(&self, opened: &Answer, fields: &[(&str, &str)]) -> Result<Answer, Refused> {
        let values: Map<String, Value> = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        self.ask("submit_modal", json!({"interaction": opened.interaction, "values": values})).await
    }

    /// Writes an ordinary message; returns its id.
    pub async fn say(&self, user: &User, channel: &str, content: &str) -> String {
        let asked = json!({"user": user.name, "channel": channel, "content": content});
        let said: Value = self.ask("say", asked).await.unwrap_or_else(|e| panic!("{e}"));
        said["message"].as_str().expect("an id").to_owned()
    }

    /// A moderator deletes a message.
    pub async fn delete_message(&self, channel: &str, message: &str) {
        self.tell("delete", json!({"channel": channel, "message": message})).await;
    }

    /// A moderator deletes a channel with all that stands in it.
    pub async fn delete_channel(&self, channel: &str) {
        self.tell("delete_channel", json!({"channel": channel})).await;
    }

    /// Replaces what the bot is denied in a channel, by discord.py's names: `view_channel`, `send_messages`, ….
    pub async fn deny_bot(&self, channel: &str, permissions: &[&str]) {
        self.tell("deny", json!({"channel": channel, "permissions": permissions})).await;
    }

    /// What a kick does, also to a bot that is invited again while it does not run: its commands are gone.
    pub async fn forget_commands(&self) {
        self.tell("forget_commands", json!({})).await;
    }

    // ------------------------------------------------------------------ reading

    /// What everybody sees in a channel, with what differs from run to run redacted.
    pub async fn channel_text(&self, channel: &str) -> String {
        self.text(json!({"channel": channel})).await
    }

    /// The same with what only this person sees.
    pub async fn channel_text_for(&self, user: &User, channel: &str) -> String {
        self.text(json!({"channel": channel, "as": user.name})).await
    }

    async fn text(&self, asked: Value) -> String {
        let shown: Value = self.ask("text", asked).await.unwrap_or_else(|e| panic!("{e}"));
        redact(shown["text"].as_str().expect("text"))
    }

    /// A channel's messages that everybody sees, oldest first.
    pub async fn messages(&self, channel: &str) -> Vec<Message> {
        self.ask("messages", json!({"channel": channel})).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits for a message whose text (as in `channel_text`, not redacted) matches; `.` matches line breaks too.
    pub async fn wait_for(&self, channel: &str, regex: &str) -> Message {
        let found = self.ask("wait", json!({"channel": channel, "regex": regex, "deadline_s": 30})).await;
        found.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The same with what only this person sees.
    pub async fn wait_for_as(&self, user: &User, channel: &str, regex: &str) -> Message {
        let asked = json!({"channel": channel, "as": user.name, "regex": regex, "deadline_s": 30});
        self.ask("wait", asked).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until a deferred answer has become a message.
    pub async fn finished(&self, answer: &Answer) -> Answer {
        let asked = json!({"interaction": answer.interaction, "deadline_s": 30});
        self.ask("wait", asked).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until the gateway's counters are at least these, e.g. `json!({"resumes": 1, "connected": 1})`.
    pub async fn wait_gateway(&self, at_least: Value) -> Gateway {
        let mut asked = at_least;
        asked["deadline_s"] = 60.into();
        self.ask("wait", asked).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until the bot shows a presence whose JSON matches.
    pub async fn wait_presence(&self, regex: &str) {
        self.tell("wait", json!({"presence": regex, "deadline_s": 30})).await;
    }

    /// Whether the gateway's counters stay below one of these for so long.
    pub async fn never_in(&self, time: Duration, counters: Value) -> bool {
        let mut asked = counters;
        asked["deadline_s"] = time.as_secs_f64().into();
        self.ask::<Gateway>("wait", asked).await.is_err()
    }

    pub async fn gateway(&self) -> Gateway {
        self.ask("state", json!({})).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// What the bot has sent to a route; both may hold `*`.
    pub async fn requests(&self, method: &str, path: &str) -> Vec<Request> {
        self.ask("requests", json!({"method": method, "path": path})).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until the bot has sent so many requests to a route.
    pub async fn wait_requests(&self, method: &str, path: &str, count: usize) -> Vec<Request> {
        let asked = json!({"method": method, "path": path, "requests": count, "deadline_s": 30});
        self.ask("wait", asked).await.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The violations so far; they no longer fail the test.
    pub async fn take_violations(&self) -> Vec<Violation> {
        let taken: Value = self.ask("violations", json!({"take": true})).await.unwrap_or_else(|e| panic!("{e}"));
        serde_json::from_value(taken["violations"].clone()).expect("violations")
    }

    /// Whether requests are checked against Discord's OpenAPI.
    pub fn checks_openapi(&self) -> bool {
        self.info.openapi
    }

    // ----------------------------------------------------------------- breaking

    /// Moves the stand-in's clock. Interactions die after 15 minutes.
    pub async fn advance(&self, by: Duration) {
        self.tell("clock", json!({"advance_s": by.as_secs_f64()})).await;
    }

    /// The next `times` requests of a route fail.
    pub async fn fault(&self, method: &str, path: &str, times: u32, fault: Fault) {
        let mut asked = match fault {
            Fault::RateLimit { retry_after_s } => json!({"do": "rate_limit", "retry_after": retry_after_s}),
            Fault::Error { status, code } => json!({"do": "error", "status": status, "code": code}),
            Fault::Reset => json!({"do": "reset"}),
            Fault::LostAnswer => json!({"do": "lost_answer"}),
            Fault::Hang { seconds } => json!({"do": "hang", "seconds": seconds}),
        };
        asked["method"] = method.into();
        asked["path"] = path.into();
        asked["times"] = times.into();
        self.tell("fault", asked).await;
    }

    /// From now on a route takes so many requests per channel in so much time, and says 429 to more.
    pub async fn limit(&self, method: &str, path: &str, requests: u32, per: Duration) {
        let asked = json!({"method": method, "path": path, "limit": requests, "per_s": per.as_secs_f64()});
        self.tell("limit", asked).await;
    }

    pub async fn outage(&self, outage: Outage) {
        let how = match outage {
            Outage::Reset => json!("reset"),
            Outage::Unavailable => json!("unavailable"),
            Outage::Over => Value::Null,
        };
        self.tell("outage", json!({ "how": how })).await;
    }

    /// Something happens to the bot's connection.
    pub async fn drop_gateway(&self, how: Cut) {
        let asked = match how {
            Cut::Abort => json!({"do": "abort"}),
            Cut::Close(code) => json!({"do": "close", "code": code}),
            Cut::Reconnect => json!({"do": "reconnect"}),
            Cut::Invalidate { resumable } => json!({"do": "invalidate", "resumable": resumable}),
        };
        self.tell("gateway", asked).await;
    }

    /// The next `times` RESUMEs are answered with "invalid session".
    pub async fn refuse_resumes(&self, times: u32) {
        self.tell("gateway", json!({ "refuse_resumes": times })).await;
    }

    /// Sends an event of any form, also of one that Discord does not have yet.
    pub async fn dispatch(&self, event: &str, payload: Value) {
        self.tell("gateway", json!({"do": "dispatch", "event": event, "payload": payload})).await;
    }

    /// Says anything at all on the gateway.
    pub async fn say_on_gateway(&self, text: &str) {
        self.tell("gateway", json!({"do": "say", "text": text})).await;
    }

    /// Every connection is closed with this code as soon as it is whole, and its session forgotten.
    pub async fn close_after_ready(&self, code: u16) {
        self.tell("gateway", json!({ "close_after_ready": code })).await;
    }

    /// The bot may identify so often until the reset, and 1000 times a day after it. One time more fails the test.
    pub async fn session_starts(&self, remaining: u32, reset_after: Duration) {
        let asked = json!({"do": "session_starts", "remaining": remaining, "reset_after_s": reset_after.as_secs_f64()});
        self.tell("gateway", asked).await;
    }

    /// Heartbeats are no longer acknowledged (or are again).
    pub async fn withhold_acks(&self, withhold: bool) {
        self.tell("gateway", json!({ "withhold_acks": withhold })).await;
    }

    /// Connections are made and kept, but who identifies or resumes is not answered (or is again).
    pub async fn silence(&self, silent: bool) {
        self.tell("gateway", json!({ "silent": silent })).await;
    }

    /// The interval that the next connection is told to beat in.
    pub async fn heartbeat(&self, interval: Duration) {
        let ms = u64::try_from(interval.as_millis()).expect("a short time");
        self.tell("gateway", json!({ "heartbeat_ms": ms })).await;
    }

    // ---------------------------------------------------------------- transport

    async fn tell(&self, what: &str, body: Value) {
        self.ask::<Value>(what, body).await.unwrap_or_else(|e| panic!("{what}: {e}"));
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, body: Value) -> Result<T, Refused> {
        let url = format!("{}/{what}", self.info.control_url);
        let answer = self.control.post(url).body(body.to_string()).send().await.expect("the stand-in is there");
        let status = answer.status();
        let text = answer.text().await.expect("the stand-in is there");
        if !status.is_success() {
            let said = serde_json::from_str::<Value>(&text).ok().and_then(|v| v["error"].as_str().map(str::to_owned));
            return Err(Refused(said.unwrap_or(text)));
        }
        Ok(serde_json::from_str(&text).unwrap_or_else(|e| panic!("{what}: {e} in {text}")))
    }

    /// Without a runtime, for `drop`.
    fn violations_now(&self) -> std::io::Result<Vec<Violation>> {
        let host = self.info.control_url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "POST /violations HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let said: Value = serde_json::from_str(body)?;
        Ok(serde_json::from_value(said["violations"].clone())?)
    }
}

impl Drop for Discord {
    fn drop(&mut self) {
        let violations = self.violations_now();
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            return;
        }
        let violations = violations.expect("asking the stand-in for violations");
        let list: Vec<String> = violations.iter().map(|v| format!("  {}: {}", v.place, v.what)).collect();
        assert!(list.is_empty(), "Discord would not have taken this:\n{}", list.join("\n"));
    }
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
