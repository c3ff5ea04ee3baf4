//! What is seen of servers: who looks, how long that may take, and what is kept of it for showing.

use super::Engine;
use crate::bus::Nudge;
use crate::model::server::{Backend, Owned, Seen, Server};
use crate::model::{Ms, ServerId};
use futures::FutureExt;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A driver that does not answer in this time has not looked: everything it was asked about is unknown.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct Looks {
    /// What was last seen of each server. A cache for showing; decisions look again.
    board: Mutex<HashMap<ServerId, (Ms, Seen)>>,
    turns: Mutex<HashMap<ServerId, Arc<Turn>>>,
}

/// Looks at one server, one after the other.
#[derive(Default)]
struct Turn {
    /// How many have begun.
    begun: AtomicU64,
    last: tokio::sync::Mutex<Option<Look>>,
}

struct Look {
    number: u64,
    /// What was looked for.
    backend: Backend,
    owned: Owned,
    seen: Seen,
}

impl Looks {
    fn turn(&self, id: &ServerId) -> Arc<Turn> {
        Arc::clone(self.turns.lock().expect("no holder of this lock can panic").entry(id.clone()).or_default())
    }
}

impl Engine {
    /// What was last seen of a server, and when.
    pub fn last_seen(&self, id: &ServerId) -> Option<(Ms, Seen)> {
        self.inner.looks.board.lock().expect("no holder of this lock can panic").get(id).cloned()
    }

    /// Looks now, and remembers. Whoever has to wait for another look at the server shares one with all who wait: it
    /// begins after each of them asked.
    pub async fn look(&self, server: &Server) -> Seen {
        let turn = self.inner.looks.turn(&server.id);
        let begun = turn.begun.load(Ordering::SeqCst);
        // Whoever looks now may hang.
        let Ok(mut last) = tokio::time::timeout(LOOK_LIMIT, turn.last.lock()).await else {
            return Seen::Unknown { why: "looking took too long".to_owned() };
        };
        let same = |look: &&Look| look.backend == server.backend && look.owned == server.owned;
        if let Some(look) = last.as_ref().filter(|look| look.number > begun).filter(same) {
            return look.seen.clone();
        }
        let number = turn.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut seen = self.look_at_all(server.backend, std::slice::from_ref(server)).await;
        let seen = seen.pop().expect("one answer for each server");
        self.remember(&server.id, &seen);
        let (backend, owned) = (server.backend, server.owned.clone());
        *last = Some(Look { number, backend, owned, seen: seen.clone() });
        seen
    }

    /// Asks a driver about its servers. Whatever is wrong with it, there is an answer for each, and soon.
    pub(super) async fn look_at_all(&self, backend: Backend, servers: &[Server]) -> Vec<Seen> {
        let unknown = |why: &str| vec![Seen::Unknown { why: why.to_owned() }; servers.len()];
        let Some(driver) = self.driver(backend) else {
            return unknown(&format!("the {} backend is not set up here", backend.word()));
        };
        let look = AssertUnwindSafe(driver.look(servers)).catch_unwind();
        match tokio::time::timeout(LOOK_LIMIT, look).await {
            Ok(Ok(seen)) if seen.len() == servers.len() => seen,
            Ok(Ok(_)) => unknown("the driver did not answer for every server"),
            Ok(Err(_)) => unknown("Spawnpoint made a mistake when it looked; the log has the details"),
            Err(_) => unknown("looking took too long"),
        }
    }

    /// Keeps what was seen; nudges the fronts when it is news.
    pub(crate) fn remember(&self, id: &ServerId, seen: &Seen) {
        let before = {
            let mut board = self.inner.looks.board.lock().expect("no holder of this lock can panic");
            board.insert(id.clone(), (self.now(), seen.clone()))
        };
        let same = before.is_some_and(|(_, before)| shown(&before) == shown(seen));
        if !same {
            self.inner.bus.nudge(Nudge::Server(id.clone()));
        }
    }
}

/// The part of what was seen that people are shown; latency changes at every look and is no news.
fn shown(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    if let Seen::Running { players } = &mut seen {
        players.latency_ms = None;
    }
    seen
}
