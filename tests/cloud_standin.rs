//! Proves the stand-in clouds, so that other tests may trust them. What is claimed here is how providers behave, not how
//! Spawnpoint does: requests are written by hand, each in its provider's own words.

mod common {
    pub mod cloud;
}

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use common::cloud::{Clouds, Failure, Machines, Options};
use serde_json::{Value, json};

const PROVIDERS: [&str; 4] = ["linode", "hetzner", "digitalocean", "vultr"];
const PATIENCE: Duration = Duration::from_secs(60);

/// One provider as `curl` would see it.
struct Client {
    http: reqwest::Client,
    provider: &'static str,
    base: String,
}

impl Client {
    fn new(clouds: &Clouds, provider: &'static str, token: &str) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let http = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        Client { http, provider, base: clouds.url(provider) }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> reqwest::Result<(u16, Value)> {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let text = answer.text().await?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok((status, body))
    }

    fn hosts_path(&self) -> &'static str {
        match self.provider {
            "linode" => "/linode/instances",
            "hetzner" => "/servers",
            "digitalocean" => "/droplets",
            _ => "/instances",
        }
    }

    fn wish(&self, name: &str, user_data: &str) -> Value {
        match self.provider {
            "linode" => json!({
                "label": name, "region": "eu-central", "type": "g6-nanode-1", "image": "linode/debian12",
                "root_pass": "not used by anybody", "tags": ["story"],
                "metadata": { "user_data": STANDARD.encode(user_data) },
            }),
            "hetzner" => json!({
                "name": name, "location": "fsn1", "server_type": "cx23", "image": "debian-12",
                "labels": { "story": "yes" }, "user_data": user_data,
            }),
            "digitalocean" => json!({
                "name": name, "region": "fra1", "size": "s-1vcpu-1gb", "image": "debian-12-x64", "tags": ["story"],
                "user_data": user_data,
            }),
            _ => json!({
                "label": name, "region": "fra", "plan": "vc2-1c-1gb", "os_id": 2136, "tags": ["story"],
                "user_data": STANDARD.encode(user_data),
            }),
        }
    }

    async fn create(&self, name: &str, user_data: &str) -> String {
        let (status, answer) = self.ask("POST", self.hosts_path(), Some(&self.wish(name, user_data))).await.unwrap();
        assert!((200..300).contains(&status), "{status} {answer}");
        let host = ["server", "droplet", "instance"].iter().find_map(|key| answer.get(key)).unwrap_or(&answer);
        host["id"].as_str().map_or_else(|| host["id"].to_string(), str::to_owned)
    }

    async fn list(&self) -> Vec<Value> {
        let (status, answer) = self.ask("GET", self.hosts_path(), None).await.unwrap();
        assert_eq!(status, 200, "{answer}");
        let rows = ["data", "servers", "droplets", "instances"].iter().find_map(|key| answer.get(key)).unwrap();
        rows.as_array().unwrap().clone()
    }

    async fn view(&self, id: &str) -> (u16, Value) {
        self.ask("GET", &format!("{}/{id}", self.hosts_path()), None).await.unwrap()
    }

    async fn delete(&self, id: &str) {
        let (status, answer) = self.ask("DELETE", &format!("{}/{id}", self.hosts_path()), None).await.unwrap();
        assert!((200..300).contains(&status), "{status} {answer}");
    }

    async fn until_gone(&self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.view(id).await.0 != 404 {
            assert!(Instant::now() < deadline, "{} {id} stays", self.provider);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn without_machines() -> Option<Clouds> {
    Clouds::start(&Options { machines: Machines::None, ..Options::default() })
}

/// A fresh key pair: the private one, and the public one as `ssh-ed25519 AAAA…`.
fn key(folder: &Path, name: &str) -> (String, String) {
    let file = folder.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let public = std::fs::read_to_string(file.with_extension("pub")).unwrap();
    (std::fs::read_to_string(&file).unwrap(), public.trim().to_owned())
}

fn ssh(folder: &Path, address: &str, host_key: &str, command: &str) -> Output {
    let known = folder.join("known_hosts");
    std::fs::write(&known, format!("{address} {host_key}\n")).unwrap();
    Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "GlobalKnownHostsFile=none",
        ])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known.display()))
        .arg("-i")
        .arg(folder.join("ours"))
        .args([&format!("root@{address}"), command])
        .output()
        .unwrap()
}

