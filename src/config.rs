//! The configuration: one TOML file, every option of which the environment can give instead
//! (`SPAWNPOINT_` + the path with `__` between its parts). Unknown keys are errors, because a misspelt limit that is
//! silently ignored costs somebody a world or a bill. config.example.toml explains every key, and a test loads it.

use anyhow::Context;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The environment's names begin with this.
pub const ENV_PREFIX: &str = "SPAWNPOINT_";
/// The file that is read when none is named.
pub const DEFAULT_FILE: &str = "config.toml";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where Spawnpoint keeps its database, snapshots, drives and backups.
    pub data_dir: PathBuf,
    /// The folder of recipes.
    pub game_scripts: PathBuf,
    pub database: Database,
    pub discord: Discord,
    pub docker: Docker,
    pub lease: Lease,
    pub idle: Idle,
    pub backups: Backups,
    pub watch: Watch,
    pub cloud: Cloud,
    pub hosts: BTreeMap<String, OwnHost>,
    /// The program that rsync is to start as its remote shell; `None` is this one. A test runs in another.
    #[serde(skip)]
    pub program: Option<PathBuf>,
    pub dns: Dns,
    pub budget: BudgetRules,
    pub schedule: Schedules,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            data_dir: "data".into(),
            game_scripts: "game-scripts".into(),
            database: Database::default(),
            discord: Discord::default(),
            docker: Docker::default(),
            lease: Lease::default(),
            idle: Idle::default(),
            backups: Backups::default(),
            watch: Watch::default(),
            cloud: Cloud::default(),
            hosts: BTreeMap::new(),
            program: None,
            dns: Dns::default(),
            budget: BudgetRules::default(),
            schedule: Schedules::default(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `sqlite:PATH` or `postgres://…`; empty means a SQLite file in `data_dir`. Secret: it may hold a password.
    pub url: Option<SecretString>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Discord {
    pub token: Option<SecretString>,
    /// Another address than Discord's own lets a test stand in for it.
    pub api_url: String,
    /// Guilds that get the commands; empty means every guild that the bot is in.
    #[serde(deserialize_with = "list")]
    pub guilds: Vec<String>,
    /// Members with a role of this name may start and stop without a grant.
    pub players_role: String,
}

pub const DISCORD_URL: &str = "https://discord.com";

impl Default for Discord {
    fn default() -> Discord {
        Discord { token: None, api_url: DISCORD_URL.into(), guilds: vec![], players_role: "players".into() }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Docker {
    #[serde(deserialize_with = "plain")]
    pub enabled: bool,
    /// The daemon's socket or address; empty means `DOCKER_HOST` or the usual socket.
    pub endpoint: Option<String>,
    /// The address of this machine that game ports are published on.
    #[serde(deserialize_with = "plain")]
    pub publish_address: IpAddr,
    /// The name or address that friends are told to join.
    pub public_address: Option<String>,
    /// Ports are taken from this range when a recipe's own number is taken.
    pub ports: PortRange,
    /// `uid:gid` that games run as; empty means the ids Spawnpoint itself runs as, or 4242:4242 when that is root.
    pub user: Option<String>,
    /// Build images on the host's network, for machines whose container bridge has no way out.
    #[serde(deserialize_with = "plain")]
    pub build_host_network: bool,
    /// `overlay`, `copy`, or `auto`: overlay where the daemon can mount it.
    pub drives: DriveKind,
}

impl Default for Docker {
    fn default() -> Docker {
        Docker {
            enabled: true,
            endpoint: None,
            publish_address: IpAddr::from([0, 0, 0, 0]),
            public_address: None,
            ports: PortRange { first: 27000, last: 27999 },
            user: None,
            build_host_network: false,
            drives: DriveKind::Auto,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriveKind {
    Auto,
    Overlay,
    Copy,
}

/// Written `27000-27999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let help = || format!("`{text}` is not a range of ports; write for instance `27000-27999`");
        let (first, last) = text.split_once('-').ok_or_else(help)?;
        let (first, last) = (first.trim().parse().map_err(|_| help())?, last.trim().parse().map_err(|_| help())?);
        if first < 1024 || first > last {
            return Err(format!("the ports {first}-{last} are not a rising range from 1024 to 65535"));
        }
        Ok(PortRange { first, last })
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PortRange, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lease {
    /// Minutes a start lasts unless it is extended; 0 means for ever.
    #[serde(deserialize_with = "plain")]
    pub minutes: u32,
    /// Minutes that `extend` adds when nobody says how many.
    #[serde(deserialize_with = "plain")]
    pub extend_minutes: u32,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease { minutes: 12 * 60, extend_minutes: 60 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idle {
    /// Minutes with nobody on after which a server stops; 0 means never.
    #[serde(deserialize_with = "plain")]
    pub stop_after_minutes: u32,
    /// Minutes after which a server stops that nobody ever joined.
    #[serde(deserialize_with = "plain")]
    pub never_joined_minutes: u32,
}

impl Default for Idle {
    fn default() -> Idle {
        Idle { stop_after_minutes: 15, never_joined_minutes: 30 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backups {
    /// The newest so many backups of a server are kept.
    #[serde(deserialize_with = "plain")]
    pub keep_last: usize,
    /// Beyond these, one a day for so many days.
    #[serde(deserialize_with = "plain")]
    pub keep_daily: usize,
    /// And one a week for so many weeks.
    #[serde(deserialize_with = "plain")]
    pub keep_weekly: usize,
}

impl Default for Backups {
    fn default() -> Backups {
        Backups { keep_last: 10, keep_daily: 14, keep_weekly: 8 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// Seconds between two looks at every server.
    #[serde(deserialize_with = "plain")]
    pub every_seconds: u64,
}

impl Default for Watch {
    fn default() -> Watch {
        Watch { every_seconds: 15 }
    }
}

/// Names that follow servers. Without a zone there are none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// The zone that names are made in.
    pub zone: Option<String>,
    /// How long resolvers may remember an address.
    #[serde(deserialize_with = "plain")]
    pub ttl_seconds: u32,
    pub provider: Option<DnsProvider>,
    pub rfc2136: Rfc2136,
    pub cloudflare: Cloudflare,
}

impl Default for Dns {
    fn default() -> Dns {
        Dns {
            zone: None,
            ttl_seconds: 60,
            provider: None,
            rfc2136: Rfc2136::default(),
            cloudflare: Cloudflare::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsProvider {
    Rfc2136,
    Cloudflare,
}

/// A name server that takes dynamic updates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rfc2136 {
    /// Address or name, and port.
    pub server: String,
    pub key_name: Option<String>,
    pub key_secret: Option<SecretString>,
    pub algorithm: DnsAlgorithm,
}

impl Default for Rfc2136 {
    fn default() -> Rfc2136 {
        Rfc2136 { server: "127.0.0.1:53".into(), key_name: None, key_secret: None, algorithm: DnsAlgorithm::HmacSha256 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DnsAlgorithm {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cloudflare {
    pub token: Option<SecretString>,
    /// Found by the zone's name where it is left out.
    pub zone_id: Option<String>,
    /// Another address than Cloudflare's own lets a test stand in for it.
    pub api_url: String,
}

pub const CLOUDFLARE_URL: &str = "https://api.cloudflare.com/client/v4";

impl Default for Cloudflare {
    fn default() -> Cloudflare {
        Cloudflare { token: None, zone_id: None, api_url: CLOUDFLARE_URL.into() }
    }
}

impl Dns {
    /// Whether its options fit together. Each alone was checked when it was read.
    ///
    /// # Errors
    /// A sentence that names the option to write.
    pub fn check(&self) -> anyhow::Result<()> {
        let given = |value: &Option<String>| value.as_ref().is_some_and(|text| !text.trim().is_empty());
        let secret = |value: &Option<SecretString>| {
            use secrecy::ExposeSecret;
            value.as_ref().is_some_and(|secret| !secret.expose_secret().trim().is_empty())
        };
        let provider = match (given(&self.zone), self.provider) {
            (false, None) => return Ok(()),
            (false, Some(_)) => {
                anyhow::bail!("dns.provider is set and dns.zone is not: name the zone, for instance `example.org`")
            }
            (true, None) => anyhow::bail!("dns.zone is set and dns.provider is not: write `rfc2136` or `cloudflare`"),
            (true, Some(provider)) => provider,
        };
        let (shortest, longest) = match provider {
            DnsProvider::Rfc2136 => (10, 86_400),
            DnsProvider::Cloudflare => (60, 86_400),
        };
        if !(shortest..=longest).contains(&self.ttl_seconds) {
            anyhow::bail!("dns.ttl_seconds is {}: write a number from {shortest} to {longest}", self.ttl_seconds);
        }
        let missing = match provider {
            DnsProvider::Rfc2136 => [
                ("dns.rfc2136.key_name", given(&self.rfc2136.key_name)),
                ("dns.rfc2136.key_secret", secret(&self.rfc2136.key_secret)),
            ]
            .to_vec(),
            DnsProvider::Cloudflare => vec![("dns.cloudflare.token", secret(&self.cloudflare.token))],
        };
        match missing.into_iter().find(|(_, there)| !there) {
            Some((option, _)) => anyhow::bail!("{option} is missing: the provider in dns.provider needs it"),
            None => Ok(()),
        }
    }
}

/// Hosts that are rented by the hour.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cloud {
    /// The provider for servers that name none; empty means the cheapest when a server is made.
    pub provider: Option<String>,
    /// A host that hears nothing from Spawnpoint for so many hours stops its game; 0 means never.
    #[serde(deserialize_with = "plain")]
    pub deadman_hours: u64,
    /// Stops that nobody waits for (idle, time over) come at the end of the time that is paid for anyway.
    #[serde(deserialize_with = "plain")]
    pub stop_at_billing_unit: bool,
    /// Minutes between two looks for what nobody claims; 0 means only at the start.
    #[serde(deserialize_with = "plain")]
    pub sweep_minutes: u32,
    pub linode: Provider,
    pub hetzner: Provider,
    pub digitalocean: Provider,
    pub vultr: Provider,
}

/// A host that nobody watches over runs no game for longer than this.
const DEADMAN_HOURS: u64 = 6;

/// Half of the shortest time that most providers bill.
const SWEEP_MINUTES: u32 = 30;

impl Default for Cloud {
    fn default() -> Cloud {
        Cloud {
            provider: None,
            deadman_hours: DEADMAN_HOURS,
            stop_at_billing_unit: false,
            sweep_minutes: SWEEP_MINUTES,
            linode: Provider::default(),
            hetzner: Provider::default(),
            digitalocean: Provider::default(),
            vultr: Provider::default(),
        }
    }
}

impl Cloud {
    pub fn providers(&self) -> [(&'static str, &Provider); 4] {
        [
            ("linode", &self.linode),
            ("hetzner", &self.hetzner),
            ("digitalocean", &self.digitalocean),
            ("vultr", &self.vultr),
        ]
    }
}

/// One provider's account. Without a token nothing is rented there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provider {
    pub token: Option<SecretString>,
    /// Another address than the provider's own lets a test stand in for it.
    pub api_url: Option<String>,
    /// Where hosts are rented unless a server says otherwise; empty means wherever it is cheapest.
    pub region: Option<String>,
    /// The size that is rented; empty means the cheapest that is enough for the game.
    pub plan: Option<String>,
}

/// `[hosts.<name>]`: a machine of your own, reached by SSH.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnHost {
    pub address: String,
    #[serde(default = "ssh_port", deserialize_with = "plain")]
    pub port: u16,
    #[serde(default = "root")]
    pub user: String,
    /// A private key that the machine lets in; empty means Spawnpoint's own.
    pub key_file: Option<PathBuf>,
    /// The machine's public host key, or its SHA-256 fingerprint.
    pub host_key: Option<String>,
}

fn ssh_port() -> u16 {
    22
}

fn root() -> String {
    "root".to_owned()
}

/// `[budget]`: what rented hosts may cost.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetRules {
    /// What each guild may spend in a calendar month, one amount for each currency: `10 USD`. With an id, one guild's.
    #[serde(deserialize_with = "list")]
    pub guild_monthly: Vec<String>,
    /// People are warned when so much of a budget is spent.
    #[serde(deserialize_with = "plain")]
    pub warn_percent: u32,
    /// The time zone at whose midnight a month begins.
    #[serde(deserialize_with = "zone")]
    pub time_zone: jiff::tz::TimeZone,
}

impl Default for BudgetRules {
    fn default() -> BudgetRules {
        BudgetRules { guild_monthly: vec![], warn_percent: 80, time_zone: jiff::tz::TimeZone::UTC }
    }
}

/// `[schedule]`: timed rules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedules {
    /// The time zone of rules that name none.
    #[serde(deserialize_with = "zone")]
    pub time_zone: jiff::tz::TimeZone,
}

impl Default for Schedules {
    fn default() -> Schedules {
        Schedules { time_zone: jiff::tz::TimeZone::UTC }
    }
}

/// A time zone by its name in the IANA database.
fn zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<jiff::tz::TimeZone, D::Error> {
    let name = String::deserialize(deserializer)?;
    jiff::tz::TimeZone::get(name.trim()).map_err(|_| {
        serde::de::Error::custom(format!("`{name}` is no time zone; write for instance `Europe/Berlin` or `UTC`"))
    })
}

impl Config {
    /// Reads the file, if there is one, and lays the environment over it.
    ///
    /// # Errors
    /// A file that was named and is not there, unknown keys, values of the wrong kind: each with the place.
    pub fn load(file: Option<&Path>, env: impl Iterator<Item = (String, String)>) -> anyhow::Result<Config> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading the configuration {}", path.display())),
        };
        // Relative paths are relative to the file, wherever the program was started.
        let mut config =
            Config::parse(&text, env).with_context(|| format!("in the configuration {}", path.display()))?;
        config.dns.check().with_context(|| format!("in the configuration {}", path.display()))?;
        let home = path.parent().filter(|home| !home.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let keys = config.hosts.values_mut().filter_map(|host| host.key_file.as_mut());
        for path in [&mut config.data_dir, &mut config.game_scripts].into_iter().chain(keys) {
            *path = std::path::absolute(home.join(&*path)).context("finding the folder of the configuration")?;
        }
        Ok(config)
    }

    pub fn parse(text: &str, env: impl Iterator<Item = (String, String)>) -> anyhow::Result<Config> {
        // The file alone first: its errors come with line and column.
        let from_file: Config = toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", explained(text, &error)))?;
        let given: BTreeMap<String, String> = env
            .filter_map(|(name, value)| Some((name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase(), value)))
            .filter(|(path, _)| !NOT_OPTIONS.contains(&path.as_str()))
            .collect();
        if given.is_empty() {
            return Ok(from_file);
        }
        let mut table: toml::Table = toml::from_str(text)?;
        for (path, value) in &given {
            let name = || format!("{ENV_PREFIX}{}", path.to_ascii_uppercase());
            overlay(&mut table, path, value).with_context(|| format!("in the environment's {}", name()))?;
            // One at a time, so that the error names the right one.
            Config::deserialize(table.clone())
                .map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end().to_owned()))
                .with_context(|| format!("in the environment's {}", name()))?;
        }
        Ok(Config::deserialize(table)?)
    }
}

/// A parse error with its place. The line itself is never shown, because a secret may stand in it under any name.
fn explained(text: &str, error: &toml::de::Error) -> String {
    let message = without_value(error.message());
    let Some(span) = error.span() else { return message };
    let before = &text[..text.floor_char_boundary(span.start)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {message}")
}

/// A value of a wrong type is named by its type alone: where a text belongs, it may be a secret without its quotes.
fn without_value(message: &str) -> String {
    let cut = message.strip_prefix("invalid type: ").and_then(|rest| {
        let (found, expected) = rest.rsplit_once(", expected ")?;
        let kind = found.split(['`', '"']).next().unwrap_or_default().trim();
        Some(format!("wrong type ({kind}), expected {expected}"))
    });
    cut.unwrap_or_else(|| message.trim_end().to_owned())
}

/// Names with our prefix that are no options: where the configuration is, and what tests use.
const NOT_OPTIONS: [&str; 3] = ["config", "specs", "log"];

fn overlay(table: &mut toml::Table, path: &str, value: &str) -> anyhow::Result<()> {
    match path.split_once("__") {
        None => {
            table.insert(path.to_owned(), toml::Value::String(value.to_owned()));
            Ok(())
        }
        Some((section, rest)) => {
            let inner = table.entry(section.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().with_context(|| format!("`{section}` is not a section"))?;
            overlay(inner, rest, value)
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OrText<T> {
    Value(T),
    Text(String),
}

/// A number, a truth value or an address, written as such or as text, which is how the environment gives it.
fn plain<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: Display>,
{
    let wrong = |found: &dyn Display| {
        let kind = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        let kind = match kind {
            "u32" | "u64" | "usize" => "a whole number, 0 or more",
            "bool" => "true or false",
            "IpAddr" => "an IP address",
            other => other,
        };
        serde::de::Error::custom(format!("expected {kind}, found {found}"))
    };
    match toml::Value::deserialize(deserializer)? {
        toml::Value::String(text) => text.trim().parse().map_err(|_| wrong(&format!("`{text}`"))),
        value => T::deserialize(value.clone()).map_err(|_| wrong(&format!("`{value}`"))),
    }
}

/// A list of texts; the environment gives it with commas.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(match OrText::<Vec<String>>::deserialize(deserializer)? {
        OrText::Value(items) => items,
        OrText::Text(text) => {
            text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> std::vec::IntoIter<(String, String)> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn nothing_at_all_is_a_configuration() {
        let config = Config::parse("", env(&[])).unwrap();
        assert_eq!(config.discord.api_url, DISCORD_URL);
        assert!(config.discord.token.is_none());
    }

    #[test]
    fn the_environment_gives_every_kind_of_option() {
        let config = Config::parse(
            "[idle]\nstop_after_minutes = 5\n",
            env(&[
                ("SPAWNPOINT_DISCORD__TOKEN", "123"),
                ("SPAWNPOINT_DISCORD__GUILDS", "1, 2"),
                ("SPAWNPOINT_IDLE__STOP_AFTER_MINUTES", "7"),
                ("SPAWNPOINT_DOCKER__BUILD_HOST_NETWORK", "true"),
                ("SPAWNPOINT_DOCKER__PUBLISH_ADDRESS", "127.0.1.7"),
                ("SPAWNPOINT_DATA_DIR", "/srv/spawnpoint"),
                ("SPAWNPOINT_SPECS", "/specs"),
                ("OTHER", "x"),
            ]),
        )
        .unwrap();
        assert_eq!(config.idle.stop_after_minutes, 7);
        assert_eq!(config.discord.guilds, ["1", "2"]);
        assert!(config.docker.build_host_network);
        assert_eq!(config.docker.publish_address, IpAddr::from([127, 0, 1, 7]));
        assert_eq!(config.data_dir, Path::new("/srv/spawnpoint"));
        use secrecy::ExposeSecret;
        assert_eq!(config.discord.token.unwrap().expose_secret(), "123");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let error = |text: &str, pairs: &[(&str, &str)]| format!("{:#}", Config::parse(text, env(pairs)).unwrap_err());
        let mut all = String::new();
        for text in [
            "[discord]\ntokn = \"x\"\n",
            "[idle]\nstop_after_minutes = \"soon\"\n",
            "data_dir = 7\n",
            "[docker]\nports = \"9-1\"\n",
            "[budget]\ntime_zone = \"Mars/Olympus\"\n",
            "x =",
        ] {
            all += &format!("{text}--> {}\n\n", error(text, &[]));
        }
        for pair in [("SPAWNPOINT_IDEL__STOP_AFTER_MINUTES", "3"), ("SPAWNPOINT_WATCH__EVERY_SECONDS", "-1")] {
            all += &format!("{pair:?}\n--> {}\n\n", error("", &[pair]));
        }
        insta::assert_snapshot!(all);
    }

    #[test]
    fn options_of_dns_that_do_not_fit_together_are_named() {
        let whole = "[dns]\nzone = \"example.org\"\nprovider = \"rfc2136\"\n[dns.rfc2136]\nkey_name = \"k\"\nkey_secret = \"hush\"\n";
        let cases = [
            ("", None),
            (whole, None),
            ("[dns]\nzone = \"example.org\"\n", Some("dns.provider")),
            ("[dns]\nprovider = \"cloudflare\"\n", Some("dns.zone")),
            ("[dns]\nzone = \"example.org\"\nprovider = \"rfc2136\"\n", Some("dns.rfc2136.key_name")),
            (
                "[dns]\nzone = \"example.org\"\nprovider = \"rfc2136\"\n[dns.rfc2136]\nkey_name = \"k\"\n",
                Some("dns.rfc2136.key_secret"),
            ),
            ("[dns]\nzone = \"example.org\"\nprovider = \"cloudflare\"\n", Some("dns.cloudflare.token")),
            (
                "[dns]\nzone = \"example.org\"\nprovider = \"cloudflare\"\nttl_seconds = 30\n",
                Some("a number from 60 to 86400"),
            ),
        ];
        for (text, wrong) in cases {
            let found = Config::parse(text, env(&[])).unwrap().dns.check();
            match (found, wrong) {
                (Ok(()), None) => {}
                (Err(error), Some(wrong)) if error.to_string().contains(wrong) => {}
                (found, wrong) => panic!("{text}: {found:?}, expected {wrong:?}"),
            }
        }
        let error = Config::parse("[dns.rfc2136]\nkey_secret = hush\n", env(&[])).unwrap_err();
        assert!(!format!("{error:#}").contains("hush"), "{error:#}");
    }

    #[test]
    fn a_secret_is_not_shown_by_debug() {
        let config =
            Config::parse("[discord]\ntoken = \"hush\"\n[database]\nurl = \"postgres://u:hush@h/d\"", env(&[]))
                .unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        for text in [
            "[discord]\ntoken = hush\n",
            "[discord]\ntoken = \"hush\n",
            "[discord]\ntoken = [\"hush\"]\n",
            "[discord]\nToken = \"hush\"\n",
            "[discord]\ntokn = \"hush\"\n",
            "token = \"hush\"\n[discord]\n",
            "bot_token = \"hush\"\n",
            "[cloud]\nlinode = { token = \"hush\", regoin = \"x\" }\n",
            "[idle]\nstop_after_minutes = 5 hush\n",
        ] {
            let error = format!("{:#}", Config::parse(text, env(&[])).unwrap_err());
            assert!(!error.contains("hush") && error.starts_with("line "), "{text}: {error}");
        }
        let error = format!("{:#}", Config::parse("[discord]\ntoken = 4711\n", env(&[])).unwrap_err());
        insta::assert_snapshot!(error, @"line 2, column 9: wrong type (integer), expected a string");
    }
}
