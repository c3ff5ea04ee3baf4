//! What a start costs, as the providers say it: the whole program beside stand-ins of all four, whose hosts never come
//! up. It rents what it quoted, at the price that it quoted.

mod common {
    pub mod cloud;
}

use common::cloud::{Clouds, Failure, Machines, Options};
use spawnpoint::app::{Created, NewServer, Refusal};
use spawnpoint::clients::cloud::PROVIDERS;
use spawnpoint::config::{Config, OwnHost};
use spawnpoint::model::GuildId;
use spawnpoint::model::access::{Actor, Caller};
use spawnpoint::model::bill::StartCost;
use spawnpoint::model::cost::{Cheapest, Price, Quote};
use spawnpoint::model::host::{Place, Yes};
use spawnpoint::model::view::ServerView;
use spawnpoint::program::Program;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    program: Program,
    caller: Caller,
    stop: CancellationToken,
    work: JoinHandle<()>,
    _home: tempfile::TempDir,
}

fn clouds() -> Option<Clouds> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Clouds::start(&Options { machines: Machines::None, ..Options::default() })
}

/// The program with these providers set up.
async fn house(clouds: &Clouds, providers: &[&str], tweak: impl FnOnce(&mut Config)) -> House {
    let home = tempfile::tempdir().expect("a folder");
    let mut config = Config { data_dir: home.path().join("data"), ..Config::default() };
    config.game_scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes");
    config.docker.enabled = false;
    config.watch.every_seconds = 1;
    for provider in providers {
        let account = match *provider {
            "linode" => &mut config.cloud.linode,
            "hetzner" => &mut config.cloud.hetzner,
            "digitalocean" => &mut config.cloud.digitalocean,
            "vultr" => &mut config.cloud.vultr,
            other => panic!("there is no provider {other}"),
        };
        account.token = Some("a-token".into());
        account.api_url = Some(clouds.url(provider));
    }
    tweak(&mut config);
    let program = Program::build(&config).await.expect("the program is put together");
    let stop = CancellationToken::new();
    let work = program.work(&stop);
    House { program, caller: Caller::operator(GuildId("test".into())), stop, work, _home: home }
}

impl House {
    async fn create(&self, name: &str, place: Place) -> Result<Created, String> {
        let new = NewServer { name: name.into(), game: "toy".into(), place, ..NewServer::default() };
        self.program.app.create(&self.caller, new).await.map_err(|refusal| refusal.to_string())
    }

    async fn look(&self, name: &str) -> ServerView {
        self.program.app.status(&self.caller, name).await.expect("it is there")
    }

    async fn start_cost(&self, name: &str) -> Option<StartCost> {
        self.look(name).await.start
    }

