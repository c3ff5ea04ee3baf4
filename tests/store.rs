//! The store's promises, each on SQLite and on PostgreSQL.

#[path = "common/postgres.rs"]
mod postgres;

use futures::future::join_all;
use postgres::Postgres;
use spawnpoint::engine::run::CLAIM_MS;
use spawnpoint::engine::{Aftermath, AppendError, DecidedOn, Journal, LeaseChange, OpenError, Wish};
use spawnpoint::model::access::{Actor, Grant, Grantee, Permission};
use spawnpoint::model::cost::{Price, Rental};
use spawnpoint::model::drive::{Snapshot, SnapshotId};
use spawnpoint::model::host::{HostRef, Place};
use spawnpoint::model::job::{Action, Cause, Event, Gain, Job, NewJob, Outcome, Recorded, Step, Subject};
use spawnpoint::model::lease::Memo;
use spawnpoint::model::schedule::{Came, Does, Last, PER_SERVER_MAX, Schedule, Skipped, When};
use spawnpoint::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use spawnpoint::model::view::Notice;
use spawnpoint::model::{GuildId, HOUR_MS, JobId, Ms, ServerId};
use spawnpoint::store::Store;
use spawnpoint::store::audit::AuditEntry;
use spawnpoint::store::messages::{Panel, WaitingNotice};
use spawnpoint::store::schedules::{NewSchedule, Settled};
use spawnpoint::store::servers::{Change, CreateError};
use std::collections::{BTreeMap, HashMap};

/// Everything that ever broke a query, in one text.
const NASTY: &str = "'; DROP TABLE servers; --\n\"$1\" \\ % _ 🎮 \u{202e}ü\t`@everyone` {}";

async fn on_both<C: AsyncFn(Store, String)>(case: C) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/deep/er/store.db?mode=rwc", folder.path().display());
    println!("on SQLite");
    case(Store::connect(&url).await.unwrap(), url).await;
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("spawnpoint").await;
    println!("on PostgreSQL");
    case(Store::connect(&url).await.unwrap(), url).await;
}

fn guild() -> GuildId {
    GuildId("1".into())
}

fn server(id: &str, name: &str) -> Server {
    Server {
        id: ServerId(id.into()),
        guild: guild(),
        name: ServerName::parse(name).unwrap(),
        game: "openttd".into(),
        backend: Backend::Docker,
        settings: BTreeMap::new(),
        limits: Limits::default(),
        place: Default::default(),
        wanted: Wanted::Off,
        owned: Owned::default(),
        lease_until: None,
        update_at_start: false,
        channel: Some("77".into()),
        created_at: 5,
        deleted_at: None,
    }
}

async fn make(store: &Store, id: &str, name: &str) -> Server {
    let server = server(id, name);
    store.create_server(&server, &HashMap::new(), &Actor::Operator).await.unwrap();
    server
}

fn ask(server: &str, action: Action) -> NewJob {
    NewJob {
        subject: Subject::Server(ServerId(server.into())),
        guild: guild(),
        action,
        cause: Cause::Asked,
        actor: Actor::Discord { id: "9".into(), name: "alice".into() },
        channel: Some("77".into()),
        plan: vec![Step::CloneDrive, Step::StartGame],
    }
}

async fn start(store: &Store, server: &str) -> Job {
    let id = store.open(ask(server, Action::Start), Wish::to(Wanted::On), 10).await.unwrap();
    store.load(id).await.unwrap()
}

fn at(at: i64, event: Event) -> Recorded {
    Recorded { at, event }
}

async fn append(store: &Store, job: &mut Job, engine: &str, recorded: Recorded) -> Result<(), AppendError> {
    store.append(job, Some(engine), &recorded).await?;
    job.apply(&recorded).unwrap();
    Ok(())
}

fn owned(ports: &[u16]) -> Owned {
    Owned { ports: ports.iter().map(|port| (format!("p{port}"), *port)).collect(), ..Owned::default() }
}

/// Gives a server its ports as a job would.
async fn gain(store: &Store, server: &str, gain: Gain) -> Result<Job, AppendError> {
    let mut job = match store.open_job_of(&Subject::Server(ServerId(server.into()))).await.unwrap() {
        Some(job) => job,
        None => start(store, server).await,
    };
    assert!(store.claim(job.id, "e", 0, 100).await.unwrap());
    if !job.has_begun(Step::CloneDrive) {
        append(store, &mut job, "e", at(11, Event::Started { step: Step::CloneDrive })).await?;
    }
    append(store, &mut job, "e", at(12, Event::Finished { step: Step::CloneDrive, gain })).await?;
    Ok(job)
}

fn snapshot(version: i64) -> Snapshot {
    Snapshot {
        id: SnapshotId::new("openttd", version),
        game: "openttd".into(),
        version,
        image: "image".into(),
        install_key: "key".into(),
        files: None,
        bytes: None,
        created_at: 1,
        sealed_at: None,
    }
}

