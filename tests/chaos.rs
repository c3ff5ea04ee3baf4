//! `kill -9` of the real binary in the middle of real container jobs, again and again: no server stuck, nothing left
//! over, no world lost.

mod common {
    pub mod binary;
    pub mod stage;
}

use common::binary::{Binary, Chaos};
use common::stage::{Stage, docker_or_skip, test_image};
use rand::RngExt;
use spawnpoint::app::Refusal;
use spawnpoint::model::JobId;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::server::State;

const ROUNDS_USUAL: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Ask {
    Start,
    Stop,
    Restart,
    Backup,
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_no_server_stuck_and_no_world_lost() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let chaos = Chaos::asked(ROUNDS_USUAL);
    let seed = chaos.seed;

    // The stage only writes what people ask for; the binary does all the work.
    let stage = Stage::open_idle("tests/recipes", |_| {}).await;
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    let mut turns = 0;
    for round in 0..chaos.kills {
        let mut random = chaos.random(round);
        let binary = Binary::start(&stage, &[]);
        let state = app.status(&stage.caller, "world").await.unwrap().state;
        if state == State::Running && random.random_bool(0.7) {
            app.console(&stage.caller, "world", "turn").await.unwrap();
            turns += 1;
        }
        let ask = match (state, random.random_range(0..4)) {
            (State::Running, 0 | 1) => Ask::Stop,
            (State::Running, 2) => Ask::Restart,
            (State::Running, _) => Ask::Backup,
            (_, _) => Ask::Start,
        };
        let job = asked(&stage, ask).await;
        // A moment between two writes, counted in events, so that a seed repeats it as nearly as the machine allows.
        let events = random.random_range(0..24);
        stage
            .until("the moment of the kill", async || {
                let (job, outcome, _) = stage.program.store.job(job).await.unwrap().unwrap();
                (job.seq >= events || outcome.is_some()).then_some(())
            })
            .await;
        binary.kill();
        let again = Binary::start(&stage, &[]);
        let end = stage.end_of(job).await;
        assert_eq!(end.outcome, Some(Outcome::Succeeded), "seed {seed}, round {round}, {ask:?}: {end:#?}");
        again.kill();
        let view = app.status(&stage.caller, "world").await.unwrap();
        match ask {
            Ask::Stop => assert_eq!(view.state, State::Offline, "seed {seed}, round {round}"),
            Ask::Start | Ask::Restart | Ask::Backup => {
                assert_eq!(view.state, State::Running, "seed {seed}, round {round}")
            }
        }
        if matches!(ask, Ask::Start | Ask::Restart) {
            let log = app.logs(&stage.caller, "world", 50).await.unwrap();
            assert!(log.contains(&format!("with {turns} turns")), "seed {seed}, round {round}, {turns} turns: {log}");
        }
        one_container_at_most(&stage).await;
    }
    let stage = stage.work_now();
    stage.close().await;
}

async fn asked(stage: &Stage, ask: Ask) -> JobId {
    let app = &stage.program.app;
    let (caller, name) = (&stage.caller, "world");
    let answer: Result<JobId, Refusal> = match ask {
        Ask::Start => app.start(caller, name, None).await,
        Ask::Stop => app.stop(caller, name, None).await,
        Ask::Restart => app.restart(caller, name, None).await,
        Ask::Backup => app.backup(caller, name, None).await,
    };
    answer.unwrap_or_else(|refusal| panic!("{ask:?}: {refusal}"))
}

async fn one_container_at_most(stage: &Stage) {
    let label = [("spawnpoint.instance".to_owned(), stage.instance.clone())];
    let found: Vec<_> = stage.docker.list(&label).await.unwrap().into_iter().map(|one| one.name).collect();
    assert!(found.len() <= 1, "{found:?}");
}
