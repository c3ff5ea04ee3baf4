//! Carrying a world to a host and back with the system's rsync, over an SSH connection of ours: rsync starts
//! `spawnpoint rsh` where it would start `ssh`. What rsync says is read in `outcome`; nothing here knows what a world is.
//!
//! A hostile host must not be able to write outside the destination of a pull. rsync itself refuses names that lead out
//! of it (keep it current: those checks are of 3.2.5 and 3.4.0) and never writes through a link to a folder. Beyond that
//! `--safe-links` leaves out links that point outside, so that nothing that reads the copy later is led away either;
//! links within are kept as they are. `--munge-links` would keep the others too, but every link of the copy would be
//! broken, and a world must also run here. Devices, sockets and pipes are not carried, and set-user-ID bits are taken
//! off what comes from a host.

mod outcome;
mod relay;
pub mod rsh;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

pub use outcome::{Progress, RsyncError, Side};

use crate::clients::ssh::{Lines, Ssh, SshError};
use outcome::{outcome, progress, transferred};
use relay::{Relay, Served};

/// Where what arrived of a file waits for the next try; rsync removes it when the file is whole.
const PARTIAL_DIR: &str = ".spawnpoint-partial";
/// How much of rsync's complaints is kept; the first ones tell most.
const SAID_LINES: usize = 50;
/// How long the two ends may differ in noticing that a transfer is over.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);
/// Before each difference, apart from what else rsync writes there.
const DIFFERENCE: &str = "differs: ";
/// More differences than these need no list.
const DIFFERENCES: usize = 1000;

/// Two folders that shall be the same: what lies in `local` and what lies in `remote`.
#[derive(Debug, Clone)]
pub struct Transfer {
    pub ssh: Ssh,
    pub local: PathBuf,
    /// An absolute path on the host.
    pub remote: String,
    /// rsync's filter rules, `- /name` and `+ /name/***` for example; the first that matches a name decides. What they
    /// leave out is neither carried nor removed nor compared.
    pub rules: Vec<String>,
    /// An earlier copy on the receiving side: files that are the same there become hard links to it.
    pub link_dest: Option<PathBuf>,
    /// Whether files of the same size and time are compared by their content, too. Reads everything on both sides.
    pub by_content: bool,
    /// Whether what the source has not is removed at the destination.
    pub delete: bool,
    /// Whether owners and groups are carried, as numbers. For this both ends must be root; otherwise whoever receives
    /// owns the files.
    pub owners: bool,
    /// Whether the host's rsync runs as root through `sudo -n`, for who does not log in as root.
    pub sudo: bool,
    /// Whether the local files are kept without write bits, so that nothing changes them: the bits are taken off what is
    /// pulled, given back to the owner of what is pushed, and make no difference to `compare`.
    pub write_protected: bool,
    pub limit: Duration,
    /// The program that has the `rsh` subcommand; this very one if it is not given.
    pub program: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Push,
    Pull,
    Compare,
    /// Nothing is carried: what a push or a pull would come to.
    MeasurePush,
    MeasurePull,
}

impl Transfer {
    pub fn new(ssh: Ssh, local: impl Into<PathBuf>, remote: impl Into<String>, limit: Duration) -> Transfer {
        Transfer {
            ssh,
            local: local.into(),
            remote: remote.into(),
            rules: vec![],
            link_dest: None,
            by_content: false,
            delete: true,
            owners: false,
            sudo: false,
            write_protected: false,
            limit,
            program: None,
        }
    }

    /// Makes the host's folder what the local one is. Its parent must exist.
    pub async fn push(&self, tell: &mut (dyn FnMut(Progress) + Send)) -> Result<(), RsyncError> {
        self.run(Direction::Push, &mut |line| progress(line).into_iter().for_each(&mut *tell)).await
    }

    /// Makes the local folder what the host's is. Its parent must exist.
    pub async fn pull(&self, tell: &mut (dyn FnMut(Progress) + Send)) -> Result<(), RsyncError> {
        self.run(Direction::Pull, &mut |line| progress(line).into_iter().for_each(&mut *tell)).await
    }

