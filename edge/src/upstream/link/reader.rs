//! Reads answers of a shard.

use std::io;
use std::mem::MaybeUninit;
use std::sync::LazyLock;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING};
use httparse::{ParserConfig, Status};
use memchr::memmem::Finder;
use pingora_error::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::answer_head::{AnswerHead, Fields, HOP_BY_HOP};
use crate::http1::body::Body;

/// What a shard may say before its body.
const MOST_HEAD_BYTES: usize = 64 * 1024;
const MOST_FIELDS: usize = 128;
/// So many the edge may add.
const ADDED_FIELDS: usize = 8;
/// How much is read at once when an answer begins: so much at least and at most.
const FIRST_READ: usize = 4 * 1024;
const LARGEST_FIRST_READ: usize = 32 * 1024;

/// The end of a head.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// The half of a link that reads. What it waits for may be dropped and asked for again.
pub(crate) struct Reader {
    io: Box<dyn AsyncRead + Send + Unpin>,
    input: BytesMut,
    body: Body,
    /// Whether the shard keeps the connection after this answer.
    is_kept: bool,
    answers: u64,
    /// How much was read of this answer, and of the one before.
    bytes: usize,
    bytes_before: usize,
    resets_tell: bool,
}

impl Reader {
    pub(super) fn new(io: Box<dyn AsyncRead + Send + Unpin>, resets_tell: bool) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            body: Body::Nothing,
            is_kept: true,
            answers: 0,
            bytes: 0,
            bytes_before: 0,
            resets_tell,
        }
    }

    pub(super) fn io(&mut self) -> &mut (dyn AsyncRead + Send + Unpin) {
        &mut *self.io
    }

    /// Reads the head of the answer, past those that are only informational. `to_head` says that the request was HEAD,
    /// whose answer has no body.
    ///
    /// # Errors
    /// `ConnectionClosed` when the shard went away without a word, `ReadError` when it did so within the head,
    /// `WriteError` when it is known not to have read the whole request, `InvalidHTTPHeader` when what it says is no answer.
    pub(crate) async fn head(&mut self, to_head: bool) -> Result<AnswerHead> {
        loop {
            if let Some(head) = self.parse(to_head)? {
                if !head.status.is_informational() {
                    return Ok(head);
                }
                continue;
            }
            if self.input.len() > MOST_HEAD_BYTES {
                return Error::e_explain(ErrorType::InvalidHTTPHeader, "the head is too long").map_err(Error::into_up);
            }
            let within = !self.input.is_empty();
            if !within && self.bytes > 0 {
                self.bytes_before = std::mem::take(&mut self.bytes);
            }
            // Often one answer is as long as the other.
            let read = match self.fill(self.bytes_before.clamp(FIRST_READ, LARGEST_FIRST_READ)).await {
                Err(error) if self.resets_tell && !within && error.kind() == io::ErrorKind::ConnectionReset => {
                    return Error::e_because(ErrorType::WriteError, "the shard had not read the request", error)
                        .map_err(Error::into_up);
                }
                read => read.or_err(ErrorType::ReadError, "reading a shard's answer").map_err(Error::into_up)?,
            };
            if read == 0 {
                let kind = if within { ErrorType::ReadError } else { ErrorType::ConnectionClosed };
                return Error::e_explain(kind, "the shard closed the connection").map_err(Error::into_up);
            }
        }
    }

    /// The next piece of the body; `None` once it is whole.
    ///
    /// # Errors
    /// `ReadError` when the shard goes away before.
    pub(crate) async fn body(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(piece) = self.body.take(&mut self.input).or_else(|error| unreadable(&error.to_string()))? {
                return Ok(Some(piece));
            }
            if self.is_done() {
                return Ok(None);
            }
            let read = self.fill(self.body.wanted()).await;
            let read = read.or_err(ErrorType::ReadError, "reading a shard's answer").map_err(Error::into_up)?;
            if read == 0 && self.body == Body::UntilClose {
                self.body = Body::Nothing;
            } else if read == 0 {
                return Error::e_explain(ErrorType::ReadError, "the shard closed the connection within its answer")
                    .map_err(Error::into_up);
            }
        }
    }

    /// Reads up to so many bytes, or a few more: when less comes than there is room for, nobody has to look whether there
    /// is more.
    async fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        self.input.reserve(wanted + 1);
        let read = self.io.read_buf(&mut self.input).await?;
        self.bytes += read;
        Ok(read)
    }

    /// Whether the answer is whole.
    pub(crate) fn is_done(&self) -> bool {
        self.body.is_done()
    }

    /// Whether the last of so many requests is answered whole, and another may follow. Bytes that nobody asked for forbid it.
    pub(super) fn has_answered(&self, requests: u64) -> bool {
        self.answers == requests && self.is_done() && self.is_kept && self.input.is_empty()
    }

    /// Takes the head off what was read, once it is whole.
    fn parse(&mut self, to_head: bool) -> Result<Option<AnswerHead>> {
        // In memory of its own: the fields of an answer may live as long as a connection of HTTP/2, whose compression remembers
        // them, and what was read at once is much larger.
        let whole = END.find(&self.input).map(|at| {
            let end = at + END.needle().len();
            let head = Bytes::copy_from_slice(&self.input[..end]);
            self.input.advance(end);
            head
        });
        let wire = whole.as_deref().unwrap_or(&self.input);
        let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let status = ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, wire, &mut fields);
        let wire = match (status, &whole) {
            (Ok(Status::Complete(bytes)), Some(wire)) if bytes == wire.len() => wire,
            (Ok(Status::Partial), None) => return Ok(None),
            (Ok(_), _) => return unreadable("its head does not end where it seems to"),
            (Err(error), _) => {
                return Error::e_because(ErrorType::InvalidHTTPHeader, "a shard's answer", error)
                    .map_err(Error::into_up);
            }
        };
        let Ok(status) = StatusCode::from_u16(parsed.code.unwrap_or_default()) else {
            return unreadable("its status is none");
        };
        let mut fields = Fields::new(wire.clone(), parsed.headers.len() + ADDED_FIELDS);
        let mut framing = Framing { is_kept: parsed.version == Some(1), ..Framing::default() };
        for field in parsed.headers.iter() {
            let Ok(name) = HeaderName::from_bytes(field.name.as_bytes()) else {
                return unreadable("a field of its head is none");
            };
            if framing.note(&name, field.value)? {
                fields.append_written(name, field.value);
            }
        }
        self.body = framing.body(status, to_head)?;
        self.is_kept = framing.is_kept && self.body != Body::UntilClose;
        self.answers += u64::from(!status.is_informational());
        Ok(Some(AnswerHead { status, fields }))
    }
}

