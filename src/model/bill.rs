//! The bill: many rentals summed up by server, person and month, and held to budgets. Pure. A budget counts a calendar
//! month in one currency; what is billed in another one is never counted against it.

use super::access::Actor;
use super::cost::{Micros, Money, Month, Price, Quote, Rental, UNIT_MICROS, running, spoken, unit_end};
use super::host::HostRef;
use super::server::Server;
use super::{GuildId, MINUTE_MS, Ms, ServerId};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A stop is begun so long before a paid unit ends: so long it takes to save a world and see the host go.
pub const STOP_AHEAD_MS: Ms = 5 * MINUTE_MS;

/// Months that a summary lists at most.
pub const MONTHS_LISTED: usize = 12;

/// What may be spent in a calendar month: `10 USD`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub limit: Micros,
    pub currency: String,
}

/// More than this is a slip of the finger.
const BUDGET_MAX: i64 = 100_000;

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Budget, String> {
        let help = || {
            let shown: String = text.chars().filter(|c| *c != '`' && !c.is_control()).take(20).collect();
            format!("`{shown}` is no budget; write an amount and its currency, for instance `10 USD` or `7.50 EUR`")
        };
        let text = text.trim();
        let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(help)?;
        let (amount, currency) = (&text[..at], text[at..].trim());
        let currency = match currency {
            "$" => "USD".to_owned(),
            "€" => "EUR".to_owned(),
            word => word.to_ascii_uppercase(),
        };
        let (whole, rest) = amount.split_once('.').unwrap_or((amount, ""));
        let whole: i64 = whole.parse().map_err(|_| help())?;
        let named = currency.len() == 3 && currency.chars().all(|c| c.is_ascii_uppercase());
        if !named || rest.len() > 2 || amount.ends_with('.') || whole > BUDGET_MAX {
            return Err(help());
        }
        let cents: i64 = format!("{rest:0<2}").parse().map_err(|_| help())?;
        Ok(Budget { limit: whole * UNIT_MICROS + cents * UNIT_MICROS / 100, currency })
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, cents) = (self.limit / UNIT_MICROS, self.limit % UNIT_MICROS * 100 / UNIT_MICROS);
        match cents {
            0 => write!(f, "{whole} {}", self.currency),
            cents => write!(f, "{whole}.{cents:02} {}", self.currency),
        }
    }
}

/// What the operator decided about money.
#[derive(Clone, Debug)]
pub struct Spending {
    /// Whose midnight a month begins at.
    pub zone: TimeZone,
    /// What each guild may spend in a month, one for each currency; empty: as much as it likes.
    pub guild: Vec<Budget>,
    /// Guilds that have amounts of their own instead.
    pub own: BTreeMap<GuildId, Vec<Budget>>,
    /// People are warned when so much of a budget is spent.
    pub warn_percent: u32,
    /// Stops that nobody waits for come at the end of the unit that is paid for anyway.
    pub stop_at_unit: bool,
}

impl Default for Spending {
    fn default() -> Spending {
        Spending { zone: TimeZone::UTC, guild: vec![], own: BTreeMap::new(), warn_percent: 80, stop_at_unit: false }
    }
}

impl Spending {
    /// What holds for one guild.
    pub fn of(&self, guild: &GuildId) -> Spending {
        let guild = self.own.get(guild).unwrap_or(&self.guild).clone();
        Spending { guild, own: BTreeMap::new(), ..self.clone() }
    }

    /// Takes in one amount of the configuration: `10 USD` for each guild, or `GUILD_ID: 20 USD` for one.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn add_guild_budget(&mut self, text: &str) -> Result<(), String> {
        let (of, budgets, amount) = match text.split_once(':') {
            None => ("every guild".to_owned(), &mut self.guild, text),
            Some((id, amount)) => {
                let id = id.trim();
                if id.is_empty() || !id.chars().all(|c| c.is_ascii_digit()) {
                    return Err(format!("`{id}` is no id of a guild; write for instance `112233445566778899: 20 USD`"));
                }
                (format!("guild {id}"), self.own.entry(GuildId(id.to_owned())).or_default(), amount)
            }
        };
        let budget: Budget = amount.trim().parse()?;
        if budgets.iter().any(|other| other.currency == budget.currency) {
            return Err(format!("there are two amounts in {} for {of}; leave one", budget.currency));
        }
        budgets.push(budget);
        Ok(())
    }
}

