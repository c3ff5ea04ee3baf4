//! One driver for each backend: it knows that backend's steps, and nothing of who asked. What is the same on every
//! backend is beside them: `backups` (keeping a world in the vault) and `talk` (speaking to a game).

pub mod backups;
pub mod cloud;
pub mod docker;
pub mod fake;
pub mod talk;

use crate::engine::StepError;
use std::io;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// What was made, renamed or removed in this folder outlasts a power cut once this returns. A file's own bytes are another
/// matter.
pub(crate) fn sync_dir(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

/// What a file says; `None` where there is none. One that cannot be read is an error: it must not pass for one that is
/// not there, where a host's bill or a world hangs on it.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs blocking file work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StepError::fatal(format!("file work was cut off: {error}")))
}

/// The same for work that may take long: it hears when nobody waits for it any more, as when its step was called off, and
/// ends then. A thread cannot be dropped, and what it holds is not free before it ends.
pub(crate) async fn blocking_while_wanted<T: Send + 'static>(
    work: impl FnOnce(CancellationToken) -> T + Send + 'static,
) -> Result<T, StepError> {
    let unwanted = CancellationToken::new();
    let _until_dropped = unwanted.clone().drop_guard();
    blocking(move || work(unwanted)).await
}
