//! Heads of requests.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderName, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Uri, Version};
use httparse::{ParserConfig, Status};
use pingora_http::RequestHeader;

use super::body::Body;
use crate::admission::framing;

/// A head that is longer, or has more fields, is left to Pingora, which refuses it.
const MOST_BYTES: usize = 64 * 1024;
const MOST_FIELDS: usize = 256;

/// A request's head, and what it says of the body and the connection.
#[derive(Debug)]
pub(crate) struct Head {
    /// As it came.
    pub(crate) raw: Bytes,
    pub(crate) request: RequestHeader,
    pub(crate) body: Body,
    /// Whether the client wants to go on with the connection.
    pub(crate) is_kept: bool,
}

/// What was made of the bytes that have come.
#[derive(Debug)]
pub(crate) enum Parsed {
    Head(Box<Head>),
    /// Its end is still to come.
    Partial,
    /// Not written as everybody does; the input is as it was.
    Odd,
}

/// Looks for the end of a head in what comes, and reads each byte once however it comes.
#[derive(Debug, Default)]
pub(crate) struct HeadParser {
    seen: usize,
}

impl HeadParser {
    /// Takes the head off `input` once it is whole.
    pub(crate) fn parse(&mut self, input: &mut BytesMut) -> Parsed {
        let end = match self.end(input) {
            Ok(Some(end)) => end,
            Ok(None) if input.len() <= MOST_BYTES => return Parsed::Partial,
            _ => return Parsed::Odd,
        };
        let rest = (end < input.len()).then(|| input.split_off(end));
        let head = std::mem::take(input).freeze();
        let read = read(&head);
        match (read, rest) {
            (Some(read), rest) => {
                *input = rest.unwrap_or_default();
                Parsed::Head(Box::new(read))
            }
            (None, rest) => {
                *input = BytesMut::from(head);
                input.extend_from_slice(&rest.unwrap_or_default());
                Parsed::Odd
            }
        }
    }

    /// Behind the empty line. Lines end with CR and LF; what ends them otherwise is odd.
    fn end(&mut self, input: &[u8]) -> Result<Option<usize>, BareLineFeed> {
        while let Some(unseen) = input.get(self.seen..) {
            let Some(at) = memchr::memchr(b'\n', unseen) else { break };
            let line_feed = self.seen + at;
            self.seen = line_feed + 1;
            let before = input.get(..line_feed).unwrap_or_default();
            if !before.ends_with(b"\r") {
                return Err(BareLineFeed);
            }
            if before.ends_with(b"\r\n\r") {
                return Ok(Some(self.seen));
            }
        }
        self.seen = input.len();
        Ok(None)
    }
}

struct BareLineFeed;

/// `None` for what is odd.
fn read(head: &Bytes) -> Option<Head> {
    if head.starts_with(b"\r") {
        return None;
    }
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let status = ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, &mut fields);
    if status != Ok(Status::Complete(head.len())) || parsed.version != Some(1) {
        return None;
    }
    let target = parsed.path.filter(|target| target.starts_with('/') && target.bytes().all(is_plain))?;
    let method = Method::from_bytes(parsed.method?.as_bytes()).ok().filter(|method| *method != Method::CONNECT)?;
    let mut request = Request::new(()).into_parts().0;
    request.method = method;
    request.uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).ok()?;
    request.version = Version::HTTP_11;
    request.headers.reserve(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value)).ok()?;
        request.headers.append(name, value);
    }
    let headers = &request.headers;
    if headers.get_all(HOST).iter().count() != 1 || !framing::is_clear(request.version, headers) {
        return None;
    }
    let body = match headers.get(CONTENT_LENGTH) {
        Some(length) => Body::of_length(length.to_str().ok()?.parse().ok()?),
        None if headers.contains_key(TRANSFER_ENCODING) => Body::ChunkSize,
        None => Body::Nothing,
    };
    let is_kept = !headers.get_all(CONNECTION).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    Some(Head { raw: head.clone(), body, is_kept, request: request.into() })
}

