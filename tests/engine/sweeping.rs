//! What was forgotten is found and told once, and what is being made is left alone.

use super::*;
use spawnpoint::model::HOUR_MS;
use spawnpoint::model::sweep::Sweep;
use spawnpoint::model::view::Notice;
use tokio_util::sync::CancellationToken;

/// A server in a channel, so that somebody hears.
fn scene(backend: Backend) -> Scene {
    let scene = Scene::new(backend);
    scene.memory.get().servers.get_mut(&scene.id).unwrap().channel = Some("games".into());
    scene
}

fn ids(found: &Sweep) -> Vec<String> {
    found.orphans.iter().map(|orphan| orphan.id.clone()).collect()
}

async fn swept(scene: &Scene) -> Sweep {
    let engine = scene.engine();
    let found = engine.sweep().await.unwrap();
    engine.tell(&found).await.unwrap();
    found
}

#[tokio::test]
async fn whatever_a_job_makes_is_never_an_orphan_while_it_works_and_nothing_is_left_after_it() {
    for backend in Backend::ALL {
        for tale in TALES {
            for at in 0.. {
                let what = format!("{backend:?} {tale:?} after {at} writes");
                let (scene, id) = open(backend, tale).await;
                let journal =
                    Crashing { journal: scene.memory.clone(), at, when: When::Before, writes: Arc::default() };
                let crashed = scene.engine_on(Arc::new(journal)).drive(id).await.is_err();
                for _ in 0..2 {
                    let found = swept(&scene).await;
                    assert_eq!(ids(&found), [""; 0], "{what}");
                    assert!(found.lost.is_empty(), "{what}: {:?}", found.lost);
                    // And when another program has brought it to its end.
                    if scene.memory.get().jobs[id.0 as usize - 1].outcome.is_none() {
                        scene.drive(id).await;
                    }
                }
                if !crashed {
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_forgotten_host_is_told_once_with_its_price_and_left_alone() {
    let scene = scene(Backend::Cloud);
    scene.outside.plant_host("forgotten", &scene.id, 0);
    scene.outside.plant_host("strange", &ServerId("unknown".into()), 0);
    for _ in 0..3 {
        assert_eq!(ids(&swept(&scene).await), ["forgotten", "strange"]);
    }
    let notices = scene.memory.get().notices.clone();
    let told: Vec<_> = notices
        .iter()
        .map(|notice| match notice {
            Notice::Orphan { orphan } => (orphan.id.as_str(), orphan.price.as_ref().map(|price| price.hourly)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, [("forgotten", Some(10_000)), ("strange", Some(10_000))]);
    assert_eq!(scene.outside.get().hosts.len(), 2, "nothing is deleted unasked");
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_host_is_told_again_with_each_day_that_it_bills() {
    let scene = scene(Backend::Cloud);
    let engine = scene.engine();
    scene.outside.get().hosts_have_age = true;
    scene.outside.plant_host("forgotten", &scene.id, engine.now());
    for hour in 0..50 {
        engine.tell(&engine.sweep().await.unwrap()).await.unwrap();
        assert_eq!(scene.memory.get().notices.len(), 1 + hour / 24, "after {hour} hours");
        tokio::time::advance(Duration::from_secs(3600)).await;
    }
}

#[tokio::test]
async fn what_concerned_nobody_at_first_is_told_as_soon_as_it_concerns_somebody() {
    let scene = scene(Backend::Cloud);
    let elsewhere = ServerId("elsewhere".into());
    let mut other = scene.memory.get().servers[&scene.id].clone();
    (other.id, other.guild) = (elsewhere.clone(), GuildId("another".into()));
    scene.memory.get().servers.insert(elsewhere.clone(), other);
    scene.outside.plant_host("strange", &ServerId("unknown".into()), 0);
    for _ in 0..2 {
        assert_eq!(ids(&swept(&scene).await), ["strange"]);
        assert_eq!(scene.memory.get().notices, [], "whose it is nobody knows");
    }
    scene.memory.get().servers.remove(&elsewhere);
    for _ in 0..2 {
        swept(&scene).await;
        assert_eq!(scene.memory.get().notices.len(), 1, "told once");
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_is_never_taken_for_empty() {
    let scene = scene(Backend::Cloud);
    scene.outside.plant_host("forgotten", &scene.id, 0);
    scene.outside.get().blind = true;
    let found = swept(&scene).await;
    assert_eq!((ids(&found).len(), found.lost.len()), (0, 0));
    let unasked: Vec<_> = found.unasked.iter().map(|unasked| unasked.provider.as_str()).collect();
    assert_eq!(unasked, ["cloud", "docker"]);
    assert_eq!(scene.memory.get().notices, []);
    scene.outside.get().blind = false;
    assert_eq!(ids(&swept(&scene).await), ["forgotten"]);
    assert_eq!(scene.memory.get().notices.len(), 1);
}

#[tokio::test]
async fn a_host_that_is_gone_is_told_once_with_what_was_lost() {
    for played in [true, false] {
        let scene = scene(Backend::Cloud);
        scene.done(Action::Start).await;
        scene.outside.play(&scene.id);
        if !played {
            // It was saved, and the host could not be destroyed.
            let stop = scene.ask(Action::Stop).await;
            scene.outside.fault(Way::Run, Step::DestroyHost, Kind::Before, 1);
            assert_eq!(scene.drive(stop).await, Outcome::Held);
            scene.memory.write(stop, Event::Abandoned { by: Actor::Operator }).await;
            scene.drive(stop).await;
        }
        scene.outside.get().hosts.clear();
        for _ in 0..2 {
            assert_eq!(swept(&scene).await.lost.len(), 1);
        }
        let rows = scene.memory.get();
        assert!(rows.rentals.iter().all(|rental| rental.ended_at.is_some()), "it bills no longer");
        let [Notice::HostLost { lost_since, backup, .. }] = rows.notices.as_slice() else {
            panic!("{:?}", rows.notices)
        };
        assert_eq!((lost_since.is_some(), backup.is_some()), (played, !played));
    }
}

/// What people heard of the host, a word each.
fn heard(scene: &Scene) -> Vec<&'static str> {
    let word = |notice: &Notice| match notice {
        Notice::HostLost { .. } => "lost",
        Notice::HostBack { .. } => "back",
        other => panic!("{other:?}"),
    };
    scene.memory.get().notices.iter().map(word).collect()
}

#[tokio::test]
async fn a_host_that_was_taken_for_gone_bills_on_when_a_sweep_finds_it() {
    let scene = scene(Backend::Cloud);
    scene.done(Action::Start).await;
    let rentals = || scene.memory.get().rentals.clone();
    let before = rentals();
    for round in 1..3 {
        let hosts = std::mem::take(&mut scene.outside.get().hosts);
        swept(&scene).await;
        assert!(rentals()[0].ended_at.is_some());
        // It was one wrong answer.
        scene.outside.get().hosts = hosts;
        for _ in 0..2 {
            let found = swept(&scene).await;
            assert_eq!((ids(&found), found.lost), (vec![], vec![]));
            assert_eq!(rentals(), before, "as if it had never ended");
        }
        assert_eq!(heard(&scene), ["lost", "back"].repeat(round), "once each time");
    }
    // What its server has no longer stays ended.
    scene.done(Action::Stop).await;
    swept(&scene).await;
    assert!(rentals()[0].ended_at.is_some());
    assert_eq!(heard(&scene).len(), 4);
}

#[tokio::test]
async fn a_host_that_was_taken_for_gone_bills_on_when_the_watcher_sees_it() {
    for runs in [true, false] {
        let scene = scene(Backend::Cloud);
        scene.done(Action::Start).await;
        let hosts = std::mem::take(&mut scene.outside.get().hosts);
        swept(&scene).await;
        scene.outside.get().hosts = hosts;
        if !runs {
            scene.outside.crash_game(&scene.id, 1);
        }
        // Nobody who looks knows whether it is there.
        scene.outside.get().blind = true;
        let engine = scene.engine();
        engine.watch_once().await.unwrap();
        assert!(scene.memory.get().rentals[0].ended_at.is_some());
        scene.outside.get().blind = false;
        for _ in 0..2 {
            engine.watch_once().await.unwrap();
            assert_eq!(scene.memory.get().rentals[0].ended_at, None);
        }
        assert_eq!(heard(&scene), ["lost", "back"]);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_looked_at_the_start_and_then_on_a_timer() {
    let scene = scene(Backend::Cloud);
    let engine = scene.engine();
    let stop = CancellationToken::new();
    let sweeping = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.sweeps(Some(Duration::from_millis(HOUR_MS as u64)), stop).await }
    });
    let told = || scene.memory.get().notices.len();
    scene.outside.plant_host("first", &scene.id, 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(told(), 1, "at the start");
    scene.outside.plant_host("second", &scene.id, 0);
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(told(), 1, "not yet");
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(told(), 2, "on the timer");
    stop.cancel();
    sweeping.await.unwrap();
    // Without a timer it is only looked once.
    engine.sweeps(None, CancellationToken::new()).await;
}