/// Whose budget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetOf {
    Guild,
    Server,
}

/// How a budget stands for one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub whose: BudgetOf,
    pub budget: Budget,
    pub month: Month,
    /// Billed so far, units that were begun as whole ones.
    pub spent: Micros,
    /// What begins within [`STOP_AHEAD_MS`] if nothing stops.
    pub ahead: Micros,
    /// The part of that which this server would add.
    pub own_ahead: Micros,
}

impl Standing {
    /// Whether this server must stop, so that the budget holds. One that sits in a unit that is paid for may use it.
    pub fn is_spent(&self) -> bool {
        self.spent > self.budget.limit || (self.own_ahead > 0 && self.spent + self.ahead > self.budget.limit)
    }

    /// Of the budget, rounded down.
    pub fn percent(&self) -> i64 {
        match self.budget.limit {
            0 => 100,
            limit => (i128::from(self.spent) * 100 / i128::from(limit)) as i64,
        }
    }

    /// What is left of it.
    pub fn left(&self) -> Micros {
        (self.budget.limit - self.spent).max(0)
    }

    /// "8.10 $ of 10.00 $".
    pub fn spoken(&self) -> String {
        let said = |amount| spoken(amount, &self.budget.currency);
        format!("{} of {}", said(self.spent), said(self.budget.limit))
    }
}

/// The budgets that bind one server. `rentals` are the guild's of this month.
pub fn standings(
    server: &ServerId,
    own: Option<&Budget>,
    spending: &Spending,
    rentals: &[Rental],
    now: Ms,
) -> Vec<Standing> {
    let month = Month::of(now, &spending.zone);
    let soon = now + STOP_AHEAD_MS;
    let standing = |whose, budget: &Budget| {
        let counts = |rental: &&Rental| match whose {
            BudgetOf::Guild => true,
            BudgetOf::Server => rental.server == *server,
        };
        let mut standing = Standing { whose, budget: budget.clone(), month, spent: 0, ahead: 0, own_ahead: 0 };
        let priced = rentals.iter().filter(counts).filter(|rental| rental.currency() == Some(&budget.currency));
        for rental in priced {
            let spent = rental.in_month(month, now, &spending.zone);
            let ahead = rental.in_month(month, soon, &spending.zone) - spent;
            standing.spent += spent;
            standing.ahead += ahead;
            standing.own_ahead += if rental.server == *server { ahead } else { 0 };
        }
        standing
    };
    let guild = spending.guild.iter().map(|budget| standing(BudgetOf::Guild, budget));
    let own = own.map(|budget| standing(BudgetOf::Server, budget));
    guild.chain(own).collect()
}

/// Why a start cannot be paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpaid {
    Spent {
        standing: Standing,
        /// The least that the start would add: what is billed as soon as a host exists. 0 where one does.
        costs: Micros,
    },
    /// There are budgets, and none in the currency that this host is billed in.
    OtherCurrency { whose: BudgetOf, currency: String },
}

