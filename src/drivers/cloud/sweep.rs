//! What carries this instance's label at the providers and belongs to no server, and the hosts on record that a
//! provider does not have. Another Spawnpoint on the same account has another instance's label and is none of it.

use super::gone::unseen;
use super::setup::{CALL_LIMIT, as_root, home, keeper};
use super::{CloudDriver, Machine, Provider, now_ms};
use crate::clients::cloud::{CloudApi, CloudError, Extra, Host, HostState};
use crate::clients::ssh::{Ended, Ssh, Target};
use crate::engine::StepError;
use crate::model::ServerId;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::server::{Backend, Owned, Server};
use crate::model::sweep::{Lost, Orphan, OrphanKind, Sweep, Unasked, folder_id};
use anyhow::{Context, bail, ensure};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A person waits for the end of a host that was deleted no longer than this; the next sweep sees whether it came.
const GONE_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A machine of your own that has not answered by then is off, or away.
const MACHINE_LIMIT: Duration = Duration::from_secs(15);
/// Longer than any recipe gives its game to end.
const STOP_LIMIT: Duration = Duration::from_secs(600);
/// One line for each game's folder: the server's id, and which Spawnpoint made it.
const LIST_FOLDERS: &str = r#"cd /srv/spawnpoint 2>/dev/null || exit 0
for id in *; do if [ -f "$id/state/instance" ]; then printf '%s %s\n' "$id" "$(cat "$id/state/instance")"; fi; done"#;

impl CloudDriver {
    /// Asks all providers at once: one that is slow makes no other wait.
    pub(super) async fn sweep_all(&self, servers: &[Server]) -> Sweep {
        let asked = self.providers.iter().map(async |(name, provider)| {
            let mut found = Sweep::default();
            if let Err(error) = self.sweep_one(name, provider, servers, &mut found).await {
                found.unasked.push(Unasked { provider: name.clone(), why: error.to_string() });
            }
            found
        });
        let mut all = Sweep::default();
        let machines = self.machines.iter().map(async |(name, machine)| {
            let mut found = Sweep::default();
            self.sweep_machine(name, machine, servers, &mut found).await;
            found
        });
        let (asked, machines) = tokio::join!(futures::future::join_all(asked), futures::future::join_all(machines));
        for found in asked.into_iter().chain(machines) {
            all.add(found);
        }
        let mut without_token: Vec<&str> = servers
            .iter()
            .filter_map(|server| Some(server.owned.host.as_ref()?.provider.as_str()))
            .filter(|provider| *provider != OWN_MACHINE && !self.providers.contains_key(*provider))
            .collect();
        without_token.sort_unstable();
        without_token.dedup();
        all.unasked.extend(without_token.into_iter().map(|provider| Unasked {
            provider: provider.to_owned(),
            why: format!("A server has a host there, and there is no token under [cloud.{provider}]."),
        }));
        all
    }

    /// What was found before something failed stays found.
    async fn sweep_one(
        &self,
        name: &str,
        provider: &Provider,
        servers: &[Server],
        found: &mut Sweep,
    ) -> Result<(), CloudError> {
        let api = provider.api.as_ref();
        let instance = &self.settings.instance;
        let hosts = api.hosts(instance).await?;
        let here = || servers.iter().filter_map(|server| Some((server, server.owned.host.as_ref()?)));
        let here = || here().filter(|(_, host)| host.provider == name);
        for listed in hosts.iter().filter(|host| host.labels.instance == *instance) {
            if here().any(|(_, claimed)| claimed.id == listed.id) {
                continue;
            }
            let host = match api.host(&listed.id).await {
                Ok(Some(host)) => host,
                // One that has just gone may still be listed.
                Ok(None) => continue,
                Err(error) => {
                    if found.unasked.is_empty() {
                        found.unasked.push(Unasked { provider: name.to_owned(), why: error.to_string() });
                    }
                    listed.clone()
                }
            };
            let orphan = self.orphan_host(name, &provider.api, &host).await;
            match host.state {
                HostState::Leaving => found.leaving.push(orphan),
                HostState::Starting | HostState::Running | HostState::Off => found.orphans.push(orphan),
            }
        }
        let mut missing = vec![];
        for (server, host) in here() {
            // A list may lag behind; gone is what the provider says when it is asked for this very host.
            if !hosts.iter().any(|seen| seen.id == host.id) && api.host(&host.id).await?.is_none() {
                missing.push(async move { (server, host, self.still_answers(host).await) });
            }
        }
        for (server, host, answers) in futures::future::join_all(missing).await {
            match answers {
                true => found.unasked.push(Unasked { provider: name.to_owned(), why: unseen(host) }),
                false => found.lost.push(Lost { server: server.id.clone(), host: host.clone() }),
            }
        }
        for extra in api.extras(instance).await? {
            if here().any(|(_, host)| extra.kind == "firewall" && host.firewall.as_ref() == Some(&extra.id)) {
                continue;
            }
            let Some(kind) = kind_of(&extra) else {
                tracing::warn!(provider = name, id = %extra.id, "A sweep found a {}, which nobody knows.", extra.kind);
                continue;
            };
            found.orphans.push(Orphan {
                backend: Backend::Cloud,
                provider: name.to_owned(),
                kind,
                id: extra.id,
                name: extra.name,
                since: None,
                price: None,
                server: extra.server.filter(|id| !id.is_empty()).map(ServerId),
                adoptable: false,
            });
        }
        Ok(())
    }

