//! The one way to write JSON that signatures are made over (appendix "Canonical JSON").

use serde_json::{Map, Value};

/// Integers beyond this are not in canonical JSON.
const LARGEST: u64 = (1 << 53) - 1;
/// A document of keys nests a few levels; what nests further is no such document.
const DEEPEST: usize = 32;

/// `object` without its `signatures` and `unsigned`, as it is signed; `None` for what has no canonical form.
pub(crate) fn signed_bytes(object: &Map<String, Value>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let signed = object.iter().filter(|(key, _)| !matches!(key.as_str(), "signatures" | "unsigned"));
    write_object(signed, DEEPEST, &mut bytes)?;
    Some(bytes)
}

fn write_object<'a>(
    members: impl Iterator<Item = (&'a String, &'a Value)>,
    depth: usize,
    bytes: &mut Vec<u8>,
) -> Option<()> {
    // The map may be in any order, which depends on how the library was built. Bytes of UTF-8 are in the order of code points.
    let mut members: Vec<_> = members.collect();
    members.sort_by_key(|(key, _)| *key);
    bytes.push(b'{');
    for (index, (key, value)) in members.into_iter().enumerate() {
        if index > 0 {
            bytes.push(b',');
        }
        write_string(key, bytes);
        bytes.push(b':');
        write(value, depth.checked_sub(1)?, bytes)?;
    }
    bytes.push(b'}');
    Some(())
}

fn write(value: &Value, depth: usize, bytes: &mut Vec<u8>) -> Option<()> {
    match value {
        Value::Null => bytes.extend_from_slice(b"null"),
        Value::Bool(true) => bytes.extend_from_slice(b"true"),
        Value::Bool(false) => bytes.extend_from_slice(b"false"),
        Value::Number(number) => {
            let size = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs))?;
            if size > LARGEST {
                return None;
            }
            bytes.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_string(text, bytes),
        Value::Array(items) => {
            bytes.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    bytes.push(b',');
                }
                write(item, depth.checked_sub(1)?, bytes)?;
            }
            bytes.push(b']');
        }
        Value::Object(members) => write_object(members.iter(), depth, bytes)?,
    }
    Some(())
}

/// The library's own escapes are the shortest ones, which is what is asked for.
fn write_string(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(Value::from(text).to_string().as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(json: &str) -> Option<String> {
        let object: Map<String, Value> = serde_json::from_str(json).unwrap();
        signed_bytes(&object).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn examples_of_the_specification() {
        assert_eq!(canonical("{}").unwrap(), "{}");
        assert_eq!(canonical(r#"{ "one": 1, "two": "Two" }"#).unwrap(), r#"{"one":1,"two":"Two"}"#);
        assert_eq!(canonical(r#"{"b": "2", "a": "1"}"#).unwrap(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(canonical(r#"{"本": 2, "日": 1}"#).unwrap(), r#"{"日":1,"本":2}"#);
        assert_eq!(canonical(r#"{"a": "\u65E5"}"#).unwrap(), r#"{"a":"日"}"#);
        assert_eq!(
            canonical(r#"{"a": null, "c": [1, {"z": -1, "y": true}]}"#).unwrap(),
            r#"{"a":null,"c":[1,{"y":true,"z":-1}]}"#
        );
    }

    #[test]
    fn signatures_are_left_out_and_what_is_not_canonical_has_no_form() {
        assert_eq!(canonical(r#"{"a":1,"signatures":{},"unsigned":1.5}"#).unwrap(), r#"{"a":1}"#);
        assert_eq!(canonical(r#"{"a":1.5}"#), None);
        assert_eq!(canonical(r#"{"a":9007199254740992}"#), None);
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        assert_eq!(canonical(&deep), None);
    }
}