    /// What a pull would still change, by size, content, kind and permissions of every file, one line each as
    /// `--itemize-changes` writes it. Nothing means that both are the same. At most 1000 lines are given.
    pub async fn compare(&self) -> Result<Vec<String>, RsyncError> {
        let mut differences = vec![];
        self.run(Direction::Compare, &mut |line| {
            // rsync also tells on stdout which pipes and sockets it leaves out.
            if let Some(difference) = line.strip_prefix(DIFFERENCE)
                && differences.len() < DIFFERENCES
            {
                differences.push(difference.to_string());
            }
        })
        .await?;
        Ok(differences)
    }

    /// The bytes of all files that a push would carry now.
    pub async fn bytes_to_push(&self) -> Result<u64, RsyncError> {
        self.measure(Direction::MeasurePush).await
    }

    /// The bytes of all files that a pull would carry now.
    pub async fn bytes_to_pull(&self) -> Result<u64, RsyncError> {
        self.measure(Direction::MeasurePull).await
    }

    async fn measure(&self, direction: Direction) -> Result<u64, RsyncError> {
        let mut bytes = None;
        self.run(direction, &mut |line| bytes = transferred(line).or(bytes)).await?;
        bytes.ok_or_else(|| RsyncError::Refused("rsync did not say how much there is to carry".into()))
    }

    async fn run(&self, direction: Direction, line: &mut (dyn FnMut(&str) + Send)) -> Result<(), RsyncError> {
        let refused = |error: std::io::Error| RsyncError::Refused(format!("rsync cannot be started: {error}"));
        let program = match &self.program {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(refused)?,
        };
        let relay = Relay::open().map_err(refused)?;
        let mut command = Command::new("rsync");
        command.args(self.arguments(direction, &shell_of(&program, relay.socket())?)?);
        // Neither a person's settings nor a language other than the one whose words are read.
        for name in ["RSYNC_RSH", "RSYNC_OLD_ARGS", "RSYNC_PROTECT_ARGS", "RSYNC_PARTIAL_DIR", "RSYNC_CHECKSUM_LIST"] {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.kill_on_drop(true).spawn();
        let mut child = child.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RsyncError::Missing(Side::Here),
            _ => refused(error),
        })?;
        let mut said = vec![];
        let out = child.stdout.take().expect("it was asked for");
        let err = child.stderr.take().expect("it was asked for");
        let ssh = self.ssh.apart();
        let local = async {
            let mut keep = |line: &str| {
                if said.len() < SAID_LINES {
                    said.push(line.to_string());
                }
            };
            tokio::try_join!(read_lines(out, line), read_lines(err, &mut keep)).map_err(refused)?;
            child.wait().await.map_err(refused)
        };
        let both = async {
            let relay = relay.serve(&ssh, matches!(direction, Direction::Push | Direction::MeasurePush));
            tokio::pin!(local, relay);
            tokio::select! {
                status = &mut local => (status, timeout(CLOSE_LIMIT, relay).await.ok()),
                there = &mut relay => (local.await, Some(there)),
            }
        };
        let too_long = || SshError::Timeout { what: "the transfer".into(), limit: self.limit };
        let (status, served): (_, Option<Served>) = timeout(self.limit, both).await.map_err(|_| too_long())?;
        let status = status?;
        let writer = match direction {
            Direction::Push | Direction::MeasurePush => Side::There,
            Direction::Pull | Direction::Compare | Direction::MeasurePull => Side::Here,
        };
        let told_full = served.as_ref().is_some_and(|served| served.told_full);
        if told_full && !status.success() {
            return Err(RsyncError::Full(writer));
        }
        let there = served.map(|served| served.ended);
        // One that was killed by a signal was cut off.
        outcome(status.code().unwrap_or(255), writer, there, &said)
    }

    fn arguments(&self, direction: Direction, shell: &str) -> Result<Vec<std::ffi::OsString>, RsyncError> {
        let remote = remote_folder(&self.remote)?;
        let mut local = std::path::absolute(&self.local)
            .map_err(|error| RsyncError::Refused(format!("{} is no folder: {error}", self.local.display())))?
            .into_os_string();
        local.push("/");
        // Names and patterns go through rsync's own connection and meet no shell.
        let mut all: Vec<std::ffi::OsString> =
            ["--protect-args", "-rl", "--perms", "--sparse", "--safe-links", "--rsh"].map(Into::into).into();
        all.push(shell.into());
        all.push(format!("--partial-dir={PARTIAL_DIR}").into());
        match direction {
            Direction::Compare => {
                all.extend(["--dry-run", "--checksum", "--delete", "--no-times"].map(Into::into));
                all.push(format!("--out-format={DIFFERENCE}%i %n%L").into());
            }
            Direction::Push | Direction::Pull | Direction::MeasurePush | Direction::MeasurePull => {
                all.extend(["--times", "--no-human-readable", "--outbuf=L"].map(Into::into));
                all.extend(match direction {
                    Direction::MeasurePush | Direction::MeasurePull => {
                        ["--dry-run", "--stats"].map(Into::into).to_vec()
                    }
                    Direction::Push | Direction::Pull | Direction::Compare => vec!["--info=progress2".into()],
                });
                if self.by_content {
                    all.push("--checksum".into());
                }
                if self.delete {
                    all.push("--delete-delay".into());
                }
                if let Some(earlier) = &self.link_dest {
                    let mut option = std::ffi::OsString::from("--link-dest=");
                    option.push(earlier);
                    all.push(option);
                }
            }
        }
        if self.owners {
            all.extend(["--owner", "--group", "--numeric-ids"].map(Into::into));
        }
        all.extend(match (direction, self.write_protected) {
            (Direction::Push | Direction::MeasurePush, false) => None,
            (Direction::Push | Direction::MeasurePush, true) => Some("--chmod=Fu+w".into()),
            (Direction::Pull | Direction::Compare | Direction::MeasurePull, false) => Some("--chmod=ug-s".into()),
            (Direction::Pull | Direction::Compare | Direction::MeasurePull, true) => {
                Some("--chmod=ug-s,Du+rwx,Fu+r,Fa-w".into())
            }
        });
        if self.sudo {
            // Where there is no rsync, `env` ends with 127 as a shell does, and sudo itself with 1.
            all.push("--rsync-path=sudo -n env rsync".into());
        }
        all.extend(self.rules.iter().map(|rule| format!("--filter={rule}").into()));
        all.push("--".into());
        let remote = format!("host:{remote}/").into();
        match direction {
            Direction::Push | Direction::MeasurePush => all.extend([local, remote]),
            Direction::Pull | Direction::Compare | Direction::MeasurePull => all.extend([remote, local]),
        }
        Ok(all)
    }
}

