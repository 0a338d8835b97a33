//! Whether a request is one that a shard can be shown at all: a target and a host that both sides read alike.

use gatehouse_shared::limits::{MAX_REQUEST_HEADER_BYTES, MAX_REQUEST_TARGET_BYTES};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};

/// Why a request is refused at sight. All of it is the client's blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misshapen {
    /// The target is longer than anyone's needs.
    TargetTooLong,
    /// The header is larger than anyone's needs.
    HeaderTooLarge,
    /// The header has more fields than the policy allows.
    TooManyFields,
    /// Two readers could see its body end in two places.
    Framing,
    /// The target holds bytes that are no URI.
    TargetNotText,
    /// There is no host, or one that cannot be written in a header.
    Host,
}

/// Checks the raw target (path and query as they are on the wire), the host, the size of the header, and how the body is
/// framed.
pub(crate) fn check(
    raw_target: &[u8],
    host: Option<&str>,
    headers: &HeaderMap,
    most_fields: usize,
) -> Result<(), Misshapen> {
    if raw_target.len() > MAX_REQUEST_TARGET_BYTES {
        return Err(Misshapen::TargetTooLong);
    }
    let header_bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if header_bytes > MAX_REQUEST_HEADER_BYTES {
        return Err(Misshapen::HeaderTooLarge);
    }
    if headers.len() > most_fields {
        return Err(Misshapen::TooManyFields);
    }
    if is_framed_twice(headers) {
        return Err(Misshapen::Framing);
    }
    if !raw_target.iter().all(u8::is_ascii_graphic) {
        return Err(Misshapen::TargetNotText);
    }
    let host_is_fine = host.is_some_and(|host| !host.is_empty() && host.len() <= 255 && is_authority(host));
    if host_is_fine { Ok(()) } else { Err(Misshapen::Host) }
}

/// A length beside chunks, several lengths, or an encoding other than chunks: nobody but an attacker sends these
/// (RFC 9112, section 6.3).
fn is_framed_twice(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    let is_number = |value: &HeaderValue| value.as_bytes().iter().all(u8::is_ascii_digit);
    lengths.next().is_some()
        || encodings.next().is_some()
        || length.is_some_and(|length| encoding.is_some() || !is_number(length))
        || encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"chunked"))
}

/// Letters, digits and what addresses and ports need: nothing that could end a header or a URL's authority early.
fn is_authority(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::COOKIE;

    use super::*;

    fn check_target(target: &[u8], host: Option<&str>) -> Result<(), Misshapen> {
        check(target, host, &HeaderMap::new(), 100)
    }

    #[test]
    fn path_tricks_are_text_and_pass_as_they_are() {
        for target in ["/_matrix//x", "/a/../b", "/%2e%2e/%2F", "/_matrix/client/v3/rooms/!a:b?x=%00"] {
            assert_eq!(check_target(target.as_bytes(), Some("example.org:8448")), Ok(()));
        }
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        assert_eq!(check_target("/é".as_bytes(), Some("a")), Err(Misshapen::TargetNotText));
        assert_eq!(check_target(b"/\xff", Some("a")), Err(Misshapen::TargetNotText));
        assert_eq!(check_target(&[b'a'; 20_000], Some("a")), Err(Misshapen::TargetTooLong));
        for host in [None, Some(""), Some("a b"), Some("a/b"), Some("a@b"), Some("é")] {
            assert_eq!(check_target(b"/", host), Err(Misshapen::Host));
        }
    }

    #[test]
    fn a_header_has_a_largest_size() {
        let cookie = |bytes| HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&"x".repeat(bytes)).unwrap())]);
        assert_eq!(check(b"/", Some("a"), &cookie(30_000), 1), Ok(()));
        assert_eq!(check(b"/", Some("a"), &cookie(40_000), 1), Err(Misshapen::HeaderTooLarge));
    }

    #[test]
    fn a_header_has_so_many_fields() {
        let fields = (0..101).map(|n| (HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from_static("1")));
        assert_eq!(check(b"/", Some("a"), &fields.collect(), 100), Err(Misshapen::TooManyFields));
    }

    #[test]
    fn a_body_has_one_end() {
        let check = |fields: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, HeaderValue::from_static(value));
            }
            check(b"/", Some("a"), &headers, 100)
        };
        let (length, encoding) = (CONTENT_LENGTH, TRANSFER_ENCODING);
        assert_eq!(check(&[(length.clone(), "5")]), Ok(()));
        assert_eq!(check(&[(encoding.clone(), "chunked")]), Ok(()));
        for fields in [
            [(length.clone(), "5"), (encoding.clone(), "chunked")],
            [(length.clone(), "5"), (length.clone(), "5")],
            [(length.clone(), "5"), (length.clone(), "6")],
            [(encoding.clone(), "chunked"), (encoding.clone(), "chunked")],
        ] {
            assert_eq!(check(&fields), Err(Misshapen::Framing), "{fields:?}");
        }
        for field in
            [(length.clone(), "+5"), (length, "5, 5"), (encoding.clone(), "gzip, chunked"), (encoding, "xchunked")]
        {
            assert_eq!(check(std::slice::from_ref(&field)), Err(Misshapen::Framing), "{field:?}");
        }
    }
}
