//! Writes answers as JSON text. Events are stored as text and copied into the answer; nothing is parsed for it.

use std::{
    collections::HashMap,
    fmt::{Display, Write as _},
    sync::Arc,
};

use ruma::{EventId, TransactionId};
use serde_json::value::RawValue;

use super::shape::EventShape;
use crate::{
    rules::{
        membership::Membership,
        pdu::{ClientFormat, Pdu, Unsigned},
    },
    storage::event_cache::CachedEvent,
};

/// An object that is being written.
pub(super) struct Object<'a> {
    out: &'a mut String,
    is_empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, is_empty: true }
    }

    /// Writes a key and gives the text, for its value.
    pub(super) fn key(&mut self, key: &str) -> &mut String {
        if !self.is_empty {
            self.out.push(',');
        }
        self.is_empty = false;
        push_string(self.out, key);
        self.out.push(':');
        self.out
    }

    pub(super) fn string(&mut self, key: &str, value: &str) {
        push_string(self.key(key), value);
    }

    /// A number or a boolean.
    pub(super) fn plain(&mut self, key: &str, value: impl Display) {
        // Formatting into a String cannot fail.
        let _ = write!(self.key(key), "{value}");
    }

    /// Text that is JSON already.
    pub(super) fn raw(&mut self, key: &str, json: &str) {
        self.key(key).push_str(json);
    }

    /// The text, for whole members that are written already, each with a comma before it.
    pub(super) fn out(&mut self) -> &mut String {
        self.out
    }

    /// `{"events":[…]}`, as most sections of a sync are.
    pub(super) fn events<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut String, T),
    ) {
        let out = self.key(key);
        out.push_str("{\"events\":");
        push_list(out, items, write);
        out.push('}');
    }

    pub(super) fn close(self) {
        self.out.push('}');
    }
}

/// Writes a list.
pub(super) fn push_list<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push(']');
}

/// Writes a string. Most hold nothing that has to be escaped, so that case is one copy.
pub(super) fn push_string(out: &mut String, value: &str) {
    if value.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push('"');
        out.push_str(value);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "\"\"".to_owned()));
    }
}

/// What is told beside events, for one reader at one moment.
#[derive(Default)]
pub(super) struct Extras {
    /// Milliseconds since the epoch.
    pub(super) now_ms: u64,
    /// The state event that each state event replaced, by the number of the latter.
    pub(super) replaced: HashMap<i64, Arc<CachedEvent>>,
    /// Redactions by their id.
    pub(super) redactions: HashMap<String, Arc<CachedEvent>>,
    /// Transaction ids of the reader's own device by event id.
    pub(super) transactions: HashMap<String, String>,
    /// Bundled aggregations by the number of the event they belong to.
    pub(super) relations: HashMap<i64, Box<RawValue>>,
    /// How the reader wants events written, when that is not as usual.
    pub(super) shape: Option<Arc<EventShape>>,
    /// The reader's membership at the time of events, by their number, where it is not `join`.
    memberships: HashMap<i64, Membership>,
}

impl Extras {
    pub(super) fn at(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    /// Notes the reader's membership at the time of an event.
    pub(super) fn note_membership(&mut self, event_nid: i64, membership: Membership) {
        if membership != Membership::Join {
            self.memberships.insert(event_nid, membership);
        }
    }

    /// Writes an event of a timeline.
    pub(super) fn push_event(&self, out: &mut String, event: &CachedEvent, format: ClientFormat) {
        let redaction = event.redacted_by.as_deref().and_then(|id: &EventId| self.redactions.get(id.as_str()));
        let unsigned = Unsigned {
            age: Some(self.age(&event.pdu)),
            transaction_id: self
                .transactions
                .get(event.pdu.event_id().as_str())
                .map(|id| <&TransactionId>::from(id.as_str())),
            membership: Some(self.memberships.get(&event.event_nid).map_or("join", |membership| membership.as_str())),
            replaces: self.replaced.get(&event.event_nid).map(|replaced| &replaced.pdu),
            redacted_because: redaction.map(|redaction| &redaction.pdu),
            relations: self.relations.get(&event.event_nid).map(|relations| &**relations),
            stripped_state: None,
        };
        self.push_shaped(out, &event.pdu, format, &unsigned);
    }

    /// Writes an event as part of a state: without what only timelines tell.
    pub(super) fn push_state_event(&self, out: &mut String, event: &CachedEvent, format: ClientFormat) {
        let redaction = event.redacted_by.as_deref().and_then(|id: &EventId| self.redactions.get(id.as_str()));
        let unsigned = Unsigned {
            age: Some(self.age(&event.pdu)),
            redacted_because: redaction.map(|redaction| &redaction.pdu),
            ..Unsigned::default()
        };
        self.push_shaped(out, &event.pdu, format, &unsigned);
    }

    fn push_shaped(&self, out: &mut String, pdu: &Pdu, format: ClientFormat, unsigned: &Unsigned<'_>) {
        match &self.shape {
            None => pdu.write_client_event(out, format, unsigned),
            Some(shape) => out.push_str(&shape.of(pdu, pdu.to_client_event(format, unsigned))),
        }
    }

    fn age(&self, pdu: &Pdu) -> i64 {
        let sent = i64::try_from(u64::from(pdu.origin_server_ts().0)).unwrap_or(i64::MAX);
        i64::try_from(self.now_ms).unwrap_or(i64::MAX).saturating_sub(sent)
    }
}

/// Writes `{"type":…,"content":…}`, as account data and what passes has it.
pub(super) fn push_plain_event(out: &mut String, event_type: &str, content: &str) {
    let mut object = Object::open(out);
    object.raw("content", content);
    object.string("type", event_type);
    object.close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_json() {
        let mut out = String::new();
        let mut object = Object::open(&mut out);
        object.string("a\"b", "c\\d\n");
        object.plain("n", -5);
        object.events("e", ["x", "y"], push_string);
        object.close();
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(read, serde_json::json!({ "a\"b": "c\\d\n", "n": -5, "e": { "events": ["x", "y"] } }));
    }
}
