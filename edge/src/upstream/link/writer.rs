//! Writes requests to a shard.

use std::io;

use bytes::{Buf, BufMut, BytesMut};
use http::HeaderValue;
use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::http1::wire::{LAST_CHUNK, put_chunk, put_field};

/// A buffer that grew beyond this for one request is not kept for the next one.
const KEPT_BYTES: usize = 64 * 1024;

/// The head of a request. Everything in it was checked when it was read: no part holds a line break.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'r> {
    pub(crate) method: &'r str,
    /// Path and query.
    pub(crate) target: &'r str,
    pub(crate) host: &'r str,
    /// What the client sent; what concerns only its own connection is left out.
    pub(crate) headers: &'r HeaderMap,
    /// Whole lines that the edge adds; headers of the client that bear their names are left out.
    pub(crate) vouched: &'r str,
}

/// How the body of a request is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is none, and nothing is said of it.
    Nothing,
    /// In bytes.
    Known(u64),
    /// It is sent in chunks.
    Unknown,
}

/// What is still to come of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Bytes(u64),
    Chunks,
    Nothing,
    /// The request was not sent whole and never will be.
    Abandoned,
}

/// The body has another length than was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body has another length than was announced")]
pub(crate) struct WrongLength;

/// The half of a link that writes. Bytes are gathered first, and then sent by [`Self::send_some`].
pub(crate) struct Writer {
    io: Box<dyn AsyncWrite + Send + Unpin>,
    pending: BytesMut,
    is_flushed: bool,
    awaited: Awaited,
    requests: u64,
}

impl Writer {
    pub(super) fn new(io: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self { io, pending: BytesMut::new(), is_flushed: true, awaited: Awaited::Nothing, requests: 0 }
    }

    /// Begins a request.
    pub(crate) fn begin(&mut self, head: &Head<'_>, length: Length) {
        self.requests += 1;
        let out = &mut self.pending;
        if out.capacity() > KEPT_BYTES {
            *out = BytesMut::new();
        }
        out.reserve(1024 + head.target.len() + head.vouched.len());
        for part in [head.method, " ", head.target, " HTTP/1.1\r\nhost: ", head.host, "\r\n", head.vouched] {
            out.put_slice(part.as_bytes());
        }
        let mut has_cookies = false;
        for (name, value) in head.headers {
            if *name == COOKIE {
                has_cookies = true;
            } else if is_passed_on(name) {
                put_field(out, name.as_str(), value.as_bytes());
            }
        }
        if has_cookies {
            // HTTP/2 may have one field for each, HTTP/1.1 has one for all (RFC 9113, section 8.2.3).
            let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
            put_field(out, "cookie", &cookies.join(b"; ".as_slice()));
        }
        self.awaited = match length {
            Length::Nothing => Awaited::Nothing,
            Length::Known(bytes) => {
                put_field(out, "content-length", bytes.to_string().as_bytes());
                if bytes == 0 { Awaited::Nothing } else { Awaited::Bytes(bytes) }
            }
            Length::Unknown => {
                put_field(out, "transfer-encoding", b"chunked");
                Awaited::Chunks
            }
        };
        out.put_slice(b"\r\n");
    }

    /// Adds a piece of the body.
    ///
    /// # Errors
    /// When it is more than was announced.
    pub(crate) fn body(&mut self, piece: &[u8]) -> Result<(), WrongLength> {
        if piece.is_empty() {
            return Ok(());
        }
        match self.awaited {
            Awaited::Bytes(bytes) => {
                let rest = bytes.checked_sub(piece.len() as u64).ok_or(WrongLength)?;
                self.pending.extend_from_slice(piece);
                self.awaited = if rest == 0 { Awaited::Nothing } else { Awaited::Bytes(rest) };
                Ok(())
            }
            Awaited::Chunks => {
                put_chunk(&mut self.pending, piece);
                Ok(())
            }
            Awaited::Nothing => Err(WrongLength),
            Awaited::Abandoned => Ok(()),
        }
    }

