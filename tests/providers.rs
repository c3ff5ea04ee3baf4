//! The four providers' clients against stand-ins that hold every request and answer to the provider's own description:
//! the same claims for each, because who rents a host should not have to know from whom.

mod common {
    pub mod cloud;
}

use common::cloud::{Clouds, Failure, Machines, Options};
use spawnpoint::clients::cloud::{
    self, CloudApi, CloudError, FirewallSpec, Host, HostSpec, HostState, Labels, OpenPort, PROVIDERS, USUAL_DEBIAN,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Forms as they are in life: a UUID without dashes, a server's id, a job's number.
const INSTANCE: &str = "0193d3a47f2b7c119a8e5d0c7b6a4f21";
const OTHER_INSTANCE: &str = "0193d3a47f2b7c119a8e5d0c7b6a4f22";
const TOKEN: &str = "token-that-nobody-may-read";

fn clouds() -> Option<Clouds> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Clouds::start(&Options { machines: Machines::None, ..Options::default() })
}

fn open(clouds: &Clouds, provider: &str) -> Arc<dyn CloudApi> {
    open_with(clouds, provider, TOKEN)
}

fn open_with(clouds: &Clouds, provider: &str, token: &str) -> Arc<dyn CloudApi> {
    let api = cloud::open(provider, token.into(), Some(&clouds.url(provider))).expect("a client");
    assert_eq!(api.name(), provider);
    api
}

fn labels(server: &str) -> Labels {
    Labels { instance: INSTANCE.into(), server: server.into(), job: "42".into() }
}

fn place(provider: &str) -> (&'static str, &'static str) {
    match provider {
        "linode" => ("eu-central", "g6-standard-2"),
        "hetzner" => ("fsn1", "cx23"),
        "digitalocean" => ("fra1", "s-2vcpu-4gb"),
        _ => ("fra", "vc2-2c-4gb"),
    }
}

fn wish(provider: &str) -> HostSpec {
    let (region, size) = place(provider);
    HostSpec {
        name: "spawnpoint-q3k8m2x9ab-42".into(),
        labels: labels("q3k8m2x9ab"),
        region: region.into(),
        size: size.into(),
        image: None,
        debian: USUAL_DEBIAN,
        user_data: "#cloud-config\n{\"write_files\": [{\"content\": \"snowman ☃\"}]}\n".into(),
        firewall: None,
    }
}

fn firewall(ports: &[(u16, bool)]) -> FirewallSpec {
    let ports = ports.iter().map(|(number, udp)| OpenPort { number: *number, udp: *udp }).collect();
    FirewallSpec { name: "spawnpoint-q3k8m2x9ab-with-a-long-name".into(), labels: labels("q3k8m2x9ab"), ports }
}

fn hosts_path(provider: &str) -> &'static str {
    match provider {
        "linode" => "^/linode/instances",
        "hetzner" => "^/servers",
        "digitalocean" => "^/droplets",
        _ => "^/instances",
    }
}

/// How often a host was asked for.
fn creates(clouds: &Clouds, provider: &str) -> usize {
    let path = hosts_path(provider).trim_start_matches('^');
    let mine = |request: &&common::cloud::Request| {
        request.provider == provider && request.method == "POST" && request.path == path
    };
    clouds.requests().iter().filter(mine).count()
}

async fn looked_at_until(api: &Arc<dyn CloudApi>, id: &str, done: impl Fn(Option<&Host>) -> bool) -> Option<Host> {
    // Without machines a host's life goes on by being looked at.
    for _ in 0..6 {
        let host = api.host(id).await.expect("an answer");
        if done(host.as_ref()) {
            return host;
        }
    }
    panic!("{}: it never came to that", api.name());
}

