//! A host: the machine that a cloud server runs on while people play. Where it should be ([`Place`]) is what people
//! choose; what it is ([`HostRef`]) is what the provider said when it was made.

use super::Ms;
use super::access::Actor;
use super::cost::{Price, Quote, Rental};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The provider of machines that are yours: nothing is created or destroyed there but a game's folder.
pub const OWN_MACHINE: &str = "ssh";

/// Where a server's host is rented; what is `None` follows the configuration and the recipe's needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// `linode`, `hetzner`, `digitalocean`, `vultr`, or `ssh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The provider's word for it; for `ssh` the machine's name under `[hosts]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The provider's word for it: `cx23`, `g6-standard-2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// The provider's word for it; left out, its Debian that the recipe is made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// What people were told that a host costs when they chose the place. Nothing is rented that costs more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Box<Quote>>,
    /// Somebody's yes to another host than the usual one, for one start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yes: Option<Box<Yes>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Yes {
    pub quote: Quote,
    /// Whose it is: it is for a start of theirs and nobody else's.
    #[serde(default = "nobody")]
    pub by: Actor,
    /// A start that is asked for later does not count on it.
    pub until: Ms,
    /// The server's last host by then, as its provider names it: once there was another, no start that is asked for counts
    /// on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// What people know of a host's price once that start is on record; `None` where it stays as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Box<Quote>>,
    /// The server's starts after that one stay at this provider.
    #[serde(default)]
    pub moves: bool,
    /// The start is on record, so the yes is for no other.
    #[serde(default)]
    pub begun: bool,
}

/// One from before it was noted whose it is counts for nobody.
fn nobody() -> Actor {
    Actor::Watcher
}

impl Place {
    /// The place once a start is on record: what a yes of who asked for it changes for good holds from then on, and every
    /// other yes is gone. After a host that was lost, Spawnpoint goes on with that evening's.
    pub fn begun(self, by: &Actor, now: Ms) -> Place {
        if *by == Actor::Watcher {
            let yes = self.yes.filter(|yes| yes.begun);
            return Place { yes, ..self };
        }
        let theirs = |yes: &Yes| yes.by.is_same(by) && !yes.begun && now <= yes.until;
        let Some(yes) = self.yes.clone().filter(|yes| theirs(yes)) else { return Place { yes: None, ..self } };
        let kept = match yes.moves {
            true => Place { provider: Some(yes.quote.provider.clone()), ..Place::default() },
            false => self,
        };
        Place { told: yes.told.clone().or(kept.told), yes: Some(Box::new(Yes { begun: true, ..*yes })), ..kept }
    }

    /// Where a start rents: what somebody said yes to, or what is named.
    pub fn agreed(&self) -> Place {
        match &self.yes {
            Some(yes) => Place {
                provider: Some(yes.quote.provider.clone()),
                region: Some(yes.quote.region.clone()),
                size: Some(yes.quote.size.clone()),
                ..self.clone()
            },
            None => self.clone(),
        }
    }

    /// The price of a host that people know; where nobody ever told them one, it is that of the server's last.
    pub fn known_price<'a>(&'a self, last: Option<&'a Rental>) -> Option<&'a Price> {
        let said = self.yes.as_ref().map(|yes| &yes.quote).or(self.told.as_deref());
        said.and_then(|quote| quote.price.as_ref()).or_else(|| last?.price.as_ref())
    }
}

/// A system that a rented host can come with, as its provider offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostImage {
    pub provider: String,
    /// The provider's word for it, for [`Place::image`].
    pub word: String,
    /// As people call it: `Debian 12`.
    pub title: String,
    /// What a host gets when none is chosen, for most games.
    pub usual: bool,
}

/// A host on record. It exists, and bills, until the provider says that it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRef {
    pub provider: String,
    /// As the provider names it; for `ssh` the machine's name under `[hosts]`.
    pub id: String,
    pub region: String,
    pub size: String,
    /// `None` until the provider has given it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The label in the DNS zone that leads to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The firewall that came with it, as the provider names it; it goes with the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firewall: Option<String>,
    /// What it costs; `None` for a machine of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// When the provider's clock for the bill began.
    pub created_at: Ms,
    /// Its SSH host key (`ssh-ed25519 AAAA…`), made by us and handed over before it first came up, or pinned.
    pub host_key: String,
    /// The game was started on it since the world was pushed: what it holds may be newer than any backup.
    #[serde(default)]
    pub played: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServerId;

    fn price(hourly: i64) -> Price {
        Price { hourly, monthly: None, currency: "EUR".into(), unit_ms: 3_600_000 }
    }

    fn quote(hourly: i64) -> Quote {
        let (provider, region, size) = ("hetzner".into(), "b".into(), "big".into());
        Quote { provider, region, size, cpus: None, memory_mb: None, price: Some(price(hourly)) }
    }

    fn rental(hourly: i64) -> Rental {
        Rental {
            provider: "hetzner".into(),
            host: "1".into(),
            server: ServerId("a".into()),
            actor: Actor::Operator,
            region: "a".into(),
            size: "small".into(),
            price: Some(price(hourly)),
            began_at: 1,
            ended_at: None,
        }
    }

    fn yes(quote: Quote) -> Yes {
        Yes { quote, by: Actor::Operator, until: 5, after: None, told: None, moves: false, begun: false }
    }

    #[test]
    fn a_yes_is_for_one_evening_of_who_said_it() {
        let told = Place { size: Some("small".into()), told: Some(Box::new(quote(6))), ..Place::default() };
        let asked = Place { yes: Some(Box::new(yes(quote(12)))), ..told.clone() };
        let friend = Actor::Discord { id: "5".into(), name: "a friend".into() };
        for nobody in [&friend, &Actor::Watcher] {
            assert_eq!(asked.clone().begun(nobody, 5), told, "it is not theirs");
        }
        assert_eq!(asked.clone().begun(&Actor::Operator, 6), told, "too late");
        let begun = asked.begun(&Actor::Operator, 5);
        assert_eq!((begun.agreed().size.as_deref(), begun.told.clone()), (Some("big"), told.told.clone()));
        assert_eq!(begun.clone().begun(&Actor::Watcher, 99), begun, "its host was lost in the evening");
        assert_eq!(begun.begun(&Actor::Operator, 5), told, "the next start");

        let moves = Yes { told: Some(Box::new(quote(9))), moves: true, ..yes(quote(9)) };
        let begun = Place { yes: Some(Box::new(moves)), ..told }.begun(&Actor::Operator, 5);
        let there = Place { provider: Some("hetzner".into()), told: Some(Box::new(quote(9))), ..Place::default() };
        assert_eq!(Place { yes: None, ..begun }, there, "the other provider's words are not ours");
    }

    #[test]
    fn a_yes_names_the_host_and_its_price_and_what_people_were_told_stays() {
        let told = Place { region: Some("a".into()), told: Some(Box::new(quote(6))), ..Place::default() };
        assert_eq!(told.agreed(), told, "a price alone names no place");
        let yes = Place { yes: Some(Box::new(yes(quote(12)))), ..told.clone() };
        let then = yes.agreed();
        assert_eq!((then.size.as_deref(), then.region.as_deref()), (Some("big"), Some("b")));
        let hourly = |place: &Place, last: Option<&Rental>| place.known_price(last).map(|price| price.hourly);
        assert_eq!((hourly(&yes, None), hourly(&told, Some(&rental(12)))), (Some(12), Some(6)));
        let nothing = Place::default();
        assert_eq!((hourly(&nothing, None), hourly(&nothing, Some(&rental(7)))), (None, Some(7)));
    }
}
