//! How much a picture asks of the database: a list of many servers asks no more often than a list of few. Counted, not
//! timed. Here and alone, because what is counted is counted for the whole process.

use futures::future::join_all;
use spawnpoint::app::{App, Choices, Parts};
use spawnpoint::bus::Bus;
use spawnpoint::engine::{Clock, Defaults, Engine, Journal};
use spawnpoint::model::access::{Actor, Caller};
use spawnpoint::model::cost::Price;
use spawnpoint::model::host::HostRef;
use spawnpoint::model::job::{Action, Cause, Event, NewJob, Recorded, Step, Subject};
use spawnpoint::model::lease::Rules;
use spawnpoint::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use spawnpoint::model::{GuildId, ServerId};
use spawnpoint::recipes::Recipes;
use spawnpoint::store::Store;
use spawnpoint::vault::Vault;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::{Event as Told, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Every statement that was sent to the database.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Told<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::query" {
            event.record(&mut Summary(&self.0));
        }
    }
}

struct Summary<'a>(&'a Mutex<Vec<String>>);

impl Visit for Summary<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        // A connection that opens says these for itself.
        if field.name() == "summary" && !text.contains("PRAGMA") {
            self.0.lock().unwrap().push(text);
        }
    }
}

impl Statements {
    /// What the work came to, and the statements that it took.
    async fn during<T>(&self, work: impl Future<Output = T>) -> (T, Vec<String>) {
        self.0.lock().unwrap().clear();
        let done = work.await;
        (done, std::mem::take(&mut *self.0.lock().unwrap()))
    }
}

struct Home {
    app: App,
    store: Store,
    _folder: tempfile::TempDir,
}

async fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::connect(&format!("sqlite:{}/store.db?mode=rwc", folder.path().display())).await.unwrap();
    let (journal, bus): (Arc<dyn Journal>, Bus) = (Arc::new(store.clone()), Bus::default());
    let rules = Rules { idle_ms: 1000, never_joined_ms: 1000, lease_ms: 1000 };
    let defaults = Defaults { rules, watch_every: Duration::from_secs(15) };
    let app = App::new(Parts {
        store: store.clone(),
        engine: Engine::new(journal, HashMap::new(), bus.clone(), Clock::System, defaults),
        vault: Vault::open(&folder.path().join("vault")).unwrap(),
        recipes: Arc::new(Recipes::load(Path::new("tests/recipes")).unwrap()),
        bus,
        choices: Choices { players_role: "players".into(), extend_ms: 1000, zone: jiff::tz::TimeZone::UTC },
    });
    Home { app, store, _folder: folder }
}

/// So many servers of each kind that a picture asks something of its own for: one that is off, one with a job under way
/// that has printed something, one with a job that is held, and one on a rented host.
async fn guild(home: &Home, name: &str, of_each: usize) -> Caller {
    let guild = GuildId(name.into());
    for n in 0..of_each {
        make(home, &guild, &format!("off-{n}"), Backend::Docker).await;
        let busy = make(home, &guild, &format!("busy-{n}"), Backend::Docker).await;
        job(home, &guild, &busy, Action::Start, false).await;
        let held = make(home, &guild, &format!("held-{n}"), Backend::Docker).await;
        job(home, &guild, &held, Action::Stop, true).await;
        let rented = make(home, &guild, &format!("rented-{n}"), Backend::Cloud).await;
        let host: HostRef = HostRef {
            price: Some(Price { currency: "EUR".into(), hourly: 10_000, monthly: None, unit_ms: 3_600_000 }),
            ..serde_json::from_value(serde_json::json!({
                "provider": "hetzner", "id": rented.0, "region": "fsn1", "size": "cx22", "host_key": "",
                "created_at": home.app.now() - 1
            }))
            .unwrap()
        };
        assert!(home.store.adopt_host(&rented, &host, &Actor::Operator, home.app.now()).await.unwrap());
    }
    Caller::operator(guild)
}

async fn make(home: &Home, guild: &GuildId, name: &str, backend: Backend) -> ServerId {
    let server = Server {
        id: ServerId(format!("{guild}-{name}")),
        guild: guild.clone(),
        name: ServerName::parse(name).unwrap(),
        game: "toy".into(),
        backend,
        settings: BTreeMap::new(),
        limits: Limits::default(),
        place: Default::default(),
        wanted: Wanted::Off,
        owned: Owned::default(),
        lease_until: None,
        update_at_start: false,
        channel: None,
        created_at: 1,
        deleted_at: None,
    };
    home.store.create_server(&server, &HashMap::new(), &Actor::Operator).await.unwrap();
    server.id
}

async fn job(home: &Home, guild: &GuildId, server: &ServerId, action: Action, held: bool) {
    let step = if held { Step::PullWorld } else { Step::CloneDrive };
    let new = NewJob {
        subject: Subject::Server(server.clone()),
        guild: guild.clone(),
        action,
        cause: Cause::Asked,
        actor: Actor::Operator,
        channel: None,
        plan: vec![step, Step::StartGame],
    };
    let store = &home.store;
    let id = store.open(new, Default::default(), 10).await.unwrap();
    assert!(store.claim(id, "e", 0, 100).await.unwrap());
    let mut job = store.load(id).await.unwrap();
    let failed = held.then(|| Event::Failed { step, error: "the disk is full".into(), may_pass: false });
    for event in [Event::Started { step }].into_iter().chain(failed) {
        let recorded = Recorded { at: 11, event };
        store.append(&job, Some("e"), &recorded).await.unwrap();
        job.apply(&recorded).unwrap();
    }
    store.output(id, step, 12, &[format!("{server} says something"), "and more".into()]).await.unwrap();
}

#[tokio::test]
async fn a_list_of_many_servers_asks_no_more_often_than_a_list_of_few() {
    let statements = Statements::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(statements.clone())).unwrap();
    let home = home().await;
    let (few, many) = (guild(&home, "few", 1).await, guild(&home, "many", 5).await);

    let (list, of_few) = statements.during(home.app.servers(&few)).await;
    assert_eq!(list.unwrap().len(), 4);
    let (list, of_many) = statements.during(home.app.servers(&many)).await;
    let list = list.unwrap();
    assert_eq!(list.len(), 20);
    assert!(!of_few.is_empty(), "the statements are not counted");
    assert_eq!(of_many.len(), of_few.len(), "{of_many:#?}");

    // What is read together is what is read one by one.
    let ids = list.iter().map(|view| ServerId(view.id.clone()));
    let alone = join_all(ids.map(async |id| home.app.server_view(&id).await.unwrap().unwrap())).await;
    assert_eq!(list, alone);
    let job = |name: &str| list.iter().find(|view| view.name == name).unwrap().job.as_ref().unwrap();
    assert_eq!(job("busy-3").output, ["many-busy-3 says something", "and more"]);
    assert_eq!(job("held-3").output, ["many-held-3 says something", "and more"]);
    assert_eq!(list.iter().filter(|view| view.billing.is_some()).count(), 5);

    // What pops up while a name is typed, and one server's picture.
    let (names, statements_of_names) = statements.during(home.app.server_names(&many.guild)).await;
    assert_eq!((names.len(), statements_of_names.len()), (20, 1), "{statements_of_names:#?}");
    let (status, of_status) = statements.during(home.app.status(&many, "off-3")).await;
    status.unwrap();
    assert!(of_status.len() <= 6, "{of_status:#?}");
}
