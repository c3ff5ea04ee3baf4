//! The name that follows a server: it leads to the host while there is one. A name is a courtesy: a zone that cannot be
//! changed holds up neither a start nor a stop, and friends get the plain address.

use super::CloudDriver;
use crate::clients::dns::{DnsError, Owner};
use crate::engine::{StepCx, StepError};
use crate::model::ServerId;
use crate::model::host::HostRef;
use crate::model::server::{Backend, Server};
use crate::model::sweep::{Orphan, OrphanKind, Sweep, Unasked};
use anyhow::Context;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// A zone that cannot be reached holds a start or a stop up for no longer.
const NAME_LIMIT: Duration = Duration::from_secs(15);
/// How the zone is called where a provider's name is expected.
const DNS: &str = "dns";
/// So much of a server's id keeps two of one name apart.
const APART_CHARS: usize = 6;

impl CloudDriver {
    /// The label and the whole name, where there are names here and this one could be set.
    pub(super) async fn point_name(
        &self,
        cx: &StepCx<'_>,
        server: &Server,
        address: IpAddr,
    ) -> Result<Option<(String, String)>, StepError> {
        let Some(names) = &self.names else { return Ok(None) };
        let label = label(server, &cx.journal.servers().await.map_err(StepError::Retry)?);
        let why = match tokio::time::timeout(NAME_LIMIT, names.point(&label, address)).await {
            Ok(Ok(name)) => return Ok(Some((label, name.to_string()))),
            Ok(Err(error)) => error.to_string(),
            Err(_) => late(),
        };
        cx.out.line(format!("The server has no name this time: {why}"));
        Ok(None)
    }

    pub(super) async fn clear_name(&self, cx: &StepCx<'_>, host: &HostRef) {
        let (Some(names), Some(label)) = (&self.names, &host.label) else { return };
        let why = match tokio::time::timeout(NAME_LIMIT, names.clear(label)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => late(),
        };
        let name = names.full_name(label).map_or_else(|_| label.clone(), |name| name.to_string());
        cx.out.line(format!("The name {name} could not be taken away: {why}"));
        tracing::warn!("The name {name} still leads to a host that is being destroyed: {why}");
    }
}

/// So many names are asked for at once, and no more: a zone's keeper counts requests.
const NAMES_AT_ONCE: usize = 8;

impl CloudDriver {
    /// Names that are ours by their marker and that no host has on record: a zone that did not answer when a host went
    /// kept them. Only names that servers could have are asked for.
    pub(super) async fn names_left(&self, servers: &[Server], deleted: &[Server]) -> Sweep {
        let mut found = Sweep::default();
        let Some(names) = &self.names else { return found };
        let mut asked = futures::stream::iter(candidates(servers, deleted))
            .map(async |(label, server)| {
                let entry = tokio::time::timeout(NAME_LIMIT, names.look(&label)).await;
                (label, server, entry.unwrap_or_else(|_| Err(DnsError::Busy { why: late(), after: None })))
            })
            .buffer_unordered(NAMES_AT_ONCE);
        while let Some((label, server, entry)) = asked.next().await {
            let entry = match entry {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(error) => {
                    // One that does not answer for this name does not for the next one either.
                    found.unasked.push(Unasked { provider: DNS.to_owned(), why: error.to_string() });
                    return found;
                }
            };
            let Ok(name) = names.full_name(&label) else { continue };
            if entry.owner(&self.settings.instance) == Owner::Ours {
                found.orphans.push(Orphan {
                    backend: Backend::Cloud,
                    provider: DNS.to_owned(),
                    kind: OrphanKind::Name,
                    id: name.to_string(),
                    name: name.to_string(),
                    since: None,
                    price: None,
                    server: Some(server),
                    adoptable: false,
                });
            }
        }
        found.orphans.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    /// Takes a name away that no host has; the zone's own rules see to it that it is one of ours.
    pub(super) async fn remove_name(&self, name: &str) -> anyhow::Result<()> {
        let names = self.names.as_ref().context("there is no zone under [dns] in the configuration any more")?;
        let label = names.label_of(name).context("that name is not in the zone under [dns] in the configuration")?;
        tokio::time::timeout(NAME_LIMIT, names.clear(label)).await.map_err(|_| anyhow::anyhow!("{}", late()))??;
        Ok(())
    }
}

/// Every label that one of these servers could have left, with the server: its name, and where several have had that
/// name, the one with something added. Those that lead to a host now are none.
fn candidates(servers: &[Server], deleted: &[Server]) -> Vec<(String, ServerId)> {
    let everybody = || servers.iter().chain(deleted);
    let has: Vec<&str> = servers.iter().filter_map(|server| server.owned.host.as_ref()?.label.as_deref()).collect();
    let mut labels = BTreeMap::new();
    for server in everybody() {
        let plain = server.name.as_str().to_lowercase();
        if everybody().filter(|other| other.name.as_str().to_lowercase() == plain).count() > 1 {
            labels.insert(apart(server), server.id.clone());
        }
        // Of several, the one that is there now comes first.
        labels.entry(plain).or_insert_with(|| server.id.clone());
    }
    labels.into_iter().filter(|(label, _)| !has.contains(&label.as_str())).collect()
}

fn late() -> String {
    format!("the zone did not answer within {} s", NAME_LIMIT.as_secs())
}

/// The server's own name. Where another server here, of another guild, had it first, something is added: the zone knows
/// no guilds.
fn label(server: &Server, everybody: &[Server]) -> String {
    let plain = |server: &Server| server.name.as_str().to_lowercase();
    let older = |other: &&Server| (other.created_at, &other.id) < (server.created_at, &server.id);
    match everybody.iter().filter(older).any(|other| plain(other) == plain(server)) {
        true => apart(server),
        false => plain(server),
    }
}

fn apart(server: &Server) -> String {
    let id: String = server.id.0.chars().take(APART_CHARS).collect();
    format!("{}-{id}", server.name.as_str().to_lowercase())
}