#[tokio::test]
async fn a_job_is_read_as_it_was_lived_also_by_another_program() {
    on_both(async |store, url| {
        make(&store, "a", "world").await;
        let mut job = start(&store, "a").await;
        assert_eq!((job.id, job.seq, job.created_at), (JobId(1), 0, 10));
        assert_eq!(store.server_any(&ServerId("a".into())).await.unwrap().unwrap().wanted, Wanted::On);
        assert!(store.claim(job.id, "e", 10, 100).await.unwrap());
        append(&store, &mut job, "e", at(11, Event::Started { step: Step::CloneDrive })).await.unwrap();
        let error = NASTY.to_owned();
        append(&store, &mut job, "e", at(12, Event::Retrying { step: Step::CloneDrive, attempt: 1, error }))
            .await
            .unwrap();
        let other = Store::connect(&url).await.unwrap();
        assert_eq!(other.load(job.id).await.unwrap(), job);
        assert_eq!(other.open_jobs().await.unwrap(), vec![job.clone()]);
        assert_eq!(other.job(job.id).await.unwrap(), Some((job.clone(), None, None)));
        assert_eq!(other.instance().await.unwrap(), store.instance().await.unwrap());
        assert!(store.load(JobId(99)).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn of_two_engines_one_has_the_job_until_its_claim_runs_out() {
    on_both(async |store, url| {
        let other = Store::connect(&url).await.unwrap();
        make(&store, "a", "world").await;
        let mut job = start(&store, "a").await;
        assert!(store.claim(job.id, "one", 0, 30).await.unwrap());
        assert!(!other.claim(job.id, "two", 29, 60).await.unwrap());
        assert!(store.claim(job.id, "one", 20, 50).await.unwrap(), "its own claim is renewed");
        assert!(!other.claim(job.id, "two", 49, 60).await.unwrap());
        assert!(other.claim(job.id, "two", 50, 80).await.unwrap());
        let begun = at(51, Event::Started { step: Step::CloneDrive });
        let lost = append(&store, &mut job, "one", begun.clone()).await;
        assert!(matches!(lost, Err(AppendError::ClaimLost)), "{lost:?}");
        store.release(job.id, "one").await.unwrap();
        append(&other, &mut job, "two", begun).await.expect("the release of another engine's claim does nothing");
        other.release(job.id, "two").await.unwrap();
        assert!(store.claim(job.id, "one", 52, 90).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn what_nobody_asked_for_is_in_the_audit_log_too() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let open = async |cause: Cause, actor: Actor, at: Ms| {
            let new = NewJob { cause, actor, plan: vec![], ..ask("a", Action::Stop) };
            let id = store.open(new, Wish::default(), at).await.unwrap();
            let job = store.load(id).await.unwrap();
            store.close(&job, Outcome::Succeeded, Aftermath::default(), at).await.unwrap();
        };
        open(Cause::Idle { minutes: 15 }, Actor::Watcher, 10).await;
        open(Cause::Asked, Actor::Operator, 20).await;
        let entries = store.audit(&guild(), Some("world"), 10).await.unwrap();
        let [entry] = &entries[..] else { panic!("one line: {entries:?}") };
        assert_eq!((entry.actor.clone(), entry.action.as_str(), entry.at), (Actor::Watcher, "stop", 10));
        assert_eq!(entry.detail, "nobody was on for 15 min");
    })
    .await;
}

/// After a power cut a machine may believe that it is last year until it has asked somebody for the time.
#[tokio::test]
async fn a_claim_from_before_the_clock_was_set_back_keeps_nobody_away() {
    on_both(async |store, url| {
        let other = Store::connect(&url).await.unwrap();
        make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        let (before, now) = (400 * 24 * HOUR_MS, 24 * HOUR_MS);
        assert!(store.claim(job.id, "one", before, before + CLAIM_MS).await.unwrap());
        assert!(other.claim(job.id, "two", now, now + CLAIM_MS).await.unwrap());
        let behind = now - 60_000;
        assert!(
            !store.claim(job.id, "one", behind, behind + CLAIM_MS).await.unwrap(),
            "two machines' clocks may differ"
        );
        assert!(!store.claim(job.id, "one", now, now + CLAIM_MS).await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn who_writes_second_hears_of_a_conflict_and_changes_nothing() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        store.claim(job.id, "e", 0, 100).await.unwrap();
        let cancel = at(11, Event::CancelRequested { by: Actor::Operator });
        assert!(store.append_for_person(&job, &cancel).await.unwrap(), "a person needs no claim");
        assert!(!store.append_for_person(&job, &cancel).await.unwrap());
        let begun = at(12, Event::Started { step: Step::CloneDrive });
        let late = store.append(&job, Some("e"), &begun).await;
        assert!(matches!(late, Err(AppendError::Conflict)), "{late:?}");
        let mut ahead = job.clone();
        ahead.seq = 7;
        let ahead = store.append(&ahead, Some("e"), &begun).await;
        assert!(matches!(ahead, Err(AppendError::Conflict)), "{ahead:?}");
        let fresh = store.load(job.id).await.unwrap();
        assert_eq!((fresh.seq, fresh.cancel), (1, Some(Actor::Operator)));
    })
    .await;
}

#[tokio::test]
async fn of_many_writers_of_one_event_exactly_one_wins() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        let cancel = at(11, Event::CancelRequested { by: Actor::Operator });
        let won = join_all((0..8).map(|_| store.append_for_person(&job, &cancel))).await;
        assert_eq!(won.into_iter().filter(|won| *won.as_ref().unwrap()).count(), 1);
    })
    .await;
}

#[tokio::test]
async fn eight_workers_share_the_jobs_and_none_is_taken_twice() {
    on_both(async |store, url| {
        for n in 0..20 {
            make(&store, &format!("s{n}"), &format!("world-{n}")).await;
            start(&store, &format!("s{n}")).await;
        }
        let mut workers = vec![];
        for worker in 0..8 {
            let store = Store::connect(&url).await.unwrap();
            workers.push(tokio::spawn(async move {
                let mut taken = vec![];
                for job in store.open_jobs().await.unwrap() {
                    if store.claim(job.id, &format!("worker {worker}"), 0, 100).await.unwrap() {
                        taken.push(job.id.0);
                    }
                }
                taken
            }));
        }
        let mut all: Vec<i64> = join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=20).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn of_many_who_start_one_server_exactly_one_does_and_the_others_read_who() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let asks = (0..8).map(|_| store.open(ask("a", Action::Start), Wish::to(Wanted::On), 10));
        let (won, lost): (Vec<_>, Vec<_>) = join_all(asks).await.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for answer in lost {
            match answer {
                Err(OpenError::Busy(job)) => assert_eq!((job.id, job.actor.name()), (JobId(1), "alice")),
                other => panic!("{other:?}"),
            }
        }
        let refused = store.open(ask("a", Action::Stop), Wish::to(Wanted::Off), 11).await;
        assert!(matches!(refused, Err(OpenError::Busy(_))), "{refused:?}");
        let wanted = store.server_any(&ServerId("a".into())).await.unwrap().unwrap().wanted;
        assert_eq!(wanted, Wanted::On, "a refused job leaves no wish");
    })
    .await;
}

#[tokio::test]
async fn what_nobody_asked_for_is_refused_where_people_have_said_something_else_since() {
    on_both(async |store, _| {
        let id = ServerId("a".into());
        make(&store, "a", "world").await;
        let crashed = || {
            let cause = Cause::Crashed { exit_code: None, out_of_memory: false };
            NewJob { cause, ..ask("a", Action::Start) }
        };
        let now = async || store.server(&id).await.unwrap().unwrap();
        let mut decided_on = Some(DecidedOn::of(&now().await));
        for said in 0..4 {
            match said {
                0 => store.set_wanted(&id, Wanted::On).await.unwrap(),
                1 => store.set_lease(&id, Some(900)).await.unwrap(),
                2 => {
                    let limits = Some(Limits { idle_min: Some(0), ..Limits::default() });
                    assert!(store.change(&id, Change { limits, ..Change::default() }).await.unwrap());
                }
                _ => {
                    let job = gain(&store, "a", Gain::owned(owned(&[7000]))).await.unwrap();
                    store.close(&job, Outcome::Succeeded, Aftermath::default(), 20).await.unwrap();
                }
            }
            let before = now().await;
            let wish = Wish { wanted: Some(Wanted::Off), decided_on: decided_on.take() };
            let refused = store.open(crashed(), wish, 30).await;
            assert!(matches!(refused, Err(OpenError::Overtaken)), "{said}: {refused:?}");
            assert_eq!((now().await, store.open_jobs().await.unwrap()), (before.clone(), vec![]), "{said}");
            decided_on = Some(DecidedOn::of(&before));
        }
        let wish = Wish { wanted: Some(Wanted::Off), decided_on };
        store.open(crashed(), wish, 40).await.expect("all is as it was");
        assert_eq!(now().await.wanted, Wanted::Off);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_moves_the_game_ends_that_it_is_left_alone() {
    on_both(async |store, _| {
        let id = ServerId("a".into());
        make(&store, "a", "world").await;
        let alone = Memo { left_alone: true, crash_starts: 2, ..Memo::default() };
        store.set_memo(&id, &alone).await.unwrap();
        let backup = store.open(ask("a", Action::Backup), Wish::default(), 10).await.unwrap();
        assert_eq!(store.memo(&id).await.unwrap(), alone);
        let backup = store.load(backup).await.unwrap();
        store.close(&backup, Outcome::Succeeded, Aftermath::default(), 20).await.unwrap();
        store.open(ask("a", Action::Stop), Wish::to(Wanted::Off), 30).await.unwrap();
        assert_eq!(store.memo(&id).await.unwrap(), Memo { left_alone: false, ..alone });
    })
    .await;
}

#[tokio::test]
async fn ending_a_job_twice_changes_nothing_and_an_ended_job_takes_no_events() {
    on_both(async |store, _| {
        let id = ServerId("a".into());
        make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        store.claim(job.id, "e", 0, 100).await.unwrap();
        store.set_memo(&id, &Memo { joined: true, ..Memo::default() }).await.unwrap();
        store.set_lease(&id, Some(900)).await.unwrap();
        let begin =
            |until| Aftermath { wanted: Some(Wanted::On), lease: LeaseChange::Begin(until), ..Aftermath::default() };
        store.close(&job, Outcome::Succeeded, begin(Some(500)), 20).await.unwrap();
        let server = store.server(&id).await.unwrap().unwrap();
        assert_eq!(server.lease_until, Some(900), "an extension made meanwhile stays");
        assert_eq!(store.memo(&id).await.unwrap(), Memo::default());

        let off = Aftermath {
            wanted: Some(Wanted::Off),
            lease: LeaseChange::Clear,
            deleted: true,
            update_done: true,
            ..Aftermath::default()
        };
        store.close(&job, Outcome::Failed, off, 30).await.unwrap();
        assert_eq!(store.server(&id).await.unwrap().unwrap(), server);
        assert_eq!(store.job(job.id).await.unwrap(), Some((job.clone(), Some(Outcome::Succeeded), Some(20))));
        assert!(!store.append_for_person(&job, &at(31, Event::CancelRequested { by: Actor::Operator })).await.unwrap());
        assert!(!store.claim(job.id, "e", 32, 100).await.unwrap());
        assert_eq!(store.open_jobs().await.unwrap(), vec![]);

        let next = start(&store, "a").await;
        assert_eq!(next.id, JobId(2));
        assert!(store.close(&next, Outcome::Held, Aftermath::default(), 40).await.is_err());
        store.set_update_at_start(&id, true).await.unwrap();
        store.close(&next, Outcome::Succeeded, Aftermath { update_done: true, ..begin(None) }, 41).await.unwrap();
        let server = store.server(&id).await.unwrap().unwrap();
        assert_eq!((server.lease_until, server.update_at_start), (None, false));
    })
    .await;
}

#[tokio::test]
async fn a_name_is_unique_in_its_guild_and_free_again_after_the_delete() {
    on_both(async |store, _| {
        let id = ServerId("a".into());
        let first = server("a", "world");
        let secrets = HashMap::from([("PASSWORD".to_owned(), NASTY.to_owned())]);
        store.create_server(&first, &secrets, &Actor::Operator).await.unwrap();
        assert_eq!(store.secrets(&id).await.unwrap(), secrets);
        let twin = store.create_server(&server("b", "world"), &HashMap::new(), &Actor::Operator).await;
        assert!(matches!(twin, Err(CreateError::NameTaken)), "{twin:?}");
        let elsewhere = Server { guild: GuildId("2".into()), ..server("c", "world") };
        store.create_server(&elsewhere, &HashMap::new(), &Actor::Operator).await.unwrap();

        let grant =
            Grant { grantee: Grantee::User("9".into()), permission: Permission::Play, server: Some(id.clone()) };
        store.grant(&guild(), &grant, &Actor::Operator).await.unwrap();
        gain(&store, "a", Gain::owned(owned(&[7000]))).await.unwrap();
        let job = store.open_jobs().await.unwrap().remove(0);
        store.close(&job, Outcome::Succeeded, Aftermath { deleted: true, ..Aftermath::default() }, 50).await.unwrap();

        assert_eq!(store.server_by_name(&guild(), "world").await.unwrap(), None);
        assert_eq!(store.deleted_servers_of(&guild()).await.unwrap()[0].id, id);
        assert_eq!(store.server(&id).await.unwrap().unwrap().deleted_at, Some(50));
        assert_eq!(store.servers().await.unwrap(), vec![elsewhere]);
        assert_eq!(store.secrets(&id).await.unwrap(), HashMap::new());
        assert_eq!(store.grants(&guild()).await.unwrap(), vec![]);
        assert!(matches!(store.open(ask("a", Action::Start), Wish::default(), 60).await, Err(OpenError::Other(_))));
        assert!(store.set_lease(&id, Some(1)).await.is_err());
        make(&store, "b", "world").await;
        gain(&store, "b", Gain::owned(owned(&[7000]))).await.expect("the port is free again");
    })
    .await;
}

#[tokio::test]
async fn a_port_of_another_server_is_refused_with_the_event_that_brought_it() {
    on_both(async |store, _| {
        make(&store, "a", "first").await;
        make(&store, "b", "second").await;
        gain(&store, "a", Gain::owned(owned(&[7000, 7001]))).await.unwrap();
        let clash = Gain { snapshot: Some(snapshot(1)), ..Gain::owned(owned(&[6999, 7001])) };
        let error = gain(&store, "b", clash).await.unwrap_err();
        assert!(error.to_string().contains("port 7001 already belongs to the server `first`"), "{error:?}");

        // All or nothing: neither the event nor anything that came with it is there.
        let job = store.open_job_of(&Subject::Server(ServerId("b".into()))).await.unwrap().unwrap();
        assert_eq!(job.seq, 1, "{job}");
        assert_eq!(store.server(&ServerId("b".into())).await.unwrap().unwrap().owned, Owned::default());
        assert_eq!(store.snapshots().await.unwrap(), vec![]);
        gain(&store, "b", Gain::owned(owned(&[6999]))).await.expect("the refused transaction holds no port");

        // A rented host has all numbers to itself.
        for (id, host) in [("c", "host-1"), ("d", "host-2")] {
            let cloud = Server { backend: Backend::Cloud, ..server(id, id) };
            store.create_server(&cloud, &HashMap::new(), &Actor::Operator).await.unwrap();
            let host = Some(HostRef {
                provider: "hetzner".into(),
                id: host.to_owned(),
                region: "nbg1".into(),
                size: "cx23".into(),
                address: None,
                label: None,
                firewall: None,
                price: None,
                created_at: 0,
                host_key: String::new(),
                played: false,
            });
            gain(&store, id, Gain::owned(Owned { host, ..owned(&[7000]) })).await.unwrap();
        }
    })
    .await;
}

fn host(id: &str, price: Option<Price>) -> HostRef {
    HostRef {
        provider: "hetzner".into(),
        id: id.to_owned(),
        region: "nbg1".into(),
        size: "cx23".into(),
        address: None,
        label: None,
        firewall: None,
        price,
        created_at: 7,
        host_key: String::new(),
        played: false,
    }
}

#[tokio::test]
async fn a_rental_begins_and_ends_with_the_host_on_record() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        make(&store, "b", "other").await;
        let price = Price { hourly: 6_300, monthly: Some(4_490_000), currency: "EUR".into(), unit_ms: HOUR_MS };
        let open = |host: &str| Rental {
            provider: "hetzner".into(),
            host: host.into(),
            server: ServerId("a".into()),
            actor: Actor::Discord { id: "9".into(), name: "alice".into() },
            region: "nbg1".into(),
            size: "cx23".into(),
            price: Some(price.clone()),
            began_at: 7,
            ended_at: None,
        };
        let with = |host: Option<HostRef>| Gain::owned(Owned { host, ..Owned::default() });
        let mut job = start(&store, "a").await;
        store.claim(job.id, "e", 0, 100).await.unwrap();
        // Steps and undos of one job, each with what the server owns after it, in the order of their times.
        let mut step = 20;
        let mut turn = async |store: &Store, gain: Gain| {
            step += 1;
            let place = Step::CloneDrive;
            let (begin, end) = match step % 2 {
                1 if job.seq == 0 => (Event::Started { step: place }, Event::Finished { step: place, gain }),
                _ => (Event::UndoStarted { step: place }, Event::Undone { step: place, gain }),
            };
            append(store, &mut job, "e", at(step, begin)).await?;
            append(store, &mut job, "e", at(step, end)).await?;
            if step % 2 == 0 {
                store.close(&job, Outcome::Failed, Aftermath::default(), step).await.unwrap();
                job = start(store, "a").await;
                store.claim(job.id, "e", 0, 100).await.unwrap();
            }
            Ok::<(), AppendError>(())
        };
        let rentals = async |since| store.rentals(&guild(), since).await.unwrap();

        turn(&store, with(Some(host("1", None)))).await.unwrap();
        assert_eq!(rentals(0).await, [Rental { price: None, ..open("1") }]);
        // The same host again changes nothing, but for the price that was not known before.
        turn(&store, with(Some(host("1", Some(price.clone()))))).await.unwrap();
        assert_eq!(rentals(0).await, [open("1")]);
        turn(&store, with(Some(host("2", Some(price.clone()))))).await.unwrap();
        let first = Rental { ended_at: Some(23), ..open("1") };
        assert_eq!(rentals(0).await, [first.clone(), open("2")], "another host ends one and begins one");
        turn(&store, with(None)).await.unwrap();
        let second = Rental { ended_at: Some(24), ..open("2") };
        assert_eq!(rentals(0).await, [first.clone(), second.clone()]);
        assert_eq!(rentals(23).await, vec![second.clone()], "what ended before is left out");
        assert_eq!(store.rentals(&GuildId("2".into()), 0).await.unwrap(), []);

        // Gone without a job; and there after all.
        turn(&store, with(Some(host("3", Some(price.clone()))))).await.unwrap();
        store.host_gone("hetzner", "3", 30).await.unwrap();
        store.host_gone("hetzner", "3", 31).await.unwrap();
        store.host_gone("hetzner", "nobody's", 31).await.unwrap();
        let third = Rental { ended_at: Some(30), ..open("3") };
        assert_eq!(rentals(0).await[2], third);
        assert!(store.bill_ended("hetzner", "3").await.unwrap() && !store.bill_ended("hetzner", "4").await.unwrap());
        assert!(store.host_back("hetzner", "3").await.unwrap());
        assert_eq!(rentals(0).await[2], open("3"), "as if it had never ended");
        assert!(!store.host_back("hetzner", "3").await.unwrap(), "it had not ended");
        assert!(!store.host_back("hetzner", "1").await.unwrap(), "its server has it no longer");
        assert!(!store.host_back("hetzner", "nobody's").await.unwrap());
        store.host_gone("hetzner", "3", 30).await.unwrap();
        assert_eq!(rentals(0).await, [first.clone(), second.clone(), third]);
        turn(&store, with(None)).await.unwrap();
        assert_eq!(rentals(0).await[2].ended_at, Some(30), "what ended does not end again");
        turn(&store, with(Some(host("3", None)))).await.unwrap();
        assert_eq!(rentals(0).await[2], open("3"));
        // A machine of your own bills nobody, and an event that is refused begins no rental.
        let own = HostRef { provider: "ssh".into(), ..host("attic", None) };
        turn(&store, with(Some(own))).await.unwrap();
        assert_eq!(rentals(0).await.len(), 3);
        gain(&store, "b", Gain::owned(owned(&[7000]))).await.unwrap();
        let clash = Gain::owned(Owned { host: Some(host("4", None)), ..owned(&[7000]) });
        turn(&store, clash).await.unwrap_err();
        assert_eq!(rentals(0).await.len(), 3);
        assert!(rentals(0).await.iter().all(|rental| rental.ended_at.is_some()));
    })
    .await;
}

/// Somebody went on without seeing the host go: it bills until its provider says that it is gone.
#[tokio::test]
async fn a_host_that_is_left_behind_stays_on_the_bill() {
    on_both(async |store, _| {
        let on = |id: &str| Gain::owned(Owned { host: Some(host(id, None)), ..Owned::default() });
        let open = async || {
            let all = store.rentals(&guild(), 0).await.unwrap();
            all.into_iter().filter(|rental| rental.ended_at.is_none()).map(|rental| rental.host).collect::<Vec<_>>()
        };
        let left = async || store.left_bills().await.unwrap().into_iter().map(|rental| rental.host).collect::<Vec<_>>();
        for (name, away) in [
            ("a", Aftermath { backend: Some(Backend::Docker), ..Aftermath::default() }),
            ("b", Aftermath { deleted: true, ..Aftermath::default() }),
        ] {
            make(&store, name, name).await;
            let job = gain(&store, name, on(name)).await.unwrap();
            assert_eq!(left().await, [""; 0], "it is its server's");
            store.close(&job, Outcome::Succeeded, away, 30).await.unwrap();
            assert_eq!((open().await, left().await), (vec![name.to_owned()], vec![name.to_owned()]));
            if name == "a" {
                // Another evening, on another host: the bill of the one ends, and not that of the other.
                let mut job = gain(&store, name, on("later")).await.unwrap();
                assert_eq!((open().await.len(), left().await), (2, vec!["a".to_owned()]));
                let (step, gain) = (Step::StartGame, Gain::owned(Owned::default()));
                append(&store, &mut job, "e", at(50, Event::Started { step })).await.unwrap();
                append(&store, &mut job, "e", at(51, Event::Finished { step, gain })).await.unwrap();
                assert_eq!((open().await, left().await), (vec!["a".to_owned()], vec!["a".to_owned()]));
            }
            store.host_gone("hetzner", name, 60).await.unwrap();
            assert_eq!((open().await, left().await), (vec![], vec![]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_was_never_on_record_is_on_the_bill_once() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        gain(&store, "a", Gain::owned(Owned { host: Some(host("known", None)), ..Owned::default() })).await.unwrap();
        let known = store.rentals(&guild(), 0).await.unwrap().remove(0);
        let seen = |ended_at, price| Rental { host: "unseen".into(), began_at: 20, ended_at, price, ..known.clone() };
        store.bill_unrecorded(&seen(Some(30), None)).await.unwrap();
        store.bill_unrecorded(&seen(Some(40), known.price.clone())).await.unwrap();
        let mut bills = store.rentals(&guild(), 0).await.unwrap();
        bills.retain(|rental| rental.host == "unseen");
        assert_eq!(bills, [seen(Some(40), known.price.clone())]);
        assert_eq!(store.rentals(&guild(), 0).await.unwrap().len(), 2, "and the other goes on");
    })
    .await;
}

#[tokio::test]
async fn snapshots_come_change_and_go_with_events() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let mut job = gain(&store, "a", Gain { snapshot: Some(snapshot(1)), ..Gain::default() }).await.unwrap();
        let sealed = Snapshot { sealed_at: Some(9), files: Some(3), bytes: Some(1 << 40), ..snapshot(1) };
        let next = |event| at(13, event);
        append(&store, &mut job, "e", next(Event::Started { step: Step::StartGame })).await.unwrap();
        let gain = Gain { snapshot: Some(sealed.clone()), ..Gain::default() };
        append(&store, &mut job, "e", next(Event::Finished { step: Step::StartGame, gain })).await.unwrap();
        assert_eq!(store.snapshots().await.unwrap(), vec![sealed.clone()]);
        append(&store, &mut job, "e", next(Event::UndoStarted { step: Step::StartGame })).await.unwrap();
        let gain = Gain { snapshot_removed: Some(sealed.id.0), ..Gain::default() };
        append(&store, &mut job, "e", next(Event::Undone { step: Step::StartGame, gain })).await.unwrap();
        assert_eq!(store.snapshots().await.unwrap(), vec![]);
    })
    .await;
}

#[tokio::test]
async fn any_text_comes_back_as_it_was_and_harms_nothing() {
    on_both(async |store, _| {
        let nasty = || NASTY.to_owned();
        let actor = Actor::Discord { id: nasty(), name: nasty() };
        let odd = Server {
            guild: GuildId(nasty()),
            game: nasty(),
            settings: BTreeMap::from([(nasty(), nasty())]),
            channel: Some(nasty()),
            ..server(NASTY, "world")
        };
        let secrets = HashMap::from([(nasty(), nasty())]);
        store.create_server(&odd, &secrets, &actor).await.unwrap();
        assert_eq!(store.servers_of(&odd.guild).await.unwrap(), vec![odd.clone()]);
        assert_eq!(store.secrets_of(&odd.id).await.unwrap(), secrets);
        let settings = BTreeMap::from([("K".to_owned(), nasty())]);
        let secrets = HashMap::from([(nasty(), None), ("NEW".to_owned(), Some(nasty()))]);
        let change = Change { settings: Some(settings.clone()), secrets, ..Change::default() };
        // Not the place that was read: nothing of it is done.
        let other = Place { region: Some(nasty()), ..Place::default() };
        let refused = Change { place: Some((other.clone(), Place::default())), ..change.clone() };
        assert!(!store.change(&odd.id, refused).await.unwrap());
        assert_eq!(store.servers_of(&odd.guild).await.unwrap(), vec![odd.clone()]);
        assert!(
            store.change(&odd.id, Change { place: Some((odd.place.clone(), other.clone())), ..change }).await.unwrap()
        );
        let now = store.servers_of(&odd.guild).await.unwrap();
        assert_eq!(now, vec![Server { settings, place: other, ..odd.clone() }]);
        assert_eq!(store.secrets_of(&odd.id).await.unwrap(), HashMap::from([("NEW".to_owned(), nasty())]));
        assert_eq!(store.server_by_name(&odd.guild, NASTY).await.unwrap(), None);

        let new = NewJob {
            actor: actor.clone(),
            channel: Some(nasty()),
            guild: odd.guild.clone(),
            ..ask(NASTY, Action::Start)
        };
        let id = store.open(new, Wish::default(), 1).await.unwrap();
        assert_eq!(store.load(id).await.unwrap().actor, actor);
        store.output(id, Step::StartGame, 2, &[nasty(), "a\0b".into()]).await.unwrap();
        assert_eq!(store.job_output(id, None, 9).await.unwrap(), vec![nasty(), "a\u{fffd}b".into()]);

        let grant =
            Grant { grantee: Grantee::Role(nasty()), permission: Permission::Admin, server: Some(odd.id.clone()) };
        store.grant(&odd.guild, &grant, &actor).await.unwrap();
        assert_eq!(store.grants(&odd.guild).await.unwrap(), vec![grant]);
        let entry = AuditEntry {
            at: 1,
            guild: odd.guild.clone(),
            actor,
            action: nasty(),
            server: Some(nasty()),
            detail: nasty(),
            outcome: nasty(),
        };
        store.audit_add(&entry).await.unwrap();
        assert_eq!(store.audit(&odd.guild, Some(NASTY), 5).await.unwrap(), vec![entry]);
        let notice = Notice::IdleStop { server: nasty(), in_ms: 1 };
        store.notice(&odd, &notice, 3).await.unwrap();
        let waiting = WaitingNotice { id: 1, guild: odd.guild.clone(), channel: Some(nasty()), notice, since: 3 };
        assert_eq!(store.notices_waiting().await.unwrap(), vec![waiting]);
        let panel = Panel { channel: nasty(), message: nasty(), once: nasty() };
        store.set_panel(&odd.id, &panel).await.unwrap();
        assert_eq!(store.panel(&odd.id).await.unwrap(), Some(panel));
        store.set_job_message(id, NASTY, NASTY, NASTY).await.unwrap();
        assert_eq!(store.job_message(id).await.unwrap().unwrap().hash, NASTY);
        store.set_meta(NASTY, NASTY).await.unwrap();
        assert_eq!(store.meta(NASTY).await.unwrap(), Some(nasty()));
    })
    .await;
}

#[tokio::test]
async fn a_guild_is_read_at_once_as_its_servers_are_one_by_one() {
    on_both(async |store, _| {
        let (one, two) = (make(&store, "a", "world").await, make(&store, "b", "other").await);
        let memo = Memo { joined: true, ..Memo::default() };
        store.set_memo(&one.id, &memo).await.unwrap();
        let all = store.servers_and_memos_of(&guild()).await.unwrap();
        assert_eq!(all, [(two.clone(), Memo::default()), (one.clone(), memo)], "by name");
        assert_eq!(store.open_jobs_in(&guild()).await.unwrap(), []);
        let (first, second) = (start(&store, "a").await, start(&store, "b").await);
        store.output(first.id, Step::CloneDrive, 1, &["1".into(), "2".into(), "3".into()]).await.unwrap();
        store.output(first.id, Step::StartGame, 1, &["4".into()]).await.unwrap();
        store.output(second.id, Step::CloneDrive, 1, &["5".into(), "6".into()]).await.unwrap();
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let outputs = HashMap::from([
            ((first.id, Step::CloneDrive), lines(&["2", "3"])),
            ((first.id, Step::StartGame), lines(&["4"])),
            ((second.id, Step::CloneDrive), lines(&["5", "6"])),
        ]);
        assert_eq!(store.outputs_in(&guild(), 2).await.unwrap(), outputs);
        assert_eq!(store.open_jobs_in(&guild()).await.unwrap(), [first.clone(), second.clone()]);
        // Other guilds and what has ended are left out.
        let elsewhere = GuildId("2".into());
        assert_eq!(store.open_jobs_in(&elsewhere).await.unwrap(), []);
        assert_eq!(store.servers_and_memos_of(&elsewhere).await.unwrap(), []);
        assert!(store.outputs_in(&elsewhere, 2).await.unwrap().is_empty());
        store.close(&first, Outcome::Succeeded, Aftermath::default(), 20).await.unwrap();
        assert_eq!(store.open_jobs_in(&guild()).await.unwrap(), std::slice::from_ref(&second));
        assert_eq!(
            store.outputs_in(&guild(), 2).await.unwrap().into_keys().collect::<Vec<_>>(),
            [(second.id, Step::CloneDrive)]
        );
    })
    .await;
}

#[tokio::test]
async fn of_each_step_the_last_lines_are_kept_and_no_more() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let id = start(&store, "a").await.id;
        let lines = |range: std::ops::Range<usize>| range.map(|n| n.to_string()).collect::<Vec<_>>();
        store.output(id, Step::StartGame, 1, &["start".into()]).await.unwrap();
        store.output(id, Step::CloneDrive, 1, &lines(0..399)).await.unwrap();
        store.output(id, Step::CloneDrive, 2, &lines(399..402)).await.unwrap();
        assert_eq!(store.job_output(id, Some(Step::CloneDrive), 9999).await.unwrap(), lines(2..402));
        store.output(id, Step::CloneDrive, 2, &lines(402..1500)).await.unwrap();
        assert_eq!(store.job_output(id, Some(Step::CloneDrive), 9999).await.unwrap(), lines(1100..1500));
        assert_eq!(store.job_output(id, Some(Step::CloneDrive), 2).await.unwrap(), lines(1498..1500));
        assert_eq!(store.job_output(id, Some(Step::StartGame), 9).await.unwrap(), vec!["start"]);
        assert_eq!(store.job_output(id, None, 9999).await.unwrap().len(), 401);
    })
    .await;
}

