//! What nobody claims: listed, given back to its server, or deleted. For admins, and each time looked for anew: a
//! button says which thing is meant, and only what is still an orphan at that moment is touched.

use super::{Answer, App, Did, Refusal};
use crate::model::access::{Caller, Permission};
use crate::model::cost::Micros;
use crate::model::host::HostRef;
use crate::model::job::Subject;
use crate::model::server::{Backend, Server, Wanted};
use crate::model::sweep::{Orphan, OrphanKind, Unasked, concerns, lost_since};
use crate::model::world::BackupId;
use crate::model::{JobId, Ms};
use anyhow::Context;

/// All that lies around, as far as the caller's guild is concerned.
#[derive(Clone, Debug)]
pub struct Orphans {
    pub found: Vec<OrphanView>,
    /// Of a server whose job waits for a person: nothing is done with these before that is decided.
    pub waiting: Vec<(OrphanView, JobId)>,
    /// Hosts that are being deleted and are not gone yet: there is nothing to decide about them.
    pub leaving: Vec<OrphanView>,
    pub lost: Vec<LostView>,
    /// Who could not be asked: what is there is unknown.
    pub unasked: Vec<Unasked>,
}

#[derive(Clone, Debug)]
pub struct OrphanView {
    pub orphan: Orphan,
    /// The name of the server on its label, as far as anybody knows it.
    pub server: Option<String>,
    /// That server is deleted.
    pub deleted: bool,
    /// That server's newest backup.
    pub backup: Option<BackupId>,
    pub so_far: Option<Micros>,
    /// That server exists, is on the right backend, and has no host of its own.
    pub adoptable: bool,
}

/// A host that a server has on record and its provider does not have.
#[derive(Clone, Debug)]
pub struct LostView {
    pub server: String,
    pub host: HostRef,
    pub lost_since: Option<Ms>,
    pub backup: Option<BackupId>,
}

impl App {
    pub async fn orphans(&self, caller: &Caller) -> Answer<Orphans> {
        self.require(caller, None, Permission::Admin).await?;
        let found = self.engine().sweep().await?;
        let everywhere = self.store().servers_everywhere().await?;
        let zone = &self.engine().spending().zone;
        let shown = async |orphan: Orphan| {
            let named = self.named(&orphan).await?;
            if !concerns(named.as_ref(), &caller.guild, &everywhere) {
                return Ok::<_, anyhow::Error>(None);
            }
            Ok(Some(OrphanView {
                so_far: orphan.so_far(self.now(), zone),
                adoptable: orphan.adoptable && named.as_ref().is_some_and(takes),
                backup: named.as_ref().and_then(|server| server.owned.world.clone()),
                deleted: named.as_ref().is_some_and(|server| server.deleted_at.is_some()),
                server: named.map(|server| server.name.to_string()),
                orphan,
            }))
        };
        let (mut views, mut waiting, mut leaving) = (vec![], vec![], vec![]);
        for orphan in found.orphans {
            views.extend(shown(orphan).await?);
        }
        for (orphan, job) in found.waiting {
            waiting.extend(shown(orphan).await?.map(|view| (view, job)));
        }
        for orphan in found.leaving {
            leaving.extend(shown(orphan).await?);
        }
        let view = |lost: crate::model::sweep::Lost| {
            let server = everywhere.iter().find(|server| server.id == lost.server && server.guild == caller.guild)?;
            Some(LostView {
                server: server.name.to_string(),
                lost_since: lost_since(server, &lost.host),
                host: lost.host,
                backup: server.owned.world.clone(),
            })
        };
        let lost = found.lost.into_iter().filter_map(view).collect();
        Ok(Orphans { found: views, waiting, leaving, lost, unasked: found.unasked })
    }

    /// The one that a button means, if it still is one.
    pub async fn orphan(&self, caller: &Caller, tag: &str) -> Answer<OrphanView> {
        let Orphans { found, unasked, .. } = self.orphans(caller).await?;
        match (found.into_iter().find(|view| view.orphan.tag() == tag), unasked.as_slice()) {
            (Some(view), _) => Ok(view),
            (None, []) => Err(Refusal::NotFound(
                "That is no orphan any more: it is gone or going, a server has it, or a job is at work there. Nothing was done."
                    .to_owned(),
            )),
            (None, unasked) => {
                let who: Vec<String> = unasked.iter().map(|unasked| unasked.provider.clone()).collect();
                Err(Refusal::Busy(format!(
                    "It was not found, and {} could not be looked at. Nothing was done; try again later.",
                    super::listed(&who)
                )))
            }
        }
    }

