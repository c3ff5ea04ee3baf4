//! Which size to rent: the cheapest that is enough, where people and the operator left it open. Pure.

use crate::clients::cloud::Offer;
use crate::model::cost::{Micros, Price, Quote, spoken as money};
use crate::model::host::Place;

/// What a game needs, with room for the system it runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Needs {
    pub memory_mb: u32,
    pub cpus: u32,
    pub disk_gb: u32,
}

/// Memory of the operating system itself, beside the game's.
const SYSTEM_MEMORY_MB: u32 = 400;
/// Room on the disk for the operating system.
const SYSTEM_DISK_GB: u32 = 6;
/// A host that is sold as 4 GB has a little less than 4096 MB for its programs; such a difference is no reason to rent
/// twice the size.
const CLOSE_ENOUGH: f64 = 0.97;

impl Needs {
    pub fn of_game(memory_mb: u32, cpus: f64, disk_mb: Option<u32>) -> Needs {
        Needs {
            memory_mb: memory_mb + SYSTEM_MEMORY_MB,
            // More than a quarter of a core beyond a whole one is worth another core.
            cpus: (cpus - 0.25).ceil().max(1.0) as u32,
            disk_gb: disk_mb.unwrap_or(0).div_ceil(1024) + SYSTEM_DISK_GB,
        }
    }

    /// Of an offer that does not say what it has nobody knows.
    pub(super) fn met_by_quote(&self, quote: &Quote) -> bool {
        let memory = quote.memory_mb.is_some_and(|mb| f64::from(mb) >= f64::from(self.memory_mb) * CLOSE_ENOUGH);
        memory && quote.cpus.is_some_and(|cpus| cpus >= self.cpus)
    }

    fn met_by(&self, offer: &Offer) -> bool {
        let memory = f64::from(offer.memory_mb) >= f64::from(self.memory_mb) * CLOSE_ENOUGH;
        // Games are made for x86; only a size that people name may be another.
        memory && offer.cpus >= self.cpus && offer.disk_gb >= self.disk_gb && !offer.arm
    }
}

/// The cheapest offer that fits, or why there is none.
pub(super) fn choose<'a>(offers: &'a [Offer], needs: &Needs, wish: &Place) -> Result<&'a Offer, String> {
    let here = |offer: &&Offer| wish.region.as_ref().is_none_or(|region| *region == offer.region);
    if let Some(region) = &wish.region
        && !offers.iter().any(|offer| offer.region == *region)
    {
        let mut known: Vec<&str> = offers.iter().map(|offer| offer.region.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(format!("There is no region `{region}`; there are: {}.", known.join(", ")));
    }
    if let Some(size) = &wish.size {
        let named: Vec<&Offer> = offers.iter().filter(|offer| offer.size == *size).filter(here).collect();
        return match cheapest(named.iter().copied().filter(|offer| offer.available)) {
            Some(offer) => Ok(offer),
            None if !offers.iter().any(|offer| offer.size == *size) => Err(format!("There is no size `{size}`.")),
            None if named.is_empty() => Err(format!("The size `{size}` is not to be had in this region at all.")),
            None => Err(format!("The size `{size}` cannot be had now.{}", others(offers, needs, named[0].hourly))),
        };
    }
    let fits = || offers.iter().filter(here).filter(|offer| needs.met_by(offer));
    cheapest(fits().filter(|offer| offer.available)).ok_or_else(|| {
        let wanted = format!("{} MB of memory, {} CPUs and {} GB of disk", needs.memory_mb, needs.cpus, needs.disk_gb);
        match cheapest(fits()) {
            Some(gone) => format!("No host with {wanted} can be had now.{}", others(offers, needs, gone.hourly)),
            None => format!("No size here has {wanted}."),
        }
    })
}

/// Why the offer takes somebody's yes: the size that this server had the last time is enough and cannot be had now, and
/// what there is costs more. Who has named a size has said yes to its price.
pub(super) fn costs_more_than_usual(
    offers: &[Offer],
    needs: &Needs,
    wish: &Place,
    offer: &Offer,
    usual: &str,
) -> Option<String> {
    let here = |offer: &&Offer| wish.region.as_ref().is_none_or(|region| *region == offer.region);
    let mut same = offers.iter().filter(|offer| offer.size == usual && needs.met_by(offer)).filter(here);
    let before = cheapest(same.clone())?;
    if wish.size.is_some() || same.any(|offer| offer.available) || offer.hourly <= before.hourly {
        return None;
    }
    Some(format!(
        "The size `{usual}` that this server had the last time cannot be had now.{}",
        others(offers, needs, before.hourly)
    ))
}

/// What may be taken instead without asking: enough for the game, and not a bit more expensive.
pub(super) fn instead<'a>(
    offers: &'a [Offer],
    needs: &Needs,
    wish: &Place,
    refused: &[(String, String)],
    at_most: Micros,
) -> Option<&'a Offer> {
    let here = |offer: &&Offer| wish.region.as_ref().is_none_or(|region| *region == offer.region);
    let fits = |offer: &&Offer| needs.met_by(offer) && offer.available && offer.hourly <= at_most;
    let new = |offer: &&Offer| !refused.iter().any(|(size, region)| *size == offer.size && *region == offer.region);
    // Somebody who named a size gets that size; only its region may be another, where that was left open.
    let sized = |offer: &&Offer| wish.size.as_ref().is_none_or(|size| *size == offer.size);
    cheapest(offers.iter().filter(here).filter(fits).filter(new).filter(sized))
}

