//! What fronts must remember about their own messages, and the notices that wait to be told.

use super::Store;
use super::db::{Tx, json};
use crate::model::server::Server;
use crate::model::view::Notice;
use crate::model::{GuildId, HOUR_MS, JobId, Ms, ServerId};
use anyhow::Context;

/// Notices of one channel that one look hands out at most; the next look has the rest.
const NOTICES_AT_ONCE: i64 = 100;
/// A notice that was told is kept this long, to see what was said.
const TOLD_NOTICE_KEPT_MS: Ms = 30 * 24 * HOUR_MS;
/// Jobs whose message is looked after at most, newest first.
const MESSAGES_AT_ONCE: i64 = 200;

/// The message that shows a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobMessage {
    pub channel: String,
    pub message: String,
    /// A fingerprint of the text that was sent last.
    pub hash: String,
}

/// A server's panel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panel {
    pub channel: String,
    /// Empty until it was posted.
    pub message: String,
    /// Goes with each try to post it, so that a second one within some minutes finds the first.
    pub once: String,
}

/// A notice that nobody has told yet.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitingNotice {
    pub id: i64,
    pub guild: GuildId,
    pub channel: Option<String>,
    pub notice: Notice,
    /// When it fell due.
    pub since: Ms,
}

impl Store {
    pub(super) async fn add_notice(&self, server: &Server, notice: &Notice, now: Ms) -> anyhow::Result<()> {
        let (server, notice) = (server.clone(), notice.clone());
        self.db.write(move |tx| Box::pin(async move { notice_in(tx, &server, &notice, now).await })).await
    }

