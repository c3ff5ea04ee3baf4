//! What was forgotten at a provider, found and put away: against stand-ins of all four, whose answers keep to their own
//! descriptions.

mod common {
    pub mod beds;
    pub mod cloud;
    pub mod stage;
}

use common::beds::{nothing_left, rent_at};
use common::cloud::{Clouds, Failure, Machines, Options};
use common::stage::{Stage, docker_or_skip};
use spawnpoint::app::{NewServer, OrphanView, Orphans, Refusal};
use spawnpoint::model::ServerId;
use spawnpoint::model::access::Actor;
use spawnpoint::model::host::HostRef;
use spawnpoint::model::server::State;
use std::collections::BTreeMap;
use std::time::Duration;

const PROVIDERS: [&str; 4] = ["linode", "hetzner", "digitalocean", "vultr"];

async fn cloud_server(stage: &Stage, name: &str) -> ServerId {
    let new = NewServer {
        name: name.into(),
        game: "toy".into(),
        backend: Some("cloud".into()),
        settings: BTreeMap::new(),
        place: Default::default(),
        channel: None,
    };
    ServerId(stage.program.app.create(&stage.caller, new).await.unwrap().view.id)
}

/// As the drivers label what they make, for providers with tags and for those with labels.
fn labelled(instance: &str, server: &ServerId) -> (Vec<String>, Vec<(String, String)>) {
    let tags = vec![format!("spawnpoint-i-{instance}"), format!("spawnpoint-s-{server}"), "spawnpoint-j-7".to_owned()];
    let values = [("instance", instance), ("server", server.0.as_str()), ("job", "7")];
    (tags, values.map(|(key, value)| (format!("spawnpoint-{key}"), value.to_owned())).into())
}

fn plant(clouds: &Clouds, provider: &str, kind: &str, name: &str, instance: &str, server: &ServerId) -> String {
    let (tags, labels) = labelled(instance, server);
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    match kind {
        "host" => clouds.plant(provider, name, &tags, &labels).id,
        kind => clouds.plant_thing(provider, kind, name, &tags, &labels).id,
    }
}

fn known(orphans: &Orphans) -> Vec<(String, &'static str, String)> {
    let one = |view: &OrphanView| (view.orphan.provider.clone(), view.orphan.kind.word(), view.orphan.id.clone());
    let mut all: Vec<_> = orphans.found.iter().map(one).collect();
    all.sort();
    all
}

