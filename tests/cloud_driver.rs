//! The cloud backend on hosts that are real, at four providers that are not: each host boots with cloud-init, answers
//! with sshd, and has rsync once the recipe's bootstrap has installed it.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}

use common::beds::{nothing_left, rent_at};
use common::cloud::{Clouds, Options};
use common::stage::{Stage, docker_or_skip};
use spawnpoint::model::server::State;

async fn evening(provider: &str) -> Option<(Clouds, Stage)> {
    if !docker_or_skip().await {
        return None;
    }
    let clouds = Clouds::start(&Options::default())?;
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, provider)).await;
    Some((clouds, stage))
}

async fn turns(stage: &Stage, name: &str, count: usize) {
    for _ in 0..count {
        let answer = stage.program.app.console(&stage.caller, name, "turn").await.unwrap();
        assert!(answer.contains("turn "), "{answer}");
    }
}

#[tokio::test]
async fn an_evening_on_a_rented_host_and_the_world_is_there_the_next() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    let hosts = clouds.living();
    assert_eq!(hosts.len(), 1, "{hosts:#?}");
    let status = app.status(&stage.caller, "world").await.unwrap();
    assert_eq!(status.state, State::Running);
    assert_eq!(status.address, Some(format!("{}:27100", hosts[0].address)));
    turns(&stage, "world", 3).await;
    stage.stop_server("world").await;
    nothing_left(&clouds);
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert!(backups[0].present && backups[0].doubt.is_none(), "{backups:?}");

    stage.start("world").await;
    let log = app.logs(&stage.caller, "world", 50).await.unwrap();
    assert!(log.contains("with 3 turns"), "{log}");
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}
