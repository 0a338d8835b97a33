//! Decides what a stored event is: its canonical text and the fields every layer asks for.

use std::{fmt, ops::Range, sync::Arc};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::TimelineEventType,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{canonical::parse_object_without, room_version::RoomVersion};

mod build;
mod client;
mod parse;
#[cfg(test)]
mod tests;

pub use self::{
    build::{BuildError, EventTemplate, build, draft, finish},
    client::{ClientFormat, Unsigned},
    parse::PduError,
};

/// The largest event, in bytes of canonical JSON including signatures. Specification: client-server API, "Size limits".
pub const MAX_PDU_BYTES: usize = 65_536;

/// The largest `depth` and the largest integer of canonical JSON, 2^53 - 1.
pub const MAX_DEPTH: u64 = (1 << 53) - 1;

/// An event that passed the format checks of its room version, and whether it was rejected afterwards.
///
/// Cloning is one reference count. Nothing of `unsigned` is ever part of it. Two are equal when their event ids are.
#[derive(Clone)]
pub struct Pdu {
    inner: Arc<Fields>,
    rejected: bool,
}

/// What is parsed once and shared by all clones.
struct Fields {
    room_version: RoomVersion,
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    kind: TimelineEventType,
    /// The type as it stands in the event. `kind` may spell an unstable alias differently.
    event_type: Box<str>,
    state_key: Option<Box<str>>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: u64,
    prev_events: Box<[OwnedEventId]>,
    auth_events: Box<[OwnedEventId]>,
    redacts: Option<OwnedEventId>,
    json: Box<str>,
    /// Where the value of `content` stands in `json`.
    content: Range<usize>,
}

impl Pdu {
    /// Parses an event as it comes over federation and checks its format by the rules of its room version.
    ///
    /// Computes the event id. Checks neither signatures nor hashes ([`super::signatures`]) nor authorization
    /// ([`super::auth`]). `unsigned` is dropped.
    ///
    /// # Errors
    ///
    /// The first fault found. Such an event is dropped, as if it had not been received.
    pub fn from_json(room_version: RoomVersion, event: CanonicalJsonObject) -> Result<Self, PduError> {
        parse::received(room_version, event)
    }

    /// As [`Pdu::from_json`], from text. `unsigned` may hold any JSON, since nobody signed it.
    ///
    /// # Errors
    ///
    /// Also when the text is no canonical JSON object.
    pub fn from_json_text(room_version: RoomVersion, event: &str) -> Result<Self, PduError> {
        let object = parse_object_without(event.as_bytes(), Some("unsigned")).map_err(PduError::Json)?;
        Self::from_json(room_version, object)
    }

    /// Reads back what [`Pdu::json`] gave to storage. The text is trusted; nothing is checked twice.
    ///
    /// # Errors
    ///
    /// When the text is not what a `Pdu` of this version once was, which means that the database is damaged.
    pub fn from_stored(
        event_id: OwnedEventId,
        room_version: RoomVersion,
        json: impl Into<Box<str>>,
    ) -> Result<Self, PduError> {
        parse::stored(event_id, room_version, json.into())
    }

    /// The same event, marked as rejected or accepted by the checks on receipt of a PDU.
    #[must_use]
    pub fn with_rejected(mut self, rejected: bool) -> Self {
        self.rejected = rejected;
        self
    }

    /// Whether the event failed authorization on receipt.
    pub fn rejected(&self) -> bool {
        self.rejected
    }

    /// The version of the event's room.
    pub fn room_version(&self) -> RoomVersion {
        self.inner.room_version
    }

    /// The event's id.
    pub fn event_id(&self) -> &EventId {
        &self.inner.event_id
    }

    /// The event's room. For the create event of a version 12 room it is derived from the event id.
    pub fn room_id(&self) -> &RoomId {
        &self.inner.room_id
    }

    /// The user who sent the event.
    pub fn sender(&self) -> &UserId {
        &self.inner.sender
    }

