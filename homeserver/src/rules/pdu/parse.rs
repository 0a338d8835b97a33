//! Decides whether JSON has the event format of its room version.
//!
//! Specification: server-server API, "Checks performed on receipt of a PDU", step 1, and the "Event format" of each
//! room version.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, IdParseError, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId, RoomId, UInt, UserId, events::TimelineEventType, signatures::JsonError,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Fields, MAX_DEPTH, MAX_PDU_BYTES, Pdu};
use crate::rules::{canonical::CanonicalError, room_version::RoomVersion};

/// The longest identifier, type or state key, in bytes.
const MAX_ID_BYTES: usize = 255;
/// The most `prev_events`.
const MAX_PREV_EVENTS: usize = 20;
/// The most `auth_events`.
const MAX_AUTH_EVENTS: usize = 10;

/// Why JSON is not an event of its room version. Such an event is dropped.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// Not a canonical JSON object.
    #[error("the event is not canonical JSON")]
    Json(#[source] CanonicalError),
    /// More than 65,536 bytes of canonical JSON.
    #[error("the event has {bytes} bytes, of at most {MAX_PDU_BYTES}")]
    TooLarge {
        /// Its size with signatures.
        bytes: usize,
    },
    /// A required field is absent.
    #[error("`{field}` is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field holds another type of JSON.
    #[error("`{field}` is not {expected}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A string is longer than 255 bytes.
    #[error("`{field}` has {bytes} bytes, of at most 255")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// A list is too long.
    #[error("`{field}` has {count} entries, of at most {max}")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Its length.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A string contains U+0000, which no database can index.
    #[error("`{field}` contains a NUL")]
    Nul {
        /// The field.
        field: &'static str,
    },
    /// An identifier is malformed.
    #[error("`{field}` is not a valid identifier")]
    Identifier {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: IdParseError,
    },
    /// A number is negative.
    #[error("`{field}` is negative")]
    Negative {
        /// The field.
        field: &'static str,
    },
    /// A version 12 create event names a room, though the room's id is its own.
    #[error("the create event has a `room_id`")]
    CreateHasRoomId,
    /// A version 12 event lists the create event, though it is implied.
    #[error("`auth_events` contains the create event")]
    CreateInAuthEvents,
    /// The event's hash cannot be computed.
    #[error("the event cannot be hashed")]
    Hash(#[source] JsonError),
    /// Stored text that is not a stored event.
    #[error("the stored event is damaged")]
    Damaged(#[source] serde_json::Error),
}

/// Parses and checks an event from another server.
pub(super) fn received(version: RoomVersion, mut event: CanonicalJsonObject) -> Result<Pdu, PduError> {
    event.remove("unsigned");
    // The redaction that hashing applies needs the type.
    string(&event, "type")?;
    let event_id = event_id_of(version, &event)?;
    checked(version, event_id, &event)
}

/// Computes or reads the event id, by room version.
pub(super) fn event_id_of(version: RoomVersion, event: &CanonicalJsonObject) -> Result<OwnedEventId, PduError> {
    if version.event_id_is_in_event() {
        return parse_id("event_id", string(event, "event_id")?, EventId::parse);
    }
    let hash = ruma::signatures::reference_hash(event, version.rules()).map_err(PduError::Hash)?;
    parse_id("event_id", &format!("${hash}"), EventId::parse)
}

/// Checks every field of an event without `unsigned` and makes it a [`Pdu`].
pub(super) fn checked(
    version: RoomVersion,
    event_id: OwnedEventId,
    event: &CanonicalJsonObject,
) -> Result<Pdu, PduError> {
    let event_type = string(event, "type")?;
    let kind = TimelineEventType::from(event_type);
    let sender = parse_id("sender", string(event, "sender")?, UserId::parse)?;
    let room_id = room_id_of(version, &kind, &event_id, event)?;
    let state_key = optional_string(event, "state_key")?;
    let prev_events = references(version, event, "prev_events", MAX_PREV_EVENTS)?;
    let auth_events = references(version, event, "auth_events", MAX_AUTH_EVENTS)?;
    let depth = unsigned_integer(event, "depth")?;
    let origin_server_ts = unsigned_integer(event, "origin_server_ts")?;
    let content = object(event, "content")?;
    object(event, "hashes")?;
    object(event, "signatures")?;

    if !version.rules().event_format.allow_room_create_in_auth_events
        && auth_events.iter().any(|id| id.as_str().get(1..) == Some(room_id.strip_sigil()))
    {
        return Err(PduError::CreateInAuthEvents);
    }

    let redacts = match kind {
        TimelineEventType::RoomRedaction => {
            let holder = if version.rules().redaction.content_field_redacts { content } else { event };
            holder.get("redacts").and_then(CanonicalJsonValue::as_str).and_then(|id| EventId::parse(id).ok())
        }
        _ => None,
    };

    let (json, content) = text_of(event);
    if json.len() > MAX_PDU_BYTES {
        return Err(PduError::TooLarge { bytes: json.len() });
    }

    Ok(Pdu {
        inner: Arc::new(Fields {
            room_version: version,
            event_id,
            room_id,
            sender,
            kind,
            event_type: event_type.into(),
            state_key: state_key.map(Into::into),
            origin_server_ts: MilliSecondsSinceUnixEpoch(origin_server_ts),
            depth: depth.into(),
            prev_events,
            auth_events,
            redacts,
            json: json.into(),
            content,
        }),
        rejected: false,
    })
}

/// The canonical text, and where the value of `content` stands in it.
fn text_of(event: &CanonicalJsonObject) -> (String, Range<usize>) {
    let mut text = Vec::with_capacity(1024);
    let mut content = 0..0;
    for (key, value) in event {
        text.push(if text.is_empty() { b'{' } else { b',' });
        write_json(&mut text, key);
        text.push(b':');
        let start = text.len();
        write_json(&mut text, value);
        if key == "content" {
            content = start..text.len();
        }
    }
    text.push(b'}');
    (String::from_utf8(text).expect("serde_json writes UTF-8"), content)
}

fn write_json<T: serde::Serialize + ?Sized>(text: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(text, value).expect("canonical values always serialize, and a Vec takes every write");
}

/// The event's room: from `room_id`, or for a version 12 create event from its own id.
fn room_id_of(
    version: RoomVersion,
    kind: &TimelineEventType,
    event_id: &EventId,
    event: &CanonicalJsonObject,
) -> Result<OwnedRoomId, PduError> {
    if version.room_id_is_create_event_id() && *kind == TimelineEventType::RoomCreate {
        if event.contains_key("room_id") {
            return Err(PduError::CreateHasRoomId);
        }
        return implied_room_id(event_id);
    }
    parse_id("room_id", string(event, "room_id")?, RoomId::parse)
}

fn implied_room_id(create_event_id: &EventId) -> Result<OwnedRoomId, PduError> {
    let hash = create_event_id.as_str().trim_start_matches('$');
    parse_id("room_id", &format!("!{hash}"), RoomId::parse)
}

fn parse_id<'a, T>(
    field: &'static str,
    text: &'a str,
    parse: impl FnOnce(&'a str) -> Result<T, IdParseError>,
) -> Result<T, PduError> {
    parse(text).map_err(|source| PduError::Identifier { field, source })
}

fn string<'a>(event: &'a CanonicalJsonObject, field: &'static str) -> Result<&'a str, PduError> {
    optional_string(event, field)?.ok_or(PduError::Missing { field })
}

/// A string of at most 255 bytes without NUL.
fn optional_string<'a>(event: &'a CanonicalJsonObject, field: &'static str) -> Result<Option<&'a str>, PduError> {
    let Some(value) = event.get(field) else {
        return Ok(None);
    };
    let Some(text) = value.as_str() else {
        return Err(PduError::WrongType { field, expected: "a string" });
    };
    short(field, text)?;
    Ok(Some(text))
}

fn short(field: &'static str, text: &str) -> Result<(), PduError> {
    if text.len() > MAX_ID_BYTES {
        return Err(PduError::TooLong { field, bytes: text.len() });
    }
    if text.contains('\0') {
        return Err(PduError::Nul { field });
    }
    Ok(())
}

fn object<'a>(event: &'a CanonicalJsonObject, field: &'static str) -> Result<&'a CanonicalJsonObject, PduError> {
    match event.get(field) {
        Some(CanonicalJsonValue::Object(object)) => Ok(object),
        Some(_) => Err(PduError::WrongType { field, expected: "an object" }),
        None => Err(PduError::Missing { field }),
    }
}

fn unsigned_integer(event: &CanonicalJsonObject, field: &'static str) -> Result<UInt, PduError> {
    match event.get(field) {
        Some(CanonicalJsonValue::Integer(value)) => {
            UInt::try_from(i64::from(*value)).map_err(|_| PduError::Negative { field })
        }
        Some(_) => Err(PduError::WrongType { field, expected: "an integer" }),
        None => Err(PduError::Missing { field }),
    }
}

/// `prev_events` or `auth_events`: ids, or in room versions 1 and 2 pairs of an id and its hashes.
fn references(
    version: RoomVersion,
    event: &CanonicalJsonObject,
    field: &'static str,
    max: usize,
) -> Result<Box<[OwnedEventId]>, PduError> {
    let list = match event.get(field) {
        Some(CanonicalJsonValue::Array(list)) => list,
        Some(_) => {
            return Err(PduError::WrongType { field, expected: "a list" });
        }
        None => return Err(PduError::Missing { field }),
    };
    if list.len() > max {
        return Err(PduError::TooMany { field, count: list.len(), max });
    }
    list.iter()
        .map(|entry| {
            let id = if version.event_id_is_in_event() {
                entry.as_array().and_then(|pair| pair.first()).and_then(CanonicalJsonValue::as_str)
            } else {
                entry.as_str()
            };
            let id = id.ok_or(PduError::WrongType { field, expected: "a list of event references" })?;
            short(field, id)?;
            parse_id(field, id, EventId::parse)
        })
        .collect()
}

/// Reads back a stored event.
pub(super) fn stored(event_id: OwnedEventId, version: RoomVersion, json: Box<str>) -> Result<Pdu, PduError> {
    let stored: Stored<'_> = serde_json::from_str(&json).map_err(PduError::Damaged)?;
    let content_text = stored.content.get();
    // Both point into the same text, so the difference of their addresses is where the content starts.
    let start = (content_text.as_ptr() as usize).wrapping_sub(json.as_ptr() as usize);
    let content = start..start.wrapping_add(content_text.len());

    let kind = TimelineEventType::from(&*stored.event_type);
    let room_id = match stored.room_id {
        Some(room_id) => room_id,
        None => implied_room_id(&event_id)?,
    };
    let redacts = match kind {
        TimelineEventType::RoomRedaction if version.rules().redaction.content_field_redacts => {
            serde_json::from_str::<Redacts>(content_text).ok().and_then(|content| content.redacts)
        }
        TimelineEventType::RoomRedaction => stored.redacts.and_then(|id| serde_json::from_str(id.get()).ok()),
        _ => None,
    };
    let depth = u64::from(stored.depth);
    debug_assert!(depth <= MAX_DEPTH, "UInt ends at 2^53 - 1");

    let fields = Fields {
        room_version: version,
        event_id,
        room_id,
        sender: stored.sender,
        kind,
        event_type: stored.event_type.as_ref().into(),
        state_key: stored.state_key.map(|key| key.as_ref().into()),
        origin_server_ts: stored.origin_server_ts,
        depth,
        prev_events: stored.prev_events.0,
        auth_events: stored.auth_events.0,
        redacts,
        content,
        json: Box::default(),
    };
    Ok(Pdu { inner: Arc::new(Fields { json, ..fields }), rejected: false })
}

/// The fields of a stored event.
#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    state_key: Option<Cow<'a, str>>,
    sender: OwnedUserId,
    room_id: Option<OwnedRoomId>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: UInt,
    prev_events: References,
    auth_events: References,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Redacts {
    redacts: Option<OwnedEventId>,
}

/// A stored list of event references of either format.
struct References(Box<[OwnedEventId]>);

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let references = Vec::<Reference>::deserialize(deserializer)?;
        Ok(Self(references.into_iter().map(|reference| reference.0).collect()))
    }
}

struct Reference(OwnedEventId);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ReferenceVisitor;

        impl<'de> Visitor<'de> for ReferenceVisitor {
            type Value = Reference;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event id, or a pair of an event id and hashes")
            }

            fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Reference, E> {
                EventId::parse(id).map(Reference).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Reference, A::Error> {
                let id =
                    pair.next_element::<OwnedEventId>()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                while pair.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Reference(id))
            }
        }

        deserializer.deserialize_any(ReferenceVisitor)
    }
}
