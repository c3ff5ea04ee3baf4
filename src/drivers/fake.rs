//! A driver without a backend, for tests: both plans of `model::plan` over a small outside world in memory. The
//! world survives the engine, so a test can drop one engine and start another. It can be told to fail, hang, panic
//! or stop half way at any step, and it writes down every time that something happened which must never happen
//! (docs/architecture.md, "What must never happen"). It is idempotent like a real driver: it looks before it makes.

use crate::engine::{ConsoleFault, Driver, StepCx, StepError, builder_of};
use crate::model::access::Actor;
use crate::model::cost::{Price, Quote};
use crate::model::drive::{DriveRef, Snapshot, SnapshotId, golden};
use crate::model::host::{HostImage, HostRef, OWN_MACHINE};
use crate::model::job::{Action, Event, Gain, Recorded, Step, StepState};
use crate::model::server::{Backend, Players, Seen, Server};
use crate::model::sweep::{Lost, Orphan, OrphanKind, Sweep};
use crate::model::world::{BackupId, WorldAt};
use crate::model::{HOUR_MS, JobId, Ms, ServerId};
use anyhow::Context;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How long a step may take unless a test says otherwise.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);
/// How often a start looks whether another job's snapshot is there.
const BUILDER_POLL: Duration = Duration::from_secs(1);

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
    /// Hosts are machines of the operator's own: nobody sends a bill.
    pub own_machines: bool,
    /// Hosts were created when they were made. Off, all say 0, so that two runs of one story end alike.
    pub hosts_have_age: bool,
    /// Steps write these lines into their output.
    pub says: Vec<String>,
    /// The beginning of every error and of every note.
    pub reason: String,
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
        let mut things = self.get();
        let version = things.new_version();
        let place = things.place_mut(server).expect("only a started server is played on");
        place.world = Some(version);
        place.played = true;
        things.present.insert(server.clone(), version);
        things.precious.insert(version);
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
        self.get().games.insert(server.clone(), game);
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
    fn new_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn place_mut(&mut self, server: &ServerId) -> Option<&mut Place> {
        self.hosts.values_mut().chain(self.drives.values_mut()).find(|place| place.server == *server)
    }

    fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    fn take_fault(&mut self, way: Way, step: Step) -> Option<Kind> {
        let fault = self.faults.iter_mut().find(|fault| fault.way == way && fault.step == step && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.kind)
    }

    /// Says so if something is about to go that holds the only copy of a world.
    fn check_loss(&mut self, what: &str, place: &Place, cx: &StepCx<'_>) {
        let Some(world) = place.world else { return };
        let kept = self.backups.values().any(|(_, kept)| *kept == world);
        let forced = cx.job.steps.iter().any(|record| record.state == StepState::Forced);
        if self.precious.contains(&world) && !kept && !forced {
            self.violation(format!("{what} was destroyed with the only copy of world {world}"));
        }
    }
}

/// Marks a server as worked on for as long as a step runs, also when the step is dropped.
struct AtWork {
    outside: Outside,
    key: String,
}

impl AtWork {
    fn enter(outside: &Outside, cx: &StepCx<'_>) -> AtWork {
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

/// The scripted driver. Two engines may each have one over the same outside world.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    pub outside: Outside,
}

type Done = Result<Gain, StepError>;

impl Fake {
    pub fn new(outside: Outside) -> Fake {
        Fake { outside }
    }

