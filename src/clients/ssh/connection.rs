//! One connection to a host and what holds it: who the host must be, keepalives, limits, reconnecting. A connection is
//! shared by all clones of its [`Ssh`]. Forwards have a second one and bulk transfers a third ([`Ssh::apart`]), because
//! in this SSH library a channel that nobody reads stops all others of its connection.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use russh::client::{self, DisconnectReason, Handle};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher, compression};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::error::SshError;
use super::keys::{KeyPair, Pin, ScannedKey, fingerprint};
use super::session::Session;

/// From the first packet until the key was accepted. A slow host on the far side of the world needs some 3 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
/// A connection that was silent for so long is dead, whether we wait for its words or it does not take ours.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Keepalives in that time that may stay without an answer.
const KEEPALIVES_MISSED: u8 = 3;
/// An OpenSSH server allows ten sessions on a connection (`MaxSessions`); the rest wait for their turn here.
const SESSIONS_AT_ONCE: usize = 8;
/// A caller that takes no output for so long has lost it, because others wait for the same connection.
const PATIENCE: Duration = Duration::from_secs(20);
/// On a connection of its own nobody waits: an rsync that reads a large file may be silent for long.
const PATIENCE_APART: Duration = Duration::from_secs(3600);
/// How much a host may send before it hears from us: enough for 1 Gbit/s over 60 ms.
const WINDOW_BYTES: u32 = 8 << 20;
const PACKET_BYTES: u32 = 32 * 1024;

/// Both are quick where the processor has AES; ChaCha20 is for those that have not. CTR is for very old servers.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR, cipher::AES_128_CTR];
/// Worlds are compressed already, or rsync does it.
const COMPRESSIONS: &[compression::Name] = &[compression::NONE];
const HOST_KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
];

/// Whom to reach, as whom, and how to know that it is the right one.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub user: String,
    pub key: Arc<KeyPair>,
    pub host_key: Pin,
}

/// A host. Nothing is connected until something is asked of it; the connection ends with the last clone.
#[derive(Clone)]
pub struct Ssh {
    shared: Arc<Shared>,
}

/// How long a host may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first packet until the key was accepted.
    pub connect: Duration,
    /// Until a connection on which nothing comes any more is given up. Whole milliseconds.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { connect: CONNECT_LIMIT, silence: SILENCE_LIMIT }
    }
}

struct Shared {
    target: Target,
    limits: Limits,
    patience: Duration,
    control: Line,
    forwards: Line,
}

/// Room for one connection.
struct Line {
    live: AsyncMutex<Option<Arc<Live>>>,
    sessions: Arc<Semaphore>,
}

/// One connection that was made and let us in.
pub(super) struct Live {
    pub(super) handle: Handle<Watch>,
    /// Commands whose callers went away are ended one after the other, for want of sessions.
    pub(super) ending: AsyncMutex<()>,
    why_it_ended: Arc<Mutex<Option<String>>>,
}

impl Ssh {
    pub fn new(target: Target) -> Ssh {
        Ssh::with_limits(target, Limits::default())
    }

    /// For a host of which it is known how long it may take to answer.
    pub fn with_connect_limit(target: Target, connect: Duration) -> Ssh {
        Ssh::with_limits(target, Limits { connect, ..Limits::default() })
    }

    pub fn with_limits(target: Target, limits: Limits) -> Ssh {
        Ssh::made(target, limits, PATIENCE)
    }

    /// The same host over connections of its own: what is sent there cannot hold this one up.
    pub fn apart(&self) -> Ssh {
        Ssh::made(self.shared.target.clone(), self.shared.limits, PATIENCE_APART)
    }

    fn made(target: Target, limits: Limits, patience: Duration) -> Ssh {
        Ssh { shared: Arc::new(Shared { target, limits, patience, control: Line::new(), forwards: Line::new() }) }
    }

    pub fn target(&self) -> &Target {
        &self.shared.target
    }

    /// Connects now, if that has not happened yet. Says whether the host is there and lets us in.
    pub async fn connect(&self) -> Result<(), SshError> {
        self.live(&self.shared.control).await.map(drop)
    }