/// Whether a host at this price may be rented now, or one that is there already be used.
pub fn may_start(standings: &[Standing], price: Option<&Price>, rents: bool, now: Ms) -> Result<(), Unpaid> {
    let first = |price: &Price| if rents { price.of(now, now + STOP_AHEAD_MS) } else { 0 };
    for whose in [BudgetOf::Server, BudgetOf::Guild] {
        let of: Vec<&Standing> = standings.iter().filter(|standing| standing.whose == whose).collect();
        for standing in &of {
            let own = price.filter(|price| price.currency == standing.budget.currency).map_or(0, first);
            if standing.spent + own > standing.budget.limit || standing.is_spent() {
                return Err(Unpaid::Spent { standing: (*standing).clone(), costs: own });
            }
        }
        let covers = |price: &Price| of.iter().any(|standing| standing.budget.currency == price.currency);
        if let Some(price) = price.filter(|price| !of.is_empty() && !covers(price)) {
            return Err(Unpaid::OtherCurrency { whose, currency: price.currency.clone() });
        }
    }
    Ok(())
}

/// The unit of time that a host is paid by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    pub began_at: Ms,
    pub unit_ms: Ms,
}

impl Unit {
    /// When to begin a stop that is due then: shortly before the unit ends that is paid for at that moment.
    pub fn stop_at(&self, due: Ms) -> Ms {
        (unit_end(self.began_at, self.unit_ms, due) - STOP_AHEAD_MS).max(due)
    }
}

/// What reconciling one server must know about its bill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bill {
    /// Where stops wait for the end of a unit: the unit.
    pub unit: Option<Unit>,
    /// A budget that is spent.
    pub spent: Option<Standing>,
    /// That it is spent was told already.
    pub spent_told: bool,
    /// A budget of which so much is spent that people should hear, and have not heard.
    pub warn: Option<Standing>,
}

impl Bill {
    pub fn stop_at(&self, due: Ms) -> Ms {
        self.unit.map_or(due, |unit| unit.stop_at(due))
    }
}

/// What a start costs, for people who are about to ask for one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartPrice {
    pub quote: Quote,
    /// How long the start lasts unless it is extended; `None`: for ever.
    pub lease_ms: Option<Ms>,
    /// What all of that time costs at most; of a lease for ever, one month.
    pub at_most: Option<Micros>,
}

/// What a server without a host says about its next start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartCost {
    Rents(StartPrice),
    /// No host is to be had, or nobody knows at what price; a sentence that says why.
    NotNow {
        why: String,
    },
}

pub fn start_price(quote: Quote, lease_ms: Option<Ms>, now: Ms, zone: &TimeZone) -> StartPrice {
    let at_most = quote.price.as_ref().map(|price| match lease_ms {
        Some(lease) => price.capped(now, now + lease, zone),
        None => price.whole_month(Month::of(now, zone), zone),
    });
    StartPrice { quote, lease_ms, at_most }
}

/// What a server's host bills, for a panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Billing {
    /// A host exists and bills, whatever the game does. Only the provider's word that it is gone ends that.
    pub on: bool,
    pub since: Option<Ms>,
    /// `None` where the price is unknown, or nothing bills.
    pub price: Option<Price>,
    /// What this host has cost so far.
    pub so_far: Option<Micros>,
    /// What the server has cost in this calendar month, this host and earlier ones.
    pub month: Money,
    /// A stop is due, and waits until then because the time is paid for anyway.
    pub stop_waits_until: Option<Ms>,
}

/// The bill of one server. `None` where it has rented nothing this month.
pub fn billing(
    server: &ServerId,
    host: Option<&HostRef>,
    rentals: &[Rental],
    now: Ms,
    zone: &TimeZone,
) -> Option<Billing> {
    let own: Vec<&Rental> = rentals.iter().filter(|rental| rental.server == *server).collect();
    // Where it has none, something that it left behind may bill.
    let open = running(rentals, host).or_else(|| own.iter().copied().find(|rental| rental.ended_at.is_none()));
    let month = Month::of(now, zone);
    let mut spent = Money::default();
    for rental in &own {
        rental.add_to(&mut spent, month, now, zone);
    }
    if open.is_none() && spent.is_nothing() {
        return None;
    }
    Some(Billing {
        on: open.is_some(),
        since: open.map(|rental| rental.began_at),
        price: open.and_then(|rental| rental.price.clone()),
        so_far: open.and_then(|rental| rental.so_far(now, zone)),
        month: spent,
        stop_waits_until: None,
    })
}