#[tokio::test]
async fn what_no_server_has_is_found_at_every_provider_and_deleted_when_somebody_says_so() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    let stage =
        Stage::open("tests/recipes", |config| PROVIDERS.iter().for_each(|one| rent_at(config, &clouds, one))).await;
    let app = &stage.program.app;
    let mut expected = vec![];
    let mut claimed = vec![];
    for provider in PROVIDERS {
        let id = cloud_server(&stage, provider).await;
        let mine = plant(&clouds, provider, "host", "mine", &stage.instance, &id);
        let host: HostRef = serde_json::from_value(serde_json::json!({
            "provider": provider, "id": mine, "region": "r", "size": "s", "created_at": 0, "host_key": "", "played": true
        }))
        .unwrap();
        assert!(stage.program.store.adopt_host(&id, &host, &Actor::Operator, 0).await.unwrap());
        claimed.push(mine);
        let second = plant(&clouds, provider, "host", "second", &stage.instance, &id);
        expected.push((provider.to_owned(), "host", second));
        let volume = plant(&clouds, provider, "volume", "forgotten", &stage.instance, &ServerId("gone".into()));
        if provider != "vultr" {
            // Vultr's volumes have no tags, so none can be told from anybody else's.
            expected.push((provider.to_owned(), "volume", volume));
        }
        plant(&clouds, provider, "host", "theirs", "another-instance", &id);
        clouds.plant(provider, "web", &["web"], &[("web", "yes")]);
    }
    expected.sort();
    let orphans = app.orphans(&stage.caller).await.unwrap();
    assert_eq!(known(&orphans), expected);
    assert!(orphans.lost.is_empty() && orphans.unasked.is_empty(), "{orphans:#?}");
    assert!(orphans.found.iter().filter(|view| view.orphan.kind.word() == "host").all(|view| !view.adoptable));

    // Who is down is named, and the others are found all the same.
    clouds.fail(Failure::status(500).of("linode").times(None));
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let unasked: Vec<&str> = orphans.unasked.iter().map(|unasked| unasked.provider.as_str()).collect();
    assert_eq!(unasked, ["linode"]);
    let left: Vec<_> = expected.iter().filter(|(provider, ..)| provider != "linode").cloned().collect();
    assert_eq!(known(&orphans), left);
    clouds.heal();
    // Who lists its hosts and does not answer about one hides nothing.
    clouds.fail(Failure::status(503).of("hetzner").on("GET", "^/servers/").times(None));
    let orphans = app.orphans(&stage.caller).await.unwrap();
    assert_eq!(known(&orphans), expected);
    let unasked: Vec<&str> = orphans.unasked.iter().map(|unasked| unasked.provider.as_str()).collect();
    assert_eq!(unasked, ["hetzner"]);
    clouds.heal();

    // A host that somebody else ended.
    clouds.die(&claimed[1], "gone");
    let lost = app.orphans(&stage.caller).await.unwrap().lost;
    let lost: Vec<(&str, &str)> = lost.iter().map(|lost| (lost.server.as_str(), lost.host.id.as_str())).collect();
    assert_eq!(lost, [("hetzner", claimed[1].as_str())]);

    for view in &app.orphans(&stage.caller).await.unwrap().found {
        app.orphan_delete(&stage.caller, &view.orphan.tag()).await.unwrap();
        let again = app.orphan_delete(&stage.caller, &view.orphan.tag()).await;
        assert!(matches!(again, Err(Refusal::NotFound(_))), "{again:?}");
    }
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), []);
    let names: Vec<String> = clouds.living().into_iter().map(|host| host.name).collect();
    assert!(!names.contains(&"second".to_owned()), "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "theirs" || *name == "web").count(), 8, "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "mine").count(), 3, "{names:?}");
    for (provider, id) in PROVIDERS.iter().zip(&claimed) {
        if *provider != "hetzner" {
            clouds.die(id, "gone");
        }
    }
    stage.close().await;
}

#[tokio::test]
async fn a_host_that_its_provider_goes_on_deleting_is_shown_until_it_is_gone_and_nobody_is_asked_about_it() {
    let Some(clouds) = Clouds::start(&Options { machines: Machines::None, ..Options::default() }) else { return };
    // The two that have a word for it.
    for provider in ["hetzner", "linode"] {
        let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, provider)).await;
        let app = &stage.program.app;
        let id = cloud_server(&stage, "world").await;
        let host = plant(&clouds, provider, "host", "spawnpoint-world", &stage.instance, &id);
        let tag = match &app.orphans(&stage.caller).await.unwrap().found[..] {
            [view] => view.orphan.tag(),
            all => panic!("one: {all:#?}"),
        };
        clouds.fail(Failure::half_delete(None).of(provider));
        // Nobody waits for as long as it would.
        let deleting = tokio::time::timeout(Duration::from_secs(2), app.orphan_delete(&stage.caller, &tag)).await;
        assert!(deleting.is_err(), "{deleting:?}");

        let orphans = app.orphans(&stage.caller).await.unwrap();
        assert_eq!(known(&orphans), []);
        let [view] = &orphans.leaving[..] else { panic!("one: {orphans:#?}") };
        assert_eq!((view.orphan.id.as_str(), view.server.as_deref()), (host.as_str(), Some("world")));
        let shown = spawnpoint::discord::render::orphans::orphans(&orphans, view.orphan.since.unwrap());
        assert!(shown.text.starts_with("**What no server has is on its way out**, and is not gone yet."), "{shown:?}");
        let told = " so far · made for `world` · its provider is deleting it, and it may bill";
        assert!(shown.text.contains(told) && shown.buttons.is_empty(), "{shown:?}");
        let again = app.orphan_delete(&stage.caller, &tag).await;
        assert!(matches!(again, Err(Refusal::NotFound(_))), "{again:?}");

        clouds.heal();
        clouds.die(&host, "gone");
        let orphans = app.orphans(&stage.caller).await.unwrap();
        assert!(orphans.leaving.is_empty() && orphans.found.is_empty(), "{orphans:#?}");
        stage.close().await;
    }
}

