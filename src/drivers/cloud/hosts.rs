//! Renting a host and giving it back. A crash between a request and its answer never makes two: what carries our
//! labels is looked for first, and the host's own key is on our disk before the host exists.

use super::choose::{self, Needs, price_of};
use super::{CloudDriver, Machine, boot, cloud_error, now_ms, spoken, ssh_error};
use crate::clients::cloud::{CloudApi, CloudError, FirewallSpec, Host, HostSpec, HostState, Labels, Offer, OpenPort};
use crate::clients::ssh::{Exec, HostKey, SshError};
use crate::drivers::blocking;
use crate::engine::{StepCx, StepError};
use crate::model::cost::{Rental, spoken as money};
use crate::model::host::{HostRef, OWN_MACHINE, Place};
use crate::model::job::Gain;
use crate::model::recipe::{PortProtocol, Recipe};
use crate::model::server::{Owned, Server};
use crate::model::{JobId, ServerId};
use secrecy::ExposeSecret;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// How often a provider is asked whether a host is up or gone.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// A host whose system has just come up may show a key that is not ours yet, or not know ours yet, for so long.
const FIRST_BOOT_LIMIT: Duration = Duration::from_secs(180);
/// A destroy that was accepted and not done is asked for again this often.
const DESTROY_AGAIN: Duration = Duration::from_secs(30);
/// A provider that asks for patience is given this much within one try; the next try has more.
const PATIENCE_MAX: Duration = Duration::from_secs(60);
/// A second host that was made by mistake is waited for so long.
const TWIN_LIMIT: Duration = Duration::from_secs(60);
/// The system's own first boot may take so long.
const CLOUD_INIT_LIMIT: Duration = Duration::from_secs(600);
/// The size of a machine of your own.
pub(super) const YOUR_OWN: &str = "your own";
/// Between the private and the public half of a host's key in its file.
const KEY_BORDER: &str = "\n---\n";
/// A host's name is a DNS label.
const NAME_MAX_CHARS: usize = 63;

impl CloudDriver {
    fn labels(&self, cx: &StepCx<'_>, server: &ServerId) -> Labels {
        Labels { instance: self.settings.instance.clone(), server: server.0.clone(), job: cx.job.id.to_string() }
    }

