//! The other end of `spawnpoint rsh`: takes one connection on a Unix socket that only this user can reach, runs its
//! command over SSH, and carries the bytes between it and the stdin and stdout that it was handed.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};

use super::outcome::FULL;
use super::rsh::{ERR, EXIT, FRAME_MAX_BYTES, LOST};
use crate::clients::ssh::{Ended, Event, Ssh, SshError};

/// What a socket between two processes usually holds fits into it.
const PIECE_BYTES: usize = 256 * 1024;
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
        let Asked { command, mut from, mut to } = asked(&mut stream).await.map_err(lost)?;
        let mut session = ssh.session(command).await?;
        let mut stdin = session.stdin();
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
                // When the local rsync has gone, the other one may still say why.
                match event {
                    Event::Out(bytes) => {
                        ear.hear(&bytes);
                        there = there && to.write_all(&bytes).await.is_ok();
                    }
                    Event::Err(bytes) => {
                        ear.hear(&bytes);
                        there = there && send(&mut stream, ERR, &bytes).await.is_ok();
                    }
                    Event::Ended(how) => ended = Some(how),
                }
            }
            let ended = ended.ok_or_else(|| session.broken("a transfer"))?;
            let code = match &ended {
                Ended::Code(code) => u8::try_from(*code).unwrap_or(LOST),
                Ended::Signal(_) => LOST,
            };
            // An rsync that has gone already needs no exit code.
            let _ = send(&mut stream, EXIT, &[code]).await;
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

/// What an rsync wants, and where its bytes come from and go to.
struct Asked {
    command: String,
    from: Box<dyn AsyncRead + Send + Unpin>,
    to: Box<dyn AsyncWrite + Send + Unpin>,
}

async fn asked(stream: &mut UnixStream) -> std::io::Result<Asked> {
    let (size, fds) = stream.async_io(Interest::READABLE, || handed_over(stream)).await?;
    let [from, to] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| std::io::Error::other("it handed nothing over"))?;
    let size = u32::from_be_bytes(size) as usize;
    if size > FRAME_MAX_BYTES {
        return Err(std::io::Error::other("its command is too long"));
    }
    let mut command = vec![0; size];
    stream.read_exact(&mut command).await?;
    let command = String::from_utf8(command).map_err(|_| std::io::Error::other("its command is not UTF-8"))?;
    Ok(Asked { command, from: reader(from)?, to: writer(to)? })
}

/// The first message: a length, and what lies beside it.
fn handed_over(stream: &UnixStream) -> std::io::Result<([u8; 4], Vec<OwnedFd>)> {
    let mut size = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut size)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes != size.len() {
        return Err(std::io::Error::other("it said nothing"));
    }
    let mut fds = vec![];
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(handed) = message {
            fds.extend(handed);
        }
    }
    Ok((size, fds))
}

/// An rsync makes sockets where the system has pairs of them, and pipes elsewhere. Either no longer blocks from here on;
/// nobody else uses them, because rsync has the other ends and `spawnpoint rsh` only holds these.
fn reader(fd: OwnedFd) -> std::io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(if is_socket(&fd)? { Box::new(socket(fd)?) } else { Box::new(pipe::Receiver::from_owned_fd(fd)?) })
}

fn writer(fd: OwnedFd) -> std::io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    Ok(if is_socket(&fd)? { Box::new(socket(fd)?) } else { Box::new(pipe::Sender::from_owned_fd(fd)?) })
}

fn is_socket(fd: &OwnedFd) -> std::io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Socket)
}

fn socket(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(fd);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn send(to: &mut UnixStream, kind: u8, bytes: &[u8]) -> std::io::Result<()> {
    for piece in bytes.chunks(FRAME_MAX_BYTES) {
        let size = (piece.len() as u32).to_be_bytes();
        to.write_all(&[kind, size[0], size[1], size[2], size[3]]).await?;
        to.write_all(piece).await?;
    }
    Ok(())
}