    /// The event's type as ruma's enum, for matching.
    pub fn kind(&self) -> &TimelineEventType {
        &self.inner.kind
    }

    /// The event's type as it stands in the event.
    pub fn event_type(&self) -> &str {
        &self.inner.event_type
    }

    /// The state key; state events have one.
    pub fn state_key(&self) -> Option<&str> {
        self.inner.state_key.as_deref()
    }

    /// Whether this is a state event.
    pub fn is_state(&self) -> bool {
        self.inner.state_key.is_some()
    }

    /// Whether this is the state event of that type and key.
    pub fn is_state_of(&self, event_type: &str, state_key: &str) -> bool {
        self.event_type() == event_type && self.state_key() == Some(state_key)
    }

    /// When the sender's server says that the event was made.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.inner.origin_server_ts
    }

    /// One more than the greatest depth of the events before it, as its server says.
    pub fn depth(&self) -> u64 {
        self.inner.depth
    }

    /// The events directly before this one.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.inner.prev_events
    }

    /// The state events that allow this one. In version 12 rooms the create event is implied and not among them.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.inner.auth_events
    }

    /// The id of the create event, where the room id tells it (version 12).
    pub fn implied_create_event_id(&self) -> Option<OwnedEventId> {
        if !self.room_version().room_id_is_create_event_id() {
            return None;
        }
        create_event_id_of(self.room_id())
    }

    /// The event that this `m.room.redaction` redacts, from where its room version keeps it.
    pub fn redacts(&self) -> Option<&EventId> {
        self.inner.redacts.as_deref()
    }

    /// The canonical text of the event: what goes over federation and into storage, without `unsigned`.
    ///
    /// In room versions 1 and 2 the `event_id` is part of it, because signatures cover it; later it never is.
    pub fn json(&self) -> &str {
        &self.inner.json
    }

    /// The event's hash by which room versions 1 and 2 refer to it, beside its id.
    pub fn reference_hash(&self) -> String {
        ruma::signatures::reference_hash(&self.to_object(), self.room_version().rules())
            .expect("an event within the size limit that has a type can be hashed")
    }

    /// The event as an object, for verification or redaction. Parses the text anew.
    pub fn to_object(&self) -> CanonicalJsonObject {
        super::canonical::parse_object(self.json().as_bytes())
            .expect("the text was canonical JSON when the Pdu was made")
    }

    /// The text of `content`. Free.
    pub fn content_json(&self) -> &str {
        self.inner.json.get(self.inner.content.clone()).expect("the range was measured on this text")
    }

    /// `content` as raw JSON. Scans the text once.
    pub fn content(&self) -> &RawValue {
        serde_json::from_str(self.content_json()).expect("content was JSON when the Pdu was made")
    }

    /// `content` as a type of the caller's choice.
    ///
    /// # Errors
    ///
    /// When the content does not fit. Events from other servers may hold anything.
    pub fn content_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.content_json())
    }
}

/// The id of the create event of a version 12 room.
pub fn create_event_id_of(room_id: &RoomId) -> Option<OwnedEventId> {
    EventId::parse(format!("${}", room_id.strip_sigil())).ok()
}

impl PartialEq for Pdu {
    fn eq(&self, other: &Self) -> bool {
        self.inner.event_id == other.inner.event_id
    }
}

impl Eq for Pdu {}

impl fmt::Debug for Pdu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.inner.event_id)
            .field("type", &self.inner.event_type)
            .field("state_key", &self.inner.state_key)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

impl ruma::state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.inner.event_id
    }

    /// The `room_id` that stands in the event: none in the create event of a version 12 room.
    fn room_id(&self) -> Option<&RoomId> {
        let implied = self.room_version().room_id_is_create_event_id() && *self.kind() == TimelineEventType::RoomCreate;
        (!implied).then_some(&*self.inner.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.inner.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.inner.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.inner.kind
    }

    fn content(&self) -> &RawValue {
        Pdu::content(self)
    }

    fn state_key(&self) -> Option<&str> {
        self.inner.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.inner.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.inner.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.inner.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
