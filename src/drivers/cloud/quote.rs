//! What there is to rent and at which price: the providers' lists, and the choice that a start would make. Nothing is
//! made or reserved here.

use super::choose::{self, Needs};
use super::patience::when_it_says;
use super::{CloudDriver, cloud_error};
use crate::clients::cloud::{CloudApi, CloudError, Image, Offer};
use crate::engine::{StepCx, StepError};
use crate::model::cost::{self, Cheapest, Instead, Other, Quote, Rental};
use crate::model::host::{HostImage, OWN_MACHINE, Place};
use crate::model::server::Server;
use futures::future::join_all;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// What a provider offers is asked anew after this.
const OFFERS_LAST: Duration = Duration::from_secs(600);
/// Where the provider does not answer, an older list still tells people the price, but not one of this age.
const OFFERS_STALE: Duration = Duration::from_secs(6 * 3600);
/// What a provider had none of is not offered to people for this time, which is longer than a question waits. A start
/// goes on asking for it.
const REFUSED_LASTS: Duration = Duration::from_secs(900);
/// People wait for a price, and one silent provider is no reason to show them none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(6);

/// What one provider has to offer.
#[derive(Default)]
pub(super) struct Lists {
    sizes: List<Offer>,
    images: List<Image>,
    /// Size and region of what the provider had none of when it was asked for one, though its list says otherwise.
    refused: Mutex<Vec<(Instant, String, String)>>,
}

/// A provider's list, which is slow to ask for and changes by the day.
struct List<T> {
    known: Mutex<Option<(Instant, Vec<T>)>>,
    /// Held as long as the provider is asked, so that all who wait are served by one answer.
    asking: Arc<tokio::sync::Mutex<()>>,
}

impl<T> Default for List<T> {
    fn default() -> List<T> {
        List { known: Mutex::default(), asking: Arc::default() }
    }
}

impl<T: Clone> List<T> {
    fn at_most(&self, age: Duration) -> Option<Vec<T>> {
        let known = self.known.lock().expect("no holder of this lock can panic");
        known.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, entries)| entries.clone())
    }
}

impl Lists {
    /// Takes what was refused a while ago off these offers.
    fn without_refused(&self, offers: &mut [Offer]) {
        let mut refused = self.refused.lock().expect("no holder of this lock can panic");
        refused.retain(|(at, ..)| at.elapsed() < REFUSED_LASTS);
        let gone =
            |offer: &Offer| refused.iter().any(|(_, size, region)| *size == offer.size && *region == offer.region);
        offers.iter_mut().filter(|offer| gone(offer)).for_each(|offer| offer.available = false);
    }
}

impl CloudDriver {
    pub(super) fn note_refused(&self, provider: &str, offer: &Offer) {
        if let Some(lists) = self.lists.get(provider) {
            let mut refused = lists.refused.lock().expect("no holder of this lock can panic");
            refused.push((Instant::now(), offer.size.clone(), offer.region.clone()));
        }
    }

    pub(super) fn note_given(&self, provider: &str, offer: &Offer) {
        if let Some(lists) = self.lists.get(provider) {
            let mut refused = lists.refused.lock().expect("no holder of this lock can panic");
            refused.retain(|(_, size, region)| *size != offer.size || *region != offer.region);
        }
    }

    fn without_refused(&self, provider: &str, mut offers: Vec<Offer>) -> Vec<Offer> {
        if let Some(lists) = self.lists.get(provider) {
            lists.without_refused(&mut offers);
        }
        offers
    }

