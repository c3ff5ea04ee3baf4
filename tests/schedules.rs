//! Timed rules from end to end: what happens when one is due, late, missed, refused or broken off, over a database that
//! outlives the program; the conversations about them; and one on a real daemon. The time is a parameter: each program
//! here is put together at a moment of its own.

mod common {
    pub mod bot;
    pub mod discord;
    pub mod stage;
}

use async_trait::async_trait;
use common::bot::{Bot, Home};
use common::discord::{Discord, User, redact};
use common::stage::{Stage, docker_or_skip, test_image};
use insta::assert_snapshot;
use jiff::tz::TimeZone;
use serde_json::json;
use spawnpoint::app::{App, Choices, Member, Members, Parts, Refusal, Rule};
use spawnpoint::bus::{Bus, Nudge};
use spawnpoint::drivers::fake::{Fake, Outside};
use spawnpoint::engine::{Clock, Defaults, Driver, Engine, Journal};
use spawnpoint::model::access::{Actor, Caller, Grant, Grantee, Permission};
use spawnpoint::model::cost::Price;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::lease::Rules;
use spawnpoint::model::schedule::{Came, Does, Last, PER_SERVER_MAX, Schedule, Skipped, When};
use spawnpoint::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use spawnpoint::model::view::Notice;
use spawnpoint::model::{GuildId, HOUR_MS, JobId, MINUTE_MS, Ms, ServerId};
use spawnpoint::recipes::Recipes;
use spawnpoint::scheduler;
use spawnpoint::store::Store;
use spawnpoint::store::schedules::NewSchedule;
use spawnpoint::store::servers::Change;
use spawnpoint::vault::Vault;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Friday, 20 November 2026, 19:00 in UTC.
const FRIDAY_19: Ms = 1_795_201_200_000;
const FRIDAY_20: Ms = FRIDAY_19 + HOUR_MS;

/// What Discord would say about alice and bob.
#[derive(Clone, Default)]
struct People(Arc<Mutex<PeopleNow>>);

#[derive(Default)]
struct PeopleNow {
    left: bool,
    players: bool,
    admin: bool,
    silent: bool,
    hangs: bool,
    timed_out: bool,
}

#[async_trait]
impl Members for People {
    async fn member(&self, guild: &GuildId, user: &str) -> anyhow::Result<Member> {
        let hangs = self.0.lock().unwrap().hangs;
        if hangs {
            let _runs_on = Paused::clock();
            std::future::pending::<()>().await;
        }
        let now = self.0.lock().unwrap();
        anyhow::ensure!(!now.silent, "Discord does not answer");
        Ok(match (now.left, now.timed_out) {
            (true, _) => Member::Gone,
            (_, true) => Member::TimedOut,
            _ => Member::Here(Caller { admin: now.admin, ..bob(guild, user, now.players) }),
        })
    }
}

/// The clock jumps to whatever everybody waits for, until this is dropped: a database would wait for nothing.
struct Paused;

