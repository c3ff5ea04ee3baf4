//! What is known of the world on a host beside the record, which is gone once the server has the host no more. An admin
//! may leave a host behind because it does not go, and later the server comes back to it: then nobody may take an old
//! world for the newest, nor put a newer one over what was never saved.

use super::CloudDriver;
use crate::drivers::blocking;
use crate::engine::StepError;
use crate::model::ServerId;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::server::Server;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// One small file for each host, or for each server's folder on a machine of your own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing on it is newer than the vault. Set before its end is asked for; a game that starts on it takes it away.
    Saved,
    /// A folder on a machine of your own that went off the record with what was never saved. Of a rented host the open
    /// bill says so.
    Left,
}

impl Mark {
    const ALL: [Mark; 2] = [Mark::Saved, Mark::Left];

    fn word(self) -> &'static str {
        match self {
            Mark::Saved => "saved",
            Mark::Left => "left",
        }
    }
}

impl CloudDriver {
    /// Outlasts a power cut once it returns.
    pub(super) async fn set_mark(&self, server: &ServerId, host: &HostRef, mark: Mark) -> Result<(), StepError> {
        let Some(path) = self.mark_path(server, &host.provider, &host.id) else { return Ok(()) };
        let work = move || -> io::Result<()> {
            let folder = path.parent().expect("the path has a folder");
            std::fs::create_dir_all(folder)?;
            let part = path.with_extension("part");
            let mut file = File::create(&part)?;
            file.write_all(mark.word().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            File::open(folder)?.sync_all()
        };
        blocking(work).await?.map_err(not_noted)
    }

    /// Something may be played there from now on, or it is gone.
    pub(super) async fn forget_mark(&self, server: &ServerId, provider: &str, host: &str) -> Result<(), StepError> {
        let Some(path) = self.mark_path(server, provider, host) else { return Ok(()) };
        let work = move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(path.parent().expect("the path has a folder"))?.sync_all(),
        };
        blocking(work).await?.map_err(not_noted)
    }

    pub(super) async fn mark_of(
        &self,
        server: &ServerId,
        provider: &str,
        host: &str,
    ) -> Result<Option<Mark>, StepError> {
        let path = self.mark_path(server, provider, host);
        blocking(move || {
            let word = std::fs::read_to_string(path?).ok()?;
            Mark::ALL.into_iter().find(|mark| mark.word() == word)
        })
        .await
    }

    /// Whether a game has run on this host and its world is not known to be in the vault, as the host itself says.
    pub(super) async fn holds_unsaved(&self, server: &Server, host: &HostRef) -> Result<bool, StepError> {
        let status = self.status(server, false).await?;
        Ok(match status.get("state").map(String::as_str) {
            Some("running") => true,
            Some("stopped") => self.mark_of(&server.id, &host.provider, &host.id).await? != Some(Mark::Saved),
            Some(_) | None => false,
        })
    }

    /// Providers' ids are numbers or UUIDs; what cannot be a file's name has no mark, and counts as not saved.
    fn mark_path(&self, server: &ServerId, provider: &str, host: &str) -> Option<PathBuf> {
        let name = match provider {
            OWN_MACHINE => format!("{provider}-{host}-{server}"),
            _ => format!("{provider}-{host}"),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        (!host.is_empty() && name.chars().all(plain)).then(|| self.settings.data_dir.join("hosts-saved").join(name))
    }
}

fn not_noted(error: io::Error) -> StepError {
    StepError::fatal(format!("noting whether the host's world is saved: {error}"))
}
