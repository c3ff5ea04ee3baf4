//! What people know of a host's price, and the question before a start where there is none at that price.

use super::{Answer, App, Did, Refusal};
use crate::model::access::{Actor, Caller, Permission};
use crate::model::cost::{self, Instead, Other, Price, Quote};
use crate::model::host::{Place, Yes};
use crate::model::server::Server;
use crate::model::view::{DearerStart, OtherHost};
use crate::model::{MINUTE_MS, Ms};

/// Of the hash that names an offer; there are a handful at a time.
const TAG_CHARS: usize = 16;
/// A yes is for a start that is asked for within this time: another question may come before it.
const YES_LASTS_MS: Ms = 10 * MINUTE_MS;

type Chosen = (OtherHost, Option<Price>);

impl App {
    /// Whoever has just named this place, or what the game needs, is told its price, and a start takes nothing that costs
    /// more. Where nobody can say it, what was told before still holds; `None` then.
    pub(super) async fn tell_price(&self, server: &mut Server) -> Answer<Option<Quote>> {
        server.place.yes = None;
        let quote = match self.quote(server).await {
            Ok(quote) => quote,
            Err(refusal @ Refusal::Ours(_)) => return Err(refusal),
            Err(_) => return Ok(None),
        };
        server.place.told = quote.clone().map(Box::new);
        Ok(quote)
    }

    /// What to ask before a start that finds nothing at the price that people know. The start itself answers everything
    /// else.
    pub async fn dearer_start(&self, caller: &Caller, name: &str) -> Answer<Option<DearerStart>> {
        let server = self.server(caller, name, Permission::Play).await?;
        if self.open_job(&server).await?.is_some() || self.runs_already(&server).await? {
            return Ok(None);
        }
        Ok(self.instead(&server).await?.map(|instead| asked(&server, instead).0))
    }

    /// Somebody's yes to one of these, or to trying the usual one after all: the next start rents it, if it can still be
    /// had at this price.
    pub async fn agree(&self, caller: &Caller, name: &str, tag: Option<&str>) -> Answer<()> {
        let found = self.chosen(caller, name, tag).await;
        let detail = match &found {
            Ok((_, Some((other, _)))) => spoken(&other.quote),
            Ok((_, None)) => "the usual host".to_owned(),
            Err(_) => String::new(),
        };
        let work = async {
            let (server, other) = found?;
            let place = match other {
                Some((other, known)) => {
                    let after = self.last_rental(&server).await?.map(|rental| rental.host);
                    let yes = Yes { quote: other.quote.clone(), until: self.now() + YES_LASTS_MS, after };
                    agreed(&server.place, other, yes, known)
                }
                None => Place { yes: None, ..server.place.clone() },
            };
            match place == server.place || self.store().set_place(&server.id, &server.place, &place).await? {
                true => Ok(()),
                false => Err(Refusal::Busy(format!("`{}` was changed or started just now. Try again.", server.name))),
            }
        };
        self.audited(caller, Did::new("agree", name).with(detail), work).await
    }

    /// With the price that people know until now.
    async fn chosen(&self, caller: &Caller, name: &str, tag: Option<&str>) -> Answer<(Server, Option<Chosen>)> {
        let server = self.server(caller, name, Permission::Play).await?;
        let Some(tag) = tag else { return Ok((server, None)) };
        let instead = self.instead(&server).await?.map(|instead| asked(&server, instead));
        let found = instead.and_then(|(start, known)| {
            let other = start.others.into_iter().find(|other| other.tag == tag)?;
            Some((other, known))
        });
        let Some((other, known)) = found else {
            return Err(Refusal::Invalid(format!(
                "That host is not to be had for `{}` at this price now, or need not be: nothing was started. Start it again.",
                server.name
            )));
        };
        if other.named {
            self.server(caller, name, Permission::Operate).await?;
        }
        Ok((server, Some((other, known))))
    }

    /// The server before a start, without a yes that was for an earlier one or that nobody said who starts it now.
    pub(super) async fn without_old_yes(&self, caller: &Caller, server: Server) -> Answer<Server> {
        let asked = !matches!(caller.actor, Actor::Schedule { .. } | Actor::Watcher);
        if server.place.yes.is_none() || (asked && self.yes_counts(&server).await?) {
            return Ok(server);
        }
        let place = Place { yes: None, ..server.place.clone() };
        match self.store().set_place(&server.id, &server.place, &place).await? {
            true => Ok(Server { place, ..server }),
            // It has a host by now, or a job that looks for one.
            false => Ok(server),
        }
    }

