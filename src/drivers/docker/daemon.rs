//! What the daemon is, and what follows from that. It is asked whenever that matters, which takes milliseconds, and its
//! answer is not kept: nothing has to be guessed where none answers yet, and who comes after it is taken as it is.

use super::{DockerDriver, DriveKind, docker_error};
use crate::clients::docker::About;
use crate::engine::StepError;

/// What matters of it here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// How the next drive is made.
    pub drives: DriveKind,
}

impl Daemon {
    pub fn new(about: &About, wished: Option<DriveKind>) -> Daemon {
        // An overlay takes rights in the first user namespace of this machine, and folders that are this machine's own.
        let mounts = !(about.rootless || about.desktop || about.user_namespaces);
        let possible = if mounts { DriveKind::Overlay } else { DriveKind::Copy };
        Daemon { drives: wished.unwrap_or(possible) }
    }
}

impl DockerDriver {
    pub(super) async fn daemon(&self) -> Result<Daemon, StepError> {
        let about = self.docker.about().await.map_err(docker_error("asking the Docker daemon what it can do"))?;
        Ok(Daemon::new(&about, self.settings.drives))
    }
}