impl Paused {
    fn clock() -> Paused {
        tokio::time::pause();
        Paused
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

fn bob(guild: &GuildId, id: &str, players: bool) -> Caller {
    Caller {
        actor: Actor::Discord { id: id.to_owned(), name: "bob".into() },
        guild: guild.clone(),
        roles: if players { vec!["7".into()] } else { vec![] },
        role_names: if players { vec!["players".into()] } else { vec![] },
        admin: false,
    }
}

/// A server in a guild with bob, who plays. Programs over it come and go.
struct Scene {
    store: Store,
    outside: Outside,
    people: People,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new(backend: Backend) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/store.db?mode=rwc", folder.path().display());
        let store = Store::connect(&url).await.unwrap();
        let people = People::default();
        people.0.lock().unwrap().admin = true;
        let scene = Scene { store, outside: Outside::default(), people, folder };
        let server = Server {
            id: ServerId("w".into()),
            guild: guild(),
            name: ServerName::parse("world").unwrap(),
            game: "toy".into(),
            backend,
            settings: BTreeMap::new(),
            limits: Limits::default(),
            place: Default::default(),
            wanted: Wanted::Off,
            owned: Owned::default(),
            lease_until: None,
            update_at_start: false,
            channel: Some("77".into()),
            created_at: 1,
            deleted_at: None,
        };
        scene.store.create_server(&server, &HashMap::new(), &Actor::Operator).await.unwrap();
        scene
    }

    /// A program that looks at its clock now.
    fn at(&self, now: Ms) -> Program {
        let (journal, bus): (Arc<dyn Journal>, Bus) = (Arc::new(self.store.clone()), Bus::default());
        let fake: Arc<dyn Driver> = Arc::new(Fake::new(self.outside.clone()));
        let drivers: HashMap<_, _> = Backend::ALL.map(|backend| (backend, fake.clone())).into();
        let rules = Rules { idle_ms: 15 * MINUTE_MS, never_joined_ms: 30 * MINUTE_MS, lease_ms: 4 * HOUR_MS };
        let defaults = Defaults { rules, watch_every: Duration::from_secs(15) };
        let engine = Engine::new(journal, drivers, bus.clone(), Clock::test(now), defaults);
        let app = App::new(Parts {
            store: self.store.clone(),
            engine: engine.clone(),
            vault: Vault::open(&self.folder.path().join("vault")).unwrap(),
            recipes: Arc::new(Recipes::load(Path::new("tests/recipes")).unwrap()),
            bus,
            choices: Choices { players_role: "players".into(), extend_ms: HOUR_MS, zone: TimeZone::UTC },
        });
        Program { app, engine }
    }

    /// One look at what is due then; drives what was opened to its end.
    async fn round(&self, now: Ms) -> Option<JobId> {
        let program = self.at(now);
        scheduler::round(&program.app, &self.people).await.unwrap();
        let job = self.store.open_jobs_all().await.unwrap().into_iter().next()?;
        assert_eq!(program.engine.drive(job.id).await.unwrap(), Some(Outcome::Succeeded));
        Some(job.id)
    }

    async fn add(&self, now: Ms, action: &str, when: &str) -> Schedule {
        let command = (action == "command").then(|| "save".to_owned());
        let rule = Rule { server: "world".into(), action: action.into(), when: when.into(), command, timezone: None };
        let caller = Caller { admin: true, ..bob(&guild(), "9", true) };
        let added = self.at(now).app.schedule_add(&caller, rule, None).await.unwrap();
        self.rule(added.view.number).await.unwrap()
    }

    async fn rule(&self, number: i64) -> Option<Schedule> {
        self.store.schedule(&guild(), number).await.unwrap()
    }

    async fn came(&self, number: i64) -> Option<Came> {
        self.rule(number).await.unwrap().last.map(|last| last.came)
    }

    /// What the channel heard that was not told before.
    async fn told(&self) -> Vec<Skipped> {
        let mut told = vec![];
        for waiting in self.store.notices_waiting().await.unwrap() {
            assert_eq!(waiting.channel.as_deref(), Some("77"));
            let Notice::Skipped { why, .. } = waiting.notice else { panic!("{:?}", waiting.notice) };
            told.push(why);
            self.store.notice_told(waiting.id, 0).await.unwrap();
        }
        told
    }

    /// The audit log, the newest line first.
    async fn audit(&self) -> Vec<String> {
        let lines = self.store.audit(&guild(), None, 50).await.unwrap();
        lines.iter().map(|line| format!("{}: {} {}", line.actor.name(), line.action, line.outcome)).collect()
    }

    async fn server(&self) -> Server {
        self.store.server_any(&ServerId("w".into())).await.unwrap().unwrap()
    }
}

struct Program {
    app: App,
    engine: Engine,
}

fn guild() -> GuildId {
    GuildId("1".into())
}

#[tokio::test]
async fn a_rule_starts_and_stops_its_server_and_says_who_did() {
    for backend in Backend::ALL {
        let scene = Scene::new(backend).await;
        let start = scene.add(FRIDAY_19, "start", "fri 20:00").await;
        let stop = scene.add(FRIDAY_19, "stop", "fri 23:00").await;
        assert_eq!(start.due_at, FRIDAY_20);
        assert_eq!(scene.round(FRIDAY_20 - MINUTE_MS).await, None, "not before its time");
        let job = scene.round(FRIDAY_20).await.unwrap();
        let (opened, _, _) = scene.store.job(job).await.unwrap().unwrap();
        assert_eq!((opened.actor.name(), opened.channel.as_deref()), ("schedule 1 of bob", Some("77")));
        let server = scene.server().await;
        assert_eq!(server.wanted, Wanted::On);
        let until = server.lease_until.unwrap() - FRIDAY_20;
        assert!((4 * HOUR_MS..4 * HOUR_MS + MINUTE_MS).contains(&until), "the usual time limit holds: {until}");
        assert_eq!(scene.came(1).await, Some(Came::Job { job }));
        assert_eq!(scene.rule(1).await.unwrap().due_at, FRIDAY_20 + 7 * 24 * HOUR_MS);
        scene.round(stop.due_at).await.unwrap();
        assert_eq!(scene.server().await.wanted, Wanted::Off);
        assert!(scene.told().await.is_empty(), "jobs have messages of their own");
        assert_eq!(scene.audit().await[..2], ["schedule 2 of bob: stop done", "schedule 1 of bob: start done"]);
        assert!(scene.outside.get().violations.is_empty());
    }
}

#[tokio::test]
async fn what_is_so_already_is_neither_done_nor_told() {
    let scene = Scene::new(Backend::Docker).await;
    for (action, when) in
        [("stop", "fri 20:00"), ("restart", "fri 20:00"), ("backup", "fri 20:00"), ("command", "fri 20:00")]
    {
        scene.add(FRIDAY_19, action, when).await;
    }
    let quiet = scene.audit().await;
    assert_eq!(scene.round(FRIDAY_20).await, None);
    for number in 1..=4 {
        assert!(matches!(scene.came(number).await, Some(Came::Needless { .. })), "{number}");
    }
    scene.add(FRIDAY_20, "start", "fri 21:00").await;
    scene.add(FRIDAY_20, "start", "fri 21:30").await;
    scene.round(FRIDAY_20 + HOUR_MS).await.unwrap();
    assert_eq!(scene.round(FRIDAY_20 + 90 * MINUTE_MS).await, None, "it runs");
    assert!(matches!(scene.came(6).await, Some(Came::Needless { .. })));
    assert!(scene.told().await.is_empty());
    assert_eq!(scene.audit().await.len() - quiet.len(), 3, "two rules and one start");
}

#[tokio::test]
async fn a_command_is_typed_and_a_backup_is_made_while_it_runs() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "once 2026-11-20 20:00").await;
    scene.add(FRIDAY_19, "command", "every 65m").await;
    scene.add(FRIDAY_19, "backup", "every 70m").await;
    scene.round(FRIDAY_20).await.unwrap();
    assert_eq!(scene.rule(1).await, None, "what was for one time alone is gone");
    let command = scene.rule(2).await.unwrap();
    scene.round(command.due_at).await;
    assert_eq!(scene.outside.get().told, ["save"]);
    assert_eq!(scene.came(2).await, Some(Came::Typed));
    let backup = scene.rule(3).await.unwrap();
    let job = scene.round(backup.due_at).await.unwrap();
    assert_eq!(scene.store.job(job).await.unwrap().unwrap().0.action.word(), "backup");
}

