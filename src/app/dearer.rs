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
        let server = self.with_yes_of(&server, &caller.actor).await?;
        Ok(self.instead(&server).await?.map(|instead| asked(&server, instead).0))
    }

    /// Somebody's yes to one of these, or to trying the usual one after all: their next start rents it, if it can still be
    /// had at this price. Nothing else changes before that start is on record.
    pub async fn agree(&self, caller: &Caller, name: &str, tag: Option<&str>) -> Answer<()> {
        let found = self.chosen(caller, name, tag).await;
        let detail = match &found {
            Ok((_, Some((other, _)))) => spoken(&other.quote),
            Ok((_, None)) => "the usual host".to_owned(),
            Err(_) => String::new(),
        };
        let work = Box::pin(async {
            let (server, other) = found?;
            let yes = match other {
                Some((other, known)) => {
                    let (by, until) = (caller.actor.clone(), self.now() + YES_LASTS_MS);
                    let after = self.last_rental(&server).await?.map(|rental| rental.host);
                    let told = told_from_then(&server.place, &other, known);
                    let OtherHost { quote, moves, .. } = other;
                    Some(Box::new(Yes { quote, by, until, after, told, moves, begun: false }))
                }
                // A friend's is theirs.
                None => server.place.yes.clone().filter(|yes| !yes.by.is_same(&caller.actor)),
            };
            let place = Place { yes, ..server.place.clone() };
            match place == server.place || self.store().set_place(&server.id, &server.place, &place).await? {
                true => Ok(()),
                false => Err(Refusal::Busy(format!("`{}` was changed or started just now. Try again.", server.name))),
            }
        });
        self.audited(caller, Did::new("agree", name).with(detail), work).await
    }

    /// With the price that people know until now.
    async fn chosen(&self, caller: &Caller, name: &str, tag: Option<&str>) -> Answer<(Server, Option<Chosen>)> {
        let server = self.server(caller, name, Permission::Play).await?;
        let Some(tag) = tag else { return Ok((server, None)) };
        let now = self.with_yes_of(&server, &caller.actor).await?;
        let instead = self.instead(&now).await?.map(|instead| asked(&now, instead));
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

    /// The server before a start of this person's, without a yes that was for an earlier one or that is not theirs.
    pub(super) async fn with_yes_of(&self, server: &Server, actor: &Actor) -> anyhow::Result<Server> {
        let Some(yes) = &server.place.yes else { return Ok(server.clone()) };
        let counts = yes.by.is_same(actor)
            && !yes.begun
            && self.now() <= yes.until
            && self.last_rental(server).await?.map(|rental| rental.host) == yes.after;
        match counts {
            true => Ok(server.clone()),
            false => Ok(without_yes(server)),
        }
    }
}

/// The same for a look at starts of anybody.
pub(super) fn without_yes(server: &Server) -> Server {
    Server { place: Place { yes: None, ..server.place.clone() }, ..server.clone() }
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

/// What people know of a host's price once the start that this was agreed for is on record; `None` where that stays as it
/// was. The usual host at a new price is told by that, and so is a provider that it is new at; everything else is for one
/// start, and what people knew before holds for those after it.
fn told_from_then(place: &Place, other: &OtherHost, known: Option<Price>) -> Option<Box<Quote>> {
    let OtherHost { quote, moves, usual, .. } = other;
    let elsewhere = place.told.as_ref().is_some_and(|told| told.provider != quote.provider);
    if *usual || *moves || elsewhere {
        return Some(Box::new(quote.clone()));
    }
    match place.told {
        Some(_) => None,
        None => known.map(|price| Box::new(Quote { price: Some(price), ..quote.clone() })),
    }
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
        let other = OtherHost { tag: tag(&quote), quote, named: false, moves, usual };
        let known = Price { hourly: 6, monthly: None, currency: "EUR".into(), unit_ms: 3_600_000 };
        let told = told_from_then(place, &other, Some(known));
        let (by, quote) = (Actor::Operator, other.quote);
        let yes = Box::new(Yes { quote, by: by.clone(), until: 1, after: None, told, moves, begun: false });
        let place = Place { yes: Some(yes), ..place.clone() }.begun(&by, 1);
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
