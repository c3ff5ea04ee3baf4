//! A server: one thing that people join. What it is called, what it owns, what people want of it, and the state
//! that follows from these. State is derived here and stored nowhere.

use super::bill::Budget;
use super::drive::DriveRef;
use super::host::{HostRef, OWN_MACHINE, Place};
use super::job::{Action, Job, Outcome};
use super::world::{BackupId, WorldAt};
use super::{GuildId, Ms, ServerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The longest name a server may have, in characters: it must fit into labels, paths and a line of text.
pub const NAME_MAX_CHARS: usize = 32;

/// What people type: lower case letters, digits and single dashes, at most 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ServerName(String);

impl ServerName {
    /// Refuses everything that is not a name, with a sentence that says what a name is.
    pub fn parse(text: &str) -> Result<ServerName, String> {
        let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() {
            return Err("A server needs a name, for instance `friday-world`.".into());
        }
        if text.chars().count() > NAME_MAX_CHARS {
            return Err(format!(
                "A server's name has at most {NAME_MAX_CHARS} characters; this one has {}.",
                text.chars().count()
            ));
        }
        if !text.chars().all(ok) || text.starts_with('-') || text.ends_with('-') || text.contains("--") {
            return Err(
                "A server's name is made of lower case letters, digits and single dashes, for instance `friday-world`."
                    .into(),
            );
        }
        Ok(ServerName(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServerName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        ServerName::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// What kind of place a server runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// A host rented for the evening, reached over SSH.
    Cloud,
    /// A container on this machine, on a copy-on-write drive.
    Docker,
}

impl Backend {
    pub const ALL: [Backend; 2] = [Backend::Cloud, Backend::Docker];

    pub fn word(self) -> &'static str {
        match self {
            Backend::Cloud => "cloud",
            Backend::Docker => "docker",
        }
    }

    pub fn parse(word: &str) -> Option<Backend> {
        Backend::ALL.into_iter().find(|backend| backend.word() == word)
    }
}

/// Whether people want the server to be up. The watcher compares this with what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    On,
    Off,
}

/// What a server holds outside of our database. Written in the transaction of the event that says so, and taken
/// from there after a crash: nothing that exists outside is known by memory alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drive: Option<DriveRef>,
    /// The container's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Where friends join, ready to paste: `play.example.org:27015`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The number each of the recipe's ports got, by the port's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<String, u16>,
    /// The backup that is this server's present world. A start pushes it unless the drive already holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub world: Option<BackupId>,
}

impl Owned {
    /// The host that somebody sends a bill for.
    pub fn rented(&self) -> Option<&HostRef> {
        self.host.as_ref().filter(|host| host.provider != OWN_MACHINE)
    }

    /// The backup that the next start begins with; `None` where there is none, or the drive or host holds something newer.
    pub fn begins_with(&self) -> Option<&BackupId> {
        let played = self.drive.as_ref().is_some_and(|drive| drive.world == WorldAt::Played)
            || self.host.as_ref().is_some_and(|host| host.played);
        self.world.as_ref().filter(|_| !played)
    }

    /// What comes along to another backend: the world, as a backup.
    pub fn moved(&self) -> Owned {
        Owned { world: self.world.clone(), ..Owned::default() }
    }
}

/// How a server is limited and watched; what is `None` follows the recipe or the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Processes and threads at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Minutes with nobody on after which the server stops; 0 means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_min: Option<u32>,
    /// Minutes that a start lasts before it ends by itself, unless it is extended; 0 means for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_min: Option<u32>,
    /// What its hosts may cost in a calendar month; then it stops, and does not start again in that month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Stops that nobody waits for come at the end of the time that is paid for anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_at_billing_unit: Option<bool>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub id: ServerId,
    pub guild: GuildId,
    pub name: ServerName,
    /// The recipe's name.
    pub game: String,
    pub backend: Backend,
    /// The recipe's variables as people set them; what is not here has the recipe's default.
    pub settings: BTreeMap<String, String>,
    pub limits: Limits,
    /// Where its host is rented, on the cloud backend.
    pub place: Place,
    pub wanted: Wanted,
    pub owned: Owned,
    /// When the running lease ends; `None` while it does not run, or for ever.
    pub lease_until: Option<Ms>,
    /// Move to the newest snapshot at the next start, as `/server update` asked.
    pub update_at_start: bool,
    /// The channel that hears of what the watcher does; where the server was created until someone starts it elsewhere.
    pub channel: Option<String>,
    pub created_at: Ms,
    pub deleted_at: Option<Ms>,
}

