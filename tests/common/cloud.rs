//! Four clouds that are not the companies', for tests: starts `tests/cloud/standin.py`, where hosts are containers that
//! boot with the real cloud-init and answer with the real sshd. The other side is `tests/cloud/control.py`.
//!
//! A client gets `clouds.url("hetzner")` as its base URL, and any token but `wrong`. When a `Clouds` is dropped, its
//! machines go, and the test fails if a request or an answer did not keep to the provider's own description.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Longer than anything that the control side waits for.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);
/// For removing every machine at the end.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a boot takes on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What `scripts/lib/python-env` exits with when Python itself is missing.
const TOOL_MISSING: i32 = 69;

/// A running stand-in.
pub struct Clouds {
    child: Child,
    /// `127.0.0.1:PORT`
    address: String,
    violations_expected: bool,
}

/// What hosts are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Machines {
    /// Containers with cloud-init, sshd, and an address of 127.0.0.0/8 each.
    #[default]
    Docker,
    /// The same with systemd as process 1.
    Systemd,
    /// Nothing: a host takes one step of its life each time that it is looked at.
    None,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub machines: Machines,
    /// The ports that hosts can be reached on besides SSH, as `3979/udp`; empty: those of the toy and of three games.
    pub publish: Vec<String>,
}

/// How the next requests fail; see `tests/cloud/faults.py`. Made by the functions of the same names, narrowed by `of`,
/// `on`, `times`, `after`.
#[derive(Clone, Debug)]
pub struct Failure(Value);

/// A host as the stand-in knows it, also after its end.
#[derive(Clone, Debug, Deserialize)]
pub struct StandinHost {
    pub provider: String,
    pub id: String,
    pub name: String,
    /// `provisioning`, `booting`, `running`, `off`, `leaving`, `gone`
    pub phase: String,
    pub address: IpAddr,
    /// The container that it is.
    pub container: Option<String>,
    pub tags: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub region: String,
    pub size: String,
    pub image: String,
    pub firewall: Option<String>,
    pub created: String,
    pub deleted: Option<String>,
    /// Why its machine did not come up.
    pub trouble: Option<String>,
}

/// A firewall, key, volume or address.
#[derive(Clone, Debug, Deserialize)]
pub struct Thing {
    pub provider: String,
    pub kind: String,
    pub id: String,
    pub name: String,
    pub tags: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub data: Value,
    /// What a firewall lets in, as `27100/udp`; `all/udp` where every port is open.
    #[serde(default)]
    pub open: Vec<String>,
}

/// A request that a provider has got.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    pub provider: String,
    pub method: String,
    pub path: String,
    pub status: Option<u16>,
    /// The kind of failure that struck it.
    pub failure: Option<String>,
}

/// What did not keep to a provider's description.
#[derive(Clone, Debug, Deserialize)]
pub struct Violation {
    pub provider: String,
    #[serde(rename = "where")]
    pub place: String,
    pub what: String,
}

