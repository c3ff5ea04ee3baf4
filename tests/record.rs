//! What people do is on record before it is done: an action that is cut off anywhere, as by a crash, leaves no deed
//! without its line in the audit log. The whole program over drivers that remember.

use futures::future::poll_fn;
use jiff::tz::TimeZone;
use spawnpoint::app::{Answer, App, Choice, Choices, NewServer, Parts, UpdateWhen};
use spawnpoint::bus::Bus;
use spawnpoint::drivers::fake::{Fake, Outside};
use spawnpoint::engine::{Clock, Defaults, Driver, Engine, Journal};
use spawnpoint::model::GuildId;
use spawnpoint::model::access::{Actor, Caller, Grantee, Permission};
use spawnpoint::model::lease::Rules;
use spawnpoint::model::server::Backend;
use spawnpoint::recipes::Recipes;
use spawnpoint::store::Store;
use spawnpoint::vault::Vault;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// More than any of these actions takes.
const WAITS_MAX: usize = 2000;

struct Home {
    app: App,
    store: Store,
    caller: Caller,
    _folder: tempfile::TempDir,
}

async fn home() -> Home {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::connect(&format!("sqlite:{}/store.db?mode=rwc", folder.path().display())).await.unwrap();
    let (journal, bus): (Arc<dyn Journal>, Bus) = (Arc::new(store.clone()), Bus::default());
    let fake: Arc<dyn Driver> = Arc::new(Fake::new(Outside::default()));
    let rules = Rules { idle_ms: 1000, never_joined_ms: 1000, lease_ms: 1000 };
    let defaults = Defaults { rules, watch_every: Duration::from_secs(15) };
    let app = App::new(Parts {
        store: store.clone(),
        engine: Engine::new(journal, HashMap::from([(Backend::Docker, fake)]), bus.clone(), Clock::System, defaults),
        vault: Vault::open(&folder.path().join("vault")).unwrap(),
        recipes: Arc::new(Recipes::load(Path::new("tests/recipes")).unwrap()),
        bus,
        choices: Choices { players_role: "players".into(), extend_ms: 1000, zone: TimeZone::UTC },
    });
    Home { app, store, caller: Caller::operator(GuildId("1".into())), _folder: folder }
}

impl Home {
    async fn create(&self, name: &str) {
        let new =
            NewServer { name: name.into(), game: "toy".into(), backend: Some("docker".into()), ..NewServer::default() };
        self.app.create(&self.caller, new).await.unwrap();
    }

    async fn memory_of(&self, name: &str) -> Option<u32> {
        let server = self.store.server_by_name(&self.caller.guild, name).await.unwrap();
        server.and_then(|server| server.limits.memory_mb)
    }

    async fn is_busy(&self, name: &str) -> bool {
        let jobs = self.store.open_jobs_in(&self.caller.guild).await.unwrap();
        let server = self.store.server_by_name(&self.caller.guild, name).await.unwrap();
        jobs.iter().any(|job| job.subject.server() == server.as_ref().map(|server| &server.id))
    }

    /// Whether the audit log says so, of who did it.
    async fn is_on_record(&self, action: &str, about: &str) -> bool {
        let lines = self.store.audit(&self.caller.guild, None, 5000).await.unwrap();
        lines.iter().any(|line| {
            line.actor == self.caller.actor
                && line.action == action
                && (line.server.as_deref() == Some(about) || line.detail.contains(about))
        })
    }
}

