//! Answers a woken sync from memory: new messages in joined rooms, and nothing else.
//!
//! Whatever is not plain goes to [`super::gather`]: states (they replace others and change summaries), redactions, more
//! events than the limit, senders whom a lazily loading device does not know yet, counts that are not in memory.
//!
//! All events here came while the user was joined, so all of them may be seen.

use std::{collections::HashMap, sync::Arc};

use super::{
    Look, ReadError, SyncRequest, SyncToken, Syncer,
    answer::push_counts,
    filter::LazyLoading,
    memory::{Joined, Memory},
    scope::Touched,
    unread::{Personal, RoomFacts},
    write::{Extras, Object},
};
use crate::{
    rules::pdu::ClientFormat,
    storage::{event_cache::CachedEvent, timeline},
    stream::Positions,
};

/// The events of one room that an answer consists of.
struct RoomNews<'a> {
    room_nid: i64,
    room_id: &'a str,
    /// All new events.
    all: Vec<Arc<CachedEvent>>,
    /// Those of them that the filter lets through.
    shown: Vec<Arc<CachedEvent>>,
}

impl Syncer {
    /// `None` when this is not for the fast way.
    pub(super) async fn fast(
        &self,
        request: &SyncRequest<'_>,
        since: &Positions,
        touched: &Touched,
        upto: &Positions,
    ) -> Result<Option<Look>, ReadError> {
        let Some(events) = self.events_at_hand(touched).await? else { return Ok(None) };
        let parts = &self.shared.parts;
        let (facts, _) = self.shared.facts.of(touched.rooms.keys().copied(), &parts.stream, &parts.events);
        let memory = self.shared.memories.of(request.user_nid);
        let mut memory = memory.lock();
        let (Some(joined), Some(personal)) = (memory.joined.clone(), memory.personal.clone()) else { return Ok(None) };
        let Some(keys) = memory.key_counts.get(request.device_id).cloned() else { return Ok(None) };
        let Some(news) = sort_out(request, touched, &events, &joined, &personal) else { return Ok(None) };
        if !knows_senders(request, since, &memory, &news) || !can_count(&memory, &facts, &news) {
            return Ok(None);
        }
        count(request, &mut memory, &facts, &personal, &news, &events);
        if news.iter().all(|room| room.shown.is_empty()) {
            return Ok(Some(Look::Nothing(SyncToken { positions: upto.clone(), to_device_upto: None })));
        }
        let answer = write_answer(request, self.now_ms(), upto, &memory, &news, &keys);
        Ok(Some(Look::Answer(answer)))
    }

    /// The new events by number, from the cache or read into it. `None` when there are more than is worth it.
    async fn events_at_hand(&self, touched: &Touched) -> Result<Option<HashMap<i64, Arc<CachedEvent>>>, ReadError> {
        const WORTH_IT: usize = 100;
        let cache = &self.shared.parts.events;
        let mut events = HashMap::new();
        let mut missing = Vec::new();
        for event_nid in touched.rooms.values().flat_map(|room| room.events.iter().copied()) {
            match cache.get(event_nid) {
                Some(event) => drop(events.insert(event_nid, event)),
                None => missing.push(event_nid),
            }
            if events.len() + missing.len() > WORTH_IT {
                return Ok(None);
            }
        }
        if !missing.is_empty() {
            let stmt = timeline::by_nids(&missing);
            for placed in timeline::read_events(&self.db().query(stmt.sql, stmt.params).await?)? {
                let event = CachedEvent::clone(&placed.event);
                events.insert(event.event_nid, cache.put(event));
            }
        }
        Ok(Some(events))
    }
}