#[tokio::test]
async fn a_little_late_is_done_and_what_was_missed_is_told_once() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    assert!(scene.round(FRIDAY_20 + 14 * MINUTE_MS).await.is_some(), "the program was away for a quarter of an hour");
    let missed = FRIDAY_20 + 7 * 24 * HOUR_MS + 16 * MINUTE_MS;
    for later in [missed, missed + MINUTE_MS] {
        assert_eq!(scene.round(later).await, None);
    }
    assert_eq!(scene.told().await, [Skipped::Missed]);
    assert_eq!(scene.rule(1).await.unwrap().due_at, FRIDAY_20 + 14 * 24 * HOUR_MS);
    assert!(
        scene.audit().await[0].contains("refused: Spawnpoint could not do it in time"),
        "{:?}",
        scene.audit().await
    );
}

#[tokio::test]
async fn after_a_long_absence_the_time_that_was_a_moment_ago_still_counts() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "every 1h").await;
    let back = FRIDAY_19 + 9 * HOUR_MS + 5 * MINUTE_MS;
    assert_eq!(scene.round(back).await, None);
    assert_eq!(scene.told().await, [Skipped::Missed], "nine were missed, and that is said once");
    assert!(scene.round(back + 1000).await.is_some(), "the tenth is five minutes late");
}

#[tokio::test]
async fn a_right_that_was_taken_away_stops_the_rule_and_is_told_once() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "daily 20:00").await;
    scene.people.0.lock().unwrap().admin = false;
    assert_eq!(scene.round(FRIDAY_20).await, None);
    let told = scene.told().await;
    assert!(matches!(&told[..], [Skipped::NotAllowed { why }] if why.contains("“play”")), "{told:?}");
    assert!(scene.audit().await[0].starts_with("schedule 1 of bob: start refused: That needs"));
    assert_eq!(scene.round(FRIDAY_20 + 24 * HOUR_MS).await, None);
    assert!(scene.told().await.is_empty(), "the same each day is noise");
    // A grant for the person counts, as it is now.
    let grant =
        Grant { grantee: Grantee::User("9".into()), permission: Permission::Play, server: Some(ServerId("w".into())) };
    scene.store.grant(&guild(), &grant, &Actor::Operator).await.unwrap();
    assert!(scene.round(FRIDAY_20 + 48 * HOUR_MS).await.is_some());
    scene.people.0.lock().unwrap().left = true;
    scene.add(FRIDAY_20 + 48 * HOUR_MS, "stop", "daily 22:00").await;
    assert_eq!(scene.round(FRIDAY_20 + 50 * HOUR_MS).await, None);
    let told = scene.told().await;
    assert!(matches!(&told[..], [Skipped::NotAllowed { why }] if why.contains("have left")), "{told:?}");
}

#[tokio::test]
async fn nothing_is_done_while_nobody_can_say_who_may() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "daily 20:00").await;
    scene.people.0.lock().unwrap().silent = true;
    for late in [0, 2, 10] {
        assert_eq!(scene.round(FRIDAY_20 + late * MINUTE_MS).await, None);
    }
    scene.people.0.lock().unwrap().silent = false;
    assert!(scene.round(FRIDAY_20 + 12 * MINUTE_MS).await.is_some(), "Discord answers again in time");
    scene.people.0.lock().unwrap().silent = true;
    let tomorrow = FRIDAY_20 + 24 * HOUR_MS;
    for late in [0, 14] {
        assert_eq!(scene.round(tomorrow + late * MINUTE_MS).await, None);
    }
    assert!(matches!(&scene.told().await[..], [Skipped::Busy { why }] if why.contains("Discord could not be asked")));
}

#[tokio::test]
async fn a_busy_server_is_tried_again_and_then_the_job_in_the_way_is_named() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "stop", "daily 20:00").await;
    let before = scene.at(FRIDAY_20 - MINUTE_MS);
    let job = before.app.start(&Caller::operator(guild()), "world", None).await.unwrap();
    let look = async |now: Ms| scheduler::round(&scene.at(now).app, &scene.people).await.unwrap();
    look(FRIDAY_20).await;
    assert_eq!(scene.rule(1).await.unwrap().due_at, FRIDAY_20, "it is tried again");
    let again = scene.rule(1).await.unwrap().look_at - FRIDAY_20;
    assert!((MINUTE_MS..2 * MINUTE_MS).contains(&again), "{again}");
    assert!(scene.told().await.is_empty());
    before.engine.drive(job).await.unwrap();
    look(FRIDAY_20 + 5 * MINUTE_MS).await;
    let stop = scene.store.open_jobs_all().await.unwrap().remove(0);
    assert_eq!((stop.action.word(), scene.came(1).await), ("stop", Some(Came::Job { job: stop.id })));
    // That job is never carried out, and another rule finds it in the way for a quarter of an hour.
    scene.add(FRIDAY_20 + 10 * MINUTE_MS, "backup", "fri 21:00").await;
    for late in [0, 7, 14] {
        look(FRIDAY_20 + HOUR_MS + late * MINUTE_MS).await;
    }
    let told = scene.told().await;
    assert!(
        matches!(&told[..], [Skipped::Busy { why }] if why.contains("schedule 1 of bob asked for “stop”") && why.contains("(job 2)")),
        "{told:?}"
    );
    assert_eq!(
        scene.audit().await.iter().filter(|line| line.contains("backup")).count(),
        1,
        "one line, not one each try"
    );
}

