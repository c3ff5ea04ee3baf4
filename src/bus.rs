//! "Job 42 changed": a nudge to look again, never the truth. Who misses one loses nothing but a little time.

use crate::model::{JobId, ServerId};
use tokio::sync::broadcast;

/// Nudges that a slow listener may fall behind before it is told to look at everything.
const BACKLOG: usize = 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nudge {
    Job(JobId),
    Server(ServerId),
    /// A notice waits to be told.
    Notice,
}

#[derive(Clone, Debug)]
pub struct Bus {
    sender: broadcast::Sender<Nudge>,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus { sender: broadcast::channel(BACKLOG).0 }
    }
}

impl Bus {
    pub fn nudge(&self, nudge: Nudge) {
        // An error means that nobody listens, which is fine: the store is the truth.
        let _ = self.sender.send(nudge);
    }

    pub fn listen(&self) -> Listener {
        Listener { receiver: self.sender.subscribe() }
    }
}

pub struct Listener {
    receiver: broadcast::Receiver<Nudge>,
}

impl Listener {
    /// The next nudge; `None` means that some were missed and everything has to be looked at.
    /// Ends with `Err` when the program ends.
    pub async fn next(&mut self) -> Result<Option<Nudge>, Closed> {
        match self.receiver.recv().await {
            Ok(nudge) => Ok(Some(nudge)),
            Err(broadcast::error::RecvError::Lagged(_)) => Ok(None),
            Err(broadcast::error::RecvError::Closed) => Err(Closed),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Closed;