    async fn step(&self, way: Way, step: Step, cx: &StepCx<'_>) -> Done {
        let _at_work = AtWork::enter(&self.outside, cx);
        let (fault, twice, reason) = {
            let mut things = self.outside.get();
            things.calls.push((way, step));
            for line in &things.says {
                cx.out.line(line);
            }
            (things.take_fault(way, step), things.twice, things.reason.clone())
        };
        // Gives a second engine its chance to be here at the same time.
        tokio::task::yield_now().await;
        match fault {
            None => {}
            Some(Kind::Before) => return Err(StepError::fatal(format!("{reason}It broke before it began."))),
            Some(Kind::Hang) => std::future::pending().await,
            Some(Kind::Panic) => panic!("scripted: {step:?}"),
            Some(Kind::Half) => {
                self.half(way, step, cx).await?;
                return Err(StepError::fatal(format!("{reason}It broke half way.")));
            }
            Some(Kind::CancelAndHang) => {
                cancel(cx).await;
                std::future::pending().await
            }
            Some(Kind::After | Kind::Retry | Kind::HangAfter | Kind::CancelAndEnd) => {}
        }
        if (way, step) == (Way::Run, Step::EnsureSnapshot) {
            await_builder(cx).await?;
        }
        let mut gain = self.effect(way, step, cx).await?;
        if twice {
            gain = self.effect(way, step, cx).await?;
        }
        if !reason.is_empty() {
            gain = gain.with_note(reason.clone());
        }
        match fault {
            Some(Kind::After) => Err(StepError::fatal(format!("{reason}It broke at the very end."))),
            Some(Kind::Retry) => Err(StepError::retry(format!("{reason}It may go better in a moment."))),
            Some(Kind::HangAfter) => std::future::pending().await,
            Some(Kind::CancelAndEnd) => {
                cancel(cx).await;
                Ok(gain)
            }
            Some(Kind::Before | Kind::Half | Kind::Hang | Kind::Panic | Kind::CancelAndHang) | None => Ok(gain),
        }
    }

    async fn effect(&self, way: Way, step: Step, cx: &StepCx<'_>) -> Done {
        // Reading the journal may take time, and the lock is never held over that.
        let snapshots = cx.journal.snapshots().await.map_err(StepError::Retry)?;
        let mut things = self.outside.get();
        match (way, cx.server) {
            (Way::Run, Some(server)) => run(&mut things, step, cx, server, &snapshots),
            (Way::Undo, Some(server)) => undo(&mut things, step, cx, server),
            (Way::Run, None) => build(&mut things, step, cx, &snapshots),
            (Way::Undo, None) => Ok(unbuild(&mut things, step, cx)),
        }
    }

    fn seen(&self, servers: &[Server]) -> (Vec<Seen>, Duration) {
        let things = self.outside.get();
        let look = |server: &Server| {
            if things.blind {
                return Seen::Unknown { why: "scripted".into() };
            }
            let exists = match server.backend {
                Backend::Docker => things.containers.values().any(|id| *id == server.id),
                Backend::Cloud => things.hosts.values().any(|place| place.server == server.id),
            };
            match things.games.get(&server.id) {
                Some(game) if exists && game.running => Seen::Running {
                    players: Players {
                        online: game.players,
                        names: game.names.clone(),
                        answers: true,
                        ..Players::default()
                    },
                },
                Some(game) if exists => Seen::Stopped { exit_code: game.exit_code, out_of_memory: false },
                None if exists => Seen::Stopped { exit_code: None, out_of_memory: false },
                Some(_) | None => Seen::Gone,
            }
        };
        (servers.iter().map(look).collect(), things.look_takes)
    }

