//! The name that follows a server: it leads to the host while there is one. A name is a courtesy: a zone that cannot be
//! changed holds up neither a start nor a stop, and friends get the plain address.

use super::CloudDriver;
use crate::engine::{StepCx, StepError};
use crate::model::host::HostRef;
use crate::model::server::Server;
use std::net::IpAddr;
use std::time::Duration;

/// A zone that cannot be reached holds a start or a stop up for no longer.
const NAME_LIMIT: Duration = Duration::from_secs(15);
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

fn late() -> String {
    format!("the zone did not answer within {} s", NAME_LIMIT.as_secs())
}

/// The server's own name. Where another server here, of another guild, had it first, something is added: the zone knows
/// no guilds.
fn label(server: &Server, everybody: &[Server]) -> String {
    let plain = |server: &Server| server.name.as_str().to_lowercase();
    let older = |other: &&Server| (other.created_at, &other.id) < (server.created_at, &server.id);
    match everybody.iter().filter(older).any(|other| plain(other) == plain(server)) {
        true => format!("{}-{}", plain(server), server.id.0.chars().take(APART_CHARS).collect::<String>()),
        false => plain(server),
    }
}
