//! What a shard is told about a request, and what is removed from what comes from outside.

use gatehouse_shared::contract::{
    CLIENT, ClusterSecret, HEADER_PREFIX, HOST, MAC, REQUEST_ID, SCHEME, Scheme, Signed, TRACEPARENT,
};
use http::{HeaderName, HeaderValue};
use pingora_error::Result;
use pingora_http::RequestHeader;

use crate::answer_head::AnswerHead;

/// Headers by which other proxies forward what this edge finds out itself.
const FORWARDING: [&str; 2] = ["forwarded", "x-real-ip"];
const FORWARDING_PREFIX: &str = "x-forwarded-";

/// Whether a header from outside must not reach a shard.
fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with(HEADER_PREFIX) || name.starts_with(FORWARDING_PREFIX) || FORWARDING.contains(&name)
}

/// Removes everything that only the edge may say.
pub(crate) fn strip(request: &mut RequestHeader) {
    // Allocates nothing for the requests that carry none of them, which is nearly all.
    let forged: Vec<HeaderName> = request.headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in forged {
        request.remove_header(&name);
    }
}

/// Removes what of the contract is among the headers of an answer, which must not leave the edge.
pub(crate) fn strip_answer(response: &mut AnswerHead) {
    response.fields.retain(|name| !name.as_str().starts_with(HEADER_PREFIX));
}

/// What the edge says about a request, as lines of a head; made once and sent with every attempt.
#[derive(Debug)]
pub(crate) struct Vouched(String);

/// What goes into [`Vouched`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'r> {
    pub(crate) scheme: Scheme,
    pub(crate) host: &'r str,
    pub(crate) request_id: &'r str,
    pub(crate) traceparent: &'r str,
    pub(crate) method: &'r str,
    pub(crate) target: &'r str,
}

impl Vouched {
    /// Signs the facts about a request of `client`, a canonical address. `None` when one of them cannot be written in a
    /// header, which checked facts always can.
    pub(crate) fn new(client: &str, facts: Facts<'_>, secret: &ClusterSecret) -> Option<Self> {
        let Facts { scheme, host, request_id, traceparent, method, target } = facts;
        let scheme = scheme.as_str();
        let mac = Signed { client, scheme, host, request_id, traceparent, method, target }.sign(secret);
        let fields = [
            (CLIENT, client),
            (SCHEME, scheme),
            (HOST, host),
            (REQUEST_ID, request_id),
            (TRACEPARENT, traceparent),
            (MAC, mac.as_str()),
        ];
        // Not `any`, which looks at one byte after the other.
        let is_line = |value: &str| !value.bytes().fold(false, |any, byte| any | byte.is_ascii_control());
        if !fields.iter().all(|(_, value)| is_line(value)) {
            return None;
        }
        let bytes = fields.iter().map(|(name, value)| name.len() + value.len() + ": \r\n".len()).sum();
        let mut lines = String::with_capacity(bytes);
        for (name, value) in fields {
            for part in [name, ": ", value, "\r\n"] {
                lines.push_str(part);
            }
        }
        Some(Self(lines))
    }

    /// The lines, each with its end.
    pub(crate) fn lines(&self) -> &str {
        &self.0
    }

    /// Puts them on an attempt of Pingora's, in the place of anything that bears their names.
    pub(crate) fn put_on(&self, request: &mut RequestHeader) -> Result<()> {
        let fields = self.0.split_terminator("\r\n").filter_map(|line| line.split_once(": "));
        for (name, value) in fields {
            request.insert_header(name.to_owned(), value)?;
        }
        Ok(())
    }
}

/// What another server than a shard is told about a request, in the words that such servers know.
#[derive(Debug)]
pub(crate) struct Announced([(&'static str, HeaderValue); 5]);

impl Announced {
    /// `None` when one of the facts cannot be written in a header, which checked facts always can.
    pub(crate) fn new(client: &str, facts: Facts<'_>) -> Option<Self> {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        Some(Self([
            ("x-forwarded-for", value(client)?),
            ("x-forwarded-proto", HeaderValue::from_static(facts.scheme.as_str())),
            ("x-forwarded-host", value(facts.host)?),
            ("x-request-id", value(facts.request_id)?),
            (TRACEPARENT, value(facts.traceparent)?),
        ]))
    }

    /// Puts them on an attempt, in the place of anything that bears their names.
    pub(crate) fn put_on(&self, request: &mut RequestHeader) -> Result<()> {
        self.0.iter().try_for_each(|(name, value)| request.insert_header(*name, value.clone()))
    }
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::config::Secret;
    use gatehouse_shared::contract::verify;

    use super::*;

    #[test]
    fn forged_headers_are_removed_whatever_their_case() {
        let mut request = RequestHeader::build("GET", b"/_matrix/client/versions", None).unwrap();
        for name in ["X-Gatehouse-Client", "x-gatehouse-anything", "X-Forwarded-For", "Forwarded", "X-Real-IP"] {
            request.append_header(name, "192.0.2.1").unwrap();
            request.append_header(name, "192.0.2.2").unwrap();
        }
        request.append_header("Authorization", "Bearer x").unwrap();
        strip(&mut request);
        assert_eq!(request.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["authorization"]);
    }

    #[test]
    fn a_shard_believes_what_is_vouched_for() {
        let secret = ClusterSecret::new(&Secret::new("0123456789abcdef0123456789abcdef")).unwrap();
        let target = "/_matrix//client/%2e%2e/x?y=%20";
        let mut request = RequestHeader::build("PUT", target.as_bytes(), None).unwrap();
        let facts = Facts {
            scheme: Scheme::Https,
            host: "example.org",
            request_id: "r1",
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            method: "PUT",
            target,
        };
        Vouched::new("2001:db8::1", facts, &secret).unwrap().put_on(&mut request).unwrap();
        let forwarded = verify(&secret, &request.method, &request.uri, &request.headers).unwrap();
        assert_eq!(forwarded.client.to_string(), "2001:db8::1");
        assert_eq!(forwarded.request_id, "r1");
    }
}
