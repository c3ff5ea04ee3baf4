//! Money in words: the bill, and what a start costs. Amounts of different currencies stand side by side.

use super::Said;
use super::server::lines_that_fit;
use super::text::{NAME_SHOWN, REMARK_SHOWN, code, plain, took};
use crate::model::bill::{
    BudgetOf, CostView, Kinds, LeftHost, PersonCost, ServerCost, Standing, StartCost, StartPrice,
};
use crate::model::cost::{Cheapest, Quote, spoken};
use crate::model::lease;

/// What the next start of a server costs, on its panel.
pub fn start_cost(start: &StartCost) -> Option<String> {
    match start {
        StartCost::Rents(price) => host_price(price).map(|price| format!("A start rents a host {price}")),
        StartCost::NotNow { why } => Some(format!("The price of a start is not known: {}", plain(why, REMARK_SHOWN))),
    }
}

/// What a start costs, before it does. `None` where nobody sends a bill.
pub fn start_price(price: &StartPrice) -> Option<String> {
    host_price(price).map(|price| format!("It rents a host {price}"))
}

fn host_price(price: &StartPrice) -> Option<String> {
    let rate = price.quote.price.as_ref()?;
    let said = |amount| spoken(amount, &rate.currency);
    let at_most = price.at_most.map(|at_most| match price.lease_ms {
        Some(lease) => format!(", at most {} for {}", said(at_most), lease::spoken(lease)),
        None => format!(", at most {} a month: it has no time limit", said(at_most)),
    });
    let host = format!("{} {} in {}", price.quote.provider, price.quote.size, price.quote.region);
    Some(format!("({}): about {} an hour{}.", plain(&host, NAME_SHOWN), said(rate.hourly), at_most.unwrap_or_default()))
}

/// What a start rents from now on.
pub fn host_quote(quote: &Quote) -> Option<String> {
    let price = quote.price.as_ref()?;
    let host = format!("{} {} in {}", quote.provider, quote.size, quote.region);
    let costs = spoken(price.hourly, &price.currency);
    Some(format!("A start rents a host ({}): about {costs} an hour.", plain(&host, NAME_SHOWN)))
}

/// Who a host comes from that nobody named a provider for, and what that rests on.
pub fn cheapest(found: &Cheapest) -> String {
    let asks = |quote: &Quote| {
        let amount = quote.price.as_ref().map(|price| format!("{} an hour", spoken(price.hourly, &price.currency)));
        let what = format!("{} in {}", quote.size, quote.region);
        format!("{} ({}: about {})", code(&quote.provider), plain(&what, NAME_SHOWN), amount.unwrap_or_default())
    };
    let why = match found.incomparable.is_empty() {
        true => "now the cheapest that is enough".to_owned(),
        false => {
            let others: Vec<String> = found.incomparable.iter().map(asks).collect();
            format!(
                "the cheapest in its currency. Currencies are not compared, and it comes first by name; there is also {}",
                others.join(", and ")
            )
        }
    };
    let silent: Vec<String> = found.silent.iter().map(|name| code(name)).collect();
    let left_out = match silent.is_empty() {
        true => String::new(),
        false => format!(" Left out, because no prices came: {}.", silent.join(", ")),
    };
    format!(
        "Its host is rented from {}, {why}.{left_out} Another is chosen with `provider` of `/server settings`.",
        asks(&found.quote)
    )
}

/// The bill of one month, by server, person and month.
pub fn cost(view: &CostView) -> Said {
    let always = match view.always_on.is_nothing() {
        true => String::new(),
        false => format!(" · hosts that are always on: {}", view.always_on.spoken()),
    };
    let head = format!("**{}**: {}{always}", view.month.spoken(), view.total.spoken());
    let mut lines = vec![];
    // These first: they must not be what is cut off.
    lines.extend(view.left.iter().map(left));
    lines.extend(view.budgets.iter().map(|(server, standing)| budget(server.as_deref(), standing)));
    lines.extend(view.servers.iter().map(server));
    lines.extend(view.people.iter().map(person));
    let others = view.months.iter().filter(|(month, _)| *month != view.month);
    let others: Vec<String> =
        others.map(|(month, amount)| format!("{}: {}", month.spoken(), amount.spoken())).collect();
    if !others.is_empty() {
        lines.push(format!("-# Other months: {}", others.join(" · ")));
    }
    if view.servers.is_empty() {
        lines.push(nothing(view.kinds));
    }
    Said::new(lines_that_fit(&head, lines.into_iter()))
}

/// Nothing was rented: what else servers run on here, and that it costs nothing.
fn nothing(kinds: Kinds) -> String {
    let none = match kinds.rented_hosts {
        true => "Nothing that you asked about was rented in this month.",
        false => "Nothing that you asked about was rented in this month, and no provider is set up to rent from.",
    };
    let free = match (kinds.containers, kinds.own_machines) {
        (true, true) => " Servers in containers and on machines of your own cost nothing here.",
        (true, false) => " Servers in containers cost nothing here.",
        (false, true) => " Servers on machines of your own cost nothing here.",
        (false, false) => "",
    };
    format!("{none}{free}")
}

