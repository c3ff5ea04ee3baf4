//! Hosts that were rented, for the bill. A row comes and ends in the transaction of the event that says so, so no host
//! is ever on record without its bill. Of a host that goes before it was on record it is written on its own.

use super::Store;
use super::db::{Row, Tx, json};
use super::servers::server_of;
use crate::model::access::Actor;
use crate::model::cost::{Rental, turn};
use crate::model::host::HostRef;
use crate::model::server::Owned;
use crate::model::{GuildId, JobId, Ms, ServerId};
use anyhow::Context;

impl Store {
    /// The guild's rentals that bill now or ended after `since`, in the order they began.
    pub async fn rentals_of(&self, guild: &GuildId, since: Ms) -> anyhow::Result<Vec<Rental>> {
        let sql = "SELECT rentals.* FROM rentals JOIN servers ON servers.id = rentals.server
                   WHERE servers.guild = $1 AND (rentals.ended_at IS NULL OR rentals.ended_at > $2)
                   ORDER BY rentals.began_at, rentals.provider, rentals.host";
        self.db.rows(sql, [(&guild.0).into(), since.into()]).await?.iter().map(rental_of).collect()
    }

    /// Rentals that go on though their server is deleted or has another host or none.
    pub async fn left_rentals(&self) -> anyhow::Result<Vec<Rental>> {
        let sql = "SELECT * FROM rentals JOIN servers ON servers.id = rentals.server WHERE rentals.ended_at IS NULL
                   ORDER BY rentals.began_at, rentals.provider, rentals.host";
        let rows = self.db.rows(sql, []).await?;
        let both = rows.iter().map(|row| Ok((rental_of(row)?, server_of(row)?)));
        let open = both.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(open.into_iter().filter(|(rental, server)| rental.is_left(server)).map(|(rental, _)| rental).collect())
    }

    /// The host is gone, whoever ended it.
    pub async fn end_rental(&self, provider: &str, host: &str, now: Ms) -> anyhow::Result<()> {
        let open = "SELECT host FROM rentals WHERE provider = $1 AND host = $2 AND ended_at IS NULL";
        // Asked every round as long as the host is on record: only the first one writes.
        if self.db.row(open, [provider.into(), host.into()]).await?.is_none() {
            return Ok(());
        }
        let sql = "UPDATE rentals SET ended_at = $3 WHERE provider = $1 AND host = $2 AND ended_at IS NULL";
        self.db.run(sql, [provider.into(), host.into(), now.into()]).await?;
        Ok(())
    }

    pub async fn rental_ended(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        let sql = "SELECT host FROM rentals WHERE provider = $1 AND host = $2 AND ended_at IS NOT NULL";
        Ok(self.db.row(sql, [provider.into(), host.into()]).await?.is_some())
    }

    /// The host was taken for gone and is there: it has billed all the time. False, and nothing is changed, where its
    /// bill has not ended or its server has it on record no longer.
    pub async fn reopen_rental(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        // Asked every round as long as the host is on record: only one that is found again writes.
        if !self.rental_ended(provider, host).await? {
            return Ok(false);
        }
        let (provider, host) = (provider.to_owned(), host.to_owned());
        self.db
            .write(move |tx| {
                Box::pin(async move {
                    let sql = "SELECT servers.owned FROM rentals JOIN servers ON servers.id = rentals.server
                               WHERE rentals.provider = $1 AND rentals.host = $2 AND servers.deleted_at IS NULL";
                    let Some(row) = tx.row(sql, [(&provider).into(), (&host).into()]).await? else { return Ok(false) };
                    let owned: Owned = row.json("owned")?;
                    if !owned.host.is_some_and(|own| own.provider == provider && own.id == host) {
                        return Ok(false);
                    }
                    let sql = "UPDATE rentals SET ended_at = NULL
                               WHERE provider = $1 AND host = $2 AND ended_at IS NOT NULL";
                    anyhow::Ok(tx.run(sql, [provider.into(), host.into()]).await? == 1)
                })
            })
            .await
    }

