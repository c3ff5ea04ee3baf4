//! The crashes and failures of `engine.rs` once more, on the real store: what SQL keeps is enough to go on from.

use super::*;
use spawnpoint::store::Store;

struct Stored {
    store: Store,
    outside: Outside,
    id: ServerId,
    base: std::cell::Cell<Ms>,
}

impl Stored {
    /// In memory the store has one connection, so whoever holds it and waits for another one waits for ever.
    async fn new(backend: Backend) -> Stored {
        let store = Store::connect("sqlite::memory:").await.unwrap();
        let server = fresh_server("s1", backend);
        store.create_server(&server, &HashMap::new(), &Actor::Operator).await.unwrap();
        Stored { store, outside: Outside::default(), id: server.id, base: std::cell::Cell::new(0) }
    }

    fn engine_on(&self, journal: Arc<dyn Journal>) -> Engine {
        self.base.set(self.base.get() + 10 * MINUTE_MS);
        engine_over(&self.outside, journal, Clock::test(self.base.get()), Bus::default())
    }

    fn engine(&self) -> Engine {
        self.engine_on(Arc::new(self.store.clone()))
    }

    async fn ask(&self, action: Action) -> JobId {
        let server = self.store.server_any(&self.id).await.unwrap().unwrap();
        let ask = Ask { action, cause: Cause::Asked, actor: Actor::Operator, channel: None };
        self.engine().ask(&server, ask).await.unwrap()
    }

    async fn drive(&self, id: JobId) -> Outcome {
        self.engine().drive(id).await.unwrap().expect("nobody else has it")
    }

    async fn outcome(&self, id: JobId) -> Option<Outcome> {
        self.store.job(id).await.unwrap().unwrap().1
    }

    async fn says(&self, id: JobId, event: Event) {
        let job = self.store.load(id).await.unwrap();
        let recorded = spawnpoint::model::job::Recorded { at: 0, event };
        assert!(self.store.append_for_person(&job, &recorded).await.unwrap());
    }

    async fn end(&self, id: JobId) -> String {
        let server = self.store.server_any(&self.id).await.unwrap().unwrap();
        let (job, outcome, _) = self.store.job(id).await.unwrap().unwrap();
        format!(
            "{outcome:?} {:?} owned {:?} lease {} deleted {}\n{job}\n{}",
            server.wanted,
            server.owned,
            server.lease_until.is_some(),
            server.deleted_at.is_some(),
            self.outside.picture()
        )
    }

    fn check(&self, what: &str) {
        let violations = self.outside.get().violations.clone();
        assert!(violations.is_empty(), "{what}: {violations:?}");
    }
}

async fn opened(backend: Backend, tale: Tale) -> (Stored, JobId) {
    let stored = Stored::new(backend).await;
    let (before, action) = told(tale, backend);
    for before in before {
        match before {
            Before::Job(action) => {
                let id = stored.ask(action).await;
                assert_eq!(stored.drive(id).await, Outcome::Succeeded);
            }
            Before::Played => stored.outside.play(&stored.id),
            Before::Crashed => stored.outside.crash_game(&stored.id, 139),
        }
    }
    let id = stored.ask(action).await;
    (stored, id)
}

/// Every write of every tale; `Before` and `After` take turns, because a write to a real database costs more.
async fn crash_everywhere(backend: Backend, tale: Tale, fails: Option<Step>) {
    let prepare = |stored: &Stored| {
        if let Some(step) = fails {
            stored.outside.fault(Way::Run, step, Kind::After, 9);
        }
    };
    let (calm, id) = opened(backend, tale).await;
    prepare(&calm);
    calm.drive(id).await;
    let expected = calm.end(id).await;
    for at in 0.. {
        let (stored, id) = opened(backend, tale).await;
        prepare(&stored);
        let when = if at % 2 == 0 { When::After } else { When::Before };
        let journal = Crashing { journal: stored.store.clone(), at, when, writes: Arc::default() };
        let crashed = stored.engine_on(Arc::new(journal)).drive(id).await.is_err();
        if stored.outcome(id).await.is_none() {
            stored.drive(id).await;
        }
        let what = format!("{backend:?} {tale:?} fails {fails:?}, crash {when:?} write {at}");
        stored.check(&what);
        assert_eq!(stored.end(id).await, expected, "{what}");
        if !crashed {
            return;
        }
    }
}

#[tokio::test]
async fn on_the_real_store_a_crash_around_any_write_changes_nothing_on_docker() {
    for tale in TALES {
        crash_everywhere(Backend::Docker, tale, None).await;
    }
}

#[tokio::test]
async fn on_the_real_store_a_crash_around_any_write_changes_nothing_in_the_cloud() {
    for tale in TALES {
        crash_everywhere(Backend::Cloud, tale, None).await;
    }
}

#[tokio::test]
async fn on_the_real_store_a_failing_start_and_a_failing_stop_may_crash_anywhere() {
    for backend in Backend::ALL {
        crash_everywhere(backend, Tale::Start, Some(Step::AwaitReady)).await;
        crash_everywhere(backend, Tale::Stop, Some(Step::VerifyWorld)).await;
    }
}

#[tokio::test]
async fn on_the_real_store_every_step_may_run_twice_and_fail_once() {
    for backend in Backend::ALL {
        for tale in TALES {
            let (calm, id) = opened(backend, tale).await;
            let steps: Vec<Step> = calm.store.load(id).await.unwrap().steps.iter().map(|record| record.step).collect();
            calm.outside.get().twice = true;
            calm.drive(id).await;
            let expected = calm.end(id).await;
            for step in steps {
                let what = format!("{backend:?} {tale:?} {step:?}");
                let (stored, id) = opened(backend, tale).await;
                stored.outside.fault(Way::Run, step, Kind::After, 1);
                if stored.drive(id).await == Outcome::Held {
                    stored.says(id, Event::RetryRequested { by: Actor::Operator }).await;
                    assert_eq!(stored.drive(id).await, Outcome::Succeeded, "{what}");
                    assert_eq!(stored.end(id).await, expected, "{what}");
                }
                stored.check(&what);
            }
        }
    }
}

/// Two people ask at the same moment: the database itself lets one through.
#[tokio::test]
async fn on_the_real_store_of_two_who_ask_at_once_one_gets_the_job() {
    let stored = Stored::new(Backend::Docker).await;
    let server = stored.store.server_any(&stored.id).await.unwrap().unwrap();
    let ask = || Ask { action: Action::Start, cause: Cause::Asked, actor: Actor::Operator, channel: None };
    let (one, two) = (stored.engine(), stored.engine());
    let (one, two) = tokio::join!(one.ask(&server, ask()), two.ask(&server, ask()));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
}
