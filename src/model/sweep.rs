//! What a look at everything with our label found, both ways: things that nobody claims, and hosts that a server claims
//! and the provider does not have. Findings are shown and asked about; nothing is ever deleted because of one alone.
//! Drivers list ([`Sweep`]), `engine::sweep` compares and tells, `app::orphans` deletes and gives back.

use super::cost::{Micros, Price, spoken};
use super::host::{HostRef, OWN_MACHINE};
use super::job::{Job, Outcome};
use super::server::{Backend, Server};
use super::{GuildId, JobId, Ms, ServerId};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// Of something that bills and that only people can end, they hear again after this time.
pub const REMIND_MS: Ms = 24 * super::HOUR_MS;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    pub orphans: Vec<Orphan>,
    /// Orphans whose server has a job that waits for a person, which has to be decided first.
    pub waiting: Vec<(Orphan, JobId)>,
    /// Hosts of nobody that their provider is deleting. Most bill until they are gone.
    pub leaving: Vec<Orphan>,
    pub lost: Vec<Lost>,
    /// Where nobody could look. What is there is unknown, which is not nothing.
    pub unasked: Vec<Unasked>,
}

impl Sweep {
    pub fn add(&mut self, more: Sweep) {
        self.orphans.extend(more.orphans);
        self.waiting.extend(more.waiting);
        self.leaving.extend(more.leaving);
        self.lost.extend(more.lost);
        self.unasked.extend(more.unasked);
    }
}

/// A provider, or a whole backend, that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unasked {
    /// `hetzner`; `docker` for this machine.
    pub provider: String,
    /// A sentence for people.
    pub why: String,
}

/// Something with our label that no server has on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    pub backend: Backend,
    /// `hetzner`; `docker` for what is on this machine.
    pub provider: String,
    pub kind: OrphanKind,
    /// As the provider names it.
    pub id: String,
    /// For people.
    pub name: String,
    /// When it was made, where that is known.
    #[serde(default)]
    pub since: Option<Ms>,
    /// What it costs; `None` where it costs nothing or nobody knows.
    #[serde(default)]
    pub price: Option<Price>,
    /// The server that its label names, which may be long gone.
    #[serde(default)]
    pub server: Option<ServerId>,
    /// The driver could make it that server's own again.
    #[serde(default)]
    pub adoptable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrphanKind {
    Host,
    Firewall,
    SshKey,
    Volume,
    Container,
    Drive,
    /// A name in DNS, with the marker of this instance.
    Name,
    /// A game's folder on a machine of your own.
    Folder,
}

impl OrphanKind {
    pub fn word(self) -> &'static str {
        match self {
            OrphanKind::Host => "host",
            OrphanKind::Firewall => "firewall",
            OrphanKind::SshKey => "SSH key",
            OrphanKind::Volume => "volume",
            OrphanKind::Container => "container",
            OrphanKind::Drive => "drive",
            OrphanKind::Name => "DNS name",
            OrphanKind::Folder => "game folder",
        }
    }

    /// Whether the only copy of a world may be on it.
    pub fn may_hold_world(self) -> bool {
        match self {
            // What a game wrote outside of its drive is in its container.
            OrphanKind::Host | OrphanKind::Volume | OrphanKind::Drive | OrphanKind::Container | OrphanKind::Folder => {
                true
            }
            OrphanKind::Firewall | OrphanKind::SshKey | OrphanKind::Name => false,
        }
    }
}

impl Orphan {
    /// Under which name it is remembered that people heard of it.
    pub fn key(&self) -> String {
        format!("orphan {} {} {}", self.provider, self.kind.word(), self.id)
    }

    /// The same for what is told now: of a host, which bills, people hear again with each day that it is old. And the key
    /// of the day before, which is of no use any more.
    pub fn keys_to_tell(&self, now: Ms) -> (String, Option<String>) {
        let key = self.key();
        let Some(since) = self.since.filter(|_| self.kind == OrphanKind::Host) else { return (key, None) };
        let day = (now - since).max(0) / REMIND_MS;
        let of = |day: i64| format!("{key}, day {day}");
        (of(day), (day > 0).then(|| of(day - 1)))
    }

    /// A short name for buttons, the same in every program: 16 hexadecimal digits.
    pub fn tag(&self) -> String {
        // FNV-1a: no secret is behind it, and whoever presses is checked and finds the thing anew.
        let hash = self
            .key()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        format!("{hash:016x}")
    }