/// What the driver saw when it looked. *Unknown* is never *gone*: it means that nobody could look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "seen")]
pub enum Seen {
    Unknown {
        why: String,
    },
    Gone,
    Stopped {
        exit_code: Option<i64>,
        out_of_memory: bool,
        /// Its host has ended it because it had heard nothing from us for too long.
        unwatched: bool,
    },
    Running {
        players: Players,
    },
}

/// Who is on, as the game itself says. A count that could not be had is `None`: unknown is not zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Players {
    pub online: Option<u32>,
    #[serde(default)]
    pub max: Option<u32>,
    #[serde(default)]
    pub bots: Option<u32>,
    #[serde(default)]
    pub names: Vec<String>,
    #[serde(default)]
    pub map: Option<String>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub latency_ms: Option<u64>,
    /// True when the game answered a query: people can join.
    #[serde(default)]
    pub answers: bool,
}

/// The state people see. Derived from the open job, the wish and what was seen; stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Offline,
    Starting,
    Running,
    Stopping,
    /// A job waits for a person, or the game went away without being asked to.
    Failed,
    /// Nobody could look: the daemon or the host does not answer.
    Unknown,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Offline => "offline",
            State::Starting => "starting",
            State::Running => "running",
            State::Stopping => "stopping",
            State::Failed => "failed",
            State::Unknown => "unknown",
        }
    }
}

/// The one place that says what state a server is in.
pub fn state(wanted: Wanted, open_job: Option<&Job>, seen: &Seen) -> State {
    if let Some(job) = open_job {
        if job.rest() == Some(Outcome::Held) {
            return State::Failed;
        }
        match job.action {
            Action::Start | Action::Restart => return State::Starting,
            Action::Stop | Action::Delete => return State::Stopping,
            // These leave the server as it is, or stop it on the way; what is seen says which.
            Action::Backup | Action::Restore { .. } | Action::Update => {}
            Action::Move { .. } | Action::BuildSnapshot => {}
        }
    }
    match (seen, wanted) {
        (Seen::Unknown { .. }, Wanted::On | Wanted::Off) => State::Unknown,
        (Seen::Running { .. }, Wanted::On | Wanted::Off) => State::Running,
        (Seen::Gone | Seen::Stopped { .. }, Wanted::Off) => State::Offline,
        (Seen::Gone | Seen::Stopped { .. }, Wanted::On) => State::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_lower_case_digits_and_single_dashes() {
        for good in ["a", "friday-world", "x1", &"a".repeat(32)] {
            assert!(ServerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "-a", "a-", "a--b", "a/b", "../a", "a\nb", "a'b", "ü", "@everyone", &"a".repeat(33)]
        {
            let why = ServerName::parse(bad).expect_err(bad);
            assert!(why.ends_with('.'), "{why}");
        }
    }

    #[test]
    fn unknown_is_shown_as_unknown_and_never_as_offline() {
        let unknown = Seen::Unknown { why: "the daemon does not answer".into() };
        assert_eq!(state(Wanted::Off, None, &unknown), State::Unknown);
        assert_eq!(state(Wanted::On, None, &Seen::Gone), State::Failed);
        assert_eq!(state(Wanted::Off, None, &Seen::Gone), State::Offline);
    }
}