/// What stands in the target of a request as it is meant; a fragment has no business there.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'#'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str, step: usize) -> (Parsed, BytesMut) {
        let (mut parser, mut input) = (HeadParser::default(), BytesMut::new());
        let mut parsed = Parsed::Partial;
        for part in wire.as_bytes().chunks(step) {
            input.extend_from_slice(part);
            if matches!(parsed, Parsed::Partial) {
                parsed = parser.parse(&mut input);
            }
        }
        (parsed, input)
    }

    fn head(wire: &str) -> Head {
        match parse(wire, 1024).0 {
            Parsed::Head(head) => *head,
            parsed => panic!("{wire:?}: {parsed:?}"),
        }
    }

    #[test]
    fn a_head_is_read_however_it_arrives() {
        let wire = "PUT /a?b=%2F HTTP/1.1\r\nHost: example.org\r\nX-A: 1\r\nx-a:  2 \r\ncontent-length: 5\r\n\r\nhello";
        for step in [1, 2, 3, 7, 1024] {
            let (parsed, rest) = parse(wire, step);
            let Parsed::Head(head) = parsed else { panic!("in steps of {step}: {parsed:?}") };
            assert_eq!(head.request.method, Method::PUT);
            assert_eq!(head.request.raw_path(), b"/a?b=%2F");
            assert_eq!(head.request.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!((head.body, head.is_kept), (Body::Bytes(5), true));
            assert_eq!(rest, "hello", "in steps of {step}");
        }
    }

    #[test]
    fn a_head_says_how_the_connection_goes_on() {
        let of = |fields: &str| head(&format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        assert_eq!(of("").body, Body::Nothing);
        assert_eq!(of("content-length: 0\r\n").body, Body::Nothing);
        assert_eq!(of("Transfer-Encoding: Chunked\r\n").body, Body::ChunkSize);
        assert!(of("connection: Keep-Alive\r\n").is_kept);
        assert!(!of("connection: close\r\n").is_kept);
    }

    #[test]
    fn what_is_odd_is_left_as_it_was() {
        for (line, fields) in [
            ("GET / HTTP/1.0", "host: a\r\n"),
            ("GET http://a/ HTTP/1.1", "host: a\r\n"),
            ("OPTIONS * HTTP/1.1", "host: a\r\n"),
            ("CONNECT a:1 HTTP/1.1", "host: a\r\n"),
            ("GET /é HTTP/1.1", "host: a\r\n"),
            ("GET /#x HTTP/1.1", "host: a\r\n"),
            ("GET  / HTTP/1.1", "host: a\r\n"),
            ("GET / HTTP/1.1", ""),
            ("GET / HTTP/1.1", "host: a\r\nhost: a\r\n"),
            ("GET / HTTP/1.1", "host: a\r\nx : 1\r\n"),
            ("GET / HTTP/1.1", "host: a\r\nx: 1\r\n folded\r\n"),
            ("GET / HTTP/1.1", "host: a\nx: 1\r\n"),
            ("GET / HTTP/1.1", "host: a\r\nx: \u{0}\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ncontent-length: +5\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ncontent-length: 5, 5\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ncontent-length: \r\n"),
            ("POST / HTTP/1.1", "host: a\r\ncontent-length: 99999999999999999999\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ntransfer-encoding: gzip, chunked\r\n"),
            ("POST / HTTP/1.1", "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
            ("\r\nGET / HTTP/1.1", "host: a\r\n"),
        ] {
            let wire = format!("{line}\r\n{fields}\r\nhello");
            let (parsed, input) = parse(&wire, 1024);
            assert!(matches!(parsed, Parsed::Odd), "{wire:?}: {parsed:?}");
            assert_eq!(input, wire, "nothing of it is lost");
        }
    }

    #[test]
    fn a_head_without_an_end_is_odd_at_last() {
        let wire = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(MOST_BYTES));
        assert!(matches!(parse(&wire, 10_000).0, Parsed::Odd));
        assert!(matches!(parse(&wire[..60_000], 10_000).0, Parsed::Partial));
    }
}
