//! What every action means, on one screen: the list of steps that a job is made of. The list is stored with the
//! job when it is made, so a new release never changes a job under way.

use super::job::{Action, Step};
use super::server::Backend;

/// What the plan depends on besides the action, known at the moment the job is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// The game runs now, as far as anyone knows. Steps that stop it are harmless where it does not.
    pub running: bool,
    /// The game does not run, and its container or host is still there: a start that failed, or a game that fell.
    pub leftover: bool,
    /// A sealed snapshot of the game exists, or another job builds one now.
    pub has_snapshot: bool,
    /// `/server update` asked for the newest snapshot at this start, and there is a drive to move.
    pub update_at_start: bool,
}

pub fn plan(action: &Action, backend: Backend, now: Situation) -> Vec<Step> {
    match backend {
        Backend::Docker => docker(action, now),
        Backend::Cloud => cloud(action, now),
    }
}

fn docker(action: &Action, now: Situation) -> Vec<Step> {
    use Step::*;
    let keep_world = [PullWorld, VerifyWorld, KeepBackup];
    // The container goes last: it is how the world is read until the backup is kept.
    let stop = [&[WarnPlayers, StopGame][..], &keep_world, &[RemoveContainer]].concat();
    let build = [BuildImage, CreateSnapshot, RunInstaller, SealSnapshot];
    let first_build = if now.has_snapshot { &[][..] } else { &build };
    let start =
        [first_build, &[EnsureSnapshot, CloneDrive, PushWorld, CreateContainer, StartGame, AwaitReady]].concat();
    // What stands on a drive goes before the drive does.
    let put_away = if now.running || now.leftover { stop.clone() } else { keep_world.to_vec() };
    match action {
        Action::Start if now.update_at_start => [put_away, vec![ReplaceDrive], start].concat(),
        Action::Start => start,
        Action::Stop => stop,
        Action::Restart if now.update_at_start => [stop, vec![ReplaceDrive], start].concat(),
        Action::Restart => [stop, start].concat(),
        Action::Backup => [&[QuiesceGame][..], &[PullWorld, VerifyWorld], &[ResumeSaves, KeepBackup]].concat(),
        // The present state is kept first, so that a restore can itself be restored from.
        Action::Restore { .. } | Action::Update if now.running => [stop, vec![ReplaceDrive], start].concat(),
        Action::Restore { .. } => [put_away, vec![ReplaceDrive, PushWorld]].concat(),
        Action::Update => [put_away, vec![ReplaceDrive]].concat(),
        Action::Delete => [stop, vec![DeleteDrive]].concat(),
        // The drive goes once its world is in the vault; the next start pushes that world where the server is then.
        Action::Move { .. } => [put_away, vec![DeleteDrive]].concat(),
        Action::BuildSnapshot => build.to_vec(),
    }
}

fn cloud(action: &Action, now: Situation) -> Vec<Step> {
    use Step::*;
    let keep_world = [PullWorld, VerifyWorld, KeepBackup];
    let save = [&[WarnPlayers, StopGame][..], &keep_world].concat();
    // The host goes last: it holds the only copy of the world until the backup is kept.
    let stop = [&save[..], &[DestroyHost, ConfirmGone]].concat();
    let if_left = |steps| if now.leftover { steps } else { vec![] };
    let start = vec![CreateHost, AwaitHost, Bootstrap, Install, PushWorld, StartGame, AwaitReady];
    match action {
        Action::Start => start,
        Action::Stop | Action::Delete => stop,
        Action::Restart => [&save[..], &[StartGame, AwaitReady]].concat(),
        Action::Backup => vec![QuiesceGame, PullWorld, VerifyWorld, ResumeSaves, KeepBackup],
        Action::Restore { .. } | Action::Update if now.running => {
            [save, vec![Install, PushWorld, StartGame, AwaitReady]].concat()
        }
        // Nothing exists while it is off. Without a host, putting the world in place means naming it: the next start
        // pushes it, and installs what is newest then.
        Action::Restore { .. } => [if_left(stop), vec![PushWorld]].concat(),
        Action::Update => if_left(stop),
        // While it is off, its world is in the vault and nowhere else.
        Action::Move { .. } if now.running => stop,
        Action::Move { .. } => if_left(stop),
        Action::BuildSnapshot => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::world::BackupId;

    fn all_actions() -> Vec<Action> {
        let restore = Action::Restore { backup: BackupId("20260101T000000Z-0000".into()) };
        vec![
            Action::Start,
            Action::Stop,
            Action::Restart,
            Action::Backup,
            restore,
            Action::Update,
            Action::Delete,
            Action::Move { to: Backend::Cloud },
            Action::Move { to: Backend::Docker },
            Action::BuildSnapshot,
        ]
    }

    fn all_plans() -> Vec<(String, Vec<Step>)> {
        let mut plans = vec![];
        for backend in Backend::ALL {
            for action in all_actions() {
                for bits in 0..16 {
                    let now = Situation {
                        running: bits & 1 != 0,
                        leftover: bits & 8 != 0,
                        has_snapshot: bits & 2 != 0,
                        update_at_start: bits & 4 != 0,
                    };
                    plans.push((format!("{backend:?} {action:?} {now:?}"), plan(&action, backend, now)));
                }
            }
        }
        plans
    }

    #[test]
    fn no_plan_names_a_step_twice() {
        for (name, plan) in all_plans() {
            let mut seen = std::collections::HashSet::new();
            assert!(plan.iter().all(|step| seen.insert(*step)), "{name}: {plan:?}");
        }
    }

    #[test]
    fn nothing_that_holds_a_world_is_destroyed_before_its_backup_is_kept() {
        for (name, plan) in all_plans() {
            for (at, step) in plan.iter().enumerate() {
                if step.destroys_world() {
                    let before = &plan[..at];
                    let proof = [Step::PullWorld, Step::VerifyWorld, Step::KeepBackup];
                    assert!(proof.iter().all(|step| before.contains(step)), "{name}: {plan:?}");
                }
            }
        }
    }

    #[test]
    fn a_game_is_started_only_after_its_world_was_pushed() {
        for (name, plan) in all_plans() {
            let Some(start) = plan.iter().position(|step| *step == Step::StartGame) else { continue };
            let world_stays = name.starts_with("Cloud Restart");
            assert!(world_stays || plan[..start].contains(&Step::PushWorld), "{name}: {plan:?}");
        }
    }

    #[test]
    fn the_plans_people_meet_every_day() {
        let ready = Situation { running: true, has_snapshot: true, ..Situation::default() };
        let mut text = String::new();
        for backend in Backend::ALL {
            for action in all_actions() {
                let steps: Vec<_> = plan(&action, backend, ready).into_iter().map(|step| format!("{step:?}")).collect();
                text += &format!("{:7} {:9} {}\n", backend.word(), action.word(), steps.join(" "));
            }
        }
        insta::assert_snapshot!(text);
    }
}
