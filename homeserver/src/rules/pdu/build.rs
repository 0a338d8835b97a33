//! Decides how a new event of this server is made: fields, content hash, signature, event id.

use std::collections::BTreeMap;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, Int, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId,
    ServerName, UserId,
    signatures::{Ed25519KeyPair, JsonError, content_hash, hash_and_sign_event},
};

use super::{
    MAX_DEPTH, Pdu, PduError,
    parse::{checked, event_id_of},
};
use crate::rules::room_version::RoomVersion;

/// What the maker of an event decides. The rest follows from the room version and the signing key.
#[derive(Clone, Debug)]
pub struct EventTemplate<'a> {
    /// The room; `None` for the create event of a version 12 room, whose id is not known yet.
    pub room_id: Option<&'a RoomId>,
    /// The sender, a user of this server.
    pub sender: &'a UserId,
    /// The event's type.
    pub event_type: &'a str,
    /// The state key, for a state event.
    pub state_key: Option<&'a str>,
    /// The content.
    pub content: CanonicalJsonObject,
    /// The event that an `m.room.redaction` redacts. Put where the room version keeps it.
    pub redacts: Option<&'a EventId>,
    /// The room's forward extremities, at most 20.
    pub prev_events: &'a [OwnedEventId],
    /// The events that allow this one, as [`crate::rules::auth::auth_types_for_event`] selects them.
    pub auth_events: &'a [OwnedEventId],
    /// In room versions 1 and 2 the [`Pdu::reference_hash`] of each event of the two lists; otherwise empty.
    pub reference_hashes: BTreeMap<OwnedEventId, String>,
    /// One more than the greatest depth of the `prev_events`. Ends at [`MAX_DEPTH`].
    pub depth: u64,
    /// The time.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// Why an event could not be made. Always the template's fault.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The event would break its room version's format; [`PduError::TooLarge`] is `M_TOO_LARGE`.
    #[error("the event would not be valid")]
    Format(#[from] PduError),
    /// The event cannot be hashed or signed, which happens when it is too large.
    #[error("the event cannot be signed")]
    Sign(#[source] JsonError),
}

/// Makes an event: adds hashes, signs it with this server's key and computes its id.
///
/// # Errors
///
/// When the template breaks the event format, for example by its size.
pub fn build(
    room_version: RoomVersion,
    template: EventTemplate<'_>,
    key_pair: &Ed25519KeyPair,
    server_name: &ServerName,
) -> Result<Pdu, BuildError> {
    finish(room_version, draft(room_version, template), key_pair, server_name)
}

/// Makes an event of a draft, which another server may have sent as the answer to a `make_join` and the like.
///
/// Keeps the draft's fields, except that an `event_id`, hashes, signatures and `unsigned` in it are dropped. Whoever
/// asked for the draft has to check that it is what was asked for.
///
/// # Errors
///
/// When the draft breaks the event format.
pub fn finish(
    room_version: RoomVersion,
    draft: CanonicalJsonObject,
    key_pair: &Ed25519KeyPair,
    server_name: &ServerName,
) -> Result<Pdu, BuildError> {
    let mut event = draft;
    for field in ["event_id", "hashes", "signatures", "unsigned"] {
        event.remove(field);
    }
    if !matches!(event.get("type"), Some(CanonicalJsonValue::String(_))) {
        return Err(PduError::Missing { field: "type" }.into());
    }
    if room_version.event_id_is_in_event() {
        let hash = content_hash(&event).map_err(BuildError::Sign)?.encode();
        event.insert("event_id".to_owned(), format!("${}:{server_name}", localpart_of(&hash)).into());
    }
    let redaction = &room_version.rules().redaction;
    hash_and_sign_event(server_name.as_str(), key_pair, &mut event, redaction).map_err(BuildError::Sign)?;
    let event_id = event_id_of(room_version, &event)?;
    Ok(checked(room_version, event_id, &event)?)
}

/// The fields of an event without hashes and signatures: what `make_join`, `make_leave` and `make_knock` answer.
pub fn draft(room_version: RoomVersion, template: EventTemplate<'_>) -> CanonicalJsonObject {
    let mut content = template.content;
    let mut event = CanonicalJsonObject::new();
    if let Some(redacts) = template.redacts {
        let holder = if room_version.rules().redaction.content_field_redacts { &mut content } else { &mut event };
        holder.insert("redacts".to_owned(), redacts.as_str().into());
    }
    let depth = i64::try_from(template.depth.min(MAX_DEPTH)).ok().and_then(|depth| Int::try_from(depth).ok());
    let prev_events = references(room_version, template.prev_events, &template.reference_hashes);
    let auth_events = references(room_version, template.auth_events, &template.reference_hashes);

    event.insert("auth_events".to_owned(), auth_events);
    event.insert("content".to_owned(), CanonicalJsonValue::Object(content));
    event.insert("depth".to_owned(), CanonicalJsonValue::Integer(depth.unwrap_or(Int::MAX)));
    event.insert("origin_server_ts".to_owned(), template.origin_server_ts.get().into());
    event.insert("prev_events".to_owned(), prev_events);
    event.insert("sender".to_owned(), template.sender.as_str().into());
    event.insert("type".to_owned(), template.event_type.into());
    if let Some(room_id) = template.room_id {
        event.insert("room_id".to_owned(), room_id.as_str().into());
    }
    if let Some(state_key) = template.state_key {
        event.insert("state_key".to_owned(), state_key.into());
    }
    event
}

/// Event references in the room version's format: ids, or pairs of an id and its hash.
fn references(
    room_version: RoomVersion,
    ids: &[OwnedEventId],
    hashes: &BTreeMap<OwnedEventId, String>,
) -> CanonicalJsonValue {
    let reference = |id: &OwnedEventId| -> CanonicalJsonValue {
        if !room_version.event_id_is_in_event() {
            return id.as_str().into();
        }
        let hash = hashes.get(id).map(|hash| ("sha256".to_owned(), hash.as_str().into()));
        CanonicalJsonValue::Array(vec![id.as_str().into(), CanonicalJsonValue::Object(hash.into_iter().collect())])
    };
    CanonicalJsonValue::Array(ids.iter().map(reference).collect())
}

/// A localpart for an event id of room versions 1 and 2: the letters and digits of the event's own hash.
///
/// Other servers draw it by chance. The hash is as unique, since it covers time, sender and the events before.
fn localpart_of(hash: &str) -> String {
    hash.chars().filter(char::is_ascii_alphanumeric).take(24).collect()
}