#[tokio::test]
async fn a_host_is_made_once_found_by_its_label_and_destroyed_as_often_as_anybody_likes() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let wish = wish(provider);
        let made = api.create(&wish).await.expect("a host");
        assert_eq!((&made.name, &made.labels), (&wish.name, &wish.labels), "{provider}");
        assert_eq!((&made.region, &made.size), (&wish.region, &wish.size), "{provider}");
        assert_eq!(made.state, HostState::Starting, "{provider}");
        let age_ms = jiff::Timestamp::now().as_millisecond() - made.created_at_ms;
        assert!((-5_000..60_000).contains(&age_ms), "{provider}: made {age_ms} ms ago");

        let found = api.hosts(INSTANCE).await.expect("a list");
        assert_eq!(found.iter().map(|host| &host.id).collect::<Vec<_>>(), [&made.id], "{provider}");
        assert!(api.hosts(OTHER_INSTANCE).await.expect("a list").is_empty(), "{provider}");

        let is_running = |host: Option<&Host>| host.is_some_and(|host| host.state == HostState::Running);
        let running = looked_at_until(&api, &made.id, is_running).await.expect("a host");
        assert_eq!(running.address, Some(clouds.host(&made.id).address), "{provider}");
        assert_eq!(running.created_at_ms, made.created_at_ms, "{provider}");

        api.destroy(&made.id).await.expect("a destroyed host");
        looked_at_until(&api, &made.id, |host| host.is_none()).await;
        api.destroy(&made.id).await.expect("nothing to destroy");
        assert_eq!(clouds.host(&made.id).phase, "gone", "{provider}");
    }
}

#[tokio::test]
async fn an_end_that_is_accepted_and_does_not_come_still_shows_a_host() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let made = api.create(&wish(provider)).await.expect("a host");
        clouds.fail(Failure::half_delete(Some(3)).of(provider));
        api.destroy(&made.id).await.expect("accepted");
        let listed = api.hosts(INSTANCE).await.expect("a list");
        assert_eq!(listed.iter().map(|host| &host.id).collect::<Vec<_>>(), [&made.id], "{provider}");
        assert!(api.host(&made.id).await.expect("an answer").is_some(), "{provider}: it bills, and is not shown");
        api.destroy(&made.id).await.expect("asked for again");
        looked_at_until(&api, &made.id, |host| host.is_none()).await;
        assert!(api.hosts(INSTANCE).await.expect("a list").is_empty(), "{provider}");
        assert!(clouds.living().iter().all(|host| host.provider != provider), "{provider}");
    }
}

#[tokio::test]
async fn an_end_without_an_answer_is_asked_for_again() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        for failure in [Failure::drop_before(), Failure::drop_after(), Failure::status(503)] {
            let made = api.create(&wish(provider)).await.expect("a host");
            clouds.fail(failure.of(provider).on("DELETE", hosts_path(provider)));
            api.destroy(&made.id).await.expect("accepted, at the first or the second try");
            looked_at_until(&api, &made.id, |host| host.is_none()).await;
        }
        assert!(clouds.living().iter().all(|host| host.provider != provider), "{provider}");

        // Nor is a host that something else is done with refused for good.
        let made = api.create(&wish(provider)).await.expect("a host");
        clouds.fail(Failure::pending().of(provider).on("DELETE", hosts_path(provider)));
        api.destroy(&made.id).await.expect("accepted at the second try");
        looked_at_until(&api, &made.id, |host| host.is_none()).await;

        // A right that was taken away is no end.
        let made = api.create(&wish(provider)).await.expect("a host");
        clouds.fail(Failure::denied().of(provider).on("DELETE", hosts_path(provider)));
        let error = api.destroy(&made.id).await.expect_err("denied");
        assert!(matches!(error, CloudError::Denied(_)), "{provider}: {error:?}");
        assert!(api.host(&made.id).await.expect("an answer").is_some(), "{provider}");
    }
}

