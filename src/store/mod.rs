//! All SQL. One set of tables and one text of each query for SQLite and PostgreSQL; `db` hides which of them it is.
//! [`Store`] is the real [`Journal`](crate::engine::Journal) (in `jobs`) and keeps what `app` needs besides. It
//! decides nothing: it writes what it is told in one transaction, and refuses what the tables cannot hold.

pub mod audit;
mod db;
mod grants;
pub mod jobs;
mod log;
pub mod messages;
mod rentals;
pub mod schedules;
pub mod servers;
mod snapshots;

use anyhow::Context;
use db::Db;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Connections that read at the same time. SQLite has one more, which writes.
const READERS: u32 = 4;
const POSTGRES_CONNECTIONS: u32 = 8;
/// How long SQLite waits for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long we wait for a PostgreSQL connection before we say that there is none.
const POSTGRES_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A local file needs no such limit; this one only keeps the wait finite.
const SQLITE_ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3600);
/// A program that stopped in the middle of a transaction must not keep the others waiting.
const POSTGRES_LIMITS: [(&str, &str); 2] =
    [("statement_timeout", "30s"), ("idle_in_transaction_session_timeout", "30s")];
/// Two programs that make the same SQLite file meet in the first migration; the one that lost finds it done.
const MIGRATION_TRIES: usize = 3;

/// Everything that must survive the program. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    db: Db,
}

/// Whether it failed because there is no room left for the database: SQLite's `SQLITE_FULL` and what it says of its shared
/// memory then (`SQLITE_IOERR_SHMSIZE`), PostgreSQL's `disk_full`.
pub fn disk_is_full(error: &anyhow::Error) -> bool {
    let of_database = error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()?.as_database_error());
    of_database.filter_map(|error| error.code()).any(|code| matches!(code.as_ref(), "13" | "4874" | "53100"))
}

impl Store {
    /// Opens `sqlite:path` (made with its folder if it is not there) or `postgres://…`, and brings the tables up to
    /// date. Error texts name the place and never the password.
    pub async fn connect(url: &str) -> anyhow::Result<Store> {
        let db = match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => sqlite(url).await?,
            Some("postgres" | "postgresql") => postgres(url).await?,
            Some(_) | None => {
                anyhow::bail!("the database's URL begins with neither `sqlite:` nor `postgres://`")
            }
        };
        Ok(Store { db })
    }

    /// The name of this installation: random, made once. Whatever is made outside is labelled with it.
    pub async fn instance(&self) -> anyhow::Result<String> {
        let fresh = uuid::Uuid::new_v4().simple().to_string();
        self.db
            .run("INSERT INTO meta (key, value) VALUES ('instance', $1) ON CONFLICT (key) DO NOTHING", [fresh.into()])
            .await?;
        self.meta("instance").await?.context("the instance was just written and is not there")
    }

    pub async fn meta(&self, key: &str) -> anyhow::Result<Option<String>> {
        let row = self.db.row("SELECT value FROM meta WHERE key = $1", [key.into()]).await?;
        row.map(|row| row.text("value")).transpose()
    }

    pub async fn set_meta(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let sql =
            "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.db.run(sql, [key.into(), value.into()]).await?;
        Ok(())
    }

    pub async fn forget_meta(&self, key: &str) -> anyhow::Result<()> {
        self.db.run("DELETE FROM meta WHERE key = $1", [key.into()]).await?;
        Ok(())
    }
}

async fn sqlite(url: &str) -> anyhow::Result<Db> {
    let options = SqliteConnectOptions::from_str(url).context("reading the database's URL")?;
    let options = options
        .journal_mode(SqliteJournalMode::Wal)
        // The intent must be on disk before its effect: a power cut may not forget a host that costs money.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    // A connection to a file does not get lost while it lies there; asking it first would double the way of each query.
    let pool = || {
        let lasting = SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None).test_before_acquire(false);
        lasting.acquire_timeout(SQLITE_ACQUIRE_TIMEOUT)
    };
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let path = options.get_filename().to_owned();
    let open = async {
        if !in_memory && !url.contains("mode=ro") {
            create(&path)?;
        }
        let write = pool().max_connections(1).connect_with(options.clone()).await?;
        migrate(async || MIGRATIONS.run(&write).await).await?;
        // A database in memory lives and dies with its one connection.
        let read = match in_memory {
            true => write.clone(),
            false => pool().max_connections(READERS).connect_with(options.read_only(true)).await?,
        };
        anyhow::Ok(Db::Sqlite { read, write, turn: Default::default() })
    };
    open.await.with_context(|| format!("opening the database {}", path.display()))
}

/// Makes the file and its folder, for nobody else's eyes: it holds passwords of game servers.
fn create(path: &Path) -> anyhow::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).context("making its folder")?;
    }
    // Also fails early, and with the system's own words, where SQLite would only say that it is unable to.
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Ok(())
}

async fn postgres(url: &str) -> anyhow::Result<Db> {
    let options = PgConnectOptions::from_str(url)
        .context("reading the database's URL")?
        .application_name("spawnpoint")
        .options(POSTGRES_LIMITS);
    // Put together from its parts, so that it cannot hold the password.
    let place = format!(
        "PostgreSQL at {}:{}, database {}, as {}",
        options.get_socket().map_or(options.get_host().to_owned(), |socket| socket.display().to_string()),
        options.get_port(),
        options.get_database().unwrap_or("by default"),
        options.get_username()
    );
    let open = async {
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(POSTGRES_ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        migrate(async || MIGRATIONS.run(&pool).await).await?;
        anyhow::Ok(Db::Postgres(pool))
    };
    open.await.with_context(|| format!("opening the database ({place})"))
}

async fn migrate(run: impl AsyncFn() -> Result<(), sqlx::migrate::MigrateError>) -> anyhow::Result<()> {
    let mut result = run().await;
    for _ in 1..MIGRATION_TRIES {
        if result.is_ok() {
            break;
        }
        result = run().await;
    }
    result.context("bringing its tables up to date")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Journal;

    #[tokio::test]
    async fn a_database_that_found_no_room_is_written_again_once_there_is_some() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::connect(&format!("sqlite:{}/store.db?mode=rwc", folder.path().display())).await.unwrap();
        // As if the disk ended where the file ends now.
        store.db.run("PRAGMA max_page_count = 1", []).await.unwrap();
        let full = store.set_told(&"x".repeat(1 << 20)).await.unwrap_err();
        assert!(disk_is_full(&full), "{full:#}");
        store.set_told("small").await.unwrap();
        assert!(store.told("small").await.unwrap());
        assert!(!disk_is_full(&anyhow::anyhow!("full of people")));
    }
}