/// rsync expands patterns in the names of a source, and takes relative ones from a home folder.
fn remote_folder(path: &str) -> Result<&str, RsyncError> {
    if !path.starts_with('/') || path.contains(['*', '?', '[', '\\', '\0', '\n']) {
        return Err(RsyncError::Refused(format!(
            "{path:?} cannot be a folder on the host: write an absolute path without * ? [ \\ and line breaks"
        )));
    }
    Ok(path.trim_end_matches('/'))
}

/// The value of `--rsh`, which rsync cuts into words at spaces that are not in quotes.
fn shell_of(program: &Path, socket: &Path) -> Result<String, RsyncError> {
    let word = |path: &Path| match path.to_str() {
        Some(text) if !text.contains('"') => Ok(format!("\"{text}\"")),
        _ => Err(RsyncError::Refused(format!(
            "rsync cannot be started: the path {} holds a quote or is not UTF-8",
            path.display()
        ))),
    };
    Ok(format!("{} rsh {}", word(program)?, word(socket)?))
}

async fn read_lines(mut from: impl AsyncRead + Unpin, line: &mut (dyn FnMut(&str) + Send)) -> std::io::Result<()> {
    let (mut lines, mut piece) = (Lines::default(), vec![0; 16 * 1024]);
    loop {
        match from.read(&mut piece).await? {
            0 => break,
            size => lines.take(&piece[..size], &mut *line),
        }
    }
    lines.end(line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_absolute_path_is_a_folder_on_the_host() {
        assert_eq!(remote_folder("/srv/it's a \"world\"/").unwrap(), "/srv/it's a \"world\"");
        for path in ["", "srv", "~/x", "/srv/*", "/a\nb", "/a\\b"] {
            assert!(remote_folder(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn a_program_in_a_folder_with_spaces_can_be_the_shell() {
        let shell = shell_of(Path::new("/opt/my bot/spawnpoint"), Path::new("/tmp/x/s")).unwrap();
        assert_eq!(shell, "\"/opt/my bot/spawnpoint\" rsh \"/tmp/x/s\"");
        assert!(shell_of(Path::new("/opt/\"/x"), Path::new("/tmp/s")).is_err());
    }
}
