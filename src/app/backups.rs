//! The vault as people see it, and their word on a backup that is in doubt.

use super::{Answer, App, Did, Refusal};
use crate::model::access::{Caller, Permission};
use crate::model::server::{Seen, Server};
use crate::model::view::{BackupView, DoubtedStart, spoken_bytes, spoken_files};
use crate::model::world::BackupId;
use crate::model::{GuildId, ServerId};
use crate::vault::{self, Listed, OwnerId, Reason};
use anyhow::Context;
use std::collections::HashMap;

/// A backup in a list, whole or not.
pub(super) struct Known {
    pub id: BackupId,
    pub backup: Option<vault::Backup>,
    /// Why it cannot be used.
    pub broken: Option<String>,
}

impl App {
    /// A server's backups, newest first.
    pub async fn backups(&self, caller: &Caller, name: &str) -> Answer<Vec<BackupView>> {
        let server = self.server(caller, name, Permission::View).await?;
        let known = self.vault_list(&server.id).await?;
        let (vault, owner) = (self.inner.vault.clone(), owner(&server.id)?);
        let usage = tokio::task::spawn_blocking(move || vault.usage(&owner)).await.context("measuring the vault")?;
        let unique = usage.map(|usage| usage.unique_bytes).unwrap_or_default();
        let views = known.iter().map(|one| {
            let own = vault::BackupId::parse(&one.id.0).ok().and_then(|id| unique.get(&id).copied());
            view(one, &server, own)
        });
        Ok(views.collect())
    }

    /// Names and labels for choosing, newest first.
    pub async fn backup_choices(&self, guild: &GuildId, server: &str) -> Vec<(String, String)> {
        let Ok(Some(server)) = self.store().server_by_name(guild, server).await else { return vec![] };
        let known = self.vault_list(&server.id).await.unwrap_or_default();
        let label = |one: &Known| match &one.backup {
            Some(backup) => format!("{} · {} · {} files", one.id, said(backup.meta.reason), backup.files),
            None => format!("{} · damaged", one.id),
        };
        known.iter().map(|one| (one.id.to_string(), label(one))).collect()
    }

    /// The same of those that wait for a person's word.
    pub async fn doubted_choices(&self, guild: &GuildId, server: &str) -> Vec<(String, String)> {
        let Ok(Some(server)) = self.store().server_by_name(guild, server).await else { return vec![] };
        let known = self.vault_list(&server.id).await.unwrap_or_default();
        let views = known.iter().map(|one| view(one, &server, None)).filter(|view| view.acceptable);
        views.map(|view| (view.id.clone(), format!("{} · {}", view.id, view.doubt.unwrap_or_default()))).collect()
    }

    /// The doubted backup that somebody may accept, for the question before. Only a refusal is an event to record.
    pub async fn doubted(&self, caller: &Caller, name: &str, backup: &str) -> Answer<BackupView> {
        match self.doubted_unaudited(caller, name, backup).await {
            Ok((_, view)) => Ok(view),
            Err(refusal) => {
                let did = Did::new("accept", name).with(short(backup));
                self.audited(caller, did, Box::pin(async { Err(refusal) })).await
            }
        }
    }

    async fn doubted_unaudited(&self, caller: &Caller, name: &str, backup: &str) -> Answer<(Server, BackupView)> {
        let server = self.server(caller, name, Permission::Operate).await?;
        let known = self.vault_list(&server.id).await?;
        let Some(backup) = known.iter().find(|known| known.id.0 == backup.trim()) else {
            return Err(Refusal::NotFound(format!(
                "`{}` has no backup of that name. `/backup list` shows them.",
                server.name
            )));
        };
        let view = view(backup, &server, None);
        if let Some(broken) = &backup.broken {
            return Err(Refusal::Invalid(format!("That backup is damaged; no word of yours makes it whole: {broken}")));
        }
        if !view.acceptable {
            let shrunk = backup.backup.as_ref().is_some_and(|backup| backup.shrunk.is_some());
            let why = if shrunk { "was accepted already" } else { "is not much smaller than the one before it" };
            return Err(Refusal::Invalid(format!("The backup `{}` {why}; there is nothing to accept.", backup.id)));
        }
        Ok((server, view))
    }

    /// What to ask before a start, where the world that it would begin with is in doubt. The start itself answers
    /// everything else.
    pub async fn doubted_start(&self, caller: &Caller, name: &str) -> Answer<Option<DoubtedStart>> {
        let server = self.server(caller, name, Permission::Play).await?;
        match self.open_job(&server).await?.is_none() && !self.runs_already(&server).await? {
            true => Ok(self.begins_in_doubt(&server).await?),
            false => Ok(None),
        }
    }

    /// Nothing begins with a doubted world unless somebody wanted this very one.
    pub(super) async fn must_begin_well(&self, server: &Server, wanted: Option<&BackupId>) -> Answer<()> {
        if let Some(job) = self.open_job(server).await? {
            return Err(self.busy(&job, server.name.as_str()).await);
        }
        let doubted = self.begins_in_doubt(server).await?;
        match (wanted, doubted) {
            (None, None) => Ok(()),
            (Some(wanted), _) if self.begins_with(server).await.as_ref() == Some(wanted) => Ok(()),
            (Some(wanted), _) => Err(Refusal::Invalid(format!(
                "`{}` would not begin with the backup `{wanted}` any more, so it was not started. Start it again.",
                server.name
            ))),
            (None, Some(DoubtedStart { backup, good, .. })) => Err(Refusal::Invalid(format!(
                "`{}` was not started, because its world is in doubt: it is the backup `{}`, and that is {}. `/server start` \
                 asks whether to begin with it or to go back to `{}`.",
                server.name,
                backup.id,
                backup.doubt.unwrap_or_else(|| "much smaller than the world was".to_owned()),
                good.id
            ))),
        }
    }