    async fn until(&self, what: &str, name: &str, fits: impl Fn(&ServerView) -> bool) -> ServerView {
        let deadline = Instant::now() + PATIENCE;
        let mut nudges = self.program.app.listen();
        loop {
            let view = self.look(name).await;
            if fits(&view) {
                return view;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}: {view:#?}");
            // A nudge, or a moment: either way it is looked at again.
            let _ = tokio::time::timeout(Duration::from_millis(200), nudges.next()).await;
        }
    }

    /// Until these providers' lists are at hand.
    async fn until_listed(&self, providers: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (offers, images) = (self.program.app.offers().await, self.program.app.images().await);
            let there = |provider: &&str| {
                offers.iter().any(|offer| offer.provider == *provider)
                    && images.iter().any(|image| image.provider == *provider)
            };
            if providers.iter().all(there) {
                return;
            }
            assert!(Instant::now() < deadline, "the lists do not come");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn close(self) {
        self.stop.cancel();
        self.work.await.expect("the engine does not panic");
    }
}

fn in_region(provider: &str, region: &str) -> Place {
    Place { provider: Some(provider.into()), region: Some(region.into()), ..Place::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rented_costs_what_was_quoted_at_every_provider() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &PROVIDERS, |_| ()).await;
    for provider in PROVIDERS {
        let place = Place { provider: Some(provider.into()), ..Place::default() };
        house.create(provider, place).await.expect("it is made");
        let Some(StartCost::Rents(start)) = house.start_cost(provider).await else {
            panic!("{provider} says no price")
        };
        let quote = start.quote;
        let price = quote.price.expect("a price");
        assert_eq!(quote.provider, provider);
        assert!(price.hourly > 0 && price.unit_ms > 0, "{provider}: {price:?}");
        let at_most = start.at_most.expect("at most so much");
        assert!(at_most >= price.hourly && at_most <= 13 * price.hourly, "{provider}: {at_most} of {price:?}");

        house.program.app.start(&house.caller, provider, None).await.expect("it starts");
        let on = house.until("a host", provider, |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
        let bill = on.billing.expect("a bill");
        assert_eq!(bill.price, Some(price), "{provider}");
        assert_eq!(on.start, None, "{provider}: nothing more is rented while it has a host");
        let host = clouds.living().pop().expect("a host");
        assert_eq!((&host.region, &host.size), (&quote.region, &quote.size), "{provider}");

        house
            .program
            .app
            .choose(&house.caller, provider, spawnpoint::app::Choice::Cancel)
            .await
            .expect("it is called off");
        let off = house.until("its end", provider, |view| view.job.is_none()).await;
        assert!(off.billing.is_some_and(|bill| !bill.on && !bill.month.is_nothing()), "{provider}: an hour was begun");
        assert!(clouds.living().is_empty(), "{provider}");
    }
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_a_dearer_host_is_for_who_said_it_and_starts_it_soon() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["linode"], |_| ()).await;
    let app = &house.program.app;
    house.create("world", Place::default()).await.expect("it is made");
    let server = house.program.store.server_by_name(&house.caller.guild, "world").await.unwrap().expect("it is there");
    let usual = server.place.told.clone().expect("its price was told");
    let price = usual.price.clone().map(|price| Price { hourly: 10 * price.hourly, ..price });
    let dearer = Quote { size: "g6-standard-2".into(), price, ..(*usual).clone() };
    let now = async || house.program.store.server_any(&server.id).await.unwrap().expect("it is there").place;
    let agreed = async |until| {
        let (quote, by) = (dearer.clone(), house.caller.actor.clone());
        let yes = Yes { quote, by, until, after: None, told: None, moves: false, begun: false };
        let place = Place { yes: Some(Box::new(yes)), ..server.place.clone() };
        assert!(house.program.store.set_place(&server.id, &now().await, &place).await.unwrap());
    };
    let friend = Actor::Discord { id: "5".into(), name: "a friend".into() };
    let friend = Caller { actor: friend, ..house.caller.clone() };
    let quoted = async |caller| app.start_price(caller, "world").await.unwrap().expect("a price").quote.size;
    agreed(app.now() - 1).await;
    assert_eq!(quoted(&house.caller).await, usual.size, "it is too old");
    agreed(app.now() + 600_000).await;
    assert_eq!(quoted(&house.caller).await, dearer.size);
    assert_eq!(quoted(&friend).await, usual.size, "it is not theirs");
    app.agree(&friend, "world", None).await.expect("they want the usual one");
    assert_eq!(quoted(&house.caller).await, dearer.size, "nobody takes it away");
    let Some(StartCost::Rents(panel)) = house.start_cost("world").await else { panic!("no price") };
    assert_eq!(panel.quote.size, usual.size, "the panel is for everybody");

    let off = async || {
        app.choose(&house.caller, "world", spawnpoint::app::Choice::Cancel).await.expect("it is called off");
        house.until("its end", "world", |view| view.job.is_none()).await;
    };
    app.start(&house.caller, "world", None).await.expect("it starts");
    house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    assert_eq!(clouds.living().pop().expect("a host").size, dearer.size);
    assert!(now().await.yes.is_some_and(|yes| yes.begun), "it was for that start");
    off().await;
    assert_eq!(quoted(&house.caller).await, usual.size, "one yes, one start");

    agreed(app.now() + 600_000).await;
    let rule = Actor::Schedule { name: "daily".into(), user: None };
    app.start(&Caller { actor: rule, ..house.caller.clone() }, "world", None).await.expect("it starts");
    house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    assert_eq!(clouds.living().pop().expect("a host").size, usual.size, "nobody was asked");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_yes_to_another_provider_changes_nothing_before_its_start() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["linode", "hetzner"], |config| config.cloud.provider = Some("linode".into())).await;
    let app = &house.program.app;
    house.until_listed(&["linode", "hetzner"]).await;
    house.create("world", Place::default()).await.expect("it is made");
    let place = async || house.program.store.server_by_name(&house.caller.guild, "world").await.unwrap().unwrap().place;
    let before = place().await;
    clouds.fail(Failure::capacity().of("linode").on("POST", "^/linode/instances$").times(None));
    app.start(&house.caller, "world", None).await.expect("it is tried");
    house.until("its end", "world", |view| view.job.is_none()).await;

    let question = app.dearer_start(&house.caller, "world").await.unwrap().expect("a question");
    let other = question.others.iter().find(|other| other.moves).expect("the other provider's");
    app.agree(&house.caller, "world", Some(&other.tag)).await.expect("a yes");
    let agreed = place().await;
    assert_eq!(Place { yes: None, ..agreed }, before);
    assert_eq!(app.dearer_start(&house.caller, "world").await.unwrap(), None, "nobody is asked twice");
    app.start(&house.caller, "world", None).await.expect("it starts");
    house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    assert_eq!(clouds.living().pop().expect("a host").size, other.quote.size);
    let there = place().await;
    assert_eq!((there.provider.as_deref(), there.told.as_deref()), (Some("hetzner"), Some(&other.quote)));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_place_is_what_is_quoted_and_one_that_is_none_says_why() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["hetzner"], |config| config.cloud.hetzner.plan = Some("cx33".into())).await;
    house.create("there", in_region("hetzner", "hel1")).await.expect("it is made");
    let Some(StartCost::Rents(start)) = house.start_cost("there").await else { panic!("no price") };
    assert_eq!((start.quote.region.as_str(), start.quote.size.as_str()), ("hel1", "cx33"));