/// The answer to `/cost`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CostView {
    pub month: Month,
    pub total: Money,
    /// What the same servers would have cost on hosts that are on for the whole month.
    pub always_on: Money,
    pub servers: Vec<ServerCost>,
    pub people: Vec<PersonCost>,
    /// The months before and this one, the newest first, where something was billed.
    pub months: Vec<(Month, Money)>,
    /// How budgets stand now, with the server's name where it is a server's.
    pub budgets: Vec<(Option<String>, Standing)>,
    /// Hosts that are still there, and bill, though their server has them no longer.
    #[serde(default)]
    pub left: Vec<LeftHost>,
    #[serde(default)]
    pub kinds: Kinds,
}

/// A host that somebody went on without seeing go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftHost {
    /// The name of the server that it was rented for.
    pub server: String,
    /// That server is deleted; otherwise it was moved away.
    pub deleted: bool,
    pub provider: String,
    pub host: String,
}

/// Where servers can run here, for saying what costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds {
    pub containers: bool,
    pub own_machines: bool,
    pub rented_hosts: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerCost {
    pub name: String,
    pub deleted: bool,
    pub amount: Money,
    /// How long its hosts were there.
    pub time_ms: Ms,
    pub always_on: Money,
    /// A host of it bills now.
    pub billing: bool,
    /// It had hosts whose price nobody knows: the amount is less than what was paid.
    pub unpriced: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PersonCost {
    pub actor: Actor,
    pub amount: Money,
    pub time_ms: Ms,
}

/// What is summed up: rentals that were asked about, and what to call their servers.
pub struct Ledger<'a> {
    pub rentals: &'a [Rental],
    /// Name, and whether it is deleted.
    pub names: &'a BTreeMap<ServerId, (String, bool)>,
    pub month: Month,
    pub now: Ms,
    pub zone: &'a TimeZone,
}

/// Sums up one month, and names the others. Budgets and what was left behind are for the caller to add.
pub fn cost(ledger: &Ledger<'_>) -> CostView {
    let Ledger { rentals, names, month, now, zone } = *ledger;
    let mut servers: BTreeMap<&ServerId, ServerCost> = BTreeMap::new();
    let mut people: BTreeMap<String, PersonCost> = BTreeMap::new();
    let mut months: BTreeMap<Month, Money> = BTreeMap::new();
    let mut total = Money::default();
    for rental in rentals {
        for touched in rental.months(now, zone) {
            rental.add_to(months.entry(touched).or_default(), touched, now, zone);
        }
        let time_ms = rental.time_in_month(month, now, zone);
        if time_ms == 0 && rental.in_month(month, now, zone) == 0 {
            continue;
        }
        rental.add_to(&mut total, month, now, zone);
        let person = people.entry(person(&rental.actor)).or_insert_with(|| PersonCost {
            actor: rental.actor.clone(),
            amount: Money::default(),
            time_ms: 0,
        });
        rental.add_to(&mut person.amount, month, now, zone);
        person.time_ms += time_ms;
        // The name that they had last.
        person.actor = rental.actor.clone();
        let server = servers.entry(&rental.server).or_insert_with(|| {
            let (name, deleted) = names.get(&rental.server).cloned().unwrap_or((rental.server.0.clone(), true));
            ServerCost {
                name,
                deleted,
                amount: Money::default(),
                time_ms: 0,
                always_on: Money::default(),
                billing: false,
                unpriced: false,
            }
        });
        rental.add_to(&mut server.amount, month, now, zone);
        server.time_ms += time_ms;
        server.billing |= rental.ended_at.is_none();
        match &rental.price {
            // The last price is the one that it would be rented at for the whole month.
            Some(price) => {
                server.always_on = Money::default();
                server.always_on.add(&price.currency, price.whole_month(month, zone));
            }
            None => server.unpriced = true,
        }
    }
    let mut always_on = Money::default();
    for server in servers.values() {
        always_on.add_all(&server.always_on);
    }
    let mut servers: Vec<ServerCost> = servers.into_values().collect();
    servers.sort_by_key(|server| std::cmp::Reverse(server.time_ms));
    let mut people: Vec<PersonCost> = people.into_values().collect();
    people.sort_by_key(|person| std::cmp::Reverse(person.time_ms));
    let months = months.into_iter().rev().filter(|(_, amount)| !amount.is_nothing()).take(MONTHS_LISTED).collect();
    let (budgets, left) = (vec![], vec![]);
    CostView { month, total, always_on, servers, people, months, budgets, left, kinds: Kinds::default() }
}

