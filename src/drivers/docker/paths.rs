//! The paths of a world as the daemon sends them, one tar after the other, for a thread of the vault to read.

use super::{GAME_DIR, docker_error};
use crate::clients::docker::Docker;
use crate::drivers::backups::vault_error;
use crate::engine::StepError;
use crate::vault::Shift;
use std::io::{self, Read};
use std::path::Path;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Why a reading ended that was called off. Nobody waits for this sentence either.
const UNWANTED: &str = "nobody waits for the world any more";

/// What a recipe calls the world, in one container.
pub(super) struct WorldPaths {
    docker: Docker,
    container: String,
    paths: Vec<(String, Shift)>,
}

impl WorldPaths {
    pub(super) fn new(docker: &Docker, container: &str, paths: &[String]) -> Result<WorldPaths, StepError> {
        let shifted = paths.iter().map(|path| Ok((path.clone(), shift_of(path)?)));
        let paths = shifted.collect::<Result<_, StepError>>()?;
        Ok(WorldPaths { docker: docker.clone(), container: container.to_owned(), paths })
    }

    /// Hands on each path that is there: a world that nobody has played yet has none. For a thread that may wait, until
    /// it is unwanted.
    pub(super) fn read(
        &self,
        unwanted: &CancellationToken,
        mut take: impl FnMut(&mut dyn Read, &Shift) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let daemon = Handle::current();
        for (path, shift) in &self.paths {
            // One after the other: the daemon answers nothing more about a container whose archive is half read.
            let opened = daemon.block_on(unwanted.run_until_cancelled(self.open(path)));
            let Some(tar) = opened.ok_or_else(|| StepError::fatal(UNWANTED))?? else { continue };
            take(&mut Wanted { tar, daemon: daemon.clone(), unwanted: unwanted.clone() }, shift)?;
        }
        Ok(())
    }

    /// What lies at this path of the world, as a tar; `None` where there is nothing yet.
    async fn open(&self, path: &str) -> Result<Option<impl AsyncRead + Send + Unpin + use<>>, StepError> {
        let inside = format!("{GAME_DIR}/{path}");
        let there =
            self.docker.stat_path(&self.container, &inside).await.map_err(docker_error("looking for the world"))?;
        if there.is_none() {
            return Ok(None);
        }
        self.docker.download_tar(&self.container, &inside).await.map(Some).map_err(docker_error("reading the world"))
    }
}

/// A tar from the daemon, which ends with an error when nobody waits for it any more, however long the daemon is silent.
struct Wanted<R> {
    tar: R,
    daemon: Handle,
    unwanted: CancellationToken,
}

impl<R: AsyncRead + Unpin> Read for Wanted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.unwanted.run_until_cancelled(self.tar.read(buffer));
        self.daemon.block_on(read).unwrap_or_else(|| Err(io::Error::other(UNWANTED)))
    }
}

/// Docker's archive of `/srv/game/a/b` names everything `b/…`; the backup keeps it as `a/b/…`.
fn shift_of(path: &str) -> Result<Shift, StepError> {
    let last = Path::new(path).file_name().and_then(|name| name.to_str()).unwrap_or(path);
    Shift::new(last, path).map_err(vault_error("reading the recipe's world"))
}
