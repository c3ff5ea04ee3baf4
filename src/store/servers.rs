//! Servers as people set them up, their secrets, and the port numbers they hold. A deleted server stays on record,
//! because its backups do; its secrets, ports and grants go.

use super::Store;
use super::db::{Row, Tx, from_word, json, word};
use super::rentals::{Brought, turn_bill};
use crate::engine::{Aftermath, LeaseChange};
use crate::model::access::Actor;
use crate::model::host::{HostRef, Place};
use crate::model::job::Subject;
use crate::model::lease::Memo;
use crate::model::server::{Backend, Limits, Owned, Server, ServerName, Wanted};
use crate::model::{GuildId, Ms, ServerId};
use anyhow::Context;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("a server of this name exists in this guild")]
    NameTaken,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// What people change of a server in one go.
#[derive(Clone, Default)]
pub struct Change {
    /// As it was read, and as it shall be.
    pub place: Option<(Place, Place)>,
    pub limits: Option<Limits>,
    /// All of them.
    pub settings: Option<BTreeMap<String, String>>,
    /// Those that change; `None` takes one away. What they were is kept as [`Store::never_shown`] says.
    pub secrets: HashMap<String, Option<String>>,
    /// When people changed it.
    pub at: Ms,
}

impl Store {
    /// Writes a new server with its secrets.
    pub async fn create_server(
        &self,
        server: &Server,
        secrets: &HashMap<String, String>,
        by: &Actor,
    ) -> Result<(), CreateError> {
        let (server, secrets, by) = (server.clone(), secrets.clone(), by.clone());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let taken = "SELECT id FROM servers WHERE guild = $1 AND name = $2 AND deleted_at IS NULL";
                    if tx.row(taken, [(&server.guild.0).into(), server.name.as_str().into()]).await?.is_some() {
                        return Err(CreateError::NameTaken);
                    }
                    insert(tx, &server, &by).await?;
                    for (key, value) in &secrets {
                        set_secret(tx, &server.id, key, value).await?;
                    }
                    write_ports(tx, &server.id, &server.owned).await?;
                    Ok(())
                })
            })
            .await
    }

    pub async fn server_by_name(&self, guild: &GuildId, name: &str) -> anyhow::Result<Option<Server>> {
        let sql = "SELECT * FROM servers WHERE guild = $1 AND name = $2 AND deleted_at IS NULL";
        self.db.row(sql, [(&guild.0).into(), name.into()]).await?.map(|row| server_of(&row)).transpose()
    }

    /// The server of that id, also when it is deleted.
    pub async fn server_any(&self, id: &ServerId) -> anyhow::Result<Option<Server>> {
        let row = self.db.row("SELECT * FROM servers WHERE id = $1", [(&id.0).into()]).await?;
        row.map(|row| server_of(&row)).transpose()
    }

    /// The same, with what the watcher remembers about it.
    pub async fn server_and_memo(&self, id: &ServerId) -> anyhow::Result<Option<(Server, Memo)>> {
        let row = self.db.row("SELECT * FROM servers WHERE id = $1", [(&id.0).into()]).await?;
        row.map(|row| Ok((server_of(&row)?, row.json("memo")?))).transpose()
    }

    /// The guild's servers by name, without the deleted ones.
    pub async fn servers_of(&self, guild: &GuildId) -> anyhow::Result<Vec<Server>> {
        let sql = "SELECT * FROM servers WHERE guild = $1 AND deleted_at IS NULL ORDER BY name";
        self.db.rows(sql, [(&guild.0).into()]).await?.iter().map(server_of).collect()
    }

    /// The same, each with what the watcher remembers about it.
    pub async fn servers_and_memos_of(&self, guild: &GuildId) -> anyhow::Result<Vec<(Server, Memo)>> {
        let sql = "SELECT * FROM servers WHERE guild = $1 AND deleted_at IS NULL ORDER BY name";
        let rows = self.db.rows(sql, [(&guild.0).into()]).await?;
        rows.iter().map(|row| Ok((server_of(row)?, row.json("memo")?))).collect()
    }

    /// The guild's deleted servers, the last deleted first: their backups are still there.
    pub async fn deleted_servers_of(&self, guild: &GuildId) -> anyhow::Result<Vec<Server>> {
        let sql = "SELECT * FROM servers WHERE guild = $1 AND deleted_at IS NOT NULL ORDER BY deleted_at DESC, id";
        self.db.rows(sql, [(&guild.0).into()]).await?.iter().map(server_of).collect()
    }

    /// Of every guild, those that were deleted last.
    pub(super) async fn deleted_servers_everywhere(&self, at_most: usize) -> anyhow::Result<Vec<Server>> {
        let sql = "SELECT * FROM servers WHERE deleted_at IS NOT NULL ORDER BY deleted_at DESC, id LIMIT $1";
        let at_most = i64::try_from(at_most).unwrap_or(i64::MAX);
        self.db.rows(sql, [at_most.into()]).await?.iter().map(server_of).collect()
    }

    /// Every server of every guild that is not deleted.
    pub async fn servers_everywhere(&self) -> anyhow::Result<Vec<Server>> {
        let sql = "SELECT * FROM servers WHERE deleted_at IS NULL ORDER BY created_at, id";
        self.db.rows(sql, []).await?.iter().map(server_of).collect()
    }

    /// Changes all of it or nothing. False, and nothing is changed, where the place cannot be as it should: see
    /// [`Store::set_place`].
    pub async fn change(&self, id: &ServerId, change: Change) -> anyhow::Result<bool> {
        let id = id.clone();
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    if let Some((before, place)) = &change.place
                        && !place_in(tx, &id, before, place).await?
                    {
                        return Ok(false);
                    }
                    if let Some(limits) = &change.limits {
                        let sql = "UPDATE servers SET limits = $2 WHERE id = $1 AND deleted_at IS NULL";
                        must_exist(&id, tx.run(sql, [(&id.0).into(), json(limits).into()]).await?)?;
                    }
                    if let Some(settings) = &change.settings {
                        let sql = "UPDATE servers SET settings = $2 WHERE id = $1 AND deleted_at IS NULL";
                        must_exist(&id, tx.run(sql, [(&id.0).into(), json(settings).into()]).await?)?;
                    }
                    for (key, value) in &change.secrets {
                        keep_former(tx, &id, key, value.as_deref(), change.at).await?;
                        match value {
                            Some(value) => set_secret(tx, &id, key, value).await?,
                            None => {
                                let sql = "DELETE FROM secrets WHERE server = $1 AND key = $2";
                                tx.run(sql, [(&id.0).into(), key.into()]).await?;
                            }
                        }
                    }
                    anyhow::Ok(true)
                })
            })
            .await
    }

    /// Where the next host is rented. False, and nothing is changed, once the server has a host: it stays where it is. Nor
    /// while a job is under way, which looks for its host where it asked for one. Nor where the place is not this one any
    /// more.
    pub async fn set_place(&self, id: &ServerId, before: &Place, place: &Place) -> anyhow::Result<bool> {
        let place = Some((before.clone(), place.clone()));
        self.change(id, Change { place, ..Change::default() }).await
    }

    /// Gives a host back to its server. False, and nothing is changed, where the server is deleted, runs elsewhere, has a
    /// host, or has a job under way.
    pub async fn adopt_host(&self, id: &ServerId, host: &HostRef, by: &Actor, now: Ms) -> anyhow::Result<bool> {
        let (id, host, by) = (id.clone(), host.clone(), by.clone());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let sql = "SELECT owned FROM servers WHERE id = $1 AND deleted_at IS NULL AND backend = $2";
                    let Some(row) = tx.row(sql, [(&id.0).into(), Backend::Cloud.word().into()]).await? else {
                        return Ok(false);
                    };
                    let owned: Owned = row.json("owned")?;
                    let sql = "SELECT id FROM jobs WHERE subject = $1 AND outcome IS NULL";
                    let busy = tx.row(sql, [Subject::Server(id.clone()).key().into()]).await?.is_some();
                    if owned.host.is_some() || busy {
                        return Ok(false);
                    }
                    turn_bill(tx, Brought::By(&by), &id, Some(&host), now).await?;
                    write_owned(tx, &id, &Owned { host: Some(host), ..owned }).await?;
                    anyhow::Ok(true)
                })
            })
            .await
    }

    pub async fn set_update_at_start(&self, id: &ServerId, yes: bool) -> anyhow::Result<()> {
        let sql = "UPDATE servers SET update_at_start = $2 WHERE id = $1 AND deleted_at IS NULL";
        must_exist(id, self.db.run(sql, [(&id.0).into(), yes.into()]).await?)
    }

    pub async fn set_channel(&self, id: &ServerId, channel: &str) -> anyhow::Result<()> {
        let sql = "UPDATE servers SET channel = $2 WHERE id = $1 AND deleted_at IS NULL";
        must_exist(id, self.db.run(sql, [(&id.0).into(), channel.into()]).await?)
    }

    pub async fn set_lease(&self, id: &ServerId, until: Option<Ms>) -> anyhow::Result<()> {
        let sql = "UPDATE servers SET lease_until = $2 WHERE id = $1 AND deleted_at IS NULL";
        must_exist(id, self.db.run(sql, [(&id.0).into(), until.into()]).await?)
    }

    pub async fn set_wanted(&self, id: &ServerId, wanted: Wanted) -> anyhow::Result<()> {
        let sql = "UPDATE servers SET wanted = $2 WHERE id = $1 AND deleted_at IS NULL";
        must_exist(id, self.db.run(sql, [(&id.0).into(), word(&wanted).into()]).await?)
    }

    /// What a game is given to keep to itself, by variable.
    pub async fn secrets_of(&self, id: &ServerId) -> anyhow::Result<HashMap<String, String>> {
        let rows = self.db.rows("SELECT key, value FROM secrets WHERE server = $1", [(&id.0).into()]).await?;
        rows.iter().map(|row| Ok((row.text("key")?, row.text("value")?))).collect()
    }

    /// The values that nothing said of the server may hold: its secrets, and what they were before as long as a game that
    /// has them may run or be read of, until the next one is up.
    pub async fn never_shown(&self, id: &ServerId) -> anyhow::Result<Vec<String>> {
        let sql =
            "SELECT value FROM secrets WHERE server = $1 UNION SELECT value FROM former_secrets WHERE server = $1";
        self.db.rows(sql, [(&id.0).into()]).await?.iter().map(|row| row.text("value")).collect()
    }

    /// What the watcher remembers about a server; an unknown server has the memo of a fresh one.
    pub async fn memo_of(&self, id: &ServerId) -> anyhow::Result<Memo> {
        let row = self.db.row("SELECT memo FROM servers WHERE id = $1", [(&id.0).into()]).await?;
        row.map_or(Ok(Memo::default()), |row| row.json("memo"))
    }

    pub(super) async fn write_memo(&self, id: &ServerId, memo: &Memo) -> anyhow::Result<()> {
        let sql = "UPDATE servers SET memo = $2 WHERE id = $1 AND deleted_at IS NULL";
        must_exist(id, self.db.run(sql, [(&id.0).into(), json(memo).into()]).await?)
    }
}

