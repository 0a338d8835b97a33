//! Decides whether one push rule matches one event.
//!
//! Specification: client-server API, "Conditions for push rules".

use std::borrow::Cow;

use ruma::{
    UInt,
    power_levels::NotificationPowerLevelsKey,
    push::{AnyPushRuleRef, PushCondition, ScalarJsonValue},
};
use serde_json::Value;

use super::{PreparedEvent, Reader, glob};

/// The one field whose patterns match words instead of the whole value.
const BODY: &str = "content.body";

/// A value of the event.
enum Field<'a> {
    Text(&'a str),
    Json(&'a Value),
}

impl PreparedEvent<'_> {
    /// Whether a rule matches, enabled or not.
    pub(super) fn matches(&self, rule: AnyPushRuleRef<'_>, reader: Reader<'_>) -> bool {
        match rule {
            AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
                rule.conditions.iter().all(|condition| self.meets(condition, reader))
            }
            AnyPushRuleRef::Content(rule) => self.text_matches(BODY, &rule.pattern),
            AnyPushRuleRef::Room(rule) => rule.rule_id == self.pdu.room_id(),
            AnyPushRuleRef::Sender(rule) => rule.rule_id == self.pdu.sender(),
            // A kind that this server does not know has no meaning.
            _ => false,
        }
    }

    #[expect(deprecated, reason = "clients may still add rules with `contains_display_name`")]
    fn meets(&self, condition: &PushCondition, reader: Reader<'_>) -> bool {
        match condition {
            PushCondition::EventMatch(data) => self.text_matches(&data.key, &data.pattern),
            PushCondition::ContainsDisplayName => reader
                .display_name
                .zip(self.lower_case_body())
                .is_some_and(|(name, body)| glob::contains_literal_words(name, body)),
            PushCondition::RoomMemberCount(data) => {
                let count = UInt::try_from(self.room.member_count).unwrap_or(UInt::MAX);
                std::ops::RangeBounds::contains(&data.is, &count)
            }
            PushCondition::SenderNotificationPermission(data) => {
                data.key == NotificationPowerLevelsKey::Room && self.room.sender_can_notify_room
            }
            PushCondition::EventPropertyIs(data) => {
                self.field(&data.key).is_some_and(|field| is_scalar(&field, &data.value))
            }
            PushCondition::EventPropertyContains(data) => match self.field(&data.key) {
                Some(Field::Json(Value::Array(entries))) => {
                    entries.iter().any(|entry| is_scalar(&Field::Json(entry), &data.value))
                }
                _ => false,
            },
            // A condition that is not understood does not match.
            _ => false,
        }
    }

    fn text_matches(&self, key: &str, pattern: &str) -> bool {
        if key == BODY {
            return self.lower_case_body().is_some_and(|body| glob::contains_words(pattern, body));
        }
        self.text(key).is_some_and(|text| glob::matches_whole(pattern, text))
    }

    fn lower_case_body(&self) -> Option<&str> {
        self.lower_case_body.get_or_init(|| self.text(BODY).map(str::to_lowercase)).as_deref()
    }

    fn text(&self, key: &str) -> Option<&str> {
        match self.field(key)? {
            Field::Text(text) => Some(text),
            Field::Json(value) => value.as_str(),
        }
    }

    /// The value at a dotted path, where `\.` and `\\` stand for a dot and a backslash in a name.
    fn field(&self, key: &str) -> Option<Field<'_>> {
        let mut names = PathNames(Some(key));
        let root = names.next()?;
        if root == "content" {
            let mut value = self.content.get(&*names.next()?)?;
            for name in names {
                value = value.get(&*name)?;
            }
            return Some(Field::Json(value));
        }
        if names.next().is_some() {
            return None;
        }
        let text = match &*root {
            "type" => self.pdu.event_type(),
            "sender" => self.pdu.sender().as_str(),
            "room_id" => self.pdu.room_id().as_str(),
            "event_id" => self.pdu.event_id().as_str(),
            "state_key" => self.pdu.state_key()?,
            "redacts" => self.pdu.redacts()?.as_str(),
            _ => return None,
        };
        Some(Field::Text(text))
    }
}

fn is_scalar(field: &Field<'_>, expected: &ScalarJsonValue) -> bool {
    let value = match field {
        Field::Text(text) => return expected.as_str() == Some(text),
        Field::Json(value) => value,
    };
    match expected {
        ScalarJsonValue::Null => value.is_null(),
        ScalarJsonValue::Bool(expected) => value.as_bool() == Some(*expected),
        ScalarJsonValue::Integer(expected) => value.as_i64() == Some(i64::from(*expected)),
        ScalarJsonValue::String(expected) => value.as_str() == Some(expected),
    }
}

/// The names of a dotted path.
struct PathNames<'a>(Option<&'a str>);

impl<'a> Iterator for PathNames<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        let rest = self.0.take()?;
        let mut escaped = false;
        let dot = rest.bytes().position(|byte| {
            let ends = byte == b'.' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let name = match dot.and_then(|dot| rest.split_at_checked(dot)) {
            Some((name, after)) => {
                self.0 = after.get(1..);
                name
            }
            None => rest,
        };
        Some(if name.contains('\\') { Cow::Owned(unescape(name)) } else { Cow::Borrowed(name) })
    }
}

fn unescape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match chars.peek() {
            Some(&next @ ('.' | '\\')) if char == '\\' => {
                out.push(next);
                chars.next();
            }
            _ => out.push(char),
        }
    }
    out
}
