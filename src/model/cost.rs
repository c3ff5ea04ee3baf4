//! Money: what a host costs, what one has cost so far, and in which month. Pure arithmetic over the provider's price
//! and two moments. Amounts are whole millionths of a unit of currency, because a rate like 0.0063 has no place in
//! cents. Different currencies are never added. `bill` makes sums of many rentals and holds them to budgets.

use super::access::Actor;
use super::host::{HostRef, OWN_MACHINE};
use super::server::Server;
use super::{HOUR_MS, Ms, ServerId, lease};
use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Millionths of a unit of currency.
pub type Micros = i64;

/// One unit of a currency: a dollar, a euro.
pub const UNIT_MICROS: Micros = 1_000_000;

/// What a host costs, as its provider's API said when it was rented.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    pub hourly: Micros,
    /// A month never costs more than this, where the provider caps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<Micros>,
    /// `USD`, `EUR`.
    pub currency: String,
    /// The smallest time that is billed: an hour that was begun costs a whole one where this is an hour.
    pub unit_ms: Ms,
}

impl Price {
    /// What the time from `from` to `to` costs, in units that were begun. Nothing where no time has passed.
    pub fn of(&self, from: Ms, to: Ms) -> Micros {
        self.of_units(self.units(from, to))
    }

    /// How many units had been begun at `at`, counted from `began`.
    fn units(&self, began: Ms, at: Ms) -> i64 {
        units(began, self.unit_ms, at)
    }

    fn of_units(&self, units: i64) -> Micros {
        // In i128: a year of milliseconds times a price in millionths does not fit into 64 bits for certain.
        (i128::from(units) * i128::from(self.unit_ms) * i128::from(self.hourly) / i128::from(HOUR_MS)) as Micros
    }

    /// What a host costs that is on for the whole of a month.
    pub fn whole_month(&self, month: Month, zone: &TimeZone) -> Micros {
        let whole = self.of(month.start(zone), month.next().start(zone));
        self.monthly.unwrap_or(whole)
    }

    /// What the time from `from` to `to` costs, with the cap of each month.
    pub fn capped(&self, from: Ms, to: Ms, zone: &TimeZone) -> Micros {
        Month::between(from, to, zone).map(|month| self.in_month(from, to, month, zone)).sum()
    }

    /// The part of that which falls into one month. A unit belongs to the month in which it begins.
    fn in_month(&self, began: Ms, to: Ms, month: Month, zone: &TimeZone) -> Micros {
        let (start, end) = (month.start(zone), month.next().start(zone));
        let units = self.units(began, to.min(end)) - self.units(began, to.min(start));
        let amount = self.of_units(units);
        self.monthly.map_or(amount, |cap| amount.min(cap))
    }
}

fn units(began: Ms, unit_ms: Ms, at: Ms) -> i64 {
    if at <= began || unit_ms <= 0 {
        return 0;
    }
    (at - began - 1) / unit_ms + 1
}

/// When the unit that is paid for at `at` ends, for a host that has billed since `began`.
pub fn unit_end(began: Ms, unit_ms: Ms, at: Ms) -> Ms {
    // At the very moment where one ends, the next one has not begun.
    began + units(began, unit_ms, at).max(1) * unit_ms
}

/// What a start would rent, as the provider offers it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub provider: String,
    pub region: String,
    pub size: String,
    /// What the size has; `None` where nobody says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// `None` for a machine of your own: nobody sends a bill for it.
    pub price: Option<Price>,
}

impl Quote {
    /// `4 GB, 2 CPUs`; `None` where nobody says.
    pub fn equipment(&self) -> Option<String> {
        let cpus = self.cpus.map(|cpus| if cpus == 1 { "1 CPU".to_owned() } else { format!("{cpus} CPUs") });
        let memory = self.memory_mb.map(|mb| match mb % 1024 {
            0 => format!("{} GB", mb / 1024),
            _ => format!("{mb} MB"),
        });
        let has: Vec<String> = [memory, cpus].into_iter().flatten().collect();
        Some(has.join(", ")).filter(|has| !has.is_empty())
    }
}

/// What a start would rent, or could not, takes a person's yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instead {
    /// Whose hosts this server has.
    pub provider: String,
    /// A sentence.
    pub why: String,
    /// The price that people know; or, where nobody told them one, that of the list.
    pub known: Option<Price>,
    pub others: Vec<Other>,
    /// The usual one is on its provider's list, and was refused a while ago; it may be there again.
    pub refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    pub quote: Quote,
    /// People or the operator have named another size, region or provider.
    pub named: bool,
    /// It is the usual one, whose price has risen: even if nothing was sold out, there would be no cheaper one.
    pub usual: bool,
}

