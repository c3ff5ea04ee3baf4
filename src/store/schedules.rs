//! Timed rules. Each change of a rule that is due says which time it read, so of two engines one deals with it.

use super::Store;
use super::audit::{AuditEntry, audit_in};
use super::db::{Row, Tx, json};
use super::messages::notice_in;
use crate::model::access::Actor;
use crate::model::schedule::{Came, Does, LOOK_AGAIN_MS, Last, PER_SERVER_MAX, Schedule, When};
use crate::model::server::Server;
use crate::model::view::Notice;
use crate::model::{GuildId, Ms, ServerId};
use anyhow::Context;
use jiff::tz::TimeZone;

/// Rules that one look hands out at most; the next look has the rest.
const DUE_AT_ONCE: i64 = 100;

/// A rule before it has a number.
#[derive(Clone, Debug)]
pub struct NewSchedule {
    pub guild: GuildId,
    pub server: ServerId,
    pub does: Does,
    pub when: When,
    pub zone: TimeZone,
    pub made_by: Actor,
    pub made_at: Ms,
    pub due_at: Ms,
}

/// What is left of a rule that cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    pub server: ServerId,
    pub rule: String,
    pub zone: String,
    pub due_at: Ms,
}

/// What became of a rule that was due, all of it written at once.
#[derive(Clone, Debug)]
pub struct Settled {
    pub last: Last,
    /// `None` together with no `look_at`: it does not come again, and goes.
    pub next: Option<Ms>,
    /// When somebody looks again; where `next` is `None`, this is for a rule of which nobody could say.
    pub look_at: Option<Ms>,
    pub audit: Option<AuditEntry>,
    /// What the server's channel hears.
    pub notice: Option<(Box<Server>, Notice)>,
    pub now: Ms,
}

impl Store {
    /// Writes a new rule. `None`, and nothing is written, where the server has as many as it may.
    pub async fn add_schedule(&self, new: NewSchedule) -> anyhow::Result<Option<Schedule>> {
        self.db.write(move |tx| Box::pin(add_in(tx, new))).await
    }

    pub async fn schedule(&self, guild: &GuildId, number: i64) -> anyhow::Result<Option<Schedule>> {
        let sql = "SELECT * FROM schedules WHERE guild = $1 AND number = $2";
        self.db.row(sql, [(&guild.0).into(), number.into()]).await?.map(|row| schedule_of(&row)).transpose()
    }

    pub async fn schedules_of(&self, guild: &GuildId) -> anyhow::Result<Vec<Schedule>> {
        let sql = "SELECT * FROM schedules WHERE guild = $1 ORDER BY number";
        let rows = self.db.rows(sql, [(&guild.0).into()]).await?;
        // Told where they are due: this is asked for each time that a panel is drawn.
        let readable = |row: &Row| {
            let read = schedule_of(row);
            read.inspect_err(|error| tracing::debug!("A schedule cannot be read: {error:#}")).ok()
        };
        Ok(rows.iter().filter_map(readable).collect())
    }

    pub async fn remove_schedule(&self, guild: &GuildId, number: i64) -> anyhow::Result<bool> {
        let sql = "DELETE FROM schedules WHERE guild = $1 AND number = $2";
        Ok(self.db.run(sql, [(&guild.0).into(), number.into()]).await? == 1)
    }

    /// Of every guild, those that somebody has to look at now, the longest waiting first.
    pub async fn due_schedules(&self, now: Ms) -> anyhow::Result<Vec<Schedule>> {
        let sql = "SELECT * FROM schedules WHERE look_at <= $1 ORDER BY look_at, guild, number LIMIT $2";
        let mut due = vec![];
        for row in self.db.rows(sql, [now.into(), DUE_AT_ONCE.into()]).await? {
            match schedule_of(&row) {
                Ok(schedule) => due.push(schedule),
                Err(error) => {
                    let (guild, number) = (row.text("guild")?, row.int("number")?);
                    tracing::error!(guild, schedule = number, "A schedule cannot be read and is left out: {error:#}");
                    let sql = "UPDATE schedules SET look_at = $3 WHERE guild = $1 AND number = $2";
                    self.db.run(sql, [guild.into(), number.into(), (now + LOOK_AGAIN_MS).into()]).await?;
                }
            }
        }
        Ok(due)
    }

