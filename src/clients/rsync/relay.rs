//! The other end of `spawnpoint rsh`: takes one connection on a Unix socket that only this user can reach, runs its
//! command over SSH, and carries the bytes.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};

use super::outcome::FULL;
use super::rsh::{ERR, EXIT, FRAME_MAX_BYTES, LOST, OUT};
use crate::clients::ssh::{Ended, Event, Ssh, SshError};

const PIECE_BYTES: usize = 64 * 1024;
/// So much is kept, for words that are cut in two.
const TAIL_BYTES: usize = 64;
/// For its owner alone; the folder around it is as well.
const SOCKET_MODE: u32 = 0o600;

/// How one rsync's command ended on the host.
pub(super) struct Served {
    pub(super) ended: Result<Ended, SshError>,
    /// The host's rsync said that its disk is full. The local one may end before it reads that.
    pub(super) told_full: bool,
}

pub(super) struct Relay {
    listener: UnixListener,
    socket: PathBuf,
    _dir: TempDir,
}

impl Relay {
    pub(super) fn open() -> std::io::Result<Relay> {
        let dir = tempfile::Builder::new().prefix("spawnpoint-rsh-").tempdir()?;
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700))?;
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket)?;
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(SOCKET_MODE))?;
        Ok(Relay { listener, socket, _dir: dir })
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Serves the one command of one rsync. With `listen` what the host's rsync sends is looked through for words of a
    /// full disk; that is for a push, when it sends little else.
    pub(super) async fn serve(self, ssh: &Ssh, listen: bool) -> Served {
        let mut ear = Ear { listen, tail: vec![], told_full: false };
        let ended = self.carry(ssh, &mut ear).await;
        Served { ended, told_full: ear.told_full }
    }

    async fn carry(self, ssh: &Ssh, ear: &mut Ear) -> Result<Ended, SshError> {
        let lost = |error: std::io::Error| SshError::Refused(format!("rsync's helper process went away: {error}"));
        let (mut stream, _) = self.listener.accept().await.map_err(lost)?;
        drop(self.listener);
        let command = command(&mut stream).await.map_err(lost)?;
        let mut session = ssh.session(command).await?;
        let mut stdin = session.stdin();
        let (mut from, mut to) = stream.into_split();
        let up = async move {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(size @ 1..) = from.read(&mut piece).await {
                if stdin.write_all(&piece[..size]).await.is_err() {
                    break;
                }
            }
            // A connection that has gone takes no end either; the other direction tells of it.
            let _ = stdin.shutdown().await;
        };
        let down = async {
            let (mut ended, mut there) = (None, true);
            while let Some(event) = session.next().await {
                let (kind, bytes) = match event {
                    Event::Out(bytes) => (OUT, bytes),
                    Event::Err(bytes) => (ERR, bytes),
                    Event::Ended(how) => {
                        ended = Some(how);
                        continue;
                    }
                };
                ear.hear(&bytes);
                // When the local rsync has gone, the other one may still say why.
                there = there && send(&mut to, kind, &bytes).await.is_ok();
            }
            let ended = ended.ok_or_else(|| session.broken("a transfer"))?;
            let code = match &ended {
                Ended::Code(code) => u8::try_from(*code).unwrap_or(LOST),
                Ended::Signal(_) => LOST,
            };
            // An rsync that has gone already needs no exit code.
            let _ = send(&mut to, EXIT, &[code]).await;
            Ok(ended)
        };
        tokio::pin!(up, down);
        tokio::select! {
            ended = &mut down => ended,
            () = &mut up => down.await,
        }
    }
}

/// Listens for a full disk.
struct Ear {
    listen: bool,
    tail: Vec<u8>,
    told_full: bool,
}

impl Ear {
    fn hear(&mut self, bytes: &[u8]) {
        if !self.listen || self.told_full {
            return;
        }
        self.tail.extend_from_slice(bytes);
        self.told_full =
            FULL.iter().any(|words| self.tail.windows(words.len()).any(|window| window == words.as_bytes()));
        let old = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..old);
    }
}

async fn command(stream: &mut UnixStream) -> std::io::Result<String> {
    let size = stream.read_u32().await? as usize;
    if size > FRAME_MAX_BYTES {
        return Err(std::io::Error::other("its command is too long"));
    }
    let mut command = vec![0; size];
    stream.read_exact(&mut command).await?;
    String::from_utf8(command).map_err(|_| std::io::Error::other("its command is not UTF-8"))
}

async fn send(to: &mut OwnedWriteHalf, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    for piece in bytes.chunks(FRAME_MAX_BYTES) {
        let size = (piece.len() as u32).to_be_bytes();
        to.write_all(&[kind, size[0], size[1], size[2], size[3]]).await?;
        to.write_all(piece).await?;
    }
    Ok(())
}
