//! Decides which state a user sees of a room that they are not in yet, and how little of it.
//!
//! Specification: client-server API, "Stripped state".

use ruma::RoomId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    pdu::{Pdu, PduError},
    room_version::RoomVersion,
};

#[cfg(test)]
mod tests;

/// The state, all with an empty state key, that goes with invites and knocks and into room summaries.
///
/// The invite or knock itself, and the inviter's membership, are added by whoever makes the list.
pub const STRIPPED_STATE_TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// A state event reduced to what a stranger may know.
#[derive(Debug, Serialize, Deserialize)]
pub struct StrippedEvent<'a> {
    /// The content.
    #[serde(borrow)]
    pub content: &'a RawValue,
    /// The sender.
    pub sender: String,
    /// The state key.
    pub state_key: String,
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
}

/// A state event in stripped form, as JSON. `None` for events that are no state.
pub fn strip(pdu: &Pdu) -> Option<Box<RawValue>> {
    let stripped = StrippedEvent {
        content: pdu.content(),
        sender: pdu.sender().to_string(),
        state_key: pdu.state_key()?.to_owned(),
        event_type: pdu.event_type().to_owned(),
    };
    serde_json::value::to_raw_value(&stripped).ok()
}

/// Reduces what another server sent as stripped state, which may be whole events, to the stripped form.
///
/// `None` when it has not even the fields of stripped state; such an entry is left out.
pub fn prune(received: &RawValue) -> Option<Box<RawValue>> {
    let stripped: StrippedEvent<'_> = serde_json::from_str(received.get()).ok()?;
    if !stripped.content.get().starts_with('{') {
        return None;
    }
    serde_json::value::to_raw_value(&stripped).ok()
}

/// Joins stripped events into the JSON list that `invite_room_state` and `knock_room_state` hold.
pub fn list<'a>(events: impl IntoIterator<Item = &'a RawValue>) -> Box<RawValue> {
    let events: Vec<&RawValue> = events.into_iter().collect();
    serde_json::value::to_raw_value(&events).expect("a list of JSON values is JSON")
}

/// Why the state that came with an invite is refused: `M_INVALID_PARAM`.
#[derive(Debug, thiserror::Error)]
pub enum InviteStateError {
    /// An entry is no event of the room's version.
    #[error("an event of the invite's room state is malformed")]
    Malformed(#[source] PduError),
    /// An entry is of another room.
    #[error("an event of the invite's room state is of another room")]
    AnotherRoom,
    /// The create event is absent.
    #[error("the invite's room state lacks the create event")]
    NoCreate,
}

/// Reads the state that came with an invite, which since version 1.16 of the specification are whole events, one of
/// them the create event. Their signatures are for the caller to check.
///
/// Servers should insist on this for rooms of version 12, whose id proves the create event. Before that, older servers
/// send stripped events, for which [`prune`] is the way.
///
/// # Errors
///
/// See [`InviteStateError`].
pub fn whole_events<'a>(
    version: RoomVersion,
    room_id: &RoomId,
    received: impl IntoIterator<Item = &'a RawValue>,
) -> Result<Vec<Pdu>, InviteStateError> {
    let read = |entry: &RawValue| Pdu::from_json_text(version, entry.get()).map_err(InviteStateError::Malformed);
    let events = received.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if events.iter().any(|event| event.room_id() != room_id) {
        return Err(InviteStateError::AnotherRoom);
    }
    if !events.iter().any(|event| event.is_state_of("m.room.create", "")) {
        return Err(InviteStateError::NoCreate);
    }
    Ok(events)
}
