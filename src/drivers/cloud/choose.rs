//! Which size to rent: the cheapest that is enough, where people and the operator left it open. Pure.

use crate::clients::cloud::Offer;
use crate::model::cost::{Micros, Price, spoken as money};
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
            None => Err(format!("The size `{size}` cannot be had now.")),
        };
    }
    let fits = || offers.iter().filter(here).filter(|offer| needs.met_by(offer));
    cheapest(fits().filter(|offer| offer.available)).ok_or_else(|| {
        let wanted = format!("{} MB of memory, {} CPUs and {} GB of disk", needs.memory_mb, needs.cpus, needs.disk_gb);
        match fits().next() {
            Some(_) => format!("No host with {wanted} can be had now."),
            None => format!("No size here has {wanted}."),
        }
    })
}

/// The same for who knows a price: what costs more, or bills in another currency, is not chosen, but offered.
pub(super) fn choose_known<'a>(
    offers: &'a [Offer],
    needs: &Needs,
    wish: &Place,
    known: Option<&Price>,
) -> Result<&'a Offer, String> {
    let offer = choose(offers, needs, wish)?;
    let Some(known) = known else { return Ok(offer) };
    let (knew, costs) = (money(known.hourly, &known.currency), money(offer.hourly, offer.currency));
    match known.currency == offer.currency {
        true if offer.hourly <= known.hourly => Ok(offer),
        true => Err(format!("A host costs {costs} an hour now, which is more than the {knew} that people know of.")),
        false => Err(format!("A host costs {costs} an hour now; the price that people know of is {knew}.")),
    }
}

/// What may be taken instead without asking: enough for the game, and not a bit more expensive.
pub(super) fn instead<'a>(offers: &'a [Offer], needs: &Needs, wish: &Place, at_most: Micros) -> Option<&'a Offer> {
    let here = |offer: &&Offer| wish.region.as_ref().is_none_or(|region| *region == offer.region);
    let fits = |offer: &&Offer| needs.met_by(offer) && offer.available && offer.hourly <= at_most;
    // Somebody who named a size gets that size; only its region may be another, where that was left open.
    let sized = |offer: &&Offer| wish.size.as_ref().is_none_or(|size| *size == offer.size);
    cheapest(offers.iter().filter(here).filter(fits).filter(sized))
}

/// What people can choose of the same provider, the cheapest first: here, in another region, of another size.
pub(super) fn others<'a>(offers: &'a [Offer], needs: &Needs, wish: &Place) -> Vec<&'a Offer> {
    let elsewhere = Place { region: None, ..wish.clone() };
    let sized = Place { size: None, ..wish.clone() };
    let any = Place { size: None, ..elsewhere.clone() };
    let mut found: Vec<&Offer> =
        [wish, &sized, &elsewhere, &any].into_iter().filter_map(|wish| choose(offers, needs, wish).ok()).collect();
    found.sort_by(|a, b| order(a).cmp(&order(b)));
    found.dedup();
    found
}

/// What people read where nothing is rented: these of the same provider, those of others (in words already), and where
/// they choose.
pub(super) fn advice(others: &[&Offer], elsewhere: &str) -> String {
    let list: Vec<String> = others
        .iter()
        .map(|offer| {
            let costs = money(offer.hourly, offer.currency);
            format!("size `{}` in region `{}` at {costs} an hour", offer.size, offer.region)
        })
        .collect();
    let here = match list.is_empty() {
        true => " Nothing else that fits can be had from this provider now.".to_owned(),
        false => format!(" You can have {}.", list.join(", or ")),
    };
    match others.is_empty() && elsewhere.is_empty() {
        true => here,
        false => format!(
            "{here}{elsewhere} `/server start` asks which one it shall be; `/server settings` changes it for good, also for schedules."
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

    fn eur(hourly: i64) -> Price {
        price_of(&offer("", "", 0, hourly))
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
    fn what_costs_more_than_people_know_is_offered_and_never_taken() {
        let (mut offers, needs, anywhere) = (offers(), Needs::of_game(3500, 1.0, None), Place::default());
        let chosen = |offers: &[Offer], wish: &Place, known: i64| {
            choose_known(offers, &needs, wish, Some(&eur(known))).map(|offer| offer.size.clone())
        };
        assert_eq!(chosen(&offers, &anywhere, 6_000).unwrap(), "small");
        insta::assert_snapshot!(chosen(&offers, &anywhere, 5_000).unwrap_err(), @"A host costs 0.006 € an hour now, which is more than the 0.005 € that people know of.");
        offers.iter_mut().filter(|offer| offer.size == "small").for_each(|offer| offer.available = false);
        insta::assert_snapshot!(chosen(&offers, &anywhere, 6_000).unwrap_err(), @"A host costs 0.012 € an hour now, which is more than the 0.006 € that people know of.");
        assert_eq!(chosen(&offers, &anywhere, 12_000).unwrap(), "big", "somebody said yes to that");
        assert_eq!(instead(&offers, &needs, &anywhere, 6_000), None);
        assert_eq!(instead(&offers, &needs, &anywhere, 12_000).map(|offer| offer.size.as_str()), Some("big"));
    }

    #[test]
    fn where_nothing_is_to_be_had_people_read_what_is() {
        let (mut offers, needs) = (offers(), Needs::of_game(3500, 1.0, None));
        let wish = Place { region: Some("b".into()), size: Some("small".into()), ..Place::default() };
        insta::assert_snapshot!(choose(&offers, &needs, &wish).unwrap_err(), @"The size `small` cannot be had now.");
        insta::assert_snapshot!(advice(&others(&offers, &needs, &wish), ""), @" You can have size `small` in region `a` at 0.006 € an hour. `/server start` asks which one it shall be; `/server settings` changes it for good, also for schedules.");
        let wish = Place { size: None, ..wish };
        insta::assert_snapshot!(choose(&offers, &needs, &wish).unwrap_err(), @"No host with 3900 MB of memory, 1 CPUs and 6 GB of disk can be had now.");
        insta::assert_snapshot!(advice(&others(&offers, &needs, &wish), ""), @" You can have size `small` in region `a` at 0.006 € an hour. `/server start` asks which one it shall be; `/server settings` changes it for good, also for schedules.");
        offers.iter_mut().for_each(|offer| offer.available = false);
        insta::assert_snapshot!(advice(&others(&offers, &needs, &wish), ""), @" Nothing else that fits can be had from this provider now.");
    }
}
