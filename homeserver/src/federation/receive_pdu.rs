//! Takes in one event of another server, numbered as the specification's "Checks performed on receipt of a PDU".

use ruma::{OwnedEventId, OwnedRoomId, ServerName, UInt};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Federation, ReceivePduError};
use crate::{
    rooms::{ReceiveError, Received},
    rules::pdu::Pdu,
};

/// Events that one gap may have for us to ask for them one by one.
const SMALL_GAP: u32 = 50;

impl Federation {
    /// Takes in an event that `origin` sent in a transaction.
    ///
    /// # Errors
    /// When the event is dropped, or cannot be judged now. An event that is rejected or soft-failed is no error.
    pub(super) async fn receive_pdu(&self, origin: &ServerName, raw: &RawValue) -> Result<Received, ReceivePduError> {
        let room_id = room_id_of(raw).ok_or(ReceivePduError::UnknownRoom)?;
        let room = self.parts.rooms.find(&room_id).await?.ok_or(ReceivePduError::UnknownRoom)?;
        if !room.is_resident || !self.are_we_joined(room.room_nid).await? {
            return self.receive_end_from_afar(&room, &room_id, raw).await;
        }
        if !self.is_admitted(&room_id, origin).await? {
            return Err(ReceivePduError::NotAdmitted);
        }
        // 1. Is a valid event, otherwise it is dropped.
        // 2. Passes signature checks, otherwise it is dropped.
        // 3. Passes hash checks, otherwise it is redacted before being processed further.
        let pdu = self.verify(&room_id, room.room_version, raw).await?;
        if self.parts.rooms.find_event(pdu.event_id()).await?.is_some_and(|stored| stored.position.is_some()) {
            return Ok(Received::Known);
        }
        self.close_gap(origin, &pdu).await?;
        self.take_in(origin, &pdu).await
    }

    /// Takes in an event whose signatures are right.
    pub(super) async fn take_in(&self, origin: &ServerName, pdu: &Pdu) -> Result<Received, ReceivePduError> {
        let missing = self.parts.rooms.missing(&needed_for_auth(pdu)).await?;
        if !missing.is_empty() {
            self.fetch_auth_chain(origin, pdu, &missing).await?;
        }
        let unplaced = self.parts.rooms.missing_state(pdu.prev_events()).await?;
        for event_id in &unplaced {
            self.fetch_with_state(origin, pdu.room_id(), pdu.room_version(), event_id).await?;
        }
        // 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
        // 5. Passes authorization rules based on the state before the event, otherwise it is rejected.
        // 6. Passes authorization rules based on the current state of the room, otherwise it is "soft failed".
        match self.parts.rooms.receive(pdu, None).await {
            Ok(received) => {
                log(pdu, &received);
                Ok(received)
            }
            Err(ReceiveError::MissingPrev(event_id)) => Err(ReceivePduError::Incomplete(event_id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks `origin` for the events between those that we have and `pdu`, and takes them in. What is still missing
    /// afterwards is taken in with its state by [`Self::take_in`].
    async fn close_gap(&self, origin: &ServerName, pdu: &Pdu) -> Result<(), ReceivePduError> {
        if self.parts.rooms.missing_state(pdu.prev_events()).await?.is_empty() {
            return Ok(());
        }
        let missing = match self.fetch_missing_events(origin, pdu, UInt::from(SMALL_GAP)).await {
            Ok(missing) => missing,
            Err(ReceivePduError::Request(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, %origin, "cannot close a gap");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for event in missing {
            // Those whose own predecessors are beyond the gap wait for the state that take_in fetches: the oldest first.
            if let Err(error) = self.take_in(origin, &event).await {
                if error.is_ours() {
                    return Err(error);
                }
                tracing::debug!(error = &error as &dyn std::error::Error, event.id = %event.event_id(), "a gap stays");
            }
        }
        Ok(())
    }
}

/// The events that check 4 looks at.
pub(super) fn needed_for_auth(pdu: &Pdu) -> Vec<OwnedEventId> {
    pdu.auth_events().iter().cloned().chain(pdu.implied_create_event_id()).collect()
}

fn log(pdu: &Pdu, received: &Received) {
    match received {
        Received::Known | Received::Accepted => {}
        Received::SoftFailed(error) => {
            tracing::info!(event.id = %pdu.event_id(), room.id = %pdu.room_id(), %error, "an event was soft-failed");
        }
        Received::Rejected(error) => {
            tracing::info!(event.id = %pdu.event_id(), room.id = %pdu.room_id(), %error, "an event was rejected");
        }
    }
}

/// The room that an event names. Only the create event of a version 12 room names none, and that one never comes alone.
pub(super) fn room_id_of(raw: &RawValue) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Event {
        room_id: OwnedRoomId,
    }
    serde_json::from_str::<Event>(raw.get()).ok().map(|event| event.room_id)
}
