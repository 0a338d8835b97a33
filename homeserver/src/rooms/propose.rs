//! Makes events that are not appended here: templates for users of other servers, and invites that another server has
//! to sign first.

use ruma::{OwnedEventId, RoomId};

use super::{AppendError, Draft, Rooms, append::check_residence};
use crate::{rules::pdu::Pdu, storage::DbError};

impl Rooms {
    /// The event that [`Rooms::append`] would append, signed by this server and authorised, but not appended.
    ///
    /// # Errors
    /// As [`Rooms::append`].
    pub async fn propose(&self, room_id: &RoomId, draft: &Draft<'_>) -> Result<Pdu, AppendError> {
        let room = self.hot(room_id);
        let mut locked = self.lock(room_id, &room).await?;
        let hot = locked.get().ok_or(AppendError::UnknownRoom)?;
        check_residence(hot)?;
        self.build(hot, draft).await
    }

    /// The newest events of a room: those that no other event follows. None for a room that this server does not know.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn extremities(&self, room_id: &RoomId) -> Result<Vec<OwnedEventId>, DbError> {
        let room = self.hot(room_id);
        let mut locked = self.lock(room_id, &room).await?;
        Ok(locked
            .get()
            .map_or_else(Vec::new, |hot| hot.extremities.iter().map(|extremity| extremity.event_id.clone()).collect()))
    }
}