/// What the head says about the body and the connection (RFC 9112, section 6.3).
#[derive(Debug, Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
    is_kept: bool,
}

impl Framing {
    /// Reads one field; `false` when it is not for the client.
    fn note(&mut self, name: &HeaderName, value: &[u8]) -> Result<bool> {
        if *name == CONTENT_LENGTH {
            let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|digits| digits.parse().ok());
            if length.is_none() || self.length.is_some() {
                return unreadable("it does not say clearly how long it is");
            }
            self.length = length;
        } else if *name == TRANSFER_ENCODING {
            if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return unreadable("it is coded in a way that is not understood");
            }
            self.is_chunked = true;
        } else if *name == CONNECTION && value.eq_ignore_ascii_case(b"close") {
            self.is_kept = false;
        }
        Ok(!HOP_BY_HOP.contains(name))
    }

    fn body(&self, status: StatusCode, to_head: bool) -> Result<Body> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return unreadable("it changes the protocol, which nobody asked for");
        }
        let bodiless = status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        Ok(match (self.length, self.is_chunked) {
            _ if to_head || bodiless => Body::Nothing,
            (Some(_), true) => return unreadable("it says in two ways how long it is"),
            (Some(bytes), false) => Body::of_length(bytes),
            (None, true) => Body::ChunkSize,
            (None, false) => Body::UntilClose,
        })
    }
}

fn unreadable<T>(what: &str) -> Result<T> {
    Error::e_explain(ErrorType::InvalidHTTPHeader, format!("a shard's answer cannot be read: {what}"))
        .map_err(Error::into_up)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Reads an answer that arrives in pieces of `step` bytes.
    async fn read(answer: &[u8], step: usize, to_head: bool) -> Result<(AnswerHead, Vec<u8>, bool)> {
        let (ours, mut theirs) = tokio::io::duplex(step);
        let answer = answer.to_vec();
        let shard = tokio::spawn(async move {
            // A reader that has read enough goes away.
            let _ = theirs.write_all(&answer).await;
        });
        let mut reader = Reader::new(Box::new(ours), false);
        let header = reader.head(to_head).await?;
        let mut body = Vec::new();
        while let Some(piece) = reader.body().await? {
            body.extend_from_slice(&piece);
        }
        let reusable = reader.has_answered(1);
        drop(reader);
        shard.await.unwrap();
        Ok((header, body, reusable))
    }

    #[tokio::test]
    async fn an_answer_is_whole_however_it_arrives() {
        let chunked = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\n\
            Transfer-Encoding: Chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nx-end: 1\r\n\r\n";
        let known =
            b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 11\r\nkeep-alive: timeout=5\r\n\r\nhello world";
        for answer in [chunked.as_slice(), known] {
            for step in [1, 2, 3, 7, 4096] {
                let (header, body, reusable) = read(answer, step, false).await.unwrap();
                assert_eq!(header.fields.iter().filter(|(name, _)| *name == "x-a").count(), 2);
                assert!(HOP_BY_HOP.iter().all(|name| !header.fields.contains(name)));
                assert_eq!(body, b"hello world", "in steps of {step}");
                assert!(reusable);
            }
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_body_has_none() {
        for (answer, to_head) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", false),
            ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        ] {
            let (_, body, reusable) = read(answer.as_bytes(), 4096, to_head).await.unwrap();
            assert!(body.is_empty() && reusable, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_the_shard_gives_up_is_not_used_again() {
        for answer in [
            "HTTP/1.1 200 OK\r\n\r\nhello",
            "HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nConnection: close\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello and more",
        ] {
            let (_, body, reusable) = read(answer.as_bytes(), 4096, false).await.unwrap();
            assert_eq!(body, b"hello", "{answer}");
            assert!(!reusable, "{answer}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_an_error_and_nothing_is_made_up() {
        for (answer, kind) in [
            ("", ErrorType::ConnectionClosed),
            ("HTTP/1.1 200", ErrorType::ReadError),
            ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", ErrorType::ReadError),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", ErrorType::ReadError),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello!\r\n", ErrorType::InvalidHTTPHeader),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", ErrorType::InvalidHTTPHeader),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", ErrorType::InvalidHTTPHeader),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n", ErrorType::InvalidHTTPHeader),
            ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx", ErrorType::InvalidHTTPHeader),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                ErrorType::InvalidHTTPHeader,
            ),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", ErrorType::InvalidHTTPHeader),
            ("SSH-2.0-OpenSSH\r\n", ErrorType::InvalidHTTPHeader),
        ] {
            let error = read(answer.as_bytes(), 4096, false).await.unwrap_err();
            assert_eq!(*error.etype(), kind, "{answer:?}");
        }
    }
}