#[tokio::test]
async fn a_refusal_is_told_in_the_channel() {
    let scene = Scene::new(Backend::Cloud).await;
    let limits = Limits { budget: Some("0.01 USD".parse().unwrap()), ..Limits::default() };
    let price = Price { hourly: 120_000, monthly: None, currency: "USD".into(), unit_ms: HOUR_MS };
    scene.outside.get().price = Some(price);
    let change = Change { limits: Some(limits), ..Change::default() };
    assert!(scene.store.change(&ServerId("w".into()), change).await.unwrap());
    scene.add(FRIDAY_19, "start", "daily 20:00").await;
    assert_eq!(scene.round(FRIDAY_20).await, None);
    let told = scene.told().await;
    assert!(matches!(&told[..], [Skipped::Refused { why }] if why.contains("does not allow a start")), "{told:?}");
    assert!(scene.outside.get().hosts.is_empty());
}

#[tokio::test]
async fn what_nobody_can_see_is_not_taken_for_off() {
    for backend in Backend::ALL {
        let scene = Scene::new(backend).await;
        scene.add(FRIDAY_19, "start", "fri 20:00").await;
        scene.add(FRIDAY_19, "start", "fri 21:00").await;
        let job = scene.round(FRIDAY_20).await;
        scene.outside.get().blind = true;
        for late in [0, 7, 14] {
            assert_eq!(scene.round(FRIDAY_20 + HOUR_MS + late * MINUTE_MS).await, None, "after {job:?}");
        }
        let told = scene.told().await;
        assert!(matches!(&told[..], [Skipped::Busy { why }] if why.contains("Nobody can see")), "{told:?}");
        // A restart starts nothing that should be off, whatever is seen and whatever is left.
        scene.store.set_wanted(&ServerId("w".into()), Wanted::Off).await.unwrap();
        scene.add(FRIDAY_20 + HOUR_MS, "restart", "fri 22:00").await;
        assert_eq!(scene.round(FRIDAY_20 + 2 * HOUR_MS).await, None);
        assert_eq!(scene.came(3).await, Some(Came::Needless { why: "it was off".into() }));
    }
}

#[tokio::test]
async fn a_stop_is_done_late_unless_somebody_started_it_again() {
    for (when, started_again) in [("daily 21:00", false), ("once 2026-11-20 21:00", false), ("daily 21:00", true)] {
        let scene = Scene::new(Backend::Cloud).await;
        scene.add(FRIDAY_19, "start", "once 2026-11-20 20:00").await;
        scene.add(FRIDAY_19, "stop", when).await;
        scene.round(FRIDAY_20).await.unwrap();
        let due = FRIDAY_20 + HOUR_MS;
        // Nobody can say who may, for longer than any other rule is tried.
        scene.people.0.lock().unwrap().silent = true;
        for late in [0, 14, 30] {
            assert_eq!(scene.round(due + late * MINUTE_MS).await, None);
        }
        let again = scene.rule(2).await.unwrap().look_at - due - 30 * MINUTE_MS;
        assert!((5 * MINUTE_MS..6 * MINUTE_MS).contains(&again), "{again}");
        scene.people.0.lock().unwrap().silent = false;
        if started_again {
            let program = scene.at(due + 31 * MINUTE_MS);
            for action in ["stop", "start"] {
                let caller = Caller::operator(guild());
                let job = match action {
                    "stop" => program.app.stop(&caller, "world", None).await.unwrap(),
                    _ => program.app.start(&caller, "world", None).await.unwrap(),
                };
                program.engine.drive(job).await.unwrap();
            }
        }
        // The program was away for hours.
        let stopped = scene.round(due + 5 * HOUR_MS).await;
        assert_eq!(stopped.is_some(), !started_again, "{when}");
        assert_eq!(scene.server().await.wanted, if started_again { Wanted::On } else { Wanted::Off });
        assert!(scene.told().await.is_empty());
        let next = scene.rule(2).await.map(|rule| rule.due_at);
        assert_eq!(next, when.starts_with("daily").then_some(due + 24 * HOUR_MS));
    }
}

/// The program comes back when the server is to be on again: nobody is thrown off by the stop of the night before.
#[tokio::test]
async fn a_late_stop_gives_way_to_a_start_that_came_due_after_it() {
    for away in [65 * MINUTE_MS, 80 * MINUTE_MS] {
        let scene = Scene::new(Backend::Docker).await;
        scene.add(FRIDAY_19, "stop", "daily 21:00").await;
        scene.add(FRIDAY_19, "start", "daily 22:00").await;
        let job = scene.at(FRIDAY_19).app.start(&Caller::operator(guild()), "world", None).await.unwrap();
        scene.at(FRIDAY_19).engine.drive(job).await.unwrap();
        scene.round(FRIDAY_20 + HOUR_MS + away).await;
        assert_eq!(scene.server().await.wanted, Wanted::On, "{away}");
    }
}