    // The list is at hand now, so a place that is none is refused at once.
    let refused = house.create("moon", in_region("hetzner", "moon")).await.expect_err("there is no moon");
    assert!(refused.starts_with("There is no region `moon` to rent."), "{refused}");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_does_not_answer_is_said_and_its_budget_starts_nothing() {
    let Some(clouds) = clouds() else { return };
    clouds.fail(Failure::status(503).times(None));
    let house = house(&clouds, &["vultr"], |config| config.budget.guild_monthly = vec!["5 USD".into()]).await;
    house.create("world", Place::default()).await.expect("it is made");
    let silent = "The provider of `world` does not say now what a host costs. Try again in a minute.";
    assert_eq!(house.start_cost("world").await, Some(StartCost::NotNow { why: silent.into() }));
    let refused = house.program.app.start(&house.caller, "world", None).await.expect_err("it may not start");
    assert_eq!(refused.to_string(), silent);
    clouds.heal();
    assert!(matches!(house.start_cost("world").await, Some(StartCost::Rents(_))));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_of_cents_refuses_what_the_provider_really_wants() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["linode"], |config| config.budget.guild_monthly = vec!["0.01 USD".into()]).await;
    let place = Place { size: Some("g6-standard-2".into()), ..Place::default() };
    house.create("world", place).await.expect("it is made");
    let refused = house.program.app.start(&house.caller, "world", None).await.expect_err("it may not start");
    let said = refused.to_string();
    assert!(
        said.contains("0.00 $ of 0.01 $ is spent, which leaves 0.01 $, and a start costs at least 0.036 $"),
        "{said}"
    );
    assert!(clouds.requests().iter().all(|request| request.method == "GET"), "nothing was rented");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_rented_is_at_hand_before_anybody_asks_and_nobody_waits_for_a_provider() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &PROVIDERS, |_| ()).await;
    let app = &house.program.app;
    house.until_listed(&PROVIDERS).await;
    let offers = app.offers().await;
    assert!(offers.iter().all(|offer| offer.price.is_some() && offer.memory_mb > Some(0) && offer.cpus > Some(0)));

    // A provider that has gone silent holds nobody up who types.
    clouds.fail(Failure::slow(Duration::from_secs(20)).times(None));
    let began = Instant::now();
    assert_eq!(app.offers().await, offers);
    assert!(!app.images().await.is_empty());
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    clouds.heal();
    house.close().await;
}

/// Vultr says region by region what it has left.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_price_waits_for_the_slowest_region_and_not_for_one_after_the_other() {
    let Some(clouds) = clouds() else { return };
    clouds.fail(Failure::slow(Duration::from_secs(3)).of("vultr").on("GET", "/availability$").times(None));
    let house = house(&clouds, &["vultr"], |_| ()).await;
    let began = Instant::now();
    house.create("world", Place::default()).await.expect("it is made");
    let cost = house.start_cost("world").await;
    let took = began.elapsed();
    assert!(matches!(cost, Some(StartCost::Rents(_))), "{cost:?} after {took:?}");
    let regions = clouds.requests().iter().filter(|one| one.path.ends_with("/availability")).count();
    assert!(regions > 3 && took < Duration::from_secs(9), "{regions} regions: {took:?}");
    house.close().await;
}