#[tokio::test]
async fn what_a_job_printed_is_forgotten_a_month_after_its_end_and_the_job_is_not() {
    on_both(async |store, _| {
        for name in ["long", "old", "young", "last"] {
            make(&store, name, name).await;
        }
        // One that waits for a person all the time began before them all.
        let mut jobs = vec![];
        for name in ["long", "old", "young"] {
            let job = start(&store, name).await;
            store.output(job.id, Step::CloneDrive, 1, &[name.into()]).await.unwrap();
            jobs.push(job);
        }
        let day = 24 * HOUR_MS;
        let [_, old, young] = &jobs[..] else { panic!("three jobs") };
        store.close(old, Outcome::Succeeded, Aftermath::default(), day).await.unwrap();
        store.close(young, Outcome::Succeeded, Aftermath::default(), 2 * day).await.unwrap();
        let printed = async || {
            let mut lines = vec![];
            for job in &jobs {
                lines.extend(store.job_output(job.id, None, 9).await.unwrap());
            }
            lines
        };
        assert_eq!(printed().await, ["long", "old", "young"]);
        let last = start(&store, "last").await;
        store.close(&last, Outcome::Succeeded, Aftermath::default(), 31 * day + 1).await.unwrap();
        assert_eq!(printed().await, ["long", "young"]);
        assert!(store.job(old.id).await.unwrap().is_some(), "histories and bills are made from it");
    })
    .await;
}

