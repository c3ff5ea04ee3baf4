//! TCP ports of a host, reached from here: a game's console that listens only on the host's own loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::client::Msg;
use russh::{Channel, ChannelMsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::{Live, Ssh};
use super::error::SshError;

/// Opening a port on the host's loopback takes one round trip.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How much one direction of a forward holds for a reader that is busy.
const BUFFER_BYTES: usize = 256 * 1024;
/// A forward whose reader takes nothing for so long is closed, because the others wait behind it.
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// How many a listener serves at once; the next one waits to be accepted.
const STREAMS_AT_ONCE: usize = 64;

/// A port of the host on this machine's loopback, until it is dropped.
#[derive(Debug)]
pub struct LocalTcp {
    pub address: SocketAddr,
    _open: DropGuard,
}

impl Ssh {
    /// A connection to 127.0.0.1:`port` on the host, as the host itself would make it.
    pub async fn forward_tcp(&self, port: u16) -> Result<DuplexStream, SshError> {
        let what = format!("connecting to port {port} on the host");
        let live = self.forwards().await?;
        let opening = tokio::spawn(open(live, port));
        let opened = timeout(OPEN_LIMIT, opening).await;
        let (live, channel) = match opened {
            Ok(result) => result.expect("opening a forward does not panic")?,
            Err(_) => return Err(SshError::Timeout { what, limit: OPEN_LIMIT }),
        };
        let (near, far) = duplex(BUFFER_BYTES);
        tokio::spawn(pump(live, channel, far));
        Ok(near)
    }

    /// Listens on 127.0.0.1 here and passes each connection on to 127.0.0.1:`port` on the host. One that cannot be
    /// passed on is closed at once.
    pub async fn local_tcp(&self, port: u16) -> Result<LocalTcp, SshError> {
        let refused = |error: std::io::Error| SshError::Refused(format!("no local port could be opened: {error}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let open = CancellationToken::new();
        tokio::spawn(open.clone().run_until_cancelled_owned(serve(self.clone(), listener, port, open.clone())));
        Ok(LocalTcp { address, _open: open.drop_guard() })
    }
}

/// In a task of its own, so that a caller who goes away leaves no half-open channel: what comes out is dropped closed.
async fn open(live: Arc<Live>, port: u16) -> Result<(Arc<Live>, Closing), SshError> {
    let opened = live.handle.channel_open_direct_tcpip("127.0.0.1", port.into(), "127.0.0.1", 0).await;
    match opened {
        Ok(channel) => Ok((live, Closing(Some(channel)))),
        Err(russh::Error::ChannelOpenFailure(russh::ChannelOpenFailure::AdministrativelyProhibited)) => {
            Err(SshError::Refused(
                "the host's sshd allows no forwarding: set `AllowTcpForwarding yes` in its sshd_config".into(),
            ))
        }
        Err(russh::Error::ChannelOpenFailure(_)) => Err(SshError::Broken {
            what: format!("connecting to port {port} on the host"),
            why: "nobody listens there".into(),
        }),
        Err(_) => Err(live.broken("opening a forward")),
    }
}

/// A channel that is closed when it is dropped.
struct Closing(Option<Channel<Msg>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let (Some(channel), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            // On a connection that has ended the channel is closed already.
            let _ = timeout(STALL_LIMIT, channel.close()).await;
        });
    }
}

/// Carries bytes both ways until both ends are done.
async fn pump(_live: Arc<Live>, mut channel: Closing, far: DuplexStream) {
    let Some(channel) = channel.0.take() else { return };
    let (mut read, write) = channel.split();
    let (mut from_us, mut to_us) = tokio::io::split(far);
    let mut stdin = Box::pin(write.make_writer());
    let up = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            match from_us.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) if stdin.write_all(&buffer[..n]).await.is_err() => break,
                Ok(_) => {}
            }
        }
        // A connection that has gone takes no end either.
        let _ = stdin.shutdown().await;
    };
    let down = async {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => match timeout(STALL_LIMIT, to_us.write_all(&data)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => break,
                },
                ChannelMsg::Eof => {
                    // A reader that has gone needs no end.
                    let _ = to_us.shutdown().await;
                }
                ChannelMsg::Close => break,
                // Flow control, and what only sessions know.
                _ => {}
            }
        }
        let _ = to_us.shutdown().await;
    };
    // Once the host's side is over, what is still written here reaches nobody.
    tokio::pin!(up);
    tokio::pin!(down);
    tokio::select! {
        () = &mut down => {}
        () = &mut up => down.await,
    }
    let _ = timeout(STALL_LIMIT, write.close()).await;
}

async fn serve(ssh: Ssh, listener: TcpListener, port: u16, open: CancellationToken) {
    let places = Arc::new(Semaphore::new(STREAMS_AT_ONCE));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely; they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (ssh, open) = (ssh.clone(), open.clone());
        tokio::spawn(async move {
            let _place = place;
            open.run_until_cancelled(pass_on(ssh, stream, port)).await;
        });
    }
}

async fn pass_on(ssh: Ssh, mut stream: TcpStream, port: u16) {
    match ssh.forward_tcp(port).await {
        Ok(mut far) => {
            // Either side may hang up whenever it likes.
            let _ = copy_bidirectional(&mut stream, &mut far).await;
        }
        Err(error) => tracing::debug!(port, "a forwarded connection was closed: {error}"),
    }
}