    /// Where this server's host is to be: what people chose, then the operator, then what is there.
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
                match api.host(&host.id).await.map_err(cloud_error("looking for the host"))? {
                    Some(found) if found.state != HostState::Leaving => {
                        return Ok(Gain::note("the host is there already"));
                    }
                    // It is on its way out or gone: a new one is rented below.
                    Some(_) | None => {
                        self.forget_link(&server.id);
                        cx.out.line(lost(server, host));
                    }
                }
            } else if provider == OWN_MACHINE && place.region.as_deref() == Some(host.id.as_str()) {
                return Ok(Gain::note("the game is on this machine already"));
            } else if host.played {
                return Err(StepError::fatal(format!(
                    "The world is still on your machine `{}`. Stop the server first, so that it is saved from there.",
                    host.id
                )));
            } else {
                self.remove_folder(server).await?;
                self.forget_link(&server.id);
            }
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
        let offers = self.offers_of(&name, api.as_ref()).await.map_err(cloud_error("asking for prices"))?;
        // What an earlier try left is taken as it is: its answer may have been lost on the way.
        if let Some(found) = self.find_host(api.as_ref(), server).await? {
            let Some(host_key) = self.key_of_found(cx, server, &name, &found).await? else {
                cx.out.line(format!("The host {} was made too late and never reached; it is destroyed.", found.name));
                api.destroy(&found.id).await.map_err(cloud_error("destroying a host that was made too late"))?;
                return Err(StepError::retry("A host of an earlier try was destroyed; renting another."));
            };
            let firewall = self.open_firewall(cx, api.as_ref(), server, recipe).await?;
            let price = offers.iter().find(|offer| offer.size == found.size && offer.region == found.region);
            cx.out.line(format!("Found the host {} of an earlier time.", found.name));
            return Ok(self.rented(server, &name, found, price, firewall, host_key));
        }
        if let Some(image) = &place.image {
            self.check_image(&name, api.as_ref(), image).await?;
        }
        let host_key = self.new_host_key(cx, server).await?;
        let firewall = self.open_firewall(cx, api.as_ref(), server, recipe).await?;
        let needs = self.needs(server, recipe);
        let first = choose::choose(&offers, &needs, place).map_err(StepError::fatal)?;
        let mut offer = first;
        let mut refused = vec![];
        let user_data = boot::user_data(&host_key, &self.key);
        loop {
            let spec = HostSpec {
                name: host_name(&server.name.to_string(), &cx.job.id.to_string()),
                labels: self.labels(cx, &server.id),
                region: offer.region.clone(),
                size: offer.size.clone(),
                image: place.image.clone(),
                user_data: user_data.clone(),
                firewall: firewall.clone(),
            };
            match api.create(&spec).await {
                Ok(host) => {
                    let public = host_key.public_line.clone();
                    return Ok(self.rented(server, &name, host, Some(offer), firewall, public));
                }
                Err(CloudError::NoCapacity(why)) => {
                    cx.out.line(&why);
                    refused.push((offer.size.clone(), offer.region.clone()));
                    // Another that costs no more is taken; one that costs more takes a person's yes.
                    match choose::instead(&offers, &needs, place, &refused, first.hourly) {
                        Some(next) => {
                            cx.out.line(format!("Trying size {} in region {} instead.", next.size, next.region));
                            offer = next;
                        }
                        None => {
                            let left: Vec<Offer> = offers
                                .iter()
                                .filter(|one| {
                                    !refused.iter().any(|(size, region)| *size == one.size && *region == one.region)
                                })
                                .cloned()
                                .collect();
                            return Err(StepError::fatal(format!(
                                "{why}{}",
                                choose::others(&left, &needs, first.hourly)
                            )));
                        }
                    }
                }
                Err(CloudError::Busy { why, after }) => {
                    // Whether it was made is not known: the next try looks first.
                    tokio::time::sleep(after.unwrap_or_default().min(PATIENCE_MAX)).await;
                    return Err(StepError::retry(format!("Renting a host: {why}")));
                }
                Err(error) => return Err(cloud_error("Renting a host")(error)),
            }
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
    /// sweep.
    async fn find_host(&self, api: &dyn CloudApi, server: &Server) -> Result<Option<Host>, StepError> {
        let all =
            api.hosts(&self.settings.instance).await.map_err(cloud_error("looking for hosts of earlier tries"))?;
        let mut ours: Vec<Host> = all
            .into_iter()
            .filter(|host| host.labels.server == server.id.0 && host.state != HostState::Leaving)
            .collect();
        ours.sort_by_key(|host| host.created_at_ms);
        Ok(ours.into_iter().next())
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
        let decide = |why: &str| {
            StepError::fatal(format!(
                "The host {} ({}) of this server is still at {provider}, {why}. An admin decides with `/admin orphans`: \
                 give it back, and the server goes on with what is on it, or delete it. Then start again.",
                found.name, found.id
            ))
        };
        let Some(key) = self.known_host_key(server, &found.labels.job).await? else {
            // Games run only on hosts that were on record, and those were on the bill.
            let billed = cx.journal.rentals(&server.guild, 0).await.map_err(StepError::Retry)?.iter().any(same);
            let ours = match found.labels.job.parse() {
                Ok(id) => cx.journal.load(JobId(id)).await.is_ok_and(|job| job.subject.server() == Some(&server.id)),
                Err(_) => false,
            };
            return match ours && !billed {
                true => Ok(None),
                false => Err(decide("and its key is not on this machine any more, so nobody can look what is on it")),
            };
        };
        let left = cx.journal.left_bills().await.map_err(StepError::Retry)?.iter().any(same);
        if left && !self.is_saved(provider, &found.id).await? {
            return Err(decide("left behind with what was played on it and never saved"));
        }
        Ok(Some(key))
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
        api.open_firewall(&spec).await.map_err(cloud_error("opening the provider's firewall"))
    }

    fn host_key_path(&self, server: &ServerId, job: &str) -> PathBuf {
        self.settings.data_dir.join("ssh/hosts").join(format!("{}-{job}", server.0))
    }

    /// Makes the host's key, or takes the one that an earlier try of this job made.
    async fn new_host_key(&self, cx: &StepCx<'_>, server: &Server) -> Result<HostKey, StepError> {
        let path = self.host_key_path(&server.id, &cx.job.id.to_string());
        let work = move || -> anyhow::Result<HostKey> {
            if let Ok(text) = std::fs::read_to_string(&path)
                && let Some(key) = read_key(&text)
            {
                return Ok(key);
            }
            let key = HostKey::generate();
            std::fs::create_dir_all(path.parent().expect("the path has a folder"))?;
            let part = path.with_extension("part");
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
            file.write_all(written_key(&key).as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            Ok(key)
        };
        blocking(work).await?.map_err(|error| StepError::fatal(format!("keeping the host's SSH key: {error:#}")))
    }

    pub(super) async fn known_host_key(&self, server: &Server, job: &str) -> Result<Option<String>, StepError> {
        let path = self.host_key_path(&server.id, job);
        blocking(move || {
            let text = std::fs::read_to_string(path).ok()?;
            read_key(&text).map(|key| key.public_line)
        })
        .await
    }

    /// Waits until the host runs, has an address, and lets us in with the key that it was given.
    pub(super) async fn await_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let mut host = self.host_of(server)?.clone();
        if host.provider != OWN_MACHINE {
            host.address = Some(self.await_running(cx, &host).await?);
        }
        let mut server = server.clone();
        server.owned.host = Some(host.clone());
        self.await_ssh(cx, &server).await?;
        self.destroy_twins(cx, &host).await?;
        if !host.played {
            // A host of an earlier time that is back on record: where a game has run, its world may be newer than any
            // backup, and nothing may be put over it.
            let ran = self.status(&server, false).await?;
            let ran = ran.get("state").is_some_and(|state| matches!(state.as_str(), "running" | "stopped"));
            host.played = ran && !self.is_saved(&host.provider, &host.id).await?;
            server.owned.host = Some(host.clone());
        }
        let recipe = self.recipe(&server.game)?;
        let ports = self.choose_ports(cx, &server, recipe).await?;
        let join = recipe.join_port().and_then(|name| ports.get(name));
        let (mut address, mut note) = (None, String::new());
        if let (Some(ip), Some(port)) = (host.address, join) {
            note = spoken(ip, *port);
            address = Some(note.clone());
            if let Some((label, name)) = self.point_name(cx, &server, ip).await? {
                address = Some(format!("{name}:{port}"));
                note = format!("{name}:{port} leads to {note}");
                host.label = Some(label);
            }
        }
        let owned = Owned { host: Some(host), address, ports, ..server.owned.clone() };
        Ok(Gain::owned(owned).with_note(note))
    }

    async fn await_running(&self, cx: &StepCx<'_>, host: &HostRef) -> Result<std::net::IpAddr, StepError> {
        let api = &self.provider(&host.provider)?.api;
        let mut said = None;
        loop {
            let wait = match api.host(&host.id).await {
                Ok(None) => return Err(StepError::fatal("The provider says that the host is gone.")),
                Ok(Some(Host { state: HostState::Running, address: Some(address), .. })) => return Ok(address),
                Ok(Some(found)) => {
                    if said != Some(found.state) {
                        cx.out.line(match found.state {
                            HostState::Starting => "The host is being made.",
                            HostState::Running => "The host runs and has no address yet.",
                            HostState::Off => "The host is powered off; somebody has to power it on at the provider.",
                            HostState::Leaving => {
                                return Err(StepError::fatal("The host is being destroyed by somebody."));
                            }
                        });
                        said = Some(found.state);
                    }
                    ASK_EVERY
                }
                Err(CloudError::Busy { why, after }) => {
                    cx.out.line(&why);
                    after.unwrap_or(ASK_EVERY).clamp(ASK_EVERY, PATIENCE_MAX)
                }
                Err(error) => return Err(cloud_error("waiting for the host")(error)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn await_ssh(&self, cx: &StepCx<'_>, server: &Server) -> Result<(), StepError> {
        let ssh = self.link(server).await?;
        let young = Instant::now() + FIRST_BOOT_LIMIT;
        let mut said = String::new();
        loop {
            match ssh.connect().await {
                Ok(()) => break,
                Err(error) => {
                    let passing = match &error {
                        SshError::Unreachable { .. } | SshError::Timeout { .. } | SshError::Broken { .. } => true,
                        // Before the first boot has got so far, sshd may run with other keys than it will.
                        SshError::WrongHostKey { .. } | SshError::NoUsableHostKey { .. } | SshError::Denied { .. } => {
                            self.host_of(server)?.provider != OWN_MACHINE && Instant::now() < young
                        }
                        SshError::Exit { .. } | SshError::Refused(_) => false,
                    };
                    if !passing {
                        return Err(ssh_error("connecting to the host")(error));
                    }
                    let text = error.to_string();
                    if text != said {
                        cx.out.line(format!("Not yet: {text}"));
                        said = text;
                    }
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
        }
        // A machine of yours has long had its first boot, or never one by cloud-init, which would be waited for in vain.
        if self.host_of(server)?.provider == OWN_MACHINE {
            return Ok(());
        }
        // The first boot goes on after SSH is up; what it installs would stand in the bootstrap script's way.
        let wait =
            "command -v cloud-init >/dev/null || exit 0; cloud-init status --wait >/dev/null; code=$?; [ $code -ne 1 ]";
        let exited = ssh.run(Exec::new(["sh", "-c", wait], CLOUD_INIT_LIMIT), &mut |line| cx.out.line(line)).await;
        exited.and_then(|exited| exited.ok()).map(drop).map_err(ssh_error("waiting for the host's first boot to end"))
    }

    /// A rented host has all numbers to itself; on a machine of yours others may be there first.
    async fn choose_ports(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        recipe: &Recipe,
    ) -> Result<BTreeMap<String, u16>, StepError> {
        let own: BTreeMap<String, u16> = recipe.ports.iter().map(|(name, port)| (name.clone(), port.number)).collect();
        let host = self.host_of(server)?;
        if host.provider != OWN_MACHINE {
            return Ok(own);
        }
        if recipe.ports.keys().all(|name| server.owned.ports.contains_key(name)) {
            return Ok(server.owned.ports.clone());
        }
        let everybody = cx.journal.servers().await.map_err(StepError::Retry)?;
        let mut taken: Vec<u16> = everybody
            .iter()
            .filter(|other| other.id != server.id)
            .filter(|other| {
                other.owned.host.as_ref().is_some_and(|one| one.provider == OWN_MACHINE && one.id == host.id)
            })
            .flat_map(|other| other.owned.ports.values().copied())
            .collect();
        taken.extend(self.listeners(server).await?);
        let distance = self.settings.ports.0..=self.settings.ports.1;
        let fits = |shift: i32| {
            let shifted: Option<BTreeMap<String, u16>> = own
                .iter()
                .map(|(name, number)| {
                    let number = u16::try_from(i32::from(*number) + shift).ok()?;
                    (!taken.contains(&number)).then(|| (name.clone(), number))
                })
                .collect();
            shifted
        };
        // All of a recipe's ports are moved together: some games count on from their first.
        let lowest = own.values().min().copied().unwrap_or(0);
        std::iter::once(0)
            .chain(distance.map(|first| i32::from(first) - i32::from(lowest)))
            .find_map(fits)
            .ok_or_else(|| StepError::fatal("No ports are free on this machine; other servers have them all."))
    }

    async fn listeners(&self, server: &Server) -> Result<Vec<u16>, StepError> {
        let ssh = self.link(server).await?;
        let mut ports = vec![];
        let exec = Exec::new(["ss", "-Hltun"], Duration::from_secs(20));
        let exited = ssh
            .run(exec, &mut |line| {
                let local = line.split_whitespace().nth(4).unwrap_or_default();
                ports.extend(local.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()));
            })
            .await
            .map_err(ssh_error("looking which ports are taken"))?;
        exited.ok().map_err(ssh_error("looking which ports are taken"))?;
        Ok(ports)
    }

    pub(super) async fn undo_create_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let job = cx.job.id.to_string();
        let nothing = Owned { host: None, address: None, ports: BTreeMap::new(), ..server.owned.clone() };
        let (provider, on_record) = match &server.owned.host {
            Some(host) => (host.provider.clone(), Some(host.clone())),
            None => match self.place(server).ok().and_then(|place| place.provider) {
                Some(provider) => (provider, None),
                None => return Ok(Gain::default()),
            },
        };
        if provider == OWN_MACHINE {
            let Some(_) = on_record else { return Ok(Gain::default()) };
            // A folder that was there before this job stays, and so does the record of it.
            if !self.folder_is_of_job(server, &job).await? {
                return Ok(Gain::note("the game's folder was there before and stays"));
            }
            if let Some(host) = &on_record {
                self.clear_name(cx, host).await;
            }
            self.remove_folder(server).await?;
            return Ok(Gain::owned(nothing));
        }
        // The host's key is on our disk before anything is asked for. A provider that did not even tell its prices, for
        // a wrong token perhaps, is not asked again what it may have made.
        if on_record.is_none() && self.known_host_key(server, &job).await?.is_none() {
            return Ok(Gain::default());
        }
        let api = &self.provider(&provider)?.api;
        let all = api.hosts(&self.settings.instance).await.map_err(cloud_error("looking for the host"))?;
        let mine: Vec<Host> =
            all.into_iter().filter(|host| host.labels.server == server.id.0 && host.labels.job == job).collect();
        let others = match on_record.as_ref().filter(|host| !mine.iter().any(|one| one.id == host.id)) {
            // Nor is it there where an earlier try of this undoing has destroyed it.
            Some(host) => api.host(&host.id).await.map_err(cloud_error("looking for the host"))?.is_some(),
            None => false,
        };
        for host in &mine {
            self.destroy_and_wait(cx, api.as_ref(), &host.id).await?;
        }
        if others {
            // This start only used it: whether it exists, and what is on it, is for a stop.
            return Ok(Gain::note("the host was there before and stays"));
        }
        if let Some(host) = &on_record {
            self.clear_name(cx, host).await;
        }
        self.tidy_up(cx, api.as_ref(), server, on_record.as_ref()).await?;
        Ok(Gain::owned(nothing).with_note("the host is gone; billing is OFF"))
    }

    pub(super) async fn destroy_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(host) = &server.owned.host else { return Ok(Gain::note("there is no host")) };
        // Before the address can be somebody else's.
        self.clear_name(cx, host).await;
        if host.provider == OWN_MACHINE {
            self.remove_folder(server).await?;
            return Ok(Gain::note("the game's folder is gone from your machine"));
        }
        let api = &self.provider(&host.provider)?.api;
        match api.destroy(&host.id).await {
            Ok(()) => Ok(Gain::note("asked for; it bills until it is gone")),
            Err(CloudError::Busy { why, after }) => {
                tokio::time::sleep(after.unwrap_or_default().min(PATIENCE_MAX)).await;
                Err(StepError::retry(format!("Destroying the host: {why}")))
            }
            Err(error) => Err(cloud_error("Destroying the host")(error)),
        }
    }

    pub(super) async fn confirm_gone(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(host) = &server.owned.host else { return Ok(Gain::default()) };
        let gone = Owned { host: None, address: None, ports: BTreeMap::new(), ..server.owned.clone() };
        self.forget_link(&server.id);
        if host.provider == OWN_MACHINE {
            return Ok(Gain::owned(gone));
        }
        let api = &self.provider(&host.provider)?.api;
        self.destroy_and_wait(cx, api.as_ref(), &host.id).await?;
        self.tidy_up(cx, api.as_ref(), server, Some(host)).await?;
        let cost = host.price.as_ref().map(|price| {
            format!(
                ", {} for {}",
                money(price.of(host.created_at, now_ms()), &price.currency),
                elapsed(host.created_at)
            )
        });
        Ok(Gain::owned(gone).with_note(format!("billing is OFF{}", cost.unwrap_or_default())))
    }

    /// Asks until the provider says that it is gone. Accepted is not done, so it is asked for again now and then.
    async fn destroy_and_wait(&self, cx: &StepCx<'_>, api: &dyn CloudApi, id: &str) -> Result<(), StepError> {
        let mut asked: Option<Instant> = None;
        loop {
            let wait = match api.host(id).await {
                Ok(None) => return self.forget_saved(api.name(), id).await,
                Ok(Some(_)) => {
                    if asked.is_none_or(|at| at.elapsed() > DESTROY_AGAIN) {
                        if asked.is_some() {
                            cx.out
                                .line("The provider accepted the end of the host and it is still there; asking again.");
                        }
                        match api.destroy(id).await {
                            Ok(()) => {}
                            Err(CloudError::Busy { why, .. }) => cx.out.line(&why),
                            Err(error) => return Err(cloud_error("Destroying the host")(error)),
                        }
                        asked = Some(Instant::now());
                    }
                    ASK_EVERY
                }
                Err(CloudError::Busy { why, after }) => {
                    cx.out.line(&why);
                    after.unwrap_or(ASK_EVERY).clamp(ASK_EVERY, PATIENCE_MAX)
                }
                Err(error) => return Err(cloud_error("waiting until the host is gone")(error)),
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// A request to rent may reach the provider when the one who sent it was killed, and another host was rented since.
    /// Only one of a job's hosts is ever on record, and nothing was done with the others. A provider that does not
    /// answer now holds no start up: what is left is reported as nobody's.
    async fn destroy_twins(&self, cx: &StepCx<'_>, host: &HostRef) -> Result<(), StepError> {
        if host.provider == OWN_MACHINE {
            return Ok(());
        }
        let api = &self.provider(&host.provider)?.api;
        let all = match api.hosts(&self.settings.instance).await {
            Ok(all) => all,
            Err(CloudError::Busy { why, .. }) => {
                cx.out.line(&why);
                return Ok(());
            }
            Err(error) => return Err(cloud_error("looking for hosts of earlier tries")(error)),
        };
        let Some(own) = all.iter().find(|one| one.id == host.id).map(|one| one.labels.clone()) else { return Ok(()) };
        for twin in all.iter().filter(|one| one.id != host.id && one.labels == own) {
            cx.out.line(format!("The provider has made a second host, {}; destroying it.", twin.id));
            match tokio::time::timeout(TWIN_LIMIT, self.destroy_and_wait(cx, api.as_ref(), &twin.id)).await {
                Ok(destroyed) => destroyed?,
                Err(_) => cx.out.line("It is still there; going on without waiting for its end."),
            }
        }
        Ok(())
    }

    /// What came with the host goes with it: its firewall at the provider, and its key on our disk.
    async fn tidy_up(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        server: &Server,
        host: Option<&HostRef>,
    ) -> Result<(), StepError> {
        let mut firewalls: Vec<String> = host.and_then(|host| host.firewall.clone()).into_iter().collect();
        if firewalls.is_empty() {
            let extras = api.extras(&self.settings.instance).await.map_err(cloud_error("looking for the firewall"))?;
            firewalls = extras
                .into_iter()
                .filter(|extra| extra.kind == "firewall" && extra.server.as_deref() == Some(server.id.0.as_str()))
                .map(|extra| extra.id)
                .collect();
        }
        for id in firewalls {
            loop {
                match api.delete_firewall(&id).await {
                    Ok(()) => break,
                    // It is still held by the host that has just left.
                    Err(CloudError::Busy { why, after }) => {
                        cx.out.line(&why);
                        tokio::time::sleep(after.unwrap_or(ASK_EVERY).clamp(ASK_EVERY, PATIENCE_MAX)).await;
                    }
                    Err(error) => return Err(cloud_error("deleting the firewall")(error)),
                }
            }
        }
        self.forget_keys(server).await
    }

    async fn forget_keys(&self, server: &Server) -> Result<(), StepError> {
        let (folder, prefix) = (self.settings.data_dir.join("ssh/hosts"), format!("{}-", server.id.0));
        blocking(move || {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        })
        .await
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

/// The ports that friends reach, with what the recipe's own numbers became.
pub(super) fn public_ports(recipe: &Recipe, chosen: &BTreeMap<String, u16>) -> Vec<(u16, bool)> {
    let mut open = vec![];
    for (name, port) in recipe.ports.iter().filter(|(_, port)| !port.private) {
        let number = chosen.get(name).copied().unwrap_or(port.number);
        match port.protocol {
            PortProtocol::Tcp => open.push((number, false)),
            PortProtocol::Udp => open.push((number, true)),
            PortProtocol::Both => open.extend([(number, false), (number, true)]),
        }
    }
    open.sort_unstable();
    open.dedup();
    open
}

/// A host's key as it lies on our disk.
fn written_key(key: &HostKey) -> String {
    format!("{}{KEY_BORDER}{}\n", key.private_pem.expose_secret().trim_end(), key.public_line)
}

/// What was written, to the last newline: sshd refuses a private key that ends without one.
fn read_key(text: &str) -> Option<HostKey> {
    let (private, public) = text.split_once(KEY_BORDER)?;
    let private = format!("{}\n", private.trim_end());
    Some(HostKey { private_pem: private.into(), public_line: public.trim().to_owned() })
}

/// The same for every try of one job, and a valid DNS label.
fn host_name(server: &str, job: &str) -> String {
    let mut name = format!("spawnpoint-{server}-{job}");
    name.truncate(NAME_MAX_CHARS);
    name.trim_end_matches('-').to_owned()
}

fn elapsed(since: i64) -> String {
    crate::model::lease::spoken((now_ms() - since).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_try_gives_the_host_the_very_key_of_the_first() {
        let key = HostKey::generate();
        let again = read_key(&written_key(&key)).unwrap();
        assert_eq!(again.private_pem.expose_secret(), key.private_pem.expose_secret());
        assert_eq!(again.public_line, key.public_line);
        assert!(read_key("half of a").is_none());
    }
}