async fn a_host_boots(machines: Machines, provider: &'static str, command: &str) {
    let Some(clouds) = Clouds::start(&Options { machines, ..Options::default() }) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (host_private, host_public) = key(folder.path(), "host");
    let (_, ours) = key(folder.path(), "ours");
    let (_, other) = key(folder.path(), "other");
    let config = json!({
        "ssh_keys": { "ed25519_private": host_private, "ed25519_public": host_public },
        "ssh_authorized_keys": [ours],
        "write_files": [{ "path": "/etc/story", "content": "once upon a time" }],
        "runcmd": [["mkfifo", "/run/told"], "echo told > /run/told"],
    });
    let client = Client::new(&clouds, provider, "any");
    let id = client.create("story-1", &format!("#cloud-config\n{config}")).await;
    let host = clouds.booted(&id);
    let address = host.address.to_string();

    let said = ssh(folder.path(), &address, &host_public, command);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "once upon a time\ntold\n", "{said:?}");
    let refused = ssh(folder.path(), &address, &other, "true");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Host key verification failed"), "{refused:?}");

    client.delete(&id).await;
    client.until_gone(&id).await;
    let container = host.container.unwrap();
    let left = Command::new("docker").args(["inspect", &container]).output().unwrap();
    assert!(!left.status.success(), "the container is still there: {left:?}");
}

/// Reading the pipe waits until cloud-init has come to `runcmd`.
const READ_WHAT_CLOUD_INIT_DID: &str = "cat /etc/story && echo && while [ ! -p /run/told ]; do sleep 0.1; done && cat /run/told && nft add table inet mine";

#[tokio::test]
async fn a_host_boots_as_its_user_data_says_and_proves_itself_by_its_host_key() {
    a_host_boots(Machines::Docker, "linode", READ_WHAT_CLOUD_INIT_DID).await;
}

#[tokio::test]
async fn a_host_with_systemd_boots_the_same_way() {
    let command = format!("{READ_WHAT_CLOUD_INIT_DID} && systemctl is-active --quiet ssh");
    a_host_boots(Machines::Systemd, "vultr", &command).await;
}

/// Both say so of a host that is made without a key that they know (matrix-os#1049, machine-controller#191 and doctl#840
/// on GitHub).
#[tokio::test]
async fn a_host_that_was_given_a_password_lets_a_key_in_and_runs_nothing() {
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (host_private, host_public) = key(folder.path(), "host");
    let (_, ours) = key(folder.path(), "ours");
    let config = json!({
        "ssh_keys": { "ed25519_private": host_private, "ed25519_public": host_public },
        "ssh_authorized_keys": [ours],
    });
    for provider in ["hetzner", "digitalocean"] {
        let client = Client::new(&clouds, provider, "any");
        let id = client.create("story-1", &format!("#cloud-config\n{config}")).await;
        let address = clouds.booted(&id).address.to_string();
        let said = ssh(folder.path(), &address, &host_public, "echo here");
        let told = String::from_utf8_lossy(&said.stderr);
        assert!(!said.status.success() && told.contains("Password change required"), "{provider}: {said:?}");
        assert_eq!(said.stdout, b"", "{provider}");
        client.delete(&id).await;
        client.until_gone(&id).await;
    }
}

#[tokio::test]
async fn a_host_can_be_lost_without_a_word() {
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let client = Client::new(&clouds, "linode", "any");
    let id = client.create("story-1", "#cloud-config\n{}").await;
    let host = clouds.booted(&id);
    assert_eq!(clouds.die(&id, "off").phase, "off");
    assert_eq!(client.view(&id).await.1["status"], "offline");
    let connected = std::net::TcpStream::connect_timeout(&(host.address, 22).into(), Duration::from_secs(1));
    assert!(connected.is_err(), "its port still answers");
}

#[tokio::test]
async fn a_firewall_lets_in_what_it_says_and_nothing_else() {
    let options = Options { publish: vec!["27100/tcp".into(), "27101/tcp".into()], ..Options::default() };
    let Some(clouds) = Clouds::start(&options) else { return };
    let client = Client::new(&clouds, "vultr", "any");
    let (_, group) = client.ask("POST", "/firewalls", Some(&json!({ "description": "story" }))).await.unwrap();
    let group = group["firewall_group"]["id"].as_str().unwrap().to_owned();
    for port in ["22", "27100"] {
        let rule = json!({ "ip_type": "v4", "protocol": "tcp", "subnet": "0.0.0.0", "subnet_size": 0, "port": port });
        assert_eq!(client.ask("POST", &format!("/firewalls/{group}/rules"), Some(&rule)).await.unwrap().0, 201);
    }
    let mut wish = client.wish("story-1", "#cloud-config\n{}");
    wish["firewall_group_id"] = group.into();
    let (_, made) = client.ask("POST", "/instances", Some(&wish)).await.unwrap();
    let host = clouds.booted(made["instance"]["id"].as_str().unwrap());
    let open =
        |port: u16| std::net::TcpStream::connect_timeout(&(host.address, port).into(), Duration::from_secs(1)).is_ok();
    assert_eq!([22, 27100, 27101].map(open), [true, true, false]);
}

