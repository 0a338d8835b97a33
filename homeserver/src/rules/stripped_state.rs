//! Decides which state a user sees of a room that they are not in yet, and how little of it.
//!
//! Specification: client-server API, "Stripped state".

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::pdu::Pdu;

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
