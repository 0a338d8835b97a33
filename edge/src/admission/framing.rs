//! Whether a request says clearly where it ends. What says it twice is refused, even where the two agree or a rule says
//! which one counts: nobody but an attacker writes such a request, and the next reader may know another rule.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Version};

/// Checks the headers that say where the body ends (RFC 9112, section 6).
pub(crate) fn is_clear(version: Version, headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => lengths.next().is_none() && is_length(length),
        (None, Some(coding)) => version == Version::HTTP_11 && codings.next().is_none() && is_chunked(coding),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a header as it came, in HTTP/1, names a length. Where a coding stands beside it, Pingora takes the length out
/// before anybody else sees the header.
pub(crate) fn names_a_length(raw: &[u8]) -> bool {
    let name = CONTENT_LENGTH.as_str().as_bytes();
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name)))
}

fn is_length(length: &HeaderValue) -> bool {
    let digits = length.as_bytes();
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

fn is_chunked(coding: &HeaderValue) -> bool {
    coding.as_bytes().eq_ignore_ascii_case(b"chunked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clear(version: Version, headers: &[(http::HeaderName, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        is_clear(version, &map)
    }

    #[test]
    fn one_length_or_one_coding_is_clear() {
        for headers in [vec![], vec![(CONTENT_LENGTH, "0")], vec![(TRANSFER_ENCODING, "Chunked")]] {
            assert!(clear(Version::HTTP_11, &headers), "{headers:?}");
        }
        assert!(clear(Version::HTTP_2, &[(CONTENT_LENGTH, "5")]));
    }

    #[test]
    fn a_length_is_seen_in_a_raw_header() {
        assert!(names_a_length(b"POST / HTTP/1.1\r\nhost: a\r\nContent-LENGTH: 5\r\n\r\n"));
        assert!(!names_a_length(b"POST /content-length HTTP/1.1\r\nx-content-length: 5\r\n\r\n"));
    }

    #[test]
    fn anything_else_is_not() {
        for headers in [
            vec![(CONTENT_LENGTH, "2"), (CONTENT_LENGTH, "2")],
            vec![(CONTENT_LENGTH, "2"), (TRANSFER_ENCODING, "chunked")],
            vec![(CONTENT_LENGTH, "+2")],
            vec![(CONTENT_LENGTH, "")],
            vec![(TRANSFER_ENCODING, "gzip, chunked")],
            vec![(TRANSFER_ENCODING, "chunked"), (TRANSFER_ENCODING, "chunked")],
        ] {
            assert!(!clear(Version::HTTP_11, &headers), "{headers:?}");
        }
        assert!(!clear(Version::HTTP_10, &[(TRANSFER_ENCODING, "chunked")]));
    }
}