#[tokio::test]
async fn every_provider_shows_the_life_of_a_host_in_its_own_words() {
    let Some(clouds) = without_machines() else { return };
    let mut told = String::new();
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        let id = client.create("story-1", "#cloud-config\n{}").await;
        let mut say = |(status, answer): (u16, Value)| {
            let host = ["server", "droplet", "instance"].iter().find_map(|key| answer.get(key)).unwrap_or(&answer);
            let words = ["status", "power_status", "server_status", "locked"];
            let words: Vec<_> = words.iter().filter_map(|word| host.get(word)).map(Value::to_string).collect();
            told += &format!("{provider} {status} {}\n", words.join(" "));
        };
        for _ in 0..3 {
            say(client.view(&id).await);
        }
        assert_eq!(client.list().await.len(), 1);
        client.delete(&id).await;
        say(client.view(&id).await);
        say((client.view(&id).await.0, Value::Null));
        assert!(client.list().await.is_empty());
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn what_was_done_before_the_connection_broke_stays_done() {
    let Some(clouds) = without_machines() else { return };
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        let wish = client.wish("story-1", "");
        clouds.fail(Failure::drop_before().of(provider).on("POST", client.hosts_path()));
        assert!(client.ask("POST", client.hosts_path(), Some(&wish)).await.is_err());
        assert!(client.list().await.is_empty(), "{provider}");
        clouds.fail(Failure::drop_after().of(provider).on("POST", client.hosts_path()));
        assert!(client.ask("POST", client.hosts_path(), Some(&wish)).await.is_err());
        assert_eq!(client.list().await.len(), 1, "{provider}");
    }
}

#[tokio::test]
async fn providers_refuse_in_their_own_words() {
    let Some(clouds) = without_machines() else { return };
    let mut told = String::new();
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        for (name, failure) in [
            ("capacity", Failure::capacity()),
            ("quota", Failure::quota()),
            ("denied", Failure::denied()),
            ("too many", Failure::status(429).header("Retry-After", "7")),
            ("broken", Failure::status(503)),
        ] {
            clouds.fail(failure);
            let answer = client.ask("POST", client.hosts_path(), Some(&client.wish("story-1", ""))).await.unwrap();
            told += &format!("{provider}, {name}: {} {}\n", answer.0, answer.1);
        }
        let (status, answer) = Client::new(&clouds, provider, "wrong").view("1").await;
        told += &format!("{provider}, wrong token: {status} {answer}\n");
        let (status, answer) = client.view("1").await;
        told += &format!("{provider}, missing: {status} {answer}\n");
        assert!(client.list().await.is_empty());
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn a_delete_may_be_accepted_and_not_done() {
    let Some(clouds) = without_machines() else { return };
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        let id = client.create("story-1", "").await;
        clouds.fail(Failure::half_delete(None).of(provider));
        client.delete(&id).await;
        for _ in 0..5 {
            assert_eq!(client.view(&id).await.0, 200, "{provider}");
        }
        assert_eq!(clouds.host(&id).phase, "leaving");
    }
}

#[tokio::test]
async fn a_failure_strikes_as_often_as_it_says_and_where() {
    let Some(clouds) = without_machines() else { return };
    let [linode, hetzner] = ["linode", "hetzner"].map(|name| Client::new(&clouds, name, "any"));
    clouds.fail(Failure::status(500).of("linode").on("GET", "instances$").after(1).times(Some(2)));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(linode.ask("GET", "/linode/instances", None).await.unwrap().0);
    }
    assert_eq!(statuses, [200, 500, 500, 200]);
    assert_eq!(hetzner.ask("GET", "/servers", None).await.unwrap().0, 200);
    clouds.fail(Failure::slow(Duration::from_millis(300)).times(None));
    let began = Instant::now();
    hetzner.list().await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    clouds.heal();
}