    /// What takes a person's yes before a start.
    pub(super) async fn instead_of(
        &self,
        server: &Server,
        last: Option<&Rental>,
    ) -> Result<Option<Instead>, StepError> {
        let place = self.place(server).map_err(StepError::fatal)?;
        let provider = place.provider.clone().unwrap_or_default();
        if self.is_undecided(server) || server.owned.host.is_some() || provider == OWN_MACHINE {
            return Ok(None);
        }
        let needs = self.needs(server, self.recipe(&server.game)?);
        let listed = self.offers_or_older(&provider).await?;
        let offers = self.without_refused(&provider, listed.clone());
        if let Some(yes) = &place.yes {
            let there = &yes.quote.provider;
            let offers = self.without_refused(there, self.offers_or_older(there).await?);
            if choose::choose_known(&offers, &needs, &place.agreed(), place.known_price(last)).is_ok() {
                return Ok(None);
            }
        }
        let usual = Place { yes: None, ..place };
        let on_the_list = choose::choose(&listed, &needs, &usual).map(choose::price_of).ok();
        let known = usual.known_price(last).or(on_the_list.as_ref());
        let Err(why) = choose::choose_known(&offers, &needs, &usual, known) else { return Ok(None) };
        let refused = choose::choose_known(&listed, &needs, &usual, known).is_ok();
        let never_out: Vec<Offer> = listed.iter().map(|offer| Offer { available: true, ..offer.clone() }).collect();
        let least = choose::choose(&never_out, &needs, &usual).map_or(0, |offer| offer.hourly);
        let differs = |word: &Option<String>, its: &String| word.as_ref().is_some_and(|word| word != its);
        let here = choose::others(&offers, &needs, &usual).into_iter().map(|offer| {
            let named = differs(&usual.size, &offer.size) || differs(&usual.region, &offer.region);
            Other { quote: quoted(&provider, offer), named, usual: !named && offer.hourly <= least }
        });
        let mut others: Vec<Other> = here.collect();
        let elsewhere = self.of_other_providers(server, &provider, &needs).into_iter();
        others.extend(elsewhere.map(|quote| Other { quote, named: true, usual: false }));
        let known = known.cloned();
        Ok(Some(Instead { provider, why, known, others, refused }).filter(|instead| !instead.others.is_empty()))
    }

    /// The cheapest that is enough at each other provider, from the lists at hand.
    pub(super) fn of_other_providers(&self, server: &Server, provider: &str, needs: &Needs) -> Vec<Quote> {
        let mut found = vec![];
        for (name, other) in self.providers.iter().filter(|(name, _)| **name != provider) {
            let Some(lists) = self.lists.get(name) else { continue };
            let api = Arc::clone(&other.api);
            let mut offers = at_hand(name, lists, |lists| &lists.sizes, async move { api.offers().await });
            lists.without_refused(&mut offers);
            let there = Place { provider: Some(name.clone()), ..Place::default() };
            let Ok(place) = self.place(&Server { place: there, ..server.clone() }) else { continue };
            found.extend(choose::choose(&offers, needs, &place).ok().map(|offer| quoted(name, offer)));
        }
        found
    }

    /// Nobody has named a provider yet, and there are several.
    fn is_undecided(&self, server: &Server) -> bool {
        let has_one = server.place.provider.is_some() || server.owned.host.is_some();
        !has_one && self.settings.default_provider.is_none() && self.providers.len() > 1
    }

    /// What a provider that is set up offers now.
    pub(super) async fn offers_of(&self, provider: &str, api: &Arc<dyn CloudApi>) -> Result<Vec<Offer>, CloudError> {
        let Some(lists) = self.lists.get(provider) else { return api.offers().await };
        let api = Arc::clone(api);
        fresh(lists, |lists| &lists.sizes, async move { api.offers().await }).await
    }

    /// Refuses a system that is not among the provider's public ones: what the operator keeps privately in the account
    /// is not for everybody who may make a server.
    pub(super) async fn check_image(
        &self,
        cx: &StepCx<'_>,
        provider: &str,
        api: &Arc<dyn CloudApi>,
        image: &str,
    ) -> Result<(), StepError> {
        let images = match when_it_says(cx, "asking for images", || self.images_of(provider, api)).await? {
            Some(images) => images,
            None => return Ok(()),
        };
        if images.iter().any(|known| known.word == image) {
            return Ok(());
        }
        Err(StepError::fatal(format!(
            "There is no image `{image}` to be had from {provider}. There are: {}. Choose with `/server settings` and start again.",
            named(&images)
        )))
    }

