//! `kill -9` of the real binary in the middle of real container jobs, again and again: no server stuck, nothing left
//! over, every world byte for byte. `chaos_cloud` does the same on rented hosts.

mod common {
    pub mod beds;
    pub mod binary;
    pub mod cloud;
    pub mod kills;
    pub mod stage;
    pub mod worlds;
}

use common::binary::Chaos;
use common::kills::{Ask, Scene};
use common::stage::{Stage, docker_or_skip, test_image};
use common::worlds::Known;
use spawnpoint::model::server::Backend;

const KILLS_USUAL: usize = 6;
/// Enough for a push or a pull to take a moment.
const REGION_MAX_MB: u32 = 8;

#[tokio::test]
async fn a_kill_at_any_moment_leaves_no_server_stuck_and_no_world_lost() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let chaos = Chaos::asked(KILLS_USUAL);
    let stage = Stage::open_idle("tests/recipes", |_| {}).await;
    let backend = Backend::Docker;
    let scene = Scene { stage, clouds: None, environment: vec![], backend, region_max_mb: REGION_MAX_MB, chances };
    let known = scene.rounds(chaos).await;
    scene.check_all_backups(&known).await;
    scene.stage.work_now().close().await;
}

fn chances(known: &Known) -> Vec<(Ask, u32)> {
    let often = match known.running {
        true => vec![(Ask::Stop, 8), (Ask::Restart, 3), (Ask::Backup, 2)],
        false => vec![(Ask::Start, 11), (Ask::CancelledStart, 2)],
    };
    [&often[..], &[(Ask::Restore, 3), (Ask::Update, 3), (Ask::UpdateAtStart, 2), (Ask::Delete, 2)]].concat()
}