/// Whoever asks next has it at once, and the provider was asked once.
#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_comes_too_late_for_who_asked_is_kept() {
    let Some(clouds) = clouds() else { return };
    clouds.fail(Failure::status(503).times(None));
    let house = house(&clouds, &["vultr"], |_| ()).await;
    house.create("world", Place::default()).await.expect("it is made");
    let asked = || clouds.requests().iter().filter(|one| one.path == "/plans").count();
    // Until what asks in the background has given up, which pauses for a second at most.
    let mut before = 0;
    let deadline = Instant::now() + PATIENCE;
    while before != asked() {
        assert!(Instant::now() < deadline, "it is asked on and on");
        before = asked();
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    clouds.heal();

    clouds.fail(Failure::slow(Duration::from_secs(8)).of("vultr").on("GET", "^/plans$"));
    let cost = house.start_cost("world").await;
    assert!(matches!(cost, Some(StartCost::NotNow { .. })), "{cost:?}");
    let deadline = Instant::now() + PATIENCE;
    let told = |one: &&common::cloud::Request| one.path.ends_with("/availability") && one.status == Some(200);
    while clouds.requests().iter().filter(told).count() < 4 {
        assert!(Instant::now() < deadline, "what was begun has ended without an answer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    clouds.fail(Failure::status(503).times(None));
    let cost = house.start_cost("world").await;
    assert!(matches!(cost, Some(StartCost::Rents(_))), "{cost:?}");
    assert_eq!(asked(), before + 1);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chosen_image_is_what_is_rented_and_a_private_one_is_not() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["linode"], |_| ()).await;
    house.until_listed(&["linode"]).await;
    let with = |image: &str| Place { image: Some(image.into()), ..Place::default() };
    let refused = house.create("secrets", with("private/15")).await.expect_err("that is the operator's own");
    assert!(refused.starts_with("There is no image `private/15` for a rented host."), "{refused}");
    house.create("world", with("linode/ubuntu24.04")).await.expect("it is made");
    house.program.app.start(&house.caller, "world", None).await.expect("it starts");
    house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    assert_eq!(clouds.living().pop().expect("a host").image, "linode/ubuntu24.04");
    house.close().await;
}

/// Where the list was not at hand when it was chosen, renting looks.
#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_could_check_is_checked_before_anything_is_rented() {
    let Some(clouds) = clouds() else { return };
    clouds.fail(Failure::status(503).times(None));
    let house = house(&clouds, &["hetzner"], |_| ()).await;
    let place = Place { image: Some("161547".into()), ..Place::default() };
    house.create("world", place).await.expect("nobody can say that it is none");
    clouds.heal();
    let job = house.program.app.start(&house.caller, "world", None).await.expect("it is asked for");
    house.until("its end", "world", |view| view.job.is_none()).await;
    let said = format!("{:?}", house.program.app.job_view(job).await.expect("the job"));
    assert!(said.contains("There is no image `161547` to be had from hetzner"), "{said}");
    assert!(clouds.hosts().is_empty());
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_your_own_has_no_price() {
    let Some(clouds) = clouds() else { return };
    let attic = OwnHost { address: "127.0.0.1".into(), port: 22, user: "root".into(), key_file: None, host_key: None };
    let house = house(&clouds, &[], |config| {
        config.hosts.insert("attic".into(), attic);
        config.budget.guild_monthly = vec!["0 USD".into()];
    })
    .await;
    house.create("world", in_region("ssh", "attic")).await.expect("it is made");
    assert_eq!(house.start_cost("world").await, None);
    house.close().await;
}

/// What each of these providers would take for the smallest host that is enough, as a server says that names it.
async fn quotes(house: &House, providers: &[&str]) -> Vec<Quote> {
    let mut quotes = vec![];
    for provider in providers {
        let place = Place { provider: Some((*provider).into()), ..Place::default() };
        house.create(&format!("at-{provider}"), place).await.expect("it is made");
        match house.start_cost(&format!("at-{provider}")).await {
            Some(StartCost::Rents(start)) => quotes.push(start.quote),
            other => panic!("{provider}: {other:?}"),
        }
    }
    quotes
}

fn hourly(quote: &Quote) -> i64 {
    quote.price.as_ref().expect("a price").hourly
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_providers_the_cheapest_is_chosen_once_and_rented_from() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["digitalocean", "linode", "vultr"], |_| ()).await;
    let quotes = quotes(&house, &["digitalocean", "linode", "vultr"]).await;
    let least = quotes.iter().min_by_key(|quote| hourly(quote)).expect("three of them");
    assert_ne!(least.provider, "digitalocean", "or this shows nothing: it is the first by name");

    let made = house.create("world", Place::default()).await.expect("it is made");
    let expected = Cheapest { quote: least.clone(), incomparable: vec![], silent: vec![] };
    assert_eq!(made.cheapest, Some(expected));
    let Some(StartCost::Rents(start)) = house.start_cost("world").await else { panic!("no price") };
    assert_eq!(start.quote, *least);
    house.program.app.start(&house.caller, "world", None).await.expect("it starts");
    house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    let host = clouds.living().pop().expect("a host");
    assert_eq!((host.provider, host.size), (least.provider.clone(), least.size.clone()));

    // Whoever names one gets that one, and a size that one alone has says which.
    let sized = Place { size: Some("s-2vcpu-4gb".into()), ..Place::default() };
    let sized = house.create("sized", sized).await.expect("it is made").cheapest.expect("a choice");
    assert_eq!(sized.quote.provider, "digitalocean");
    let set = [("provider".to_owned(), "linode".to_owned())].into();
    let applied = house.program.app.settings_apply(&house.caller, "sized", set).await.expect("it is changed");
    assert_eq!(applied.cheapest, None);
    // An emptied field is a question again.
    let emptied = [("provider".to_owned(), String::new())].into();
    let applied = house.program.app.settings_apply(&house.caller, "sized", emptied).await.expect("it is changed");
    assert_eq!(applied.cheapest.expect("a choice").quote, *least);
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_in_different_currencies_are_not_compared_and_the_first_by_name_is_taken() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["digitalocean", "hetzner", "linode"], |_| ()).await;
    let quotes = quotes(&house, &["digitalocean", "hetzner", "linode"]).await;
    let [ocean, hetzner, linode] = &quotes[..] else { panic!("{quotes:?}") };
    assert!(hourly(linode) < hourly(ocean), "or this shows nothing");
    let made = house.create("world", Place::default()).await.expect("it is made");
    let expected = Cheapest { quote: hetzner.clone(), incomparable: vec![linode.clone()], silent: vec![] };
    assert_eq!(made.cheapest, Some(expected));
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_says_no_prices_is_left_out_of_the_choice_and_named() {
    let Some(clouds) = clouds() else { return };
    for silence in [Failure::status(503), Failure::status(401), Failure::slow(Duration::from_secs(60))] {
        clouds.fail(silence.of("vultr").times(None));
        let house = house(&clouds, &["digitalocean", "vultr"], |_| ()).await;
        let cheapest = house.create("world", Place::default()).await.expect("it is made").cheapest.expect("a choice");
        assert_eq!((cheapest.quote.provider.as_str(), cheapest.silent), ("digitalocean", vec!["vultr".to_owned()]));
        house.close().await;
        clouds.heal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_chosen_when_it_was_made_is_chosen_at_its_start() {
    let Some(clouds) = clouds() else { return };
    clouds.fail(Failure::status(503).times(None));
    let house = house(&clouds, &["digitalocean", "vultr"], |_| ()).await;
    let made = house.create("world", Place::default()).await.expect("it is made");
    assert_eq!((made.cheapest, made.view.place), (None, Some(Place::default())));
    let refused = house.program.app.start(&house.caller, "world", None).await.expect_err("nobody says where");
    assert!(matches!(refused, Refusal::Busy(_)), "{refused}");
    clouds.heal();
    house.program.app.start(&house.caller, "world", None).await.expect("it starts");
    let on = house.until("a host", "world", |view| view.billing.as_ref().is_some_and(|bill| bill.on)).await;
    assert_eq!(clouds.living().pop().expect("a host").provider, "vultr");
    assert_eq!(on.place.and_then(|place| place.provider).as_deref(), Some("vultr"), "and there it stays");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_the_configuration_is_taken_whatever_it_costs() {
    let Some(clouds) = clouds() else { return };
    let house = house(&clouds, &["digitalocean", "vultr"], |config| {
        config.cloud.provider = Some("digitalocean".into());
    })
    .await;
    let made = house.create("world", Place::default()).await.expect("it is made");
    assert_eq!(made.cheapest, None);
    let place = made.view.place.expect("a place");
    assert_eq!(Place { told: None, ..place.clone() }, Place::default(), "it follows the configuration");
    let told = place.told.expect("a price that people know");
    assert_eq!(told.provider, "digitalocean");
    let Some(StartCost::Rents(start)) = house.start_cost("world").await else { panic!("no price") };
    assert_eq!(start.quote.provider, "digitalocean");
    house.close().await;
}