    /// `None` for a token that may not list images: it gets none but public ones either.
    async fn images_of(&self, provider: &str, api: &Arc<dyn CloudApi>) -> Result<Option<Vec<Image>>, CloudError> {
        let asked = match self.lists.get(provider) {
            Some(lists) => {
                let api = Arc::clone(api);
                fresh(lists, |lists| &lists.images, async move { api.images().await }).await
            }
            None => api.images().await,
        };
        match asked {
            Ok(images) => Ok(Some(images)),
            Err(CloudError::Denied(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What to do where the usual system is not to be had any more; empty where it is, or nobody knows.
    pub(super) async fn without_debian(&self, provider: &str, api: &Arc<dyn CloudApi>, release: u32) -> String {
        let Ok(Some(images)) = self.images_of(provider, api).await else { return String::new() };
        let wanted = format!("debian {release}");
        if images.is_empty() || images.iter().any(|image| image.title.to_lowercase().starts_with(&wanted)) {
            return String::new();
        }
        let known = named(&images);
        format!(
            " It has no Debian {release} any more. There are: {known}. Choose with `image` of `/server settings` and start \
             again."
        )
    }

    /// What a start of this server would rent.
    pub(super) async fn quote_of(&self, server: &Server) -> Result<Quote, StepError> {
        if let Some(cheapest) = self.cheapest_of(server).await? {
            return Ok(cheapest.quote);
        }
        let place = self.place(server).map_err(StepError::fatal)?;
        let provider = place.provider.clone().unwrap_or_default();
        if provider == OWN_MACHINE {
            return Ok(own_machine(place.region.unwrap_or_default(), super::rent::YOUR_OWN));
        }
        let needs = self.needs(server, self.recipe(&server.game)?);
        let offers = self.offers_or_older(&provider).await?;
        let none = |why: String| {
            StepError::fatal(format!("{why}{}", choose::advice(&choose::others(&offers, &needs, &place), "")))
        };
        Ok(quoted(&provider, choose::choose(&offers, &needs, &place).map_err(none)?))
    }

    /// Who this server is rented from for the least. `None` where that is decided: by people, by the operator, or because
    /// there are not two to choose from.
    pub(super) async fn cheapest_of(&self, server: &Server) -> Result<Option<Cheapest>, StepError> {
        if !self.is_undecided(server) {
            return Ok(None);
        }
        let needs = self.needs(server, self.recipe(&server.game)?);
        let asked = self.providers.keys().map(|name| async move { (name, self.offers_or_older(name).await) });
        let (mut quotes, mut silent, mut refusals) = (vec![], vec![], vec![]);
        for (name, offers) in join_all(asked).await {
            let offers = match offers {
                Ok(offers) => offers,
                Err(StepError::Retry(error) | StepError::Fatal(error)) => {
                    tracing::info!(provider = name, "It is left out of a comparison of prices: {error:#}");
                    silent.push(name.clone());
                    continue;
                }
            };
            let there = Place { provider: Some(name.clone()), ..server.place.clone() };
            let place = self.place(&Server { place: there, ..server.clone() }).map_err(StepError::fatal)?;
            match self.lacks_image(name, &place).map_or_else(|| choose::choose(&offers, &needs, &place), Err) {
                Ok(offer) => quotes.push(quoted(name, offer)),
                Err(why) => refusals.push(format!("{name}: {why}")),
            }
        }
        match (cost::cheapest(quotes), silent.is_empty()) {
            (Some((quote, incomparable)), _) => Ok(Some(Cheapest { quote, incomparable, silent })),
            (None, true) => Err(StepError::fatal(refusals.join(" "))),
            (None, false) => Err(StepError::retry(format!("asking for prices: no word from {}", silent.join(", ")))),
        }
    }

    /// Each provider has its own word for the same system. Who is not known to lack this one may have it.
    fn lacks_image(&self, provider: &str, place: &Place) -> Option<String> {
        let image = place.image.as_ref()?;
        let known = self.lists.get(provider)?.images.at_most(OFFERS_STALE)?;
        (!known.iter().any(|known| known.word == *image)).then(|| format!("There is no image `{image}`."))
    }

    /// What a provider offers, from an older list where it does not answer.
    pub(super) async fn offers_or_older(&self, provider: &str) -> Result<Vec<Offer>, StepError> {
        let api = &self.provider(provider)?.api;
        let answer = timeout(ANSWERS_WITHIN, self.offers_of(provider, api)).await;
        let older = || self.lists.get(provider).and_then(|lists| lists.sizes.at_most(OFFERS_STALE));
        match answer {
            Ok(Ok(offers)) => Ok(offers),
            Ok(Err(error)) => older().ok_or_else(|| cloud_error("asking for prices")(error)),
            Err(_) => older().ok_or_else(|| StepError::retry("asking for prices: the provider took too long")),
        }
    }

    /// All that can be rented, from the lists at hand.
    pub(super) fn offers_at_hand(&self) -> Vec<Quote> {
        let mut all: Vec<Quote> = self.machines.keys().map(|name| own_machine(name.clone(), "")).collect();
        for (name, provider) in &self.providers {
            let Some(lists) = self.lists.get(name) else { continue };
            let api = Arc::clone(&provider.api);
            let offers = at_hand(name, lists, |lists| &lists.sizes, async move { api.offers().await });
            all.extend(offers.iter().filter(|offer| offer.available).map(|offer| quoted(name, offer)));
        }
        all
    }

    /// The systems that hosts can come with, from the lists at hand.
    pub(super) fn images_at_hand(&self) -> Vec<HostImage> {
        let mut all = vec![];
        for (name, provider) in &self.providers {
            let Some(lists) = self.lists.get(name) else { continue };
            let api = Arc::clone(&provider.api);
            let images = at_hand(name, lists, |lists| &lists.images, async move { api.images().await });
            all.extend(images.into_iter().map(|Image { word, title, usual }| HostImage {
                provider: name.clone(),
                word,
                title,
                usual,
            }));
        }
        all
    }
}

fn named(images: &[Image]) -> String {
    let named: Vec<String> = images.iter().map(|image| format!("`{}` ({})", image.word, image.title)).collect();
    named.join(", ")
}

/// A list that is not old. The provider is asked in a task of its own, which goes on where nobody waits for it any more:
/// what comes too late for one is there for the next.
async fn fresh<T: Clone + Send + 'static>(
    lists: &Arc<Lists>,
    of: fn(&Lists) -> &List<T>,
    asked: impl Future<Output = Result<Vec<T>, CloudError>> + Send + 'static,
) -> Result<Vec<T>, CloudError> {
    if let Some(entries) = of(lists).at_most(OFFERS_LAST) {
        return Ok(entries);
    }
    let turn = Arc::clone(&of(lists).asking).lock_owned().await;
    if let Some(entries) = of(lists).at_most(OFFERS_LAST) {
        return Ok(entries);
    }
    let lists = Arc::clone(lists);
    let task = tokio::spawn(async move {
        let answer = asked.await;
        if let Ok(entries) = &answer {
            let mut known = of(&lists).known.lock().expect("no holder of this lock can panic");
            *known = Some((Instant::now(), entries.clone()));
        }
        drop(turn);
        answer
    });
    task.await.unwrap_or_else(|error| Err(CloudError::Strange(format!("What there is could not be asked: {error}."))))
}

/// What is known of a list. Where that is nothing or old, the provider is asked meanwhile, for whoever comes next.
fn at_hand<T: Clone + Send + 'static>(
    provider: &str,
    lists: &Arc<Lists>,
    of: fn(&Lists) -> &List<T>,
    asked: impl Future<Output = Result<Vec<T>, CloudError>> + Send + 'static,
) -> Vec<T> {
    if of(lists).at_most(OFFERS_LAST).is_none() {
        let (lists, provider) = (Arc::clone(lists), provider.to_owned());
        tokio::spawn(async move {
            if let Err(error) = fresh(&lists, of, asked).await {
                tracing::info!(provider, "What there is to choose from could not be asked: {error}");
            }
        });
    }
    of(lists).at_most(OFFERS_STALE).unwrap_or_default()
}

fn quoted(provider: &str, offer: &Offer) -> Quote {
    Quote {
        provider: provider.to_owned(),
        region: offer.region.clone(),
        size: offer.size.clone(),
        cpus: Some(offer.cpus),
        memory_mb: Some(offer.memory_mb),
        price: Some(choose::price_of(offer)),
    }
}

fn own_machine(name: String, size: &str) -> Quote {
    let (provider, size) = (OWN_MACHINE.to_owned(), size.to_owned());
    Quote { provider, region: name, size, cpus: None, memory_mb: None, price: None }
}