fn must_exist(id: &ServerId, changed: u64) -> anyhow::Result<()> {
    anyhow::ensure!(changed == 1, "server {id} does not exist or is deleted");
    Ok(())
}

/// See [`Store::set_place`].
async fn place_in(tx: &mut Tx, id: &ServerId, before: &Place, place: &Place) -> anyhow::Result<bool> {
    let sql = "SELECT owned, place FROM servers WHERE id = $1 AND deleted_at IS NULL";
    let row = tx.row(sql, [(&id.0).into()]).await?;
    let row = row.with_context(|| format!("server {id} does not exist or is deleted"))?;
    let owned: Owned = row.json("owned")?;
    let stays = owned.host.is_some() || row.json::<Place>("place")? != *before;
    let sql = "SELECT id FROM jobs WHERE subject = $1 AND outcome IS NULL";
    if stays || tx.row(sql, [Subject::Server(id.clone()).key().into()]).await?.is_some() {
        return Ok(false);
    }
    tx.run("UPDATE servers SET place = $2 WHERE id = $1", [(&id.0).into(), json(place).into()]).await?;
    Ok(true)
}

async fn insert(tx: &mut Tx, server: &Server, by: &Actor) -> anyhow::Result<()> {
    let sql = "INSERT INTO servers (id, guild, name, game, backend, settings, limits, place, wanted, owned, lease_until, memo,
                   update_at_start, channel, created_at, created_by, deleted_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";
    let args = [
        (&server.id.0).into(),
        (&server.guild.0).into(),
        server.name.as_str().into(),
        (&server.game).into(),
        server.backend.word().into(),
        json(&server.settings).into(),
        json(&server.limits).into(),
        json(&server.place).into(),
        word(&server.wanted).into(),
        json(&server.owned).into(),
        server.lease_until.into(),
        json(&Memo::default()).into(),
        server.update_at_start.into(),
        server.channel.as_deref().into(),
        server.created_at.into(),
        json(by).into(),
        server.deleted_at.into(),
    ];
    tx.run(sql, args).await?;
    Ok(())
}

