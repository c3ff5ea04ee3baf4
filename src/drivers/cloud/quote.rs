//! What there is to rent and at which price: the providers' lists, and the choice that a start would make. Nothing is
//! made or reserved here.

use super::{CloudDriver, choose, cloud_error};
use crate::clients::cloud::{CloudApi, CloudError, Offer};
use crate::engine::StepError;
use crate::model::cost::Quote;
use crate::model::host::OWN_MACHINE;
use crate::model::server::Server;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// What a provider offers is asked anew after this.
const OFFERS_LAST: Duration = Duration::from_secs(600);
/// Where the provider does not answer, an older list still tells people the price, but not one of this age.
const OFFERS_STALE: Duration = Duration::from_secs(6 * 3600);

/// One provider's list, which is slow to ask for and changes by the day.
#[derive(Default)]
pub(super) struct PriceList {
    known: Mutex<Option<(Instant, Vec<Offer>)>>,
    /// Held by whoever asks, so that all who wait are served by one answer.
    asking: tokio::sync::Mutex<()>,
}

impl PriceList {
    fn at_most(&self, age: Duration) -> Option<Vec<Offer>> {
        let known = self.known.lock().expect("no holder of this lock can panic");
        known.as_ref().filter(|(at, _)| at.elapsed() < age).map(|(_, offers)| offers.clone())
    }

    async fn fresh(&self, api: &dyn CloudApi) -> Result<Vec<Offer>, CloudError> {
        if let Some(offers) = self.at_most(OFFERS_LAST) {
            return Ok(offers);
        }
        let _one = self.asking.lock().await;
        if let Some(offers) = self.at_most(OFFERS_LAST) {
            return Ok(offers);
        }
        let offers = api.offers().await?;
        *self.known.lock().expect("no holder of this lock can panic") = Some((Instant::now(), offers.clone()));
        Ok(offers)
    }
}

impl CloudDriver {
    /// What a provider that is set up offers now.
    pub(super) async fn offers_of(&self, provider: &str, api: &dyn CloudApi) -> Result<Vec<Offer>, CloudError> {
        match self.prices.get(provider) {
            Some(prices) => prices.fresh(api).await,
            None => api.offers().await,
        }
    }

    /// What a start of this server would rent.
    pub(super) async fn quote_of(&self, server: &Server) -> Result<Quote, StepError> {
        let place = self.place(server).map_err(StepError::fatal)?;
        let provider = place.provider.clone().unwrap_or_default();
        if provider == OWN_MACHINE {
            return Ok(own_machine(place.region.unwrap_or_default(), super::hosts::YOUR_OWN));
        }
        let api = &self.provider(&provider)?.api;
        let needs = self.needs(server, self.recipe(&server.game)?);
        let offers = match self.offers_of(&provider, api.as_ref()).await {
            Ok(offers) => offers,
            Err(error) => {
                let older = self.prices.get(&provider).and_then(|prices| prices.at_most(OFFERS_STALE));
                older.ok_or_else(|| cloud_error("asking for prices")(error))?
            }
        };
        let offer = choose::choose(&offers, &needs, &place).map_err(StepError::fatal)?;
        Ok(quoted(&provider, offer))
    }

    /// All that can be rented, from the lists at hand. A list that is missing or old is asked for meanwhile.
    pub(super) fn offers_at_hand(&self) -> Vec<Quote> {
        let mut all: Vec<Quote> = self.machines.keys().map(|name| own_machine(name.clone(), "")).collect();
        for (name, provider) in &self.providers {
            let Some(prices) = self.prices.get(name) else { continue };
            if prices.at_most(OFFERS_LAST).is_none() {
                let (prices, api, name) = (Arc::clone(prices), Arc::clone(&provider.api), name.clone());
                tokio::spawn(async move {
                    if let Err(error) = prices.fresh(api.as_ref()).await {
                        tracing::info!(provider = name, "What can be rented could not be asked: {error}");
                    }
                });
            }
            let offers = prices.at_most(OFFERS_STALE).unwrap_or_default();
            all.extend(offers.iter().filter(|offer| offer.available).map(|offer| quoted(name, offer)));
        }
        all
    }
}

fn quoted(provider: &str, offer: &Offer) -> Quote {
    Quote {
        provider: provider.to_owned(),
        region: offer.region.clone(),
        size: offer.size.clone(),
        price: Some(choose::price_of(offer)),
    }
}

fn own_machine(name: String, size: &str) -> Quote {
    Quote { provider: OWN_MACHINE.to_owned(), region: name, size: size.to_owned(), price: None }
}
