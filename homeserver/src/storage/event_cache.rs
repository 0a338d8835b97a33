//! Keeps the newest events in memory, so that a woken reader needs no query for what it is woken for.
//!
//! Whoever appends an event puts it here *before* it is committed: the commit wakes readers, and they look here first.
//! An event whose commit fails stays behind harmlessly, because no change ever names its number. A reader that learns
//! of a redaction ([`crate::stream::Change::Redaction`]) calls [`EventCache::forget`] before it looks anything up.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedTransactionId};

use crate::rules::pdu::Pdu;

/// Bytes of event text that are kept.
const KEPT_BYTES: usize = 16 * 1024 * 1024;
/// What an event costs beside its text: ids, table entries, allocations. Measured roughly, meant to bound.
const OVERHEAD: usize = 1024;

/// An accepted event as readers need it.
#[derive(Clone, Debug)]
pub struct CachedEvent {
    pub event_nid: i64,
    pub room_nid: i64,
    /// The room's local order; `None` for an outlier, which only states hold.
    pub position: Option<i64>,
    /// The state before the event.
    pub state_nid: Option<i64>,
    /// The event that redacted this one.
    pub redacted_by: Option<OwnedEventId>,
    /// The request that made the event, when a local device sent it and this shard served it.
    pub transaction: Option<Transaction>,
    pub pdu: Pdu,
}

/// Which request of which device made an event: only that device is told the transaction id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub user_nid: i64,
    pub device_id: String,
    pub txn_id: OwnedTransactionId,
}

impl Transaction {
    /// Whether that device made it.
    pub fn is_of(&self, user_nid: i64, device_id: &str) -> bool {
        self.user_nid == user_nid && self.device_id == device_id
    }
}

/// The newest events by number. Clones share the memory.
#[derive(Clone, Default)]
pub struct EventCache {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    events: HashMap<i64, Arc<CachedEvent>>,
    /// In order of arrival, which is nearly the order in which readers are done with them.
    arrivals: VecDeque<i64>,
    bytes: usize,
}

impl EventCache {
    /// Keeps an event until newer ones need its place.
    pub fn put(&self, event: CachedEvent) -> Arc<CachedEvent> {
        let event = Arc::new(event);
        let mut kept = self.kept.lock();
        kept.bytes += cost(&event);
        match kept.events.insert(event.event_nid, event.clone()) {
            Some(replaced) => kept.bytes -= cost(&replaced),
            None => kept.arrivals.push_back(event.event_nid),
        }
        while kept.bytes > KEPT_BYTES {
            let Some(oldest) = kept.arrivals.pop_front() else { break };
            kept.remove(oldest);
        }
        event
    }

    /// The event of this number, if it is kept.
    pub fn get(&self, event_nid: i64) -> Option<Arc<CachedEvent>> {
        self.kept.lock().events.get(&event_nid).cloned()
    }

    /// Lets go of an event that is no longer what it was.
    pub fn forget(&self, event_nid: i64) {
        let mut kept = self.kept.lock();
        if kept.remove(event_nid) {
            kept.arrivals.retain(|arrived| *arrived != event_nid);
        }
    }
}

impl Kept {
    fn remove(&mut self, event_nid: i64) -> bool {
        let removed = self.events.remove(&event_nid);
        self.bytes -= removed.as_deref().map_or(0, cost);
        removed.is_some()
    }
}

fn cost(event: &CachedEvent) -> usize {
    event.pdu.json().len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rules::room_version::RoomVersion;

    fn event(event_nid: i64, body: &str) -> CachedEvent {
        let json = json!({
            "auth_events": [], "content": { "body": body }, "depth": 1, "hashes": { "sha256": "" },
            "origin_server_ts": 1, "prev_events": [], "room_id": "!r:example.org", "sender": "@a:example.org",
            "signatures": {}, "type": "m.room.message",
        });
        let event_id = OwnedEventId::try_from(format!("$event{event_nid}")).unwrap();
        let pdu = Pdu::from_stored(event_id, RoomVersion::V11, json.to_string()).unwrap();
        CachedEvent {
            event_nid,
            room_nid: 1,
            position: Some(event_nid),
            state_nid: None,
            redacted_by: None,
            transaction: None,
            pdu,
        }
    }

    #[test]
    fn the_oldest_make_room_for_the_newest() {
        let cache = EventCache::default();
        let body = "x".repeat(60_000);
        for event_nid in 1..=500 {
            cache.put(event(event_nid, &body));
        }
        assert!(cache.get(1).is_none());
        assert!(cache.get(500).is_some());
        let kept = cache.kept.lock();
        assert!(kept.bytes <= KEPT_BYTES);
        assert_eq!(kept.events.len(), kept.arrivals.len());
        assert_eq!(kept.bytes, kept.events.values().map(|event| cost(event)).sum::<usize>());
    }

    #[test]
    fn what_is_put_again_replaces_and_what_is_forgotten_is_gone() {
        let cache = EventCache::default();
        cache.put(event(1, "before"));
        cache.put(event(1, "after"));
        assert!(cache.get(1).is_some_and(|event| event.pdu.content_json().contains("after")));
        cache.forget(1);
        assert!(cache.get(1).is_none());
        assert_eq!(cache.kept.lock().bytes, 0);
        assert!(cache.kept.lock().arrivals.is_empty());
    }
}