/// Who to rent from, where neither people nor the configuration name a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cheapest {
    pub quote: Quote,
    /// The cheapest in each other currency. Which of them costs less nobody here can say.
    pub incomparable: Vec<Quote>,
    /// Providers that did not say what they have, and are left out.
    pub silent: Vec<String>,
}

/// Of these the cheapest, and that of each other currency. Between currencies the provider's name decides: it says nothing
/// about the price, and it is the same tomorrow. `None` where nothing has a price.
pub fn cheapest(mut quotes: Vec<Quote>) -> Option<(Quote, Vec<Quote>)> {
    quotes.retain(|quote| quote.price.is_some());
    let hourly = |quote: &Quote| quote.price.as_ref().map(|price| price.hourly);
    quotes.sort_by(|a, b| (hourly(a), &a.provider).cmp(&(hourly(b), &b.provider)));
    let mut currencies = BTreeSet::new();
    quotes.retain(|quote| quote.price.as_ref().is_some_and(|price| currencies.insert(price.currency.clone())));
    quotes.sort_by(|a, b| a.provider.cmp(&b.provider));
    let mut quotes = quotes.into_iter();
    Some((quotes.next()?, quotes.collect()))
}

/// A host that was rented, for the bill. It goes on until the provider says that the host is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rental {
    pub provider: String,
    pub host: String,
    pub server: ServerId,
    /// Who asked for the job that brought it.
    pub actor: Actor,
    pub region: String,
    pub size: String,
    /// `None` where the provider did not say: it bills, and nobody knows how much. Unknown is not zero.
    pub price: Option<Price>,
    pub began_at: Ms,
    pub ended_at: Option<Ms>,
}

impl Rental {
    /// What it has cost until `now`.
    pub fn so_far(&self, now: Ms, zone: &TimeZone) -> Option<Micros> {
        self.price.as_ref().map(|price| price.capped(self.began_at, self.until(now), zone))
    }

    /// The same for people: "0.24 €". `None` where nobody knows.
    pub fn spoken_cost(&self, now: Ms, zone: &TimeZone) -> Option<String> {
        Some(spoken(self.so_far(now, zone)?, self.currency()?))
    }

    /// With the time that it was there: "0.24 € for 23 h".
    pub fn spoken_cost_and_time(&self, now: Ms, zone: &TimeZone) -> Option<String> {
        let time = lease::spoken(self.until(now) - self.began_at);
        Some(format!("{} for {time}", self.spoken_cost(now, zone)?))
    }

    /// The part of it that fell into a month, as far as it was billed at `now`.
    pub fn in_month(&self, month: Month, now: Ms, zone: &TimeZone) -> Micros {
        self.price.as_ref().map_or(0, |price| price.in_month(self.began_at, self.until(now), month, zone))
    }

    /// How long it was there within a month.
    pub fn time_in_month(&self, month: Month, now: Ms, zone: &TimeZone) -> Ms {
        let (from, to) = (self.began_at.max(month.start(zone)), self.until(now).min(month.next().start(zone)));
        (to - from).max(0)
    }

    /// The months that it touches.
    pub fn months(&self, now: Ms, zone: &TimeZone) -> impl Iterator<Item = Month> {
        Month::between(self.began_at, self.until(now), zone)
    }

    pub fn currency(&self) -> Option<&String> {
        self.price.as_ref().map(|price| &price.currency)
    }

    /// Adds what fell into a month to a sum.
    pub fn add_to(&self, sum: &mut Money, month: Month, now: Ms, zone: &TimeZone) {
        if let Some(currency) = self.currency() {
            sum.add(currency, self.in_month(month, now, zone));
        }
    }

    fn until(&self, now: Ms) -> Ms {
        self.ended_at.map_or(now, |ended| ended.min(now))
    }

    fn is_of(&self, host: &HostRef) -> bool {
        self.provider == host.provider && self.host == host.id
    }

    fn is_for(&self, host: &HostRef) -> bool {
        self.ended_at.is_none() && self.is_of(host)
    }

    /// It goes on, and its server has no such host: somebody deleted or moved it without seeing that host go.
    pub fn is_left(&self, server: &Server) -> bool {
        let own = server.owned.host.as_ref().filter(|_| server.deleted_at.is_none());
        self.ended_at.is_none() && !own.is_some_and(|host| self.is_for(host))
    }
}

/// The bill of the host that a server has. What it left behind bills beside that.
pub fn running<'a>(rentals: &'a [Rental], host: Option<&HostRef>) -> Option<&'a Rental> {
    rentals.iter().find(|rental| host.is_some_and(|host| rental.is_for(host)))
}

