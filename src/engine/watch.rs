//! The loop around `reconcile`: looks at every server, decides, and opens jobs. It acts on nothing itself, and boot
//! and steady state are one path.

use super::reconcile::{Busy, CRASH_WINDOW_MS, Decision, Facts, reconcile};
use super::{Ask, Engine, OpenError};
use crate::bus::Nudge;
use crate::model::access::Actor;
use crate::model::bill::{Bill, Budget, BudgetOf, Standing, Unit, Unpaid, may_start, standings};
use crate::model::cost::{Month, Rental, running};
use crate::model::job::{Action, Cause, Job, Step};
use crate::model::lease;
use crate::model::server::{Backend, Seen, Server, Wanted};
use crate::model::view::Notice;
use crate::model::{Ms, ServerId};
use std::collections::HashMap;
use tokio_util::sync::CancellationToken;

/// What people were told about a budget.
const NEAR: &str = "near";
const STUCK: &str = "stuck";

/// What the watcher has to say.
struct Warning {
    notice: Notice,
    /// What the players read.
    in_game: Option<String>,
    /// Under which name it is remembered that it was said.
    told: Option<String>,
}

impl Warning {
    fn of(notice: Notice) -> Warning {
        Warning { notice, in_game: None, told: None }
    }
}

impl Engine {
    /// Watches until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.watch_once().await {
                tracing::error!("The watcher could not finish its round: {error:#}");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.inner.watch.notified() => {}
                () = tokio::time::sleep(self.inner.defaults.watch_every) => {}
            }
        }
    }

    /// One round over all servers.
    pub async fn watch_once(&self) -> anyhow::Result<()> {
        let servers = self.inner.journal.servers().await?;
        for backend in Backend::ALL {
            let here: Vec<Server> = servers.iter().filter(|server| server.backend == backend).cloned().collect();
            if here.is_empty() {
                continue;
            }
            let before = self.busy().await?;
            let seen = self.look_at_all(backend, &here).await;
            for (server, seen) in here.iter().zip(&seen) {
                self.remember(&server.id, seen);
            }
            // A job that was open at any time while the driver looked makes what was seen stale.
            let after = self.busy().await?;
            for (server, seen) in here.into_iter().zip(seen) {
                let busy = after.get(&server.id).or(before.get(&server.id)).copied().unwrap_or(Busy::No);
                if let Err(error) = self.decide(&server, seen, busy).await {
                    tracing::error!(server = %server.name, "The watcher could not decide about a server: {error:#}");
                }
            }
        }
        Ok(())
    }

    async fn busy(&self) -> anyhow::Result<HashMap<ServerId, Busy>> {
        let open = self.inner.journal.open_jobs().await?;
        let busy = |job: &Job| Some((job.subject.server()?.clone(), Busy::with(job)));
        Ok(open.iter().filter_map(busy).collect())
    }

    /// Whether the job that waits has done nothing yet to end the host: then somebody else has.
    async fn held_with_its_host(&self, id: &ServerId) -> anyhow::Result<bool> {
        let open = self.inner.journal.open_jobs().await?;
        let job = open.iter().find(|job| job.subject.server() == Some(id));
        let undone = |job: &Job| job.record(Step::CreateHost).is_some_and(|record| record.state.is_undoing());
        Ok(job.is_some_and(|job| !job.has_begun(Step::DestroyHost) && !undone(job)))
    }

    async fn decide(&self, server: &Server, seen: Seen, busy: Busy) -> anyhow::Result<()> {
        let now = self.now();
        let journal = self.inner.journal.as_ref();
        let memo = journal.memo(&server.id).await?;
        // What people asked for may have changed while the driver looked.
        let looked_at = server;
        let Some(server) = journal.server(&server.id).await?.filter(|server| server.deleted_at.is_none()) else {
            return Ok(());
        };
        // A whole job fitted in between; the next round looks again.
        if busy == Busy::No && (server.wanted, &server.owned) != (looked_at.wanted, &looked_at.owned) {
            return Ok(());
        }
        // What was looked at may be another host than the one that it has now.
        if let Some(host) = looked_at.owned.rented() {
            match seen {
                // Before a start replaces it: later nobody could say what was lost.
                Seen::Gone if busy == Busy::No => self.tell_lost(&server, host).await?,
                Seen::Gone if busy == Busy::Held && self.held_with_its_host(&server.id).await? => {
                    self.tell_lost(&server, host).await?;
                }
                Seen::Running { .. } | Seen::Stopped { .. } => self.tell_back(&server, host).await?,
                Seen::Gone | Seen::Unknown { .. } => {}
            }
        }
        let facts = Facts {
            wanted: server.wanted,
            busy,
            host: server.owned.host.is_some(),
            rented: server.owned.rented().is_some(),
            seen,
            lease_until: server.lease_until,
            memo: memo.clone(),
            rules: self.rules(&server),
            crash_starts: journal.crash_starts(&server.id, now - CRASH_WINDOW_MS).await?,
            bill: self.bill(&server, now).await?,
        };
        let (next, decision) = reconcile(now, &facts);
        if let Some(Decision::Open { action, cause }) = decision {
            if next != memo {
                journal.set_memo(&server.id, &next).await?;
            }
            return self.open_watched(&server, action, cause).await;
        }
        let warning = match decision {
            Some(decision) => self.warning(&server, busy, decision).await?,
            None => None,
        };
        // On record before it counts as told: after a crash in between people read it twice, and not never.
        if let Some(warning) = &warning {
            journal.notice(&server, &warning.notice, now).await?;
            if let Some(key) = &warning.told {
                journal.set_told(key).await?;
            }
        }
        if next != memo {
            journal.set_memo(&server.id, &next).await?;
        }
        let Some(warning) = warning else { return Ok(()) };
        self.inner.bus.nudge(Nudge::Notice);
        if let Some(line) = &warning.in_game
            && let Some(driver) = self.driver(server.backend)
            && let Err(error) = driver.tell(&server, line).await
        {
            // The channel was told; a game that cannot be told is no reason to fail.
            tracing::warn!(server = %server.name, "The players could not be told in the game: {error:#}");
        }
        Ok(())
    }

    async fn warning(&self, server: &Server, busy: Busy, decision: Decision) -> anyhow::Result<Option<Warning>> {
        let name = server.name.to_string();
        Ok(Some(match decision {
            Decision::Open { .. } => return Ok(None),
            Decision::WarnLease { left_ms } => Warning {
                in_game: Some(format!("This server stops in {}.", lease::spoken(left_ms))),
                ..Warning::of(Notice::LeaseEnds { server: name, in_ms: left_ms })
            },
            Decision::WarnIdle { left_ms } => Warning::of(Notice::IdleStop { server: name, in_ms: left_ms }),
            Decision::WarnBudget { standing } => Warning {
                told: Some(self.key(server, &standing, NEAR)),
                ..Warning::of(Notice::BudgetNear { server: name, standing })
            },
            Decision::BudgetStuck { standing } => Warning {
                told: Some(self.key(server, &standing, STUCK)),
                ..Warning::of(Notice::BudgetStuck { server: name, standing })
            },
            Decision::HostSilent { since, on } => {
                let Some(host) = server.owned.rented() else { return Ok(None) };
                let (provider, host) = (host.provider.clone(), host.id.clone());
                Warning::of(Notice::HostSilent { server: name, provider, host, since, on })
            }
            Decision::StillBills { standing } => return self.still_bills(server, busy, standing).await,
        }))
    }

    async fn still_bills(
        &self,
        server: &Server,
        busy: Busy,
        standing: Option<Standing>,
    ) -> anyhow::Result<Option<Warning>> {
        let Some(host) = server.owned.rented() else { return Ok(None) };
        let now = self.now();
        let rentals = self.inner.journal.rentals(&server.guild, now).await?;
        let rental = running(&rentals, Some(host));
        let told = standing.as_ref().map(|standing| self.key(server, standing, STUCK));
        let notice = Notice::StillBills {
            server: server.name.to_string(),
            provider: host.provider.clone(),
            host: host.id.clone(),
            cost: rental.and_then(|rental| rental.spoken_cost(now, &self.spending().zone)),
            standing,
            held: busy == Busy::Held,
        };
        Ok(Some(Warning { told, ..Warning::of(notice) }))
    }

    /// What its bill means for a server. Servers in containers have none.
    async fn bill(&self, server: &Server, now: Ms) -> anyhow::Result<Bill> {
        let spending = &self.spending().of(&server.guild);
        let budgets = server.limits.budget.is_some() || !spending.guild.is_empty();
        let idle = server.wanted == Wanted::Off && server.owned.host.is_none();
        // Nobody sends a bill for a machine of your own.
        let own = server.owned.host.is_some() && server.owned.rented().is_none();
        if server.backend != Backend::Cloud || own || idle || !(self.stops_at_unit(server) || budgets) {
            return Ok(Bill::default());
        }
        let journal = self.inner.journal.as_ref();
        let month = Month::of(now, &spending.zone).start(&spending.zone);
        let rentals = journal.rentals(&server.guild, month).await?;
        let open = running(&rentals, server.owned.host.as_ref());
        let all = standings(&server.id, server.limits.budget.as_ref(), spending, &rentals, now);
        let spent = match open {
            Some(_) => all.iter().find(|standing| standing.is_spent()).cloned(),
            // Its host is gone: another one would cost what the last one did.
            None => {
                let last = rentals.iter().rfind(|rental| rental.server == server.id);
                match may_start(&all, last.and_then(|rental| rental.price.as_ref()), true, now) {
                    Err(Unpaid::Spent { standing, .. }) => Some(standing),
                    Ok(()) | Err(Unpaid::OtherCurrency { .. }) => None,
                }
            }
        };
        let spent_told = match &spent {
            Some(standing) => journal.told(&self.key(server, standing, STUCK)).await?,
            None => false,
        };
        let mut warn = None;
        for standing in all.into_iter().filter(|standing| standing.percent() >= i64::from(spending.warn_percent)) {
            // Who has nothing rented spends nothing, and need not hear of it.
            if warn.is_none() && open.is_some() && !journal.told(&self.key(server, &standing, NEAR)).await? {
                warn = Some(standing);
            }
        }
        Ok(Bill { unit: self.stop_unit(server, &rentals), spent, spent_told, warn })
    }

    fn stops_at_unit(&self, server: &Server) -> bool {
        server.limits.stop_at_billing_unit.unwrap_or(self.spending().stop_at_unit)
    }

    /// The unit at whose end a server stops, where stops wait for that.
    pub fn stop_unit(&self, server: &Server, rentals: &[Rental]) -> Option<Unit> {
        let open = running(rentals, server.owned.host.as_ref())?;
        let unit_ms = open.price.as_ref()?.unit_ms;
        self.stops_at_unit(server).then_some(Unit { began_at: open.began_at, unit_ms })
    }

    /// Under which name it is remembered that people heard of a budget: once a month, and again when it was raised.
    fn key(&self, server: &Server, standing: &Standing, what: &str) -> String {
        let whose = match standing.whose {
            BudgetOf::Guild => format!("guild {}", server.guild),
            BudgetOf::Server => format!("server {}", server.id),
        };
        let Budget { limit, currency } = &standing.budget;
        format!("budget {what} {whose} {} {limit} {currency}", standing.month)
    }

    async fn open_watched(&self, server: &Server, action: Action, cause: Cause) -> anyhow::Result<()> {
        tracing::info!(server = %server.name, action = action.word(), ?cause, "The watcher opens a job.");
        let ask = Ask { action, cause, actor: Actor::Watcher, channel: server.channel.clone() };
        match self.ask(server, ask).await {
            // Somebody was faster, or has said something else; the next round looks again.
            Ok(_) | Err(OpenError::Busy(_) | OpenError::Overtaken) => Ok(()),
            Err(OpenError::Other(error)) => Err(error),
        }
    }
}
