//! Who was granted what.

use super::Store;
use super::db::{Row, json};
use crate::model::access::{Actor, Grant, Grantee, Permission};
use crate::model::{GuildId, ServerId};
use anyhow::Context;

/// What the column `server` holds for a grant on all servers of the guild.
const EVERYWHERE: &str = "";

impl Store {
    pub async fn grants(&self, guild: &GuildId) -> anyhow::Result<Vec<Grant>> {
        let sql = "SELECT * FROM grants WHERE guild = $1 ORDER BY kind, grantee, server";
        self.db.rows(sql, [(&guild.0).into()]).await?.iter().map(grant_of).collect()
    }

    /// Writes a grant. A second one for the same person and place replaces the first.
    pub async fn grant(&self, guild: &GuildId, grant: &Grant, by: &Actor) -> anyhow::Result<()> {
        let (kind, id) = kind_and_id(&grant.grantee);
        let sql = "INSERT INTO grants (guild, kind, grantee, server, permission, granted_by)
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (guild, kind, grantee, server)
                   DO UPDATE SET permission = excluded.permission, granted_by = excluded.granted_by";
        let place = grant.server.as_ref().map_or(EVERYWHERE, |server| &server.0);
        let by = json(by);
        let args = [(&guild.0).into(), kind.into(), id.into(), place.into(), grant.permission.word().into(), by.into()];
        self.db.run(sql, args).await?;
        Ok(())
    }

    /// Takes back what somebody was granted for one server, or without one everything they were granted in the guild.
    /// Answers with how many grants that were.
    pub async fn revoke(&self, guild: &GuildId, grantee: &Grantee, server: Option<&ServerId>) -> anyhow::Result<u64> {
        let (kind, id) = kind_and_id(grantee);
        match server {
            Some(server) => {
                let sql = "DELETE FROM grants WHERE guild = $1 AND kind = $2 AND grantee = $3 AND server = $4";
                self.db.run(sql, [(&guild.0).into(), kind.into(), id.into(), (&server.0).into()]).await
            }
            None => {
                let sql = "DELETE FROM grants WHERE guild = $1 AND kind = $2 AND grantee = $3";
                self.db.run(sql, [(&guild.0).into(), kind.into(), id.into()]).await
            }
        }
    }
}

fn kind_and_id(grantee: &Grantee) -> (&'static str, &str) {
    match grantee {
        Grantee::User(id) => ("user", id),
        Grantee::Role(id) => ("role", id),
    }
}

fn grant_of(row: &Row) -> anyhow::Result<Grant> {
    let (kind, id) = (row.text("kind")?, row.text("grantee")?);
    let grantee = match kind.as_str() {
        "user" => Grantee::User(id),
        "role" => Grantee::Role(id),
        other => anyhow::bail!("the stored kind of grantee “{other}” is unknown"),
    };
    let permission = row.text("permission")?;
    let server = row.text("server")?;
    Ok(Grant {
        grantee,
        permission: Permission::parse(&permission)
            .with_context(|| format!("the stored permission “{permission}” is unknown"))?,
        server: (server != EVERYWHERE).then_some(ServerId(server)),
    })
}
