//! Where a server's host is rented: what people choose of provider, region, size and image, and what there is
//! to choose from.

use super::{Answer, App, Field, FieldKind, Refusal};
use crate::model::cost::{Cheapest, Quote};
use crate::model::host::{HostImage, OWN_MACHINE, Place};
use crate::model::server::{Backend, Server};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names of the settings that a server on the cloud backend has beside the others.
pub(super) const PROVIDER: &str = "provider";
pub(super) const REGION: &str = "region";
pub(super) const SIZE: &str = "size";
pub(super) const IMAGE: &str = "image";
pub(super) const KEYS: [&str; 4] = [PROVIDER, REGION, SIZE, IMAGE];

/// The longest word of a provider for one of them that is taken, in characters.
const WORD_MAX_CHARS: usize = 64;
/// People wait for a provider's list no longer; what cannot be had is not checked.
const OFFERS_WITHIN: Duration = Duration::from_secs(2);

impl App {
    /// What can be rented, as the providers say; empty where nothing is set up or nobody answers in time.
    pub async fn offers(&self) -> Vec<Quote> {
        let Some(driver) = self.engine().driver(Backend::Cloud) else { return vec![] };
        in_time("What can be rented", driver.offers()).await
    }

    /// The systems that a host can come with, in the same way.
    pub async fn images(&self) -> Vec<HostImage> {
        let Some(driver) = self.engine().driver(Backend::Cloud) else { return vec![] };
        in_time("Which systems hosts can come with", driver.images()).await
    }

    /// The place that these words make of the present one. Another provider has other words for everything, so its
    /// region, size and image begin anew unless they were given along.
    pub(super) async fn place_of(&self, present: &Place, typed: &BTreeMap<String, Option<String>>) -> Answer<Place> {
        let mut place = present.clone();
        if let Some(provider) = typed.get(PROVIDER)
            && *provider != place.provider
        {
            place = Place { provider: provider.clone(), ..Place::default() };
        }
        if let Some(region) = typed.get(REGION) {
            place.region = region.clone();
        }
        if let Some(size) = typed.get(SIZE) {
            place.size = size.clone();
        }
        if let Some(image) = typed.get(IMAGE) {
            place.image = image.clone();
        }
        check_words(&place)?;
        let set_up = self.engine().driver(Backend::Cloud).map(|driver| driver.providers()).unwrap_or_default();
        fits(&place, &set_up, &self.offers().await)?;
        image_fits(&place, &self.images().await)?;
        Ok(place)
    }

    /// Names the cheapest provider where nobody has named one. What it says is at hand or asked for now; where that is
    /// nothing, nobody is named, and the start chooses.
    pub(super) async fn choose_provider(&self, server: &mut Server) -> Answer<Option<Cheapest>> {
        match self.cheapest(server).await {
            Ok(Some(cheapest)) => {
                server.place.provider = Some(cheapest.quote.provider.clone());
                Ok(Some(cheapest))
            }
            Ok(None) | Err(Refusal::Invalid(_) | Refusal::Busy(_)) => Ok(None),
            Err(refusal @ (Refusal::NotAllowed(_) | Refusal::NotFound(_) | Refusal::Ours(_))) => Err(refusal),
        }
    }

    /// The same before a start, which needs one: of a server that came from another backend, or was made when no provider
    /// answered. From then on it stays there.
    pub(super) async fn with_provider(&self, server: Server) -> Answer<Server> {
        if server.place.provider.is_some() || server.owned.host.is_some() {
            return Ok(server);
        }
        // Of two starts at once, the second finds what the first has named, and never names another under its job.
        let _one_by_one = self.inner.starts.lock().await;
        let present = self.store().server_any(&server.id).await?.unwrap_or(server);
        if present.owned.host.is_some() || self.open_job(&present).await?.is_some() {
            return Ok(present);
        }
        let Some(Cheapest { quote, .. }) = self.cheapest(&present).await? else { return Ok(present) };
        let mut place = Place { provider: Some(quote.provider.clone()), ..present.place.clone() };
        // The answer to a first start says its price; later ones hold to what people knew.
        if place.told.is_none() && self.last_rental(&present).await?.is_none() {
            place.told = Some(Box::new(quote));
        }
        match self.store().set_place(&present.id, &present.place, &place).await? {
            true => Ok(Server { place, ..present }),
            // It has a host by now.
            false => Ok(present),
        }
    }

    /// Why the place of this server cannot be changed now, if it cannot.
    pub(super) async fn place_is_free(&self, server: &Server) -> Answer<()> {
        match server.backend {
            Backend::Docker => return Err(Refusal::Invalid(nothing_rented(server.name.as_str()))),
            Backend::Cloud => {}
        }
        if let Some(job) = self.open_job(server).await? {
            return Err(self.busy(&job, server.name.as_str()).await);
        }
        match &server.owned.host {
            Some(_) => Err(Refusal::Invalid(format!(
                "`{}` has a host now, and a host cannot be moved: stop it first. Its next start rents the new one.",
                server.name
            ))),
            None => Ok(()),
        }
    }
}