/// Does it up to so many waits, and then no further. `true` when it came to its end.
async fn cut_off<T>(work: impl Future<Output = T>, waits: usize) -> bool {
    let (mut work, mut left) = (pin!(work), waits);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(_) => Poll::Ready(true),
        Poll::Pending if left == 0 => Poll::Ready(false),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Cuts the action off after one wait, after two, and so on until it gets through; each time about something new.
async fn cut_off_anywhere(
    home: &Home,
    action: &str,
    before: impl AsyncFn(&str),
    does: impl AsyncFn(&str),
    is_done: impl AsyncFn(&str) -> bool,
) {
    let mut done = 0;
    for waits in 0..WAITS_MAX {
        let about = format!("{action}{waits}");
        before(&about).await;
        let through = cut_off(does(&about), waits).await;
        // What was on its way to the database has arrived when this has.
        home.store.set_meta("after", &about).await.unwrap();
        if is_done(&about).await {
            done += 1;
            assert!(home.is_on_record(action, &about).await, "{action} is done after {waits} waits, and not on record");
        }
        if through {
            break;
        }
    }
    assert!(done > 0, "{action} never got through");
}

#[tokio::test]
async fn whatever_was_done_is_on_record_wherever_it_is_cut_off() {
    let home = home().await;
    let (app, store, caller) = (&home.app, &home.store, &home.caller);
    let make = async |name: &str| home.create(name).await;
    let does = async |user: &str| {
        app.grant(caller, Grantee::User(user.into()), Permission::Play, None).await.unwrap();
    };
    let is_done = async |user: &str| {
        let grants = store.grants(&caller.guild).await.unwrap();
        grants.iter().any(|grant| grant.grantee == Grantee::User(user.into()))
    };
    cut_off_anywhere(&home, "grant", async |_| {}, does, is_done).await;

    let is_done = async |name: &str| store.server_by_name(&caller.guild, name).await.unwrap().is_some();
    cut_off_anywhere(&home, "create", async |_| {}, make, is_done).await;

    let does = async |name: &str| {
        let memory = BTreeMap::from([("memory_mb".to_owned(), "900".to_owned())]);
        app.settings_apply(caller, name, memory).await.unwrap();
    };
    let is_done = async |name: &str| home.memory_of(name).await == Some(900);
    cut_off_anywhere(&home, "settings", make, does, is_done).await;

    let does = async |name: &str| {
        app.start(caller, name, None).await.unwrap();
    };
    cut_off_anywhere(&home, "start", make, does, async |name| home.is_busy(name).await).await;
    assert_eq!(store.audit(&caller.guild, None, 1).await.unwrap()[0].outcome, "done", "it came to its end");
}

#[tokio::test]
async fn whatever_a_person_asks_for_is_on_record_with_its_end() {
    let home = home().await;
    let alice = Actor::Discord { id: "9".into(), name: "alice".into() };
    let (app, store) = (&home.app, &home.store);
    let by = &Caller { actor: alice.clone(), ..home.caller.clone() };
    for name in ["one", "two", "three"] {
        home.create(name).await;
    }
    let (now, to) = (UpdateWhen::Now, Backend::Cloud);
    let mut asked: Vec<(&str, &str, Answer<()>)> = vec![
        ("kill", "one", app.kill(by, "one").await.map(drop)),
        ("extend", "one", app.extend(by, "one", Some("2h")).await.map(drop)),
        ("update", "one", app.update(by, "one", now, None).await.map(drop)),
        ("restore", "one", app.restore(by, "one", "nothing", None).await.map(drop)),
        ("backup", "one", app.backup(by, "one", None).await.map(drop)),
        ("move", "one", app.move_to(by, "one", to, None).await.map(drop)),
        ("restart", "one", app.restart(by, "one", None).await.map(drop)),
        ("force", "one", app.choose(by, "one", Choice::Force).await.map(drop)),
        ("delete", "two", app.delete(by, "two", "two", None).await.map(drop)),
        ("snapshot build", "toy", app.snapshot_build(by, "toy", None).await.map(drop)),
        ("snapshot delete", "toy-1", app.snapshot_delete(by, "toy-1").await.map(drop)),
    ];
    let job = app.start(by, "three", None).await.unwrap();
    asked.push(("start", "three", Ok(())));
    asked.push(("force", "three", app.choose_job(by, job, Choice::Force, None).await.map(drop)));
    let lines = store.audit(&by.guild, None, 100).await.unwrap();
    for (action, about, answer) in &asked {
        let theirs = lines.iter().filter(|line| line.actor == alice && line.action == *action);
        let about_it = theirs.filter(|line| line.server.as_deref() == Some(*about) || line.detail == *about);
        let ends: Vec<&str> = about_it.map(|line| line.outcome.as_str()).collect();
        let end = answer.as_ref().map_or_else(|refusal| format!("refused: {refusal}"), |()| "done".to_owned());
        assert_eq!(ends, [end], "alice's {action} of {about} in {lines:#?}");
    }
    let done: Vec<&str> = asked.iter().filter(|(_, _, answer)| answer.is_ok()).map(|(action, _, _)| *action).collect();
    assert_eq!(done, ["kill", "restart", "delete", "snapshot build", "start"], "the others were refused");
}
