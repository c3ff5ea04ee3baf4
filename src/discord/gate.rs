//! The gate before Discord's gateway: every connection passes it, and not too often. Discord lets a bot identify 1000
//! times in 24 hours; who does so more often loses all sessions and the token
//! (<https://discord.com/developers/docs/events/gateway>). serenity identifies anew every five seconds for as long as
//! it is dropped, and knows nothing of that.
//!
//! It reads the gateway's address under a lock before each connection, so whoever holds the lock holds serenity.
//! `connect` opens the gate; how often is decided here.

use poise::serenity_prelude as serenity;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

/// So many connections may follow each other as fast as serenity likes: a bad minute of Discord's is over soon.
const QUICK: u64 = 20;
/// After these there is one more in so much time. Both together are 884 in a day, also where none of them can be
/// resumed; what is left of the 1000 is for starts of this program.
const EVERY: Duration = Duration::from_secs(100);
/// What is left of an older connection is looked for so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How many connections may be made. Resumed ones count as well: from here they look like the others.
pub struct Allowance {
    quick: u64,
    /// The quick ones grew until then.
    since: Instant,
    /// So many sessions may be begun before Discord is asked again how many remain.
    sessions: u64,
}

impl Allowance {
    pub fn new(now: Instant) -> Allowance {
        Allowance { quick: QUICK, since: now, sessions: 0 }
    }

    /// Discord was asked.
    pub fn told(&mut self, sessions: u64) {
        self.sessions = sessions;
    }

    /// When there is to be asked again, if no further connection may be made before.
    pub fn spent(&mut self, now: Instant) -> Option<Instant> {
        while self.since + EVERY <= now {
            self.since += EVERY;
            self.quick = (self.quick + 1).min(QUICK);
        }
        match (self.quick, self.sessions) {
            (0, _) => Some(self.since + EVERY),
            (_, 0) => Some(now),
            _ => None,
        }
    }

    /// A connection is made.
    pub fn take(&mut self) {
        self.quick = self.quick.saturating_sub(1);
        self.sessions = self.sessions.saturating_sub(1);
    }
}

pub struct Gate {
    lock: Arc<Mutex<String>>,
    held: Option<OwnedMutexGuard<String>>,
}

impl Gate {
    /// Shuts the gate of a client that was not started yet.
    pub async fn shut(client: &serenity::Client, address: String) -> Gate {
        let mut gate = Gate { lock: client.ws_url.clone(), held: None };
        gate.leads_to(address).await;
        gate
    }

    async fn hold(&mut self) -> &mut OwnedMutexGuard<String> {
        let held = match self.held.take() {
            Some(held) => held,
            None => self.lock.clone().lock_owned().await,
        };
        self.held.insert(held)
    }

    pub async fn leads_to(&mut self, address: String) {
        **self.hold().await = address;
    }

    /// Opens for whoever stands before it, and says whether somebody passed. With one shard there is never a second.
    pub async fn turn(&mut self) -> bool {
        self.held = None;
        // The lock goes to those who wait in their order, so who waits has it before it can be taken back.
        self.held = self.lock.clone().try_lock_owned().ok();
        let passed = self.held.is_none();
        self.hold().await;
        passed
    }

    /// Holds the gate, which leads nowhere now, until what serenity left running has ended. If it connected again, it
    /// would be a second bot of the same name.
    pub async fn retire(self, shards: Arc<serenity::ShardManager>) {
        // serenity's tasks hold the manager for as long as they run.
        while Arc::strong_count(&shards) > 1 {
            // Where no shard runs, `shutdown_all` tells nobody. Who stands at the gate then stands there for good.
            let told = shards.runners.try_lock().is_ok_and(|runners| !runners.is_empty());
            shards.shutdown_all().await;
            if told {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    /// serenity's own pace while it is dropped.
    const AGAIN: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn who_is_dropped_all_day_connects_less_often_than_discord_allows() {
        let start = Instant::now();
        let (mut allowance, mut now, mut connections) = (Allowance::new(start), start, 0);
        while now < start + DAY {
            match allowance.spent(now) {
                Some(_) if allowance.sessions == 0 => allowance.told(1000),
                Some(asks) => now = asks,
                None => {
                    allowance.take();
                    connections += 1;
                    now += AGAIN;
                }
            }
        }
        assert!((800..900).contains(&connections), "{connections}");
    }

    #[tokio::test]
    async fn no_more_connections_are_made_than_discord_has_said() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        assert_eq!(allowance.spent(now), Some(now), "nobody has asked yet");
        allowance.told(2);
        for _ in 0..2 {
            assert_eq!(allowance.spent(now), None);
            allowance.take();
        }
        assert_eq!(allowance.spent(now), Some(now));
    }

    #[tokio::test]
    async fn an_hour_without_trouble_gives_the_quick_ones_back() {
        let now = Instant::now();
        let mut allowance = Allowance::new(now);
        allowance.told(1000);
        (0..QUICK).for_each(|_| allowance.take());
        assert_eq!(allowance.spent(now), Some(now + EVERY));
        assert_eq!(allowance.spent(now + EVERY), None);
        allowance.spent(now + Duration::from_secs(60 * 60));
        assert_eq!(allowance.quick, QUICK);
    }

    #[tokio::test]
    async fn who_waits_passes_at_the_next_turn_and_is_counted() {
        let lock = Arc::new(Mutex::new(String::new()));
        let mut gate = Gate { lock: lock.clone(), held: None };
        gate.leads_to("wss://there".to_owned()).await;
        assert!(!gate.turn().await, "nobody is there");
        for _ in 0..2 {
            let lock = lock.clone();
            let connection = tokio::spawn(async move { lock.lock().await.clone() });
            tokio::task::yield_now().await;
            assert!(!connection.is_finished(), "the gate is shut");
            assert!(gate.turn().await);
            assert_eq!(connection.await.expect("it does not panic"), "wss://there");
        }
        assert!(!gate.turn().await);
    }
}