/// The bill of a host, whether or not it has ended.
pub fn bill_of<'a>(rentals: &'a [Rental], host: &HostRef) -> Option<&'a Rental> {
    rentals.iter().rfind(|rental| rental.is_of(host))
}

/// What a change of a server's host means for its bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// The host before is no longer paid for.
    pub ends: bool,
    /// The host now is paid for from here on.
    pub begins: bool,
    /// The same host, and what it costs became known.
    pub priced: bool,
}

/// Compares what a server had on record with what it has now. A machine of your own is never rented.
pub fn turn(before: Option<&HostRef>, now: Option<&HostRef>) -> Turn {
    let rented = |host: Option<&HostRef>| host.is_some_and(|host| host.provider != OWN_MACHINE);
    let name = |host: Option<&HostRef>| host.map(|host| (host.provider.clone(), host.id.clone()));
    let same = name(before) == name(now);
    let price = |host: Option<&HostRef>| host.is_some_and(|host| host.price.is_some());
    Turn {
        ends: rented(before) && !same,
        begins: rented(now) && !same,
        priced: rented(now) && same && price(now) && !price(before),
    }
}

/// A calendar month in somebody's time zone: `2026-11`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Month {
    year: i16,
    month: i8,
}

/// Months outside of these are no months that anybody pays for.
const YEARS: std::ops::RangeInclusive<i16> = 1970..=9000;