/// What was left behind and still bills, as far as it was rented for these servers.
pub fn left(rentals: &[Rental], servers: &[&Server]) -> Vec<LeftHost> {
    let left_by = |rental: &Rental| {
        let server = servers.iter().find(|server| server.id == rental.server)?;
        Some(LeftHost {
            server: server.name.to_string(),
            deleted: server.deleted_at.is_some(),
            provider: rental.provider.clone(),
            host: rental.host.clone(),
        })
    };
    rentals.iter().filter_map(left_by).collect()
}

/// What more time costs for a host that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum More {
    Costs {
        amount: Micros,
        currency: String,
    },
    /// The unit that was begun lasts as long, or the month has reached its cap.
    Nothing,
    /// Nobody knows its price.
    Unknown,
}

/// What a host costs more when it is there until `until` in the place of `from`.
pub fn longer(rental: &Rental, from: Ms, until: Ms, zone: &TimeZone) -> More {
    let Some(price) = &rental.price else { return More::Unknown };
    match price.capped(rental.began_at, until, zone) - price.capped(rental.began_at, from, zone) {
        amount if amount > 0 => More::Costs { amount, currency: price.currency.clone() },
        _ => More::Nothing,
    }
}

/// What tells people apart: in Discord their id, since names change.
fn person(actor: &Actor) -> String {
    match actor {
        Actor::Discord { id, .. } => format!("discord {id}"),
        Actor::Token { name } => format!("token {name}"),
        Actor::Schedule { name, .. } => format!("schedule {name}"),
        Actor::Watcher => "watcher".to_owned(),
        Actor::Operator => "operator".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HOUR_MS;

    const MONTH: &str = "2026-11";

    fn start() -> Ms {
        Month::parse(MONTH).unwrap().start(&TimeZone::UTC)
    }

    fn price(hourly: Micros, currency: &str) -> Price {
        Price { hourly, monthly: None, currency: currency.into(), unit_ms: HOUR_MS }
    }

    /// From and to in minutes since the month began.
    fn rental(server: &str, who: &str, price: Price, from: i64, to: Option<i64>) -> Rental {
        Rental {
            provider: "linode".into(),
            host: format!("{server} {from}"),
            server: ServerId(server.into()),
            actor: Actor::Discord { id: who.into(), name: format!("{who}'s name") },
            region: "eu".into(),
            size: "small".into(),
            price: Some(price),
            began_at: start() + from * MINUTE_MS,
            ended_at: to.map(|to| start() + to * MINUTE_MS),
        }
    }

    fn budget(text: &str) -> Budget {
        text.parse().unwrap()
    }

    #[test]
    fn budgets_are_read_as_people_write_them() {
        for (text, limit, shown) in [
            ("10 USD", 10_000_000, "10 USD"),
            ("10USD", 10_000_000, "10 USD"),
            (" 7.5 eur ", 7_500_000, "7.50 EUR"),
            ("0.05 $", 50_000, "0.05 USD"),
            ("3 €", 3_000_000, "3 EUR"),
            ("0 USD", 0, "0 USD"),
        ] {
            let read = budget(text);
            assert_eq!((read.limit, read.to_string().as_str()), (limit, shown), "{text}");
            assert_eq!(budget(&read.to_string()), read);
        }
        for text in
            ["", "10", "USD", "-1 USD", "1.234 USD", "1. USD", "10 dollars", "1e9 USD", "9999999 USD", "1,5 EUR"]
        {
            let why = text.parse::<Budget>().expect_err(text);
            assert!(why.contains("10 USD"), "{why}");
        }
    }

    #[test]
    fn a_guild_with_amounts_of_its_own_follows_those_alone() {
        let mut spending = Spending::default();
        for text in ["10 USD", "8.50 EUR", "112233445566778899: 20 USD", "42 : 0 USD", "42: 1 CHF"] {
            spending.add_guild_budget(text).unwrap();
        }
        let of = |id: &str| spending.of(&GuildId(id.into())).guild.iter().map(Budget::to_string).collect::<Vec<_>>();
        assert_eq!(of("7"), ["10 USD", "8.50 EUR"]);
        assert_eq!(of("112233445566778899"), ["20 USD"]);
        assert_eq!(of("42"), ["0 USD", "1 CHF"]);
        for (text, why) in [
            ("3 USD", "two amounts in USD for every guild"),
            ("42: 3 chf", "two amounts in CHF for guild 42"),
            ("friends: 3 USD", "`friends` is no id of a guild"),
            (": 3 USD", "`` is no id of a guild"),
            ("42: lots", "`lots` is no budget"),
        ] {
            let error = spending.clone().add_guild_budget(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    /// A limit of 0.05 $, at 0.01 $ for each hour that was begun: five hours, and not a minute of the sixth.
    #[test]
    fn a_budget_is_spent_before_the_unit_begins_that_would_break_it() {
        let spending = Spending { guild: vec![budget("0.05 USD")], ..Spending::default() };
        let rentals = [rental("a", "9", price(10_000, "USD"), 0, None)];
        let spent = |minute: i64| {
            let now = start() + minute * MINUTE_MS;
            let all = standings(&ServerId("a".into()), None, &spending, &rentals, now);
            (all[0].percent(), all[0].is_spent())
        };
        let table = [(1, 20, false), (60, 20, false), (61, 40, false), (240, 80, false), (241, 100, false)];
        for (minute, percent, is_spent) in table {
            assert_eq!(spent(minute), (percent, is_spent), "minute {minute}");
        }
        assert_eq!(spent(295), (100, false), "what is paid for may be used");
        assert_eq!(spent(296), (100, true), "the sixth hour would begin within the time that a stop takes");
        assert_eq!(spent(301), (120, true));
    }

    #[test]
    fn a_guilds_budget_counts_all_its_servers_and_stops_those_that_would_break_it() {
        let spending = Spending { guild: vec![budget("0.04 USD"), budget("1 EUR")], ..Spending::default() };
        let rentals = [
            rental("a", "9", price(10_000, "USD"), 0, None),
            rental("b", "9", price(10_000, "USD"), 30, None),
            rental("c", "9", price(900_000, "EUR"), 0, None),
            rental("gone", "9", price(10_000, "USD"), 0, Some(10)),
        ];
        let now = start() + 57 * MINUTE_MS;
        let of = |server: &str| standings(&ServerId(server.into()), None, &spending, &rentals, now);
        assert_eq!(of("a")[0].spent, 30_000);
        assert!(
            of("a").iter().chain(&of("b")).chain(&of("c")).all(|one| !one.is_spent() || one.budget.currency == "EUR")
        );
        assert!(of("c")[1].is_spent(), "its second hour would be 1.80 €");
        assert!(!of("a")[1].is_spent(), "dollars do not count there");
        // At the end of the second hour of `a`, 0.05 $ would be too much; `b` sits in an hour that is paid for.
        let tight = Spending { guild: vec![budget("0.05 USD")], ..spending.clone() };
        let later = start() + 117 * MINUTE_MS;
        let of = |server: &str| standings(&ServerId(server.into()), None, &tight, &rentals, later);
        assert_eq!((of("a")[0].spent, of("a")[0].is_spent(), of("b")[0].is_spent()), (50_000, true, false));
        // A server's own budget counts that server alone.
        let own = standings(&ServerId("b".into()), Some(&budget("0.02 USD")), &Spending::default(), &rentals, now);
        assert_eq!((own.len(), own[0].whose, own[0].spent), (1, BudgetOf::Server, 10_000));
    }

    #[test]
    fn a_new_month_begins_with_nothing_spent() {
        let spending = Spending { guild: vec![budget("0.01 USD")], ..Spending::default() };
        let rentals = [rental("a", "9", price(10_000, "USD"), -600, Some(-1))];
        let id = ServerId("a".into());
        let (before, after) = (start() - 1, start() + 1);
        assert!(standings(&id, None, &spending, &rentals, before)[0].is_spent());
        assert_eq!(standings(&id, None, &spending, &rentals, after)[0].spent, 0);
    }

    #[test]
    fn a_start_that_cannot_be_paid_for_is_refused() {
        let now = start() + 30 * MINUTE_MS;
        let rentals = [rental("a", "9", price(10_000, "USD"), 0, None)];
        let check = |own: Option<&str>, guild: &[&str], price: Price, rents| {
            let spending = Spending { guild: guild.iter().map(|text| budget(text)).collect(), ..Spending::default() };
            let own = own.map(budget);
            let all = standings(&ServerId("b".into()), own.as_ref(), &spending, &rentals, now);
            match may_start(&all, Some(&price), rents, now) {
                Ok(()) => "may".to_owned(),
                Err(Unpaid::Spent { standing, costs }) => {
                    format!("{:?} {}, costs {}", standing.whose, standing.spoken(), spoken(costs, "USD"))
                }
                Err(Unpaid::OtherCurrency { whose, currency }) => format!("{whose:?} has none in {currency}"),
            }
        };
        let dollars = |hourly| price(hourly, "USD");
        assert_eq!(check(None, &[], dollars(10_000), true), "may");
        assert_eq!(check(None, &["0.02 USD"], dollars(10_000), true), "may");
        assert_eq!(check(None, &["0.02 USD"], dollars(20_000), true), "Guild 0.01 $ of 0.02 $, costs 0.02 $");
        assert_eq!(check(None, &["0.02 USD"], dollars(20_000), false), "may", "its host is there and paid for");
        assert_eq!(check(None, &["0 USD"], dollars(1), false), "Guild 0.01 $ of 0.00 $, costs 0.00 $");
        assert_eq!(check(Some("0.01 USD"), &["1 USD"], dollars(20_000), true), "Server 0.00 $ of 0.01 $, costs 0.02 $");
        assert_eq!(check(None, &["1 EUR"], dollars(1), true), "Guild has none in USD");
        assert_eq!(check(None, &["1 EUR", "1 USD"], dollars(1), true), "may");
    }

    #[test]
    fn a_stop_waits_for_the_end_of_the_unit_and_never_longer() {
        let unit = Unit { began_at: 0, unit_ms: HOUR_MS };
        for (due, stop) in [(0, 55), (1, 55), (55, 55), (57, 57), (60, 60), (61, 115), (119, 119)] {
            assert_eq!(unit.stop_at(due * MINUTE_MS), stop * MINUTE_MS, "due at minute {due}");
        }
        let by_second = Unit { began_at: 0, unit_ms: 1000 };
        assert_eq!(by_second.stop_at(61_500), 61_500);
        assert_eq!(Bill::default().stop_at(7), 7);
    }

    #[test]
    fn what_a_start_costs_is_known_before_it() {
        let quote = |price| Quote {
            provider: "fake".into(),
            region: "here".into(),
            size: "small".into(),
            cpus: None,
            memory_mb: None,
            price,
        };
        let at_most = |price, lease: Option<i64>| {
            start_price(quote(price), lease.map(|hours| hours * HOUR_MS), start(), &TimeZone::UTC).at_most
        };
        assert_eq!(at_most(Some(price(20_000, "USD")), Some(12)), Some(240_000));
        assert_eq!(at_most(Some(price(20_000, "USD")), None), Some(30 * 24 * 20_000));
        let capped = Price { monthly: Some(100_000), ..price(20_000, "USD") };
        assert_eq!(at_most(Some(capped), Some(12)), Some(100_000));
        assert_eq!(at_most(None, Some(12)), None);
    }

    #[test]
    fn the_meter_runs_as_long_as_a_host_exists() {
        let rentals =
            [rental("a", "9", price(10_000, "USD"), 0, Some(30)), rental("a", "9", price(20_000, "USD"), 100, None)];
        let bill = |server: &str, rentals: &[Rental]| {
            billing(&ServerId(server.into()), None, rentals, start() + 170 * MINUTE_MS, &TimeZone::UTC)
        };
        let on = bill("a", &rentals).unwrap();
        assert_eq!((on.on, on.so_far, on.month.spoken().as_str()), (true, Some(40_000), "0.05 $"));
        let off = bill("a", &rentals[..1]).unwrap();
        assert_eq!((off.on, off.so_far, off.month.spoken().as_str()), (false, None, "0.01 $"));
        assert_eq!(bill("b", &rentals), None);
        let unpriced = [Rental { price: None, ..rentals[1].clone() }];
        let unknown = bill("a", &unpriced).unwrap();
        assert_eq!((unknown.on, unknown.so_far), (true, None), "unknown is not zero, and not off");
    }

    #[test]
    fn a_month_is_summed_up_by_server_and_person_and_currencies_stay_apart() {
        let rentals = [
            rental("a", "alice", price(10_000, "USD"), -120, Some(-60)),
            rental("a", "alice", price(10_000, "USD"), 0, Some(90)),
            rental("a", "bob", price(10_000, "USD"), 200, Some(201)),
            rental("b", "alice", price(6_000, "EUR"), 0, Some(600)),
            Rental { price: None, ..rental("c", "bob", price(1, "EUR"), 10, None) },
        ];
        let names = [("a", "world", false), ("b", "old", true), ("c", "new", false)];
        let names = names.map(|(id, name, deleted)| (ServerId(id.into()), (name.to_owned(), deleted))).into();
        let month = Month::parse(MONTH).unwrap();
        let ledger = Ledger {
            rentals: &rentals,
            names: &names,
            month,
            now: start() + 70 * MINUTE_MS * 10,
            zone: &TimeZone::UTC,
        };
        let view = cost(&ledger);
        let mut text = format!("{} always on {}\n", view.total.spoken(), view.always_on.spoken());
        for one in &view.servers {
            let ServerCost { name, deleted, time_ms, billing, unpriced, .. } = one;
            let (amount, always_on, minutes) = (one.amount.spoken(), one.always_on.spoken(), time_ms / MINUTE_MS);
            text += &format!("{name} {amount} {minutes} min, always on {always_on}; {deleted} {billing} {unpriced}\n");
        }
        for one in &view.people {
            text += &format!("{} {} {} min\n", one.actor.name(), one.amount.spoken(), one.time_ms / MINUTE_MS);
        }
        for (month, amount) in &view.months {
            text += &format!("{month} {}\n", amount.spoken());
        }
        insta::assert_snapshot!(text, @r"
        0.06 € and 0.03 $ always on 4.32 € and 7.20 $
        new nothing 690 min, always on nothing; false true true
        old 0.06 € 600 min, always on 4.32 €; true false false
        world 0.03 $ 91 min, always on 7.20 $; false false false
        bob's name 0.01 $ 691 min
        alice's name 0.06 € and 0.02 $ 690 min
        2026-11 0.06 € and 0.03 $
        2026-10 0.01 $
        ");
    }
}