    /// A rule whose row says nothing that could be done.
    pub async fn unreadable_schedule(&self, guild: &GuildId, number: i64) -> anyhow::Result<Option<Unreadable>> {
        let sql = "SELECT * FROM schedules WHERE guild = $1 AND number = $2";
        let row = self.db.row(sql, [(&guild.0).into(), number.into()]).await?;
        let Some(row) = row.filter(|row| schedule_of(row).is_err()) else { return Ok(None) };
        let (server, rule, zone) = (ServerId(row.text("server")?), row.text("rule")?, row.text("zone")?);
        Ok(Some(Unreadable { server, rule, zone, due_at: row.int("due_at")? }))
    }

    /// Its next time is known at last.
    pub async fn put_schedule_to(&self, schedule: &Schedule, next: Ms) -> anyhow::Result<()> {
        let sql = "UPDATE schedules SET due_at = $4, look_at = $4 WHERE guild = $1 AND number = $2 AND due_at = $3";
        let (guild, number) = ((&schedule.guild.0).into(), schedule.number.into());
        self.db.run(sql, [guild, number, schedule.due_at.into(), next.into()]).await?;
        Ok(())
    }

    /// When somebody has to look next.
    pub async fn next_schedule_at(&self) -> anyhow::Result<Option<Ms>> {
        let row = self.db.row("SELECT MIN(look_at) AS next FROM schedules", []).await?;
        row.context("a minimum is always there")?.maybe_int("next")
    }

    /// Takes a rule up as it was read: nobody else looks at it until then. False when somebody else was faster or the
    /// rule is gone.
    pub async fn take_schedule(&self, schedule: &Schedule, until: Ms, last: Option<&Last>) -> anyhow::Result<bool> {
        let sql = "UPDATE schedules SET look_at = $5, last = COALESCE($6, last)
                   WHERE guild = $1 AND number = $2 AND due_at = $3 AND look_at = $4";
        let last = last.map(json);
        let args = [
            (&schedule.guild.0).into(),
            schedule.number.into(),
            schedule.due_at.into(),
            schedule.look_at.into(),
            until.into(),
            last.as_deref().into(),
        ];
        Ok(self.db.run(sql, args).await? == 1)
    }

    /// It is tried again then.
    pub async fn postpone_schedule(&self, schedule: &Schedule, look_at: Ms) -> anyhow::Result<()> {
        let sql = "UPDATE schedules SET look_at = $4 WHERE guild = $1 AND number = $2 AND due_at = $3";
        let (guild, number) = ((&schedule.guild.0).into(), schedule.number.into());
        self.db.run(sql, [guild, number, schedule.due_at.into(), look_at.into()]).await?;
        Ok(())
    }

    /// Deals with the time that the rule was read with. False, and nothing is written, when somebody else has.
    pub async fn settle_schedule(&self, schedule: &Schedule, settled: Settled) -> anyhow::Result<bool> {
        let schedule = schedule.clone();
        self.db.write(move |tx| Box::pin(settle_in(tx, schedule, settled))).await
    }
}