/// A list that people can choose from; empty where it is not to be had in time.
async fn in_time<T>(what: &str, asked: impl Future<Output = anyhow::Result<Vec<T>>>) -> Vec<T> {
    match tokio::time::timeout(OFFERS_WITHIN, asked).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            tracing::info!("{what} could not be asked: {error:#}");
            vec![]
        }
        Err(_) => vec![],
    }
}

pub(super) fn nothing_rented(name: &str) -> String {
    format!("`{name}` runs in a container on this machine, so no provider, region, size or image applies to it.")
}

/// The names of the settings in which two places differ.
pub(super) fn changed(before: &Place, now: &Place) -> Vec<String> {
    let words = [
        (PROVIDER, before.provider != now.provider),
        (REGION, before.region != now.region),
        (SIZE, before.size != now.size),
        (IMAGE, before.image != now.image),
    ];
    words.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

/// The words as settings, for those servers that have a place.
pub(super) fn fields(server: &Server) -> Vec<Field> {
    match server.backend {
        Backend::Docker => return vec![],
        Backend::Cloud => {}
    }
    let field = |key: &str, label: &str, help: &str, value: &Option<String>| Field {
        key: key.to_owned(),
        label: label.to_owned(),
        help: help.to_owned(),
        kind: FieldKind::Text,
        value: value.clone(),
        default: None,
        required: false,
        secret: false,
    };
    let place = &server.place;
    vec![
        field(
            PROVIDER,
            "Provider",
            "Who its host is rented from; empty: as configured, or whoever is cheapest.",
            &place.provider,
        ),
        field(REGION, "Region", "The provider's word for it; empty: as configured.", &place.region),
        field(SIZE, "Size", "The provider's word for it; empty: what the game needs.", &place.size),
        field(
            IMAGE,
            "Image",
            "The system of its host, Debian or Ubuntu; empty: the Debian that the game needs.",
            &place.image,
        ),
    ]
}

/// What a provider calls something goes into its API and into messages, and looks the same everywhere.
fn check_words(place: &Place) -> Answer<()> {
    let words = [(PROVIDER, &place.provider), (REGION, &place.region), (SIZE, &place.size), (IMAGE, &place.image)];
    for (key, word) in words {
        let Some(word) = word else { continue };
        // Linode's images have a slash in their names.
        let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') || (c == '/' && key == IMAGE);
        if word.is_empty() || word.chars().count() > WORD_MAX_CHARS || !word.chars().all(ok) {
            let article = if key == IMAGE { "An" } else { "A" };
            return Err(Refusal::Invalid(format!(
                "{article} {key} is one word of letters, digits, dashes, dots and underscores, at most {WORD_MAX_CHARS} \
                 characters long, as the provider writes it."
            )));
        }
    }
    Ok(())
}

/// Refuses what no provider has, with what there is. Where the list of one that may have it is not known, nothing is
/// refused: renting will tell.
fn fits(place: &Place, set_up: &[String], offers: &[Quote]) -> Answer<()> {
    let none = |key: &str, word: &str, mut there: Vec<String>| {
        there.sort();
        there.dedup();
        Refusal::Invalid(format!("There is no {key} `{word}` to rent. There are: {}.", super::listed(&there)))
    };
    let asked: Vec<&String> = match &place.provider {
        Some(provider) => set_up.iter().filter(|known| *known == provider).collect(),
        None => set_up.iter().collect(),
    };
    if let (Some(provider), true) = (&place.provider, asked.is_empty() && !set_up.is_empty()) {
        return Err(none(PROVIDER, provider, set_up.to_vec()));
    }
    if asked.iter().any(|provider| !offers.iter().any(|offer| offer.provider == **provider)) {
        return Ok(());
    }
    let mut left: Vec<&Quote> = offers.iter().filter(|offer| asked.contains(&&offer.provider)).collect();
    type Of = fn(&Quote) -> &String;
    let words: [(&str, &Option<String>, Of); 2] =
        [(REGION, &place.region, |offer| &offer.region), (SIZE, &place.size, |offer| &offer.size)];
    for (key, word, of) in words {
        let Some(word) = word else { continue };
        let fit: Vec<&Quote> = left.iter().copied().filter(|offer| of(offer) == word).collect();
        if fit.is_empty() && !left.is_empty() {
            return Err(none(key, word, left.iter().map(|offer| of(offer).clone()).collect()));
        }
        left = fit;
    }
    Ok(())
}

/// The same for the image. Every provider has its own words for the same system, so without one any word that one of
/// them has will do, and renting will tell.
fn image_fits(place: &Place, images: &[HostImage]) -> Answer<()> {
    let Some(word) = &place.image else { return Ok(()) };
    if place.provider.as_deref() == Some(OWN_MACHINE) {
        return Err(Refusal::Invalid(
            "A machine of your own keeps the system that it has, so no image can be chosen for it.".to_owned(),
        ));
    }
    let here = |image: &&HostImage| place.provider.as_ref().is_none_or(|provider| *provider == image.provider);
    let there: Vec<&HostImage> = images.iter().filter(here).collect();
    if there.is_empty() || there.iter().any(|image| image.word == *word) {
        return Ok(());
    }
    let words: Vec<String> = there.iter().map(|image| image.word.clone()).collect();
    Err(Refusal::Invalid(format!(
        "There is no image `{word}` for a rented host. There are: {}. Games are prepared on Debian and Ubuntu.",
        super::listed(&words)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(provider: &str, region: &str, size: &str) -> Place {
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Place { provider: word(provider), region: word(region), size: word(size), ..Place::default() }
    }

    fn offers() -> Vec<Quote> {
        [("hetzner", "nbg1", "cx23"), ("hetzner", "hel1", "cx33"), ("linode", "us-east", "g6-nanode-1")]
            .map(|(provider, region, size)| Quote {
                provider: provider.into(),
                region: region.into(),
                size: size.into(),
                cpus: None,
                memory_mb: None,
                price: None,
            })
            .into()
    }

    #[test]
    fn what_no_provider_has_is_refused_with_what_there_is() {
        let set_up = ["hetzner".to_owned(), "linode".to_owned()];
        let refusal = |place: Place| fits(&place, &set_up, &offers()).err().map(|refusal| refusal.to_string());
        assert_eq!(refusal(place("", "", "")), None);
        assert_eq!(refusal(place("hetzner", "nbg1", "cx23")), None);
        assert_eq!(refusal(place("", "", "g6-nanode-1")), None);
        let unknown = refusal(place("aws", "", "")).unwrap();
        assert_eq!(unknown, "There is no provider `aws` to rent. There are: `hetzner` and `linode`.");
        let elsewhere = refusal(place("linode", "nbg1", "")).unwrap();
        assert_eq!(elsewhere, "There is no region `nbg1` to rent. There are: `us-east`.");
        let too_far = refusal(place("hetzner", "nbg1", "cx33")).unwrap();
        assert_eq!(too_far, "There is no size `cx33` to rent. There are: `cx23`.");
        // Nobody could be asked: renting will tell.
        assert!(fits(&place("aws", "moon", "huge"), &[], &[]).is_ok());
        assert!(fits(&place("hetzner", "moon", "huge"), &set_up, &[]).is_ok());
        // Nor could one of them, who may have it.
        let silent = ["hetzner".to_owned(), "linode".to_owned(), "vultr".to_owned()];
        assert!(fits(&place("vultr", "fra", ""), &silent, &offers()).is_ok());
        assert!(fits(&place("", "fra", ""), &silent, &offers()).is_ok());
    }

    #[test]
    fn an_image_is_one_of_its_providers_or_refused_with_those() {
        let image = |provider: &str, word: &str| HostImage {
            provider: provider.into(),
            word: word.into(),
            title: "Debian".into(),
            usual: false,
        };
        let images = [image("hetzner", "debian-12"), image("hetzner", "debian-13"), image("linode", "linode/debian12")];
        let refusal = |provider: &str, word: &str| {
            let place = Place { image: Some(word.into()), ..place(provider, "", "") };
            check_words(&place).and_then(|()| image_fits(&place, &images)).err().map(|refusal| refusal.to_string())
        };
        assert_eq!(refusal("hetzner", "debian-13"), None);
        assert_eq!(refusal("", "linode/debian12"), None);
        // Nobody could be asked: renting will tell.
        assert_eq!(refusal("vultr", "2136"), None);
        let other = refusal("hetzner", "linode/debian12").unwrap();
        assert_eq!(
            other,
            "There is no image `linode/debian12` for a rented host. There are: `debian-12` and `debian-13`. \
             Games are prepared on Debian and Ubuntu."
        );
        let own = refusal("ssh", "debian-12").unwrap();
        assert_eq!(own, "A machine of your own keeps the system that it has, so no image can be chosen for it.");
        assert!(refusal("hetzner", "a b").unwrap().starts_with("An image is one word"));
    }

    #[test]
    fn a_word_that_is_none_is_refused() {
        for word in ["a b", "x\n", "../etc", "`", "$(x)", "ü", &"x".repeat(65)] {
            for place in [place(word, "", ""), place("", word, ""), place("", "", word)] {
                assert!(check_words(&place).is_err(), "{word}");
            }
        }
        assert!(check_words(&place("hetzner", "us-ord.2", "vc2-1c_1gb")).is_ok());
    }
}
