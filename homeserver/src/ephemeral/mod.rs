//! What passes: who types, who has read how far, who is there.

mod presence;
mod presence_of_devices;
mod receipts;
mod typing;

use std::{collections::HashSet, sync::Arc};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use ruma::RoomId;

pub use self::{
    presence::{Presence, PresenceError},
    receipts::{NewReceipt, ReceiptError, ReceiptKind},
    typing::TypingError,
};
use crate::{
    storage::{Db, DbError, UserNames, memberships},
    stream::Lane,
};

/// What [`Ephemeral`] is made of.
pub struct EphemeralParts {
    pub db: Db,
    pub names: UserNames,
    pub lane: Lane,
    pub clock: Arc<dyn Clock>,
}

/// Typing, receipts and presence. Clones share everything.
#[derive(Clone)]
pub struct Ephemeral {
    shared: Arc<Shared>,
}

struct Shared {
    parts: EphemeralParts,
    /// Whose typing (room, user) this shard watches, so that it ends in time.
    watched: Mutex<HashSet<(i64, i64)>>,
    devices: Mutex<presence_of_devices::Devices>,
}

impl Ephemeral {
    pub fn new(parts: EphemeralParts) -> Self {
        Self { shared: Arc::new(Shared { parts, watched: Mutex::default(), devices: Mutex::default() }) }
    }

    fn parts(&self) -> &EphemeralParts {
        &self.shared.parts
    }

    /// The number of a room that the user is joined to.
    async fn joined_room(&self, user_nid: i64, room_id: &RoomId) -> Result<Option<i64>, DbError> {
        let stmt = memberships::of_user_in_room(user_nid, room_id.as_str());
        let rooms = memberships::read_user_rooms(&self.parts().db.query(stmt.sql, stmt.params).await?)?;
        Ok(rooms.into_iter().find(|room| room.membership == "join").map(|room| room.room_nid))
    }
}

#[cfg(test)]
mod tests;