    pub async fn orphan_delete(&self, caller: &Caller, tag: &str) -> Answer<String> {
        let did = Did { action: "orphan delete", server: None, detail: tag.to_owned() };
        let mut line = self.asked_for(caller, did).await?;
        let answer = async {
            let OrphanView { orphan, .. } = self.orphan(caller, tag).await?;
            line.entry.detail = said(&orphan);
            self.amend(&line).await?;
            let driver = self.engine().driver(orphan.backend).context("its backend was just asked")?;
            match driver.delete_orphan(&orphan).await {
                Ok(()) => {
                    if orphan.kind == OrphanKind::Host {
                        // The driver has seen it go. One of a deleted server was on the bill until now.
                        self.store().end_rental(&orphan.provider, &orphan.id, self.now()).await?;
                    }
                    Ok(format!("Deleted the {}.", said(&orphan)))
                }
                Err(error) => Err(Refusal::Busy(format!("The {} is not deleted: {error:#}", said(&orphan)))),
            }
        }
        .await;
        self.became(line, answer).await
    }

    /// Gives a host back to the server that its label names. Where that should be off, the watcher ends it as it ends any
    /// host: the world on it is saved before it goes.
    pub async fn orphan_adopt(&self, caller: &Caller, tag: &str) -> Answer<String> {
        let did = Did { action: "orphan adopt", server: None, detail: tag.to_owned() };
        let mut line = self.asked_for(caller, did).await?;
        let answer = async {
            let OrphanView { orphan, .. } = self.orphan(caller, tag).await?;
            line.entry.detail = said(&orphan);
            self.amend(&line).await?;
            let server = self.named(&orphan).await?.filter(takes).filter(|_| orphan.adoptable);
            let server = server.ok_or_else(|| cannot_take(&orphan))?;
            let driver = self.engine().driver(orphan.backend).context("its backend was just asked")?;
            let host = match driver.adopt(&orphan, &server).await {
                Ok(host) => host,
                Err(error) => {
                    return Err(Refusal::Busy(format!("The {} is not given back: {error:#}", said(&orphan))));
                }
            };
            if !self.store().adopt_host(&server.id, &host, &caller.actor, self.now()).await? {
                return Err(match self.store().open_job_of(&Subject::Server(server.id.clone())).await? {
                    Some(job) => self.busy(&job, server.name.as_str()).await,
                    None => cannot_take(&orphan),
                });
            }
            self.changed(&server);
            let next = match (server.wanted, host.played) {
                (Wanted::Off, true) => "It should be off, so the world on it is saved now, and then the host goes.",
                (Wanted::Off, false) => "It should be off and nothing on it is newer than the backups, so it goes now.",
                (Wanted::On, true) => "It goes on with the world on it.",
                (Wanted::On, false) => "Nothing on it is newer than the backups: a start puts the newest world there.",
            };
            Ok(format!("The {} belongs to `{}` again. {next}", said(&orphan), server.name))
        }
        .await;
        self.became(line, answer).await
    }

    async fn named(&self, orphan: &Orphan) -> anyhow::Result<Option<Server>> {
        match &orphan.server {
            Some(id) => self.store().server_any(id).await,
            None => Ok(None),
        }
    }
}

fn takes(server: &Server) -> bool {
    server.deleted_at.is_none() && server.backend == Backend::Cloud && server.owned.host.is_none()
}

fn cannot_take(orphan: &Orphan) -> Refusal {
    Refusal::Invalid(format!(
        "The {} cannot be given back: its server is deleted, runs elsewhere, or has a host of its own.",
        said(orphan)
    ))
}

fn said(orphan: &Orphan) -> String {
    let clean = |text: &str| text.chars().filter(|c| !c.is_control() && *c != '`').take(60).collect::<String>();
    format!("{} `{}` ({} at {})", orphan.kind.word(), clean(&orphan.name), clean(&orphan.id), orphan.provider)
}