    /// The body is whole.
    ///
    /// # Errors
    /// When it is less than was announced.
    pub(crate) fn end(&mut self) -> Result<(), WrongLength> {
        match self.awaited {
            Awaited::Bytes(_) => Err(WrongLength),
            Awaited::Chunks => {
                self.pending.put_slice(LAST_CHUNK);
                self.awaited = Awaited::Nothing;
                Ok(())
            }
            Awaited::Nothing | Awaited::Abandoned => Ok(()),
        }
    }

    /// Whether something waits to be sent.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty() || !self.is_flushed
    }

    /// Sends as much as the shard takes, and waits until it takes some. May be dropped and called again.
    pub(crate) async fn send_some(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.is_flushed = false;
            let written = self.io.write(&self.pending).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.pending.advance(written);
        }
        if self.pending.is_empty() {
            self.io.flush().await?;
            self.is_flushed = true;
        }
        Ok(())
    }

    /// The shard takes no more of this request.
    pub(crate) fn abandon(&mut self) {
        self.pending.clear();
        self.is_flushed = true;
        self.awaited = Awaited::Abandoned;
    }

    /// How many requests were begun.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    pub(super) fn is_complete(&self) -> bool {
        self.awaited == Awaited::Nothing && !self.has_pending()
    }
}

/// What concerns one connection alone (RFC 9110, section 7.6.1), or is said anew.
const LEFT_OUT: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
const LEFT_OUT_TOO: [&str; 4] = ["http2-settings", "keep-alive", "proxy-connection", "traceparent"];

fn is_passed_on(name: &HeaderName) -> bool {
    !LEFT_OUT.contains(name) && !LEFT_OUT_TOO.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        Writer::new(Box::new(tokio::io::sink()))
    }

    fn written(length: Length, headers: &[(&'static str, &'static str)]) -> (Writer, String) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let head = Head {
            method: "POST",
            target: "/a?b",
            host: "example.org",
            headers: &map,
            vouched: "x-gatehouse-mac: 00\r\n",
        };
        let mut writer = writer();
        writer.begin(&head, length);
        let text = String::from_utf8(writer.pending.to_vec()).unwrap();
        (writer, text)
    }

    #[test]
    fn a_head_says_what_the_client_said_and_nothing_of_its_connection() {
        let (_, text) = written(
            Length::Nothing,
            &[
                ("authorization", "Bearer x"),
                ("connection", "keep-alive"),
                ("keep-alive", "timeout=5"),
                ("te", "trailers"),
                ("host", "evil"),
                ("content-length", "7"),
                ("transfer-encoding", "chunked"),
                ("traceparent", "00-1-2-03"),
                ("x-a", "1"),
                ("x-a", "2"),
            ],
        );
        let expected = "POST /a?b HTTP/1.1\r\nhost: example.org\r\nx-gatehouse-mac: 00\r\n\
                        authorization: Bearer x\r\nx-a: 1\r\nx-a: 2\r\n\r\n";
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn a_body_has_the_length_that_was_announced() {
        let (mut writer, text) = written(Length::Known(5), &[]);
        assert!(text.ends_with("content-length: 5\r\n\r\n"));
        writer.body(b"123").unwrap();
        assert_eq!(writer.end(), Err(WrongLength));
        assert_eq!(writer.body(b"456"), Err(WrongLength));
        writer.body(b"45").unwrap();
        writer.end().unwrap();
        assert!(writer.pending.ends_with(b"\r\n\r\n12345"));
        assert!(!writer.is_complete());
        writer.send_some().await.unwrap();
        assert!(writer.is_complete());
    }

    #[test]
    fn a_body_of_unknown_length_goes_in_chunks() {
        let (mut writer, text) = written(Length::Unknown, &[]);
        assert!(text.ends_with("transfer-encoding: chunked\r\n\r\n"));
        writer.body(b"").unwrap();
        writer.body(&[b'x'; 17]).unwrap();
        writer.end().unwrap();
        assert!(writer.pending.ends_with(b"\r\n\r\n11\r\nxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n"));
    }

    #[test]
    fn a_request_that_was_given_up_is_never_complete() {
        let (mut writer, _) = written(Length::Known(5), &[]);
        writer.abandon();
        writer.body(b"12345").unwrap();
        writer.end().unwrap();
        assert!(!writer.has_pending() && !writer.is_complete());
    }
}
