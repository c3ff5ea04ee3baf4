//! Looks for what was forgotten: at the start and on a timer, everything with our label is compared with what servers
//! have on record, both ways. It only looks and tells; a person says what is to be done. Jobs are never in its way.

use super::{Driver, Engine};
use crate::bus::Nudge;
use crate::model::host::HostRef;
use crate::model::server::{Backend, Server};
use crate::model::sweep::{Lost, Orphan, Sweep, Unasked, concerns, lost_since, settled};
use crate::model::view::Notice;
use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A driver that has not found everything in this time has not looked.
const SWEEP_LIMIT: Duration = Duration::from_secs(120);

/// Names of so many deleted servers are looked for, the last ones first.
const DELETED_ASKED: usize = 50;
/// Whether one host is there is a short question.
const GONE_LIMIT: Duration = Duration::from_secs(20);

impl Engine {
    /// Sweeps at once, and then so often, until `stop`; without a time only once.
    pub async fn sweeps(&self, every: Option<Duration>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.sweep_and_tell() => {}
            }
            let Some(every) = every else { return };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn sweep_and_tell(&self) {
        match self.sweep().await {
            Ok(found) => {
                for unasked in &found.unasked {
                    let provider = unasked.provider.as_str();
                    tracing::warn!(provider, "What is left there could not be looked at: {}", unasked.why);
                }
                if let Err(error) = self.tell(&found).await {
                    tracing::error!("What a sweep found could not be told: {error:#}");
                }
            }
            Err(error) => tracing::error!("The sweep could not be done: {error:#}"),
        }
    }

    /// What nobody claims, what is lost, and where nobody could look, on every backend, now.
    pub async fn sweep(&self) -> anyhow::Result<Sweep> {
        let journal = self.inner.journal.as_ref();
        let mut all = Sweep::default();
        for backend in Backend::ALL {
            let Some(driver) = self.driver(backend) else { continue };
            let before = journal.open_jobs().await?;
            let servers = journal.servers().await?;
            let mut found = look(driver.as_ref(), backend, &servers).await;
            if backend == Backend::Cloud {
                let deleted = journal.deleted_servers(DELETED_ASKED).await?;
                found.add(look_for_names(driver.as_ref(), &servers, &deleted).await);
            }
            // Two backends may be kept by one driver, which then finds everything twice.
            found.orphans.retain(|orphan| orphan.backend == backend);
            // The jobs come before the record: what a job did as its last act is seen in one of the two.
            let after = journal.open_jobs().await?;
            let servers = journal.servers().await?;
            found.lost.retain(|lost| servers.iter().any(|one| one.id == lost.server && one.backend == backend));
            all.add(settled(found, &servers, &before, &after));
        }
        self.end_bills(&mut all).await?;
        self.reopen_bills(&mut all).await?;
        Ok(all)
    }

    /// A host that somebody went on without seeing go bills on, though its server is deleted or moved. It does so until
    /// its provider says that it is gone.
    async fn end_bills(&self, found: &mut Sweep) -> anyhow::Result<()> {
        let journal = self.inner.journal.as_ref();
        let Some(driver) = self.driver(Backend::Cloud) else { return Ok(()) };
        for rental in journal.left_bills().await? {
            if is_gone(driver.as_ref(), &rental.provider, &rental.host, found).await == Some(true) {
                journal.host_gone(&rental.provider, &rental.host, self.now()).await?;
                tracing::info!(
                    provider = %rental.provider,
                    host = %rental.host,
                    "A host that was left behind is gone; its bill ends."
                );
            }
        }
        Ok(())
    }

    /// One wrong answer is enough to take a host for gone. As long as it is on record, its provider is asked again.
    async fn reopen_bills(&self, found: &mut Sweep) -> anyhow::Result<()> {
        let journal = self.inner.journal.as_ref();
        let Some(driver) = self.driver(Backend::Cloud) else { return Ok(()) };
        for server in journal.servers().await? {
            let Some(host) = server.owned.rented() else { continue };
            let just_asked = found.lost.iter().any(|lost| lost.server == server.id);
            if just_asked || !journal.bill_ended(&host.provider, &host.id).await? {
                continue;
            }
            if is_gone(driver.as_ref(), &host.provider, &host.id, found).await == Some(false) {
                self.tell_back(&server, host).await?;
            }
        }
        Ok(())
    }

    /// Tells what was not told before. It is marked as told only after it was written down for telling.
    pub async fn tell(&self, found: &Sweep) -> anyhow::Result<()> {
        let journal = self.inner.journal.as_ref();
        let servers = journal.servers().await?;
        for orphan in &found.orphans {
            let (key, before) = orphan.keys_to_tell(self.now());
            if journal.told(&key).await? {
                continue;
            }
            // Who reads the log is the only one to hear of it, as long as it lies there.
            let Some(server) = self.hears_of(orphan, &servers).await? else {
                tracing::warn!(provider = %orphan.provider, id = %orphan.id, "{}", orphan.unheard());
                continue;
            };
            tracing::warn!(
                provider = %orphan.provider,
                id = %orphan.id,
                "Nobody claims the {} “{}”; it was left alone. `/admin orphans` says more.",
                orphan.kind.word(),
                orphan.name
            );
            journal.notice(&server, &Notice::Orphan { orphan: Box::new(orphan.clone()) }, self.now()).await?;
            self.inner.bus.nudge(Nudge::Notice);
            journal.set_told(&key).await?;
            if let Some(before) = before {
                journal.forget_told(&before).await?;
            }
        }
        for lost in &found.lost {
            if let Some(server) = servers.iter().find(|server| server.id == lost.server) {
                self.tell_lost(server, &lost.host).await?;
            }
        }
        Ok(())
    }