/// What people can choose instead, in words: each costs more or is elsewhere, so it takes their yes.
pub(super) fn others(offers: &[Offer], needs: &Needs, than: Micros) -> String {
    let mut fit: Vec<&Offer> = offers.iter().filter(|offer| offer.available && needs.met_by(offer)).collect();
    fit.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut sizes = std::collections::BTreeSet::new();
    fit.retain(|offer| sizes.insert(offer.size.clone()));
    let list: Vec<String> = fit
        .iter()
        .take(3)
        .map(|offer| {
            let more = if offer.hourly > than { ", which costs more" } else { "" };
            format!(
                "size `{}` in region `{}` at {} an hour{more}",
                offer.size,
                offer.region,
                money(offer.hourly, offer.currency)
            )
        })
        .collect();
    match list.is_empty() {
        true => " Nothing else that fits can be had from this provider now.".to_owned(),
        false => format!(
            " You can have {}. Choose with `/server settings` (size, region, provider) and start again.",
            list.join(", or ")
        ),
    }
}

fn order(offer: &Offer) -> (i64, &str, &str) {
    (offer.hourly, &offer.region, &offer.size)
}

fn cheapest<'a>(offers: impl Iterator<Item = &'a Offer>) -> Option<&'a Offer> {
    offers.min_by(|a, b| order(a).cmp(&order(b)))
}

pub(super) fn price_of(offer: &Offer) -> Price {
    Price { hourly: offer.hourly, monthly: offer.monthly, currency: offer.currency.to_owned(), unit_ms: offer.unit_ms }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(size: &str, region: &str, memory_mb: u32, hourly: i64) -> Offer {
        Offer {
            size: size.into(),
            region: region.into(),
            cpus: 2,
            memory_mb,
            arm: false,
            disk_gb: 40,
            hourly,
            monthly: None,
            currency: "EUR",
            unit_ms: 3_600_000,
            available: true,
        }
    }

    fn offers() -> Vec<Offer> {
        let arm = Offer { arm: true, ..offer("arm", "a", 8192, 1) };
        let gone = Offer { available: false, ..offer("small", "b", 4096, 5_000) };
        vec![
            arm,
            offer("tiny", "a", 1024, 2_000),
            offer("small", "a", 4096, 6_000),
            gone,
            offer("big", "a", 8192, 12_000),
        ]
    }

    #[test]
    fn the_cheapest_that_is_enough_is_rented() {
        let needs = Needs::of_game(3500, 1.0, Some(2000));
        assert_eq!(needs, Needs { memory_mb: 3900, cpus: 1, disk_gb: 8 });
        assert_eq!(choose(&offers(), &needs, &Place::default()).unwrap().size, "small");
        let tiny = Needs::of_game(500, 1.0, None);
        assert_eq!(choose(&offers(), &tiny, &Place::default()).unwrap().size, "tiny", "never an ARM one unasked");
        let wish = Place { size: Some("arm".into()), ..Place::default() };
        assert_eq!(choose(&offers(), &tiny, &wish).unwrap().size, "arm", "but by name");
    }

    #[test]
    fn who_names_a_place_that_is_none_reads_which_there_are() {
        let needs = Needs::of_game(500, 1.0, None);
        let wish = Place { region: Some("x".into()), ..Place::default() };
        assert_eq!(choose(&offers(), &needs, &wish).unwrap_err(), "There is no region `x`; there are: a, b.");
        let wish = Place { size: Some("x".into()), ..Place::default() };
        assert_eq!(choose(&offers(), &needs, &wish).unwrap_err(), "There is no size `x`.");
    }

    #[test]
    fn a_usual_size_that_is_sold_out_is_not_replaced_by_a_dearer_one_unasked() {
        let (mut offers, needs, anywhere) = (offers(), Needs::of_game(3500, 1.0, None), Place::default());
        let dearer = |offers: &[Offer], needs: &Needs, wish: &Place, usual: &str| {
            let offer = choose(offers, needs, wish).unwrap();
            costs_more_than_usual(offers, needs, wish, offer, usual)
        };
        assert_eq!(dearer(&offers, &needs, &anywhere, "small"), None, "there is one left");
        offers.iter_mut().filter(|offer| offer.size == "small").for_each(|offer| offer.available = false);
        insta::assert_snapshot!(dearer(&offers, &needs, &anywhere, "small").unwrap(), @"The size `small` that this server had the last time cannot be had now. You can have size `big` in region `a` at 0.012 € an hour, which costs more. Choose with `/server settings` (size, region, provider) and start again.");
        assert_eq!(dearer(&offers, &needs, &anywhere, "big"), None, "it had the dearer one before");
        let named = Place { size: Some("big".into()), ..Place::default() };
        assert_eq!(dearer(&offers, &needs, &named, "small"), None, "somebody said yes");
        let more = Needs::of_game(7000, 1.0, None);
        assert_eq!(dearer(&offers, &more, &anywhere, "small"), None, "it would not be enough any more");
    }

    #[test]
    fn what_costs_more_is_offered_and_never_taken() {
        let (offers, needs) = (offers(), Needs::of_game(3500, 1.0, None));
        let wish = Place { region: Some("b".into()), ..Place::default() };
        insta::assert_snapshot!(choose(&offers, &needs, &wish).unwrap_err(), @"No host with 3900 MB of memory, 1 CPUs and 6 GB of disk can be had now. You can have size `small` in region `a` at 0.006 € an hour, which costs more, or size `big` in region `a` at 0.012 € an hour, which costs more. Choose with `/server settings` (size, region, provider) and start again.");
        let refused = [("small".to_owned(), "a".to_owned())];
        assert_eq!(instead(&offers, &needs, &Place::default(), &refused, 6_000), None);
        let taken = instead(&offers, &needs, &Place::default(), &refused, 12_000);
        assert_eq!(taken.map(|offer| offer.size.as_str()), Some("big"));
    }
}
