//! What carries this instance's label on this machine and belongs to no server: containers, drives, and volumes of
//! drives whose folder is gone.

use super::drives::DRIVES;
use super::folders::{is_going, names_in};
use super::{DockerDriver, LABEL_INSTANCE, LABEL_SERVER};
use crate::drivers::blocking;
use crate::engine::StepError;
use crate::model::ServerId;
use crate::model::server::{Backend, Server};
use crate::model::sweep::{Orphan, OrphanKind};
use anyhow::{Context, ensure};
use std::collections::HashSet;

impl DockerDriver {
    pub(super) async fn find_orphans(&self, servers: &[Server]) -> anyhow::Result<Vec<Orphan>> {
        // What a server left here that lives elsewhere now is nobody's.
        let here = || servers.iter().filter(|server| server.backend == Backend::Docker);
        let ids: HashSet<&str> = here().map(|server| server.id.0.as_str()).collect();
        let drives: HashSet<&str> =
            here().filter_map(|server| Some(server.owned.drive.as_ref()?.id.as_str())).collect();
        let instance = [(LABEL_INSTANCE.to_owned(), self.settings.instance.clone())];
        let mut orphans = vec![];
        // Containers without a server belong to jobs that build.
        for container in self.docker.list(&instance).await? {
            let Some(server) = container.labels.get(LABEL_SERVER) else { continue };
            if !ids.contains(server.as_str()) {
                let name = format!("{} ({})", container.name, container.status);
                orphans.push(orphan(OrphanKind::Container, container.id, name, Some(server)));
            }
        }
        let folder = self.settings.data_dir.join(DRIVES);
        let folders: HashSet<String> = blocking(move || names_in(&folder))
            .await
            .map_err(plain)?
            .context("listing the drives")?
            .into_iter()
            .filter(|name| !is_going(name))
            .collect();
        for name in &folders {
            // One that is being made belongs to its server by name before it does by record; then its job is open, and
            // what a job is at is left out. One that a job left behind is on nobody's record.
            let server = name.rsplit_once('-').map(|(server, _)| server);
            if !drives.contains(name.as_str()) {
                orphans.push(orphan(OrphanKind::Drive, name.clone(), name.clone(), server));
            }
        }
        let of_drives: HashSet<String> =
            folders.iter().map(String::as_str).chain(drives).map(|drive| self.volume_name(drive)).collect();
        for volume in self.docker.list_volumes(&instance).await? {
            let Some(server) = volume.labels.get(LABEL_SERVER) else { continue };
            if !ids.contains(server.as_str()) && !of_drives.contains(&volume.name) {
                orphans.push(orphan(OrphanKind::Volume, volume.name.clone(), volume.name, Some(server)));
            }
        }
        orphans.sort_by_key(Orphan::key);
        Ok(orphans)
    }

    pub(super) async fn remove_orphan(&self, orphan: &Orphan) -> anyhow::Result<()> {
        match orphan.kind {
            OrphanKind::Container => match self.docker.remove(&orphan.id, true).await {
                Ok(()) | Err(crate::clients::docker::DockerError::Gone(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
            OrphanKind::Volume => match self.docker.remove_volume(&orphan.id).await {
                Ok(()) | Err(crate::clients::docker::DockerError::Gone(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
            OrphanKind::Drive => {
                let plain_name =
                    !orphan.id.is_empty() && !orphan.id.contains(['/', '\\']) && !orphan.id.starts_with('.');
                ensure!(plain_name, "`{}` is no drive's name", orphan.id);
                self.destroy_drive(&orphan.id).await.map_err(plain)
            }
            OrphanKind::Host | OrphanKind::Firewall | OrphanKind::SshKey | OrphanKind::Name | OrphanKind::Folder => {
                anyhow::bail!("there is no {} on this machine", orphan.kind.word())
            }
        }
    }
}

fn orphan(kind: OrphanKind, id: String, name: String, server: Option<impl AsRef<str>>) -> Orphan {
    Orphan {
        backend: Backend::Docker,
        provider: Backend::Docker.word().to_owned(),
        kind,
        id,
        name,
        since: None,
        price: None,
        server: server.map(|id| ServerId(id.as_ref().to_owned())),
        adoptable: false,
    }
}

fn plain(error: StepError) -> anyhow::Error {
    match error {
        StepError::Retry(error) | StepError::Fatal(error) => error,
    }
}
