//! What keeps a server livable: today, what users report to its operator.

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use ruma::{EventId, RoomId, UserId};

use crate::{
    rooms::Rooms,
    storage::{
        Db, DbError,
        reports::{self, ReportRow},
    },
};

/// The longest reason that is kept, in bytes; more is cut off.
const MAX_REASON: usize = 10_000;

/// What a report is about.
#[derive(Clone, Copy, Debug)]
pub enum Reported<'a> {
    /// An event of a room that the reporter is in.
    Event {
        room_id: &'a RoomId,
        event_id: &'a EventId,
    },
    Room {
        room_id: &'a RoomId,
    },
    User {
        user_id: &'a UserId,
    },
}

/// Why a report was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The specification has one answer for what is not there and for what the reporter may not see.
    #[error("there is nothing of that name that you could report")]
    NotFound,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Reports to the operator. Clones share everything.
#[derive(Clone)]
pub struct Moderation {
    db: Db,
    rooms: Rooms,
    clock: Arc<dyn Clock>,
}

impl Moderation {
    pub fn new(db: Db, rooms: Rooms, clock: Arc<dyn Clock>) -> Self {
        Self { db, rooms, clock }
    }

    /// Takes a report.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn report(
        &self,
        (reporter, reporter_nid): (&UserId, i64),
        reported: Reported<'_>,
        reason: &str,
    ) -> Result<(), ReportError> {
        if !self.exists(reporter, reported).await? {
            return Err(ReportError::NotFound);
        }
        // A database keeps no null bytes in text.
        let reason: String = reason.chars().filter(|letter| *letter != '\0').collect();
        let (room_id, event_id, user_id) = match reported {
            Reported::Event { room_id, event_id } => (Some(room_id.as_str()), Some(event_id.as_str()), None),
            Reported::Room { room_id } => (Some(room_id.as_str()), None, None),
            Reported::User { user_id } => (None, None, Some(user_id.as_str())),
        };
        let received_ts = self.clock.now_ms();
        let reason = beginning(&reason, MAX_REASON);
        reports::insert(&self.db, ReportRow { reporter_nid, received_ts, room_id, event_id, user_id, reason }).await?;
        tracing::info!(user.id = %reporter, ?reported, "a user reported something");
        Ok(())
    }

    async fn exists(&self, reporter: &UserId, reported: Reported<'_>) -> Result<bool, DbError> {
        match reported {
            Reported::Event { room_id, event_id } => {
                let event = self.rooms.find_event(event_id).await?;
                Ok(event.is_some_and(|event| event.pdu.room_id() == room_id)
                    && self.rooms.membership(room_id, reporter).await?.as_deref() == Some("join"))
            }
            Reported::Room { room_id } => Ok(self.rooms.find(room_id).await?.is_some()),
            // Whoever it is: the answer must not tell who exists.
            Reported::User { .. } => Ok(true),
        }
    }
}

/// At most `max` bytes of the beginning, whole characters only.
fn beginning(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(beginning("äöü", 3), "ä");
        assert_eq!(beginning("abc", 10), "abc");
        assert_eq!(beginning("", 0), "");
    }
}