async fn set_secret(tx: &mut Tx, id: &ServerId, key: &str, value: &str) -> anyhow::Result<()> {
    let sql = "INSERT INTO secrets (server, key, value) VALUES ($1, $2, $3)
               ON CONFLICT (server, key) DO UPDATE SET value = excluded.value";
    tx.run(sql, [(&id.0).into(), key.into(), value.into()]).await?;
    Ok(())
}

/// Keeps what a secret is before it becomes another one, or none.
async fn keep_former(tx: &mut Tx, id: &ServerId, key: &str, value: Option<&str>, at: Ms) -> anyhow::Result<()> {
    let sql = "INSERT INTO former_secrets (server, value, changed_at)
               SELECT server, value, $4 FROM secrets WHERE server = $1 AND key = $2 AND value <> $3";
    tx.run(sql, [(&id.0).into(), key.into(), value.unwrap_or_default().into(), at.into()]).await?;
    Ok(())
}

pub(super) fn server_of(row: &Row) -> anyhow::Result<Server> {
    let name = row.text("name")?;
    let backend = row.text("backend")?;
    Ok(Server {
        id: ServerId(row.text("id")?),
        guild: GuildId(row.text("guild")?),
        name: ServerName::parse(&name).map_err(|why| anyhow::anyhow!("a stored name is none: {why}"))?,
        game: row.text("game")?,
        backend: Backend::parse(&backend).with_context(|| format!("the stored backend “{backend}” is unknown"))?,
        settings: row.json("settings")?,
        limits: row.json("limits")?,
        place: row.json("place")?,
        wanted: row.word("wanted")?,
        owned: row.json("owned")?,
        lease_until: row.maybe_int("lease_until")?,
        update_at_start: row.flag("update_at_start")?,
        channel: row.maybe_text("channel")?,
        created_at: row.int("created_at")?,
        deleted_at: row.maybe_int("deleted_at")?,
    })
}