/// A host that nobody wants and everybody pays for.
fn left(host: &LeftHost) -> String {
    let (id, provider, server) = (code(&host.host), plain(&host.provider, NAME_SHOWN), code(&host.server));
    let whose = match host.deleted {
        true => format!("of the deleted server {server}"),
        false => format!("that {server} has no longer"),
    };
    format!("**The host {id} at {provider} {whose} still bills.** An admin can delete it: `/admin orphans`.")
}

fn server(server: &ServerCost) -> String {
    let mut line = format!("{} · {} for {}", code(&server.name), server.amount.spoken(), took(server.time_ms));
    if !server.always_on.is_nothing() {
        line += &format!(" · always on: {}", server.always_on.spoken());
    }
    if server.unpriced {
        line += " · and hosts whose price the provider did not say";
    }
    if server.billing {
        line += " · billing: ON";
    }
    if server.deleted {
        line += " · deleted";
    }
    line
}

fn person(person: &PersonCost) -> String {
    format!("by {} · {} for {}", plain(person.actor.name(), NAME_SHOWN), person.amount.spoken(), took(person.time_ms))
}

fn budget(server: Option<&str>, standing: &Standing) -> String {
    let whose = match (standing.whose, server) {
        (BudgetOf::Server, Some(server)) => format!("Budget of {}", code(server)),
        (BudgetOf::Server | BudgetOf::Guild, _) => "Budget of this guild".to_owned(),
    };
    let (month, percent) = (standing.month.spoken(), standing.percent());
    format!("{whose} for {month}: {} ({percent} %)", standing.spoken())
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use crate::model::access::Actor;
    use crate::model::cost::{Money, Month, Price, Quote};

    const HOUR_MS: i64 = 3_600_000;

    fn money(amounts: &[(&str, i64)]) -> Money {
        let mut money = Money::default();
        amounts.iter().for_each(|(currency, amount)| money.add(currency, *amount));
        money
    }

    #[test]
    fn a_provider_that_nobody_named_is_named_with_what_was_left_out() {
        let quote = |provider: &str, size: &str, hourly, currency: &str| Quote {
            provider: provider.into(),
            region: "here".into(),
            size: size.into(),
            cpus: None,
            memory_mb: None,
            price: Some(Price { hourly, monthly: None, currency: currency.into(), unit_ms: HOUR_MS }),
        };
        let alone = Cheapest { quote: quote("linode", "tiny", 7_500, "USD"), incomparable: vec![], silent: vec![] };
        insta::assert_snapshot!(cheapest(&alone), @"Its host is rented from `linode` (tiny in here: about 0.0075 $ an hour), now the cheapest that is enough. Another is chosen with `provider` of `/server settings`.");
        let torn = Cheapest {
            quote: quote("hetzner", "cx23", 6_300, "EUR"),
            incomparable: vec![quote("linode", "tiny", 7_500, "USD")],
            silent: vec!["digitalocean".into(), "vultr".into()],
        };
        insta::assert_snapshot!(cheapest(&torn), @"Its host is rented from `hetzner` (cx23 in here: about 0.0063 € an hour), the cheapest in its currency. Currencies are not compared, and it comes first by name; there is also `linode` (tiny in here: about 0.0075 $ an hour). Left out, because no prices came: `digitalocean`, `vultr`. Another is chosen with `provider` of `/server settings`.");
    }

    #[test]
    fn a_start_says_what_it_costs() {
        let price = Price { hourly: 20_000, monthly: None, currency: "USD".into(), unit_ms: HOUR_MS };
        let quote = Quote {
            provider: "linode".into(),
            region: "eu-central".into(),
            size: "g6-nanode-1".into(),
            cpus: Some(1),
            memory_mb: Some(1024),
            price: Some(price.clone()),
        };
        let with_lease = StartPrice { quote, lease_ms: Some(12 * HOUR_MS), at_most: Some(240_000) };
        let for_ever = StartPrice { lease_ms: None, at_most: Some(14_400_000), ..with_lease.clone() };
        let free = StartPrice { quote: Quote { price: None, ..with_lease.quote.clone() }, ..with_lease.clone() };
        insta::assert_snapshot!(start_price(&with_lease).unwrap(), @"It rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 0.24 $ for 12 h.");
        insta::assert_snapshot!(start_price(&for_ever).unwrap(), @"It rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 14.40 $ a month: it has no time limit.");
        assert_eq!(start_price(&free), None);
        insta::assert_snapshot!(start_cost(&StartCost::Rents(with_lease)).unwrap(), @"A start rents a host (linode g6-nanode-1 in eu-central): about 0.02 $ an hour, at most 0.24 $ for 12 h.");
        assert_eq!(start_cost(&StartCost::Rents(free)), None);
        let why = "No size here has 64000 MB of memory.".to_owned();
        insta::assert_snapshot!(start_cost(&StartCost::NotNow { why }).unwrap(), @"The price of a start is not known: No size here has 64000 MB of memory.");
    }

    fn view() -> CostView {
        let server = |name: &str, amounts: &[(&str, i64)]| ServerCost {
            name: name.into(),
            deleted: false,
            amount: money(amounts),
            time_ms: 12 * HOUR_MS,
            always_on: money(&[("USD", 14_400_000)]),
            billing: true,
            unpriced: false,
        };
        let alice = Actor::Discord { id: "9".into(), name: "@everyone *alice*".into() };
        let month = |text: &str| Month::parse(text).unwrap();
        let standing = |whose| Standing {
            whose,
            budget: "10 USD".parse().unwrap(),
            month: month("2026-11"),
            spent: 240_000,
            ahead: 0,
            own_ahead: 0,
        };
        CostView {
            month: month("2026-11"),
            total: money(&[("USD", 240_000), ("EUR", 1_100_000)]),
            always_on: money(&[("USD", 14_400_000)]),
            servers: vec![
                server("world", &[("USD", 240_000)]),
                ServerCost {
                    deleted: true,
                    billing: false,
                    unpriced: true,
                    always_on: money(&[]),
                    ..server("old", &[("EUR", 1_100_000)])
                },
            ],
            people: vec![
                PersonCost { actor: alice, amount: money(&[("USD", 240_000)]), time_ms: 12 * HOUR_MS },
                PersonCost { actor: Actor::Watcher, amount: money(&[("EUR", 1_100_000)]), time_ms: 90_000 },
            ],
            months: vec![(month("2026-11"), money(&[("USD", 240_000)])), (month("2026-10"), money(&[("USD", 3_000)]))],
            budgets: vec![(None, standing(BudgetOf::Guild)), (Some("world".into()), standing(BudgetOf::Server))],
            left: vec![
                LeftHost { server: "old".into(), deleted: true, provider: "hetzner".into(), host: "4711".into() },
                LeftHost { server: "world".into(), deleted: false, provider: "linode".into(), host: "17".into() },
            ],
            kinds: Kinds { containers: true, own_machines: false, rented_hosts: true },
        }
    }

    #[test]
    fn the_bill_names_servers_people_months_and_budgets() {
        insta::assert_snapshot!(shown(&cost(&view())), @r"
        **November 2026**: 1.10 € and 0.24 $ · hosts that are always on: 14.40 $
        **The host `4711` at hetzner of the deleted server `old` still bills.** An admin can delete it: `/admin orphans`.
        **The host `17` at linode that `world` has no longer still bills.** An admin can delete it: `/admin orphans`.
        Budget of this guild for November 2026: 0.24 $ of 10.00 $ (2 %)
        Budget of `world` for November 2026: 0.24 $ of 10.00 $ (2 %)
        `world` · 0.24 $ for 12 h · always on: 14.40 $ · billing: ON
        `old` · 1.10 € for 12 h · and hosts whose price the provider did not say · deleted
        by @␣everyone \*alice\* · 0.24 $ for 12 h
        by Spawnpoint · 1.10 € for 1 min
        -# Other months: October 2026: 0.003 $
        ");
        let nothing = CostView {
            total: money(&[]),
            always_on: money(&[]),
            servers: vec![],
            people: vec![],
            months: vec![],
            budgets: vec![],
            left: vec![],
            ..view()
        };
        insta::assert_snapshot!(shown(&cost(&nothing)), @r"
        **November 2026**: nothing
        Nothing that you asked about was rented in this month. Servers in containers cost nothing here.
        ");
        let kinds = |containers, own_machines, rented_hosts| Kinds { containers, own_machines, rented_hosts };
        let all =
            [kinds(true, true, true), kinds(false, true, true), kinds(false, false, true), kinds(true, false, false)];
        let others = [kinds(false, true, false), kinds(true, true, false)];
        let texts: Vec<String> = all.into_iter().chain(others).map(super::nothing).collect();
        insta::assert_snapshot!(texts.join("\n"), @r"
        Nothing that you asked about was rented in this month. Servers in containers and on machines of your own cost nothing here.
        Nothing that you asked about was rented in this month. Servers on machines of your own cost nothing here.
        Nothing that you asked about was rented in this month.
        Nothing that you asked about was rented in this month, and no provider is set up to rent from. Servers in containers cost nothing here.
        Nothing that you asked about was rented in this month, and no provider is set up to rent from. Servers on machines of your own cost nothing here.
        Nothing that you asked about was rented in this month, and no provider is set up to rent from. Servers in containers and on machines of your own cost nothing here.
        ");
    }

    #[test]
    fn a_long_bill_stays_within_the_limit() {
        let servers = vec![view().servers[0].clone(); 500];
        let text = shown(&cost(&CostView { servers, ..view() }));
        assert!(text.contains("… and ") && text.contains("Budget of this guild"), "{text}");
    }
}