    /// What the next start begins with. What was played on a host that is gone is gone too.
    async fn begins_with(&self, server: &Server) -> Option<BackupId> {
        let held = server.owned.host.as_ref().is_some_and(|host| host.played);
        match held && matches!(self.engine().look(server).await, Seen::Gone) {
            true => server.owned.moved().world,
            false => server.owned.begins_with().cloned(),
        }
    }

    async fn begins_in_doubt(&self, server: &Server) -> anyhow::Result<Option<DoubtedStart>> {
        let Some(present) = self.begins_with(server).await else { return Ok(None) };
        let known = self.vault_list(&server.id).await?;
        let kept: Vec<vault::Backup> = known.iter().filter_map(|one| one.backup.clone()).collect();
        let rather = vault::BackupId::parse(&present.0).ok().and_then(|id| vault::rather(&id, &kept));
        let Some(good) = rather.map(|good| good.id.as_str()) else { return Ok(None) };
        let seen = |id: &str| known.iter().find(|one| one.id.0 == id).map(|one| view(one, server, None));
        Ok(seen(&present.0).zip(seen(good)).map(|(backup, good)| DoubtedStart {
            server: server.name.to_string(),
            backup,
            good,
        }))
    }

    /// A person's word that a much smaller world is right: from now on it counts as good, and the backups before it
    /// are under the retention rules again.
    pub async fn accept(&self, caller: &Caller, name: &str, backup: &str) -> Answer<String> {
        let work = Box::pin(async {
            let (server, view) = self.doubted_unaudited(caller, name, backup).await?;
            let (vault, owner) = (self.inner.vault.clone(), owner(&server.id)?);
            let id = vault::BackupId::parse(&view.id).context("naming the backup")?;
            tokio::task::spawn_blocking(move || vault.accept(&owner, &id))
                .await
                .context("accepting a backup")?
                .context("accepting a backup")?;
            self.changed(&server);
            Ok(format!(
                "Accepted the backup `{}` of `{}`. Its world counts as the right one; from the next backup on, older \
                 ones go again when it is their time.",
                view.id, server.name
            ))
        });
        self.audited(caller, Did::new("accept", name).with(short(backup)), work).await
    }

    /// The newest backup of each of these servers that has one.
    pub(super) async fn newest_backups(&self, servers: &[Server]) -> anyhow::Result<HashMap<ServerId, BackupView>> {
        let owners = servers.iter().map(|server| owner(&server.id)).collect::<anyhow::Result<Vec<OwnerId>>>()?;
        let vault = self.inner.vault.clone();
        let look = move || owners.iter().map(|owner| vault.newest(owner)).collect::<vault::Result<Vec<_>>>();
        let newest = tokio::task::spawn_blocking(look).await.context("reading the vault")??;
        let found = servers.iter().zip(newest).filter_map(|(server, newest)| Some((server, known(newest?))));
        Ok(found.map(|(server, newest)| (server.id.clone(), view(&newest, server, None))).collect())
    }

    pub(super) async fn vault_list(&self, server: &ServerId) -> anyhow::Result<Vec<Known>> {
        let (vault, owner) = (self.inner.vault.clone(), owner(server)?);
        let listed = tokio::task::spawn_blocking(move || vault.list(&owner)).await.context("reading the vault")??;
        Ok(listed.into_iter().map(known).collect())
    }
}

fn known(listed: Listed) -> Known {
    let id = BackupId(listed.id().as_str().to_owned());
    match listed {
        Listed::Kept(backup) => Known { id, backup: Some(*backup), broken: None },
        Listed::Broken { why, .. } => Known { id, backup: None, broken: Some(why) },
    }
}

fn owner(server: &ServerId) -> anyhow::Result<OwnerId> {
    OwnerId::parse(&server.0).context("naming the backups' owner")
}

fn view(known: &Known, server: &Server, own_bytes: Option<u64>) -> BackupView {
    let present = server.owned.world.as_ref() == Some(&known.id);
    let id = known.id.to_string();
    let Some(backup) = &known.backup else {
        return BackupView {
            id,
            server: server.name.to_string(),
            taken_at: 0,
            files: 0,
            bytes: 0,
            own_bytes,
            reason: "damaged".to_owned(),
            by: None,
            doubt: known.broken.clone(),
            acceptable: false,
            present,
        };
    };
    let acceptable = backup.suspicious();
    let doubt = match (backup.shrunk.filter(|_| acceptable), backup.verified) {
        (Some(shrunk), _) => Some(format!(
            "much smaller than the one before: {}, {} instead of {}, {}",
            spoken_files(shrunk.now.files),
            spoken_bytes(shrunk.now.bytes),
            spoken_files(shrunk.was.files),
            spoken_bytes(shrunk.was.bytes)
        )),
        (None, false) => Some("taken while the game was writing".to_owned()),
        (None, true) => None,
    };
    BackupView {
        id,
        server: backup.meta.server.clone(),
        taken_at: backup.meta.taken_at_ms,
        files: backup.files,
        bytes: backup.bytes,
        own_bytes,
        reason: said(backup.meta.reason).to_owned(),
        by: Some(backup.meta.by.clone()),
        doubt,
        acceptable,
        present,
    }
}

/// What was typed, for the audit log.
fn short(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Why a backup was taken, for people.
fn said(reason: Reason) -> &'static str {
    match reason {
        Reason::Stop => "at a stop",
        Reason::Manual => "asked for",
        Reason::Schedule => "scheduled",
        Reason::BeforeRestore => "before a restore",
        Reason::BeforeUpdate => "before an update",
        Reason::BeforeMove => "before a move",
        Reason::BeforeDelete => "before deleting",
    }
}
