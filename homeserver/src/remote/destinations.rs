//! Decides when a server that failed is asked again; all shards remember the same, and a restart forgets nothing.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use tokio::sync::broadcast;

pub use crate::storage::destinations::Failing;
use crate::storage::{Db, DbError, destinations as table};

/// How long a server rests after its first failure in a row; doubled with each further one.
const FIRST_REST_MS: u64 = 2_000;
/// How long it rests at most.
const LONGEST_REST_MS: u64 = 6 * 60 * 60 * 1000;
/// How long this shard believes what it last read of a server, in case another shard learned better.
const BELIEVED_MS: u64 = 10_000;
/// Servers that are remembered in memory.
const REMEMBERED: usize = 10_000;
/// Wake-ups that a slow listener may miss.
const WAKE_UPS: usize = 1_024;

/// The shared memory of dead servers. Clones share it.
#[derive(Clone)]
pub struct Destinations {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    clock: Arc<dyn Clock>,
    /// What was last read or written of a server, and when.
    known: Mutex<HashMap<OwnedServerName, (Option<Failing>, u64)>>,
    alive: broadcast::Sender<OwnedServerName>,
}

impl Destinations {
    pub fn new(db: Db, clock: Arc<dyn Clock>) -> Self {
        let alive = broadcast::Sender::new(WAKE_UPS);
        Self { shared: Arc::new(Shared { db, clock, known: Mutex::default(), alive }) }
    }

    /// Names servers as soon as they are known to be alive again.
    pub fn subscribe(&self) -> broadcast::Receiver<OwnedServerName> {
        self.shared.alive.subscribe()
    }

    /// How long the server still rests; zero when it may be asked.
    pub async fn rest(&self, server_name: &ServerName) -> Duration {
        let retry_after = self.state(server_name).await.map_or(0, |failing| failing.retry_after);
        Duration::from_millis(retry_after.saturating_sub(self.now_ms()))
    }

    /// Whether the server failed and is not to be asked yet.
    pub async fn is_backing_off(&self, server_name: &ServerName) -> bool {
        !self.rest(server_name).await.is_zero()
    }

    /// The server answered.
    pub async fn succeeded(&self, server_name: &ServerName) {
        if self.state(server_name).await.is_some() {
            self.revive(server_name).await;
        }
    }

    /// The server spoke to us: it is alive, so it is worth asking at once.
    pub async fn heard_from(&self, server_name: &ServerName) {
        self.succeeded(server_name).await;
    }

    /// A call that began at `started` failed. Calls that were under way together count as one failure.
    pub(super) async fn failed(&self, server_name: &ServerName, started: u64) {
        let now = self.now_ms();
        let before = self.state(server_name).await;
        // Another call failed after this one began.
        if before.is_some_and(|failing| started <= failing.retry_after.saturating_sub(failing.rest_ms)) {
            return;
        }
        let rest_ms = before.map_or(FIRST_REST_MS, |failing| failing.rest_ms.saturating_mul(2).min(LONGEST_REST_MS));
        let failing = Failing {
            failing_since: before.map_or(now, |failing| failing.failing_since),
            retry_after: now.saturating_add(rest_ms),
            rest_ms,
        };
        tracing::debug!(server = %server_name, rest_ms, "a server cannot be reached");
        self.remember(server_name, Some(failing));
        if let Err(error) = table::upsert(&self.shared.db, server_name, failing).await {
            warn(&error);
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    async fn revive(&self, server_name: &ServerName) {
        self.remember(server_name, None);
        if let Err(error) = table::delete(&self.shared.db, server_name).await {
            warn(&error);
        }
        tracing::debug!(server = %server_name, "a server is alive again");
        // Nobody may be listening, which is fine.
        let _ = self.shared.alive.send(server_name.to_owned());
    }

    async fn state(&self, server_name: &ServerName) -> Option<Failing> {
        let now = self.now_ms();
        if let Some((state, read_at)) = self.shared.known.lock().get(server_name)
            && now.saturating_sub(*read_at) < BELIEVED_MS
        {
            return *state;
        }
        match table::find(&self.shared.db, server_name).await {
            Ok(state) => {
                self.remember(server_name, state);
                state
            }
            Err(error) => {
                warn(&error);
                None
            }
        }
    }

    fn remember(&self, server_name: &ServerName, state: Option<Failing>) {
        let mut known = self.shared.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(server_name.to_owned(), (state, self.now_ms()));
    }
}

/// The memory is a courtesy: without it servers are asked more often than they should be, and nothing is lost.
fn warn(error: &DbError) {
    tracing::warn!(error = error as &dyn std::error::Error, "cannot read or write what is known of dead servers");
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::clock::TurnedClock;
    use ruma::server_name;

    use super::*;
    use crate::storage::DbConfig;

    async fn open(folder: &std::path::Path) -> Db {
        Db::open(&DbConfig::Sqlite { path: folder.join("db"), readers: 1 }).await.unwrap()
    }

    #[tokio::test]
    async fn rests_double_survive_a_restart_and_end_when_the_server_speaks() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TurnedClock::at_ms(1_000_000));
        let peer = server_name!("peer.test");
        let db = open(folder.path()).await;
        let destinations = Destinations::new(db.clone(), clock.clone());
        assert!(!destinations.is_backing_off(peer).await);
        destinations.failed(peer, 1_000_000).await;
        assert_eq!(destinations.rest(peer).await, Duration::from_secs(2));
        // A second call that was under way at the same time.
        destinations.failed(peer, 1_000_000).await;
        assert_eq!(destinations.rest(peer).await, Duration::from_secs(2));
        clock.advance(Duration::from_secs(2));
        assert!(!destinations.is_backing_off(peer).await);
        destinations.failed(peer, clock.now_ms()).await;

        let after_restart = Destinations::new(db, clock.clone());
        assert_eq!(after_restart.rest(peer).await, Duration::from_secs(4));
        let mut alive = after_restart.subscribe();
        after_restart.heard_from(peer).await;
        assert_eq!(alive.try_recv().unwrap(), peer);
        assert!(!after_restart.is_backing_off(peer).await);
    }
}
