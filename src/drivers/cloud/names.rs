//! The name that follows a server: it leads to the host while there is one. A name is a courtesy: a zone that cannot be
//! changed holds up neither a start nor a stop, and friends get the plain address.

use super::CloudDriver;
use crate::engine::{StepCx, StepError};
use crate::model::host::HostRef;
use crate::model::server::Server;
use std::net::IpAddr;

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
        match names.point(&label, address).await {
            Ok(name) => Ok(Some((label, name.to_string()))),
            Err(error) => {
                cx.out.line(format!("The server has no name this time: {error}"));
                Ok(None)
            }
        }
    }

    pub(super) async fn clear_name(&self, cx: &StepCx<'_>, host: &HostRef) {
        let (Some(names), Some(label)) = (&self.names, &host.label) else { return };
        if let Err(error) = names.clear(label).await {
            let name = names.full_name(label).map_or_else(|_| label.clone(), |name| name.to_string());
            cx.out.line(format!("The name {name} could not be taken away: {error}"));
            tracing::warn!("The name {name} still leads to a host that is being destroyed: {error}");
        }
    }
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