#[tokio::test]
async fn the_world_on_a_forgotten_host_is_saved_when_it_is_given_back() {
    if !docker_or_skip().await {
        return;
    }
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, "hetzner")).await;
    let app = &stage.program.app;
    let id = cloud_server(&stage, "world").await;
    stage.start("world").await;
    for turn in 1..=3 {
        let answer = app.console(&stage.caller, "world", "turn").await.unwrap();
        assert!(answer.contains(&format!("turn {turn}")), "{answer:?}");
    }
    // Everything that the record says of the host is lost.
    let url = format!("sqlite:{}", stage.config.data_dir.join("spawnpoint.db").display());
    let db = sqlx::SqlitePool::connect(&url).await.unwrap();
    let sql = "UPDATE servers SET owned = '{}', wanted = 'off', lease_until = NULL WHERE id = $1";
    assert_eq!(sqlx::query(sql).bind(&id.0).execute(&db).await.unwrap().rows_affected(), 1);
    db.close().await;

    let orphans = app.orphans(&stage.caller).await.unwrap();
    let host = orphans.found.iter().find(|view| view.orphan.kind.word() == "host").expect("the host is found");
    assert!(host.adoptable && host.orphan.price.is_some() && host.orphan.since.is_some(), "{host:#?}");
    app.orphan_adopt(&stage.caller, &host.orphan.tag()).await.unwrap();
    // Nobody wants it on, so the watcher ends it as it ends any host, with a backup before.
    stage.until("the host is gone", async || clouds.living().is_empty().then_some(())).await;
    let settled = async || (app.status(&stage.caller, "world").await.unwrap().state == State::Offline).then_some(());
    stage.until("the stop has ended", settled).await;
    let [backup] = &app.backups(&stage.caller, "world").await.unwrap()[..] else { panic!("one backup") };
    let turns = stage.config.data_dir.join("vault").join(&id.0).join(&backup.id).join("files/world/turns");
    assert_eq!(std::fs::read_to_string(turns).unwrap(), "3\n");
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), []);
    stage.close().await;
}

#[tokio::test]
async fn a_second_host_that_a_provider_made_too_late_is_told_with_its_price_and_deleted_while_the_game_goes_on() {
    if !docker_or_skip().await {
        return;
    }
    let Some(clouds) = Clouds::start(&Options::default()) else { return };
    // Vultr makes two hosts of one name without a word.
    let stage = Stage::open("tests/recipes", |config| rent_at(config, &clouds, "vultr")).await;
    let app = &stage.program.app;
    let id = cloud_server(&stage, "world").await;
    clouds.fail(Failure::late().of("vultr").on("POST", "^/instances$"));
    stage.start("world").await;
    let [host] = &clouds.living()[..] else { panic!("one host") };
    assert_eq!(known(&app.orphans(&stage.caller).await.unwrap()), []);

    clouds.heal();
    let living: Vec<String> = clouds.living().into_iter().map(|one| one.id).filter(|one| *one != host.id).collect();
    let [twin] = &living[..] else { panic!("one more: {living:?}") };
    let orphans = app.orphans(&stage.caller).await.unwrap();
    let [found] = &orphans.found[..] else { panic!("one: {orphans:#?}") };
    assert_eq!((found.orphan.id.as_str(), found.orphan.server.as_ref()), (twin.as_str(), Some(&id)));
    assert!(found.orphan.price.is_some() && found.orphan.since.is_some() && !found.adoptable, "{found:#?}");
    app.orphan_delete(&stage.caller, &found.orphan.tag()).await.unwrap();
    let alone = async || (clouds.living().iter().all(|one| one.id == host.id)).then_some(());
    stage.until("the second host to be gone", alone).await;
    assert!(app.console(&stage.caller, "world", "turn").await.unwrap().contains("turn 1"));
    stage.stop_server("world").await;
    nothing_left(&clouds);
    stage.close().await;
}