#[tokio::test]
async fn forecasts_are_the_median_of_what_went_well() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        for (took, outcome) in
            [(9, Outcome::Succeeded), (100, Outcome::Succeeded), (30, Outcome::Succeeded), (5000, Outcome::Failed)]
        {
            let mut job = start(&store, "a").await;
            store.claim(job.id, "e", 0, 100).await.unwrap();
            append(&store, &mut job, "e", at(20, Event::Started { step: Step::CloneDrive })).await.unwrap();
            let done = Event::Finished { step: Step::CloneDrive, gain: Gain::default() };
            append(&store, &mut job, "e", at(20 + took, done)).await.unwrap();
            store.close(&job, outcome, Aftermath::default(), 110 + took).await.unwrap();
        }
        assert_eq!(store.step_times("openttd", "start").await.unwrap(), HashMap::from([(Step::CloneDrive, 30)]));
        let last: Vec<_> = store.jobs_of(&ServerId("a".into()), 2).await.unwrap();
        assert_eq!(
            last.iter().map(|(job, outcome, _)| (job.id.0, *outcome)).collect::<Vec<_>>(),
            [(4, Some(Outcome::Failed)), (3, Some(Outcome::Succeeded))]
        );
    })
    .await;
}

#[tokio::test]
async fn starts_because_of_a_crash_are_counted_and_no_others() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let crashed = Cause::Crashed { exit_code: Some(1), out_of_memory: false };
        for (now, cause) in [(10, crashed.clone()), (20, Cause::Asked), (30, crashed.clone())] {
            let id = store.open(NewJob { cause, ..ask("a", Action::Start) }, Wish::default(), now).await.unwrap();
            let job = store.load(id).await.unwrap();
            store.close(&job, Outcome::Failed, Aftermath::default(), now).await.unwrap();
        }
        assert_eq!(store.crash_starts(&ServerId("a".into()), 0).await.unwrap(), vec![10, 30]);
        assert_eq!(store.crash_starts(&ServerId("a".into()), 11).await.unwrap(), vec![30]);
    })
    .await;
}

