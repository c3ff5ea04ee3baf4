//! Money as people see it: what was spent, what a start would cost, and whether a budget allows it.

use super::dearer::without_yes;
use super::{Answer, App, Refusal};
use crate::engine::StepError;
use crate::model::access::{Actor, Caller, Permission, permission};
use crate::model::bill::{
    BudgetOf, CostView, Kinds, Ledger, MONTHS_LISTED, More, StartCost, StartPrice, Unpaid, cost, left, longer,
    may_start, standings, start_price,
};
use crate::model::cost::{Cheapest, Instead, Month, Quote, Rental, running, spoken};
use crate::model::host::OWN_MACHINE;
use crate::model::job::{Action, Subject};
use crate::model::server::{Backend, Server};
use crate::model::{GuildId, MINUTE_MS, Ms, ServerId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::MutexGuard;

/// The longest month, for looking back over some of them.
const MONTH_MAX_MS: Ms = 31 * 24 * 60 * MINUTE_MS;

/// Who asks for a price does not wait longer than this for a provider.
const QUOTE_LIMIT: Duration = Duration::from_secs(10);

/// What of the bill is asked for; nothing means all of the present month.
#[derive(Clone, Debug, Default)]
pub struct CostFilter {
    /// A server's name; deleted ones have one too.
    pub server: Option<String>,
    /// `2026-11`.
    pub month: Option<String>,
    /// A Discord user's id.
    pub user: Option<String>,
}

impl App {
    /// The bill by server, person and month, of the servers that the caller may see.
    pub async fn cost(&self, caller: &Caller, filter: CostFilter) -> Answer<CostView> {
        let spending = &self.engine().spending().of(&caller.guild);
        let (zone, now) = (&spending.zone, self.now());
        let month = match filter.month.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Month::parse(text).map_err(Refusal::Invalid)?,
            None => Month::of(now, zone),
        };
        let seen = self.servers_on_the_bill(caller).await?;
        let asked: Vec<&Server> = match filter.server.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
            None => seen.iter().collect(),
            Some(name) => {
                let named: Vec<&Server> = seen.iter().filter(|server| server.name.as_str() == name).collect();
                if named.is_empty() {
                    return Err(Refusal::NotFound(self.no_such_server(caller, name).await?));
                }
                named
            }
        };
        let names: BTreeMap<ServerId, (String, bool)> = asked
            .iter()
            .map(|server| (server.id.clone(), (server.name.to_string(), server.deleted_at.is_some())))
            .collect();
        let since = month.start(zone).min(now - MONTHS_LISTED as Ms * MONTH_MAX_MS);
        let mut rentals = self.store().rentals_of(&caller.guild, since).await?;
        let present = in_month(&rentals, Month::of(now, zone).start(zone));
        let by = |rental: &Rental| match (&filter.user, &rental.actor) {
            (None, _) => true,
            (Some(user), Actor::Discord { id, .. }) => user == id,
            // What somebody's rule rents is theirs to answer for.
            (Some(user), Actor::Schedule { user: behind, .. }) => behind.as_ref() == Some(user),
            (Some(_), Actor::Token { .. } | Actor::Watcher | Actor::Operator) => false,
        };
        rentals.retain(|rental| names.contains_key(&rental.server) && by(rental));
        let mut view = cost(&Ledger { rentals: &rentals, names: &names, month, now, zone });
        view.kinds = self.kinds();
        let mut left_behind = self.store().left_rentals().await?;
        left_behind.retain(by);
        view.left = left(&left_behind, &asked);
        // A budget is about everything that it counts, whatever was asked for.
        for (at, server) in asked.iter().filter(|server| server.deleted_at.is_none()).enumerate() {
            for standing in standings(&server.id, server.limits.budget.as_ref(), spending, &present, now) {
                match standing.whose {
                    BudgetOf::Guild if at == 0 => view.budgets.push((None, standing)),
                    BudgetOf::Guild => {}
                    BudgetOf::Server => view.budgets.push((Some(server.name.to_string()), standing)),
                }
            }
        }
        Ok(view)
    }

    /// The months that something was billed in, the newest first, for choosing.
    pub async fn cost_months(&self, guild: &GuildId) -> Vec<Month> {
        let (zone, now) = (&self.engine().spending().zone, self.now());
        let since = now - MONTHS_LISTED as Ms * MONTH_MAX_MS;
        let rentals = self.store().rentals_of(guild, since).await.unwrap_or_default();
        let mut months: Vec<Month> = rentals.iter().flat_map(|rental| rental.months(now, zone)).collect();
        months.push(Month::of(now, zone));
        months.sort_unstable_by(|a, b| b.cmp(a));
        months.dedup();
        months.truncate(MONTHS_LISTED);
        months
    }

    /// Servers that may stand on the bill, by name, deleted ones last. Who may see a guild's servers sees its deleted ones.
    async fn servers_on_the_bill(&self, caller: &Caller) -> Answer<Vec<Server>> {
        let grants = self.store().grants(&caller.guild).await?;
        let role = &self.inner.choices.players_role;
        let may = |server: Option<&ServerId>| permission(caller, &grants, server, role) >= Permission::View;
        let mut servers = self.store().servers_of(&caller.guild).await?;
        servers.retain(|server| may(Some(&server.id)));
        if may(None) {
            servers.extend(self.store().deleted_servers_of(&caller.guild).await?);
        }
        Ok(servers)
    }

    fn kinds(&self) -> Kinds {
        let providers = self.engine().driver(Backend::Cloud).map(|driver| driver.providers()).unwrap_or_default();
        Kinds {
            containers: self.engine().driver(Backend::Docker).is_some(),
            own_machines: providers.iter().any(|provider| provider == OWN_MACHINE),
            rented_hosts: providers.iter().any(|provider| provider != OWN_MACHINE),
        }
    }

    /// What it costs that a server runs until then. `None` where nobody sends a bill for it now.
    pub(super) async fn price_of_more(&self, server: &Server, until: Ms) -> anyhow::Result<Option<More>> {
        if server.backend != Backend::Cloud {
            return Ok(None);
        }
        let rentals = self.rentals_this_month(&server.guild).await?;
        let Some(rental) = running(&rentals, server.owned.host.as_ref()) else { return Ok(None) };
        let now = self.now();
        let from = server.lease_until.map_or(now, |lease| lease.max(now));
        Ok(Some(longer(rental, from, until, &self.engine().spending().zone)))
    }

    /// What a start of this server would cost. `None` where nothing is rented for it, or its host is there already.
    pub async fn start_price(&self, caller: &Caller, name: &str) -> Answer<Option<StartPrice>> {
        let server = self.server(caller, name, Permission::View).await?;
        self.price_of_start(&self.with_yes_of(&server, &caller.actor).await?).await
    }

    pub(super) async fn price_of_start(&self, server: &Server) -> Answer<Option<StartPrice>> {
        if server.backend != Backend::Cloud {
            return Ok(None);
        }
        let rentals = self.rentals_this_month(&server.guild).await?;
        if running(&rentals, server.owned.host.as_ref()).is_some() {
            return Ok(None);
        }
        self.price_of_a_new_host(server).await
    }

    async fn price_of_a_new_host(&self, server: &Server) -> Answer<Option<StartPrice>> {
        let Some(quote) = self.quote(server).await? else { return Ok(None) };
        let lease = Some(self.engine().rules(server).lease_ms).filter(|lease| *lease > 0);
        Ok(Some(start_price(quote, lease, self.now(), &self.engine().spending().zone)))
    }

    /// The same for a picture of the server, where a price that cannot be had is something to say too.
    pub(super) async fn start_cost(&self, server: &Server) -> anyhow::Result<Option<StartCost>> {
        cost_or_why(self.price_of_start(&without_yes(server)).await)
    }

    /// The same whether it has a host now or not: for starts to come.
    pub(super) async fn cost_of_a_new_host(&self, server: &Server) -> anyhow::Result<Option<StartCost>> {
        cost_or_why(self.price_of_a_new_host(&without_yes(server)).await)
    }

    /// What its provider wants for a host, the agreed one where somebody said yes to that. `None` where nobody sends a bill.
    pub(super) async fn quote(&self, server: &Server) -> Answer<Option<Quote>> {
        let Some(driver) = self.engine().driver(server.backend) else { return Ok(None) };
        let server = &Server { place: server.place.agreed(), ..server.clone() };
        let quote = said_in_time(server, driver.quote(server)).await?;
        Ok(quote.filter(|quote| quote.price.is_some()))
    }

    /// Who it is rented from for the least. `None` where that is decided.
    pub(super) async fn cheapest(&self, server: &Server) -> Answer<Option<Cheapest>> {
        match self.engine().driver(server.backend) {
            Some(driver) => said_in_time(server, driver.cheapest(server)).await,
            None => Ok(None),
        }
    }

    /// What takes a person's yes before it starts. `None` where nothing does, or where nobody can say: that keeps nobody
    /// from playing, and the start itself takes nothing that costs more.
    pub(super) async fn instead(&self, server: &Server) -> Answer<Option<Instead>> {
        if server.backend != Backend::Cloud || server.owned.host.is_some() {
            return Ok(None);
        }
        let Some(driver) = self.engine().driver(server.backend) else { return Ok(None) };
        let last = self.last_rental(server).await?;
        match said_in_time(server, driver.instead(server, last.as_ref())).await {
            Err(Refusal::Invalid(why) | Refusal::Busy(why)) => {
                tracing::info!(server = %server.name, "Whether a start takes a yes could not be asked: {why}");
                Ok(None)
            }
            said => said,
        }
    }

    /// The last host that was rented for it, at whatever provider.
    pub(super) async fn last_rental(&self, server: &Server) -> anyhow::Result<Option<Rental>> {
        let rentals = self.store().rentals_of(&server.guild, 0).await?;
        Ok(rentals.into_iter().rfind(|rental| rental.server == server.id))
    }

    /// The guild's, of this month.
    pub(super) async fn rentals_this_month(&self, guild: &GuildId) -> anyhow::Result<Vec<Rental>> {
        let zone = &self.engine().spending().zone;
        self.store().rentals_of(guild, Month::of(self.now(), zone).start(zone)).await
    }

    /// Refuses a start that the budgets do not allow, and says by how much. While the caller holds on to the answer,
    /// no other start is looked at: two that fit each, and not both, must see each other's job.
    pub(super) async fn must_be_paid_for(&self, server: &Server) -> Answer<Option<MutexGuard<'_, ()>>> {
        let spending = &self.engine().spending().of(&server.guild);
        let own = server.limits.budget.as_ref();
        if server.backend != Backend::Cloud || (spending.guild.is_empty() && own.is_none()) {
            return Ok(None);
        }
        let one_by_one = self.inner.starts.lock().await;
        let now = self.now();
        let mut rentals = self.rentals_this_month(&server.guild).await?;
        let rented = running(&rentals, server.owned.host.as_ref()).map(|rental| rental.price.clone());
        let rents = rented.is_none();
        let price = match rented {
            Some(price) => price,
            None => match self.quote(server).await? {
                Some(quote) => quote.price,
                None => return Ok(None),
            },
        };
        let promised = self.promised(server, &rentals, now).await?;
        let spent = if promised.is_empty() { "is spent" } else { "is spent or promised to a start that is under way" };
        rentals.extend(promised);
        let all = standings(&server.id, own, spending, &rentals, now);
        match may_start(&all, price.as_ref(), rents, now) {
            Ok(()) => Ok(Some(one_by_one)),
            Err(unpaid) => Err(Refusal::Invalid(refused(server, &unpaid, spent))),
        }
    }

    /// Hosts that are about to be rented for other servers of the guild: what they cost is promised already.
    async fn promised(&self, server: &Server, rentals: &[Rental], now: Ms) -> Answer<Vec<Rental>> {
        let mut promised = vec![];
        for job in self.store().open_jobs_all().await? {
            let Subject::Server(id) = &job.subject else { continue };
            let starts = job.action == Action::Start && job.cancel.is_none();
            if !starts || *id == server.id {
                continue;
            }
            let rents = |other: &Server| {
                other.guild == server.guild
                    && other.backend == Backend::Cloud
                    && running(rentals, other.owned.host.as_ref()).is_none()
            };
            let Some(other) = self.store().server_any(id).await?.filter(rents) else { continue };
            let quote = match self.quote(&other).await {
                // It will rent nothing, so it will cost nothing.
                Err(Refusal::Invalid(_)) => None,
                quote => quote?,
            };
            if let Some(Quote { provider, region, size, price, cpus: _, memory_mb: _ }) = quote {
                promised.push(Rental {
                    provider,
                    host: String::new(),
                    server: other.id,
                    actor: job.actor,
                    region,
                    size,
                    price,
                    began_at: now - 1,
                    ended_at: None,
                });
            }
        }
        Ok(promised)
    }
}

