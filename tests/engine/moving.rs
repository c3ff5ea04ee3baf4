//! A server that moves between backends: its world comes along, and nothing stays behind.

use super::*;
use spawnpoint::model::world::WorldAt;

/// The version of the world that the server's players know.
fn present(scene: &Scene) -> Option<u64> {
    scene.outside.get().present.get(&scene.id).copied()
}

fn nothing_is_left(scene: &Scene, what: &str) {
    let things = scene.outside.get();
    let left = (things.hosts.len(), things.drives.len(), things.containers.len());
    assert_eq!(left, (0, 0, 0), "{what}");
    let server = scene.server();
    assert_eq!(server.owned, server.owned.moved(), "{what}: it owns its world and nothing else");
    assert_eq!((server.wanted, server.lease_until), (Wanted::Off, None), "{what}");
    assert!(scene.memory.get().rentals.iter().all(|rental| rental.ended_at.is_some()), "{what}: nothing bills");
}

#[tokio::test]
async fn the_world_is_the_same_after_four_moves_there_and_back() {
    for first in Backend::ALL {
        let scene = Scene::new(first);
        scene.done(Action::Start).await;
        scene.outside.play(&scene.id);
        let world = present(&scene);
        let mut here = first;
        for turn in 0..4 {
            let what = format!("{first:?}, move {turn}");
            here = other(here);
            scene.done(Action::Move { to: here }).await;
            assert_eq!(scene.server().backend, here, "{what}");
            nothing_is_left(&scene, &what);
            // Now and then it is played on in between, where it is.
            if turn % 2 == 0 {
                scene.done(Action::Start).await;
                let places = if here == Backend::Cloud {
                    scene.outside.get().hosts.clone()
                } else {
                    scene.outside.get().drives.clone()
                };
                assert_eq!(places.values().map(|place| place.world).collect::<Vec<_>>(), [world], "{what}");
            }
        }
        scene.done(Action::Start).await;
        assert_eq!(present(&scene), world);
        scene.check("four moves");
    }
}

#[tokio::test]
async fn a_world_that_is_only_on_its_drive_is_saved_before_the_drive_goes() {
    let (scene, id) = open(Backend::Docker, Tale::MoveFallen).await;
    let world = present(&scene);
    assert_eq!(scene.server().owned.drive.unwrap().world, WorldAt::Played);
    assert_eq!(scene.drive(id).await, Outcome::Succeeded);
    let newest = scene.server().owned.world.expect("it was saved");
    assert_eq!(scene.outside.get().backups.get(&newest).map(|(_, world)| *world), world);
    nothing_is_left(&scene, "fallen");
}

#[tokio::test]
async fn a_server_that_never_ran_moves_without_ado() {
    for backend in Backend::ALL {
        let scene = Scene::new(backend);
        scene.done(Action::Move { to: other(backend) }).await;
        nothing_is_left(&scene, "new");
        scene.done(Action::Start).await;
        assert!(scene.outside.is_running(&scene.id));
        scene.check("new");
    }
}

#[tokio::test]
async fn a_move_that_cannot_save_stays_where_it_was_and_keeps_everything() {
    for backend in Backend::ALL {
        for step in [Step::StopGame, Step::PullWorld, Step::VerifyWorld, Step::KeepBackup] {
            let (scene, id) = open(backend, Tale::MoveRunning).await;
            scene.outside.fault(Way::Run, step, Kind::Before, 1);
            assert_eq!(scene.drive(id).await, Outcome::Held, "{step:?}");
            assert_eq!(scene.server().backend, backend, "{step:?}");
            scene.memory.write(id, Event::Abandoned { by: Actor::Operator }).await;
            assert_eq!(scene.drive(id).await, Outcome::Abandoned, "{step:?}");
            assert_eq!(scene.server().backend, backend, "{step:?}: half a move is none");
            let things = scene.outside.get();
            assert_eq!(things.hosts.len() + things.drives.len(), 1, "{step:?}: the world is where it was");
        }
    }
}

#[tokio::test]
async fn a_move_that_is_called_off_in_time_moves_nothing() {
    for backend in Backend::ALL {
        let (scene, id) = open(backend, Tale::MoveRunning).await;
        scene.memory.write(id, Event::CancelRequested { by: Actor::Operator }).await;
        assert_eq!(scene.drive(id).await, Outcome::Cancelled);
        assert_eq!((scene.server().backend, scene.server().wanted), (backend, Wanted::On));
        assert!(scene.outside.is_running(&scene.id));
    }
}