#[tokio::test]
async fn what_was_not_told_is_found_again() {
    on_both(async |store, _| {
        let server = make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        assert_eq!(store.jobs_with_message_unfinished().await.unwrap(), vec![job.id], "also before its first message");
        store.set_job_message(job.id, "77", "88", "h").await.unwrap();
        store.job_end_told(job.id).await.unwrap();
        store.close(&job, Outcome::Failed, Aftermath::default(), 20).await.unwrap();
        assert_eq!(store.jobs_with_message_unfinished().await.unwrap(), vec![job.id], "it had no end to tell before");
        store.job_end_told(job.id).await.unwrap();
        assert_eq!(store.jobs_with_message_unfinished().await.unwrap(), vec![]);
        store.forget_job_message(job.id).await.unwrap();
        assert_eq!(store.job_message(job.id).await.unwrap(), None);

        store.notice(&server, &Notice::IdleStop { server: "world".into(), in_ms: 1 }, 5).await.unwrap();
        let waiting = store.notices_waiting().await.unwrap();
        store.notice_told(waiting[0].id, 6).await.unwrap();
        assert_eq!(store.notices_waiting().await.unwrap(), vec![]);
        let wanted = Panel { channel: "1".into(), message: String::new(), once: "a".into() };
        let posted = Panel { message: "3".into(), ..wanted.clone() };
        for panel in [wanted, posted] {
            store.set_panel(&server.id, &panel).await.unwrap();
            assert_eq!(store.panel(&server.id).await.unwrap(), Some(panel));
        }
        assert_eq!(store.panels().await.unwrap(), vec![server.id.clone()]);
        store.set_told("lost 1").await.unwrap();
        store.forget_told("lost 1").await.unwrap();
        assert!(!store.told("lost 1").await.unwrap());
        store.forget_panel(&server.id).await.unwrap();
        assert_eq!(store.panel(&server.id).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_channel_in_which_many_notices_wait_holds_up_none_of_the_others() {
    on_both(async |store, _| {
        let one = Server { channel: Some("77".into()), ..make(&store, "a", "world").await };
        let other = Server { channel: Some("78".into()), ..one.clone() };
        let notice = Notice::IdleStop { server: "world".into(), in_ms: 1 };
        for at in 0..120 {
            store.notice(&one, &notice, at).await.unwrap();
        }
        store.notice(&other, &notice, 120).await.unwrap();
        let waiting = store.notices_waiting().await.unwrap();
        assert_eq!(waiting.last().map(|last| (last.channel.as_deref(), last.since)), Some((Some("78"), 120)));
        let first: Vec<Ms> = waiting.iter().take(waiting.len() - 1).map(|one| one.since).collect();
        assert_eq!(first, (0..100).collect::<Vec<_>>(), "the oldest first; the next look has the rest");
    })
    .await;
}

#[tokio::test]
async fn grants_are_replaced_and_taken_back() {
    on_both(async |store, _| {
        let user = || Grantee::User("9".into());
        let grant = |permission, server: Option<&str>| Grant {
            grantee: user(),
            permission,
            server: server.map(|id| ServerId(id.into())),
        };
        for one in [grant(Permission::Play, None), grant(Permission::Admin, None), grant(Permission::View, Some("a"))] {
            store.grant(&guild(), &one, &Actor::Operator).await.unwrap();
        }
        let held = vec![grant(Permission::Admin, None), grant(Permission::View, Some("a"))];
        assert_eq!(store.grants(&guild()).await.unwrap(), held);
        assert_eq!(store.grants(&GuildId("2".into())).await.unwrap(), vec![]);
        assert_eq!(store.revoke(&guild(), &Grantee::Role("9".into()), None).await.unwrap(), 0);
        assert_eq!(store.revoke(&guild(), &user(), Some(&ServerId("b".into()))).await.unwrap(), 0);
        assert_eq!(store.revoke(&guild(), &user(), None).await.unwrap(), 2);
        assert_eq!(store.grants(&guild()).await.unwrap(), vec![]);
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_gives_up_leaves_nothing_half_written() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        for now in 0..20 {
            // Dropped at its first await: the work is under way in its own task.
            let open = store.open(ask("a", Action::Start), Wish::to(Wanted::On), now);
            futures::future::select(Box::pin(open), Box::pin(tokio::task::yield_now())).await;
            // What comes after waits for it, and the database is not left locked.
            store.set_meta("k", &now.to_string()).await.unwrap();
        }
        assert_eq!(store.open_jobs().await.unwrap().len(), 1);
        assert_eq!(store.meta("k").await.unwrap().as_deref(), Some("19"));
    })
    .await;
}

#[tokio::test]
async fn opening_again_keeps_everything_and_many_may_open_at_once() {
    on_both(async |store, url| {
        let server = make(&store, "a", "world").await;
        let job = start(&store, "a").await;
        let stores = join_all((0..4).map(|_| Store::connect(&url))).await;
        for again in stores {
            let again = again.unwrap();
            assert_eq!(again.load(job.id).await.unwrap(), job);
            assert_eq!(again.server(&server.id).await.unwrap().unwrap().name, server.name);
        }
    })
    .await;
}

#[tokio::test]
async fn errors_name_the_place_and_never_the_password() {
    // Takes the call and hangs up, as something does that is no PostgreSQL.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let called = format!("postgres://bob:hunter2@127.0.0.1:{port}/games");
    for url in [
        called.as_str(),
        "postgres://bob:hunter2@127.0.0.1:port/games",
        "postgres://bob:hun@ter2@[::/games",
        "mysql://bob:hunter2@127.0.0.1/games",
        "hunter2",
        "sqlite:/proc/nowhere/store.db?mode=rwc",
    ] {
        let error = Store::connect(url).await.err().expect(url);
        let text = format!("{error:#} {error:?}");
        assert!(!text.contains("ter2"), "{text}");
        let named = !url.starts_with("postgres://bob:hunter2")
            || !url.contains(&port.to_string())
            || text.contains("127.0.0.1");
        assert!(named, "{text}");
        println!("{error:#}");
    }
}

/// The rows that stood in the tables when this migration was the newest.
fn rows_of(migration: &sqlx::migrate::Migration) -> sqlx::AssertSqlSafe<String> {
    let path = format!("{}/tests/migrations/{:04}.sql", env!("CARGO_MANIFEST_DIR"), migration.version);
    let rows = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("each migration has its rows: {path}"));
    sqlx::AssertSqlSafe(rows)
}

#[tokio::test]
async fn every_migration_goes_over_tables_that_hold_data() {
    async fn check(url: &str) {
        let store = Store::connect(url).await.unwrap();
        let id = ServerId("a".into());
        assert_eq!(store.instance().await.unwrap(), "abc");
        let server = store.server_by_name(&guild(), "world").await.unwrap().unwrap();
        assert_eq!((server.owned.ports["game"], server.lease_until, server.update_at_start), (7000, Some(900), true));
        assert_eq!((server.settings["MOTD"].as_str(), server.limits.idle_min), ("it's on", Some(5)));
        assert!(store.memo(&id).await.unwrap().joined);
        assert_eq!(store.secrets(&id).await.unwrap()["PASSWORD"], "swordfish");
        let mut hidden = store.never_shown(&id).await.unwrap();
        hidden.sort();
        assert_eq!(hidden, ["marlin", "swordfish"]);
        let job = store.open_job_of(&Subject::Server(id.clone())).await.unwrap().unwrap();
        assert_eq!(job.to_string(), "start [CloneDrive:Done StartGame:Pending]");
        assert_eq!(store.crash_starts(&id, 0).await.unwrap(), vec![10]);
        assert_eq!(store.job_output(job.id, None, 9).await.unwrap(), vec!["a line"]);
        assert_eq!(store.snapshots().await.unwrap()[0].sealed_at, Some(2));
        assert_eq!(store.grants(&guild()).await.unwrap()[0].permission, Permission::Play);
        assert_eq!(store.audit(&guild(), None, 9).await.unwrap()[0].actor, Actor::Token { name: "ci".into() });
        assert_eq!(store.notices_waiting().await.unwrap().len(), 1);
        let panel = Panel { channel: "77".into(), message: "88".into(), once: "a-1".into() };
        assert_eq!(store.panel(&id).await.unwrap(), Some(panel));
        let rentals = store.rentals(&guild(), 0).await.unwrap();
        assert_eq!(rentals[0].price.as_ref().unwrap().hourly, 6_000);
        assert_eq!(store.job_message(job.id).await.unwrap().unwrap().message, "89");
        let rule = store.schedule(&guild(), 1).await.unwrap().unwrap();
        assert_eq!((rule.when.words(), rule.zone_name(), rule.look_at), ("fri,sat 19:30", "Europe/Berlin", 960));
        assert_eq!(rule.last.unwrap().came, Came::Skipped { why: Skipped::Busy { why: "it's on".into() } });
    }

    let migrations = sqlx::migrate!();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}/store.db?mode=rwc", folder.path().display());
    let mut connection = <sqlx::SqliteConnection as sqlx::Connection>::connect(&url).await.unwrap();
    for migration in migrations.iter() {
        migrations.run_to(migration.version, &mut connection).await.unwrap();
        sqlx::raw_sql(rows_of(migration)).execute(&mut connection).await.unwrap();
    }
    sqlx::Connection::close(connection).await.unwrap();
    check(&url).await;

    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database("spawnpoint").await;
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    for migration in migrations.iter() {
        migrations.run_to(migration.version, &mut connection).await.unwrap();
        sqlx::raw_sql(rows_of(migration)).execute(&mut connection).await.unwrap();
    }
    sqlx::Connection::close(connection).await.unwrap();
    check(&url).await;
}

#[tokio::test]
async fn the_file_with_its_secrets_is_for_nobody_elses_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::connect(&format!("sqlite:{}/data/store.db", folder.path().display())).await.unwrap();
    store.set_meta("k", "v").await.unwrap();
    let mode = |name: &str| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o777;
    for (name, expected) in [("data", 0o700), ("data/store.db", 0o600), ("data/store.db-wal", 0o600)] {
        assert_eq!(mode(name), expected, "{name}");
    }
}

#[tokio::test]
async fn jobs_opened_at_once_get_numbers_of_their_own() {
    on_both(async |store, _| {
        let names: Vec<String> = (0..40).map(|n| format!("s{n}")).collect();
        for name in &names {
            make(&store, name, name).await;
        }
        // Opens all connections, so that what follows does run side by side where the database lets it.
        let guild = guild();
        join_all(names.iter().map(|name| store.server_by_name(&guild, name))).await;
        let opened = join_all(names.iter().map(|name| store.open(ask(name, Action::Start), Wish::default(), 10))).await;
        let mut ids: Vec<i64> = opened.into_iter().map(|id| id.unwrap().0).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=40).collect::<Vec<_>>());
    })
    .await;
}