/// A price that cannot be had is something to say too.
fn cost_or_why(price: Answer<Option<StartPrice>>) -> anyhow::Result<Option<StartCost>> {
    match price {
        Ok(price) => Ok(price.map(StartCost::Rents)),
        Err(Refusal::Invalid(why) | Refusal::Busy(why) | Refusal::NotFound(why) | Refusal::NotAllowed(why)) => {
            Ok(Some(StartCost::NotNow { why }))
        }
        Err(Refusal::Ours(error)) => Err(error),
    }
}

/// What a driver says of prices, for people who wait for it.
async fn said_in_time<T>(server: &Server, asked: impl Future<Output = Result<T, StepError>>) -> Answer<T> {
    let said = tokio::time::timeout(QUOTE_LIMIT, asked).await;
    match said.unwrap_or_else(|_| Err(StepError::retry("the provider took too long"))) {
        Ok(said) => Ok(said),
        // A start would end with the same sentence.
        Err(StepError::Fatal(why)) => Err(Refusal::Invalid(format!("{why:#}"))),
        Err(StepError::Retry(error)) => {
            tracing::warn!(server = %server.name, "The price of a start could not be had: {error:#}");
            let why =
                format!("The provider of `{}` does not say now what a host costs. Try again in a minute.", server.name);
            Err(Refusal::Busy(why))
        }
    }
}

