//! The head of an answer, before any protocol has a say in it.

use std::ops::Range;

use bytes::Bytes;
use http::header::{CONNECTION, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// What concerns one connection alone (RFC 9110, section 7.6.1).
pub(crate) const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    PROXY_AUTHENTICATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Status and fields.
#[derive(Debug, Clone)]
pub(crate) struct AnswerHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
}

impl AnswerHead {
    /// A head without fields, with room for so many.
    pub(crate) fn new(status: StatusCode, fields: usize) -> Self {
        Self { status, fields: Fields::new(Bytes::new(), fields) }
    }

    /// As the libraries want it.
    ///
    /// # Errors
    /// When a field of a shard's is none for them.
    pub(crate) fn into_parts(self) -> Result<Parts, http::Error> {
        let mut parts = Response::new(()).into_parts().0;
        parts.status = self.status;
        parts.headers = self.fields.into_map()?;
        Ok(parts)
    }
}

impl From<Parts> for AnswerHead {
    fn from(parts: Parts) -> Self {
        let mut head = Self::new(parts.status, parts.headers.len());
        for (name, value) in &parts.headers {
            head.fields.append(name.clone(), value.clone());
        }
        head
    }
}

/// The fields of an answer in the order in which they are written, of which there are about a dozen: to make a map of them, and
/// values that live by themselves, takes longer than all the searches that follow.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    /// What a shard wrote.
    wire: Bytes,
    fields: Vec<(HeaderName, Value)>,
}

#[derive(Debug, Clone)]
enum Value {
    /// A part of the wire.
    Written(Range<u32>),
    Added(HeaderValue),
}

impl Fields {
    /// Without fields, with room for so many.
    pub(crate) fn new(wire: Bytes, fields: usize) -> Self {
        Self { wire, fields: Vec::with_capacity(fields) }
    }

    /// Adds a field whose value is a part of the wire, and was checked.
    pub(crate) fn append_written(&mut self, name: HeaderName, value: &[u8]) {
        self.fields.push((name, Value::Written(range_within(&self.wire, value))));
    }

    /// Adds a field, beside others of its name.
    pub(crate) fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.fields.push((name, Value::Added(value)));
    }

    /// Puts a field in the place of all others of its name.
    pub(crate) fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.append(name, value);
    }

    pub(crate) fn remove(&mut self, name: &HeaderName) {
        self.retain(|other| other != name);
    }

    /// Keeps the fields whose names `keeps` likes.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&HeaderName) -> bool) {
        if !self.fields.iter().all(|(name, _)| keeps(name)) {
            self.fields.retain(|(name, _)| keeps(name));
        }
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.fields.iter().any(|(other, _)| other == name)
    }

    /// The first value of this name.
    pub(crate) fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.iter().find_map(|(other, value)| (other == name).then_some(value))
    }

    /// The first value of this name; empty where there is none, or it is no text.
    pub(crate) fn text(&self, name: &HeaderName) -> &str {
        self.get(name).and_then(|value| str::from_utf8(value).ok()).unwrap_or_default()
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        self.fields.iter().map(|(name, value)| (name, value.bytes(&self.wire)))
    }

    fn into_map(self) -> Result<HeaderMap, http::Error> {
        let mut map = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in self.fields {
            let value = match value {
                Value::Added(value) => value,
                written => HeaderValue::from_maybe_shared(self.wire.slice_ref(written.bytes(&self.wire)))?,
            };
            map.append(name, value);
        }
        Ok(map)
    }
}

impl Extend<(HeaderName, HeaderValue)> for Fields {
    /// Adds each, beside others of its name.
    fn extend<I: IntoIterator<Item = (HeaderName, HeaderValue)>>(&mut self, fields: I) {
        self.fields.extend(fields.into_iter().map(|(name, value)| (name, Value::Added(value))));
    }
}

impl Value {
    fn bytes<'v>(&'v self, wire: &'v [u8]) -> &'v [u8] {
        match self {
            Self::Written(at) => wire.get(at.start as usize..at.end as usize).unwrap_or_default(),
            Self::Added(value) => value.as_bytes(),
        }
    }
}

/// Where a part of `wire` lies in it; nowhere, if it is none.
fn range_within(wire: &[u8], part: &[u8]) -> Range<u32> {
    let start = (part.as_ptr() as usize).wrapping_sub(wire.as_ptr() as usize);
    let range = u32::try_from(start).ok().zip(u32::try_from(start.saturating_add(part.len())).ok());
    range.filter(|(_, end)| *end as usize <= wire.len()).map_or(0..0, |(start, end)| start..end)
}

#[cfg(test)]
mod tests {
    use http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};

    use super::*;

    const X_A: HeaderName = HeaderName::from_static("x-a");

    /// A head with these lines.
    fn read(lines: &[(&str, &str)]) -> AnswerHead {
        let wire: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let wire = Bytes::from(wire);
        let mut fields = Fields::new(wire.clone(), lines.len());
        for line in wire.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r")) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap();
            fields.append_written(HeaderName::from_bytes(&line[..colon]).unwrap(), &line[colon + 2..]);
        }
        AnswerHead { status: StatusCode::OK, fields }
    }

    fn written(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn fields_are_found_changed_and_written_in_their_order() {
        let lines = [("content-type", "text/plain"), ("vary", "origin"), ("vary", "cookie"), ("x-a", "é")];
        let AnswerHead { mut fields, .. } = read(&lines);
        assert_eq!(written(&fields), pairs(&lines));
        assert_eq!((fields.text(&CONTENT_TYPE), fields.text(&CACHE_CONTROL)), ("text/plain", ""));
        assert!(fields.contains(&X_A) && !fields.contains(&CACHE_CONTROL));
        fields.append(VARY, HeaderValue::from_static("accept"));
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        fields.remove(&X_A);
        let changed = [("vary", "origin"), ("vary", "cookie"), ("vary", "accept"), ("content-type", "text/html")];
        assert_eq!(written(&fields), pairs(&changed));
        fields.insert(VARY, HeaderValue::from_static("*"));
        assert_eq!(written(&fields), pairs(&[("content-type", "text/html"), ("vary", "*")]));
        fields.retain(|name| !name.as_str().starts_with("va"));
        assert_eq!(written(&fields), pairs(&[("content-type", "text/html")]));
    }

    #[test]
    fn the_libraries_get_the_same_fields() {
        let mut head = read(&[("x-a", "1"), ("x-a", "2"), ("vary", "*")]);
        head.fields.append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let parts = head.clone().into_parts().unwrap();
        assert_eq!(parts.headers.get_all(X_A).iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(parts.headers.len(), 4);
        let again = AnswerHead::from(parts);
        assert_eq!(again.fields.text(&VARY), "*");
        assert_eq!(written(&again.fields).len(), 4);
    }

    #[test]
    fn what_is_no_part_of_the_wire_is_nothing() {
        let mut fields = Fields::new(Bytes::from_static(b"a: 1\r\n"), 1);
        fields.append_written(X_A, b"2");
        assert_eq!(written(&fields), pairs(&[("x-a", "")]));
    }
}
