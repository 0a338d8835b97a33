//! Lets one caller at a time do the work of a key, so that the others find it done.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

type Gate = Arc<tokio::sync::Mutex<()>>;

/// Who works on what. Clones share it.
pub(super) struct Turns<K: Hash + Eq>(Arc<Mutex<HashMap<K, Gate>>>);

impl<K: Hash + Eq> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Hash + Eq> Default for Turns<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A turn; the next caller's begins when it is dropped.
pub(super) struct Turn<K: Hash + Eq> {
    // Before the ticket: the gate opens first, then the ticket looks whether anybody else waits.
    _open: OwnedMutexGuard<()>,
    _ticket: Ticket<K>,
}

struct Ticket<K: Hash + Eq> {
    key: K,
    gate: Gate,
    turns: Turns<K>,
}

impl<K: Hash + Eq + Clone> Turns<K> {
    /// Waits for the turn on `key`.
    pub(super) async fn take(&self, key: K) -> Turn<K> {
        let gate = Arc::clone(self.0.lock().entry(key.clone()).or_default());
        let ticket = Ticket { key, gate, turns: self.clone() };
        let open = Arc::clone(&ticket.gate).lock_owned().await;
        Turn { _open: open, _ticket: ticket }
    }
}

impl<K: Hash + Eq> Drop for Ticket<K> {
    fn drop(&mut self) {
        let mut gates = self.turns.0.lock();
        // The map's and ours: nobody else came meanwhile, and nobody can while the map is locked.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn turns_follow_each_other_and_leave_nothing() {
        let turns = Turns::<u8>::default();
        let first = turns.take(1).await;
        let other = turns.take(2).await;
        let gave_up = tokio::time::timeout(Duration::from_millis(10), turns.take(1)).await;
        assert!(gave_up.is_err());
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take(1).await) }
        });
        tokio::task::yield_now().await;
        drop((first, other));
        waiting.await.unwrap();
        assert!(turns.0.lock().is_empty());
    }
}
