//! The TCP connection under a console whose protocol cuts it into packets.

use super::ConsoleError;
use bytes::BytesMut;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the other side may take to accept what we send.
const WRITE_TIMEOUT_S: u64 = 5;
/// Long enough to hear of a hang-up that this machine knows of already.
const HANG_UP_WAIT_MS: u64 = 1;

pub struct Wire {
    stream: TcpStream,
    /// What was read and is not yet a whole packet.
    buffer: BytesMut,
}

impl Wire {
    /// # Errors
    /// [`ConsoleError::Unreachable`], also when there is no connection within `limit`.
    pub async fn connect(address: SocketAddr, limit: Duration) -> Result<Wire, ConsoleError> {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(connected) => connected.map(Wire::over).map_err(|e| ConsoleError::Unreachable(e.to_string())),
            Err(_) => Err(ConsoleError::Unreachable("no connection in time".into())),
        }
    }

    pub fn over(stream: TcpStream) -> Wire {
        Wire { stream, buffer: BytesMut::new() }
    }

    /// # Errors
    /// [`ConsoleError::NoAnswer`] when the other side does not read; half a packet may be on its way then.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), ConsoleError> {
        match timeout(Duration::from_secs(WRITE_TIMEOUT_S), self.stream.write_all(bytes)).await {
            Ok(written) => written.map_err(|e| ConsoleError::Unreachable(e.to_string())),
            Err(_) => Err(ConsoleError::NoAnswer),
        }
    }

    /// The next packet, as `take` cuts it off what came; None when the server hung up. Safe to cancel: what was read
    /// stays here.
    ///
    /// # Errors
    /// Those of `take`, and of the connection.
    pub async fn receive<P>(
        &mut self,
        take: fn(&mut BytesMut) -> Result<Option<P>, ConsoleError>,
    ) -> Result<Option<P>, ConsoleError> {
        loop {
            if let Some(packet) = take(&mut self.buffer)? {
                return Ok(Some(packet));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) => return Err(ConsoleError::Unreachable(e.to_string())),
            }
        }
    }

    /// Whether a part of a packet came, and not yet its end.
    pub fn holds_half_a_packet(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether the server hung up since the last command: a write alone would seem to succeed. What else came is kept.
    pub async fn hung_up(&mut self) -> bool {
        let end = async { while self.stream.read_buf(&mut self.buffer).await.is_ok_and(|bytes| bytes > 0) {} };
        timeout(Duration::from_millis(HANG_UP_WAIT_MS), end).await.is_ok()
    }
}
