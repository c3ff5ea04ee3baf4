//! Snapshots: built for a game, or by the first start of one of its servers.

use super::*;
use spawnpoint::model::job::Subject;

async fn build(scene: &Scene) -> JobId {
    let ask = Ask { action: Action::BuildSnapshot, cause: Cause::Asked, actor: Actor::Operator, channel: None };
    scene.engine().ask_snapshot("openttd", &GuildId("1".into()), ask).await.unwrap()
}

fn end(scene: &Scene, id: JobId) -> String {
    let known: Vec<(String, bool)> = {
        let rows = scene.memory.get();
        rows.snapshots.iter().map(|(name, snapshot)| (name.clone(), snapshot.sealed_at.is_some())).collect()
    };
    format!("{}\n{known:?}\n{}", scene.memory.job(id), scene.outside.picture())
}

#[tokio::test]
async fn a_build_that_crashes_anywhere_ends_as_if_it_had_not() {
    for fails in [false, true] {
        let prepared = async || {
            let scene = Scene::new(Backend::Docker);
            let id = build(&scene).await;
            if fails {
                scene.outside.fault(Way::Run, Step::SealSnapshot, Kind::After, 9);
            }
            (scene, id)
        };
        let (calm, id) = prepared().await;
        assert_eq!(calm.drive(id).await, if fails { Outcome::Failed } else { Outcome::Succeeded });
        assert_eq!(calm.memory.get().snapshots.len(), usize::from(!fails), "{}", end(&calm, id));
        let expected = end(&calm, id);
        for at in 0.. {
            let mut crashed = false;
            for when in [When::Before, When::After] {
                let (scene, id) = prepared().await;
                let journal = Crashing { journal: scene.memory.clone(), at, when, writes: Arc::default() };
                crashed |= scene.engine_on(Arc::new(journal)).drive(id).await.is_err();
                let outcome = scene.memory.get().jobs[id.0 as usize - 1].outcome;
                if outcome.is_none() {
                    scene.drive(id).await;
                }
                assert_eq!(end(&scene, id), expected, "crash {when:?} write {at}");
            }
            if !crashed {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_build_that_fails_anywhere_leaves_no_snapshot_that_a_server_could_stand_on() {
    for step in [Step::BuildImage, Step::CreateSnapshot, Step::RunInstaller, Step::SealSnapshot] {
        for kind in [Kind::Before, Kind::Half, Kind::After, Kind::Panic] {
            let scene = Scene::new(Backend::Docker);
            let id = build(&scene).await;
            scene.outside.fault(Way::Run, step, kind, 1);
            assert_eq!(scene.drive(id).await, Outcome::Failed, "{step:?} {kind:?}");
            assert!(scene.memory.get().snapshots.is_empty(), "{step:?} {kind:?}: {}", end(&scene, id));
            assert!(scene.outside.get().snapshots.is_empty(), "{step:?} {kind:?}: {}", end(&scene, id));
            // The game can be built, and started, all the same.
            let again = build(&scene).await;
            assert_eq!(scene.drive(again).await, Outcome::Succeeded);
            scene.done(Action::Start).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_first_starts_the_second_waits_for_the_snapshot_of_the_first() {
    for fails in [false, true] {
        let scene = Scene::new(Backend::Docker);
        let other = fresh_server("s2", Backend::Docker);
        scene.memory.get().servers.insert(other.id.clone(), other.clone());
        let engine = scene.engine();
        let ask = || Ask { action: Action::Start, cause: Cause::Asked, actor: Actor::Operator, channel: None };
        let first = engine.ask(&scene.server(), ask()).await.unwrap();
        let second = engine.ask(&other, ask()).await.unwrap();
        assert!(scene.memory.job(first).record(Step::RunInstaller).is_some());
        assert!(scene.memory.job(second).record(Step::RunInstaller).is_none(), "one installation is enough");
        if fails {
            scene.outside.fault(Way::Run, Step::RunInstaller, Kind::Half, 1);
        }
        let late = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            engine.drive(first).await
        };
        let (first, outcome) = tokio::join!(late, engine.drive(second));
        let expected = Some(if fails { Outcome::Failed } else { Outcome::Succeeded });
        assert_eq!(first.unwrap(), expected);
        assert_eq!(outcome.unwrap(), expected, "{}", scene.memory.job(second));
        assert_eq!(scene.outside.is_running(&other.id), !fails);
        assert_eq!(scene.memory.get().snapshots.len(), usize::from(!fails));
        assert_eq!(scene.memory.job(second).subject, Subject::Server(other.id));
        scene.check("two first starts");
    }
}