/// DigitalOcean's tags are things of their own: who deletes one takes it from everything that carries it.
#[tokio::test]
async fn a_host_keeps_its_labels_when_another_with_the_same_ones_is_destroyed() {
    let Some(clouds) = clouds() else { return };
    for provider in ["digitalocean", "vultr"] {
        let api = open(&clouds, provider);
        let first = api.create(&wish(provider)).await.expect("a host");
        let second = api.create(&wish(provider)).await.expect("its twin");
        clouds.fail(Failure::half_delete(Some(3)).of(provider));
        api.destroy(&first.id).await.expect("accepted");
        for host in api.hosts(INSTANCE).await.expect("a list") {
            assert_eq!(host.labels, wish(provider).labels, "{provider}: {host:?}");
        }
        looked_at_until(&api, &first.id, |host| host.is_none()).await;
        api.forget_labels(&wish(provider).labels).await;
        let found = api.hosts(INSTANCE).await.expect("a list");
        let [left] = &found[..] else { panic!("{provider}: {found:?}") };
        assert_eq!((&left.id, &left.labels), (&second.id, &wish(provider).labels), "{provider}");

        api.destroy(&second.id).await.expect("accepted");
        looked_at_until(&api, &second.id, |host| host.is_none()).await;
        api.forget_labels(&wish(provider).labels).await;
        let tag = |request: &&common::cloud::Request| request.path.starts_with("/tags/spawnpoint-j-");
        let forgotten = clouds.requests().iter().filter(tag).filter(|request| request.provider == provider).count();
        assert_eq!(forgotten, usize::from(provider == "digitalocean"), "{provider}");
    }
}

#[tokio::test]
async fn a_firewall_without_an_answer_is_found_and_not_made_twice() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        clouds.fail(Failure::drop_after().of(provider).on("POST", "/firewalls$"));
        let error = api.open_firewall(&firewall(&[(22, false)])).await.expect_err("no answer");
        assert!(matches!(error, CloudError::Busy { after: None, .. }), "{provider}: {error:?}");
        let id = api.open_firewall(&firewall(&[(22, false), (27100, true)])).await.expect("a firewall").expect("an id");
        let here: Vec<_> = clouds.things().into_iter().filter(|thing| thing.provider == provider).collect();
        assert_eq!(here.iter().map(|thing| &thing.id).collect::<Vec<_>>(), [&id], "{provider}");
        let rules = here[0].data.to_string();
        assert!(rules.contains("27100"), "{provider}: {rules}");
    }
}

#[tokio::test]
async fn an_answer_of_another_form_is_no_empty_list() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let answers = [
            Failure::proxy(200).body("<html>maintenance</html>".into()),
            Failure::proxy(200).body(serde_json::json!({ "message": "hello" })),
            Failure::proxy(302).header("Location", &format!("{}/elsewhere", clouds.url(provider))),
        ];
        for answer in answers {
            clouds.fail(answer.of(provider).on("GET", hosts_path(provider)));
            let error = api.hosts(INSTANCE).await.expect_err("no list");
            assert!(matches!(error, CloudError::Strange(_)), "{provider}: {error:?}");
        }
        assert!(clouds.requests().iter().all(|request| !request.path.contains("elsewhere")), "{provider}");
        assert!(api.hosts(INSTANCE).await.expect("a list").is_empty(), "{provider}");
    }
}

#[tokio::test]
async fn what_runs_off_is_off_and_what_a_person_untagged_is_still_there() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let planted = clouds.plant(provider, "somebody-elses", &["web"], &[("web", "yes")]);
        let host = api.host(&planted.id).await.expect("an answer").expect("a host");
        assert_eq!((host.labels, host.state), (Labels::default(), HostState::Running), "{provider}");
        clouds.die(&planted.id, "off");
        let host = api.host(&planted.id).await.expect("an answer").expect("a host");
        assert_eq!(host.state, HostState::Off, "{provider}");
        assert!(api.hosts(INSTANCE).await.expect("a list").is_empty(), "{provider}");
    }
}

#[tokio::test]
async fn hosts_are_found_page_after_page() {
    let Some(clouds) = clouds() else { return };
    // One more than fills the largest page that each provider gives.
    for (provider, page) in [("linode", 500), ("hetzner", 50), ("digitalocean", 200), ("vultr", 500)] {
        let tags = labels("q3k8m2x9ab").tags();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let values = [("spawnpoint-instance", INSTANCE), ("spawnpoint-server", "q3k8m2x9ab"), ("spawnpoint-job", "42")];
        let mut planted = BTreeSet::new();
        for at in 0..=page {
            planted.insert(clouds.plant(provider, &format!("crowd-{at}"), &tags, &values).id);
        }
        clouds.plant(provider, "not-ours", &["spawnpoint"], &[("spawnpoint", "yes")]);
        let found = open(&clouds, provider).hosts(INSTANCE).await.expect("a list");
        assert_eq!(found.len(), page + 1, "{provider}");
        assert_eq!(found.iter().map(|host| host.id.clone()).collect::<BTreeSet<_>>(), planted, "{provider}");
        assert!(found.iter().all(|host| host.labels == labels("q3k8m2x9ab")), "{provider}");
    }
}

