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
use common::beds::{Bed, nothing_left, rent_at};
use common::cloud::{Clouds, Machines, Options};
use common::stage::{Stage, docker_or_skip};
use spawnpoint::app::{Orphans, Refusal};
use spawnpoint::config::{Config, DnsProvider};
use spawnpoint::model::job::Step;
use spawnpoint::model::view::JobView;
use std::net::{IpAddr, Ipv4Addr};

fn named_by(config: &mut Config, names: &NameServer) {
    config.dns.zone = Some("example.org".into());
    config.dns.provider = Some(DnsProvider::Rfc2136);
    config.dns.rfc2136.server = names.address.to_string();
    config.dns.rfc2136.key_name = Some("spawnpoint".into());
    config.dns.rfc2136.key_secret = Some(SECRET.into());
}

#[tokio::test]
async fn a_name_leads_to_a_server_while_its_host_is_there_and_holds_nothing_up_when_it_cannot() {
    if !docker_or_skip().await {
        return;
    }
    let (Some(names), Some(clouds)) = (NameServer::start(), Clouds::start(&Options::default())) else { return };
    let stage = Stage::open("tests/recipes", |config| {
        rent_at(config, &clouds, "hetzner");
        named_by(config, &names);
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

fn known(orphans: &Orphans) -> Vec<(&str, &'static str, &str)> {
    let one = |orphan: &'_ spawnpoint::app::OrphanView| orphan.orphan.kind.word();
    orphans.found.iter().map(|view| (view.orphan.provider.as_str(), one(view), view.orphan.id.as_str())).collect()
}

/// A zone that was dead when a host went kept its name; only what this very Spawnpoint wrote is ever touched.
#[tokio::test]
async fn a_name_that_no_host_has_is_found_and_deleted_and_others_names_are_left_alone() {
    let (Some(names), Some(clouds)) =
        (NameServer::start(), Clouds::start(&Options { machines: Machines::None, ..Options::default() }))
    else {
        return;
    };
    let stage = Stage::open("tests/recipes", |config| {
        rent_at(config, &clouds, "hetzner");
        named_by(config, &names);
    })
    .await;
    let app = &stage.program.app;
    for name in ["friday", "saturday", "sunday", "gone"] {
        stage.create(name, "toy", &[]).await;
    }
    let job = app.delete(&stage.caller, "gone", "gone", None).await.unwrap();
    stage.succeeds(job).await;
    let address = IpAddr::from(Ipv4Addr::new(192, 0, 2, 1));
    let (ours, theirs) = (names.dns(&stage.instance), names.dns("another"));
    ours.point("friday", address).await.unwrap();
    ours.point("gone", address).await.unwrap();
    ours.point("nobodys", address).await.unwrap();
    theirs.point("saturday", address).await.unwrap();

    let orphans = app.orphans(&stage.caller).await.unwrap();
    assert!(orphans.unasked.is_empty(), "{orphans:#?}");
    let expected = [("dns", "DNS name", "friday.example.org"), ("dns", "DNS name", "gone.example.org")];
    assert_eq!(known(&orphans), expected);
    assert_eq!(orphans.found[1].server.as_deref(), Some("gone"));
    for view in &orphans.found {
        let said = app.orphan_delete(&stage.caller, &view.orphan.tag()).await.unwrap();
        assert!(said.starts_with("Deleted the DNS name"), "{said}");
        let again = app.orphan_delete(&stage.caller, &view.orphan.tag()).await;
        assert!(matches!(again, Err(Refusal::NotFound(_))), "{again:?}");
    }
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), []);
    for (name, left) in [("friday", 0), ("gone", 0), ("saturday", 1), ("nobodys", 1)] {
        assert_eq!(names.dig(&format!("{name}.example.org"), "A").len(), left, "{name}");
        assert_eq!(names.dig(&format!("{name}.example.org"), "TXT").len(), left, "{name}");
    }

    drop(names);
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let unasked: Vec<&str> = orphans.unasked.iter().map(|unasked| unasked.provider.as_str()).collect();
    assert_eq!((known(&orphans), unasked), (vec![], vec!["dns"]), "a zone that is silent is not an empty one");
    stage.close().await;
}

/// On a machine of your own there may be anything else, and other Spawnpoints.
#[tokio::test]
async fn a_game_folder_that_no_server_has_is_found_on_a_machine_of_your_own() {
    let Some(mut bed) = Bed::own_machine().await else { return };
    let stage = bed.stage.take().expect("it has just been made");
    let machine = bed.machine.as_ref().expect("it has just been made");
    let app = &stage.program.app;
    stage.create("world", "toy", &[]).await;
    stage.start("world").await;
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), [], "its own folder is the server's");
    machine.shell(&format!(
        "cd /srv/spawnpoint && mkdir -p lost/state theirs/state photos/state && echo {} > lost/state/instance && echo other > theirs/state/instance",
        stage.instance
    ));
    let orphans = app.orphans(&stage.caller).await.unwrap();
    assert_eq!(known(&orphans), [("ssh", "game folder", "attic/lost")]);
    assert_eq!(orphans.found[0].orphan.name, "attic:/srv/spawnpoint/lost");
    let question = spawnpoint::discord::render::orphans::whether_to_delete(&orphans.found[0], app.now());
    assert!(question.contains("A game that runs in it is stopped first. **A world may be on it"), "{question}");
    app.orphan_delete(&stage.caller, &orphans.found[0].orphan.tag()).await.unwrap();
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), []);
    let left = machine.shell("ls /srv/spawnpoint");
    assert!(!left.contains("lost") && left.contains("theirs") && left.contains("photos"), "{left}");
    machine.shell("rm -r /srv/spawnpoint/theirs /srv/spawnpoint/photos");
    stage.stop_server("world").await;

    assert_eq!(machine.shell("ls /srv/spawnpoint"), "", "nothing of ours stays");

    // A machine that is off is not an empty one.
    machine.shell("pkill sshd");
    let unasked = stage
        .until("it is off", async || {
            let unasked = app.orphans(&stage.caller).await.unwrap().unasked;
            (!unasked.is_empty()).then_some(unasked)
        })
        .await;
    assert_eq!(unasked[0].provider, "attic");
    stage.close().await;
}