async fn add_in(tx: &mut Tx, new: NewSchedule) -> anyhow::Result<Option<Schedule>> {
    let sql = "SELECT COUNT(*) AS present FROM schedules WHERE server = $1";
    let row = tx.row(sql, [(&new.server.0).into()]).await?;
    let present = row.context("a count is always there")?.int("present")?;
    if present >= i64::try_from(PER_SERVER_MAX)? {
        return Ok(None);
    }
    let alive = "SELECT id FROM servers WHERE id = $1 AND deleted_at IS NULL";
    let alive = tx.row(alive, [(&new.server.0).into()]).await?;
    anyhow::ensure!(alive.is_some(), "server {} does not exist or is deleted", new.server);
    let number = next_number(tx, &new.guild).await?;
    let NewSchedule { guild, server, does, when, zone, made_by, made_at, due_at } = new;
    let schedule =
        Schedule { guild, number, server, does, when, zone, made_by, made_at, due_at, look_at: due_at, last: None };
    let sql = "INSERT INTO schedules (guild, number, server, does, rule, zone, made_by, made_at, due_at, look_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let args = [
        (&schedule.guild.0).into(),
        number.into(),
        (&schedule.server.0).into(),
        json(&schedule.does).into(),
        schedule.when.words().into(),
        schedule.zone_name().into(),
        json(&schedule.made_by).into(),
        made_at.into(),
        due_at.into(),
        due_at.into(),
    ];
    tx.run(sql, args).await?;
    Ok(Some(schedule))
}

/// Jobs and the audit log name rules by their numbers, so none is given twice.
async fn next_number(tx: &mut Tx, guild: &GuildId) -> anyhow::Result<i64> {
    let key = format!("schedules {guild}");
    let row = tx.row("SELECT value FROM meta WHERE key = $1", [(&key).into()]).await?;
    let last: i64 = match row {
        Some(row) => row.text("value")?.parse().context("the last number of a schedule is no number")?,
        None => 0,
    };
    let sql = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    tx.run(sql, [key.into(), (last + 1).to_string().into()]).await?;
    Ok(last + 1)
}

async fn settle_in(tx: &mut Tx, schedule: Schedule, settled: Settled) -> anyhow::Result<bool> {
    let (guild, number) = (&schedule.guild.0, schedule.number);
    let changed = match settled.look_at {
        Some(look_at) => {
            let due_at = settled.next.unwrap_or(schedule.due_at);
            let sql = "UPDATE schedules SET due_at = $4, look_at = $6, last = $5
                       WHERE guild = $1 AND number = $2 AND due_at = $3";
            let last = json(&settled.last);
            tx.run(
                sql,
                [guild.into(), number.into(), schedule.due_at.into(), due_at.into(), last.into(), look_at.into()],
            )
            .await?
        }
        None => {
            let sql = "DELETE FROM schedules WHERE guild = $1 AND number = $2 AND due_at = $3";
            tx.run(sql, [guild.into(), number.into(), schedule.due_at.into()]).await?
        }
    };
    if changed == 0 {
        // Somebody removed it while it acted. What it did stays on record; of a rule that is there, somebody else wrote it.
        let sql = "SELECT number FROM schedules WHERE guild = $1 AND number = $2";
        let removed = tx.row(sql, [guild.into(), number.into()]).await?.is_none();
        if let Some(audit) =
            settled.audit.filter(|_| removed && matches!(settled.last.came, Came::Job { .. } | Came::Typed))
        {
            audit_in(tx, &audit).await?;
        }
        return Ok(false);
    }
    if let Some(audit) = &settled.audit {
        audit_in(tx, audit).await?;
    }
    if let Some((server, notice)) = &settled.notice {
        notice_in(tx, server, notice, settled.now).await?;
    }
    Ok(true)
}

fn schedule_of(row: &Row) -> anyhow::Result<Schedule> {
    let (rule, zone) = (row.text("rule")?, row.text("zone")?);
    Ok(Schedule {
        guild: GuildId(row.text("guild")?),
        number: row.int("number")?,
        server: ServerId(row.text("server")?),
        does: row.json("does")?,
        when: When::parse(&rule).map_err(|why| anyhow::anyhow!("the stored rule “{rule}” is none: {why}"))?,
        zone: TimeZone::get(&zone).with_context(|| format!("the stored time zone “{zone}” is unknown"))?,
        made_by: row.json("made_by")?,
        made_at: row.int("made_at")?,
        due_at: row.int("due_at")?,
        look_at: row.int("look_at")?,
        last: row.maybe_text("last")?.map(|_| row.json("last")).transpose()?,
    })
}
