//! What a shard tells the edge about a request beside its answer; the edge's jails listen to nothing else.

use std::fmt;

use http::HeaderName;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The header that carries a verdict; the edge removes it on the way out.
pub const VERDICT: HeaderName = HeaderName::from_static("x-gatehouse-verdict");

/// The header by which a shard tells whose signature it found right on the request: the name of another server. A verdict
/// beside it is about that server; the edge removes it on the way out.
pub const ORIGIN: HeaderName = HeaderName::from_static("x-gatehouse-origin");

/// The longest subject that is kept, in bytes: identifiers of the specification end at 255.
const MAX_SUBJECT_BYTES: usize = 255;

/// A verdict, with what it is about. Written as `login-failed @alice:example.org`, the subject percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// A password or token of a login was wrong, for this user.
    LoginFailed(String),
    /// The access token of the request is unknown; the subject is the token's kind, never the token.
    BadToken(String),
    /// The signature of another server's request was wrong; the subject is the origin that was claimed.
    BadSignature(String),
    /// A registration was refused; the subject is the reason.
    RegistrationRefused(String),
    /// The shard's own limit refused the request; the subject is the limit.
    RateLimited(String),
}

/// Everything that is visible ASCII and not `%` stays as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

impl Verdict {
    /// Reads a header's value; `None` when it is no verdict that this version knows.
    pub fn parse(value: &str) -> Option<Self> {
        let (kind, subject) = value.split_once(' ').unwrap_or((value, ""));
        let subject = percent_decode_str(subject).decode_utf8().ok()?.into_owned();
        Some(match kind {
            "login-failed" => Self::LoginFailed(subject),
            "bad-token" => Self::BadToken(subject),
            "bad-signature" => Self::BadSignature(subject),
            "registration-refused" => Self::RegistrationRefused(subject),
            "rate-limited" => Self::RateLimited(subject),
            _ => return None,
        })
    }

    /// The word for its kind, for the header and for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::LoginFailed(_) => "login-failed",
            Self::BadToken(_) => "bad-token",
            Self::BadSignature(_) => "bad-signature",
            Self::RegistrationRefused(_) => "registration-refused",
            Self::RateLimited(_) => "rate-limited",
        }
    }

    /// What the verdict is about.
    pub fn subject(&self) -> &str {
        match self {
            Self::LoginFailed(subject)
            | Self::BadToken(subject)
            | Self::BadSignature(subject)
            | Self::RegistrationRefused(subject)
            | Self::RateLimited(subject) => subject,
        }
    }
}

/// The header's value; a subject that is too long is cut at a character.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        let subject = self.subject();
        if subject.is_empty() {
            return Ok(());
        }
        let end = subject.floor_char_boundary(MAX_SUBJECT_BYTES);
        write!(f, " {}", utf8_percent_encode(subject.get(..end).unwrap_or_default(), ESCAPED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_the_header() {
        for verdict in [
            Verdict::LoginFailed("@alice smith%:exämple.org\r\nx: y".to_owned()),
            Verdict::BadToken(String::new()),
            Verdict::BadSignature("example.org:8448".to_owned()),
            Verdict::RegistrationRefused("token".to_owned()),
            Verdict::RateLimited("login".to_owned()),
        ] {
            let value = verdict.to_string();
            assert!(http::HeaderValue::from_str(&value).is_ok(), "{value:?}");
            assert_eq!(Verdict::parse(&value), Some(verdict));
        }
    }

    #[test]
    fn unknown_verdicts_are_none() {
        assert_eq!(Verdict::parse("promoted @alice:example.org"), None);
        assert_eq!(Verdict::parse(""), None);
    }

    #[test]
    fn a_long_subject_is_cut() {
        let value = Verdict::LoginFailed("é".repeat(10_000)).to_string();
        assert!(value.len() < 1_000);
    }
}
