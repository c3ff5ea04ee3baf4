//! A driver without a backend, for tests: both plans of `model::plan` over a small outside world in memory. The
//! world survives the engine, so a test can drop one engine and start another. It can be told to fail, hang, panic
//! or stop half way at any step, and it writes down every time that something happened which must never happen
//! (docs/architecture.md, "Invariants"). It is idempotent like a real driver: it looks before it makes.
//!
//! `outside` is that world, `steps` and `snapshots` are what the steps do to it, and `toy` is a game that can be played
//! on it; here is what may go wrong with the steps, and the driver itself.

mod outside;
mod snapshots;
mod steps;
mod toy;

pub use outside::{Copy, Fault, Game, Kind, Outside, Place, SnapshotFiles, Things, Way};

use crate::drivers::backups::Backups;
use crate::engine::{ConsoleFault, Driver, StepCx, StepError};
use crate::model::access::Actor;
use crate::model::cost::{Instead, Other, Quote, Rental, spoken};
use crate::model::drive::Snapshot;
use crate::model::host::{HostImage, HostRef};
use crate::model::job::{Action, Event, Gain, Recorded, Step};
use crate::model::server::{Backend, Players, Seen, Server};
use crate::model::sweep::{Lost, Orphan, OrphanKind, Sweep};
use crate::model::world::BackupId;
use anyhow::Context;
use async_trait::async_trait;
use outside::{AtWork, host_ref};
use snapshots::{await_builder, build, snapshot_id, unbuild};
use std::time::Duration;
use steps::{Known, run, undo};
use toy::Toys;

/// How long a step may take unless a test says otherwise.
pub const STEP_LIMIT: Duration = Duration::from_secs(60);

/// The scripted driver. Two engines may each have one over the same outside world.
#[derive(Clone, Default)]
pub struct Fake {
    pub outside: Outside,
    /// Every game is a toy that is played; without this a game is a word in the outside world.
    toys: Option<Toys>,
}

type Done = Result<Gain, StepError>;

impl Fake {
    pub fn new(outside: Outside) -> Fake {
        Fake { outside, toys: None }
    }

    /// One whose games run, answer and misbehave, and whose worlds are kept in this vault.
    pub fn playing(outside: Outside, backups: Backups) -> Fake {
        Fake { outside, toys: Some(Toys { backups }) }
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
        let backup = match &self.toys {
            Some(_) if cx.server.is_some() => BackupId(Backups::id_of(cx)?.as_str().to_owned()),
            Some(_) | None => BackupId(format!("backup-{}", cx.job.id)),
        };
        let known = Known { snapshots, backup };
        let plain = || {
            let mut things = self.outside.get();
            match (way, cx.server) {
                (Way::Run, Some(server)) => run(&mut things, step, cx, server, &known),
                (Way::Undo, Some(server)) => undo(&mut things, step, cx, server),
                (Way::Run, None) => build(&mut things, step, cx),
                (Way::Undo, None) => Ok(unbuild(&mut things, step, cx)),
            }
        };
        match &self.toys {
            Some(toys) if cx.server.is_some() => toys.effect((way, step), cx, &self.outside, plain).await,
            Some(_) | None => plain(),
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
                Some(game) if exists => {
                    Seen::Stopped { exit_code: game.exit_code, out_of_memory: false, unwatched: game.unwatched }
                }
                None if exists => Seen::Stopped { exit_code: None, out_of_memory: false, unwatched: false },
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

async fn cancel(cx: &StepCx<'_>) {
    let recorded = Recorded { at: cx.now, event: Event::CancelRequested { by: Actor::Operator } };
    cx.journal.append(cx.job, None, &recorded).await.expect("nobody else writes while a step runs");
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
            let mut things = self.outside.get();
            things.looks += 1;
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
        if self.toys.is_some() {
            return self.outside.type_into_toy(&server.id, line).ok_or(ConsoleFault::NotRunning);
        }
        let mut things = self.outside.get();
        things.told.push(line.to_owned());
        Ok(if things.answer.is_empty() { format!("{line}: ok") } else { things.answer.clone() })
    }

    async fn tell(&self, server: &Server, message: &str) -> anyhow::Result<()> {
        self.outside.get().told.push(message.to_owned());
        if self.toys.is_some() {
            self.outside.type_into_toy(&server.id, &format!("say {message}"));
        }
        Ok(())
    }

    async fn logs(&self, server: &Server, lines: usize) -> anyhow::Result<Vec<String>> {
        if self.toys.is_some() {
            return Ok(self.outside.toy_lines(&server.id, lines));
        }
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
        Ok(Sweep { orphans, lost: servers.iter().filter_map(gone).collect(), ..Sweep::default() })
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

    fn providers(&self) -> Vec<String> {
        vec![self.outside.get().quote().provider]
    }

    async fn is_gone(&self, _provider: &str, host: &str) -> anyhow::Result<bool> {
        Ok(!self.outside.get().hosts.contains_key(host))
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

    async fn instead(&self, server: &Server, last: Option<&Rental>) -> Result<Option<Instead>, StepError> {
        let things = self.outside.get();
        let here = things.quote();
        let known = server.place.known_price(last);
        let Some(known) = known.filter(|known| here.price.as_ref().is_some_and(|price| price.hourly > known.hourly))
        else {
            return Ok(None);
        };
        let why = format!("A host costs more than the {} that people know of.", spoken(known.hourly, &known.currency));
        let provider = here.provider.clone();
        let usual = Other { quote: here, named: false, usual: true };
        let usual = [usual].into_iter().filter(|_| !things.refused);
        let others = usual.chain(things.others.iter().cloned()).collect();
        let known = Some(known.clone());
        Ok(Some(Instead { provider, why, known, others, refused: things.refused }))
    }
}