#[tokio::test]
async fn a_stop_that_was_missed_often_is_done_once_and_one_from_yesterday_not_at_all() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "stop", "every 1h").await;
    scene.add(FRIDAY_19, "stop", "daily 19:30").await;
    let job = scene.at(FRIDAY_19).app.start(&Caller::operator(guild()), "world", None).await.unwrap();
    scene.at(FRIDAY_19).engine.drive(job).await.unwrap();
    let back = FRIDAY_19 + 15 * HOUR_MS + 20 * MINUTE_MS;
    assert_eq!(scene.round(back).await, None);
    assert_eq!(scene.told().await, [Skipped::Missed, Skipped::Missed]);
    assert!(scene.round(back + 1000).await.is_some(), "the last of them is twenty minutes late");
}

#[tokio::test]
async fn what_a_command_types_is_on_record_without_secrets() {
    let scene = Scene::new(Backend::Docker).await;
    let caller = Caller { admin: true, ..bob(&guild(), "9", true) };
    let job = scene.at(FRIDAY_19).app.start(&caller, "world", None).await.unwrap();
    scene.at(FRIDAY_19).engine.drive(job).await.unwrap();
    let rule = Rule {
        server: "world".into(),
        action: "command".into(),
        when: "fri 20:00".into(),
        command: Some(format!("op bob{}", "x".repeat(300))),
        timezone: None,
    };
    scene.at(FRIDAY_19).app.schedule_add(&caller, rule, None).await.unwrap();
    scene.round(FRIDAY_20).await;
    let lines = scene.store.audit(&guild(), None, 2).await.unwrap();
    for line in lines {
        assert!(line.detail.contains(": op bobx") && line.detail.len() < 250, "{}: {}", line.action, line.detail);
    }
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_stops_no_other_and_can_be_removed() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    let url = format!("sqlite:{}/store.db", scene.folder.path().display());
    let database = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("UPDATE schedules SET zone = 'Mars/Olympus' WHERE number = 1").execute(&database).await.unwrap();
    database.close().await;
    assert!(scene.round(FRIDAY_20).await.is_some(), "the other is done");
    let program = scene.at(FRIDAY_20);
    let pause = scheduler::round(&program.app, &scene.people).await.unwrap();
    assert!(pause >= Duration::from_secs(10), "nothing spins: {pause:?}");
    let player = Caller { admin: true, ..bob(&guild(), "9", true) };
    let listed = program.app.schedules(&player, None).await.unwrap();
    assert_eq!(listed.iter().map(|view| view.number).collect::<Vec<_>>(), [2]);
    let stranger = program.app.schedule_remove(&bob(&guild(), "8", false), "1").await;
    assert!(stranger.is_err(), "{stranger:?}");
    assert_eq!(program.app.schedule_remove(&player, "1").await.unwrap().zone, "Mars/Olympus");
    assert!(matches!(program.app.schedule_remove(&player, "1").await, Err(Refusal::NotFound(_))));
}

#[tokio::test]
async fn a_question_that_hangs_is_given_up_and_tried_again() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    let program = scene.at(FRIDAY_20);
    scene.people.0.lock().unwrap().hangs = true;
    let due = program.app.due_schedules().await.unwrap();
    program.app.fire(&due[0], &scene.people).await.unwrap();
    assert!(scene.rule(1).await.unwrap().look_at > FRIDAY_20 + MINUTE_MS);
}

#[tokio::test]
async fn who_is_timed_out_acts_through_no_rule() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "daily 20:00").await;
    scene.people.0.lock().unwrap().timed_out = true;
    assert_eq!(scene.round(FRIDAY_20).await, None);
    let told = scene.told().await;
    assert!(
        matches!(&told[..], [Skipped::NotAllowed { why }] if why == "bob is timed out in this Discord server."),
        "{told:?}"
    );
    scene.people.0.lock().unwrap().timed_out = false;
    assert!(scene.round(FRIDAY_20 + 24 * HOUR_MS).await.is_some(), "the rule has stayed");
}

#[tokio::test]
async fn two_programs_do_each_rule_once() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    scene.round(FRIDAY_20).await.unwrap();
    for (minute, action) in [(10, "command"), (20, "command"), (30, "backup"), (40, "restart")] {
        scene.add(FRIDAY_20, action, &format!("once 2026-11-20 20:{minute}")).await;
        let now = FRIDAY_20 + minute * MINUTE_MS;
        let (one, two) = (scene.at(now), scene.at(now));
        let look = |program: &Program| {
            let (app, people) = (program.app.clone(), scene.people.clone());
            async move { scheduler::round(&app, &people).await.unwrap() }
        };
        tokio::join!(look(&one), look(&two), look(&one), look(&two));
        for job in scene.store.open_jobs_all().await.unwrap() {
            one.engine.drive(job.id).await.unwrap();
        }
    }
    assert_eq!(scene.outside.get().told.iter().filter(|line| *line == "save").count(), 2);
    let jobs = scene.store.jobs_of(&ServerId("w".into()), 9).await.unwrap();
    let actions: Vec<&str> = jobs.iter().map(|(job, _, _)| job.action.word()).collect();
    assert_eq!(actions, ["restart", "backup", "start"]);
    assert!(scene.told().await.is_empty());
}