    /// Notices that nobody has told yet, oldest first. Each channel has its share: one that is closed, and in which many
    /// wait, holds up none of the others.
    pub async fn notices_waiting(&self) -> anyhow::Result<Vec<WaitingNotice>> {
        let sql = "SELECT id, guild, channel, notice, created_at FROM (
                       SELECT notices.*, ROW_NUMBER() OVER (PARTITION BY channel ORDER BY id) AS place
                       FROM notices WHERE told_at IS NULL
                   ) AS waiting WHERE place <= $1 ORDER BY id";
        let rows = self.db.rows(sql, [NOTICES_AT_ONCE.into()]).await?;
        let notice = |row: &super::db::Row| {
            Ok(WaitingNotice {
                id: row.int("id")?,
                guild: GuildId(row.text("guild")?),
                channel: row.maybe_text("channel")?,
                notice: row.json("notice")?,
                since: row.int("created_at")?,
            })
        };
        rows.iter().map(notice).collect()
    }

    pub async fn notice_told(&self, id: i64, now: Ms) -> anyhow::Result<()> {
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let told = "UPDATE notices SET told_at = $2 WHERE id = $1 AND told_at IS NULL";
                    tx.run(told, [id.into(), now.into()]).await?;
                    tx.run("DELETE FROM notices WHERE told_at < $1", [(now - TOLD_NOTICE_KEPT_MS).into()]).await?;
                    anyhow::Ok(())
                })
            })
            .await
    }

    pub async fn panel(&self, server: &ServerId) -> anyhow::Result<Option<Panel>> {
        let sql = "SELECT channel, message, once FROM panels WHERE server = $1";
        let row = self.db.row(sql, [(&server.0).into()]).await?;
        let panel = |row: super::db::Row| {
            Ok(Panel { channel: row.text("channel")?, message: row.text("message")?, once: row.text("once")? })
        };
        row.map(panel).transpose()
    }

    pub async fn set_panel(&self, server: &ServerId, panel: &Panel) -> anyhow::Result<()> {
        let sql = "INSERT INTO panels (server, channel, message, once) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (server) DO UPDATE
                   SET channel = excluded.channel, message = excluded.message, once = excluded.once";
        let Panel { channel, message, once } = panel;
        self.db.run(sql, [(&server.0).into(), channel.into(), message.into(), once.into()]).await?;
        Ok(())
    }

    pub async fn forget_panel(&self, server: &ServerId) -> anyhow::Result<()> {
        self.db.run("DELETE FROM panels WHERE server = $1", [(&server.0).into()]).await?;
        Ok(())
    }

    /// Whose panel stands or is to be posted, deleted servers too: somebody has to take them down.
    pub async fn panels(&self) -> anyhow::Result<Vec<ServerId>> {
        let rows = self.db.rows("SELECT server FROM panels ORDER BY server", []).await?;
        rows.iter().map(|row| Ok(ServerId(row.text("server")?))).collect()
    }

    /// Every channel in which something of ours stands, or will: panels, jobs that go on, notices about a server.
    pub async fn channels_posted_in(&self) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT channel FROM panels UNION SELECT channel FROM job_messages
                   UNION SELECT channel FROM servers WHERE deleted_at IS NULL AND channel IS NOT NULL";
        let rows = self.db.rows(sql, []).await?;
        rows.iter().map(|row| row.text("channel")).collect()
    }

    pub async fn job_message(&self, job: JobId) -> anyhow::Result<Option<JobMessage>> {
        let sql = "SELECT channel, message, hash FROM job_messages WHERE job = $1";
        let row = self.db.row(sql, [job.0.into()]).await?;
        let message = |row: super::db::Row| {
            Ok(JobMessage { channel: row.text("channel")?, message: row.text("message")?, hash: row.text("hash")? })
        };
        row.map(message).transpose()
    }

    pub async fn set_job_message(&self, job: JobId, channel: &str, message: &str, hash: &str) -> anyhow::Result<()> {
        let sql = "INSERT INTO job_messages (job, channel, message, hash) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (job) DO UPDATE
                   SET channel = excluded.channel, message = excluded.message, hash = excluded.hash";
        self.db.run(sql, [job.0.into(), channel.into(), message.into(), hash.into()]).await?;
        Ok(())
    }

    /// Forgets a job's message, because it is gone or cannot be edited. Its end need not be told any more either.
    pub async fn forget_job_message(&self, job: JobId) -> anyhow::Result<()> {
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    tx.run("DELETE FROM job_messages WHERE job = $1", [job.0.into()]).await?;
                    tx.run("UPDATE jobs SET end_told = 1 WHERE id = $1", [job.0.into()]).await?;
                    anyhow::Ok(())
                })
            })
            .await
    }

    /// The last text about a job was sent, and it told the end. Said by who drew it: only they know what they drew.
    pub async fn job_end_told(&self, job: JobId) -> anyhow::Result<()> {
        let sql = "UPDATE jobs SET end_told = 1 WHERE id = $1 AND outcome IS NOT NULL";
        self.db.run(sql, [job.0.into()]).await?;
        Ok(())
    }

    /// Jobs with a channel that are open, or whose end was not told yet.
    pub async fn jobs_with_message_unfinished(&self) -> anyhow::Result<Vec<JobId>> {
        let sql = "SELECT id FROM jobs WHERE end_told = 0 AND channel IS NOT NULL ORDER BY id DESC LIMIT $1";
        let rows = self.db.rows(sql, [MESSAGES_AT_ONCE.into()]).await?;
        rows.iter().rev().map(|row| Ok(JobId(row.int("id")?))).collect()
    }
}

pub(super) async fn notice_in(tx: &mut Tx, server: &Server, notice: &Notice, now: Ms) -> anyhow::Result<()> {
    let row = tx.row("SELECT COALESCE(MAX(id), 0) + 1 AS next FROM notices", []).await?;
    let id = row.context("a maximum is always there")?.int("next")?;
    let sql = "INSERT INTO notices (id, guild, channel, server, notice, created_at) VALUES ($1, $2, $3, $4, $5, $6)";
    let args = [
        id.into(),
        (&server.guild.0).into(),
        server.channel.as_deref().into(),
        (&server.id.0).into(),
        json(notice).into(),
        now.into(),
    ];
    tx.run(sql, args).await.map(drop)
}
