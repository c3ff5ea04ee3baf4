//! Renting a host. A crash between a request and its answer never makes two: what carries our labels is looked for
//! first, and the host's own key is on our disk before the host exists.

use super::arrive::public_ports;
use super::choose::{self, Needs, price_of};
use super::patience::when_it_says;
use super::saved::Mark;
use super::{CloudDriver, Machine, boot, cloud_error, now_ms};
use crate::clients::cloud::{
    CloudApi, CloudError, FirewallSpec, Host, HostSpec, HostState, Labels, Offer, OpenPort, USUAL_DEBIAN,
};
use crate::engine::{StepCx, StepError};
use crate::model::cost::{Rental, spoken as money};
use crate::model::host::{HostRef, OWN_MACHINE, Place};
use crate::model::job::{Gain, Step};
use crate::model::recipe::Recipe;
use crate::model::server::{Owned, Server};
use crate::model::{JobId, ServerId};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request for a host that nobody waits for any more is watched for so long. Chosen, not measured at any provider;
/// what comes later is found by the sweep.
pub(super) const LATE_HOST_LIMIT: Duration = Duration::from_secs(75);
/// Reading a backup may hold up renting no longer than this, well within the step's limit. It is read again before it is
/// pushed.
const READ_LIMIT: Duration = Duration::from_secs(600);
/// The size of a machine of your own.
pub(super) const YOUR_OWN: &str = "your own";
/// A host's name is a DNS label.
const NAME_MAX_CHARS: usize = 63;

impl CloudDriver {
    pub(super) fn labels(&self, cx: &StepCx<'_>, server: &ServerId) -> Labels {
        Labels { instance: self.settings.instance.clone(), server: server.0.clone(), job: cx.job.id.to_string() }
    }

    /// Where this server's host is to be: what people chose, then the operator, then what is there. The same at each step
    /// of a job, so of several providers it is the first by name: the cheapest is chosen before, and then it is named.
    pub(super) fn place(&self, server: &Server) -> Result<Place, String> {
        let named = server.place.provider.clone().or_else(|| self.settings.default_provider.clone());
        let provider = match named.or_else(|| self.providers.keys().next().cloned()) {
            Some(provider) => provider,
            None if !self.machines.is_empty() => OWN_MACHINE.to_owned(),
            None => {
                return Err(
                    "No provider of hosts is set up: put a token under [cloud.hetzner], [cloud.linode], [cloud.digitalocean] or [cloud.vultr], or a machine of yours under [hosts]."
                        .into(),
                );
            }
        };
        let mut place = Place { provider: Some(provider.clone()), ..server.place.clone() };
        if provider == OWN_MACHINE {
            place.region = place.region.or_else(|| self.machines.keys().next().cloned());
        } else if let Some(set_up) = self.providers.get(&provider) {
            place.region = place.region.or_else(|| set_up.region.clone());
            place.size = place.size.or_else(|| set_up.plan.clone());
        }
        Ok(place)
    }

    pub(super) fn needs(&self, server: &Server, recipe: &Recipe) -> Needs {
        let memory_mb = server.limits.memory_mb.unwrap_or(recipe.resources.memory_mb);
        let cpus = server.limits.cpus.unwrap_or(recipe.resources.cpus);
        Needs::of_game(memory_mb, cpus, recipe.resources.disk_mb)
    }

