//! A PostgreSQL of one test's own: a fresh cluster in a temporary folder, reached by its socket there and by no
//! network, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A cluster is up in a second or two; a busy machine may need longer.
const UP_WITHIN: Duration = Duration::from_secs(60);

pub struct Postgres {
    folder: tempfile::TempDir,
    server: Child,
}

impl Postgres {
    /// `None` where PostgreSQL is not installed: the test says so and returns. Under CI that is an error.
    pub fn start() -> Option<Postgres> {
        let Some(bin) = bin() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "PostgreSQL is missing: apt-get install postgresql");
            println!("skipped: no PostgreSQL (apt-get install postgresql)");
            return None;
        };
        let folder = tempfile::Builder::new().prefix("spawnpoint-pg").tempdir().expect("a temporary folder");
        if root() {
            let id = |flag: &str| output(Command::new("id").args([flag, "postgres"])).parse().expect("a number");
            std::os::unix::fs::chown(folder.path(), Some(id("-u")), Some(id("-g"))).expect("handing the folder over");
        }
        let data = folder.path().join("data");
        let made = as_user(&bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .expect("starting initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let server = as_user(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200"])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("starting postgres");
        Some(Postgres { folder, server })
    }

    /// A new, empty database; its URL.
    pub async fn database(&self, name: &str) -> String {
        let started = Instant::now();
        loop {
            match <sqlx::PgConnection as sqlx::Connection>::connect(&self.url("postgres")).await {
                Ok(mut connection) => {
                    let sql = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
                    sqlx::query(sql).execute(&mut connection).await.expect("making a database");
                    return self.url(name);
                }
                Err(error) if started.elapsed() > UP_WITHIN => {
                    let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                    panic!("PostgreSQL did not come up: {error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost/{database}?host={}", self.folder.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The quick shutdown: it takes its own children along, which a kill would leave behind.
        let pid = rustix::process::Pid::from_child(&self.server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let _ = self.server.wait();
    }
}

fn bin() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut bins: Vec<PathBuf> = versions.flatten().map(|version| version.path().join("bin")).collect();
    bins.sort();
    bins.into_iter().rev().find(|bin| bin.join("postgres").exists() && bin.join("initdb").exists())
}

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// PostgreSQL refuses root; then it runs as the user that its package made. It ends with the test that started it.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig=QUIT", "--"]).arg(program);
    command
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("running a small tool");
    String::from_utf8(output.stdout).expect("plain text").trim().to_owned()
}
