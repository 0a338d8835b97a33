//! What others may ask of rooms: the current state and the events in it.

use std::sync::Arc;

use ruma::{RoomId, UserId};
use serde::Deserialize;

use super::{RoomState, Rooms};
use crate::{
    rules::{pdu::Pdu, room_version::RoomVersion},
    storage::{DbError, events},
};

/// A room as it is now.
#[derive(Clone, Debug)]
pub struct Current {
    pub room_nid: i64,
    pub room_version: RoomVersion,
    /// Whether this server takes part in the room now, so that what it knows is up to date: one of its users is joined, or
    /// nobody is.
    pub is_resident: bool,
    /// The position of the newest event.
    pub position: i64,
    pub state: Arc<RoomState>,
}

impl Rooms {
    /// The room as it is now, committed; `None` when this server does not know it. The state of a room that is not
    /// [resident](Current::is_resident) is that of the time when the last of our users left.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find(&self, room_id: &RoomId) -> Result<Option<Current>, DbError> {
        self.current(room_id).await
    }

    /// The event at a key of the current state.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn state_event(
        &self,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Pdu>, DbError> {
        let Some(current) = self.current(room_id).await? else { return Ok(None) };
        let Some(entry) = current.state.get(event_type, state_key) else { return Ok(None) };
        if let Some(event) = self.shared.parts.event_cache.get(entry.event_nid) {
            return Ok(Some(event.pdu.clone()));
        }
        let mut events = events::get_by_nids(&self.shared.parts.db, &[entry.event_nid]).await?;
        Ok(events.remove(&entry.event_nid).map(|event| event.pdu))
    }

    /// The content of the event at a key of the current state, when there is one and it has the shape of `T`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn state_content<T: for<'de> Deserialize<'de>>(
        &self,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<T>, DbError> {
        let event = self.state_event(room_id, event_type, state_key).await?;
        Ok(event.and_then(|event| event.content_as().ok()))
    }

    /// A user's membership by the current state: `join`, `invite`, `knock`, `leave` or `ban`; `None` for none.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn membership(&self, room_id: &RoomId, user_id: &UserId) -> Result<Option<String>, DbError> {
        #[derive(Deserialize)]
        struct Content {
            membership: String,
        }
        let content = self.state_content::<Content>(room_id, "m.room.member", user_id.as_str()).await?;
        Ok(content.map(|content| content.membership))
    }

    /// An event that is stored.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_event(&self, event_id: &ruma::EventId) -> Result<Option<events::StoredEvent>, DbError> {
        events::find(&self.shared.parts.db, event_id).await
    }
}