#[tokio::test]
async fn a_create_without_an_answer_is_sent_once_and_its_host_is_found() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        clouds.fail(Failure::drop_after().of(provider).on("POST", hosts_path(provider)));
        let error = api.create(&wish(provider)).await.expect_err("no answer");
        assert!(matches!(error, CloudError::Busy { after: None, .. }), "{provider}: {error:?}");
        assert_eq!(creates(&clouds, provider), 1, "{provider}");
        let found = api.hosts(INSTANCE).await.expect("a list");
        assert_eq!(found.len(), 1, "{provider}");
        assert_eq!(found[0].name, wish(provider).name, "{provider}");
        // Where names are unique, a second one is reported.
        let again = api.create(&wish(provider)).await;
        let unique = matches!(provider, "linode" | "hetzner");
        assert_eq!(again.is_err(), unique, "{provider}: {again:?}");
    }
}

#[tokio::test]
async fn a_look_waits_as_long_as_it_is_asked_to_and_no_longer_than_is_sensible() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let too_many = |after: &str| {
            Failure::status(429).header("Retry-After", after).of(provider).on("GET", hosts_path(provider))
        };
        let began = Instant::now();
        clouds.fail(too_many("1"));
        assert!(api.hosts(INSTANCE).await.expect("an answer at the second try").is_empty());
        assert!(began.elapsed() >= Duration::from_secs(1), "{provider}");

        clouds.fail(too_many("77"));
        let error = api.hosts(INSTANCE).await.expect_err("too many requests");
        let CloudError::Busy { after, why } = &error else { panic!("{provider}: {error:?}") };
        assert_eq!(*after, Some(Duration::from_secs(77)), "{provider}: {why}");

        clouds.fail(Failure::status(503).of(provider).on("GET", hosts_path(provider)).times(None));
        let error = api.hosts(INSTANCE).await.expect_err("trouble");
        assert!(matches!(error, CloudError::Busy { after: None, .. }), "{provider}: {error:?}");
        clouds.heal();
        clouds.fail(Failure::drop_before().of(provider).on("GET", hosts_path(provider)));
        assert!(api.hosts(INSTANCE).await.expect("an answer at the second try").is_empty());
    }
}

#[tokio::test]
async fn every_no_is_told_apart_and_never_shows_the_token() {
    let Some(clouds) = clouds() else { return };
    let mut told = String::new();
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let (region, _) = place(provider);
        let no_such_size = HostSpec { size: "no-such-size".into(), ..wish(provider) };
        for (name, failure) in [
            ("capacity", Some(Failure::capacity())),
            ("quota", Some(Failure::quota())),
            ("denied", Some(Failure::denied())),
            ("too many", Some(Failure::status(429).header("Retry-After", "7"))),
            ("trouble", Some(Failure::status(503))),
            ("no JSON", Some(Failure::proxy(502).body("<html>bad gateway</html>".into()))),
            ("no such size", None),
        ] {
            let before = creates(&clouds, provider);
            let wish = if failure.is_some() { wish(provider) } else { no_such_size.clone() };
            if let Some(failure) = failure {
                clouds.fail(failure.of(provider).on("POST", hosts_path(provider)));
            }
            let error = api.create(&wish).await.expect_err(name);
            assert_eq!(creates(&clouds, provider), before + 1, "{provider}, {name}: it was sent again");
            assert!(!format!("{error:?} {error} {region}").contains(TOKEN));
            let kind = format!("{error:?}");
            let kind = kind.split(['(', ' ']).next().unwrap_or_default().to_owned();
            told += &format!("{provider}, {name}: {kind}: {error}\n");
        }
        let error = open_with(&clouds, provider, "wrong").hosts(INSTANCE).await.expect_err("a wrong token");
        told += &format!("{provider}, wrong token: {error}\n");
        assert!(clouds.living().iter().all(|host| host.provider != provider), "{provider}");
    }
    insta::assert_snapshot!(told);
}

