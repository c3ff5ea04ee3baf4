//! Giving a host back. It bills until its provider says that it is gone, so accepted is never taken for done.

use super::patience::{ASK_EVERY, patiently};
use super::played::kept_for_its_world;
use super::rent::LATE_HOST_LIMIT;
use super::saved::Mark;
use super::{CloudDriver, LATE_TWINS_S, cloud_error, now_ms};
use crate::clients::cloud::{CloudApi, CloudError, Host, Labels};
use crate::engine::{StepCx, StepError};
use crate::model::cost::bill_of;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::job::{Gain, Step, StepState};
use crate::model::server::{Owned, Server};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A destroy that was accepted and not done is asked for again this often, as is one to which the provider says no time.
const DESTROY_AGAIN: Duration = Duration::from_secs(30);
/// A second host that was made by mistake is waited for so long.
const TWIN_LIMIT: Duration = Duration::from_secs(60);
/// A firewall may still be held by the host that has just left, for about so long.
const FIREWALL_LIMIT: Duration = Duration::from_secs(180);

impl CloudDriver {
    pub(super) async fn undo_create_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let job = cx.job.id.to_string();
        let nothing = Owned { host: None, address: None, ports: BTreeMap::new(), ..server.owned.clone() };
        let asked_at = self.place(server).ok().and_then(|place| place.provider);
        let (provider, on_record) = match (&server.owned.host, &asked_at) {
            (Some(host), _) => (host.provider.clone(), Some(host.clone())),
            (None, Some(provider)) => (provider.clone(), None),
            (None, None) => return Ok(Gain::default()),
        };
        if let Some(elsewhere) = asked_at.as_ref().filter(|asked_at| **asked_at != provider && *asked_at != OWN_MACHINE)
        {
            self.undo_elsewhere(cx, server, elsewhere).await?;
        }
        if provider == OWN_MACHINE {
            let Some(host) = on_record else { return Ok(Gain::default()) };
            if let Some(Mark::Left { .. }) = self.mark_of(&server.id, &host.provider, &host.id).await? {
                return Ok(Gain::owned(nothing).with_note("what is on the machine stays as it is"));
            }
            // A folder that was there before this job stays, and so does the record of it, with what is on it.
            if !self.folder_is_of_job(server, &job).await? {
                let played = host.played || self.holds_unsaved(server, &host).await?;
                let owned = Owned { host: Some(HostRef { played, ..host }), ..server.owned.clone() };
                return Ok(Gain::owned(owned).with_note("the game's folder was there before and stays"));
            }
            if let Some(why) = self.may_hold_play(cx, server, &host).await? {
                return Ok(kept_for_its_world(cx, server, &why, "the game's folder stays"));
            }
            self.clear_name(cx, &host).await;
            self.remove_folder(server).await?;
            return Ok(Gain::owned(nothing));
        }
        // The host's key is on our disk before anything is asked for. A provider that did not even tell its prices, for
        // a wrong token perhaps, is not asked again what it may have made.
        if on_record.is_none() && self.known_host_key(&server.id, &job).await?.is_none() {
            return Ok(Gain::default());
        }
        let api = &self.provider(&provider)?.api;
        let mine = match asked_at.as_ref() == Some(&provider) {
            true => self.hosts_that_come(cx, api.as_ref(), server).await?,
            false => self.hosts_of_job(cx, api.as_ref(), server).await?,
        };
        let others = match on_record.as_ref().filter(|host| !mine.iter().any(|one| one.id == host.id)) {
            // Nor is it there where an earlier try of this undoing has destroyed it.
            Some(host) => {
                self.is_unknown(host).await.map(|unknown| !unknown)? || self.must_be_silent(host).await.is_err()
            }
            None => false,
        };
        let kept = match on_record.as_ref().filter(|host| mine.iter().any(|one| one.id == host.id)) {
            Some(host) => self.may_hold_play(cx, server, host).await?.map(|why| (host.id.as_str(), why)),
            None => None,
        };
        for host in mine.iter().filter(|one| kept.as_ref().is_none_or(|(id, _)| one.id != *id)) {
            let known = on_record.as_ref().filter(|known| known.id == host.id);
            if known.is_none() {
                self.bill_unrecorded(cx, &provider, host).await?;
            }
            self.destroy_and_wait(cx, api.as_ref(), &host.id, known).await?;
            if known.is_none() {
                self.bill_unrecorded(cx, &provider, host).await?;
            }
        }
        if let Some((_, why)) = kept {
            return Ok(kept_for_its_world(cx, server, &why, "the host stays, and bills"));
        }
        if others {
            // This start only used it: whether it exists, and what is on it, is for a stop.
            return Ok(Gain::owned(server.owned.clone()).with_note("the host was there before and stays"));
        }
        let found = on_record.as_ref().filter(|host| !mine.iter().any(|one| one.id == host.id));
        let world_lost = match found {
            // Before the keys of what is gone go too.
            Some(host) => self.went_with_a_world(cx, server, host).await?,
            None => false,
        };
        if let Some(host) = &on_record {
            self.clear_name(cx, host).await;
        }
        self.tidy_up(cx, api.as_ref(), server, on_record.as_ref()).await?;
        let seen = on_record.is_some() || !mine.is_empty();
        let note = if seen { "the host is gone; billing is OFF" } else { "no host was seen" };
        Ok(Gain { world_lost, ..Gain::owned(nothing).with_note(note) })
    }

    /// Whether a host that is gone was there before this job, with something that was played on it. What this job made
    /// itself is no loss: it may have been destroyed by an earlier try of the undoing.
    async fn went_with_a_world(&self, cx: &StepCx<'_>, server: &Server, host: &HostRef) -> Result<bool, StepError> {
        if !host.played || self.backups.worldless(&server.game) {
            return Ok(false);
        }
        if !cx.job.has_begun(Step::AwaitHost) {
            return Ok(true);
        }
        let own = cx.job.id.to_string();
        for job in self.jobs_with_keys(server).await? {
            if job != own && self.known_host_key(&server.id, &job).await?.as_ref() == Some(&host.host_key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A start may ask at another provider than the one that the host on record was from: that one was lost, and another
    /// provider was chosen meanwhile.
    async fn undo_elsewhere(&self, cx: &StepCx<'_>, server: &Server, provider: &str) -> Result<(), StepError> {
        if self.known_host_key(&server.id, &cx.job.id.to_string()).await?.is_none() {
            return Ok(());
        }
        let api = &self.provider(provider)?.api;
        for host in self.hosts_that_come(cx, api.as_ref(), server).await? {
            self.bill_unrecorded(cx, provider, &host).await?;
            self.destroy_and_wait(cx, api.as_ref(), &host.id, None).await?;
            self.bill_unrecorded(cx, provider, &host).await?;
        }
        self.let_firewalls_go(cx, api.as_ref(), server, None).await;
        api.forget_labels(&self.labels(cx, &server.id)).await;
        Ok(())
    }

    /// Those of this job, also one that was asked for and of which nobody has heard yet.
    async fn hosts_that_come(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        server: &Server,
    ) -> Result<Vec<Host>, StepError> {
        let mut mine = self.hosts_of_job(cx, api, server).await?;
        if mine.is_empty() && self.was_asked(cx, server).await? {
            cx.out.line("A host was asked for, and there was no answer; looking whether it comes.");
            let until = Instant::now() + LATE_HOST_LIMIT;
            while mine.is_empty() && Instant::now() < until {
                tokio::time::sleep(ASK_EVERY).await;
                mine = self.hosts_of_job(cx, api, server).await?;
            }
        }
        Ok(mine)
    }

    async fn hosts_of_job(&self, cx: &StepCx<'_>, api: &dyn CloudApi, server: &Server) -> Result<Vec<Host>, StepError> {
        let all = patiently(cx, "looking for the host", || api.hosts(&self.settings.instance)).await?;
        let job = cx.job.id.to_string();
        Ok(all.into_iter().filter(|host| host.labels.server == server.id.0 && host.labels.job == job).collect())
    }

    pub(super) async fn destroy_host(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(host) = &server.owned.host else { return Ok(Gain::note("there is no host")) };
        self.must_be_saved(server, host).await?;
        if !host.played || self.backups.worldless(&server.game) {
            self.set_mark(&server.id, host, Mark::Saved).await?;
        }
        if host.provider == OWN_MACHINE {
            // Before the address can be somebody else's.
            self.clear_name(cx, host).await;
            self.remove_folder(server).await?;
            return Ok(Gain::note("the game's folder is gone from your machine"));
        }
        let api = &self.provider(&host.provider)?.api;
        if patiently(cx, "asking the provider for the host", || api.host(&host.id)).await?.is_none() {
            self.must_be_silent(host).await?;
        }
        self.clear_name(cx, host).await;
        patiently(cx, "Destroying the host", || api.destroy(&host.id)).await?;
        Ok(Gain::note("asked for; it bills until it is gone"))
    }

    pub(super) async fn confirm_gone(&self, cx: &StepCx<'_>) -> Result<Gain, StepError> {
        let server = cx.server()?;
        let Some(host) = &server.owned.host else { return Ok(Gain::default()) };
        let gone = Owned { host: None, address: None, ports: BTreeMap::new(), ..server.owned.clone() };
        self.forget_link(&server.id);
        if host.provider == OWN_MACHINE {
            let forced = cx.job.record(Step::DestroyHost).is_some_and(|record| record.state == StepState::Forced);
            let unsaved = match self.mark_of(&server.id, &host.provider, &host.id).await? {
                Some(Mark::Saved | Mark::Left { .. }) => false,
                Some(Mark::Played) | None => host.played,
            };
            if forced && unsaved {
                self.set_mark(&server.id, host, Mark::Left { newest: server.owned.world.clone() }).await?;
            }
            return Ok(Gain::owned(gone));
        }
        let api = &self.provider(&host.provider)?.api;
        self.destroy_and_wait(cx, api.as_ref(), &host.id, Some(host)).await?;
        self.tidy_up(cx, api.as_ref(), server, Some(host)).await?;
        let rentals = cx.journal.rentals(&server.guild, 0).await.map_err(StepError::Retry)?;
        let cost = bill_of(&rentals, host).and_then(|rental| rental.spoken_cost_and_time(now_ms(), cx.zone));
        Ok(Gain::owned(gone).with_note(match cost {
            Some(cost) => format!("billing is OFF, {cost}"),
            None => "billing is OFF".to_owned(),
        }))
    }

    /// Asks until the provider says that it is gone. Accepted is not done, so it is asked for again now and then. One
    /// that was on record must be silent as well; where its end was accepted it is given all that the step has.
    pub(super) async fn destroy_and_wait(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        id: &str,
        known: Option<&HostRef>,
    ) -> Result<(), StepError> {
        // When it was last asked for, and how long that is left alone.
        let mut asked: Option<(Instant, Duration)> = None;
        let mut accepted = cx.job.record(Step::DestroyHost).is_some_and(|record| record.state == StepState::Done);
        while patiently(cx, "waiting until the host is gone", || api.host(id)).await?.is_some() {
            if asked.is_none_or(|(at, pause)| at.elapsed() > pause) {
                if asked.is_some() && accepted {
                    cx.out.line("The provider accepted the end of the host and it is still there; asking again.");
                }
                let after = match api.destroy(id).await {
                    Ok(()) => {
                        accepted = true;
                        None
                    }
                    Err(CloudError::Busy { why, after }) => {
                        cx.out.line(&why);
                        after
                    }
                    Err(error) => return Err(cloud_error("Destroying the host")(error)),
                };
                asked = Some((Instant::now(), before_again(after)));
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        if let Some(host) = known {
            // A provider may drop its record of a machine some time before the machine.
            match accepted {
                true => self.await_silence(host).await?,
                false => self.must_be_silent(host).await?,
            }
        }
        self.forget_mark(&cx.server()?.id, api.name(), id).await
    }

    /// A request to rent may reach the provider when the one who sent it was killed, and another host was rented since.
    /// Only one of a job's hosts is ever on record, and nothing was done with the others. A provider that does not
    /// answer now holds no start up: what is left is reported as nobody's.
    pub(super) async fn destroy_twins(&self, cx: &StepCx<'_>, host: &HostRef) -> Result<(), StepError> {
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
            match api.host(&twin.id).await {
                Ok(Some(_)) => {}
                // One that is gone may still be listed.
                Ok(None) => continue,
                Err(CloudError::Busy { why, .. }) => {
                    cx.out.line(&why);
                    continue;
                }
                Err(error) => return Err(cloud_error("looking for a second host")(error)),
            }
            cx.out.line(format!("The provider has made a second host, {}; destroying it.", twin.id));
            match tokio::time::timeout(TWIN_LIMIT, self.destroy_and_wait(cx, api.as_ref(), &twin.id, None)).await {
                Ok(destroyed) => {
                    destroyed?;
                    self.bill_unrecorded(cx, &host.provider, twin).await?;
                }
                Err(_) => cx.out.line("It is still there; going on without waiting for its end."),
            }
        }
        Ok(())
    }

    /// The same once more at the end of a start, for a request that took longer than its host to come up. People can
    /// play by then, so nothing that goes wrong here ends the start.
    pub(super) async fn destroy_late_twins(&self, cx: &StepCx<'_>) {
        let Some(host) = cx.server().ok().and_then(|server| server.owned.host.as_ref()) else { return };
        let why = match tokio::time::timeout(Duration::from_secs(LATE_TWINS_S), self.destroy_twins(cx, host)).await {
            Ok(Ok(())) => return,
            Ok(Err(StepError::Retry(error) | StepError::Fatal(error))) => format!("{error:#}"),
            Err(_) => format!("that takes longer than {LATE_TWINS_S} s"),
        };
        cx.out.line(format!("Whether the provider has made a second host is not known: {why}"));
    }

    /// What came with the host goes with it: its firewall at the provider, and its key on our disk. The keys of other
    /// hosts of this server stay, because one that was taken for gone may come back.
    async fn tidy_up(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        server: &Server,
        host: Option<&HostRef>,
    ) -> Result<(), StepError> {
        self.let_firewalls_go(cx, api, server, host).await;
        let own = cx.job.id.to_string();
        for job in self.jobs_with_keys(server).await? {
            let key = self.known_host_key(&server.id, &job).await?;
            let is_gone = job == own || host.is_some_and(|host| key.as_ref() == Some(&host.host_key));
            if is_gone {
                self.forget_key(&server.id, &job).await?;
            }
            let labels = Labels { instance: self.settings.instance.clone(), server: server.id.0.clone(), job };
            api.forget_labels(&labels).await;
        }
        Ok(())
    }

    /// A firewall costs nothing, and the host that does is gone: one that stays holds nothing up. A sweep finds it.
    async fn let_firewalls_go(&self, cx: &StepCx<'_>, api: &dyn CloudApi, server: &Server, host: Option<&HostRef>) {
        let why = match tokio::time::timeout(FIREWALL_LIMIT, self.delete_firewalls(cx, api, server, host)).await {
            Ok(Ok(())) => return,
            Ok(Err(StepError::Retry(error) | StepError::Fatal(error))) => format!("{error:#}"),
            Err(_) => format!("that takes longer than {} s", FIREWALL_LIMIT.as_secs()),
        };
        cx.out.line(format!("The host's firewall at the provider stays for now, it costs nothing: {why}"));
    }

    async fn delete_firewalls(
        &self,
        cx: &StepCx<'_>,
        api: &dyn CloudApi,
        server: &Server,
        host: Option<&HostRef>,
    ) -> Result<(), StepError> {
        let mut firewalls: Vec<String> = host.and_then(|host| host.firewall.clone()).into_iter().collect();
        if firewalls.is_empty() {
            let extras = patiently(cx, "looking for the firewall", || api.extras(&self.settings.instance)).await?;
            firewalls = extras
                .into_iter()
                .filter(|extra| extra.kind == "firewall" && extra.server.as_deref() == Some(server.id.0.as_str()))
                .map(|extra| extra.id)
                .collect();
        }
        for id in firewalls {
            // It may still be held by the host that has just left.
            patiently(cx, "deleting the firewall", || api.delete_firewall(&id)).await?;
        }
        Ok(())
    }
}

/// How long a destroy is left alone, given what the provider asked for.
fn before_again(after: Option<Duration>) -> Duration {
    after.unwrap_or(DESTROY_AGAIN).max(ASK_EVERY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroy_is_asked_for_again_when_its_provider_says_and_not_before() {
        let seconds = Duration::from_secs;
        assert_eq!(before_again(Some(seconds(300))), seconds(300));
        assert_eq!(before_again(Some(seconds(9))), seconds(9));
        assert_eq!(before_again(Some(seconds(0))), ASK_EVERY);
        assert_eq!(before_again(None), DESTROY_AGAIN);
    }
}
