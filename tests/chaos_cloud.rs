//! `kill -9` of the real binary in the middle of jobs on rented hosts, again and again, while the provider misbehaves as
//! well: no host without a server, no server stuck, every world byte for byte. The hosts are real and outlive every
//! kill; so does the provider, which is not real.
//!
//! `SPAWNPOINT_CHAOS_PROVIDER` chooses the provider; without it the seed does.

mod common {
    pub mod beds;
    pub mod binary;
    pub mod cloud;
    pub mod kills;
    pub mod stage;
    pub mod worlds;
}

use common::beds::{evening, nothing_left, rent_at};
use common::binary::Chaos;
use common::cloud::{Clouds, Options};
use common::kills::{Ask, Scene};
use common::stage::{Stage, docker_or_skip, test_image};
use common::worlds::Known;
use rand::seq::IndexedRandom;
use spawnpoint::model::job::{Outcome, Step};
use spawnpoint::model::server::Backend;

const KILLS_USUAL: usize = 3;
const PROVIDERS: [&str; 4] = ["digitalocean", "hetzner", "linode", "vultr"];
/// Enough for a push or a pull to take a moment.
const REGION_MAX_MB: u32 = 24;

#[tokio::test]
async fn a_kill_at_any_moment_leaves_no_host_without_a_server_and_no_world_lost() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let chaos = Chaos::asked(KILLS_USUAL);
    let named = std::env::var("SPAWNPOINT_CHAOS_PROVIDER").ok();
    let provider = PROVIDERS.choose(&mut chaos.random(0)).expect("there are some");
    let provider = named.as_deref().unwrap_or(provider).to_owned();
    println!("SPAWNPOINT_CHAOS_PROVIDER={provider}");
    let option = |name: &str| format!("SPAWNPOINT_CLOUD__{}__{name}", provider.to_uppercase());
    let environment = vec![(option("TOKEN"), "a-token".to_owned()), (option("API_URL"), clouds.url(&provider))];
    let stage = Stage::open_idle("tests/recipes", |config| {
        rent_at(config, &clouds, &provider);
        // Servers move between here and there.
        config.docker.enabled = true;
    })
    .await;
    let (clouds, backend) = (Some(clouds), Backend::Cloud);
    let scene = Scene { stage, clouds, environment, backend, region_max_mb: REGION_MAX_MB, chances };
    let mut known = scene.rounds(chaos).await;

    let Scene { stage, .. } = scene;
    let stage = stage.work_now();
    if known.running {
        stage.stop_server("world").await;
        known.running = false;
    }
    let scene = Scene { stage, ..scene };
    scene.check_places("at the end", &known).await;
    scene.check_all_backups(&known).await;
    scene.stage.close().await;
    nothing_left(scene.clouds.as_ref().expect("they are there"));
}

fn chances(known: &Known) -> Vec<(Ask, u32)> {
    let often = match (known.backend, known.running) {
        (Backend::Cloud, true) => {
            vec![(Ask::Stop, 10), (Ask::Restart, 2), (Ask::Backup, 3), (Ask::Update, 2), (Ask::Move, 2)]
        }
        (Backend::Cloud, false) => vec![(Ask::Start, 12), (Ask::CancelledStart, 3), (Ask::Move, 2)],
        // It was moved here and goes back soon.
        (Backend::Docker, true) => vec![(Ask::Stop, 4), (Ask::Move, 12)],
        (Backend::Docker, false) => vec![(Ask::Start, 6), (Ask::Move, 10)],
    };
    [&often[..], &[(Ask::Restore, 3), (Ask::Delete, 2)]].concat()
}

// What a kill meets once in a thousand times, made on purpose.

#[tokio::test]
async fn a_request_that_outlived_its_sender_leaves_no_second_host() {
    let Some((clouds, stage)) = evening("digitalocean").await else { return };
    stage.create("world", "toy", &[]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    let first = stage.until("a host", async || clouds.living().into_iter().next()).await;
    let tags: Vec<&str> = first.tags.iter().map(String::as_str).collect();
    let labels: Vec<_> = first.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let second = clouds.plant(&first.provider, &first.name, &tags, &labels);
    stage.succeeds(job).await;
    let living: Vec<String> = clouds.living().into_iter().map(|host| host.id).collect();
    assert_eq!(living, std::slice::from_ref(&first.id), "{second:?}");
    let bills = stage.program.store.rentals_of(&stage.caller.guild, 0).await.unwrap();
    let ended = |id: &str| bills.iter().find(|one| one.host == id).map(|one| one.ended_at.is_some());
    assert_eq!((ended(&first.id), ended(&second.id)), (Some(false), Some(true)), "both are paid for: {bills:#?}");
    stage.close().await;
    nothing_left(&clouds);
}

/// A kill between the end of the host and the word of it leaves just this: a host on record that is no more.
#[tokio::test]
async fn a_start_whose_host_has_vanished_is_undone_to_nothing() {
    let Some((clouds, stage)) = evening("hetzner").await else { return };
    stage.create("world", "toy", &[("BEHAVIOUR", "never-ready")]).await;
    let job = stage.program.app.start(&stage.caller, "world", None).await.unwrap();
    stage
        .until("the game", async || {
            let (job, _, _) = stage.program.store.job(job).await.unwrap().unwrap();
            job.has_begun(Step::AwaitReady).then_some(())
        })
        .await;
    clouds.die(&clouds.living()[0].id, "gone");
    let end = stage.end_of(job).await;
    assert_eq!(end.outcome, Some(Outcome::Failed), "{end:#?}");
    let server = stage.program.store.server_by_name(&stage.caller.guild, "world").await.unwrap().unwrap();
    assert_eq!(server.owned.host, None, "{end:#?}");
    nothing_left(&clouds);
    stage.close().await;
}