    /// Starts a command line on the host. The caller quotes it.
    pub(in crate::clients) async fn session(&self, command: String) -> Result<Session, SshError> {
        let line = &self.shared.control;
        let permit = line.sessions.clone().acquire_owned().await.expect("the semaphore is never closed");
        let live = self.live(line).await?;
        match Session::open(live, command.clone(), permit, self.shared.patience).await {
            // The connection had died unnoticed; nothing has reached the host yet.
            Err((SshError::Broken { .. }, permit, false)) => {
                let live = self.live(line).await?;
                Session::open(live, command, permit, self.shared.patience).await.map_err(|(error, _, _)| error)
            }
            result => result.map_err(|(error, _, _)| error),
        }
    }

    /// A connection for forwards.
    pub(super) async fn forwards(&self) -> Result<Arc<Live>, SshError> {
        self.live(&self.shared.forwards).await
    }

    /// The connection of this line: the one there is, or a new one. Whoever else wants it waits meanwhile.
    async fn live(&self, line: &Line) -> Result<Arc<Live>, SshError> {
        let mut slot = line.live.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| !live.handle.is_closed()) {
            return Ok(live.clone());
        }
        *slot = None;
        let live = Arc::new(connect(&self.shared.target, self.shared.limits).await?);
        *slot = Some(live.clone());
        Ok(live)
    }
}

impl fmt::Debug for Ssh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ssh({}@{})", self.shared.target.user, self.shared.target.address)
    }
}

impl Line {
    fn new() -> Line {
        Line { live: AsyncMutex::new(None), sessions: Arc::new(Semaphore::new(SESSIONS_AT_ONCE)) }
    }
}

impl Live {
    /// The error for something that this connection did not live to finish.
    pub(super) fn broken(&self, what: &str) -> SshError {
        let why = self.why_it_ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        SshError::Broken { what: what.into(), why: why.unwrap_or_else(|| "the host closed it".into()) }
    }
}

/// The key that a host shows to anybody. Nothing is proved by it; somebody must compare the fingerprint.
pub async fn scan(address: SocketAddr) -> Result<ScannedKey, SshError> {
    let limits = Limits::default();
    let wire = Wire::open(address, limits).await?;
    let (watch, seen) = Watch::new(None);
    let cut = wire.cut_on_drop();
    let result = timeout(limits.connect, client::connect_stream(config(None, limits), wire.stream, watch)).await;
    drop(cut);
    let key = seen.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match (key, result) {
        (Some(key), _) => Ok(ScannedKey::of(&key)),
        (None, Err(_)) => Err(no_answer(address, limits.connect)),
        (None, Ok(Err(error))) => Err(handshake_error(address, None, error)),
        (None, Ok(Ok(_))) => Err(unreachable(address, "it showed no host key")),
    }
}

async fn connect(target: &Target, limits: Limits) -> Result<Live, SshError> {
    let address = target.address;
    let wire = Wire::open(address, limits).await?;
    let (watch, seen) = Watch::new(Some(target.host_key.clone()));
    let cut = wire.cut_on_drop();
    let greeting = async {
        let config = config(target.host_key.algorithm(), limits);
        let connected = client::connect_stream(config, wire.stream, watch).await;
        let mut handle = connected.map_err(|error| {
            let found = seen.key.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match found.filter(|found| !target.host_key.accepts(found)) {
                Some(found) => wrong_key(target, fingerprint(&found)),
                None => handshake_error(address, Some(&target.host_key), error),
            }
        })?;
        let key = PrivateKeyWithHashAlg::new(target.key.private(), None);
        let answer = handle.authenticate_publickey(&target.user, key).await;
        match answer {
            Ok(russh::client::AuthResult::Success) => Ok(handle),
            Ok(russh::client::AuthResult::Failure { .. }) => {
                Err(SshError::Denied { address, user: target.user.clone() })
            }
            Err(error) => Err(unreachable(address, format!("it hung up while it looked at the key ({error})"))),
        }
    };
    let handle = timeout(limits.connect, greeting).await.unwrap_or_else(|_| Err(no_answer(address, limits.connect)))?;
    cut.disarm();
    Ok(Live { handle, ending: AsyncMutex::new(()), why_it_ended: seen.why.clone() })
}

fn config(host_key: Option<Algorithm>, limits: Limits) -> Arc<client::Config> {
    Arc::new(client::Config {
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        keepalive_interval: Some(limits.silence / u32::from(KEEPALIVES_MISSED + 1)),
        keepalive_max: KEEPALIVES_MISSED.into(),
        preferred: Preferred {
            key: match host_key {
                Some(one) => Cow::Owned(vec![one]),
                None => Cow::Borrowed(HOST_KEYS),
            },
            cipher: Cow::Borrowed(CIPHERS),
            compression: Cow::Borrowed(COMPRESSIONS),
            ..Preferred::DEFAULT
        },
        ..client::Config::default()
    })
}