    /// The same for a look at it.
    pub(super) async fn with_yes_of_now(&self, server: &Server) -> anyhow::Result<Server> {
        let mut now = server.clone();
        if !self.yes_counts(server).await? {
            now.place.yes = None;
        }
        Ok(now)
    }

    async fn yes_counts(&self, server: &Server) -> anyhow::Result<bool> {
        let Some(yes) = server.place.yes.as_ref().filter(|yes| self.now() <= yes.until) else { return Ok(false) };
        Ok(self.last_rental(server).await?.map(|rental| rental.host) == yes.after)
    }
}

/// The question, and the price that people know until now.
fn asked(server: &Server, instead: Instead) -> (DearerStart, Option<Price>) {
    let Instead { provider, why, known, others, refused } = instead;
    let other = |Other { quote, named, usual }| {
        let moves = quote.provider != provider;
        OtherHost { tag: tag(&quote), quote, named, moves, usual }
    };
    let others = others.into_iter().map(other).collect();
    (DearerStart { server: server.name.to_string(), why, others, refused }, known)
}

/// The place after a yes. The usual host at a new price is told by that, and so is a provider that it is new at; everything
/// else is for one start, and what people knew before holds for those after it.
fn agreed(place: &Place, other: OtherHost, yes: Yes, known: Option<Price>) -> Place {
    let OtherHost { quote, moves, usual, .. } = other;
    let kept = match moves {
        true => Place { provider: Some(quote.provider.clone()), ..Place::default() },
        false => place.clone(),
    };
    let elsewhere = place.told.as_ref().is_some_and(|told| told.provider != quote.provider);
    let told = match kept.told {
        Some(told) if !usual && !elsewhere => Some(told),
        None if !usual && !elsewhere && !moves => known.map(|price| Box::new(Quote { price: Some(price), ..quote })),
        _ => Some(Box::new(quote)),
    };
    Place { told, yes: Some(Box::new(yes)), ..kept }
}

/// Names an offer with its price: who said yes to it did not say it to another price.
fn tag(quote: &Quote) -> String {
    let Quote { provider, region, size, price, cpus: _, memory_mb: _ } = quote;
    let price = price.as_ref().map(|price| (price.hourly, &price.currency));
    let words = format!("{provider} {region} {size} {price:?}");
    blake3::hash(words.as_bytes()).to_hex()[..TAG_CHARS].to_owned()
}

fn spoken(quote: &Quote) -> String {
    let price = quote.price.as_ref().map(|price| cost::spoken(price.hourly, &price.currency)).unwrap_or_default();
    format!("{} in {} of {}, {price} an hour", quote.size, quote.region, quote.provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quote(provider: &str, hourly: i64) -> Quote {
        let price = Price { hourly, monthly: None, currency: "EUR".into(), unit_ms: 3_600_000 };
        let (region, size) = ("b".into(), "big".into());
        Quote { provider: provider.into(), region, size, cpus: None, memory_mb: None, price: Some(price) }
    }

    /// The price that holds after the evening of this yes, and the provider.
    fn after(place: &Place, quote: Quote, usual: bool, moves: bool) -> (Option<i64>, Option<String>) {
        let yes = Yes { quote: quote.clone(), until: 1, after: None };
        let other = OtherHost { tag: tag(&quote), quote, named: false, moves, usual };
        let known = Price { hourly: 6, monthly: None, currency: "EUR".into(), unit_ms: 3_600_000 };
        let place = agreed(place, other, yes, Some(known));
        assert!(place.yes.is_some());
        (place.told.and_then(|told| told.price).map(|price| price.hourly), place.provider)
    }

    #[test]
    fn a_yes_to_a_dearer_host_leaves_the_price_that_people_know() {
        let told = Place { told: Some(Box::new(quote("hetzner", 7))), ..Place::default() };
        assert_eq!(after(&told, quote("hetzner", 12), false, false), (Some(7), None));
        assert_eq!(after(&Place::default(), quote("hetzner", 12), false, false), (Some(6), None), "the last host's");
        assert_eq!(after(&told, quote("hetzner", 8), true, false), (Some(8), None), "the usual one costs that now");
        let named = Place { provider: Some("hetzner".into()), ..told };
        assert_eq!(after(&named, quote("linode", 9), false, true), (Some(9), Some("linode".into())));
        let back = Place { provider: Some("linode".into()), ..named };
        assert_eq!(after(&back, quote("hetzner", 9), false, true), (Some(9), Some("hetzner".into())));
    }
}
