//! Hears that an invite or a knock of one of our users ended in a room that we are not in: taken back, denied or banned.

use ruma::{RoomId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Federation, ReceivePduError, ServeError};
use crate::{
    rooms::{Current, ReceiveError, Received},
    rules::membership::{Membership, target_of},
    storage::{events, memberships},
};

impl Federation {
    /// Takes in the end of an invite or a knock. Every other event of a room that we are not in is refused.
    ///
    /// Whether the sender may do that cannot be told without the room's state. So the event has to name the invite or knock
    /// among its auth events, which who is not in the room does not know, and an invite is taken back by whoever sent it.
    pub(super) async fn receive_end_from_afar(
        &self,
        room: &Current,
        room_id: &RoomId,
        raw: &RawValue,
    ) -> Result<Received, ReceivePduError> {
        let Some(user_id) = self.local_member(raw) else { return Err(ReceivePduError::UnknownRoom) };
        let Some(user_nid) = self.parts.names.find(&user_id).await? else { return Err(ReceivePduError::UnknownRoom) };
        let stmt = memberships::of_user_in_room(user_nid, room_id.as_str());
        let rows = memberships::read_user_rooms(&self.parts.db.query(stmt.sql, stmt.params).await?)?;
        let pending = rows.into_iter().find(|row| matches!(row.membership.as_str(), "invite" | "knock"));
        let Some(pending) = pending else { return Err(ReceivePduError::UnknownRoom) };
        let stored = events::get_by_nids(&self.parts.db, &[pending.member_event_nid]).await?;
        let Some(begun) = stored.get(&pending.member_event_nid).map(|stored| &stored.pdu) else {
            return Err(ReceivePduError::UnknownRoom);
        };
        let pdu = self.verify(room_id, room.room_version, raw).await?;
        let membership = Membership::of(&pdu).filter(|state| matches!(state, Membership::Leave | Membership::Ban));
        let is_entitled = pending.membership == "knock" || pdu.sender() == begun.sender();
        let names_it = pdu.auth_events().iter().any(|event_id| event_id == begun.event_id());
        match membership {
            Some(membership) if is_entitled && names_it && target_of(&pdu) == Some(&*user_id) => {
                self.show_from_afar(&pdu, &user_id, membership, &[]).await.map_err(not_stored)?;
                Ok(Received::Accepted)
            }
            _ => Err(ReceivePduError::UnknownRoom),
        }
    }

    /// The local user whom a membership event is about.
    fn local_member(&self, raw: &RawValue) -> Option<ruma::OwnedUserId> {
        #[derive(Deserialize)]
        struct Event {
            #[serde(rename = "type")]
            event_type: String,
            state_key: Option<String>,
        }
        let event: Event = serde_json::from_str(raw.get()).ok()?;
        let user_id = UserId::parse(event.state_key.filter(|_| event.event_type == "m.room.member")?).ok()?;
        self.parts.rooms.is_local(&user_id).then_some(user_id)
    }
}

fn not_stored(error: ServeError) -> ReceivePduError {
    match error {
        ServeError::Db(error) => error.into(),
        ServeError::Commit(error) => ReceiveError::Commit(error).into(),
        other => ReceivePduError::Malformed(other.into()),
    }
}
