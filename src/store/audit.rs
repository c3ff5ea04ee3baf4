//! The audit log: who asked for what, written before it is done, and what became of it, written once after. Nothing else
//! changes a line.

use super::Store;
use super::db::{Tx, json};
use crate::model::access::Actor;
use crate::model::{GuildId, Ms};
use anyhow::Context;

/// What became of something that is being done, or that a crash cut off.
pub const NO_END: &str = "begun, no end on record";

#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub at: Ms,
    pub guild: GuildId,
    pub actor: Actor,
    pub action: String,
    /// A server's name as it was typed; the server need not exist.
    pub server: Option<String>,
    pub detail: String,
    pub outcome: String,
}

impl Store {
    /// Returns the line's number.
    pub async fn audit_add(&self, entry: &AuditEntry) -> anyhow::Result<i64> {
        let entry = entry.clone();
        self.db.write(move |tx| Box::pin(async move { audit_in(tx, &entry).await })).await
    }

    /// What it is and what became of it, as far as that is known now. Only a line without an end can be written again.
    pub async fn audit_write(&self, line: i64, entry: &AuditEntry) -> anyhow::Result<()> {
        let AuditEntry { action, detail, outcome, .. } = entry.clone();
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let sql = "UPDATE audit SET action = $2, detail = $3, outcome = $4 WHERE id = $1 AND outcome = $5";
                    let args = [line.into(), action.into(), detail.into(), outcome.into(), NO_END.into()];
                    match tx.run(sql, args).await? {
                        0 => anyhow::bail!("line {line} of the audit log has its end already, or is not there"),
                        _ => Ok(()),
                    }
                })
            })
            .await
    }

    /// The newest entries of the guild, of one server's name or of all; newest first.
    pub async fn audit(&self, guild: &GuildId, server: Option<&str>, limit: usize) -> anyhow::Result<Vec<AuditEntry>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = match server {
            Some(server) => {
                let sql = "SELECT * FROM audit WHERE guild = $1 AND server = $2 ORDER BY id DESC LIMIT $3";
                self.db.rows(sql, [(&guild.0).into(), server.into(), limit.into()]).await?
            }
            None => {
                let sql = "SELECT * FROM audit WHERE guild = $1 ORDER BY id DESC LIMIT $2";
                self.db.rows(sql, [(&guild.0).into(), limit.into()]).await?
            }
        };
        let entry = |row: &super::db::Row| {
            Ok(AuditEntry {
                at: row.int("at")?,
                guild: GuildId(row.text("guild")?),
                actor: row.json("actor")?,
                action: row.text("action")?,
                server: row.maybe_text("server")?,
                detail: row.text("detail")?,
                outcome: row.text("outcome")?,
            })
        };
        rows.iter().map(entry).collect()
    }
}

pub(super) async fn audit_in(tx: &mut Tx, entry: &AuditEntry) -> anyhow::Result<i64> {
    let row = tx.row("SELECT COALESCE(MAX(id), 0) + 1 AS next FROM audit", []).await?;
    let id = row.context("a maximum is always there")?.int("next")?;
    let sql = "INSERT INTO audit (id, at, guild, actor, action, server, detail, outcome)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let args = [
        id.into(),
        entry.at.into(),
        (&entry.guild.0).into(),
        json(&entry.actor).into(),
        (&entry.action).into(),
        entry.server.as_deref().into(),
        (&entry.detail).into(),
        (&entry.outcome).into(),
    ];
    tx.run(sql, args).await?;
    Ok(id)
}
