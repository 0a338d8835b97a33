//! Decides what a client's filter lets through.
//!
//! Specification: client-server API, "Filtering".

use std::{collections::HashSet, sync::Arc};

use ruma::api::client::filter::{EventFormat, Filter, FilterDefinition, LazyLoadOptions, RoomEventFilter, UrlFilter};
use serde::{Deserialize, de::IgnoredAny};

use super::shape::EventShape;
use crate::rules::pdu::Pdu;

/// Events of a timeline when the client asks for no number.
const DEFAULT_LIMIT: usize = 10;
/// The most events of a timeline, whatever the client asks for.
const MAX_LIMIT: usize = 500;

/// A client's filter, ready for use.
#[derive(Clone, Debug, Default)]
pub struct SyncFilter {
    rooms: Names,
    pub(super) include_leave: bool,
    pub(super) timeline: EventFilter,
    pub(super) state: EventFilter,
    pub(super) ephemeral: EventFilter,
    pub(super) room_account_data: EventFilter,
    pub(super) account_data: EventFilter,
    pub(super) presence: EventFilter,
    pub(super) lazy: LazyLoading,
    pub(super) separates_threads: bool,
    /// How events are written; `None` for as they usually are.
    pub(super) shape: Option<Arc<EventShape>>,
}

/// Whether memberships are sent only for users whose events are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LazyLoading {
    /// All memberships are sent.
    #[default]
    Off,
    /// Those that the device was not sent before.
    New,
    /// Each time all that are needed.
    Redundant,
}

impl From<&FilterDefinition> for SyncFilter {
    fn from(definition: &FilterDefinition) -> Self {
        let room = &definition.room;
        Self {
            rooms: Names::new(room.rooms.as_deref(), &room.not_rooms),
            include_leave: room.include_leave,
            timeline: EventFilter::from(&room.timeline),
            state: EventFilter::from(&room.state),
            ephemeral: EventFilter::from(&room.ephemeral),
            room_account_data: EventFilter::from(&room.account_data),
            account_data: EventFilter::from(&definition.account_data),
            presence: EventFilter::from(&definition.presence),
            lazy: LazyLoading::from(&room.state.lazy_load_options),
            separates_threads: room.timeline.unread_thread_notifications,
            shape: EventShape::new(
                definition.event_format == EventFormat::Federation,
                definition.event_fields.as_deref(),
            )
            .map(Arc::new),
        }
    }
}

impl SyncFilter {
    pub(super) fn allows_room(&self, room_id: &str) -> bool {
        self.rooms.allow(room_id)
    }
}

impl From<&LazyLoadOptions> for LazyLoading {
    fn from(options: &LazyLoadOptions) -> Self {
        match options {
            LazyLoadOptions::Enabled { include_redundant_members: true } => Self::Redundant,
            LazyLoadOptions::Enabled { .. } => Self::New,
            _ => Self::Off,
        }
    }
}

/// What is let through of one kind of events.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    types: Option<Vec<String>>,
    not_types: Vec<String>,
    senders: Names,
    rooms: Names,
    contains_url: Option<bool>,
    limit: Option<usize>,
}

impl From<&RoomEventFilter> for EventFilter {
    fn from(filter: &RoomEventFilter) -> Self {
        Self {
            types: filter.types.clone(),
            not_types: filter.not_types.clone(),
            senders: Names::new(filter.senders.as_deref(), &filter.not_senders),
            rooms: Names::new(filter.rooms.as_deref(), &filter.not_rooms),
            contains_url: filter.url_filter.map(|url| url == UrlFilter::EventsWithUrl),
            limit: filter.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)),
        }
    }
}

impl From<&Filter> for EventFilter {
    fn from(filter: &Filter) -> Self {
        Self {
            types: filter.types.clone(),
            not_types: filter.not_types.clone(),
            senders: Names::new(filter.senders.as_deref(), &filter.not_senders),
            rooms: Names::default(),
            contains_url: None,
            limit: filter.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)),
        }
    }
}

impl EventFilter {
    /// How many events a timeline has at most.
    pub(super) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT)
    }

    pub(super) fn allows_room(&self, room_id: &str) -> bool {
        self.rooms.allow(room_id)
    }

    pub(super) fn allows_sender(&self, sender: &str) -> bool {
        self.senders.allow(sender)
    }

    /// Whether events of that type can pass. A type that is named and excluded is excluded.
    pub(super) fn allows_type(&self, event_type: &str) -> bool {
        let matches = |patterns: &[String]| patterns.iter().any(|pattern| matches_pattern(pattern, event_type));
        self.types.as_deref().is_none_or(matches) && !matches(&self.not_types)
    }

    /// Whether an event of a room that passes can pass.
    pub(super) fn allows(&self, event: &Pdu) -> bool {
        self.allows_type(event.event_type())
            && self.allows_sender(event.sender().as_str())
            && self.contains_url.is_none_or(|wanted| contains_url(event) == wanted)
    }
}

/// A list of what is in and a list of what is out.
#[derive(Clone, Debug, Default)]
struct Names {
    only: Option<HashSet<String>>,
    not: HashSet<String>,
}

impl Names {
    fn new<T: ToString>(only: Option<&[T]>, not: &[T]) -> Self {
        let set = |names: &[T]| names.iter().map(ToString::to_string).collect();
        Self { only: only.map(set), not: set(not) }
    }

    fn allow(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(name)) && !self.not.contains(name)
    }
}

/// Whether `text` matches a pattern in which `*` stands for any sequence of characters.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(prefix) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(start) => text = text.get(start + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    true
}

fn contains_url(event: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        url: Option<IgnoredAny>,
    }
    event.content_json().contains("\"url\"") && event.content_as::<Content>().is_ok_and(|content| content.url.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn filter(definition: Value) -> SyncFilter {
        SyncFilter::from(&from_value::<FilterDefinition>(definition).unwrap())
    }

    #[test]
    fn patterns_match_any_sequence() {
        for (pattern, text) in [
            ("m.room.message", "m.room.message"),
            ("m.room.*", "m.room.message"),
            ("*", ""),
            ("*.message", "m.room.message"),
            ("m.*.mess*e", "m.room.message"),
            ("m*m*", "m.m"),
        ] {
            assert!(matches_pattern(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("m.room", "m.room.message"), ("m.room.*.x", "m.room.x"), ("a*a", "a"), ("*b", "a")] {
            assert!(!matches_pattern(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_excluded_is_excluded_even_when_named() {
        let filter = filter(json!({ "room": {
            "rooms": ["!a:x.org", "!b:x.org"], "not_rooms": ["!b:x.org"],
            "timeline": { "types": ["m.room.*"], "not_types": ["m.room.member"], "limit": 3 },
        }}));
        assert!(filter.allows_room("!a:x.org") && !filter.allows_room("!b:x.org") && !filter.allows_room("!c:x.org"));
        assert!(filter.timeline.allows_type("m.room.name"));
        assert!(!filter.timeline.allows_type("m.room.member") && !filter.timeline.allows_type("m.reaction"));
        assert_eq!(filter.timeline.limit(), 3);
        assert_eq!(filter.state.limit(), DEFAULT_LIMIT);
    }

    #[test]
    fn an_empty_list_lets_nothing_through() {
        let filter = filter(json!({ "presence": { "types": [] }, "room": { "timeline": { "senders": [] } } }));
        assert!(!filter.presence.allows_type("m.presence"));
        assert!(!filter.timeline.allows_sender("@a:x.org"));
    }
}