    /// What it has cost, where that is known.
    pub fn so_far(&self, now: Ms, zone: &TimeZone) -> Option<Micros> {
        Some(self.price.as_ref()?.capped(self.since?, now, zone))
    }

    /// For the log, where there is no channel in which people could hear of it.
    pub fn unheard(&self) -> String {
        let costs = match &self.price {
            Some(price) => format!(" for {} an hour", spoken(price.hourly, &price.currency)),
            None => String::new(),
        };
        format!(
            "Nobody claims the {kind} “{}” (id {}) at {at}{costs}, and no channel could be told. It was left alone. Where \
             `/admin orphans` does not list it, delete it at {at} yourself.",
            self.name,
            self.id,
            kind = self.kind.word(),
            at = self.provider
        )
    }

    fn is_claimed_by(&self, server: &Server) -> bool {
        let owned = &server.owned;
        match self.kind {
            OrphanKind::Host => {
                owned.host.as_ref().is_some_and(|host| host.provider == self.provider && host.id == self.id)
            }
            OrphanKind::Firewall => owned
                .host
                .as_ref()
                .is_some_and(|host| host.provider == self.provider && host.firewall.as_ref() == Some(&self.id)),
            OrphanKind::Drive => owned.drive.as_ref().is_some_and(|drive| drive.id == self.id),
            OrphanKind::Container => owned.container.as_ref() == Some(&self.id),
            // The whole name, of which a host has its first label on record.
            OrphanKind::Name => {
                let label = owned.host.as_ref().and_then(|host| host.label.as_deref());
                label.is_some() && self.id.split('.').next() == label
            }
            OrphanKind::Folder => {
                let here = owned.host.as_ref().filter(|host| host.provider == OWN_MACHINE);
                here.is_some_and(|host| self.id == folder_id(&host.id, &server.id))
            }
            // Drives are mounted through volumes that are named after them; drivers leave those of known drives out.
            OrphanKind::SshKey | OrphanKind::Volume => false,
        }
    }
}

/// How the folder of a server's game on a machine of your own is called here.
pub fn folder_id(machine: &str, server: &ServerId) -> String {
    format!("{machine}/{server}")
}

/// A host that a server has on record, and of which the provider itself says, asked for it and in its list, that there
/// is none. Never concluded from an error or from silence.
#[derive(Clone, Debug, PartialEq)]
pub struct Lost {
    pub server: ServerId,
    pub host: HostRef,
}

impl Lost {
    /// Under which name it is remembered that people heard of it.
    pub fn key(&self) -> String {
        format!("lost {} {}", self.host.provider, self.host.id)
    }
}

/// What is left of the findings when it is known what happened while the driver looked: a job that was open at any
/// time may be making or removing what was seen.
pub fn settled(found: Sweep, servers: &[Server], busy_before: &[Job], busy_after: &[Job]) -> Sweep {
    let busy = |id: &ServerId| busy_before.iter().chain(busy_after).any(|job| job.subject.server() == Some(id));
    // A job that waits does nothing: what nobody claims now is an orphan, and the job may still want it.
    let held = |id: &ServerId| {
        let of_it = |job: &&Job| job.subject.server() == Some(id);
        let all_wait = busy_before.iter().filter(of_it).all(|job| job.rest() == Some(Outcome::Held));
        busy_after.iter().find(of_it).filter(|job| all_wait && job.rest() == Some(Outcome::Held)).map(|job| job.id)
    };
    let still_lost = |lost: &Lost| {
        let server = servers.iter().find(|server| server.id == lost.server);
        let same = server.and_then(|server| server.owned.host.as_ref()).is_some_and(|host| *host == lost.host);
        same && !busy(&lost.server)
    };
    let mut left = Sweep { lost: found.lost.into_iter().filter(still_lost).collect(), ..Sweep::default() };
    left.unasked = found.unasked;
    left.waiting = found.waiting;
    let claimed = |orphan: &Orphan| servers.iter().any(|server| orphan.is_claimed_by(server));
    // Of one that a job is deleting, that job's message tells.
    let of_job = |orphan: &Orphan| orphan.server.as_ref().is_some_and(busy);
    left.leaving = found.leaving.into_iter().filter(|orphan| !claimed(orphan) && !of_job(orphan)).collect();
    for orphan in found.orphans {
        if claimed(&orphan) {
            continue;
        }
        match orphan.server.as_ref().filter(|id| busy(id)) {
            None => left.orphans.push(orphan),
            Some(id) => left.waiting.extend(held(id).map(|job| (orphan, job))),
        }
    }
    left
}

