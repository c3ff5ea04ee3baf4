//! The vault as people see it.

use super::{Answer, App};
use crate::model::access::{Caller, Permission};
use crate::model::server::Server;
use crate::model::view::BackupView;
use crate::model::world::BackupId;
use crate::model::{GuildId, ServerId};
use crate::vault::{self, Listed, OwnerId, Reason};
use anyhow::Context;

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

    pub(super) async fn last_backup(&self, server: &Server) -> anyhow::Result<Option<BackupView>> {
        let known = self.vault_list(&server.id).await?;
        Ok(known.first().map(|newest| view(newest, server, None)))
    }

    pub(super) async fn vault_list(&self, server: &ServerId) -> anyhow::Result<Vec<Known>> {
        let (vault, owner) = (self.inner.vault.clone(), owner(server)?);
        let listed = tokio::task::spawn_blocking(move || vault.list(&owner)).await.context("reading the vault")??;
        Ok(listed
            .into_iter()
            .map(|one| {
                let id = BackupId(one.id().as_str().to_owned());
                match one {
                    Listed::Kept(backup) => Known { id, backup: Some(*backup), broken: None },
                    Listed::Broken { why, .. } => Known { id, backup: None, broken: Some(why) },
                }
            })
            .collect())
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
            present,
        };
    };
    let doubt = match (&backup.shrunk, backup.verified) {
        (Some(shrunk), _) => Some(format!(
            "much smaller than the one before: {} files instead of {}",
            shrunk.now.files, shrunk.was.files
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
        present,
    }
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
