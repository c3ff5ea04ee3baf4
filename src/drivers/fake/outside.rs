//! The world outside of the fake: hosts, drives, games, snapshots and backups in memory, the faults that are to strike,
//! and what must never happen and did. It survives every engine that works on it.

use super::toy::Toy;
use crate::engine::StepCx;
use crate::model::cost::{Other, Price, Quote};
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::{Step, StepState};
use crate::model::world::BackupId;
use crate::model::{HOUR_MS, JobId, Ms, ServerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Everything outside of the engine: what a crash leaves as it was.
#[derive(Clone, Debug, Default)]
pub struct Outside(Arc<Mutex<Things>>);

#[derive(Debug, Default)]
pub struct Things {
    /// Hosts and drives, by their id.
    pub hosts: BTreeMap<String, Place>,
    pub drives: BTreeMap<String, Place>,
    /// Containers, by id, with the server they belong to.
    pub containers: BTreeMap<String, ServerId>,
    /// The game of each server that has a container or a host.
    pub games: BTreeMap<ServerId, Game>,
    pub images: BTreeSet<String>,
    pub snapshots: BTreeMap<String, SnapshotFiles>,
    /// Versions of worlds. A backup is never changed.
    pub backups: BTreeMap<BackupId, (ServerId, u64)>,
    /// Copies on the way into the vault, by job.
    pub copies: BTreeMap<JobId, Copy>,
    /// What each server's world is now, as its players know it.
    pub present: BTreeMap<ServerId, u64>,
    /// Versions that somebody has played.
    pub precious: BTreeSet<u64>,
    /// Saving is off while a live backup is taken.
    pub quiet: BTreeSet<ServerId>,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// Every call of `run` and `undo`, in order.
    pub calls: Vec<(Way, Step)>,
    /// Lines that were said in games and typed into consoles.
    pub told: Vec<String>,
    /// What consoles answer to any line; empty: the line and `ok`.
    pub answer: String,
    pub faults: Vec<Fault>,
    /// Does every step and every undo twice.
    pub twice: bool,
    /// Nobody can look: every server is unknown.
    pub blind: bool,
    /// How often somebody looked.
    pub looks: usize,
    /// Looking takes so long, after everything was seen: what it answers is old.
    pub look_takes: Duration,
    /// Looking never ends.
    pub look_hangs: bool,
    /// Looking panics.
    pub look_panics: bool,
    pub limits: BTreeMap<String, Duration>,
    /// What a host costs; `None`: 0.01 $ for every hour that was begun.
    pub price: Option<Price>,
    /// No host is to be had, and this is why.
    pub no_quote: Option<String>,
    /// What can be rented beside the usual one.
    pub others: Vec<Other>,
    /// The usual one was refused a while ago.
    pub refused: bool,
    /// Hosts are machines of the operator's own: nobody sends a bill.
    pub own_machines: bool,
    /// Hosts were created when they were made. Off, all say 0, so that two runs of one story end alike.
    pub hosts_have_age: bool,
    /// Steps write these lines into their output.
    pub says: Vec<String>,
    /// The beginning of every error and of every note.
    pub reason: String,
    /// Toys that run or have ended, where the fake plays them, and how many turns each version of a world has.
    pub(super) toys: BTreeMap<ServerId, Toy>,
    pub(super) turns: BTreeMap<u64, u64>,
    /// Servers in the middle of a step.
    at_work: BTreeMap<String, JobId>,
    versions: u64,
}

/// A host or a drive.
#[derive(Clone, Debug)]
pub struct Place {
    pub server: ServerId,
    pub made_by: JobId,
    pub world: Option<u64>,
    /// A game has run on it since the world was put there.
    pub played: bool,
    /// A push began and did not end.
    pub half_pushed: bool,
    pub up: bool,
    pub installed: bool,
    pub created_at: Ms,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Game {
    pub running: bool,
    pub exit_code: Option<i64>,
    /// The dead-man switch has ended it.
    pub unwatched: bool,
    pub players: Option<u32>,
    pub names: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct SnapshotFiles {
    pub whole: bool,
    pub sealed: bool,
}

#[derive(Clone, Debug)]
pub struct Copy {
    pub world: Option<u64>,
    pub whole: bool,
    pub verified: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Run,
    Undo,
}

/// One thing that goes wrong, `times` times.
#[derive(Clone, Debug)]
pub struct Fault {
    pub way: Way,
    pub step: Step,
    pub kind: Kind,
    pub times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fails for good before anything is done.
    Before,
    /// Does it, and fails for good.
    After,
    /// Does a part of it, and fails for good.
    Half,
    /// Does it, and says that another try may help.
    Retry,
    /// Never ends, before or after its effect.
    Hang,
    HangAfter,
    Panic,
    /// Somebody cancels while it runs, and it never ends by itself.
    CancelAndHang,
    /// Somebody cancels just before it ends.
    CancelAndEnd,
}

impl Outside {
    pub fn get(&self) -> MutexGuard<'_, Things> {
        // A scripted panic never holds the lock, so it cannot be poisoned by one.
        self.0.lock().expect("no holder of this lock can panic")
    }

    pub fn fault(&self, way: Way, step: Step, kind: Kind, times: u32) {
        self.get().faults.push(Fault { way, step, kind, times });
    }

    /// Somebody plays: the world on the server's place becomes a new one that must not be lost.
    pub fn play(&self, server: &ServerId) {
        self.get().played(server);
    }

    /// A host with a server's label that nobody has on record, on which somebody has played.
    pub fn plant_host(&self, name: &str, server: &ServerId, created_at: Ms) {
        let mut things = self.get();
        let version = things.new_version();
        let place = Place {
            server: server.clone(),
            made_by: JobId(0),
            world: Some(version),
            played: true,
            half_pushed: false,
            up: true,
            installed: true,
            created_at,
        };
        things.hosts.insert(name.to_owned(), place);
        things.precious.insert(version);
    }

    pub fn players(&self, server: &ServerId, online: Option<u32>) {
        self.get().games.entry(server.clone()).or_default().players = online;
    }

    /// The game goes away by itself.
    pub fn crash_game(&self, server: &ServerId, exit_code: i64) {
        let game = Game { running: false, exit_code: Some(exit_code), ..Game::default() };
        let mut things = self.get();
        things.games.insert(server.clone(), game);
        if let Some(toy) = things.toys.get_mut(server) {
            toy.is_gone(exit_code);
        }
    }

    pub fn is_running(&self, server: &ServerId) -> bool {
        self.get().games.get(server).is_some_and(|game| game.running)
    }

    /// The whole outside world, for people and for comparing.
    pub fn picture(&self) -> String {
        let things = self.get();
        let mut text = String::new();
        for (kind, places) in [("host", &things.hosts), ("drive", &things.drives)] {
            for (id, place) in places {
                text += &format!("{kind} {id}: world {:?}, half {}\n", place.world, place.half_pushed);
            }
        }
        text += &format!("containers {:?}\n", things.containers.keys().collect::<Vec<_>>());
        text += &format!("games {:?}\n", things.games);
        text += &format!("images {:?} snapshots {:?}\n", things.images, things.snapshots);
        text += &format!("backups {:?}\n", things.backups);
        text += &format!("copies {:?} quiet {:?}\n", things.copies, things.quiet);
        text
    }
}

impl Things {
    pub(super) fn new_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// The server's world is a new one from now on, and somebody would miss it.
    pub(super) fn played(&mut self, server: &ServerId) -> u64 {
        let version = self.new_version();
        let place = self.place_mut(server).expect("only a started server is played on");
        place.world = Some(version);
        place.played = true;
        self.present.insert(server.clone(), version);
        self.precious.insert(version);
        version
    }

    pub(super) fn place_mut(&mut self, server: &ServerId) -> Option<&mut Place> {
        self.hosts.values_mut().chain(self.drives.values_mut()).find(|place| place.server == *server)
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    pub(super) fn take_fault(&mut self, way: Way, step: Step) -> Option<Kind> {
        let fault = self.faults.iter_mut().find(|fault| fault.way == way && fault.step == step && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.kind)
    }

    /// Says so if something is about to go that holds the only copy of a world.
    pub(super) fn check_loss(&mut self, what: &str, place: &Place, cx: &StepCx<'_>) {
        let Some(world) = place.world else { return };
        let kept = self.backups.values().any(|(_, kept)| *kept == world);
        let forced = cx.job.steps.iter().any(|record| record.state == StepState::Forced);
        if self.precious.contains(&world) && !kept && !forced {
            self.violation(format!("{what} was destroyed with the only copy of world {world}"));
        }
    }

    pub(super) fn quote(&self) -> Quote {
        if self.own_machines {
            let (region, size) = ("attic".to_owned(), "your own".to_owned());
            return Quote { provider: OWN_MACHINE.to_owned(), region, size, cpus: None, memory_mb: None, price: None };
        }
        let usual = Price { hourly: 10_000, monthly: None, currency: "USD".into(), unit_ms: HOUR_MS };
        let price = self.price.clone().unwrap_or(usual);
        Quote {
            provider: "fake".into(),
            region: "here".into(),
            size: "small".into(),
            cpus: Some(1),
            memory_mb: Some(2048),
            price: Some(price),
        }
    }
}

/// Marks a server as worked on for as long as a step runs, also when the step is dropped.
pub(super) struct AtWork {
    outside: Outside,
    key: String,
}

impl AtWork {
    pub(super) fn enter(outside: &Outside, cx: &StepCx<'_>) -> AtWork {
        let key = cx.job.subject.key();
        let mut things = outside.get();
        if let Some(other) = things.at_work.insert(key.clone(), cx.job.id) {
            things.violation(format!("jobs {other} and {} worked on {key} at once", cx.job.id));
        }
        AtWork { outside: outside.clone(), key }
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.outside.get().at_work.remove(&self.key);
    }
}

pub(super) fn place(server: &ServerId, cx: &StepCx<'_>) -> Place {
    Place {
        server: server.clone(),
        made_by: cx.job.id,
        world: None,
        played: false,
        half_pushed: false,
        up: false,
        installed: false,
        created_at: 0,
    }
}

pub(super) fn host_ref(things: &Things, id: String) -> HostRef {
    let Quote { provider, region, size, price, cpus: _, memory_mb: _ } = things.quote();
    HostRef {
        provider,
        created_at: things.hosts.get(&id).map_or(0, |place| place.created_at),
        id,
        region,
        size,
        address: Some([127, 0, 0, 1].into()),
        label: None,
        firewall: None,
        price,
        host_key: String::new(),
        played: false,
    }
}

pub(super) fn names_of(places: &BTreeMap<String, Place>, server: &ServerId) -> Vec<String> {
    places.iter().filter(|(_, place)| place.server == *server).map(|(name, _)| name.clone()).collect()
}