#[tokio::test]
async fn offers_have_prices_and_say_what_is_sold_out() {
    let Some(clouds) = clouds() else { return };
    let sold_out = [
        ("linode", "g6-dedicated-4", "jp-osa"),
        ("hetzner", "", ""),
        ("digitalocean", "512mb", ""),
        ("vultr", "vc2-6c-16gb", "fra"),
    ];
    for (provider, gone_size, gone_region) in sold_out {
        let offers = open(&clouds, provider).offers().await.expect("offers");
        let (region, size) = place(provider);
        let offer = offers.iter().find(|offer| offer.size == size && offer.region == region).expect("an offer");
        assert!(offer.available && offer.memory_mb == 4096 && offer.cpus == 2 && !offer.arm, "{provider}: {offer:?}");
        for offer in &offers {
            assert!(offer.hourly > 1_000 && offer.disk_gb > 0, "{provider}: {offer:?}");
            let monthly = offer.monthly.expect("a cap");
            assert!((offer.hourly * 500..offer.hourly * 800).contains(&monthly), "{provider}: {offer:?}");
            assert_eq!(offer.currency, if provider == "hetzner" { "EUR" } else { "USD" });
            let gone = offer.size == gone_size && (gone_region.is_empty() || offer.region == gone_region);
            assert!(!(gone && offer.available), "{provider}: {offer:?}");
        }
        let pairs: BTreeSet<_> = offers.iter().map(|offer| (&offer.size, &offer.region)).collect();
        assert_eq!(pairs.len(), offers.len(), "{provider}: an offer twice");
    }
}

#[tokio::test]
async fn images_are_debian_and_ubuntu_and_the_usual_one_is_what_a_host_gets_unasked() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let images = api.images().await.expect("a list");
        assert!(images.len() >= 3, "{provider}: {images:?}");
        let fit = |title: &str| title.starts_with("Debian 1") || title.starts_with("Ubuntu 2");
        assert!(images.iter().all(|image| fit(&image.title) && !image.word.is_empty()), "{provider}: {images:?}");
        let words: BTreeSet<&str> = images.iter().map(|image| image.word.as_str()).collect();
        assert_eq!(words.len(), images.len(), "{provider}: each once, whatever the processor: {images:?}");
        let usual: Vec<_> = images.iter().filter(|image| image.usual).collect();
        assert!(usual.len() == 1 && usual[0].title.starts_with("Debian 12"), "{provider}: {usual:?}");
        let host = api.create(&wish(provider)).await.expect("a host");
        assert_eq!(clouds.host(&host.id).image, usual[0].word, "{provider}");
        api.destroy(&host.id).await.expect("it goes");
        // A game that is made for another release gets that one.
        let newer = HostSpec { name: "spawnpoint-newer-44".into(), debian: 13, ..wish(provider) };
        let host = api.create(&newer).await.unwrap_or_else(|error| panic!("{provider}: {error}"));
        let found = images.iter().find(|image| image.word == clouds.host(&host.id).image).expect("a listed one");
        assert!(found.title.starts_with("Debian 13"), "{provider}: {found:?}");
        api.destroy(&host.id).await.expect("it goes");
        // Each can be rented by its word.
        let other = images.iter().find(|image| !image.usual).expect("another");
        let wish = HostSpec { name: "spawnpoint-other-43".into(), image: Some(other.word.clone()), ..wish(provider) };
        let host = api.create(&wish).await.unwrap_or_else(|error| panic!("{provider} {}: {error}", other.word));
        assert_eq!(clouds.host(&host.id).image, other.word, "{provider}");
        api.destroy(&host.id).await.expect("it goes");
    }
}