    async fn orphan_host(&self, provider: &str, api: &Arc<dyn CloudApi>, host: &Host) -> Orphan {
        // Without a price it is an orphan all the same.
        let offers = self.offers_of(provider, api).await.unwrap_or_default();
        let offer = offers.iter().find(|offer| offer.size == host.size && offer.region == host.region);
        let server = Some(host.labels.server.clone()).filter(|id| !id.is_empty()).map(ServerId);
        // Without its key nobody can tell that it is the right one.
        let known = match &server {
            Some(id) => self.known_host_key(id, &host.labels.job).await.is_ok_and(|key| key.is_some()),
            None => false,
        };
        Orphan {
            backend: Backend::Cloud,
            provider: provider.to_owned(),
            kind: OrphanKind::Host,
            id: host.id.clone(),
            name: host.name.clone(),
            since: Some(host.created_at_ms),
            price: offer.map(super::choose::price_of),
            server,
            adoptable: known,
        }
    }

    pub(super) async fn is_gone_from(&self, provider: &str, host: &str) -> anyhow::Result<bool> {
        let api = self.provider(provider).map_err(plain)?.api.as_ref();
        Ok(api.host(host).await?.is_none())
    }

    /// Game folders on a machine of your own that carry this instance's mark and belong to no server.
    async fn sweep_machine(&self, name: &str, machine: &Machine, servers: &[Server], found: &mut Sweep) {
        let listed = tokio::time::timeout(MACHINE_LIMIT, self.folders_on(name, machine)).await;
        let ids = match listed.unwrap_or_else(|_| Err(anyhow::anyhow!("it did not answer in time"))) {
            Ok(ids) => ids,
            Err(error) => {
                let why = format!("Your machine could not be looked at: {error:#}.");
                found.unasked.push(Unasked { provider: name.to_owned(), why });
                return;
            }
        };
        for id in ids {
            let claimed = |server: &Server| {
                let here = server.owned.host.as_ref().filter(|host| host.provider == OWN_MACHINE && host.id == name);
                here.is_some() && server.id == id
            };
            if !servers.iter().any(claimed) {
                found.orphans.push(Orphan {
                    backend: Backend::Cloud,
                    provider: OWN_MACHINE.to_owned(),
                    kind: OrphanKind::Folder,
                    name: format!("{name}:{}", home(&id)),
                    id: folder_id(name, &id),
                    since: None,
                    price: None,
                    server: Some(id),
                    adoptable: false,
                });
            }
        }
    }

    async fn folders_on(&self, name: &str, machine: &Machine) -> anyhow::Result<Vec<ServerId>> {
        let ssh = self.ssh_to(name, machine).await?;
        let mut ids = vec![];
        let mut line = |line: &str| {
            if let Some((id, instance)) = line.split_once(' ')
                && instance == self.settings.instance
            {
                ids.push(ServerId(id.to_owned()));
            }
        };
        ssh.run(as_root(&ssh, &["sh", "-c", LIST_FOLDERS], MACHINE_LIMIT), &mut line).await?.ok()?;
        Ok(ids)
    }

    /// A connection of its own: nothing is played there that one could be kept for.
    async fn ssh_to(&self, name: &str, machine: &Machine) -> anyhow::Result<Ssh> {
        let pin = self.pin_of(name, machine).map_err(plain)?;
        let host_key = pin.with_context(|| format!("nobody has trusted it yet; `spawnpoint trust {name}`"))?;
        let address = super::address_of(machine).await.map_err(plain)?;
        let (user, key) = (machine.user.clone(), machine.key.clone());
        Ok(Ssh::with_connect_limit(Target { address, user, key, host_key }, MACHINE_LIMIT))
    }

    async fn remove_folder_of(&self, orphan: &Orphan) -> anyhow::Result<()> {
        let (name, id) = orphan.id.rsplit_once('/').context("a folder's machine has a name")?;
        let machine = self.machine(name).map_err(plain)?;
        let ssh = self.ssh_to(name, machine).await?;
        let server = ServerId(id.to_owned());
        // A game that nobody claims is ended first: who deletes its world was asked about that.
        let stopped = ssh.run_quietly(keeper(&ssh, "stop", &server, &[], STOP_LIMIT)).await?;
        if !matches!(stopped.ended, Ended::Code(66 | 127)) {
            stopped.ok()?;
        }
        let removed = keeper(&ssh, "remove", &server, &[], CALL_LIMIT);
        ssh.run_quietly(removed).await?.ok()?;
        self.forget_mark(&server, OWN_MACHINE, name).await.map_err(plain)
    }