impl Month {
    pub fn of(at: Ms, zone: &TimeZone) -> Month {
        let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone.clone());
        Month { year: at.year().clamp(*YEARS.start(), *YEARS.end()), month: at.month() }
    }

    /// Reads `2026-11`.
    ///
    /// # Errors
    /// A sentence that says how a month is written.
    pub fn parse(text: &str) -> Result<Month, String> {
        let month = || {
            let (year, month) = text.trim().split_once('-')?;
            let (year, month) = (year.parse().ok()?, month.parse().ok()?);
            (YEARS.contains(&year) && (1..=12).contains(&month)).then_some(Month { year, month })
        };
        month().ok_or_else(|| "A month is written as year and month, for instance `2026-11`.".to_owned())
    }

    pub fn start(self, zone: &TimeZone) -> Ms {
        let midnight = date(self.year, self.month, 1).to_zoned(zone.clone());
        midnight.expect("a month of these years has a first day everywhere").timestamp().as_millisecond()
    }

    pub fn next(self) -> Month {
        match self.month {
            12 => Month { year: self.year + 1, month: 1 },
            month => Month { month: month + 1, ..self },
        }
    }

    /// The months that a time touches.
    pub fn between(from: Ms, to: Ms, zone: &TimeZone) -> impl Iterator<Item = Month> {
        let last = Month::of((to - 1).max(from), zone);
        std::iter::successors(Some(Month::of(from, zone)), |month| Some(month.next()))
            .take_while(move |month| *month <= last)
    }

    /// "November 2026".
    pub fn spoken(self) -> String {
        const NAMES: [&str; 12] = [
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ];
        let at = usize::try_from(self.month - 1).expect("a month is 1 to 12");
        format!("{} {}", NAMES[at], self.year)
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl Serialize for Month {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Month {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Month::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Amounts side by side, one for each currency. There is no exchange rate in here, so they are never added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(BTreeMap<String, Micros>);

impl Money {
    pub fn add(&mut self, currency: &str, amount: Micros) {
        if amount != 0 {
            *self.0.entry(currency.to_owned()).or_default() += amount;
        }
    }

    pub fn add_all(&mut self, other: &Money) {
        other.0.iter().for_each(|(currency, amount)| self.add(currency, *amount));
    }

    pub fn of(&self, currency: &str) -> Micros {
        self.0.get(currency).copied().unwrap_or_default()
    }

    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// "0.24 $", "0.24 $ and 1.10 €", "nothing".
    pub fn spoken(&self) -> String {
        let amounts: Vec<String> = self.0.iter().map(|(currency, amount)| spoken(*amount, currency)).collect();
        if amounts.is_empty() { "nothing".to_owned() } else { amounts.join(" and ") }
    }
}

/// An amount as people say it, with the currency behind it: two decimals, and for tiny amounts as many as it takes to
/// show two digits that say something.
pub fn spoken(amount: Micros, currency: &str) -> String {
    const DECIMALS_MAX: u32 = 6;
    let sign = match currency {
        "USD" => "$",
        "EUR" => "€",
        other => other,
    };
    let digits = |decimals: u32| (amount.abs() as f64 / 10f64.powi((DECIMALS_MAX - decimals) as i32)).round() as i64;
    let decimals = (2..DECIMALS_MAX).find(|decimals| digits(*decimals) >= 10).unwrap_or(DECIMALS_MAX);
    let decimals = if amount == 0 { 2 } else { decimals };
    let (whole, rest) = (digits(decimals) / 10i64.pow(decimals), digits(decimals) % 10i64.pow(decimals));
    let mut text = format!("{whole}.{rest:0width$}", width = decimals as usize);
    // 0.020 says no more than 0.02.
    while text.ends_with('0') && text.rsplit('.').next().is_some_and(|rest| rest.len() > 2) {
        text.pop();
    }
    let minus = if amount < 0 { "-" } else { "" };
    format!("{minus}{text} {sign}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MINUTE_MS;

    const DAY_MS: Ms = 24 * HOUR_MS;

    fn price() -> Price {
        Price { hourly: 10_000, monthly: None, currency: "EUR".into(), unit_ms: HOUR_MS }
    }

    fn rental(price: Price, began_at: Ms, ended_at: Option<Ms>) -> Rental {
        Rental {
            provider: "hetzner".into(),
            host: "1".into(),
            server: ServerId("a".into()),
            actor: Actor::Operator,
            region: "nbg1".into(),
            size: "cx23".into(),
            price: Some(price),
            began_at,
            ended_at,
        }
    }

    fn host(provider: &str, id: &str, price: Option<Price>) -> HostRef {
        HostRef {
            provider: provider.into(),
            id: id.into(),
            region: String::new(),
            size: String::new(),
            address: None,
            label: None,
            firewall: None,
            price,
            created_at: 0,
            host_key: String::new(),
            played: false,
        }
    }

    fn at(text: &str) -> Ms {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn an_hour_that_was_begun_is_paid_for_whole_where_hours_are_billed() {
        let price = price();
        assert_eq!([0, 1, HOUR_MS, HOUR_MS + 1].map(|to| price.of(0, to)), [0, 10_000, 10_000, 20_000]);
        let by_minute = Price { unit_ms: MINUTE_MS, hourly: 60_000, ..price };
        assert_eq!([1, MINUTE_MS, 90 * MINUTE_MS].map(|to| by_minute.of(0, to)), [1_000, 1_000, 90_000]);
    }

    #[test]
    fn the_paid_unit_ends_where_the_next_one_would_begin() {
        let ends = [5, 6, 5 + HOUR_MS, 6 + HOUR_MS].map(|at| unit_end(5, HOUR_MS, at));
        assert_eq!(ends, [5 + HOUR_MS, 5 + HOUR_MS, 5 + HOUR_MS, 5 + 2 * HOUR_MS]);
    }

    #[test]
    fn an_hour_belongs_to_the_month_in_which_it_begins_and_no_hour_is_counted_twice() {
        let zone = TimeZone::UTC;
        let (november, december) = (Month::parse("2026-11").unwrap(), Month::parse("2026-12").unwrap());
        // From 22:30 on the last day of November to 01:10.
        let night = rental(price(), at("2026-11-30T22:30:00Z"), Some(at("2026-12-01T01:10:00Z")));
        let now = at("2026-12-24T00:00:00Z");
        assert_eq!(night.months(now, &zone).collect::<Vec<_>>(), [november, december]);
        assert_eq!(night.in_month(november, now, &zone), 20_000, "22:30 and 23:30");
        assert_eq!(night.in_month(december, now, &zone), 10_000, "00:30");
        assert_eq!(night.so_far(now, &zone), Some(30_000));
        assert_eq!(night.time_in_month(november, now, &zone), 90 * MINUTE_MS);
        // Where clocks are ahead, the whole night is in December.
        let ahead = TimeZone::fixed(jiff::tz::offset(2));
        assert_eq!(night.in_month(november, now, &ahead), 0);
        assert_eq!(night.in_month(december, now, &ahead), 30_000);
        // Whatever months there are, they add up to the whole.
        for minutes in 0..500 {
            let ended = night.began_at + minutes * 37 * MINUTE_MS;
            let one = Rental { ended_at: Some(ended), ..night.clone() };
            let by_month: Micros = one.months(now, &zone).map(|month| one.in_month(month, now, &zone)).sum();
            assert_eq!(by_month, price().of(one.began_at, ended), "{minutes}");
        }
    }

    #[test]
    fn a_month_never_costs_more_than_its_cap() {
        let zone = TimeZone::UTC;
        let capped = Price { monthly: Some(5_000_000), ..price() };
        let began = at("2026-10-01T00:00:00Z");
        let always = rental(capped.clone(), began, None);
        assert_eq!(always.so_far(began + 20 * DAY_MS, &zone), Some(4_800_000), "20 days of 24 hours");
        assert_eq!(always.so_far(began + 21 * DAY_MS, &zone), Some(5_000_000));
        assert_eq!(always.so_far(at("2026-11-02T00:00:00Z"), &zone), Some(5_240_000), "October is full");
        let october = Month::of(began, &zone);
        assert_eq!(capped.whole_month(october, &zone), 5_000_000);
        assert_eq!(price().whole_month(october, &zone), 31 * 24 * 10_000);
        // An hour is missing where clocks go forward, and there twice where they go back.
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(price().whole_month(october, &berlin), (31 * 24 + 1) * 10_000);
    }

    #[test]
    fn what_bills_at_an_unknown_price_is_unknown() {
        let rental = Rental { price: None, ..rental(price(), 0, None) };
        assert_eq!(rental.so_far(HOUR_MS, &TimeZone::UTC), None);
        assert_eq!(rental.spoken_cost_and_time(HOUR_MS, &TimeZone::UTC), None);
    }

    /// What `/cost` says is what everybody says, also of a host that was lost before anybody ended it.
    #[test]
    fn what_people_read_of_a_host_is_its_bill() {
        let zone = TimeZone::UTC;
        let began = at("2026-10-01T00:00:00Z");
        let rentals = [
            rental(Price { monthly: Some(5_000_000), ..price() }, began, None),
            Rental { host: "2".into(), ..rental(price(), began, Some(began + 2 * HOUR_MS)) },
        ];
        let said = |id: &str| {
            let rental = bill_of(&rentals, &host("hetzner", id, None))?;
            let now = began + 25 * DAY_MS;
            Some((rental.spoken_cost(now, &zone)?, rental.spoken_cost_and_time(now, &zone)?))
        };
        assert_eq!(said("1"), Some(("5.00 €".into(), "5.00 € for 25 d".into())));
        assert_eq!(said("2"), Some(("0.02 €".into(), "0.02 € for 2 h".into())));
        assert_eq!(said("3"), None);
    }

    #[test]
    fn a_host_that_comes_goes_or_changes_turns_the_bill() {
        let (one, two) = (host("linode", "1", Some(price())), host("linode", "2", Some(price())));
        let (own, dear) = (host("ssh", "attic", None), host("linode", "1", None));
        let is = |before: Option<&HostRef>, now: Option<&HostRef>| {
            let turn = turn(before, now);
            (turn.ends, turn.begins, turn.priced)
        };
        assert_eq!(is(None, Some(&one)), (false, true, false));
        assert_eq!(is(Some(&one), Some(&one)), (false, false, false));
        assert_eq!(is(Some(&one), Some(&two)), (true, true, false));
        assert_eq!(is(Some(&one), None), (true, false, false));
        assert_eq!(is(Some(&dear), Some(&one)), (false, false, true));
        assert_eq!(is(None, Some(&own)), (false, false, false), "nobody sends a bill for it");
        assert_eq!(is(Some(&one), Some(&own)), (true, false, false));
    }

    #[test]
    fn months_are_read_and_written_alike() {
        for text in ["2026-11", "1999-01"] {
            assert_eq!(Month::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "2026", "2026-13", "2026-00", "99999-01", "november", "2026-1-1"] {
            assert!(Month::parse(text).unwrap_err().contains("2026-11"), "{text}");
        }
        assert_eq!(Month::parse("2026-12").unwrap().next().spoken(), "January 2027");
    }

    #[test]
    fn amounts_have_two_decimals_or_two_digits() {
        let table = [
            (0, "0.00 $"),
            (240_000, "0.24 $"),
            (20_000, "0.02 $"),
            (12_500, "0.013 $"),
            (9_999, "0.01 $"),
            (6_300, "0.0063 $"),
            (6_000, "0.006 $"),
            (1, "0.000001 $"),
            (10_000_000, "10.00 $"),
            (1_234_567_890, "1234.57 $"),
            (-240_000, "-0.24 $"),
        ];
        for (amount, text) in table {
            assert_eq!(spoken(amount, "USD"), text);
        }
        assert_eq!(spoken(100_000, "EUR"), "0.10 €");
        assert_eq!(spoken(100_000, "CHF"), "0.10 CHF");
        let mut both = Money::default();
        assert_eq!(both.spoken(), "nothing");
        both.add("USD", 240_000);
        both.add("EUR", 1_100_000);
        both.add("USD", 10_000);
        assert_eq!(both.spoken(), "1.10 € and 0.25 $");
    }
}
