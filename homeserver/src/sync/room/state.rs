//! Reads a room's state. Specification: client-server API, `GET /rooms/{roomId}/state` and what is below it.

use ruma::RoomId;

use super::{Access, Reader, read};
use crate::{
    rules::pdu::ClientFormat,
    storage::{
        Snapshot, state_diff,
        timeline::{self, Placed},
    },
    sync::{
        ReadError, Syncer,
        write::{Extras, push_list},
    },
};

/// How much of a state event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFormat {
    /// Its content.
    Content,
    /// All of it.
    Event,
}

impl Syncer {
    /// The whole state as a JSON list.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], and those of the database.
    pub async fn state(&self, reader: Reader<'_>, room_id: &RoomId) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        let events = state_events(&mut snapshot, &access).await?;
        let extras = Extras::at(self.now_ms());
        let mut out = String::with_capacity(events.len() * 512);
        push_list(&mut out, &events, |out, placed| extras.push_state_event(out, &placed.event, ClientFormat::Full));
        Ok(out)
    }

    /// What stands at a type and key, as JSON.
    ///
    /// # Errors
    /// [`ReadError::NotInRoom`], [`ReadError::UnknownState`], and those of the database.
    pub async fn state_event(
        &self,
        reader: Reader<'_>,
        room_id: &RoomId,
        event_type: &str,
        state_key: &str,
        format: StateFormat,
    ) -> Result<String, ReadError> {
        let mut snapshot = self.db().snapshot().await?;
        let access = self.access(&mut snapshot, reader, room_id).await?;
        let events = if access.is_current {
            read(&mut snapshot, timeline::current_at(access.room_nid, event_type, state_key)).await?
        } else {
            state_events(&mut snapshot, &access).await?
        };
        let event = events.iter().find(|placed| placed.event.pdu.is_state_of(event_type, state_key));
        let event = &event.ok_or(ReadError::UnknownState)?.event;
        if format == StateFormat::Content {
            return Ok(event.pdu.content_json().to_owned());
        }
        let mut out = String::new();
        Extras::at(self.now_ms()).push_state_event(&mut out, event, ClientFormat::Full);
        Ok(out)
    }
}

/// All events of the state that the user sees.
pub(super) async fn state_events(snapshot: &mut Snapshot, access: &Access) -> Result<Vec<Placed>, ReadError> {
    if access.is_current {
        return read(snapshot, timeline::current_state(access.room_nid)).await;
    }
    let nids = state_diff::whole_states(snapshot, &[access.state_nid]).await?.remove(&access.state_nid);
    read(snapshot, timeline::by_nids(&nids.unwrap_or_default())).await
}