#[tokio::test]
async fn more_hosts_than_a_page_holds_come_page_after_page() {
    let Some(clouds) = without_machines() else { return };
    for provider in PROVIDERS {
        for n in 0..45 {
            clouds.plant(provider, &format!("crowd-{n}"), &["crowd"], &[]);
        }
    }
    let [linode, hetzner, ocean, vultr] = PROVIDERS.map(|name| Client::new(&clouds, name, "any"));
    let (_, page) = linode.ask("GET", "/linode/instances?page=2&page_size=25", None).await.unwrap();
    assert_eq!((page["data"].as_array().unwrap().len(), &page["pages"]), (20, &json!(2)));
    let (_, page) = hetzner.ask("GET", "/servers?page=2", None).await.unwrap();
    assert_eq!(
        (page["servers"].as_array().unwrap().len(), &page["meta"]["pagination"]["next_page"]),
        (20, &Value::Null)
    );
    let (_, page) = ocean.ask("GET", "/droplets?tag_name=crowd&page=3", None).await.unwrap();
    assert_eq!((page["droplets"].as_array().unwrap().len(), page["links"]["pages"].get("next")), (5, None));
    let (_, page) = vultr.ask("GET", "/instances?per_page=40", None).await.unwrap();
    let cursor = page["meta"]["links"]["next"].as_str().unwrap();
    let (_, page) = vultr.ask("GET", &format!("/instances?per_page=40&cursor={cursor}"), None).await.unwrap();
    assert_eq!((page["instances"].as_array().unwrap().len(), &page["meta"]["links"]["next"]), (5, &json!("")));
}

/// A stand-in that has the descriptions, and will be told what they do not allow.
fn with_violations() -> Option<Clouds> {
    if std::env::var_os("SPAWNPOINT_SPECS").is_none_or(|folder| folder.is_empty()) {
        println!("skipped: SPAWNPOINT_SPECS names no folder");
        return None;
    }
    let mut clouds = without_machines()?;
    clouds.expect_violations();
    Some(clouds)
}

fn violations(clouds: &Clouds) -> String {
    let told: Vec<_> = clouds.violations().iter().map(|v| format!("{}: {}: {}", v.provider, v.place, v.what)).collect();
    told.join("\n")
}

#[tokio::test]
async fn a_request_that_the_description_does_not_know_is_caught() {
    let Some(clouds) = with_violations() else { return };
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        let mut wish = client.wish("story-1", "");
        wish["user_dada"] = "#cloud-config".into();
        let (status, _) = client.ask("POST", client.hosts_path(), Some(&wish)).await.unwrap();
        assert_eq!(status, 500, "{provider}");
    }
    let linode = Client::new(&clouds, "linode", "any");
    linode.ask("POST", "/linode/instances", Some(&json!({ "type": 7, "region": "eu-central" }))).await.unwrap();
    linode.ask("GET", "/linode/instances?page_size=7", None).await.unwrap();
    linode.ask("GET", "/linode/ghosts", None).await.unwrap();
    let hetzner = Client::new(&clouds, "hetzner", "any");
    hetzner.ask("GET", "/servers?label=a", None).await.unwrap();
    hetzner.ask("POST", "/servers", Some(&json!({ "name": "a" }))).await.unwrap();
    insta::assert_snapshot!(violations(&clouds));
    assert!(clouds.living().is_empty());
}

#[tokio::test]
async fn a_request_that_fails_has_to_keep_to_the_description_all_the_same() {
    let Some(clouds) = with_violations() else { return };
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        let mut wish = client.wish("story-1", "");
        wish["user_dada"] = "#cloud-config".into();
        for failure in [Failure::status(503), Failure::capacity(), Failure::proxy(502)] {
            clouds.fail(failure);
            let (status, _) = client.ask("POST", client.hosts_path(), Some(&wish)).await.unwrap();
            assert_eq!(status, 500, "{provider}");
        }
        for failure in [Failure::drop_before(), Failure::late()] {
            clouds.fail(failure);
            assert!(client.ask("POST", client.hosts_path(), Some(&wish)).await.is_err(), "{provider}");
        }
        let stranger = Client::new(&clouds, provider, "wrong");
        assert_eq!(stranger.ask("POST", client.hosts_path(), Some(&wish)).await.unwrap().0, 500, "{provider}");
        let caught = clouds.violations().iter().filter(|v| v.provider == provider).count();
        assert_eq!(caught, 6, "{provider}: {:?}", clouds.violations());
    }
    clouds.heal();
    assert!(clouds.living().is_empty());
}

#[tokio::test]
async fn a_refusal_that_the_description_does_not_know_is_caught() {
    let Some(clouds) = with_violations() else { return };
    for provider in PROVIDERS {
        let client = Client::new(&clouds, provider, "any");
        for refusal in [
            Failure::status(404).body(json!({ "fault": "not here" })),
            Failure::status(429).body("slow down".into()),
            Failure::status(500).body("<html>oh no</html>".into()),
            Failure::status(418),
        ] {
            clouds.fail(refusal);
            let (status, told) = client.ask("GET", client.hosts_path(), None).await.unwrap();
            assert_eq!(status, 500, "{provider}: {told}");
        }
        clouds.fail(Failure::proxy(502).body("<html>bad gateway</html>".into()));
        assert_eq!(client.ask("GET", client.hosts_path(), None).await.unwrap().0, 502, "{provider}");
    }
    insta::assert_snapshot!(violations(&clouds));
}
