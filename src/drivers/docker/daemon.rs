//! What the daemon is, and what follows from that. It is asked whenever that matters, which takes milliseconds, and its
//! answer is not kept: nothing has to be guessed where none answers yet, and who comes after it is taken as it is.

use super::{DockerDriver, DriveKind, docker_error};
use crate::clients::docker::About;
use crate::engine::StepError;

/// Who Spawnpoint is on this machine, and who its games are.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    pub own_uid: u32,
    /// A uid and a gid: drives and snapshots belong to them.
    pub game: (u32, u32),
}

/// What matters of the daemon here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// How the next drive is made.
    pub drives: DriveKind,
    /// Who on this machine is the owner of drives and snapshots is this uid and gid in a container.
    pub inside: (u32, u32),
    pub limits_cpus: bool,
}

impl Daemon {
    /// # Errors
    /// Why nothing of ours can run on it, and what to do about it, as sentences.
    pub fn new(about: &About, wished: Option<DriveKind>, ids: Ids) -> Result<Daemon, String> {
        if about.user_namespaces {
            return Err(
                "This Docker daemon gives what runs in containers other ids on this machine (`userns-remap`), so it could not write to Spawnpoint's folders. Take `userns-remap` out of /etc/docker/daemon.json and restart the daemon, or name another daemon's socket as `endpoint` under [docker]."
                    .to_owned(),
            );
        }
        if about.rootless && ids.own_uid == 0 {
            return Err(
                "This Docker daemon is rootless, so what runs in its containers could not write to root's folders. Run Spawnpoint as the user whose daemon it is, or name another daemon's socket as `endpoint` under [docker]."
                    .to_owned(),
            );
        }
        // An overlay takes rights in the first user namespace of this machine, and folders that are this machine's own.
        let possible = if about.rootless || about.desktop { DriveKind::Copy } else { DriveKind::Overlay };
        // A rootless daemon's user is root in its containers, and everybody else there has no name on this machine.
        let inside = if about.rootless { (0, 0) } else { ids.game };
        Ok(Daemon { drives: wished.unwrap_or(possible), inside, limits_cpus: about.can_limit_cpus })
    }

    /// As Docker wants it said.
    pub(super) fn user(&self) -> String {
        format!("{}:{}", self.inside.0, self.inside.1)
    }
}

impl DockerDriver {
    pub(super) async fn daemon(&self) -> Result<Daemon, StepError> {
        let about = self.docker.about().await.map_err(docker_error("asking the Docker daemon what it can do"))?;
        Daemon::new(&about, self.settings.drives, self.settings.ids).map_err(StepError::fatal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(rootless: bool, desktop: bool, user_namespaces: bool) -> About {
        About { rootless, desktop, user_namespaces, ..About::default() }
    }

    #[test]
    fn who_games_are_and_how_drives_are_made_follows_from_the_daemon() {
        let (user, root) = (Ids { own_uid: 1000, game: (1000, 1000) }, Ids { own_uid: 0, game: (4242, 4242) });
        let said = |about: &About, ids| match Daemon::new(about, None, ids) {
            Ok(daemon) => format!("{:?} as {}", daemon.drives, daemon.user()),
            Err(why) => why.split_once(", so").unwrap().0.to_owned(),
        };
        let daemons = [
            ("usual", about(false, false, false)),
            ("desktop", about(false, true, false)),
            ("rootless", about(true, false, false)),
            ("remapped", about(false, false, true)),
        ];
        let mut table = String::new();
        for (name, about) in daemons {
            table += &format!("{name}: {} | {}\n", said(&about, user), said(&about, root));
        }
        insta::assert_snapshot!(table, @r"
        usual: Overlay as 1000:1000 | Overlay as 4242:4242
        desktop: Copy as 1000:1000 | Copy as 4242:4242
        rootless: Copy as 0:0 | This Docker daemon is rootless
        remapped: This Docker daemon gives what runs in containers other ids on this machine (`userns-remap`) | This Docker daemon gives what runs in containers other ids on this machine (`userns-remap`)
        ");
        let wished = Daemon::new(&about(false, false, false), Some(DriveKind::Copy), user).unwrap();
        assert_eq!(wished.drives, DriveKind::Copy);
    }
}