    /// The server in whose channel people hear of it.
    async fn hears_of(&self, orphan: &Orphan, servers: &[Server]) -> anyhow::Result<Option<Server>> {
        let named = match &orphan.server {
            Some(id) => self.inner.journal.server(id).await?,
            None => None,
        };
        if named.as_ref().is_some_and(|server| server.channel.is_some()) {
            return Ok(named);
        }
        // Its server is unknown or has no channel: another one of the guild whose business it is.
        let near = |server: &&Server| server.channel.is_some() && concerns(named.as_ref(), &server.guild, servers);
        Ok(servers.iter().find(near).cloned())
    }

    /// A host is gone that no job destroyed: its bill ends, and people hear once what was lost.
    pub(super) async fn tell_lost(&self, server: &Server, host: &HostRef) -> anyhow::Result<()> {
        let journal = self.inner.journal.as_ref();
        // The provider says that there is no such host, so it bills no longer.
        journal.host_gone(&host.provider, &host.id, self.now()).await?;
        let key = Lost { server: server.id.clone(), host: host.clone() }.key();
        if journal.told(&key).await? {
            return Ok(());
        }
        tracing::warn!(
            server = %server.name,
            provider = %host.provider,
            host = %host.id,
            "The host of a server is gone, and no job destroyed it."
        );
        let notice = Notice::HostLost {
            server: server.name.to_string(),
            provider: host.provider.clone(),
            host: host.id.clone(),
            lost_since: lost_since(server, host),
            backup: server.owned.world.as_ref().map(ToString::to_string),
        };
        journal.notice(server, &notice, self.now()).await?;
        self.inner.bus.nudge(Nudge::Notice);
        journal.set_told(&key).await
    }

    /// Somebody has seen a host that is on record. Where it was taken for gone, its bill goes on as if it had never
    /// ended, and people hear that it is there; when it is gone another time, they hear of that again.
    pub(super) async fn tell_back(&self, server: &Server, host: &HostRef) -> anyhow::Result<()> {
        let journal = self.inner.journal.as_ref();
        let key = Lost { server: server.id.clone(), host: host.clone() }.key();
        if !journal.host_back(&host.provider, &host.id).await? && !journal.told(&key).await? {
            return Ok(());
        }
        tracing::warn!(
            server = %server.name,
            provider = %host.provider,
            host = %host.id,
            "The host of a server was taken for gone and is there; its bill goes on."
        );
        let (provider, id) = (host.provider.clone(), host.id.clone());
        let notice = Notice::HostBack { server: server.name.to_string(), provider, host: id };
        journal.notice(server, &notice, self.now()).await?;
        self.inner.bus.nudge(Nudge::Notice);
        journal.forget_told(&key).await
    }
}

/// What the provider says of one host; `None`, with the reason among what was found, where it says nothing.
async fn is_gone(driver: &dyn Driver, provider: &str, host: &str, found: &mut Sweep) -> Option<bool> {
    let why = match tokio::time::timeout(GONE_LIMIT, driver.is_gone(provider, host)).await {
        Ok(Ok(gone)) => return Some(gone),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => "it did not answer in time".to_owned(),
    };
    if !found.unasked.iter().any(|unasked| unasked.provider == provider) {
        found.unasked.push(Unasked { provider: provider.to_owned(), why });
    }
    None
}

async fn look_for_names(driver: &dyn Driver, servers: &[Server], deleted: &[Server]) -> Sweep {
    match tokio::time::timeout(SWEEP_LIMIT, driver.left_names(servers, deleted)).await {
        Ok(found) => found,
        Err(_) => {
            let (provider, why) = ("dns".to_owned(), "looking for names took too long".to_owned());
            Sweep { unasked: vec![Unasked { provider, why }], ..Sweep::default() }
        }
    }
}

/// Asks a driver. Whatever is wrong with it, there is an answer, and it never says that nothing is there.
async fn look(driver: &dyn Driver, backend: Backend, servers: &[Server]) -> Sweep {
    let unasked =
        |why: String| Sweep { unasked: vec![Unasked { provider: backend.word().to_owned(), why }], ..Sweep::default() };
    let sweep = AssertUnwindSafe(driver.sweep(servers)).catch_unwind();
    match tokio::time::timeout(SWEEP_LIMIT, sweep).await {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(error))) => unasked(format!("{error:#}")),
        Ok(Err(_)) => unasked("Spawnpoint made a mistake when it looked; the log has the details".to_owned()),
        Err(_) => unasked("looking took too long".to_owned()),
    }
}