/// Whose business a finding is: the guild of the server that its label names. What names no known server is the
/// business of a guild that has Spawnpoint to itself, and otherwise the operator's alone.
pub fn concerns(named: Option<&Server>, guild: &GuildId, servers: &[Server]) -> bool {
    match named {
        Some(server) => server.guild == *guild,
        None => servers.iter().all(|server| server.guild == *guild),
    }
}

/// From when on what was played is lost with a host: since the last backup, or since the host was there. `None` where
/// nothing is.
pub fn lost_since(server: &Server, host: &HostRef) -> Option<Ms> {
    if !host.played {
        return None;
    }
    let backup = server.owned.world.as_ref().and_then(|world| world.taken_at());
    Some(backup.map_or(host.created_at, |backup| backup.max(host.created_at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HOUR_MS;
    use crate::model::access::Actor;
    use crate::model::host::Place;
    use crate::model::job::{Action, Cause, NewJob, Subject};
    use crate::model::server::{Limits, Owned, ServerName, Wanted};
    use crate::model::world::BackupId;

    fn orphan(id: &str, server: Option<&str>) -> Orphan {
        Orphan {
            backend: Backend::Cloud,
            provider: "hetzner".into(),
            kind: OrphanKind::Host,
            id: id.into(),
            name: format!("spawnpoint-{id}"),
            since: Some(0),
            price: None,
            server: server.map(|id| ServerId(id.into())),
            adoptable: true,
        }
    }

    fn host(id: &str) -> HostRef {
        serde_json::from_value(serde_json::json!({
            "provider": "hetzner", "id": id, "region": "r", "size": "s", "firewall": format!("fw-{id}"),
            "created_at": 10, "host_key": "", "played": true
        }))
        .unwrap()
    }

    fn server(id: &str, guild: &str, host: Option<HostRef>) -> Server {
        Server {
            id: ServerId(id.into()),
            guild: GuildId(guild.into()),
            name: ServerName::parse(id).unwrap(),
            game: "toy".into(),
            backend: Backend::Cloud,
            settings: Default::default(),
            limits: Limits::default(),
            place: Place::default(),
            wanted: Wanted::Off,
            owned: Owned { host, ..Owned::default() },
            lease_until: None,
            channel: None,
            update_at_start: false,
            created_at: 0,
            deleted_at: None,
        }
    }

    fn job_on(server: &str) -> Job {
        let new = NewJob {
            subject: Subject::Server(ServerId(server.into())),
            guild: GuildId("g".into()),
            action: Action::Start,
            cause: Cause::Asked,
            actor: Actor::Operator,
            channel: None,
            plan: vec![],
        };
        Job::new(JobId(1), 0, new)
    }

    #[test]
    fn only_what_nobody_claims_and_no_job_works_on_is_an_orphan() {
        let servers = [server("a", "g", Some(host("1"))), server("b", "g", None)];
        let busy = [job_on("b")];
        let found = |one: Orphan| Sweep { orphans: vec![one], ..Sweep::default() };
        let firewall = |id: &str| Orphan { kind: OrphanKind::Firewall, ..orphan(id, Some("a")) };
        let elsewhere = Orphan { provider: "linode".into(), ..orphan("1", Some("a")) };
        for (what, one, before, after, expected) in [
            ("the host on record", orphan("1", Some("a")), &[][..], &[][..], false),
            ("a second host with the label of the same server", orphan("2", Some("a")), &[], &[], true),
            ("the same number at another provider", elsewhere, &[], &[], true),
            ("the host of a server without one", orphan("3", Some("b")), &[], &[], true),
            ("the same while a job worked on it when we began to look", orphan("3", Some("b")), &busy, &[], false),
            ("the same while a job works on it now", orphan("3", Some("b")), &[], &busy, false),
            ("the host of a server that nobody knows", orphan("4", Some("gone")), &[], &[], true),
            ("a host without a server's label", orphan("5", None), &busy, &busy, true),
            ("the firewall of the host on record", firewall("fw-1"), &[], &[], false),
            ("another firewall", firewall("fw-2"), &[], &[], true),
        ] {
            let leaving = Sweep { leaving: vec![one.clone()], ..Sweep::default() };
            let left = settled(found(one), &servers, before, after);
            assert_eq!(!left.orphans.is_empty(), expected, "{what}");
            let left = settled(leaving, &servers, before, after);
            assert_eq!(!left.leaving.is_empty(), expected, "{what}, on its way out");
        }
    }

    #[test]
    fn a_host_is_lost_only_while_its_server_still_has_it_on_record_and_no_job_works() {
        let lost = Lost { server: ServerId("a".into()), host: host("1") };
        let found = || Sweep { lost: vec![lost.clone()], ..Sweep::default() };
        let has = [server("a", "g", Some(host("1")))];
        assert_eq!(settled(found(), &has, &[], &[]).lost, vec![lost.clone()]);
        assert!(settled(found(), &[server("a", "g", None)], &[], &[]).lost.is_empty(), "let go meanwhile");
        assert!(settled(found(), &[server("a", "g", Some(host("2")))], &[], &[]).lost.is_empty(), "it has another");
        assert!(settled(found(), &has, &[job_on("a")], &[]).lost.is_empty(), "a stop was under way");
        assert!(settled(found(), &has, &[], &[job_on("a")]).lost.is_empty(), "a stop is under way");
    }

    #[test]
    fn who_could_not_be_asked_is_always_told() {
        let unasked = Unasked { provider: "vultr".into(), why: "it did not answer".into() };
        let found = Sweep { unasked: vec![unasked.clone()], ..Sweep::default() };
        assert_eq!(settled(found, &[], &[], &[]).unasked, vec![unasked]);
    }

    #[test]
    fn a_finding_concerns_the_guild_of_its_server_or_one_that_is_alone() {
        let (mine, theirs) = (server("a", "g", None), server("b", "other", None));
        let guild = GuildId("g".into());
        let both = [mine.clone(), theirs.clone()];
        assert!(concerns(Some(&mine), &guild, &both));
        assert!(!concerns(Some(&theirs), &guild, &both));
        assert!(!concerns(None, &guild, &both), "whose it is nobody knows");
        assert!(concerns(None, &guild, &[mine]));
        assert!(concerns(None, &guild, &[]));
    }

    #[test]
    fn what_no_channel_hears_of_is_logged_with_all_that_it_takes_to_remove_it() {
        let price = Price { hourly: 10_000, monthly: None, currency: "EUR".into(), unit_ms: HOUR_MS };
        let host = Orphan { price: Some(price), ..orphan("42", None) };
        insta::assert_snapshot!(host.unheard(), @"Nobody claims the host “spawnpoint-42” (id 42) at hetzner for 0.01 € an hour, and no channel could be told. It was left alone. Where `/admin orphans` does not list it, delete it at hetzner yourself.");
        assert!(orphan("42", None).unheard().contains("(id 42) at hetzner, and no channel"));
    }

    #[test]
    fn what_is_lost_with_a_host_is_what_was_played_since_the_last_backup() {
        let backed_up = |at: &str| {
            let mut server = server("a", "g", None);
            server.owned.world = Some(BackupId(format!("{at}-4f1c")));
            server
        };
        let host = HostRef { created_at: 24 * HOUR_MS, ..host("1") };
        let unplayed = HostRef { played: false, ..host.clone() };
        assert_eq!(lost_since(&server("a", "g", None), &unplayed), None);
        assert_eq!(lost_since(&server("a", "g", None), &host), Some(host.created_at), "there was no backup");
        assert_eq!(lost_since(&backed_up("19700101T000000Z"), &host), Some(host.created_at), "one from before");
        assert_eq!(lost_since(&backed_up("19700102T100000Z"), &host), Some(34 * HOUR_MS), "one from meanwhile");
        assert_eq!(lost_since(&backed_up("19700102T100000Z"), &unplayed), None);
    }

    #[test]
    fn a_tag_is_short_and_never_changes() {
        let orphan = orphan("42", Some("a"));
        assert_eq!(orphan.tag().len(), 16);
        let other = Orphan { name: "renamed".into(), price: None, server: None, ..orphan.clone() };
        assert_eq!(orphan.tag(), other.tag());
        assert_ne!(orphan.tag(), Orphan { id: "43".into(), ..orphan.clone() }.tag());
        assert_ne!(orphan.tag(), Orphan { kind: OrphanKind::Volume, ..orphan }.tag());
    }
}
