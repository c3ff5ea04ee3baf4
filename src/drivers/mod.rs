//! One driver for each backend: it knows that backend's steps, and nothing of who asked. What is the same on every
//! backend is beside them: `backups` (keeping a world in the vault) and `talk` (speaking to a game).

pub mod backups;
pub mod cloud;
pub mod docker;
pub mod fake;
pub mod talk;

use crate::engine::StepError;

/// Runs blocking file work on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| StepError::fatal(format!("file work was cut off: {error}")))
}