    /// See [`Journal::bill_unrecorded`](crate::engine::Journal).
    pub async fn write_rental(&self, rental: &Rental) -> anyhow::Result<()> {
        let price = rental.price.as_ref().map(json);
        let sql = "INSERT INTO rentals (provider, host, server, actor, region, size, price, began_at, ended_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   ON CONFLICT (provider, host) DO UPDATE
                   SET ended_at = excluded.ended_at, price = COALESCE(rentals.price, excluded.price)";
        let args = [
            (&rental.provider).into(),
            (&rental.host).into(),
            (&rental.server.0).into(),
            json(&rental.actor).into(),
            (&rental.region).into(),
            (&rental.size).into(),
            price.as_deref().into(),
            rental.began_at.into(),
            rental.ended_at.into(),
        ];
        self.db.run(sql, args).await?;
        Ok(())
    }
}

/// Who brought a host, for the bill.
#[derive(Clone, Copy)]
pub(super) enum Brought<'a> {
    /// Who asked for this job.
    Job(JobId),
    By(&'a Actor),
}

/// Begins and ends what a change of a server's host means. Called before that change is written.
pub(super) async fn turn_bill(
    tx: &mut Tx,
    brought: Brought<'_>,
    server: &ServerId,
    host: Option<&HostRef>,
    at: Ms,
) -> anyhow::Result<()> {
    let row = tx.row("SELECT owned FROM servers WHERE id = $1", [(&server.0).into()]).await?;
    let before: Owned = row.with_context(|| format!("server {server} does not exist"))?.json("owned")?;
    let turn = turn(before.host.as_ref(), host);
    if let Some(host) = before.host.filter(|_| turn.ends) {
        // This one alone: what the server left behind earlier bills until it is gone too.
        let sql = "UPDATE rentals SET ended_at = $3 WHERE provider = $1 AND host = $2 AND ended_at IS NULL";
        tx.run(sql, [host.provider.into(), host.id.into(), at.into()]).await?;
    }
    let Some(host) = host else { return Ok(()) };
    let price = host.price.as_ref().map(json);
    if turn.begins {
        let actor = match brought {
            Brought::By(actor) => json(actor),
            Brought::Job(job) => {
                let row = tx.row("SELECT actor FROM jobs WHERE id = $1", [job.0.into()]).await?;
                row.with_context(|| format!("there is no job {job}"))?.text("actor")?
            }
        };
        // One that was taken for gone and is found again has billed all the time.
        let sql = "INSERT INTO rentals (provider, host, server, actor, region, size, price, began_at)
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                   ON CONFLICT (provider, host) DO UPDATE SET ended_at = NULL, price = COALESCE(excluded.price, rentals.price)";
        let args = [
            (&host.provider).into(),
            (&host.id).into(),
            (&server.0).into(),
            actor.into(),
            (&host.region).into(),
            (&host.size).into(),
            price.as_deref().into(),
            host.created_at.into(),
        ];
        tx.run(sql, args).await?;
    } else if turn.priced {
        let sql = "UPDATE rentals SET price = $3 WHERE provider = $1 AND host = $2";
        tx.run(sql, [(&host.provider).into(), (&host.id).into(), price.as_deref().into()]).await?;
    }
    Ok(())
}

fn rental_of(row: &Row) -> anyhow::Result<Rental> {
    Ok(Rental {
        provider: row.text("provider")?,
        host: row.text("host")?,
        server: ServerId(row.text("server")?),
        actor: row.json("actor")?,
        region: row.text("region")?,
        size: row.text("size")?,
        price: match row.maybe_text("price")? {
            Some(_) => Some(row.json("price")?),
            None => None,
        },
        began_at: row.int("began_at")?,
        ended_at: row.maybe_int("ended_at")?,
    })
}