/// Writes all that a server owns, and the ports with it.
pub(super) async fn write_owned(tx: &mut Tx, id: &ServerId, owned: &Owned) -> anyhow::Result<()> {
    let changed = tx.run("UPDATE servers SET owned = $2 WHERE id = $1", [(&id.0).into(), json(owned).into()]).await?;
    must_exist(id, changed)?;
    write_ports(tx, id, owned).await
}

/// Makes the table of ports say what `owned` says. A number that another server holds in the same place is refused.
async fn write_ports(tx: &mut Tx, id: &ServerId, owned: &Owned) -> anyhow::Result<()> {
    tx.run("DELETE FROM ports WHERE server = $1", [(&id.0).into()]).await?;
    let row = tx.row("SELECT backend FROM servers WHERE id = $1", [(&id.0).into()]).await?;
    let place = match from_word(&row.context("a server that owns ports must exist")?.text("backend")?)? {
        Backend::Docker => "this machine".to_owned(),
        // Servers on one host of your own share its numbers; a rented host is a place of its own.
        Backend::Cloud => match &owned.host {
            Some(host) => format!("host {} {}", host.provider, host.id),
            None => format!("server {id}"),
        },
    };
    // Two of a recipe's ports may have one number with two protocols.
    for port in owned.ports.values().copied().collect::<BTreeSet<u16>>() {
        let port = i64::from(port);
        let holder = "SELECT servers.name AS name FROM ports JOIN servers ON servers.id = ports.server
                      WHERE ports.place = $1 AND ports.port = $2";
        if let Some(row) = tx.row(holder, [(&place).into(), port.into()]).await? {
            anyhow::bail!("port {port} already belongs to the server `{}`", row.text("name")?);
        }
        let sql = "INSERT INTO ports (place, port, server) VALUES ($1, $2, $3)";
        tx.run(sql, [(&place).into(), port.into(), (&id.0).into()]).await?;
    }
    Ok(())
}