#[tokio::test]
async fn a_crash_in_between_does_nothing_twice_and_says_what_is_not_known() {
    let scene = Scene::new(Backend::Docker).await;
    scene.add(FRIDAY_19, "start", "fri 20:00").await;
    scene.round(FRIDAY_20).await.unwrap();
    // The job was opened, and the program ended before it was written that the rule is dealt with.
    let backup = scene.add(FRIDAY_20, "backup", "fri 21:00").await;
    let now = backup.due_at;
    let taken = scene.store.take_schedule(&backup, now + 2 * MINUTE_MS, None).await.unwrap();
    let caller = Caller { actor: backup.actor(), ..Caller::operator(guild()) };
    let program = scene.at(now);
    let job = program.app.backup(&caller, "world", None).await.unwrap();
    program.engine.drive(job).await.unwrap();
    assert_eq!((taken, scene.round(now + MINUTE_MS).await), (true, None), "whoever took it up may still be at it");
    assert_eq!(scene.round(now + 3 * MINUTE_MS).await, None);
    assert_eq!(scene.came(2).await, Some(Came::Job { job }), "the job that was opened for it is found");
    // A command was begun, and nobody knows how far it came.
    let command = scene.add(now, "command", "fri 22:00").await;
    let begun = Last { due_at: command.due_at, came: Came::Begun };
    assert!(scene.store.take_schedule(&command, command.due_at + 2 * MINUTE_MS, Some(&begun)).await.unwrap());
    scene.round(command.due_at + 3 * MINUTE_MS).await;
    assert_eq!(scene.told().await, [Skipped::Unsure]);
    assert!(!scene.outside.get().told.contains(&"save".to_owned()), "it is not typed again");
    // A job was opened, and the program is back when the rule's time is long over.
    let late = scene.add(command.due_at, "backup", "fri 23:00").await;
    assert!(scene.store.take_schedule(&late, late.due_at + 2 * MINUTE_MS, None).await.unwrap());
    let caller = Caller { actor: late.actor(), ..Caller::operator(guild()) };
    let job = scene.at(late.due_at).app.backup(&caller, "world", None).await.unwrap();
    scene.round(late.due_at + 40 * MINUTE_MS).await;
    assert_eq!(scene.came(4).await, Some(Came::Job { job }), "it was not missed");
}

