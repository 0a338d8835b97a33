//! Reads one event, and what stands around it. Specification: client-server API, `GET /rooms/{roomId}/event/{eventId}`,
//! `GET /rooms/{roomId}/context/{eventId}` and `GET /rooms/{roomId}/timestamp_to_event`.

use std::{collections::HashSet, sync::Arc};

use ruma::{EventId, RoomId};

use super::{
    Access, Direction, Reader,
    messages::{backward, forward},
    read,
};
use crate::{
    rules::pdu::ClientFormat,
    storage::{Snapshot, event_cache::CachedEvent, state_diff, timeline},
    sync::{
        EventFilter, HistoryToken, LazyLoading, ReadError, Syncer,
        write::{Object, push_list},
    },
};

/// The most events around an event.
const MAX_LIMIT: usize = 200;

impl Syncer {
    /// One event as JSON.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`], also when the user may not see the event, and those of the database.
    pub async fn event(&self, reader: Reader<'_>, room_id: &RoomId, event_id: &EventId) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await.map_err(as_unknown)?;
        let event = self.visible_event(&mut snapshot, reader, &access, event_id).await?;
        let extras = self.extras(&mut snapshot, reader, &access, &[&event]).await?;
        let mut out = String::new();
        extras.push_event(&mut out, &event, ClientFormat::Full);
        Ok(out)
    }

    /// An event with what stands before and after it, and the state at the end, as JSON.
    ///
    /// # Errors
    /// [`ReadError::UnknownEvent`], also when the user may not see the event, and those of the database.
    pub async fn context(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_id: &EventId,
        limit: usize,
        filter: &EventFilter,
        lazy: LazyLoading,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await.map_err(as_unknown)?;
        let event = self.visible_event(&mut snapshot, reader, &access, event_id).await?;
        let position = event.position.ok_or(ReadError::UnknownEvent)?;
        let limit = limit.min(MAX_LIMIT);
        let (before_limit, after_limit) = (limit / 2, limit - limit / 2);
        let is_shown = |access: &Access, event: &CachedEvent| {
            filter.allows_room(room_id.as_str()) && filter.allows(&event.pdu) && access.allows(event, reader.user_id)
        };
        let before = backward(&mut snapshot, &access, position - 1, None, before_limit, is_shown).await?.events;
        let after = forward(&mut snapshot, &access, position, None, after_limit, is_shown).await?.events;
        let all: Vec<&CachedEvent> = before.iter().chain([&event]).chain(&after).map(|event| &**event).collect();
        let extras = self.extras(&mut snapshot, reader, &access, &all).await?;
        let last = after.last().unwrap_or(&event);
        let state = self.state_at(&mut snapshot, &access, last, filter, lazy, &all).await?;
        let first_position = before.last().and_then(|event| event.position).unwrap_or(position);
        let last_position = last.position.unwrap_or(position);
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        object.string("start", &HistoryToken::Behind(first_position - 1).to_string());
        object.string("end", &HistoryToken::Behind(last_position).to_string());
        extras.push_event(object.key("event"), &event, ClientFormat::Full);
        for (key, events) in [("events_before", &before), ("events_after", &after)] {
            push_list(object.key(key), events, |out, event| extras.push_event(out, event, ClientFormat::Full));
        }
        push_list(object.key("state"), &state, |out, event| {
            extras.push_state_event(out, event, ClientFormat::Full);
        });
        object.close();
        Ok(out)
    }

    /// The event nearest to a time: its id and its own time.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], [`ReadError::UnknownEvent`], and those of the database.
    pub async fn event_at(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        origin_server_ts: i64,
        direction: Direction,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        let stmt = timeline::nearest(access.room_nid, origin_server_ts, direction == Direction::Forward);
        let events = read(&mut snapshot, stmt).await?;
        let found = events.iter().find(|placed| access.allows(&placed.event, reader.user_id));
        let pdu = &found.ok_or(ReadError::UnknownEvent)?.event.pdu;
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        object.string("event_id", pdu.event_id().as_str());
        object.plain("origin_server_ts", pdu.origin_server_ts().0);
        object.close();
        Ok(out)
    }

    pub(super) async fn visible_event(
        &self,
        snapshot: &mut Snapshot,
        reader: Reader<'_>,
        access: &Access,
        event_id: &EventId,
    ) -> Result<Arc<CachedEvent>, ReadError> {
        let event = read(snapshot, timeline::by_ids(&[event_id.as_str()])).await?.into_iter().next();
        let event = event.map(|placed| placed.event).filter(|event| event.room_nid == access.room_nid);
        event.filter(|event| access.allows(event, reader.user_id)).ok_or(ReadError::UnknownEvent)
    }

    /// The state right after an event, of memberships only what `shown` needs if they are loaded lazily.
    async fn state_at(
        &self,
        snapshot: &mut Snapshot,
        access: &Access,
        event: &CachedEvent,
        filter: &EventFilter,
        lazy: LazyLoading,
        shown: &[&CachedEvent],
    ) -> Result<Vec<Arc<CachedEvent>>, ReadError> {
        let position = event.position.unwrap_or(access.newest);
        let state_nid = self.state_after(snapshot, access.room_nid, position, access.state_nid).await?;
        let nids = state_diff::whole_states(snapshot, &[state_nid]).await?.remove(&state_nid).unwrap_or_default();
        let senders: HashSet<&str> = shown.iter().map(|event| event.pdu.sender().as_str()).collect();
        let senders: Vec<&str> = senders.into_iter().collect();
        let stmt = if lazy == LazyLoading::Off {
            timeline::by_nids(&nids)
        } else {
            timeline::by_nids_with_members(&nids, &senders)
        };
        let events = read(snapshot, stmt).await?;
        Ok(events.into_iter().map(|placed| placed.event).filter(|event| filter.allows(&event.pdu)).collect())
    }
}

/// Whether there is such a room is not told by asking for its events.
fn as_unknown(error: ReadError) -> ReadError {
    match error {
        ReadError::NotInRoom => ReadError::UnknownEvent,
        other => other,
    }
}
