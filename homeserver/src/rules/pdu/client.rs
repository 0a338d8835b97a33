//! Decides how clients see an event. Assembles text; parses nothing.
//!
//! Specification: client-server API, "Room event format", and the compatibility notes for `redacts` at
//! `m.room.redaction`.

use std::fmt::Write as _;

use ruma::{EventId, TransactionId};
use serde_json::value::RawValue;

use super::Pdu;

/// Which of the two client formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFormat {
    /// As in `/sync`: without `room_id`, which the response's structure gives.
    Sync,
    /// As everywhere else: with `room_id`.
    Full,
}

/// What the server adds about an event for one reader. Absent fields are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsigned<'a> {
    /// Milliseconds since the event was sent.
    pub age: Option<i64>,
    /// The transaction id, for the device that sent the event.
    pub transaction_id: Option<&'a TransactionId>,
    /// The reader's membership at the time of the event.
    pub membership: Option<&'a str>,
    /// The state event that this one replaced: gives `prev_content`, `prev_sender` and `replaces_state`.
    pub replaces: Option<&'a Pdu>,
    /// The redaction that took this event's content away.
    pub redacted_because: Option<&'a Pdu>,
    /// Bundled aggregations, `m.relations`, as JSON.
    pub relations: Option<&'a RawValue>,
    /// `invite_room_state` or `knock_room_state` with its JSON.
    pub stripped_state: Option<(&'static str, &'a RawValue)>,
}

impl Unsigned<'_> {
    fn is_empty(&self) -> bool {
        self.age.is_none()
            && self.transaction_id.is_none()
            && self.membership.is_none()
            && self.replaces.is_none()
            && self.redacted_because.is_none()
            && self.relations.is_none()
            && self.stripped_state.is_none()
    }
}

impl Pdu {
    /// Appends the event in a client format to `out`.
    pub fn write_client_event(&self, out: &mut String, format: ClientFormat, unsigned: &Unsigned<'_>) {
        out.reserve(self.content_json().len() + 256);
        out.push_str("{\"content\":");
        self.write_content(out);
        write_string_field(out, "event_id", self.event_id().as_str());
        // Formatting into a String cannot fail.
        let _ = write!(out, ",\"origin_server_ts\":{}", self.origin_server_ts().get());
        if let Some(redacts) = self.redacts() {
            write_string_field(out, "redacts", redacts.as_str());
        }
        if format == ClientFormat::Full {
            write_string_field(out, "room_id", self.room_id().as_str());
        }
        write_string_field(out, "sender", self.sender().as_str());
        if let Some(state_key) = self.state_key() {
            write_string_field(out, "state_key", state_key);
        }
        write_string_field(out, "type", self.event_type());
        if !unsigned.is_empty() {
            write_unsigned(out, unsigned);
        }
        out.push('}');
    }

    /// The event in a client format as a text of its own.
    pub fn to_client_event(&self, format: ClientFormat, unsigned: &Unsigned<'_>) -> String {
        let mut out = String::new();
        self.write_client_event(&mut out, format, unsigned);
        out
    }

    /// The event in a client format as raw JSON, for ruma's `Raw<T>`. Scans the text once more than
    /// [`Pdu::write_client_event`].
    pub fn to_raw_client_event(&self, format: ClientFormat, unsigned: &Unsigned<'_>) -> Box<RawValue> {
        RawValue::from_string(self.to_client_event(format, unsigned)).expect("assembled from JSON values")
    }

    /// `content`; in redactions of old room versions with `redacts` in it, where newer clients look.
    fn write_content(&self, out: &mut String) {
        match self.redacts() {
            Some(redacts) if !self.room_version().rules().redaction.content_field_redacts => {
                let mut content = self.content_as::<serde_json::Map<_, _>>().unwrap_or_default();
                content.insert("redacts".to_owned(), redacts.as_str().into());
                out.push_str(&serde_json::Value::Object(content).to_string());
            }
            _ => out.push_str(self.content_json()),
        }
    }
}

fn write_unsigned(out: &mut String, unsigned: &Unsigned<'_>) {
    out.push_str(",\"unsigned\":{");
    let start = out.len();
    if let Some(age) = unsigned.age {
        write_key(out, start, "age");
        let _ = write!(out, "{age}");
    }
    if let Some((key, state)) = unsigned.stripped_state {
        write_key(out, start, key);
        out.push_str(state.get());
    }
    if let Some(relations) = unsigned.relations {
        write_key(out, start, "m.relations");
        out.push_str(relations.get());
    }
    if let Some(membership) = unsigned.membership {
        write_key(out, start, "membership");
        write_string(out, membership);
    }
    if let Some(replaced) = unsigned.replaces {
        write_key(out, start, "prev_content");
        out.push_str(replaced.content_json());
        write_key(out, start, "prev_sender");
        write_string(out, replaced.sender().as_str());
        write_key(out, start, "replaces_state");
        write_string(out, EventId::as_str(replaced.event_id()));
    }
    if let Some(redaction) = unsigned.redacted_because {
        write_key(out, start, "redacted_because");
        redaction.write_client_event(out, ClientFormat::Full, &Unsigned::default());
    }
    if let Some(transaction_id) = unsigned.transaction_id {
        write_key(out, start, "transaction_id");
        write_string(out, transaction_id.as_str());
    }
    out.push('}');
}

fn write_key(out: &mut String, start: usize, key: &str) {
    if out.len() > start {
        out.push(',');
    }
    out.push('"');
    out.push_str(key);
    out.push_str("\":");
}

fn write_string_field(out: &mut String, key: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
    write_string(out, value);
}

/// Writes a JSON string. Identifiers rarely need escaping, so that case is one copy.
fn write_string(out: &mut String, value: &str) {
    if value.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(value).expect("a string always serializes"));
    }
}
