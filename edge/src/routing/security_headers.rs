//! What browsers are told beside an answer: by kind of answer, and never in the place of what the answer says itself.

use std::net::IpAddr;

use http::header::{
    CONTENT_SECURITY_POLICY, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::routes::without_port;

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A shard's or the edge's own: JSON mostly.
    Matrix,
    /// A file that some user uploaded.
    Media,
    /// A file of a static folder.
    Static,
    /// Of another server, which knows best what its pages need: it is only said that HTTPS stays.
    Foreign,
}

/// The headers of each kind, written once.
#[derive(Debug)]
pub(crate) struct SecurityHeaders {
    hsts: Option<HeaderValue>,
    matrix: Vec<(HeaderName, HeaderValue)>,
    media: Vec<(HeaderName, HeaderValue)>,
    files: Vec<(HeaderName, HeaderValue)>,
}

impl SecurityHeaders {
    /// `hsts` is a whole value; empty policies are left out.
    pub(crate) fn new(
        hsts: Option<HeaderValue>,
        static_policy: Option<HeaderValue>,
        media_policy: Option<HeaderValue>,
    ) -> Self {
        let base = [
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            // URLs of media and of logins hold what other sites need not see.
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        let with = |policy: Option<HeaderValue>| {
            let policy = policy.map(|policy| (CONTENT_SECURITY_POLICY, policy));
            base.iter().cloned().chain(policy).collect::<Vec<_>>()
        };
        let mut files = with(static_policy);
        files.push((X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN")));
        Self { hsts, matrix: base.to_vec(), media: with(media_policy), files }
    }

    /// The headers for an answer of this kind to a request for `host`.
    pub(crate) fn of(&self, kind: Kind, host: &str) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let headers: &[_] = match kind {
            Kind::Matrix => &self.matrix,
            Kind::Media => &self.media,
            Kind::Static => &self.files,
            Kind::Foreign => &[],
        };
        let hsts = self.hsts.as_ref().filter(|_| is_public_name(host));
        let hsts = hsts.map(|value| (&STRICT_TRANSPORT_SECURITY, value));
        headers.iter().map(|(name, value)| (name, value)).chain(hsts)
    }
}

/// Whether a browser may remember something about the host: not of addresses (it ignores that), and not of localhost,
/// which belongs to whatever runs there next.
fn is_public_name(host: &str) -> bool {
    let name = without_port(host);
    let is_local = name.rsplit('.').next().is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
    !is_local && !name.is_empty() && name.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kind: Kind, host: &str) -> Vec<String> {
        let policy = HeaderValue::from_static("sandbox");
        let headers =
            SecurityHeaders::new(Some(HeaderValue::from_static("max-age=1")), Some(policy.clone()), Some(policy));
        headers.of(kind, host).map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn https_is_insisted_on_for_public_names_only() {
        assert_eq!(names(Kind::Foreign, "example.org:8448"), ["strict-transport-security"]);
        for host in ["localhost", "LOCALHOST:8443", "a.localhost", "192.0.2.1", "[2001:db8::1]:443", "[::1]", ""] {
            assert!(names(Kind::Foreign, host).is_empty(), "{host}");
        }
    }

    #[test]
    fn each_kind_has_its_own() {
        assert_eq!(names(Kind::Matrix, "localhost"), ["x-content-type-options", "referrer-policy"]);
        assert!(names(Kind::Media, "localhost").contains(&"content-security-policy".to_owned()));
        assert!(names(Kind::Static, "localhost").contains(&"x-frame-options".to_owned()));
    }
}
