//! Invites users of other servers: their server signs the invite before it becomes part of the room.
//!
//! Specification: server-server API, "Inviting to a room".

use ruma::{
    CanonicalJsonObject, OwnedEventId, RoomId, UserId,
    api::federation::membership::{RawStrippedState, create_invite},
};

use super::{Federation, InviteError, serve::raw};
use crate::{
    remote::Patience,
    rooms::{Draft, Received},
};

impl Federation {
    /// Invites a user of another server to a room that we are in. `content` is that of the membership event.
    ///
    /// # Errors
    /// When the room does not allow it, or the user's server does not take it.
    pub async fn invite(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        invited: &UserId,
        content: CanonicalJsonObject,
    ) -> Result<OwnedEventId, InviteError> {
        let draft = Draft::state(sender, "m.room.member", invited.as_str(), content);
        let pdu = self.parts.rooms.propose(room_id, &draft).await?;
        let state = self.room_state_for_strangers(room_id).await.unwrap_or_else(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "an invite goes out without the room's name");
            Vec::new()
        });
        let state = state.into_iter().map(RawStrippedState::Pdu).collect();
        let request = create_invite::v2::Request::new(
            room_id.to_owned(),
            pdu.event_id().to_owned(),
            pdu.room_version().id(),
            raw(&pdu),
            state,
        );
        let answer = self.parts.client.send(invited.server_name(), request, Patience::Insistent).await?;
        let signed = self.verify(room_id, pdu.room_version(), &answer.event).await.map_err(InviteError::Nonsense)?;
        if signed.event_id() != pdu.event_id() {
            return Err(InviteError::Nonsense(super::ReceivePduError::OtherRoom));
        }
        let _turn = self.room_turns.take(room_id.to_owned()).await;
        match self.parts.rooms.receive(&signed, None).await? {
            Received::Accepted | Received::Known => Ok(signed.event_id().to_owned()),
            Received::SoftFailed(error) | Received::Rejected(error) => Err(InviteError::Forbidden(error)),
        }
    }
}