    /// The first part of a step that has parts; the whole of one that has none.
    async fn half(&self, way: Way, step: Step, cx: &StepCx<'_>) -> Result<(), StepError> {
        match (way, step) {
            (Way::Run, Step::PushWorld) => {
                let server = cx.server()?;
                let mut things = self.outside.get();
                let restores = matches!(cx.job.action, Action::Restore { .. });
                if let Some(place) = things.place_mut(&server.id)
                    && (!place.played || restores)
                {
                    (place.world, place.half_pushed) = (None, true);
                }
            }
            (Way::Run, Step::PullWorld) => {
                let copy = Copy { world: None, whole: false, verified: false };
                self.outside.get().copies.insert(cx.job.id, copy);
            }
            (Way::Run, Step::RunInstaller) => {
                if let Some(files) = self.outside.get().snapshots.get_mut(&snapshot_id(cx).0) {
                    files.whole = false;
                }
            }
            (Way::Run, Step::StopGame | Step::VerifyWorld | Step::KeepBackup) => {}
            (Way::Run | Way::Undo, _) => {
                self.effect(way, step, cx).await?;
            }
        }
        Ok(())
    }
}

/// Waits while another job makes the snapshot that this start needs.
async fn await_builder(cx: &StepCx<'_>) -> Result<(), StepError> {
    // The builder first: one that ends in between has written its snapshot.
    while builder_of(cx.journal, cx.game(), Some(cx.job.id)).await.map_err(StepError::Retry)?.is_some() {
        if golden(&cx.journal.snapshots().await.map_err(StepError::Retry)?, cx.game()).is_some() {
            break;
        }
        tokio::time::sleep(BUILDER_POLL).await;
    }
    Ok(())
}

async fn cancel(cx: &StepCx<'_>) {
    let recorded = Recorded { at: cx.now, event: Event::CancelRequested { by: Actor::Operator } };
    cx.journal.append(cx.job, None, &recorded).await.expect("nobody else writes while a step runs");
}

fn snapshot_id(cx: &StepCx<'_>) -> SnapshotId {
    // One snapshot for each job that builds one: a second try finds the first one's.
    SnapshotId::new(cx.game(), cx.job.id.0)
}

fn snapshot(cx: &StepCx<'_>, sealed: bool) -> Snapshot {
    Snapshot {
        id: snapshot_id(cx),
        game: cx.game().to_owned(),
        version: cx.job.id.0,
        image: "fake".into(),
        install_key: "fake".into(),
        files: None,
        bytes: None,
        created_at: cx.job.created_at,
        sealed_at: sealed.then_some(cx.job.created_at),
    }
}

fn build(things: &mut Things, step: Step, cx: &StepCx<'_>, _known: &[Snapshot]) -> Done {
    let id = snapshot_id(cx);
    let missing = || StepError::fatal("The snapshot is not there.");
    match step {
        Step::BuildImage => {
            things.images.insert(cx.game().to_owned());
            Ok(Gain::default())
        }
        Step::CreateSnapshot => {
            things.snapshots.entry(id.0).or_default();
            Ok(Gain { snapshot: Some(snapshot(cx, false)), ..Gain::default() })
        }
        Step::RunInstaller => {
            let files = things.snapshots.get_mut(&id.0).ok_or_else(missing)?;
            files.whole = true;
            Ok(Gain::default())
        }
        Step::SealSnapshot => {
            let files = things.snapshots.get_mut(&id.0).ok_or_else(missing)?;
            if !files.whole {
                return Err(StepError::fatal("The installer did not end."));
            }
            files.sealed = true;
            Ok(Gain { snapshot: Some(snapshot(cx, true)), ..Gain::default() })
        }
        other => Err(StepError::fatal(format!("{other:?} needs a server."))),
    }
}

fn unbuild(things: &mut Things, step: Step, cx: &StepCx<'_>) -> Gain {
    let id = snapshot_id(cx);
    if step != Step::CreateSnapshot || things.snapshots.remove(&id.0).is_none() {
        // The image stays: it is a cache by content, and the next build finds it.
        return match step {
            Step::CreateSnapshot => Gain { snapshot_removed: Some(id.0), ..Gain::default() },
            _ => Gain::default(),
        };
    }
    Gain { snapshot_removed: Some(id.0), ..Gain::default() }
}

fn run(things: &mut Things, step: Step, cx: &StepCx<'_>, server: &Server, known: &[Snapshot]) -> Done {
    let mut owned = server.owned.clone();
    let id = server.id.clone();
    let restored = match &cx.job.action {
        Action::Restore { backup } => Some(backup.clone()),
        _ => None,
    };
    match step {
        Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => {
            return build(things, step, cx, known);
        }
        Step::EnsureSnapshot => {
            if golden(known, &server.game).is_none() {
                return Err(StepError::fatal("There is no snapshot."));
            }
            return Ok(Gain::default());
        }
        Step::CloneDrive | Step::ReplaceDrive => {
            let golden = golden(known, &server.game).ok_or_else(|| StepError::fatal("There is no snapshot."))?;
            let name =
                format!("drive-{id}-{}", if step == Step::CloneDrive { "0".into() } else { cx.job.id.to_string() });
            let others: Vec<String> =
                things.drives.iter().filter(|(_, place)| place.server == id).map(|(name, _)| name.clone()).collect();
            // A server that has a drive keeps it; only a replacement changes it.
            if step == Step::CloneDrive && owned.drive.is_some() && !others.is_empty() {
                return Ok(Gain::owned(owned));
            }
            for other in others.iter().filter(|other| **other != name) {
                let place = things.drives.remove(other).expect("it was just listed");
                things.check_loss(other, &place, cx);
            }
            if !things.drives.contains_key(&name) {
                things.drives.insert(name.clone(), place(&id, cx));
            }
            owned.drive = Some(DriveRef { id: name, snapshot: golden.id.clone(), world: WorldAt::Empty });
        }
        Step::DeleteDrive => {
            for name in names_of(&things.drives, &id) {
                let place = things.drives.remove(&name).expect("it was just listed");
                things.check_loss(&name, &place, cx);
            }
            owned.drive = None;
        }
        Step::CreateContainer => {
            let name = format!("container-{id}");
            things.containers.insert(name.clone(), id);
            owned.container = Some(name);
            owned.address = Some("127.0.0.1:3979".into());
        }
        Step::RemoveContainer => {
            things.containers.remove(&format!("container-{id}"));
            things.games.remove(&id);
            (owned.container, owned.address) = (None, None);
        }
        Step::CreateHost => {
            let found = names_of(&things.hosts, &id).into_iter().next();
            let name = found.unwrap_or_else(|| format!("host-{id}-{}", cx.job.id));
            if !things.hosts.contains_key(&name) {
                let created_at = if things.hosts_have_age { cx.now } else { 0 };
                things.hosts.insert(name.clone(), Place { created_at, ..place(&id, cx) });
            }
            owned.host = Some(host_ref(things, name));
        }
        Step::AwaitHost => {
            let place = things.place_mut(&id).ok_or_else(|| StepError::fatal("There is no host."))?;
            place.up = true;
            owned.address = Some("127.0.0.1:3979".into());
        }
        Step::Bootstrap => return Ok(Gain::default()),
        Step::Install => {
            let place = things.place_mut(&id).ok_or_else(|| StepError::fatal("There is no host."))?;
            place.installed = true;
        }
        Step::PushWorld => {
            let present = restored.or(owned.world.clone());
            let world = present.as_ref().and_then(|present| things.backups.get(present)).map(|(_, world)| *world);
            let restores = matches!(cx.job.action, Action::Restore { .. });
            match things.place_mut(&id) {
                // Without a place, putting the world in place means naming it: the next start pushes it.
                None => {}
                Some(place) if place.played && !restores && !place.half_pushed => return Ok(Gain::owned(owned)),
                Some(place) => {
                    (place.world, place.half_pushed, place.played) = (world, false, false);
                }
            }
            if let (Some(drive), Some(present)) = (&mut owned.drive, &present) {
                drive.world = WorldAt::Backup(present.clone());
            }
            if restores && let Some(world) = world {
                things.present.insert(id, world);
            }
            owned.world = present;
        }
        Step::StartGame => {
            let has_backup = things.backups.values().any(|(of, _)| *of == id);
            let present = things.present.get(&id).copied();
            let Some(place) = things.place_mut(&id) else { return Err(StepError::fatal("There is no place to run.")) };
            let (world, half) = (place.world, place.half_pushed);
            place.played = true;
            if half {
                things.violation("a game was started after a push that failed");
            } else if world.is_none() && has_backup {
                things.violation("a game was started on a fresh world although a backup exists");
            } else if world.is_some() && world != present {
                things.violation(format!("a game was started on world {world:?}, and the present one is {present:?}"));
            }
            if world.is_none() {
                let fresh = things.new_version();
                things.place_mut(&id).expect("it was just found").world = Some(fresh);
                things.present.insert(id.clone(), fresh);
            }
            let game = things.games.entry(id).or_default();
            (game.running, game.exit_code) = (true, None);
            if let Some(drive) = &mut owned.drive {
                drive.world = WorldAt::Played;
            }
            owned.host = owned.host.map(|host| HostRef { played: true, ..host });
        }
        Step::AwaitReady => {
            if !things.games.get(&id).is_some_and(|game| game.running) {
                return Err(StepError::fatal("The game ended before it was ready."));
            }
            return Ok(Gain::default());
        }
        Step::WarnPlayers => return Ok(Gain::default()),
        Step::StopGame => {
            if let Some(game) = things.games.get_mut(&id) {
                (game.running, game.exit_code) = (false, Some(0));
            }
            return Ok(Gain::default());
        }
        Step::QuiesceGame => {
            things.quiet.insert(id);
            return Ok(Gain::default());
        }
        Step::ResumeSaves => {
            things.quiet.remove(&id);
            return Ok(Gain::default());
        }
        Step::PullWorld => {
            let world = things.place_mut(&id).and_then(|place| place.world);
            things.copies.insert(cx.job.id, Copy { world, whole: true, verified: false });
            return Ok(Gain::note("1 file"));
        }
        Step::VerifyWorld => {
            let world = things.place_mut(&id).and_then(|place| place.world);
            match things.copies.get_mut(&cx.job.id) {
                Some(copy) if copy.whole && copy.world == world => copy.verified = true,
                Some(_) | None => return Err(StepError::fatal("The copy is not the world.")),
            }
            return Ok(Gain::default());
        }
        Step::KeepBackup => {
            let backup = BackupId(format!("backup-{}", cx.job.id));
            match things.copies.remove(&cx.job.id) {
                Some(copy) if !copy.verified => return Err(StepError::fatal("The copy was not compared.")),
                Some(Copy { world: Some(world), .. }) => {
                    if let Some((_, old)) = things.backups.insert(backup.clone(), (id.clone(), world))
                        && old != world
                    {
                        things.violation(format!("{backup} was overwritten"));
                    }
                }
                // There was no world yet, or an earlier try kept it.
                Some(Copy { world: None, .. }) | None => {}
            }
            if things.backups.contains_key(&backup) {
                if let Some(drive) = &mut owned.drive
                    && !things.games.get(&id).is_some_and(|game| game.running)
                {
                    drive.world = WorldAt::Backup(backup.clone());
                }
                let played = things.games.get(&id).is_some_and(|game| game.running);
                owned.host = owned.host.map(|host| HostRef { played, ..host });
                owned.world = Some(backup);
            }
        }
        Step::DestroyHost => {
            for name in names_of(&things.hosts, &id) {
                let place = things.hosts.remove(&name).expect("it was just listed");
                things.check_loss(&name, &place, cx);
            }
            things.games.remove(&id);
            (owned.host, owned.address) = (None, None);
        }
        Step::ConfirmGone => {
            if !names_of(&things.hosts, &id).is_empty() {
                return Err(StepError::retry("The host is still there."));
            }
            return Ok(Gain::default());
        }
    }
    Ok(Gain::owned(owned))
}

/// Takes back what this very job made, and nothing that was there before it.
fn undo(things: &mut Things, step: Step, cx: &StepCx<'_>, server: &Server) -> Done {
    let mut owned = server.owned.clone();
    let id = server.id.clone();
    match step {
        Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => {
            return Ok(unbuild(things, step, cx));
        }
        Step::CloneDrive | Step::CreateHost => {
            let places = if step == Step::CloneDrive { &mut things.drives } else { &mut things.hosts };
            for name in names_of(places, &id) {
                if places[&name].made_by == cx.job.id {
                    let place = places.remove(&name).expect("it was just listed");
                    things.check_loss(&name, &place, cx);
                    if step == Step::CloneDrive {
                        owned.drive = None
                    } else {
                        (owned.host, owned.address) = (None, None)
                    }
                    break;
                }
            }
            if step == Step::CreateHost && names_of(&things.hosts, &id).is_empty() {
                things.games.remove(&id);
                (owned.host, owned.address) = (None, None);
            }
            if step == Step::CloneDrive && names_of(&things.drives, &id).is_empty() {
                owned.drive = None;
            }
        }
        Step::CreateContainer => {
            things.containers.remove(&format!("container-{id}"));
            things.games.remove(&id);
            (owned.container, owned.address) = (None, None);
        }
        Step::StartGame => {
            if let Some(game) = things.games.get_mut(&id) {
                (game.running, game.exit_code) = (false, Some(0));
            }
            if let Some(drive) = &mut owned.drive {
                drive.world = WorldAt::Played;
            }
        }
        // A half pushed world is wiped: the next start pushes the present one again.
        Step::PushWorld => {
            if let Some(place) = things.place_mut(&id)
                && !place.played
            {
                (place.world, place.half_pushed) = (None, false);
                if let Some(drive) = &mut owned.drive {
                    drive.world = WorldAt::Empty;
                }
            }
            // A restore that is taken back leaves the world that the journal names.
            if let Some((_, world)) = owned.world.as_ref().and_then(|world| things.backups.get(world)).cloned()
                && matches!(cx.job.action, Action::Restore { .. })
            {
                things.present.insert(id, world);
            }
        }
        Step::QuiesceGame | Step::ResumeSaves => {
            things.quiet.remove(&id);
        }
        Step::PullWorld | Step::VerifyWorld | Step::KeepBackup => {
            things.copies.remove(&cx.job.id);
        }
        Step::EnsureSnapshot | Step::AwaitHost | Step::Bootstrap | Step::Install | Step::AwaitReady => {}
        Step::WarnPlayers | Step::StopGame | Step::RemoveContainer | Step::DestroyHost | Step::ConfirmGone => {}
        Step::ReplaceDrive | Step::DeleteDrive => {}
    }
    Ok(Gain::owned(owned))
}

fn place(server: &ServerId, cx: &StepCx<'_>) -> Place {
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

impl Things {
    fn quote(&self) -> Quote {
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

fn host_ref(things: &Things, id: String) -> HostRef {
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

fn names_of(places: &BTreeMap<String, Place>, server: &ServerId) -> Vec<String> {
    places.iter().filter(|(_, place)| place.server == *server).map(|(name, _)| name.clone()).collect()
}

#[async_trait]
impl Driver for Fake {
    async fn run(&self, step: Step, cx: &StepCx<'_>) -> Done {
        self.step(Way::Run, step, cx).await
    }

    async fn undo(&self, step: Step, cx: &StepCx<'_>) -> Done {
        self.step(Way::Undo, step, cx).await
    }

    fn time_limit(&self, step: Step, _cx: &StepCx<'_>) -> Duration {
        self.outside.get().limits.get(step.label()).copied().unwrap_or(STEP_LIMIT)
    }

    async fn look(&self, servers: &[Server]) -> Vec<Seen> {
        let (hangs, panics) = {
            let things = self.outside.get();
            (things.look_hangs, things.look_panics)
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        assert!(!panics, "scripted: looking");
        let (seen, takes) = self.seen(servers);
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        seen
    }

    async fn kill(&self, server: &Server) -> anyhow::Result<()> {
        self.outside.crash_game(&server.id, 137);
        Ok(())
    }

    async fn console(&self, server: &Server, line: &str) -> Result<String, ConsoleFault> {
        if !self.outside.is_running(&server.id) {
            return Err(ConsoleFault::NotRunning);
        }
        let mut things = self.outside.get();
        things.told.push(line.to_owned());
        Ok(if things.answer.is_empty() { format!("{line}: ok") } else { things.answer.clone() })
    }

    async fn tell(&self, _server: &Server, message: &str) -> anyhow::Result<()> {
        self.outside.get().told.push(message.to_owned());
        Ok(())
    }

    async fn logs(&self, _server: &Server, lines: usize) -> anyhow::Result<Vec<String>> {
        let things = self.outside.get();
        Ok(things.says.iter().rev().take(lines).rev().cloned().collect())
    }

    async fn sweep(&self, servers: &[Server]) -> anyhow::Result<Sweep> {
        let things = self.outside.get();
        anyhow::ensure!(!things.blind, "scripted: nobody can look");
        let orphan = |backend: Backend, kind: OrphanKind, id: &String, place: &Place| Orphan {
            backend,
            provider: if backend == Backend::Cloud { "fake".into() } else { backend.word().into() },
            kind,
            id: id.clone(),
            name: id.clone(),
            since: Some(place.created_at),
            price: things.quote().price.filter(|_| kind == OrphanKind::Host),
            server: Some(place.server.clone()),
            adoptable: kind == OrphanKind::Host,
        };
        let claimed = |id: &str| {
            let owned = |server: &Server| {
                let host = server.owned.host.as_ref().map(|host| host.id.as_str());
                [host, server.owned.drive.as_ref().map(|drive| drive.id.as_str())].contains(&Some(id))
            };
            servers.iter().any(owned)
        };
        let hosts = things.hosts.iter().map(|(id, place)| orphan(Backend::Cloud, OrphanKind::Host, id, place));
        let drives = things.drives.iter().map(|(id, place)| orphan(Backend::Docker, OrphanKind::Drive, id, place));
        let orphans = hosts.chain(drives).filter(|orphan| !claimed(&orphan.id)).collect();
        let gone = |server: &Server| {
            let host = server.owned.host.clone().filter(|host| !things.hosts.contains_key(&host.id))?;
            Some(Lost { server: server.id.clone(), host })
        };
        Ok(Sweep { orphans, lost: servers.iter().filter_map(gone).collect(), unasked: vec![] })
    }

    async fn delete_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        let mut things = self.outside.get();
        anyhow::ensure!(!things.blind, "scripted: nobody answers");
        things.hosts.remove(&orphan.id);
        things.drives.remove(&orphan.id);
        Ok(())
    }

    async fn adopt(&self, orphan: &Orphan, _server: &Server) -> anyhow::Result<HostRef> {
        let things = self.outside.get();
        anyhow::ensure!(!things.blind, "scripted: nobody answers");
        let place = things.hosts.get(&orphan.id).context("it is gone")?;
        Ok(HostRef { played: place.played, ..host_ref(&things, orphan.id.clone()) })
    }

    async fn own_bytes(&self, _server: &Server) -> anyhow::Result<Option<u64>> {
        Ok(None)
    }

    async fn delete_snapshot(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        self.outside.get().snapshots.remove(&snapshot.id.0);
        Ok(())
    }

    async fn offers(&self) -> anyhow::Result<Vec<Quote>> {
        let here = self.outside.get().quote();
        let there = Quote { region: "there".into(), ..here.clone() };
        let large = Quote { size: "large".into(), cpus: Some(4), memory_mb: Some(8192), ..here.clone() };
        Ok(vec![here, there, large])
    }

    async fn images(&self) -> anyhow::Result<Vec<HostImage>> {
        let image = |word: &str, title: &str, usual| HostImage {
            provider: "fake".into(),
            word: word.into(),
            title: title.into(),
            usual,
        };
        Ok(vec![image("debian-12", "Debian 12", true), image("fake/ubuntu24", "Ubuntu 24.04 LTS", false)])
    }

    async fn quote(&self, server: &Server) -> Result<Option<Quote>, StepError> {
        let things = self.outside.get();
        match (server.backend, &things.no_quote) {
            (Backend::Docker, _) => Ok(None),
            (Backend::Cloud, None) => Ok(Some(things.quote())),
            (Backend::Cloud, Some(why)) => Err(StepError::fatal(why)),
        }
    }
}
