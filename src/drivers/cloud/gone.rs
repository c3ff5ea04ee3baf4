//! Whether a host exists no more. What shows the key that it was given before it existed is there, whatever its provider
//! says: a token of another project does not see it, and answers every question as if it were gone. Only where nobody
//! answers is the provider asked, and its silence is no proof.

use super::patience::ASK_EVERY;
use super::{CloudDriver, cloud_error};
use crate::clients::ssh::{Ssh, SshError};
use crate::engine::StepError;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::Gain;
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

/// What a start brought, with whether a world went with the host that was on record before. A rented one gives way to
/// another only once it was found to be gone.
pub(super) fn with_loss(before: Option<&HostRef>, gain: Gain) -> Gain {
    let before = before.filter(|host| host.played && host.provider != OWN_MACHINE);
    let now = gain.owned.as_ref().and_then(|owned| owned.host.as_ref());
    let other = |(before, now): (&HostRef, &HostRef)| before.provider != now.provider || before.id != now.id;
    let lost = before.zip(now).is_some_and(other);
    Gain { world_lost: gain.world_lost || lost, ..gain }
}

/// For people, about a host that answers and that its provider says does not exist.
pub(super) fn unseen(host: &HostRef) -> String {
    let HostRef { provider, id, .. } = host;
    format!(
        "The host {id} answers, but the token of {provider} does not see it: is it of another project or account? The host \
         bills on. Put a token that sees it under [cloud.{provider}] in the configuration, and try again."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::server::Owned;

    fn host(provider: &str, id: &str, played: bool) -> HostRef {
        HostRef {
            provider: provider.into(),
            id: id.into(),
            region: String::new(),
            size: String::new(),
            address: None,
            label: None,
            firewall: None,
            price: None,
            created_at: 0,
            host_key: String::new(),
            played,
        }
    }

    #[test]
    fn who_rents_another_host_has_lost_what_was_played_on_the_one_before() {
        let rented = |id: &str| Gain::owned(Owned { host: Some(host("linode", id, false)), ..Owned::default() });
        let lost = |before: Option<&HostRef>, gain: Gain| with_loss(before, gain).world_lost;
        assert!(lost(Some(&host("linode", "1", true)), rented("2")));
        assert!(lost(Some(&host("hetzner", "1", true)), rented("1")), "another provider's");
        assert!(!lost(Some(&host("linode", "1", false)), rented("2")), "nothing was played");
        assert!(!lost(Some(&host("linode", "1", true)), rented("1")), "it is there");
        assert!(!lost(Some(&host("linode", "1", true)), Gain::note("the host is there already")));
        assert!(!lost(Some(&host(OWN_MACHINE, "attic", true)), rented("1")), "a machine of your own is not lost");
        assert!(!lost(None, rented("1")));
    }
}
