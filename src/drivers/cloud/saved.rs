//! What is known of the world on a host beside the record, which is gone once the server has the host no more. An admin
//! may leave a host behind because it does not go, and later the server comes back to it: then nobody may take an old
//! world for the newest, nor put a newer one over what was never saved.

use super::CloudDriver;
use crate::drivers::{blocking, read_if_there, sync_dir};
use crate::engine::StepError;
use crate::model::ServerId;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::server::Server;
use crate::model::world::BackupId;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// One small file for each host, or for each server's folder on a machine of your own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing on it is newer than the vault. A game that starts on it takes this away.
    Saved,
    /// A folder on a machine of your own that went off the record with what was never saved, when this was the newest
    /// backup. Of a rented host the open bill says so.
    Left { newest: Option<BackupId> },
    /// Somebody was on when a start that nobody had seen ready was undone.
    Played,
}

impl Mark {
    fn text(&self) -> String {
        match self {
            Mark::Saved => "saved".to_owned(),
            Mark::Played => "played".to_owned(),
            Mark::Left { newest } => format!("left {}", newest.as_ref().map_or("", |newest| newest.0.as_str())),
        }
    }

    fn parse(text: &str) -> Option<Mark> {
        match text.split_once(' ') {
            None if text == "saved" => Some(Mark::Saved),
            None if text == "played" => Some(Mark::Played),
            Some(("left", newest)) => {
                Some(Mark::Left { newest: Some(BackupId(newest.to_owned())).filter(|_| !newest.is_empty()) })
            }
            None | Some(_) => None,
        }
    }
}

impl CloudDriver {
    /// Outlasts a power cut once it returns.
    pub(super) async fn set_mark(&self, server: &ServerId, host: &HostRef, mark: Mark) -> Result<(), StepError> {
        let path = self.mark_path(server, &host.provider, &host.id);
        let work = move || -> io::Result<()> {
            let folder = path.parent().expect("the path has a folder");
            std::fs::create_dir_all(folder)?;
            let part = path.with_extension("part");
            let mut file = File::create(&part)?;
            file.write_all(mark.text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&part, &path)?;
            sync_dir(folder)
        };
        blocking(work).await?.map_err(not_noted)
    }

    /// Something may be played there from now on, or it is gone.
    pub(super) async fn forget_mark(&self, server: &ServerId, provider: &str, host: &str) -> Result<(), StepError> {
        let path = self.mark_path(server, provider, host);
        let work = move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_dir(path.parent().expect("the path has a folder")),
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
        let text = blocking(move || read_if_there(&path)).await?.map_err(|error| {
            StepError::retry(format!("reading what is saved of a host, in the data folder: {error}"))
        })?;
        Ok(text.and_then(|text| Mark::parse(&text)))
    }

    /// A folder on a machine of your own goes only when nothing on it is newer than the vault. The record may have been
    /// made before anybody had looked.
    pub(super) async fn must_be_saved(&self, server: &Server, host: &HostRef) -> Result<(), StepError> {
        if host.provider != OWN_MACHINE || host.played || !self.holds_unsaved(server, host).await? {
            return Ok(());
        }
        Err(StepError::fatal(format!(
            "The folder of this server on your machine `{}` holds a world that was never saved. Start the server there and \
             stop it again, and it is.",
            host.id
        )))
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

    /// Of names that could not be a file's, what does not fit is written as its bytes.
    fn mark_path(&self, server: &ServerId, provider: &str, host: &str) -> PathBuf {
        let name = match provider {
            OWN_MACHINE => format!("{provider}-{host}-{server}"),
            _ => format!("{provider}-{host}"),
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let file: String = name
            .bytes()
            .map(char::from)
            .map(|c| if fits(c) { c.to_string() } else { format!("%{:02x}", c as u32) })
            .collect();
        self.settings.data_dir.join("hosts-saved").join(file)
    }
}

fn not_noted(error: io::Error) -> StepError {
    StepError::fatal(format!("noting whether the host's world is saved: {error}"))
}