#[tokio::test]
async fn a_firewall_is_made_once_follows_its_ports_and_goes() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let here = || clouds.things().into_iter().filter(|thing| thing.provider == provider).collect::<Vec<_>>();
        let id = api.open_firewall(&firewall(&[(22, false), (27100, true)])).await.expect("a firewall").expect("an id");
        let again = api.open_firewall(&firewall(&[(22, false), (27100, true)])).await.expect("a firewall");
        assert_eq!((again.as_ref(), here().len()), (Some(&id), 1), "{provider}");
        let many: Vec<_> = (0..20).map(|at| (27000 + at, at % 5 == 0)).chain([(22, false)]).collect();
        let wider = api.open_firewall(&firewall(&many)).await.expect("a firewall");
        assert_eq!((wider.as_ref(), here().len()), (Some(&id), 1), "{provider}");
        let rules = here()[0].data.to_string();
        assert!(rules.contains("27019") && !rules.contains("27100"), "{provider}: {rules}");

        let mut wish = wish(provider);
        wish.firewall = Some(id.clone());
        let host = api.create(&wish).await.expect("a host");
        let extras = api.extras(INSTANCE).await.expect("a list");
        let short: Vec<_> = extras.iter().map(|e| (e.kind, e.id.as_str(), e.server.as_deref())).collect();
        assert_eq!(short, [("firewall", id.as_str(), Some("q3k8m2x9ab"))], "{provider}");

        if provider == "hetzner" {
            let error = api.delete_firewall(&id).await.expect_err("it is in use");
            assert!(matches!(error, CloudError::Busy { .. }), "{error:?}");
        }
        api.destroy(&host.id).await.expect("a destroyed host");
        looked_at_until(&api, &host.id, |host| host.is_none()).await;
        api.delete_firewall(&id).await.expect("a deleted firewall");
        api.delete_firewall(&id).await.expect("nothing to delete");
        assert!(here().is_empty(), "{provider}: {:?}", here());
    }
}

#[tokio::test]
async fn extras_are_what_carries_our_label_and_nothing_else() {
    let Some(clouds) = clouds() else { return };
    for provider in PROVIDERS {
        let api = open(&clouds, provider);
        let mine = api.open_firewall(&firewall(&[(22, false)])).await.expect("a firewall").expect("an id");
        let other = Labels { instance: OTHER_INSTANCE.into(), ..labels("q3k8m2x9ab") };
        let theirs = FirewallSpec { name: "another".into(), labels: other, ..firewall(&[(22, false)]) };
        api.open_firewall(&theirs).await.expect("a firewall");
        clouds.plant_thing(provider, "firewall", "by-hand", &[], &[]);
        clouds.plant_thing(provider, "volume", "by-hand", &["web"], &[("web", "yes")]);
        let tags = labels("q3k8m2x9ab").tags();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let values = [("spawnpoint-instance", INSTANCE), ("spawnpoint-server", "q3k8m2x9ab")];
        clouds.plant_thing(provider, "volume", "forgotten", &tags, &values);
        clouds.plant_thing(provider, "ssh_key", "forgotten", &[], &values);

        let found = api.extras(INSTANCE).await.expect("a list");
        let kinds: Vec<_> = found.iter().map(|extra| extra.kind).collect();
        let expected: &[&str] = match provider {
            "hetzner" => &["firewall", "SSH key", "volume"],
            "vultr" => &["firewall"],
            _ => &["firewall", "volume"],
        };
        assert_eq!(kinds, expected, "{provider}: {found:?}");
        assert_eq!(found[0].id, mine, "{provider}");
        assert!(found.iter().all(|extra| extra.server.as_deref() == Some("q3k8m2x9ab")), "{provider}: {found:?}");
        for extra in &found {
            api.delete_extra(extra).await.expect("deleted");
            api.delete_extra(extra).await.expect("gone already");
        }
        assert!(api.extras(INSTANCE).await.expect("a list").is_empty(), "{provider}");
        assert_eq!(api.extras(OTHER_INSTANCE).await.expect("a list").len(), 1, "{provider}");
    }
}
