//! Whether a request is one that a shard can be shown at all: a target and a host that both sides read alike.

use gatehouse_shared::limits::{MAX_REQUEST_HEADER_BYTES, MAX_REQUEST_TARGET_BYTES};
use http::HeaderMap;

/// Why a request is refused at sight. All of it is the client's blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misshapen {
    /// The target is longer than anyone's needs.
    TargetTooLong,
    /// The header is larger than anyone's needs.
    HeaderTooLarge,
    /// The header has more fields than the policy allows.
    TooManyFields,
    /// The target holds bytes that are no URI.
    TargetNotText,
    /// There is no host, or one that cannot be written in a header.
    Host,
}

/// Checks the raw target (path and query as they are on the wire), the host, and the size of the header.
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
    if !raw_target.iter().all(u8::is_ascii_graphic) {
        return Err(Misshapen::TargetNotText);
    }
    let host_is_fine = host.is_some_and(|host| !host.is_empty() && host.len() <= 255 && is_authority(host));
    if host_is_fine { Ok(()) } else { Err(Misshapen::Host) }
}

/// Letters, digits and what addresses and ports need: nothing that could end a header or a URL's authority early.
fn is_authority(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']'))
}

#[cfg(test)]
mod tests {
    use http::header::COOKIE;
    use http::{HeaderName, HeaderValue};

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
}