impl Clouds {
    /// `None`, and a line that says so, where Python or Docker is missing; in CI that is a failure.
    pub fn start(options: &Options) -> Option<Clouds> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = python(root)?;
        let mut command = Command::new(python);
        command.arg(root.join("tests/cloud/standin.py"));
        let image = match options.machines {
            Machines::Docker => Some("host"),
            Machines::Systemd => {
                command.args(["--init", "systemd"]);
                Some("host-systemd")
            }
            Machines::None => {
                command.args(["--mode", "none"]);
                None
            }
        };
        if let Some(image) = image {
            let made = Command::new("docker").arg("info").output();
            if !made.is_ok_and(|made| made.status.success()) {
                assert!(!is_ci(), "no Docker daemon answers");
                println!("skipped: no Docker daemon answers");
                return None;
            }
            let made =
                Command::new(root.join("scripts/lib/test-images")).arg(image).output().expect("running test-images");
            assert!(made.status.success(), "making the image {image}: {}", String::from_utf8_lossy(&made.stderr));
        }
        if !options.publish.is_empty() {
            command.args(["--publish", &format!("22/tcp,{}", options.publish.join(","))]);
        }
        if std::env::var_os("SPAWNPOINT_SPECS").is_none_or(|folder| folder.is_empty()) {
            let what = "requests against the providers' descriptions (SPAWNPOINT_SPECS names no folder)";
            assert!(!is_ci(), "not checked: {what}");
            println!("skipped: checking {what}");
        }
        let mut child = command
            // The stand-in must not outlive a test that was killed.
            .arg("--until-stdin-closes")
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
        let Some(address) = line.trim().strip_prefix("listening http://") else {
            child.kill().ok();
            panic!("the stand-in said {line:?} instead of where it listens; its errors are above")
        };
        Some(Clouds { address: address.to_owned(), child, violations_expected: false })
    }

    /// What a client takes for `https://api.linode.com/v4` and the like. Providers: `linode`, `hetzner`,
    /// `digitalocean`, `vultr`.
    pub fn url(&self, provider: &str) -> String {
        format!("http://{}/{provider}", self.address)
    }

    /// From now on, until it has struck as often as it says.
    pub fn fail(&self, failure: Failure) {
        let _: Value = self.control("POST", "fail", Some(&failure.0));
    }

    /// No more failures, and what was to come late comes now.
    pub fn heal(&self) {
        let _: Value = self.control("DELETE", "fail", None);
    }

    /// Every host that ever was.
    pub fn hosts(&self) -> Vec<StandinHost> {
        self.control("GET", "hosts", None)
    }

    /// Hosts that a provider would bill now.
    pub fn living(&self) -> Vec<StandinHost> {
        self.hosts().into_iter().filter(|host| host.phase != "gone").collect()
    }

    pub fn host(&self, id: &str) -> StandinHost {
        self.hosts().into_iter().find(|host| host.id == id).unwrap_or_else(|| panic!("there was never a host {id}"))
    }

    /// Waits until this host's machine has booted.
    pub fn booted(&self, id: &str) -> StandinHost {
        let deadline = Instant::now() + BOOT_TIMEOUT;
        loop {
            let host = self.host(id);
            assert!(host.trouble.is_none(), "{host:#?}");
            if host.phase == "running" {
                return host;
            }
            assert!(Instant::now() < deadline, "it does not boot: {host:#?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Firewalls, keys, volumes and addresses that exist.
    pub fn things(&self) -> Vec<Thing> {
        self.control("GET", "things", None)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.control("GET", "requests", None)
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.control("GET", "violations", None)
    }

    /// This test makes some, and looks at them itself.
    pub fn expect_violations(&mut self) {
        self.violations_expected = true;
    }

    /// A host that nobody has asked for, without a machine. Hetzner has labels, the others have tags.
    pub fn plant(&self, provider: &str, name: &str, tags: &[&str], labels: &[(&str, &str)]) -> StandinHost {
        self.control("POST", "hosts", Some(&planted(provider, "host", name, tags, labels)))
    }

    /// The same for a `firewall`, `ssh_key`, `volume` or (Hetzner's) `primary_ip`.
    pub fn plant_thing(&self, provider: &str, kind: &str, name: &str, tags: &[&str], labels: &[(&str, &str)]) -> Thing {
        self.control("POST", "hosts", Some(&planted(provider, kind, name, tags, labels)))
    }

    /// Its machine ends without a word. `shown`: what the provider says of it afterwards: `off`, `running`, or `gone`.
    pub fn die(&self, id: &str, shown: &str) -> StandinHost {
        self.control("POST", &format!("hosts/{id}/die"), Some(&json!({ "shown": shown })))
    }

    fn control<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<&Value>) -> T {
        let (status, answer) = self.ask(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(status == 200, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{method} {path}: {error} in {answer}"))
    }

    /// Without a client and its runtime, so that `drop` can ask as well.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(CONTROL_TIMEOUT))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(stream, "{method} /_control/{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let strange = || std::io::Error::other(format!("a strange answer: {answer:?}"));
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(strange)?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(strange)?;
        Ok((status, body.to_owned()))
    }
}

impl Failure {
    fn kind(kind: &str) -> Failure {
        Failure(json!({ "kind": kind }))
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Failure {
        self.0[key] = value.into();
        self
    }

    /// It does its work so much later.
    pub fn slow(by: Duration) -> Failure {
        Failure::kind("slow").with("seconds", by.as_secs_f64())
    }

    /// Nothing is done, and this status is answered, with an error in the provider's own form.
    pub fn status(code: u16) -> Failure {
        Failure::kind("status").with("code", code)
    }

    /// Nothing is done, and something in front of the provider answers with this status, and with no body but the one of
    /// `body`. This alone is not held against the provider's description.
    pub fn proxy(code: u16) -> Failure {
        Failure::kind("proxy").with("code", code)
    }

    /// The connection breaks and nothing was done.
    pub fn drop_before() -> Failure {
        Failure::kind("drop_before")
    }

    /// The connection breaks, and the work is done when all is healed.
    pub fn late() -> Failure {
        Failure::kind("late")
    }

    /// The work is done and the connection breaks instead of an answer.
    pub fn drop_after() -> Failure {
        Failure::kind("drop_after")
    }

    /// This size cannot be had here now.
    pub fn capacity() -> Failure {
        Failure::kind("capacity")
    }

    /// The account may not have more.
    pub fn quota() -> Failure {
        Failure::kind("quota")
    }

    /// Something else is done with it at this moment.
    pub fn pending() -> Failure {
        Failure::kind("pending")
    }

    /// The token lacks a right.
    pub fn denied() -> Failure {
        Failure::kind("denied")
    }

    /// A delete is accepted, and the host is still shown so many times; `None`: for ever.
    pub fn half_delete(polls: Option<u32>) -> Failure {
        Failure::kind("half_delete").with("polls", polls).on("DELETE", "^/(linode/)?(instances|servers|droplets)/")
    }

    /// Lists go on to show hosts that are gone, as if they ran, until `heal`.
    pub fn stale_list() -> Failure {
        Failure::kind("stale_list").on("GET", "^/(linode/)?(instances|servers|droplets)$").times(None)
    }

    /// Only this provider.
    pub fn of(self, provider: &str) -> Failure {
        self.with("provider", provider)
    }

    /// Only this method, on paths (without the provider) that this regular expression is found in.
    pub fn on(self, method: &str, path_regex: &str) -> Failure {
        self.with("method", method).with("path_regex", path_regex)
    }

    /// How often it strikes; without this once, with `None` until `heal`.
    pub fn times(self, times: Option<u32>) -> Failure {
        self.with("times", times)
    }

    /// So many matching requests pass unharmed first.
    pub fn after(self, passed: u32) -> Failure {
        self.with("after", passed)
    }

    /// A header of the answer: `Retry-After`.
    pub fn header(mut self, name: &str, value: &str) -> Failure {
        self.0["headers"][name] = value.into();
        self
    }

    /// What `status` or `proxy` says.
    pub fn body(self, body: Value) -> Failure {
        self.with("body", body)
    }
}

impl Drop for Clouds {
    fn drop(&mut self) {
        let violations = self.ask("GET", "violations", None);
        // It removes its machines when its standard input ends.
        drop(self.child.stdin.take());
        let deadline = Instant::now() + END_TIMEOUT;
        let mut ended = false;
        while !ended && Instant::now() < deadline {
            ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            if !ended {
                std::thread::sleep(LOOK_EVERY / 4);
            }
        }
        if !ended {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            return;
        }
        assert!(ended, "the stand-in did not end; `standin.py --reap` removes what it has left");
        let (_, violations) = violations.expect("asking the stand-in for violations");
        let violations: Vec<Violation> = serde_json::from_str(&violations).expect("a list of violations");
        let list: Vec<String> =
            violations.iter().map(|v| format!("  {}: {}: {}", v.provider, v.place, v.what)).collect();
        assert!(self.violations_expected || list.is_empty(), "this is not in the descriptions:\n{}", list.join("\n"));
    }
}

fn planted(provider: &str, kind: &str, name: &str, tags: &[&str], labels: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<String, Value> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    json!({ "provider": provider, "kind": kind, "name": name, "tags": tags, "labels": labels })
}

fn python(root: &Path) -> Option<String> {
    let made = Command::new(root.join("scripts/lib/python-env")).arg("cloud").output().expect("running python-env");
    if made.status.code() == Some(TOOL_MISSING) {
        let reason = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        assert!(!is_ci(), "{reason}");
        println!("skipped: {reason}");
        return None;
    }
    assert!(made.status.success(), "python-env: {}", String::from_utf8_lossy(&made.stderr));
    Some(String::from_utf8(made.stdout).expect("a path of ASCII").trim().to_owned())
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