fn rule(server: &str, due_at: Ms) -> NewSchedule {
    NewSchedule {
        guild: guild(),
        server: ServerId(server.into()),
        does: Does::Command { line: NASTY.into() },
        when: When::parse("fri,sat 19:30").unwrap(),
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        made_by: Actor::Discord { id: "9".into(), name: NASTY.into() },
        made_at: 5,
        due_at,
    }
}

fn settled(schedule: &Schedule, next: Option<Ms>) -> Settled {
    let last = Last { due_at: schedule.due_at, came: Came::Skipped { why: Skipped::Refused { why: NASTY.into() } } };
    let audit = AuditEntry {
        at: 7,
        guild: guild(),
        actor: schedule.actor(),
        action: "command".into(),
        server: Some("world".into()),
        detail: NASTY.into(),
        outcome: "done".into(),
    };
    let notice = Notice::IdleStop { server: "world".into(), in_ms: 1 };
    Settled {
        last,
        next,
        look_at: next,
        audit: Some(audit),
        notice: Some((Box::new(server("a", "world")), notice)),
        now: 7,
    }
}

#[tokio::test]
async fn of_many_that_find_a_rule_due_one_deals_with_it() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let made = store.add_schedule(rule("a", 100)).await.unwrap().unwrap();
        assert_eq!(store.schedule(&guild(), 1).await.unwrap().as_ref(), Some(&made), "it is read as it was written");
        assert_eq!(made.actor(), Actor::Schedule { name: format!("schedule 1 of {NASTY}"), user: Some("9".into()) });
        assert_eq!(
            (store.next_schedule_at().await.unwrap(), store.due_schedules(99).await.unwrap().len()),
            (Some(100), 0)
        );
        assert_eq!(store.due_schedules(100).await.unwrap(), std::slice::from_ref(&made));
        let begun = Last { due_at: 100, came: Came::Begun };
        let takes = join_all((0..9).map(|_| store.take_schedule(&made, 200, Some(&begun)))).await;
        assert_eq!(takes.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
        let taken = store.due_schedules(200).await.unwrap().remove(0);
        assert!(taken.broke_off() && taken.due_at == 100 && store.due_schedules(199).await.unwrap().is_empty());
        let settles = join_all((0..9).map(|_| store.settle_schedule(&made, settled(&made, Some(300))))).await;
        assert_eq!(settles.into_iter().filter(|settled| *settled.as_ref().unwrap()).count(), 1);
        assert_eq!(store.audit(&guild(), None, 9).await.unwrap().len(), 1);
        assert_eq!(store.notices_waiting().await.unwrap().len(), 1);
        let next = store.schedule(&guild(), 1).await.unwrap().unwrap();
        assert_eq!((next.due_at, next.look_at, next.last), (300, 300, Some(settled(&made, None).last)));
        store.postpone_schedule(&made, 999).await.unwrap();
        assert_eq!(store.next_schedule_at().await.unwrap(), Some(300), "who read an older time changes nothing");
    })
    .await;
}