/// Puts the events in order by room. `None` when one of them is not plain.
fn sort_out<'a>(
    request: &SyncRequest<'_>,
    touched: &Touched,
    events: &HashMap<i64, Arc<CachedEvent>>,
    joined: &'a Joined,
    personal: &Personal,
) -> Option<Vec<RoomNews<'a>>> {
    let filter = &request.filter;
    let mut news = Vec::with_capacity(touched.rooms.len());
    for (room_nid, touch) in &touched.rooms {
        let room_id: &str = joined.get(room_nid)?;
        let mut all =
            touch.events.iter().map(|event_nid| events.get(event_nid).cloned()).collect::<Option<Vec<_>>>()?;
        // The log has them lane by lane; a room that two shards write to has its order in the positions.
        all.sort_by_key(|event| event.position);
        // An own event that this shard did not make may have a transaction id in the database.
        let is_plain = |event: &CachedEvent| {
            !event.pdu.is_state()
                && event.redacted_by.is_none()
                && event.pdu.event_type() != "m.room.redaction"
                && (event.pdu.sender() != request.user_id || event.transaction.is_some())
        };
        if !all.iter().all(|event| is_plain(event)) {
            return None;
        }
        let allows_room = filter.allows_room(room_id) && filter.timeline.allows_room(room_id);
        let is_shown = |event: &CachedEvent| filter.timeline.allows(&event.pdu) && !personal.hides(&event.pdu);
        let shown: Vec<_> = all.iter().filter(|event| allows_room && is_shown(event)).cloned().collect();
        if shown.len() > filter.timeline.limit() {
            return None;
        }
        news.push(RoomNews { room_nid: *room_nid, room_id, all, shown });
    }
    Some(news)
}

fn knows_senders(request: &SyncRequest<'_>, since: &Positions, memory: &Memory, news: &[RoomNews<'_>]) -> bool {
    match request.filter.lazy {
        LazyLoading::Off => true,
        LazyLoading::Redundant => news.iter().all(|room| room.shown.is_empty()),
        LazyLoading::New => {
            let known = memory.known_members.get(request.device_id);
            news.iter().all(|room| {
                room.shown.iter().all(|event| {
                    known.is_some_and(|known| known.knows(room.room_nid, event.pdu.sender().as_str(), since))
                })
            })
        }
    }
}

fn can_count(memory: &Memory, facts: &HashMap<i64, Arc<RoomFacts>>, news: &[RoomNews<'_>]) -> bool {
    news.iter().all(|room| {
        facts.contains_key(&room.room_nid)
            && memory.unread.get(&room.room_nid).is_some_and(|unread| {
                // What waits to be counted is among the new events, unless another device is further than this one.
                !unread.is_stale
                    && unread.pending().all(|event_nid| room.all.iter().any(|event| event.event_nid == event_nid))
            })
    })
}

fn count(
    request: &SyncRequest<'_>,
    memory: &mut Memory,
    facts: &HashMap<i64, Arc<RoomFacts>>,
    personal: &Personal,
    news: &[RoomNews<'_>],
    events: &HashMap<i64, Arc<CachedEvent>>,
) {
    for room in news {
        let (Some(unread), Some(facts)) = (memory.unread.get_mut(&room.room_nid), facts.get(&room.room_nid)) else {
            continue;
        };
        let pending: Vec<i64> = unread.pending().collect();
        for event in pending.iter().filter_map(|event_nid| events.get(event_nid)) {
            unread.count(event, facts, personal, request.user_id);
        }
    }
}

fn write_answer(
    request: &SyncRequest<'_>,
    now_ms: u64,
    upto: &Positions,
    memory: &Memory,
    news: &[RoomNews<'_>],
    keys: &str,
) -> String {
    let mut extras = Extras::at(now_ms);
    extras.shape = request.filter.shape.clone();
    for event in news.iter().flat_map(|room| &room.shown) {
        if let Some(transaction) = &event.transaction
            && transaction.is_of(request.user_nid, request.device_id)
        {
            extras.transactions.insert(event.pdu.event_id().to_string(), transaction.txn_id.to_string());
        }
    }
    let mut out = String::with_capacity(2048);
    let mut object = Object::open(&mut out);
    object.string("next_batch", &upto.to_string());
    object.out().push_str(keys);
    let mut rooms = Object::open(object.key("rooms"));
    let mut join = Object::open(rooms.key("join"));
    for room in news.iter().filter(|room| !room.shown.is_empty()) {
        let mut object = Object::open(join.key(room.room_id));
        let mut timeline = Object::open(object.key("timeline"));
        super::write::push_list(timeline.key("events"), &room.shown, |out, event| {
            extras.push_event(out, event, ClientFormat::Sync);
        });
        timeline.plain("limited", false);
        if let Some(position) = room.shown.first().and_then(|event| event.position) {
            timeline.string("prev_batch", &format!("t{}", position - 1));
        }
        timeline.close();
        if request.use_state_after {
            object.raw("state_after", "{\"events\":[]}");
        }
        if let Some(unread) = memory.unread.get(&room.room_nid) {
            push_counts(&mut object, unread, request.filter.separates_threads);
        }
        object.close();
    }
    join.close();
    rooms.close();
    object.close();
    out
}