/// Why a start cannot be paid for, with the numbers, and who can change that.
fn refused(server: &Server, unpaid: &Unpaid, spent: &str) -> String {
    let owner = |whose| match whose {
        BudgetOf::Guild => "this guild".to_owned(),
        BudgetOf::Server => format!("`{}`", server.name),
    };
    let way_out = |whose| match whose {
        BudgetOf::Guild => "Its operator changes it: `guild_monthly` under [budget] in the configuration.".to_owned(),
        BudgetOf::Server => format!("An admin changes it: `/server settings server:{} variable:budget`.", server.name),
    };
    match unpaid {
        Unpaid::Spent { standing, costs } => {
            let said = |amount| spoken(amount, &standing.budget.currency);
            let least = match costs {
                0 => String::new(),
                costs => {
                    format!(", which leaves {}, and a start costs at least {}", said(standing.left()), said(*costs))
                }
            };
            format!(
                "The budget of {} for {} does not allow a start: {} {spent}{least}. {}",
                owner(standing.whose),
                standing.month.spoken(),
                standing.spoken(),
                way_out(standing.whose)
            )
        }
        Unpaid::OtherCurrency { whose, currency } => format!(
            "A host for `{}` is billed in {currency}, and {} has a budget in another currency only. {}",
            server.name,
            owner(*whose),
            way_out(*whose)
        ),
    }
}

fn in_month(rentals: &[Rental], start: Ms) -> Vec<Rental> {
    rentals.iter().filter(|rental| rental.ended_at.is_none_or(|ended| ended > start)).cloned().collect()
}