#[tokio::test]
async fn rules_have_limits_and_go_with_their_server() {
    let scene = Scene::new(Backend::Docker).await;
    let program = scene.at(FRIDAY_19);
    let add = async |action: &str, when: &str, command: Option<&str>, timezone: Option<&str>, caller: &Caller| {
        let (command, timezone) = (command.map(str::to_owned), timezone.map(str::to_owned));
        let rule = Rule { server: "world".into(), action: action.into(), when: when.into(), command, timezone };
        match program.app.schedule_add(caller, rule, None).await {
            Ok(added) => format!("{} {} in {}", added.view.number, added.view.when, added.view.zone),
            Err(refusal @ Refusal::Ours(_)) => panic!("{refusal:?}"),
            Err(refusal) => refusal.to_string(),
        }
    };
    let (player, nobody) = (bob(&guild(), "9", true), bob(&guild(), "8", false));
    let mut table = String::new();
    for (action, when, command, zone, caller) in [
        ("start", "daily 20:00", None, None, &player),
        ("stop", "daily 20:00", None, Some("Europe/Berlin"), &player),
        ("stop", "daily 20:00", None, Some("europe/berlin"), &player),
        ("stop", "daily 20:00", None, Some("Mars/Olympus"), &player),
        ("start", "daily 20:00", None, None, &nobody),
        ("command", "daily 20:00", Some("save"), None, &player),
        ("command", "daily 20:00", None, None, &player),
        ("stop", "daily 20:00", Some("save"), None, &player),
        ("dance", "daily 20:00", None, None, &player),
        ("start", "soon", None, None, &player),
        ("start", "every 10m", None, None, &player),
    ] {
        table += &format!("{action} {when} {command:?} {zone:?}: {}\n", add(action, when, command, zone, caller).await);
    }
    assert_snapshot!(table, @r#"
    start daily 20:00 None None: 1 daily 20:00 in UTC
    stop daily 20:00 None Some("Europe/Berlin"): 2 daily 20:00 in Europe/Berlin
    stop daily 20:00 None Some("europe/berlin"): 3 daily 20:00 in Europe/Berlin
    stop daily 20:00 None Some("Mars/Olympus"): “Mars/Olympus” is no time zone. Write for instance `Europe/Berlin` or `UTC`.
    start daily 20:00 None None: That needs the permission “play”: a role named “players” has it, and an admin can grant it with `/admin grant`.
    command daily 20:00 Some("save") None: That needs the permission “operate”. An admin can grant it with `/admin grant`.
    command daily 20:00 None None: Say with `command` what is typed into the console, for instance `command:save`.
    stop daily 20:00 Some("save") None: `command` goes with `action:command` alone.
    dance daily 20:00 None None: An action is one of `start`, `stop`, `restart`, `backup` and `command`.
    start soon None None: That is no time for a schedule: “soon”. Write for instance `daily 20:00`, `fri 20:00`, `fri,sat 19:30`, `weekdays 18:00`, `weekends 14:00`, `every 6h`, `once 2026-11-24 20:00`, or a cron expression such as `0 20 * * 5`.
    start every 10m None None: A start, stop, restart or backup can be scheduled every 30 min at most, and `every 10m` comes more often.
    "#);
    let mut last = String::new();
    for _ in 0..PER_SERVER_MAX {
        last = add("start", "daily 20:00", None, None, &player).await;
    }
    assert!(last.contains("has 20 schedules already"), "{last}");
    let theirs = program.app.schedule_remove(&nobody, "1").await;
    assert!(matches!(theirs, Err(Refusal::NotAllowed(_))), "{theirs:?}");
    program.app.schedule_remove(&player, " #1 ").await.unwrap();
    let gone = program.app.schedule_remove(&player, "1").await;
    assert!(matches!(gone, Err(Refusal::NotFound(_))), "{gone:?}");
    assert!(add("start", "daily 20:00", None, None, &player).await.starts_with("21 "), "no number is given twice");
    let job = program.app.delete(&Caller::operator(guild()), "world", "world", None).await.unwrap();
    assert_eq!(program.engine.drive(job).await.unwrap(), Some(Outcome::Succeeded));
    assert!(scene.store.schedules_of(&guild()).await.unwrap().is_empty());
}

// What people read.

struct Room {
    discord: Discord,
    home: Home,
    alice: User,
    bob: User,
    carol: User,
}

async fn room() -> Option<(Room, Bot)> {
    let discord = Discord::start(json!({
        "channels": ["general", "games"],
        "roles": [{"name": "players"}],
        "users": [
            {"name": "alice", "permissions": ["manage_guild"]},
            {"name": "bob", "roles": ["players"]},
            {"name": "carol"},
        ],
    }))
    .await?;
    let (alice, bob, carol) = (discord.user("alice"), discord.user("bob"), discord.user("carol"));
    let room = Room { discord, home: Home::new(), alice, bob, carol };
    let bot = Bot::start(&room.discord, &room.home).await;
    for (name, backend) in [("world", "docker"), ("moon", "cloud")] {
        room.discord
            .slash(&room.alice, "games", &format!("/server create name:{name} game:toy backend:{backend}"))
            .await;
        room.discord.wait_for("games", &format!("`{name}`.*offline")).await;
    }
    Some((room, bot))
}

impl Room {
    async fn ask(&self, who: &User, line: &str) -> String {
        let answer = self.discord.slash(who, "general", line).await;
        let answer = if answer.thinking { self.discord.finished(&answer).await } else { answer };
        assert!(answer.ephemeral, "{line}: everybody saw {:?}", answer.text);
        redact(&answer.text.expect("an answer")).replace('\u{200b}', "") + "\n"
    }

    /// Makes one more rule like this one, due now.
    async fn due_now(&self, bot: &Bot, like: i64, does: Does) -> Schedule {
        let all = bot.store.schedules_of(&bot.store.servers_everywhere().await.unwrap()[0].guild).await.unwrap();
        let like = all.into_iter().find(|one| one.number == like).expect("the rule is there");
        let now = bot.app.now();
        let new = NewSchedule {
            guild: like.guild,
            server: like.server,
            does,
            when: When::parse("daily 20:00").unwrap(),
            zone: TimeZone::UTC,
            made_by: like.made_by,
            made_at: now,
            due_at: now,
        };
        let made = bot.store.add_schedule(new).await.unwrap().expect("there is room");
        bot.bus.nudge(Nudge::Server(made.server.clone()));
        made
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_are_added_listed_and_removed() {
    let Some((room, bot)) = room().await else { return };
    let mut story = String::new();
    for (who, line) in [
        (&room.bob, "/schedule list"),
        (&room.bob, "/schedule add server:world action:start when:\"fri 20:00\" timezone:Europe/Berlin"),
        (&room.bob, "/schedule add server:moon action:start when:\"weekends at 2pm\""),
        (&room.carol, "/schedule add server:world action:start when:\"fri 20:00\""),
        (&room.bob, "/schedule add server:world action:command when:\"every 6h\" command:save"),
        (&room.alice, "/schedule add server:world action:command when:\"every 6h\" command:save"),
        (&room.bob, "/schedule add server:world action:start when:sometimes"),
        (&room.bob, "/schedule list server:world"),
        (&room.alice, "/schedule list"),
        (&room.carol, "/schedule remove schedule:1"),
        (&room.bob, "/schedule remove schedule:1"),
        (&room.bob, "/schedule remove schedule:1"),
    ] {
        story += &room.ask(who, line).await;
    }
    for line in [
        "/schedule add server:world action:st",
        "/schedule add server:world action:start when:",
        "/schedule add server:world action:start when:\"every 90 minutes\"",
        "/schedule add server:world action:command when:daily command:s",
        "/schedule add server:world action:start when:daily timezone:europe/ber",
        "/schedule remove schedule:",
    ] {
        story += &format!("{line} → {:?}\n", room.discord.autocomplete(&room.alice, "general", line).await);
    }
    assert_snapshot!(story, @r#"
    bob used /schedule list
    Spawnpoint (only bob sees this):
      Nothing is scheduled. `/schedule add` makes a schedule.
    bob used /schedule add
    Spawnpoint (only bob sees this):
      Schedule 1 of `world`: start, fri <time> (Europe/Berlin). It comes next <t:…> (<t:…>). It acts with your rights as they are then.
    bob used /schedule add
    Spawnpoint (only bob sees this):
      Schedule 2 of `moon`: start, weekends <time> (UTC). It comes next <t:…> (<t:…>). It acts with your rights as they are then.
      A start rents a host (fake small in here): about 0.01 $ an hour, at most 0.02 $ for 2 h. Its time limit ends it.
    carol used /schedule add
    Spawnpoint (only carol sees this):
      That needs the permission “play”: a role named “players” has it, and an admin can grant it with `/admin grant`.
    bob used /schedule add
    Spawnpoint (only bob sees this):
      That needs the permission “operate”. An admin can grant it with `/admin grant`.
    alice used /schedule add
    Spawnpoint (only alice sees this):
      Schedule 3 of `world`: command `save`, every 6h (UTC). It comes next <t:…> (<t:…>). It acts with your rights as they are then.
    bob used /schedule add
    Spawnpoint (only bob sees this):
      That is no time for a schedule: “sometimes”. Write for instance `daily <time>`, `fri <time>`, `fri,sat <time>`, `weekdays <time>`, `weekends <time>`, `every 6h`, `once 2026-11-24 <time>`, or a cron expression such as `0 20 * * 5`.
    bob used /schedule list
    Spawnpoint (only bob sees this):
      **Schedules**
      **1** · `world` · start, fri <time> (Europe/Berlin) · next <t:…> (<t:…>) · by bob
      **3** · `world` · command, every 6h (UTC) · next <t:…> (<t:…>) · by alice
    alice used /schedule list
    Spawnpoint (only alice sees this):
      **Schedules**
      **1** · `world` · start, fri <time> (Europe/Berlin) · next <t:…> (<t:…>) · by bob
      **2** · `moon` · start, weekends <time> (UTC) · next <t:…> (<t:…>) · by bob
      **3** · `world` · command `save`, every 6h (UTC) · next <t:…> (<t:…>) · by alice
    carol used /schedule remove
    Spawnpoint (only carol sees this):
      That needs the permission “play”: a role named “players” has it, and an admin can grant it with `/admin grant`.
    bob used /schedule remove
    Spawnpoint (only bob sees this):
      Schedule 1 of `world` is removed: start, fri <time> (Europe/Berlin).
    bob used /schedule remove
    Spawnpoint (only bob sees this):
      There is no such schedule. `/schedule list` shows them.
    /schedule add server:world action:st → ["start: start it, for as long as its time limit says", "stop: stop it and keep its world", "restart: stop it and start it again, where it runs"]
    /schedule add server:world action:start when: → ["daily 20:00", "fri 20:00", "fri,sat 19:30", "weekdays 18:00", "weekends 14:00", "every 6h"]
    /schedule add server:world action:start when:"every 90 minutes" → ["every 1h30m"]
    /schedule add server:world action:command when:daily command:s → ["save", "seed"]
    /schedule add server:world action:start when:daily timezone:europe/ber → ["Europe/Berlin"]
    /schedule remove schedule: → ["2: start moon, weekends 14:00 (UTC)", "3: command world, every 6h (UTC)"]
    "#);
    room.discord.wait_for("games", "(?s)`moon`.*Scheduled: start").await;
    bot.end().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_acts_with_the_rights_that_discord_says_its_maker_has_now() {
    let Some((room, bot)) = room().await else { return };
    room.ask(&room.bob, "/schedule add server:world action:start when:\"daily 20:00\"").await;
    room.due_now(&bot, 1, Does::Start).await;
    room.discord.wait_for("games", "`world` is up").await;
    let text = room.discord.channel_text("games").await;
    assert!(text.contains("asked by schedule 2 of bob"), "{text}");
    // What takes more than bob may.
    room.due_now(&bot, 1, Does::Command { line: "save".into() }).await;
    let refused = room.discord.wait_for("games", "Schedule 3 of `world`").await;
    assert!(refused.text.contains("did nothing: bob, who made it, may not do that any more"), "{}", refused.text);
    assert!(room.home.outside.get().told.is_empty());
    let asked = room.discord.requests("GET", "/guilds/*/members/*").await;
    assert!(asked.len() >= 2, "Discord is asked each time");
    let audit = room.ask(&room.alice, "/admin audit").await;
    assert!(audit.contains("schedule 3 of bob") && audit.contains("schedule 2 of bob"), "{audit}");
    bot.end().await.unwrap();
}

#[tokio::test]
async fn a_real_game_is_started_backed_up_and_stopped_by_its_rules() {
    if !docker_or_skip().await {
        return;
    }
    test_image("busybox");
    let stage = Stage::open("tests/recipes", |_| {}).await;
    stage.create("world", "toy", &[]).await;
    let (app, store) = (&stage.program.app, &stage.program.store);
    let server = store.servers_everywhere().await.unwrap().remove(0);
    for does in [Does::Start, Does::Backup, Does::Stop] {
        let now = app.now();
        let new = NewSchedule {
            guild: server.guild.clone(),
            server: server.id.clone(),
            does,
            when: When::parse("every 6h").unwrap(),
            zone: TimeZone::UTC,
            made_by: Actor::Operator,
            made_at: now,
            due_at: now,
        };
        let rule = store.add_schedule(new).await.unwrap().unwrap();
        stage.program.bus.nudge(Nudge::Server(server.id.clone()));
        let job = stage
            .until("the rule's job", async || {
                let rule = store.schedule(&rule.guild, rule.number).await.unwrap()?;
                match rule.last?.came {
                    Came::Job { job } => Some(job),
                    came => panic!("{came:?}"),
                }
            })
            .await;
        stage.succeeds(job).await;
    }
    let backups = app.backups(&stage.caller, "world").await.unwrap();
    assert!(backups.iter().any(|backup| backup.reason == "scheduled"), "{backups:?}");
    stage.close().await;
}