    pub(super) async fn remove_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        match orphan.kind {
            OrphanKind::Name => return self.remove_name(&orphan.id).await,
            OrphanKind::Folder => return self.remove_folder_of(orphan).await,
            OrphanKind::Host
            | OrphanKind::Firewall
            | OrphanKind::SshKey
            | OrphanKind::Volume
            | OrphanKind::Container
            | OrphanKind::Drive => {}
        }
        let api = self.provider(&orphan.provider).map_err(plain)?.api.as_ref();
        let kind = match orphan.kind {
            OrphanKind::Host => {
                end_host(api, &orphan.id).await?;
                let Some(server) = &orphan.server else { return Ok(()) };
                return self.forget_mark(server, &orphan.provider, &orphan.id).await.map_err(plain);
            }
            OrphanKind::Firewall => "firewall",
            OrphanKind::SshKey => "SSH key",
            OrphanKind::Volume => "volume",
            OrphanKind::Container | OrphanKind::Drive | OrphanKind::Name | OrphanKind::Folder => {
                bail!("a provider has no {}", orphan.kind.word())
            }
        };
        let server = orphan.server.as_ref().map(|id| id.0.clone());
        let extra = Extra { kind, id: orphan.id.clone(), name: orphan.name.clone(), server };
        Ok(api.delete_extra(&extra).await?)
    }

    /// It is recognized by the key that it was given before it existed, which is still on our disk.
    pub(super) async fn adopt_host(&self, orphan: &Orphan, server: &Server) -> anyhow::Result<HostRef> {
        ensure!(orphan.kind == OrphanKind::Host, "only hosts can be given back");
        let api = self.provider(&orphan.provider).map_err(plain)?.api.as_ref();
        let found = api.host(&orphan.id).await?.context("The provider says that it is gone.")?;
        ensure!(found.labels.server == server.id.0, "Its label names another server.");
        ensure!(found.state == HostState::Running, "It does not run now, so nobody can look what is on it.");
        let unknown = "Its key is not on this machine any more, so nobody can tell that it is the right one.";
        let host_key = self.known_host_key(&server.id, &found.labels.job).await.map_err(plain)?.context(unknown)?;
        let firewalls = api.extras(&self.settings.instance).await?;
        let firewall = firewalls
            .into_iter()
            .find(|extra| extra.kind == "firewall" && extra.server.as_deref() == Some(server.id.0.as_str()));
        let created_at = if found.created_at_ms > 0 { found.created_at_ms } else { now_ms() };
        let host =
            HostRef { firewall: firewall.map(|extra| extra.id), ..host_ref(orphan, &found, created_at, host_key) };
        let known = Server { owned: Owned { host: Some(host.clone()), ..server.owned.clone() }, ..server.clone() };
        self.forget_link(&server.id);
        // Where its world was saved since, or no game was ever started there, the next start puts the newest backup there
        // as on any new host.
        let unsaved = self.holds_unsaved(&known, &host).await.map_err(plain);
        self.forget_link(&server.id);
        let played = unsaved.context("what is on it could not be looked at")?;
        Ok(HostRef { played, ..host })
    }
}

fn host_ref(orphan: &Orphan, found: &Host, created_at: i64, host_key: String) -> HostRef {
    HostRef {
        provider: orphan.provider.clone(),
        id: found.id.clone(),
        region: found.region.clone(),
        size: found.size.clone(),
        address: found.address,
        label: None,
        firewall: None,
        price: orphan.price.clone(),
        created_at,
        host_key,
        played: false,
    }
}

/// Accepted is not gone: the bill goes on until the provider does not have it any more.
async fn end_host(api: &dyn CloudApi, id: &str) -> anyhow::Result<()> {
    let labels = api.host(id).await?.map(|host| host.labels);
    api.destroy(id).await?;
    let until = Instant::now() + GONE_WITHIN;
    while api.host(id).await?.is_some() {
        ensure!(
            Instant::now() < until,
            "the provider accepted its end, and it is still there. It may bill: where `/admin orphans` still shows it in a \
             few minutes, delete it on the provider's own site"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
    if let Some(labels) = labels {
        api.forget_labels(&labels).await;
    }
    Ok(())
}

fn kind_of(extra: &Extra) -> Option<OrphanKind> {
    Some(match extra.kind {
        "firewall" => OrphanKind::Firewall,
        "SSH key" => OrphanKind::SshKey,
        "volume" => OrphanKind::Volume,
        _ => return None,
    })
}

fn plain(error: StepError) -> anyhow::Error {
    match error {
        StepError::Retry(error) | StepError::Fatal(error) => error,
    }
}
