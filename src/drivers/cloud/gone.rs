//! Whether a host exists no more. What shows the key that it was given before it existed is there, whatever its provider
//! says: a token of another project does not see it, and answers every question as if it were gone. Only where nobody
//! answers is the provider asked, and its silence is no proof.

use super::patience::ASK_EVERY;
use super::{CloudDriver, cloud_error};
use crate::clients::ssh::{Ssh, SshError};
use crate::engine::StepError;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::server::Server;
use std::time::Duration;
use tokio::time::Instant;

/// A host that is far away and busy has answered by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Where the provider says that there is none, nobody answers as a rule, and without a word.
const LAST_ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A host whose end nobody here has asked for may answer for so long after its provider has let it go. Chosen, not
/// measured.
const LAST_BREATH: Duration = Duration::from_secs(30);
/// And one whose end it has accepted for so long.
const LONG_BREATH: Duration = Duration::from_secs(600);

impl CloudDriver {
    pub(super) async fn is_host_gone(&self, server: &Server) -> Result<bool, StepError> {
        let Some(host) = &server.owned.host else { return Ok(true) };
        if host.provider == OWN_MACHINE || self.answers(host, ANSWER_LIMIT).await {
            return Ok(false);
        }
        self.is_unknown(host).await
    }

    /// The provider's word alone, for a host that was just found not to answer.
    pub(super) async fn is_unknown(&self, host: &HostRef) -> Result<bool, StepError> {
        if host.provider == OWN_MACHINE {
            return Ok(false);
        }
        let api = &self.provider(&host.provider)?.api;
        Ok(api.host(&host.id).await.map_err(cloud_error("asking the provider for the host"))?.is_none())
    }

    /// What a provider says is no more must not answer, or it speaks of other hosts than ours.
    pub(super) async fn must_be_silent(&self, host: &HostRef) -> Result<(), StepError> {
        match self.falls_silent(host, LAST_BREATH).await {
            true => Ok(()),
            false => Err(StepError::fatal(unseen(host))),
        }
    }

    /// For one whose end the provider has accepted.
    pub(super) async fn await_silence(&self, host: &HostRef) -> Result<(), StepError> {
        match self.falls_silent(host, LONG_BREATH).await {
            true => Ok(()),
            false => Err(StepError::retry(unseen(host))),
        }
    }

    async fn falls_silent(&self, host: &HostRef, within: Duration) -> bool {
        let until = Instant::now() + within;
        while self.still_answers(host).await {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        true
    }

    pub(super) async fn still_answers(&self, host: &HostRef) -> bool {
        self.answers(host, LAST_ANSWER_LIMIT).await
    }

    /// Over a connection of its own: one that was made earlier may not have noticed its end yet.
    pub(super) async fn answers(&self, host: &HostRef, limit: Duration) -> bool {
        let Ok(target) = self.target(host).await else { return false };
        match Ssh::with_connect_limit(target, limit).connect().await {
            // Who refuses our key has shown its own before.
            Ok(()) | Err(SshError::Denied { .. }) => true,
            Err(SshError::Unreachable { .. } | SshError::Timeout { .. } | SshError::Broken { .. }) => false,
            Err(SshError::WrongHostKey { .. } | SshError::NoUsableHostKey { .. }) => false,
            Err(SshError::Exit { .. } | SshError::Refused(_)) => false,
        }
    }
}

/// For people, about a host that answers and that its provider says does not exist.
pub(super) fn unseen(host: &HostRef) -> String {
    let HostRef { provider, id, .. } = host;
    format!(
        "The host {id} answers, but the token of {provider} does not see it: is it of another project or account? The host \
         bills on. Put a token that sees it under [cloud.{provider}] in the configuration, and try again."
    )
}
