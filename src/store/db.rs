//! One way to speak to two databases: the same text with `$1`, `$2`, … and arguments that are text or whole numbers.
//! Nothing above this file knows which one it is. Every change goes through [`Db::write`], one at a time on both,
//! so a transaction may look first and then write without another one in between.

use anyhow::Context;
use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Under this number PostgreSQL makes our writers wait for each other, as SQLite does by itself. The digits are
/// "spawnpnt" in ASCII; another program in the same database has no reason to choose them.
const WRITER_LOCK: i64 = 0x7370_6177_6e70_6e74;

#[derive(Clone)]
pub(super) enum Db {
    /// One connection writes, a few read. The lock in front of the writer is fair and has no time limit, which the
    /// pool's own queue has.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
        turn: Arc<Mutex<()>>,
    },
    Postgres(PgPool),
}

/// One argument of a query.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    Text(Option<String>),
    Int(Option<i64>),
}

/// PostgreSQL keeps no NUL in a text, and a game's output may hold one: it is shown as what it is, a bad character.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl From<&str> for Arg {
    fn from(text: &str) -> Arg {
        Arg::Text(Some(storable(text)))
    }
}

impl From<&String> for Arg {
    fn from(text: &String) -> Arg {
        text.as_str().into()
    }
}

impl From<String> for Arg {
    fn from(text: String) -> Arg {
        text.as_str().into()
    }
}

impl From<Option<&str>> for Arg {
    fn from(text: Option<&str>) -> Arg {
        Arg::Text(text.map(storable))
    }
}

impl From<i64> for Arg {
    fn from(number: i64) -> Arg {
        Arg::Int(Some(number))
    }
}

impl From<Option<i64>> for Arg {
    fn from(number: Option<i64>) -> Arg {
        Arg::Int(number)
    }
}

impl From<bool> for Arg {
    fn from(yes: bool) -> Arg {
        Arg::Int(Some(yes.into()))
    }
}

/// Our own plain data as JSON text.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types hold nothing that JSON cannot say")
}

/// The bare word of a unit variant: `await_ready`.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    json(value).trim_matches('"').to_owned()
}

pub(super) fn from_word<T: DeserializeOwned>(word: &str) -> anyhow::Result<T> {
    serde_json::from_value(serde_json::Value::from(word))
        .with_context(|| format!("the stored word “{word}” is unknown"))
}

pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub fn text(&self, column: &str) -> anyhow::Result<String> {
        self.maybe_text(column)?.with_context(|| format!("column {column} is empty"))
    }

    pub fn maybe_text(&self, column: &str) -> anyhow::Result<Option<String>> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
        .with_context(|| format!("reading column {column}"))
    }

    pub fn int(&self, column: &str) -> anyhow::Result<i64> {
        self.maybe_int(column)?.with_context(|| format!("column {column} is empty"))
    }

    pub fn maybe_int(&self, column: &str) -> anyhow::Result<Option<i64>> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
        .with_context(|| format!("reading column {column}"))
    }

    pub fn flag(&self, column: &str) -> anyhow::Result<bool> {
        Ok(self.int(column)? != 0)
    }

    pub fn json<T: DeserializeOwned>(&self, column: &str) -> anyhow::Result<T> {
        serde_json::from_str(&self.text(column)?).with_context(|| format!("understanding column {column}"))
    }

    pub fn word<T: DeserializeOwned>(&self, column: &str) -> anyhow::Result<T> {
        from_word(&self.text(column)?)
    }
}

fn sqlite(sql: String, args: Vec<Arg>) -> Query<'static, Sqlite, SqliteArguments> {
    args.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, arg| match arg {
        Arg::Text(text) => query.bind(text),
        Arg::Int(number) => query.bind(number),
    })
}

fn postgres(sql: String, args: Vec<Arg>) -> Query<'static, Postgres, PgArguments> {
    args.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, arg| match arg {
        Arg::Text(text) => query.bind(text),
        Arg::Int(number) => query.bind(number),
    })
}

