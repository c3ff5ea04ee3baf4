//! Which rented hosts hold nothing that the vault does not. The record says so as well, for as long as the server has
//! the host; this outlives the record, for a host that an admin leaves behind because it does not go, and that comes
//! back later. It is marked before its end is asked for; a game that starts on it takes the mark away first.

use super::CloudDriver;
use crate::drivers::blocking;
use crate::engine::StepError;
use crate::model::host::{HostRef, OWN_MACHINE};
use crate::model::server::Server;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

impl CloudDriver {
    /// Nothing was played there since its world was last kept.
    pub(super) async fn mark_saved(&self, host: &HostRef) -> Result<(), StepError> {
        if host.provider == OWN_MACHINE {
            return Ok(());
        }
        self.change_mark(&host.provider, &host.id, |mark| File::create(mark)?.sync_all()).await
    }

    /// Something may be played there from now on, or the host is gone.
    pub(super) async fn forget_saved(&self, provider: &str, host: &str) -> Result<(), StepError> {
        let remove = |mark: &Path| match std::fs::remove_file(mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        self.change_mark(provider, host, remove).await
    }

    /// Whether a game has run on this host and its world is not known to be in the vault, as the host itself says.
    pub(super) async fn holds_unsaved(&self, server: &Server, host: &HostRef) -> Result<bool, StepError> {
        let status = self.status(server, false).await?;
        Ok(match status.get("state").map(String::as_str) {
            Some("running") => true,
            Some("stopped") => !self.is_saved(&host.provider, &host.id).await?,
            Some(_) | None => false,
        })
    }

    /// What cannot be looked up counts as not saved.
    pub(super) async fn is_saved(&self, provider: &str, host: &str) -> Result<bool, StepError> {
        let mark = self.saved_mark(provider, host);
        blocking(move || mark.is_some_and(|mark| mark.is_file())).await
    }

    /// Returns once the change would outlast a power cut.
    async fn change_mark(
        &self,
        provider: &str,
        host: &str,
        change: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), StepError> {
        let Some(mark) = self.saved_mark(provider, host) else { return Ok(()) };
        let work = move || {
            let folder = mark.parent().expect("the path has a folder");
            std::fs::create_dir_all(folder)?;
            change(&mark)?;
            File::open(folder)?.sync_all()
        };
        let failed = |error| StepError::fatal(format!("noting whether the host's world is saved: {error}"));
        blocking(work).await?.map_err(failed)
    }

    /// Providers' ids are numbers or UUIDs; anything else has no mark.
    fn saved_mark(&self, provider: &str, host: &str) -> Option<PathBuf> {
        let plain = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        let folder = self.settings.data_dir.join("hosts-saved");
        (plain(provider) && plain(host)).then(|| folder.join(format!("{provider}-{host}")))
    }
}