#[tokio::test]
async fn a_rule_goes_after_its_last_time_and_with_its_server_and_its_number_is_not_given_again() {
    on_both(async |store, _| {
        make(&store, "a", "world").await;
        let once = store.add_schedule(rule("a", 100)).await.unwrap().unwrap();
        assert!(store.settle_schedule(&once, settled(&once, None)).await.unwrap());
        assert_eq!(store.schedules_of(&guild()).await.unwrap(), []);
        // Somebody removed it while it acted.
        let typed = Settled { last: Last { due_at: 100, came: Came::Typed }, ..settled(&once, None) };
        assert!(!store.settle_schedule(&once, typed).await.unwrap());
        assert!(!store.settle_schedule(&once, settled(&once, None)).await.unwrap(), "it had done nothing");
        assert_eq!(store.audit(&guild(), None, 9).await.unwrap().len(), 2);
        assert_eq!(store.notices_waiting().await.unwrap().len(), 1);
        assert_eq!(store.add_schedule(rule("a", 100)).await.unwrap().unwrap().number, 2);
        assert!(
            store.remove_schedule(&guild(), 2).await.unwrap() && !store.remove_schedule(&guild(), 2).await.unwrap()
        );
        for _ in 0..PER_SERVER_MAX {
            assert!(store.add_schedule(rule("a", 100)).await.unwrap().is_some());
        }
        assert_eq!(store.add_schedule(rule("a", 100)).await.unwrap(), None, "that many are enough");
        let id = store.open(ask("a", Action::Delete), Wish::to(Wanted::Off), 10).await.unwrap();
        let job = store.load(id).await.unwrap();
        let after = Aftermath { deleted: true, ..Aftermath::default() };
        store.close(&job, Outcome::Succeeded, after, 11).await.unwrap();
        assert_eq!(store.next_schedule_at().await.unwrap(), None);
        assert!(store.add_schedule(rule("a", 100)).await.is_err(), "a deleted server gets none");
    })
    .await;
}