fn unreachable(address: SocketAddr, why: impl Into<String>) -> SshError {
    SshError::Unreachable { address, why: why.into() }
}

fn no_answer(address: SocketAddr, limit: Duration) -> SshError {
    unreachable(address, format!("no answer within {} s", limit.as_secs_f32()))
}

fn wrong_key(target: &Target, found: String) -> SshError {
    SshError::WrongHostKey { address: target.address, expected: target.host_key.fingerprint(), found }
}

fn handshake_error(address: SocketAddr, pin: Option<&Pin>, error: russh::Error) -> SshError {
    match error {
        russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, theirs, .. } => {
            let usable = theirs.iter().any(|one| HOST_KEYS.iter().any(|key| key.as_str() == one));
            match pin {
                Some(pin) if usable => SshError::WrongHostKey {
                    address,
                    expected: pin.fingerprint(),
                    found: format!("one of another kind ({})", theirs.join(", ")),
                },
                _ => SshError::NoUsableHostKey { address, offered: theirs.join(", ") },
            }
        }
        error => unreachable(address, error.to_string()),
    }
}

/// Looks at the host's key and remembers why the connection ended.
pub(super) struct Watch {
    pin: Option<Pin>,
    seen: Arc<Seen>,
}

struct Seen {
    key: Mutex<Option<PublicKey>>,
    why: Arc<Mutex<Option<String>>>,
}

impl Watch {
    fn new(pin: Option<Pin>) -> (Watch, Arc<Seen>) {
        let seen = Arc::new(Seen { key: Mutex::new(None), why: Arc::default() });
        (Watch { pin, seen: seen.clone() }, seen)
    }
}

impl client::Handler for Watch {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        *self.seen.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(self.pin.as_ref().is_some_and(|pin| pin.accepts(key)))
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> Result<(), russh::Error> {
        let why = match reason {
            DisconnectReason::ReceivedDisconnect(info) => format!("the host said: {}", info.message),
            DisconnectReason::Error(russh::Error::Disconnect) => "the host closed it".into(),
            DisconnectReason::Error(russh::Error::KeepaliveTimeout) => "the host has fallen silent".into(),
            DisconnectReason::Error(error) => error.to_string(),
        };
        *self.seen.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        Ok(())
    }
}

/// A TCP connection that can be cut from outside. The SSH library's task lives on when nobody waits for its handshake
/// any more, and a host that never finishes one would keep it for ever.
struct Wire {
    stream: CuttableStream,
    cut: CancellationToken,
}

struct CuttableStream {
    tcp: TcpStream,
    cut: Pinned<Box<WaitForCancellationFutureOwned>>,
}

/// Cuts the wire unless the connection was completed.
struct CutOnDrop(Option<CancellationToken>);

impl CutOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cut) = self.0.take() {
            cut.cancel();
        }
    }
}

impl Wire {
    async fn open(address: SocketAddr, limits: Limits) -> Result<Wire, SshError> {
        let connecting = timeout(limits.connect, TcpStream::connect(address)).await;
        let tcp = connecting.map_err(|_| no_answer(address, limits.connect))?;
        let tcp = tcp.map_err(|error| unreachable(address, error.to_string()))?;
        tcp.set_nodelay(true).map_err(|error| unreachable(address, error.to_string()))?;
        // While a connection is stuck in the middle of sending, no keepalive can be sent either: the kernel counts.
        let silence_ms = u32::try_from(limits.silence.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(&tcp, silence_ms)
            .map_err(|error| unreachable(address, error.to_string()))?;
        let cut = CancellationToken::new();
        Ok(Wire { stream: CuttableStream { tcp, cut: Box::pin(cut.clone().cancelled_owned()) }, cut })
    }

    fn cut_on_drop(&self) -> CutOnDrop {
        CutOnDrop(Some(self.cut.clone()))
    }
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pinned<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        Pinned::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(mut self: Pinned<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::ConnectionAborted.into()));
        }
        Pinned::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pinned::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pinned<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pinned::new(&mut self.tcp).poll_shutdown(cx)
    }
}
