//! Answers what other servers ask about rooms that we are in.
//!
//! Each question is checked the same way: we are in the room, the asking server is too, and the room's access list
//! admits it. Events that the server may not see (history visibility) are redacted where the graph needs them.

use std::{
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::{Federation, ServeError};
use crate::{
    rooms::RoomState,
    rules::{
        membership::Membership,
        pdu::Pdu,
        redaction::redact,
        visibility::{HistoryVisibility, server_may_see},
    },
    storage::{
        DbError,
        events::{self, Standing, StoredEvent},
        servers,
    },
};

/// Events that one answer holds at most.
const MAX_EVENTS: usize = 100;
/// Event ids that one question names at most.
const MAX_ASKED: usize = 100;
/// Events read with one statement.
const CHUNK: usize = 500;

/// An event in answer to `GET /event`.
#[derive(Clone, Debug)]
pub struct EventWithOrigin {
    /// Who answers.
    pub server_name: OwnedServerName,
    /// When we answered, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    pub pdu: Box<RawValue>,
}

/// Events in answer to `GET /backfill`.
#[derive(Clone, Debug)]
pub struct EventsWithOrigin {
    /// Who answers.
    pub server_name: OwnedServerName,
    /// When we answered, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    pub pdus: Vec<Box<RawValue>>,
}

/// The ids of a state and of its auth chain, in answer to `GET /state_ids`.
#[derive(Debug)]
pub struct StateIds {
    pub pdu_ids: Vec<OwnedEventId>,
    pub auth_chain_ids: Vec<OwnedEventId>,
}

impl Federation {
    /// One event. Specification: `GET /_matrix/federation/v1/event/{eventId}`.
    ///
    /// # Errors
    /// [`ServeError::NotFound`] for events that we do not have, and when the server may not ask.
    pub async fn event(&self, origin: &ServerName, event_id: &EventId) -> Result<EventWithOrigin, ServeError> {
        let stored = self.parts.rooms.find_event(event_id).await?.ok_or(ServeError::NotFound)?;
        self.admit(origin, stored.pdu.room_id()).await?;
        let mut visible = self.visible_to(origin, vec![stored]).await?;
        let pdu = visible.pop().ok_or(ServeError::NotFound)?;
        Ok(EventWithOrigin { server_name: self.server_name().to_owned(), now_ms: self.now_ms(), pdu: raw(&pdu) })
    }

    /// The ids of the state before an event and of its auth chain. Who may ask is looked at for each server; the same question
    /// at the same time is worked on once, because the chain of a large room is tens of thousands of events.
    ///
    /// # Errors
    /// [`ServeError::NotFound`] when we do not know the event or the state before it, and when the server may not ask.
    pub async fn state_ids(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Arc<StateIds>, ServeError> {
        self.admit(origin, room_id).await?;
        let state_nid = self.state_nid_before(room_id, event_id).await?;
        let work = async {
            let pdu_ids = ids(&RoomState::load(&self.parts.db, state_nid).await?);
            let auth_chain = self.auth_chain(&pdu_ids).await?;
            let auth_chain_ids = auth_chain.iter().map(|pdu| pdu.event_id().to_owned()).collect();
            Ok(Arc::new(StateIds { pdu_ids, auth_chain_ids }))
        };
        self.state_ids.get(state_nid, work).await
    }

    /// The state before an event and its auth chain.
    ///
    /// # Errors
    /// As [`Self::state_ids`].
    pub async fn state(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<(Vec<Box<RawValue>>, Vec<Box<RawValue>>), ServeError> {
        self.admit(origin, room_id).await?;
        let state_nid = self.state_nid_before(room_id, event_id).await?;
        let state_ids = ids(&RoomState::load(&self.parts.db, state_nid).await?);
        let chain = self.auth_chain(&state_ids).await?;
        let state = self.read(&state_ids).await?;
        Ok((state.iter().map(raw).collect(), chain.iter().map(raw).collect()))
    }

    /// The auth chain of an event.
    ///
    /// # Errors
    /// [`ServeError::NotFound`] when we do not have the event, and when the server may not ask.
    pub async fn event_auth(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<Vec<Box<RawValue>>, ServeError> {
        self.admit(origin, room_id).await?;
        let stored = self.parts.rooms.find_event(event_id).await?.ok_or(ServeError::NotFound)?;
        if stored.pdu.room_id() != room_id {
            return Err(ServeError::NotFound);
        }
        let chain = self.auth_chain(std::slice::from_ref(&event_id.to_owned())).await?;
        Ok(chain.iter().filter(|pdu| pdu.event_id() != event_id).map(raw).collect())
    }

    /// The events from `from` backwards, newest first.
    ///
    /// # Errors
    /// When the server may not ask.
    pub async fn backfill(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        from: &[OwnedEventId],
        limit: usize,
    ) -> Result<EventsWithOrigin, ServeError> {
        self.admit(origin, room_id).await?;
        let found = self.walk_back(room_id, from, &HashSet::new(), 0, limit.min(MAX_EVENTS)).await?;
        let pdus = self.visible_to(origin, found).await?.iter().map(raw).collect();
        Ok(EventsWithOrigin { server_name: self.server_name().to_owned(), now_ms: self.now_ms(), pdus })
    }

    /// The events between `earliest` and `latest`, without both, oldest first.
    ///
    /// # Errors
    /// When the server may not ask.
    pub async fn missing_events(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<Box<RawValue>>, ServeError> {
        self.admit(origin, room_id).await?;
        let asked: Vec<OwnedEventId> = latest.iter().take(MAX_ASKED).cloned().collect();
        let newest = events::find_by_ids(&self.parts.db, asked.iter().map(|id| &**id)).await?;
        let before = newest.values().filter(|event| event.pdu.room_id() == room_id);
        let from: Vec<OwnedEventId> = before.flat_map(|event| event.pdu.prev_events().iter().cloned()).collect();
        let stop: HashSet<OwnedEventId> = earliest.iter().chain(latest).cloned().collect();
        let mut found = self.walk_back(room_id, &from, &stop, min_depth, limit.min(MAX_EVENTS)).await?;
        found.reverse();
        let visible = self.visible_to(origin, found).await?;
        Ok(visible.iter().map(raw).collect())
    }

    /// The room, if the server may ask about it.
    pub(super) async fn admit(&self, origin: &ServerName, room_id: &RoomId) -> Result<(), ServeError> {
        let room = self.parts.rooms.find(room_id).await?.filter(|room| room.is_resident).ok_or(ServeError::NotFound)?;
        if !self.is_admitted(room_id, origin).await? {
            return Err(ServeError::NotAdmitted);
        }
        if !servers::is_joined(&self.parts.db, room.room_nid, origin).await? {
            return Err(ServeError::NotInRoom);
        }
        Ok(())
    }

    /// Where the state before an event of the room is stored.
    async fn state_nid_before(&self, room_id: &RoomId, event_id: &EventId) -> Result<i64, ServeError> {
        let stored = self.parts.rooms.find_event(event_id).await?.ok_or(ServeError::NotFound)?;
        stored.state_nid.filter(|_| stored.pdu.room_id() == room_id).ok_or(ServeError::NotFound)
    }

    /// The events and everything below them by `auth_events`.
    pub(super) async fn auth_chain(&self, event_ids: &[OwnedEventId]) -> Result<Vec<Pdu>, DbError> {
        let mut chain: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut below: HashSet<OwnedEventId> = HashSet::new();
        let mut open = event_ids.to_vec();
        while !open.is_empty() {
            let found = self.read(&open).await?;
            open.clear();
            for pdu in found {
                let named = super::receive_pdu::needed_for_auth(&pdu).into_iter();
                open.extend(named.filter(|id| below.insert(id.clone()) && !chain.contains_key(id)));
                chain.insert(pdu.event_id().to_owned(), pdu);
            }
        }
        // The events themselves are part of it only where another one rests on them.
        chain.retain(|event_id, _| below.contains(event_id));
        Ok(chain.into_values().collect())
    }

    /// The events of these ids that are stored.
    pub(super) async fn read(&self, event_ids: &[OwnedEventId]) -> Result<Vec<Pdu>, DbError> {
        let mut all = Vec::with_capacity(event_ids.len());
        for chunk in event_ids.chunks(CHUNK) {
            let found = events::find_by_ids(&self.parts.db, chunk.iter().map(|id| &**id)).await?;
            all.extend(found.into_values().map(|event| event.pdu));
        }
        Ok(all)
    }

    /// Walks from some events to those before them, the deepest first, without going past `stop` or above `min_depth`.
    async fn walk_back(
        &self,
        room_id: &RoomId,
        from: &[OwnedEventId],
        stop: &HashSet<OwnedEventId>,
        min_depth: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, DbError> {
        let mut seen: HashSet<OwnedEventId> = stop.clone();
        let mut wanted: Vec<OwnedEventId> =
            from.iter().take(MAX_ASKED).filter(|id| seen.insert((*id).clone())).cloned().collect();
        let mut heap = BinaryHeap::new();
        let mut found = Vec::new();
        while found.len() < limit {
            let read = events::find_by_ids(&self.parts.db, wanted.iter().map(|id| &**id)).await?;
            wanted.clear();
            let usable = |event: &StoredEvent| {
                event.pdu.room_id() == room_id
                    && event.pdu.depth() >= min_depth
                    && event.standing != Standing::Rejected
                    && event.position.is_some()
            };
            heap.extend(read.into_values().filter(usable).map(ByDepth));
            let Some(ByDepth(event)) = heap.pop() else { break };
            wanted.extend(event.pdu.prev_events().iter().filter(|id| seen.insert((*id).clone())).cloned());
            found.push(event);
        }
        Ok(found)
    }

    /// The events as the server may see them.
    async fn visible_to(&self, origin: &ServerName, events: Vec<StoredEvent>) -> Result<Vec<Pdu>, DbError> {
        // Consecutive messages have the same state before them.
        let mut states: HashMap<i64, Seen> = HashMap::new();
        let mut visible = Vec::with_capacity(events.len());
        for event in events {
            let seen = match event.state_nid {
                Some(state_nid) => match states.get(&state_nid) {
                    Some(seen) => seen.clone(),
                    None => {
                        let seen = self.seen_in(origin, state_nid).await?;
                        states.insert(state_nid, seen.clone());
                        seen
                    }
                },
                // An outlier: state that the server can have with any state that it may ask for.
                None => Seen { visibility: HistoryVisibility::Shared, memberships: Vec::new() },
            };
            if server_may_see(&event.pdu, origin, seen.visibility, seen.memberships) {
                visible.push(event.pdu);
            } else if let Ok(redacted) = redact(&event.pdu) {
                visible.push(redacted);
            }
        }
        Ok(visible)
    }

    async fn seen_in(&self, origin: &ServerName, state_nid: i64) -> Result<Seen, DbError> {
        let state = RoomState::load(&self.parts.db, state_nid).await?;
        let of_server = |key: &str| server_of(key) == Some(origin);
        let visibility_nid = state.get("m.room.history_visibility", "").map(|entry| entry.event_nid);
        let mut nids: Vec<i64> = state
            .of_type("m.room.member")
            .filter(|(key, _)| of_server(key))
            .map(|(_, entry)| entry.event_nid)
            .collect();
        nids.extend(visibility_nid);
        let read = events::get_by_nids(&self.parts.db, &nids).await?;
        let visibility =
            HistoryVisibility::after(visibility_nid.and_then(|nid| read.get(&nid)).map(|event| &event.pdu));
        let members = read.values().filter(|event| event.pdu.event_type() == "m.room.member");
        Ok(Seen { visibility, memberships: members.filter_map(|event| Membership::of(&event.pdu)).collect() })
    }
}

/// What decides whether a server sees an event.
#[derive(Clone)]
struct Seen {
    visibility: HistoryVisibility,
    memberships: Vec<Membership>,
}

/// The server of a user id.
fn server_of(user_id: &str) -> Option<&ServerName> {
    <&ruma::UserId>::try_from(user_id).ok().map(ruma::UserId::server_name)
}

/// Orders events by depth, so that a heap gives the newest first.
struct ByDepth(StoredEvent);

impl ByDepth {
    fn key(&self) -> (u64, Option<i64>) {
        (self.0.pdu.depth(), self.0.position)
    }
}

impl PartialEq for ByDepth {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByDepth {}

impl PartialOrd for ByDepth {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByDepth {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

fn ids(state: &RoomState) -> Vec<OwnedEventId> {
    state.iter().map(|(_, _, entry)| entry.event_id.clone()).collect()
}

/// The event as it goes over federation.
pub(super) fn raw(pdu: &Pdu) -> Box<RawValue> {
    RawValue::from_string(pdu.json().to_owned()).expect("an event's text is JSON")
}