/// What the end of a job means for its server.
pub(super) async fn apply_aftermath(tx: &mut Tx, id: &ServerId, after: Aftermath, now: Ms) -> anyhow::Result<()> {
    if let Some(wanted) = after.wanted {
        tx.run("UPDATE servers SET wanted = $2 WHERE id = $1", [(&id.0).into(), word(&wanted).into()]).await?;
    }
    match after.lease {
        LeaseChange::Keep => {}
        LeaseChange::Begin(None) => set_lease_and_forget(tx, id, None).await?,
        LeaseChange::Begin(Some(until)) => {
            let row = tx.row("SELECT lease_until FROM servers WHERE id = $1", [(&id.0).into()]).await?;
            let present = row.context("the server of a job is gone")?.maybe_int("lease_until")?;
            set_lease_and_forget(tx, id, Some(present.map_or(until, |present| present.max(until)))).await?;
        }
        LeaseChange::Clear => set_lease_and_forget(tx, id, None).await?,
    }
    if after.update_done {
        tx.run("UPDATE servers SET update_at_start = 0 WHERE id = $1", [(&id.0).into()]).await?;
    }
    if let Some(then) = after.begun_with {
        let sql = "DELETE FROM former_secrets WHERE server = $1 AND changed_at < $2";
        tx.run(sql, [(&id.0).into(), then.into()]).await?;
    }
    if let Some(backend) = after.backend {
        move_to(tx, id, backend).await?;
    }
    if after.deleted {
        tx.run("UPDATE servers SET deleted_at = $2 WHERE id = $1", [(&id.0).into(), now.into()]).await?;
        tx.run("DELETE FROM ports WHERE server = $1", [(&id.0).into()]).await?;
        tx.run("DELETE FROM secrets WHERE server = $1", [(&id.0).into()]).await?;
        tx.run("DELETE FROM former_secrets WHERE server = $1", [(&id.0).into()]).await?;
        tx.run("DELETE FROM grants WHERE server = $1", [(&id.0).into()]).await?;
        tx.run("DELETE FROM schedules WHERE server = $1", [(&id.0).into()]).await?;
    }
    Ok(())
}

/// The server runs elsewhere from now on. Of all that it owned only its world comes along: the job has put away the
/// rest. A host that an admin made it leave behind is found by its label, and its bill goes on until it is gone.
async fn move_to(tx: &mut Tx, id: &ServerId, backend: Backend) -> anyhow::Result<()> {
    let row = tx.row("SELECT owned FROM servers WHERE id = $1", [(&id.0).into()]).await?;
    let before: Owned = row.context("the server of a job is gone")?.json("owned")?;
    write_owned(tx, id, &before.moved()).await?;
    let sql = "UPDATE servers SET backend = $2, update_at_start = 0 WHERE id = $1";
    tx.run(sql, [(&id.0).into(), backend.word().into()]).await?;
    Ok(())
}

/// With a new lease the watcher begins anew: what it remembered was about the run before.
async fn set_lease_and_forget(tx: &mut Tx, id: &ServerId, until: Option<Ms>) -> anyhow::Result<()> {
    let sql = "UPDATE servers SET lease_until = $2, memo = $3 WHERE id = $1";
    tx.run(sql, [(&id.0).into(), until.into(), json(&Memo::default()).into()]).await?;
    Ok(())
}
