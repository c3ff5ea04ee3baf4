//! The whole program, in this process, on a real Docker daemon, with a home of its own. At the end nothing of it may be
//! left: no container, no volume, no drive, no open job.
// Each test binary uses its own part of the stage.
#![allow(dead_code)]

use spawnpoint::app::NewServer;
use spawnpoint::clients::docker::Docker;
use spawnpoint::config::Config;
use spawnpoint::drivers::fake::{Fake, Outside};
use spawnpoint::engine::Driver;
use spawnpoint::model::access::Caller;
use spawnpoint::model::job::Outcome;
use spawnpoint::model::server::Backend;
use spawnpoint::model::view::JobView;
use spawnpoint::model::{GuildId, JobId};
use spawnpoint::program::{Drivers, Program};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// No wait of a test is longer.
const PATIENCE: Duration = Duration::from_secs(240);
/// Each stage publishes on a loopback address of its own, so that tests do not meet.
static NEXT_ADDRESS: AtomicU8 = AtomicU8::new(1);

pub struct Stage {
    pub program: Program,
    pub config: Config,
    pub home: PathBuf,
    pub caller: Caller,
    pub docker: Docker,
    pub instance: String,
    /// In place of the backends that the configuration names.
    fake: Option<(Backend, Outside)>,
    stop: CancellationToken,
    work: Option<tokio::task::JoinHandle<()>>,
    _home: Option<tempfile::TempDir>,
}

/// A number that no other test process has as long as this one lives: it listens where only one can.
fn process() -> u8 {
    static OURS: OnceLock<(u8, TcpListener)> = OnceLock::new();
    let (number, _) = OURS.get_or_init(|| {
        let first = std::process::id() % 250;
        let numbers = (first..first + 250).map(|number| (number % 250 + 1) as u8);
        let claimed =
            |number| Some((number, TcpListener::bind(SocketAddr::from(([127, 1, number, 254], 40404))).ok()?));
        numbers.filter_map(claimed).next().expect("fewer than 250 test processes run at once")
    });
    *number
}

/// Whether there is a daemon to test on. A laptop without one skips; CI does not.
pub async fn docker_or_skip() -> bool {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let docker = Docker::connect(None).expect("the usual socket is an endpoint");
    match docker.ping().await {
        Ok(()) => true,
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no Docker daemon: {error}"),
        Err(error) => {
            println!("skipped: no Docker daemon ({error})");
            false
        }
    }
}

/// Makes the images that tests stand on; safe to call often.
pub fn test_image(name: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/test-images");
    let made = Command::new(&script).arg(name).output().expect("scripts/lib/test-images can be run");
    assert!(made.status.success(), "making the image {name}: {}", String::from_utf8_lossy(&made.stderr));
}

