//! Writes events as a filter wants them who wants them otherwise than usual: as servers have them, or only some fields.
//!
//! Specification: client-server API, "Filtering": `event_format` and `event_fields`.

use serde_json::{Map, Value};

use crate::rules::pdu::Pdu;

/// How events are written for one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventShape {
    is_federation: bool,
    /// The paths of the fields that are kept; all when absent.
    fields: Option<Vec<Vec<String>>>,
}

impl EventShape {
    /// `None` when events are written as usual.
    pub(super) fn new(is_federation: bool, fields: Option<&[String]>) -> Option<Self> {
        let fields = fields.map(|fields| fields.iter().map(|field| path(field)).collect());
        (is_federation || fields.is_some()).then_some(Self { is_federation, fields })
    }

    /// The event in this shape; `usual` is how it is written usually.
    pub(super) fn of(&self, pdu: &Pdu, usual: String) -> String {
        let Ok(mut event) = serde_json::from_str::<Value>(&usual) else { return usual };
        if self.is_federation
            && let Ok(mut raw) = serde_json::from_str::<Value>(pdu.json())
        {
            // What the server adds for the reader is of no server's making, and comes along all the same.
            if let (Some(raw), Some(unsigned)) = (raw.as_object_mut(), event.get_mut("unsigned")) {
                raw.insert("unsigned".to_owned(), unsigned.take());
            }
            event = raw;
        }
        match &self.fields {
            Some(paths) => Value::Object(pick(&event, paths)).to_string(),
            None => event.to_string(),
        }
    }
}

/// The parts of a path that dots divide; a backslash before a dot or a backslash makes it part of a name.
fn path(field: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = field.chars().peekable();
    while let Some(character) = characters.next() {
        let escaped = (character == '\\').then(|| characters.next_if(|next| matches!(next, '.' | '\\'))).flatten();
        match (character, escaped) {
            ('.', None) => parts.push(String::new()),
            (plain, escaped) => {
                if let Some(part) = parts.last_mut() {
                    part.push(escaped.unwrap_or(plain));
                }
            }
        }
    }
    parts
}

/// What stands at the paths, under the same names.
fn pick(event: &Value, paths: &[Vec<String>]) -> Map<String, Value> {
    let mut picked = Map::new();
    for path in paths {
        let found = path.iter().try_fold(event, |value, name| value.as_object()?.get(name));
        if let Some(found) = found {
            put(&mut picked, path, found.clone());
        }
    }
    picked
}

fn put(into: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            into.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = into.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(inner) = inner.as_object_mut() {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_divided_by_dots_that_are_not_escaped() {
        assert_eq!(path("content.body"), ["content", "body"]);
        assert_eq!(path(r"content.m\.relates_to.a\\.b"), ["content", "m.relates_to", r"a\", "b"]);
        assert_eq!(path(r"a\b"), [r"a\b"]);
    }

    #[test]
    fn only_what_is_named_is_kept_and_what_is_not_there_is_no_matter() {
        let event = json!({ "type": "t", "content": { "body": "b", "m.x": { "y": 1, "z": 2 } }, "sender": "s" });
        let paths = ["type", "content.body", r"content.m\.x.y", "content.none", "sender.none", "none"].map(path);
        let expected = json!({ "type": "t", "content": { "body": "b", "m.x": { "y": 1 } } });
        assert_eq!(Value::Object(pick(&event, &paths)), expected);
        // A whole field stays whole, whatever is named of it beside.
        let paths = ["content", "content.body"].map(path);
        assert_eq!(Value::Object(pick(&event, &paths)), json!({ "content": event["content"] }));
        assert_eq!(Value::Object(pick(&event, &[])), json!({}));
    }
}