impl Db {
    pub async fn rows<const N: usize>(&self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<Vec<Row>> {
        let (text, args) = (sql.to_owned(), args.into());
        Ok(match self {
            Db::Sqlite { read, .. } => {
                sqlite(text, args).fetch_all(read).await.context(sql)?.into_iter().map(Row::Sqlite).collect()
            }
            Db::Postgres(pool) => {
                postgres(text, args).fetch_all(pool).await.context(sql)?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row<const N: usize>(&self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    /// Does `work` in one transaction: all of it or, when it answers with an error, nothing. It runs in a task of its
    /// own, so a caller who gives up leaves no transaction open behind (sqlx#4385): the work ends either way.
    pub async fn write<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<anyhow::Error> + Send + 'static,
        F: for<'a> FnOnce(&'a mut Tx) -> BoxFuture<'a, Result<T, E>> + Send + 'static,
    {
        let db = self.clone();
        let task = tokio::spawn(async move {
            let _turn = match &db {
                Db::Sqlite { turn, .. } => Some(turn.clone().lock_owned().await),
                Db::Postgres(_) => None,
            };
            let mut tx = db.begin().await?;
            let result = work(&mut tx).await?;
            tx.commit().await?;
            Ok(result)
        });
        task.await.unwrap_or_else(|error| Err(anyhow::Error::new(error).context("writing to the database").into()))
    }

    /// [`Db::write`] for one statement; answers with how many rows it changed.
    pub async fn run<const N: usize>(&self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<u64> {
        self.write(move |tx| Box::pin(tx.run(sql, args))).await
    }

    async fn begin(&self) -> anyhow::Result<Tx> {
        match self {
            Db::Sqlite { write, .. } => {
                let begun = match write.begin_with("BEGIN IMMEDIATE").await {
                    // SQLite ends a transaction by itself where there is no room on the disk; sqlx counts it as open, and
                    // its connection would never begin another.
                    Err(sqlx::Error::InvalidSavePointStatement) => {
                        let stuck = write.acquire().await.context("ending a connection that is stuck")?;
                        stuck.close().await.context("ending a connection that is stuck")?;
                        write.begin_with("BEGIN IMMEDIATE").await
                    }
                    begun => begun,
                };
                Ok(Tx::Sqlite(begun.context("beginning a transaction")?))
            }
            Db::Postgres(pool) => {
                let mut tx = Tx::Postgres(pool.begin().await.context("beginning a transaction")?);
                tx.run("SELECT pg_advisory_xact_lock($1)", [WRITER_LOCK.into()]).await?;
                Ok(tx)
            }
        }
    }
}

pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Runs one statement; answers with how many rows it changed.
    pub async fn run<const N: usize>(&mut self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<u64> {
        self.run_built(sql.to_owned(), args.into()).await
    }

    /// For text that is put together here; never from anything that came from outside.
    pub async fn run_built(&mut self, sql: String, args: Vec<Arg>) -> anyhow::Result<u64> {
        let context = sql.clone();
        match self {
            Tx::Sqlite(tx) => sqlite(sql, args).execute(&mut **tx).await.map(|done| done.rows_affected()),
            Tx::Postgres(tx) => postgres(sql, args).execute(&mut **tx).await.map(|done| done.rows_affected()),
        }
        .context(context)
    }

    pub async fn rows<const N: usize>(&mut self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<Vec<Row>> {
        let (text, args) = (sql.to_owned(), args.into());
        Ok(match self {
            Tx::Sqlite(tx) => {
                sqlite(text, args).fetch_all(&mut **tx).await.context(sql)?.into_iter().map(Row::Sqlite).collect()
            }
            Tx::Postgres(tx) => {
                postgres(text, args).fetch_all(&mut **tx).await.context(sql)?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    pub async fn row<const N: usize>(&mut self, sql: &'static str, args: [Arg; N]) -> anyhow::Result<Option<Row>> {
        Ok(self.rows(sql, args).await?.into_iter().next())
    }

    async fn commit(self) -> anyhow::Result<()> {
        match self {
            Tx::Sqlite(tx) => tx.commit().await,
            Tx::Postgres(tx) => tx.commit().await,
        }
        .context("committing a transaction")
    }
}
