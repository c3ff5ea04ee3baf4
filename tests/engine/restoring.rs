//! Restores from every state a server can be in: the named world is what the next game runs on, and what was there
//! before is kept.

use super::*;

/// Two evenings, and a backup of each: `backup-2` of world 2, then `backup-4` of the one after.
async fn two_evenings(backend: Backend) -> Scene {
    let scene = Scene::new(backend);
    for _ in 0..2 {
        scene.done(Action::Start).await;
        scene.outside.play(&scene.id);
        scene.done(Action::Stop).await;
    }
    scene
}

fn restore() -> Action {
    Action::Restore { backup: BackupId("backup-2".into()) }
}

fn world_of(scene: &Scene, backup: &str) -> u64 {
    scene.outside.get().backups[&BackupId(backup.into())].1
}

fn world_in_place(scene: &Scene) -> Option<u64> {
    let things = scene.outside.get();
    things.hosts.values().chain(things.drives.values()).find_map(|place| place.world)
}

#[tokio::test]
async fn a_restore_of_a_server_that_is_off_is_what_the_next_start_runs_on() {
    for backend in Backend::ALL {
        let scene = two_evenings(backend).await;
        scene.done(restore()).await;
        assert_eq!(scene.server().wanted, Wanted::Off);
        assert_eq!(scene.server().owned.world, Some(BackupId("backup-2".into())), "{backend:?}");
        scene.done(Action::Start).await;
        assert_eq!(world_in_place(&scene), Some(world_of(&scene, "backup-2")), "{backend:?}");
        scene.check("restored");
    }
}

/// The game fell over, or a failed start left its place behind: its world is kept before another takes its place.
#[tokio::test]
async fn a_restore_after_a_crash_keeps_what_the_crash_left() {
    for backend in Backend::ALL {
        for wanted in [Wanted::On, Wanted::Off] {
            let scene = two_evenings(backend).await;
            scene.done(Action::Start).await;
            scene.outside.play(&scene.id);
            let played = world_in_place(&scene).unwrap();
            scene.outside.crash_game(&scene.id, 139);
            scene.memory.get().servers.get_mut(&scene.id).unwrap().wanted = wanted;
            scene.done(restore()).await;
            assert!(scene.outside.get().backups.values().any(|(_, world)| *world == played), "{backend:?} {wanted:?}");
            assert_eq!(scene.outside.is_running(&scene.id), wanted == Wanted::On, "{backend:?} {wanted:?}");
            if wanted == Wanted::Off {
                scene.done(Action::Start).await;
            }
            assert_eq!(world_in_place(&scene), Some(world_of(&scene, "backup-2")), "{backend:?} {wanted:?}");
            scene.check("restored after a crash");
        }
    }
}

#[tokio::test]
async fn an_update_at_the_next_start_keeps_what_was_played_last() {
    for action in [Action::Start, Action::Restart] {
        an_update_at(action).await;
    }
}

/// A start after a crash, or a restart.
async fn an_update_at(action: Action) {
    let scene = two_evenings(Backend::Docker).await;
    scene.done(Action::Start).await;
    scene.outside.play(&scene.id);
    let played = world_in_place(&scene).unwrap();
    if action == Action::Start {
        scene.outside.crash_game(&scene.id, 139);
    }
    scene.memory.get().servers.get_mut(&scene.id).unwrap().update_at_start = true;
    let id = scene.ask(action).await;
    assert_eq!(scene.drive(id).await, Outcome::Succeeded);
    let steps: Vec<Step> = scene.memory.job(id).steps.iter().map(|record| record.step).collect();
    let removed = steps.iter().position(|step| *step == Step::RemoveContainer);
    assert!(removed.is_some() && removed < steps.iter().position(|step| *step == Step::ReplaceDrive), "{steps:?}");
    assert_eq!(world_in_place(&scene), Some(played));
    assert!(!scene.server().update_at_start);
    scene.check("updated");
}
