//! A name in DNS that follows a server on a rented host: a real name server (BIND), a host that is real.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}
#[path = "dns/bind.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod bind;

use bind::{NameServer, SECRET};
use common::beds::{nothing_left, rent_at};
use common::cloud::{Clouds, Options};
use common::stage::{Stage, docker_or_skip};
use spawnpoint::config::DnsProvider;
use spawnpoint::model::job::Step;
use spawnpoint::model::view::JobView;

#[tokio::test]
async fn a_name_leads_to_a_server_while_its_host_is_there_and_holds_nothing_up_when_it_cannot() {
    if !docker_or_skip().await {
        return;
    }
    let (Some(names), Some(clouds)) = (NameServer::start(), Clouds::start(&Options::default())) else { return };
    let stage = Stage::open("tests/recipes", |config| {
        rent_at(config, &clouds, "hetzner");
        config.dns.zone = Some("example.org".into());
        config.dns.provider = Some(DnsProvider::Rfc2136);
        config.dns.rfc2136.server = names.address.to_string();
        config.dns.rfc2136.key_name = Some("spawnpoint".into());
        config.dns.rfc2136.key_secret = Some(SECRET.into());
    })
    .await;
    let app = &stage.program.app;
    stage.create("friday", "toy", &[]).await;
    stage.start("friday").await;
    let host = clouds.living().remove(0);
    let status = app.status(&stage.caller, "friday").await.unwrap();
    assert_eq!(status.address.as_deref(), Some("friday.example.org:27100"));
    assert_eq!(names.dig("friday.example.org", "A"), [host.address.to_string()]);
    stage.stop_server("friday").await;
    assert_eq!(names.dig("friday.example.org", "A"), [""; 0]);
    assert_eq!(names.dig("friday.example.org", "TXT"), [""; 0], "nothing stays of the name");
    nothing_left(&clouds);

    // From now on it accepts and never answers. The name stays behind, and nothing else does.
    stage.start("friday").await;
    names.hangs();
    let stop = stage.stop_server("friday").await;
    assert!(
        said(&stage, &stop, Step::DestroyHost)
            .await
            .contains("friday.example.org could not be taken away: the zone did not answer within"),
        "{stop:#?}"
    );
    nothing_left(&clouds);
    let start = stage.start("friday").await;
    let host = clouds.living().remove(0);
    assert_eq!(start.address, Some(format!("{}:27100", host.address)), "{start:#?}");
    assert!(
        said(&stage, &start, Step::AwaitHost).await.contains("no name this time: the zone did not answer within"),
        "{start:#?}"
    );

    stage.stop_server("friday").await;
    nothing_left(&clouds);
    stage.close().await;
}

/// What a step of this job wrote into its log.
async fn said(stage: &Stage, job: &JobView, step: Step) -> String {
    stage.program.store.job_output(job.id, Some(step), 100).await.unwrap().join("\n")
}