    pub(super) async fn create_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let place = self.place(server).map_err(StepError::fatal)?;
        let provider = place.provider.clone().unwrap_or_default();
        if let Some(host) = &server.owned.host {
            if host.provider != OWN_MACHINE {
                let api = &self.provider(&host.provider)?.api;
                match when_it_says(cx, "looking for the host", || api.host(&host.id)).await? {
                    Some(found) if found.state != HostState::Leaving => {
                        return Ok(Gain::note("the host is there already"));
                    }
                    // It is on its way out or gone: a new one is rented below.
                    Some(_) => {}
                    None => self.must_be_silent(host).await?,
                }
                self.forget_link(&server.id);
                cx.out.line(lost(server, host));
            } else if provider == OWN_MACHINE && place.region.as_deref() == Some(host.id.as_str()) {
                return Ok(Gain::note("the game is on this machine already"));
            } else if host.played {
                return Err(StepError::fatal(format!(
                    "The world is still on your machine `{}`. Stop the server first, so that it is saved from there.",
                    host.id
                )));
            } else {
                self.must_be_saved(server, host).await?;
                self.remove_folder(server).await?;
                self.forget_link(&server.id);
            }
        }
        if let Some(world) = &server.owned.world {
            // Before anything is paid for.
            self.backups.must_begin_well(cx, world).await?;
        }
        if provider == OWN_MACHINE {
            return self.take_machine(server, &place).await;
        }
        self.rent(cx, server, &place).await
    }

    async fn take_machine(&self, server: &Server, place: &Place) -> Result<Gain, StepError> {
        let name = place.region.clone().unwrap_or_default();
        let machine = self.machine(&name)?;
        let address = super::address_of(machine).await?;
        // Kept with the machine and not with the server: whoever trusts its new key does so for all servers there.
        let host_key = match self.pin_of(&name, machine)? {
            Some(_) => String::new(),
            None => return Err(self.untrusted(&name, machine).await),
        };
        let host = HostRef {
            provider: OWN_MACHINE.to_owned(),
            id: name.clone(),
            region: name.clone(),
            size: YOUR_OWN.to_owned(),
            address: Some(address.ip()),
            label: None,
            firewall: None,
            price: None,
            created_at: now_ms(),
            host_key,
            played: false,
        };
        let owned = Owned { host: Some(host), ..server.owned.clone() };
        Ok(Gain::owned(owned).with_note(format!("your machine `{name}`, which costs nothing here")))
    }

    /// A first contact with a machine that nobody vouched for ends here, with what a person needs to vouch for it.
    pub(super) async fn untrusted(&self, name: &str, machine: &Machine) -> StepError {
        let seen = match super::address_of(machine).await {
            Ok(address) => crate::clients::ssh::scan(address).await.map_err(|error| error.to_string()),
            Err(StepError::Retry(error) | StepError::Fatal(error)) => Err(format!("{error:#}")),
        };
        let hint = match seen {
            Ok(key) => format!(
                "It shows the key {}. If `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says the same on the machine itself, whoever runs Spawnpoint types `spawnpoint trust {name}`.",
                key.fingerprint
            ),
            Err(why) => format!("It could not be asked for its key: {why}"),
        };
        StepError::fatal(format!("Nobody has said yet that the machine `{name}` is the right one. {hint}"))
    }

    async fn rent(&self, cx: &StepCx<'_>, server: &Server, place: &Place) -> Result<Gain, StepError> {
        let name = place.provider.clone().unwrap_or_default();
        let api = &self.provider(&name)?.api;
        let recipe = self.recipe(&server.game)?;
        let mut offers = when_it_says(cx, "asking for prices", || self.offers_of(&name, api)).await?;
        // What an earlier try left is taken as it is: its answer may have been lost on the way.
        if let Some(found) = self.find_host(cx, api.as_ref(), server).await? {
            let Some(host_key) = self.key_of_found(cx, server, &name, &found).await? else {
                cx.out.line(format!("The host {} was made too late and never reached; it is destroyed.", found.name));
                self.destroy_and_wait(cx, api.as_ref(), &found.id, None).await?;
                self.bill_unrecorded(cx, &name, &found).await?;
                return Err(StepError::retry("A host of an earlier try was destroyed; renting another."));
            };
            let firewall = self.open_firewall(cx, api.as_ref(), server, recipe).await?;
            let price = offers.iter().find(|offer| offer.size == found.size && offer.region == found.region);
            cx.out.line(format!("Found the host {} of an earlier time.", found.name));
            let others = found.labels.job != cx.job.id.to_string();
            let rented = self.rented(server, &name, found, price, firewall, host_key);
            return if others { self.looked_at(cx, server, rented).await } else { Ok(rented) };
        }
        self.must_be_whole(cx, server).await?;
        if let Some(image) = &place.image {
            self.check_image(cx, &name, api, image).await?;
        }
        let host_key = self.new_host_key(cx, server).await?;
        let firewall = self.open_firewall(cx, api.as_ref(), server, recipe).await?;
        let needs = self.needs(server, recipe);
        let rentals = cx.journal.rentals(&server.guild, 0).await.map_err(StepError::Retry)?;
        let last = rentals.iter().rfind(|rental| rental.server == server.id);
        let known = place.known_price(last);
        let place = &place.agreed();
        let no_other = |why: String, offers: &[Offer]| {
            let others = choose::others(offers, &needs, place);
            StepError::fatal(format!("{why}{}", choose::advice(&others, &self.elsewhere(server, &name, &needs))))
        };
        let chosen = choose::choose_known(&offers, &needs, place, known);
        let mut offer = chosen.cloned().map_err(|why| no_other(why, &offers))?;
        let at_most = known.map_or(offer.hourly, |known| known.hourly);
        let user_data = boot::user_data(&host_key, &self.key);
        loop {
            let spec = HostSpec {
                name: host_name(&server.name.to_string(), &cx.job.id.to_string()),
                labels: self.labels(cx, &server.id),
                region: offer.region.clone(),
                size: offer.size.clone(),
                image: place.image.clone(),
                debian: recipe.container.debian().unwrap_or(USUAL_DEBIAN),
                user_data: user_data.clone(),
                firewall: firewall.clone(),
            };
            let first_time = self.note_asked(cx, server).await?;
            let made = api.create(&spec).await;
            // What became of an earlier request is no more known than before.
            if first_time && is_definite(&made) {
                self.forget_asked(cx, server).await?;
            }
            match made {
                Ok(host) => {
                    self.note_given(&name, &offer);
                    let public = host_key.public_line.clone();
                    return Ok(self.rented(server, &name, host, Some(&offer), firewall, public));
                }
                Err(CloudError::NoCapacity(why)) => {
                    cx.out.line(&why);
                    self.note_refused(&name, &offer);
                    let gone = |one: &&mut Offer| one.size == offer.size && one.region == offer.region;
                    offers.iter_mut().filter(gone).for_each(|one| one.available = false);
                    // Another that costs no more is taken; one that costs more takes a person's yes.
                    let next = choose::instead(&offers, &needs, place, at_most);
                    offer = next.cloned().ok_or_else(|| no_other(why, &offers))?;
                    cx.out.line(format!("Trying size {} in region {} instead.", offer.size, offer.region));
                }
                Err(CloudError::Busy { why, after }) => {
                    // Whether it was made is not known: the next try looks first.
                    tokio::time::sleep(after.unwrap_or_default()).await;
                    return Err(StepError::retry(format!("Renting a host: {why}")));
                }
                Err(CloudError::Quota(why)) => {
                    // This account gets nothing more here, of whatever size.
                    for one in &mut offers {
                        self.note_refused(&name, one);
                        one.available = false;
                    }
                    return Err(no_other(format!("Renting a host: {why}"), &offers));
                }
                Err(CloudError::Refused(why)) if place.image.is_none() => {
                    let hint = self.without_debian(&name, api, spec.debian).await;
                    return Err(StepError::fatal(format!("Renting a host: {why}{hint}")));
                }
                Err(error) => return Err(cloud_error("Renting a host")(error)),
            }
        }
    }

    /// A damaged backup is known before a host for it is paid for. Where a host is there already, nothing more is paid
    /// and it may hold a newer world, so that is left to the push.
    async fn must_be_whole(&self, cx: &StepCx<'_>, server: &Server) -> Result<(), StepError> {
        let Some(world) = &server.owned.world else { return Ok(()) };
        if cx.job.record(Step::PushWorld).is_none() {
            return Ok(());
        }
        match tokio::time::timeout(READ_LIMIT, self.backups.sound(server, world)).await {
            Ok(sound) => sound.map(drop),
            Err(_) => {
                cx.out.line("The backup is so large that it is checked when it is put on the host.");
                Ok(())
            }
        }
    }

    /// What other providers have, for somebody to whom this one gives nothing; empty where there is none.
    fn elsewhere(&self, server: &Server, provider: &str, needs: &Needs) -> String {
        let others = self.of_other_providers(server, provider, needs);
        let list: Vec<String> = others
            .iter()
            .filter_map(|quote| {
                let price = quote.price.as_ref()?;
                let costs = money(price.hourly, &price.currency);
                Some(format!("`{}` has size `{}` at {costs} an hour", quote.provider, quote.size))
            })
            .collect();
        match list.is_empty() {
            true => String::new(),
            false => format!(" Of the other providers, {}.", list.join(", and ")),
        }
    }

    fn rented(
        &self,
        server: &Server,
        provider: &str,
        host: Host,
        offer: Option<&Offer>,
        firewall: Option<String>,
        host_key: String,
    ) -> Gain {
        let price = offer.map(price_of);
        let costs = match &price {
            Some(price) => format!("{} an hour", money(price.hourly, &price.currency)),
            None => "at a price that is not known".to_owned(),
        };
        let note = format!("{provider}, {} in {}, {costs}; billing is ON", host.size, host.region);
        let host = HostRef {
            provider: provider.to_owned(),
            id: host.id,
            region: host.region,
            size: host.size,
            address: host.address,
            label: None,
            firewall,
            price,
            created_at: host.created_at_ms,
            host_key,
            played: false,
        };
        Gain::owned(Owned { host: Some(host), address: None, ..server.owned.clone() }).with_note(note)
    }

    /// This server's host at the provider, whatever is on record. Of several the oldest; the others are reported by the
    /// sweep. A list may lag behind: there is what the provider says when it is asked for this very host.
    async fn find_host(&self, cx: &StepCx<'_>, api: &dyn CloudApi, server: &Server) -> Result<Option<Host>, StepError> {
        let what = "looking for hosts of earlier tries";
        let all = when_it_says(cx, what, || api.hosts(&self.settings.instance)).await?;
        let mut ours: Vec<Host> = all
            .into_iter()
            .filter(|host| host.labels.server == server.id.0 && host.state != HostState::Leaving)
            .collect();
        ours.sort_by_key(|host| host.created_at_ms);
        for listed in ours {
            let found = when_it_says(cx, what, || api.host(&listed.id)).await?;
            if let Some(host) = found.filter(|host| host.state != HostState::Leaving) {
                return Ok(Some(host));
            }
        }
        Ok(None)
    }

    /// Bills a host that goes and was never on record, to who asked for the job that brought it: its provider bills it like
    /// any other. Who has its key may say so before it goes, so that no crash loses it, and again when it is gone: the last
    /// end holds. Without its key it is billed when it is gone and not before: found again, one that is on the bill would be
    /// taken for one that was played on.
    pub(super) async fn bill_unrecorded(&self, cx: &StepCx<'_>, provider: &str, host: &Host) -> Result<(), StepError> {
        let actor = match host.labels.job.parse() {
            Ok(id) => cx.journal.load(JobId(id)).await.map_err(StepError::Retry)?.actor,
            Err(_) => cx.job.actor.clone(),
        };
        // Without a price it is on the bill all the same.
        let offers = self.offers_or_older(provider).await.unwrap_or_default();
        let offer = offers.iter().find(|offer| offer.size == host.size && offer.region == host.region);
        let rental = Rental {
            provider: provider.to_owned(),
            host: host.id.clone(),
            server: cx.server()?.id.clone(),
            actor,
            region: host.region.clone(),
            size: host.size.clone(),
            price: offer.map(price_of),
            began_at: host.created_at_ms,
            ended_at: Some(now_ms()),
        };
        cx.journal.bill_unrecorded(&rental).await.map_err(StepError::Retry)
    }

    /// The key to know a host by that is there already. `None` where nothing can ever have been on it. A world that
    /// nobody has saved, or may not have, is for a person to decide about.
    async fn key_of_found(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        provider: &str,
        found: &Host,
    ) -> Result<Option<String>, StepError> {
        let same = |rental: &Rental| rental.provider == provider && rental.host == found.id;
        let waits = |why: &str| {
            StepError::fatal(format!(
                "The host {} ({}) of this server is still at {provider}, {why}",
                found.name, found.id
            ))
        };
        let Some(key) = self.known_host_key(&server.id, &found.labels.job).await? else {
            // Games run only on hosts that were on record, and those were on the bill.
            let billed = cx.journal.rentals(&server.guild, 0).await.map_err(StepError::Retry)?.iter().any(same);
            let ours = match found.labels.job.parse() {
                Ok(id) => cx.journal.load(JobId(id)).await.is_ok_and(|job| job.subject.server() == Some(&server.id)),
                Err(_) => false,
            };
            return match ours && !billed {
                true => Ok(None),
                false => Err(waits(
                    "and its key is not on this machine any more, so nobody here can look what is on it. Where that is \
                     not needed, an admin deletes it with `/admin orphans`. Until then the server can start at another \
                     provider: `/server settings`.",
                )),
            };
        };
        let left = cx.journal.left_bills().await.map_err(StepError::Retry)?.iter().any(same);
        if left && self.mark_of(&server.id, provider, &found.id).await? != Some(Mark::Saved) {
            return Err(waits(
                "left behind with what was played on it and never saved. An admin decides with `/admin orphans`: give it \
                 back, and the server goes on with what is on it, or delete it. Then start again.",
            ));
        }
        Ok(Some(key))
    }

    /// What another job made may hold a world that is newer than any backup. That is known before it goes on record:
    /// nobody may take it for empty, and destroy it, because this start came no further.
    async fn looked_at(&self, cx: &StepCx<'_>, server: &Server, rented: Gain) -> Result<Gain, StepError> {
        let Some(Owned { host: Some(host), .. }) = rented.owned.clone() else { return Ok(rented) };
        let known = Server { owned: Owned { host: Some(host.clone()), ..server.owned.clone() }, ..server.clone() };
        cx.out.line("Looking what is on it.");
        self.forget_link(&server.id);
        let played = self.holds_unsaved(&known, &host).await;
        self.forget_link(&server.id);
        let played = played.map_err(|error| {
            let hint = "An admin can also delete it with `/admin orphans`";
            let said =
                |why: anyhow::Error| why.context(format!("What is on the host {} is not known. {hint}", host.id));
            match error {
                StepError::Retry(why) => StepError::Retry(said(why)),
                StepError::Fatal(why) => StepError::Fatal(said(why)),
            }
        })?;
        let host = HostRef { played, ..host };
        Ok(Gain { owned: rented.owned.map(|owned| Owned { host: Some(host), ..owned }), ..rented })
    }

    async fn open_firewall(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<Option<String>, StepError> {
        let mut ports = vec![OpenPort { number: super::SSH_PORT, udp: false }];
        for (number, udp) in public_ports(recipe, &BTreeMap::new()) {
            ports.push(OpenPort { number, udp });
        }
        let spec =
            FirewallSpec { name: format!("spawnpoint-{}", server.id.0), labels: self.labels(cx, &server.id), ports };
        when_it_says(cx, "opening the provider's firewall", || api.open_firewall(&spec)).await
    }
}

/// Whether an answer to a request for a host says all that there is to know. One that was carried out and whose answer
/// was lost or cannot be read has made a host all the same, perhaps later.
fn is_definite(made: &Result<Host, CloudError>) -> bool {
    match made {
        Ok(_) => true,
        Err(CloudError::NoCapacity(_) | CloudError::Quota(_) | CloudError::Denied(_) | CloudError::Refused(_)) => true,
        Err(CloudError::Busy { .. } | CloudError::Strange(_)) => false,
    }
}

/// What a start says when the host on record is no more.
fn lost(server: &Server, host: &HostRef) -> String {
    let kept = match (&server.owned.world, host.played) {
        (Some(world), true) => {
            format!("What was played on it after the backup `{world}` is lost; that is the world now.")
        }
        (None, true) => "What was played on it is lost, and there is no backup.".to_owned(),
        (Some(_) | None, false) => "Nothing is lost.".to_owned(),
    };
    format!("The host {} is gone, and not by us. {kept}", host.id)
}

/// The same for every try of one job, and a valid DNS label.
fn host_name(server: &str, job: &str) -> String {
    let mut name = format!("spawnpoint-{server}-{job}");
    name.truncate(NAME_MAX_CHARS);
    name.trim_end_matches('-').to_owned()
}