impl Stage {
    /// A stage with the recipes of this folder; `tweak` changes its configuration.
    pub async fn open(recipes: &str, tweak: impl FnOnce(&mut Config)) -> Stage {
        let home = tempfile::Builder::new().prefix("spawnpoint-test-").tempdir().unwrap();
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = Config { data_dir: home.path().join("data"), ..Config::default() };
        config.game_scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(recipes);
        // The first number keeps test processes apart, the second the stages within one.
        config.docker.publish_address = [127, 1, process(), NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed)].into();
        config.watch.every_seconds = 1;
        tweak(&mut config);
        Stage::at(config, home, None).await
    }

    /// A stage on which a fake plays this backend.
    pub async fn open_on(recipes: &str, backend: Backend, outside: &Outside) -> Stage {
        Stage::open_on_with(recipes, backend, outside, |_| {}).await
    }

    /// The same; `tweak` changes its configuration.
    pub async fn open_on_with(
        recipes: &str,
        backend: Backend,
        outside: &Outside,
        tweak: impl FnOnce(&mut Config),
    ) -> Stage {
        let home = tempfile::Builder::new().prefix("spawnpoint-test-").tempdir().unwrap();
        let mut config = Config { data_dir: home.path().join("data"), ..Config::default() };
        config.game_scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join(recipes);
        config.watch.every_seconds = 1;
        tweak(&mut config);
        Stage::at(config, home, Some((backend, outside.clone()))).await
    }

    async fn at(config: Config, home: tempfile::TempDir, fake: Option<(Backend, Outside)>) -> Stage {
        let path = home.path().to_owned();
        let mut stage = Stage::on(config, path, fake).await;
        stage._home = Some(home);
        stage.work_now()
    }

    /// A stage that writes jobs and carries none out: another process does.
    pub async fn open_idle(recipes: &str, tweak: impl FnOnce(&mut Config)) -> Stage {
        let mut stage = Stage::open(recipes, tweak).await;
        stage.rest().await;
        stage
    }

    async fn on(config: Config, home: PathBuf, fake: Option<(Backend, Outside)>) -> Stage {
        let program = match fake.clone() {
            None => Program::build(&config).await,
            Some((backend, outside)) => {
                Program::build_on(&config, |base| {
                    let fake: Arc<dyn Driver> = Arc::new(Fake::playing(outside, base.backups.clone()));
                    Drivers::from([(backend, fake)])
                })
                .await
            }
        };
        let program = program.expect("the program is put together");
        let instance = program.store.instance().await.unwrap();
        let docker = Docker::connect(None).unwrap();
        let caller = Caller::operator(GuildId("test".into()));
        let stop = CancellationToken::new();
        Stage { program, config, home, caller, docker, instance, fake, stop, work: None, _home: None }
    }

    /// Carries jobs out and watches, from now on.
    pub fn work_now(mut self) -> Stage {
        self.stop = CancellationToken::new();
        self.work = Some(self.program.work(&self.stop));
        self
    }

    /// Nobody carries jobs out or watches, until [`Stage::work_now`].
    pub async fn rest(&mut self) {
        self.stop.cancel();
        if let Some(work) = self.work.take() {
            work.await.unwrap();
        }
    }

    /// Ends the program as a crash of its process would, as far as that shows from outside, and starts it again.
    pub async fn restart(mut self) -> Stage {
        self.rest().await;
        let home = self._home.take();
        let mut again = Stage::on(self.config.clone(), self.home.clone(), self.fake.clone()).await;
        again._home = home;
        // What is still on the daemon belongs to the next one now.
        self.instance.clear();
        again.work_now()
    }

    pub async fn create(&self, name: &str, game: &str, settings: &[(&str, &str)]) {
        let settings: BTreeMap<_, _> =
            settings.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let new = NewServer {
            name: name.into(),
            game: game.into(),
            backend: None,
            settings,
            place: Default::default(),
            channel: None,
        };
        self.program.app.create(&self.caller, new).await.unwrap();
    }

    /// Waits for a job's end, or until it is held.
    pub async fn end_of(&self, job: JobId) -> JobView {
        let deadline = Instant::now() + PATIENCE;
        self.until(&format!("the end of job {job}"), async || {
            let view = self.program.app.job_view(job).await.unwrap();
            assert!(view.outcome.is_some() || Instant::now() + Duration::from_secs(1) < deadline, "in vain: {view:#?}");
            view.outcome.is_some().then_some(view)
        })
        .await
    }

    pub async fn succeeds(&self, job: JobId) -> JobView {
        let end = self.end_of(job).await;
        assert_eq!(end.outcome, Some(Outcome::Succeeded), "{end:#?}");
        end
    }

    pub async fn start(&self, name: &str) -> JobView {
        self.succeeds(self.program.app.start(&self.caller, name, None).await.unwrap()).await
    }

    pub async fn stop_server(&self, name: &str) -> JobView {
        self.succeeds(self.program.app.stop(&self.caller, name, None).await.unwrap()).await
    }

    /// Plays so many turns of the toy.
    pub async fn turns(&self, name: &str, count: usize) {
        for _ in 0..count {
            let answer = self.program.app.console(&self.caller, name, "turn").await.unwrap();
            assert!(answer.contains("turn "), "{answer:?}");
        }
    }

    /// Starts the toy, which says how many turns its world has.
    pub async fn starts_with(&self, name: &str, turns: usize) {
        self.start(name).await;
        let log = self.program.app.logs(&self.caller, name, 50).await.unwrap();
        assert!(log.contains(&format!("with {turns} turns")), "{log}");
    }

    /// Looks again and again until there is something, never longer than [`PATIENCE`].
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut nudges = self.program.app.listen();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            // A nudge, or a moment: either way it is looked at again.
            let _ = tokio::time::timeout(Duration::from_millis(200), nudges.next()).await;
        }
    }

    /// Deletes every server and snapshot, and then finds nothing left.
    pub async fn close(mut self) {
        let app = &self.program.app;
        for name in app.server_names(&self.caller.guild).await {
            let job = self
                .until(&format!("{name} to be free"), async || app.delete(&self.caller, &name, &name, None).await.ok())
                .await;
            self.succeeds(job).await;
        }
        for snapshot in app.snapshots(&self.caller).await.unwrap() {
            app.snapshot_delete(&self.caller, &snapshot.id).await.unwrap();
        }
        assert!(self.program.store.open_jobs_all().await.unwrap().is_empty(), "a job is still open");
        self.rest().await;
        if self.fake.is_some() {
            return;
        }
        let label = [("spawnpoint.instance".to_owned(), self.instance.clone())];
        let containers: Vec<_> = self.docker.list(&label).await.unwrap().into_iter().map(|one| one.name).collect();
        let volumes: Vec<_> = self.docker.list_volumes(&label).await.unwrap().into_iter().map(|one| one.name).collect();
        assert!(containers.is_empty() && volumes.is_empty(), "left behind: {containers:?} {volumes:?}");
        for folder in ["drives", "snapshots"] {
            let left: Vec<_> =
                std::fs::read_dir(self.config.data_dir.join(folder)).into_iter().flatten().flatten().collect();
            assert!(left.is_empty(), "left behind in {folder}: {left:?}");
        }
    }
}

/// What a failed test leaves on the daemon goes too; a passed one has left nothing.
impl Drop for Stage {
    fn drop(&mut self) {
        if self.instance.is_empty() || self.fake.is_some() {
            return;
        }
        let filter = format!("label=spawnpoint.instance={}", self.instance);
        let script = format!(
            "docker ps -aq --filter {filter} | xargs -r docker rm -f; docker volume ls -q --filter {filter} | xargs -r docker volume rm"
        );
        let _ = Command::new("sh").args(["-c", &script]).output();
    }
}
