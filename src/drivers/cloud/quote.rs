//! What a start would rent, and at which price. Nothing is made or reserved: it is the choice of `hosts`, made early.

use super::{CloudDriver, choose, cloud_error};
use crate::engine::StepError;
use crate::model::cost::Quote;
use crate::model::host::OWN_MACHINE;
use crate::model::server::Server;

impl CloudDriver {
    pub(super) async fn quote_of(&self, server: &Server) -> Result<Quote, StepError> {
        let place = self.place(server).map_err(StepError::fatal)?;
        let provider = place.provider.clone().unwrap_or_default();
        if provider == OWN_MACHINE {
            let region = place.region.unwrap_or_default();
            return Ok(Quote { provider, region, size: "your own".to_owned(), price: None });
        }
        let api = &self.provider(&provider)?.api;
        let needs = self.needs(server, self.recipe(&server.game)?);
        let offers = self.offers_of(&provider, api.as_ref()).await.map_err(cloud_error("asking for prices"))?;
        let offer = choose::choose(&offers, &needs, &place).map_err(StepError::fatal)?;
        let price = Some(choose::price_of(offer));
        Ok(Quote { provider, region: offer.region.clone(), size: offer.size.clone(), price })
    }
}
