//! What each step of a server's plan does to the world outside, and how it is taken back. It looks before it makes, so
//! both may be called again.

use super::Done;
use super::outside::{Copy, Place, Things, host_ref, names_of, place};
use super::snapshots::{build, unbuild};
use crate::engine::{StepCx, StepError};
use crate::model::drive::{DriveRef, Snapshot, golden};
use crate::model::host::HostRef;
use crate::model::job::{Action, Gain, Step};
use crate::model::server::Server;
use crate::model::world::{BackupId, WorldAt};

/// What a step has to know from elsewhere.
pub(super) struct Known {
    pub snapshots: Vec<Snapshot>,
    /// What the job's backup is called, if it makes one.
    pub backup: BackupId,
}

pub(super) fn run(things: &mut Things, step: Step, cx: &StepCx<'_>, server: &Server, known: &Known) -> Done {
    let mut owned = server.owned.clone();
    let id = server.id.clone();
    let restored = cx.job.action.chosen_backup().cloned();
    match step {
        Step::BuildImage | Step::CreateSnapshot | Step::RunInstaller | Step::SealSnapshot => {
            return build(things, step, cx);
        }
        Step::EnsureSnapshot => {
            if golden(&known.snapshots, &server.game).is_none() {
                return Err(StepError::fatal("There is no snapshot."));
            }
            return Ok(Gain::default());
        }
        Step::CloneDrive | Step::ReplaceDrive => {
            let golden =
                golden(&known.snapshots, &server.game).ok_or_else(|| StepError::fatal("There is no snapshot."))?;
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
            match things.copies.remove(&cx.job.id) {
                Some(copy) if !copy.verified => return Err(StepError::fatal("The copy was not compared.")),
                Some(Copy { world: Some(world), .. }) => {
                    if let Some((_, old)) = things.backups.insert(known.backup.clone(), (id.clone(), world))
                        && old != world
                    {
                        things.violation(format!("{} was overwritten", known.backup));
                    }
                }
                // There was no world yet, or an earlier try kept it.
                Some(Copy { world: None, .. }) | None => {}
            }
            if things.backups.contains_key(&known.backup) {
                if let Some(drive) = &mut owned.drive
                    && !things.games.get(&id).is_some_and(|game| game.running)
                {
                    drive.world = WorldAt::Backup(known.backup.clone());
                }
                let played = !cx.job.keeps_the_last_word();
                owned.host = owned.host.map(|host| HostRef { played, ..host });
                owned.world = Some(known.backup.clone());
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
pub(super) fn undo(things: &mut Things, step: Step, cx: &StepCx<'_>, server: &Server) -> Done {
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
