//! A connection of HTTP/1.1, and one request on it after the other.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderName, Method, StatusCode};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::head::{Head, HeadParser, Parsed};
use super::wire::{LAST_CHUNK, put_chunk, put_field};
use crate::answer_head::AnswerHead;
use crate::conversation::{Conversation, KeptBody, Patience, down, drain, within};
use crate::ending::Ending;

/// What is read of a head at once; it needs no memory of its own while nothing is there.
const READ_BYTES: usize = 4 * 1024;
/// Enough for the head of a usual answer.
const HEAD_BYTES: usize = 768;
/// A piece of an answer that is not larger leaves together with what stands before it.
const GATHERED_BYTES: usize = 16 * 1024;
/// What concerns this connection is said here, whoever wrote the head.
const SAID_HERE: [HeaderName; 3] = [CONNECTION, TRANSFER_ENCODING, DATE];

/// A connection between two requests.
pub(crate) struct Connection {
    stream: Stream,
    peer: IpAddr,
    /// What was read and belongs to the next request.
    input: BytesMut,
}

/// What a client asked.
pub(crate) enum Asked {
    Request(Request),
    /// Something for Pingora, with the bytes that were read of it.
    Odd(Stream, BytesMut),
    /// Nothing more.
    Gone,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: IpAddr) -> Self {
        Self { stream, peer, input: BytesMut::new() }
    }

    /// Waits until something of a request is there; `false` when the client went away instead.
    pub(crate) async fn wait(&mut self) -> bool {
        self.is_ahead() || matches!(self.fill().await, Ok(1..))
    }

    /// Whether something of the next request was read along with this one.
    pub(crate) fn is_ahead(&self) -> bool {
        !self.input.is_empty()
    }

    /// Reads the head of a request.
    pub(crate) async fn ask(mut self) -> Asked {
        let mut parser = HeadParser::default();
        loop {
            match parser.parse(&mut self.input) {
                Parsed::Head(head) => return Asked::Request(Request::new(self, head)),
                Parsed::Odd => return Asked::Odd(self.stream, self.input),
                Parsed::Partial => {}
            }
            if !matches!(self.fill().await, Ok(1..)) {
                return Asked::Gone;
            }
        }
    }

    /// Reads what is there, and waits for it without holding memory. May be dropped and called again.
    async fn fill(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            let mut space = [MaybeUninit::<u8>::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
            self.input.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
        .await
    }
}

/// How the body of the answer is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// No head was written.
    Unsaid,
    /// So many bytes are still to come.
    Length(u64),
    Chunks,
    Done,
    /// The client took no more.
    Failed,
}

/// One request, and the connection that it has for itself until it is answered.
pub(crate) struct Request {
    connection: Connection,
    /// What of the body is still to come, and whether the connection goes on after this, changes with time.
    head: Box<Head>,
    had_body: bool,
    patience: Patience,
    kept: KeptBody,
    /// What is written and not sent.
    output: BytesMut,
    framing: Framing,
    status: Option<StatusCode>,
    body_bytes: u64,
}

impl Request {
    fn new(connection: Connection, head: Box<Head>) -> Self {
        Self {
            connection,
            had_body: !head.body.is_done(),
            head,
            patience: Patience { read: None, write: None, drain: Duration::ZERO },
            kept: KeptBody::default(),
            output: BytesMut::new(),
            framing: Framing::Unsaid,
            status: None,
            body_bytes: 0,
        }
    }

    /// Gives back the connection, and everything that was read, as if nothing had been.
    pub(crate) fn into_unread(self) -> (Stream, BytesMut) {
        let Connection { stream, input, .. } = self.connection;
        let mut unread = BytesMut::from(self.head.raw);
        unread.extend_from_slice(&input);
        (stream, unread)
    }

    /// Gives the connection back for the next request. One that ends here is closed in the usual way when the answer is whole;
    /// otherwise it is cut, so that nobody takes a part for the whole.
    pub(crate) async fn finish(mut self) -> Option<Connection> {
        let is_answered = self.framing == Framing::Done;
        if is_answered && self.head.is_kept && self.head.body.is_done() {
            if !self.connection.is_ahead() {
                // Nothing is held while nothing is asked.
                self.connection.input = BytesMut::new();
            }
            return Some(self.connection);
        }
        if is_answered {
            // The client may be gone already, or take nothing; there is nobody to tell.
            let _ = within(self.patience.write, ErrorType::WriteTimedout, self.connection.stream.shutdown()).await;
        }
        None
    }

    /// Whether [`Self::finish`] will close the connection, with nothing more to hear of the client: the end of the answer leaves
    /// together with that.
    fn is_last(&self) -> bool {
        !self.head.is_kept && self.head.body.is_done()
    }

    async fn fill_body(&mut self) -> Result<()> {
        let Connection { stream, input, .. } = &mut self.connection;
        input.reserve(self.head.body.wanted());
        let read = within(self.patience.read, ErrorType::ReadTimedout, stream.read_buf(input)).await?;
        match read {
            Ok(0) => down(ErrorType::ConnectionClosed, "the client went away within its body"),
            Ok(_) => Ok(()),
            Err(error) => Err(Error::because(ErrorType::ReadError, "reading a body", error).into_down()),
        }
    }

    /// Sends what is written, and `piece` behind it.
    async fn send(&mut self, piece: Option<Bytes>, flushes: bool) -> Result<()> {
        let stream = &mut self.connection.stream;
        let mut bytes = std::mem::take(&mut self.output).chain(piece.unwrap_or_default());
        let sending = async {
            stream.write_all_buf(&mut bytes).await?;
            if flushes { stream.flush().await } else { Ok(()) }
        };
        let sent = within(self.patience.write, ErrorType::WriteTimedout, sending).await;
        if !matches!(sent, Ok(Ok(()))) {
            self.framing = Framing::Failed;
        }
        sent?.map_err(|error| Error::because(ErrorType::WriteError, "answering a client", error).into_down())
    }

    /// Whether an answer with this status can have a body (RFC 9110, section 6.4.1).
    fn may_have_body(&self, status: StatusCode) -> bool {
        !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) && self.head.request.method != Method::HEAD
    }

    /// How the body of an answer with this head is delimited.
    fn framing_of(&self, head: &AnswerHead, ends: bool) -> Framing {
        if !self.may_have_body(head.status) {
            return Framing::Done;
        }
        let length = head.fields.text(&CONTENT_LENGTH).parse().ok();
        match length {
            Some(0) => Framing::Done,
            Some(bytes) => Framing::Length(bytes),
            None if ends => Framing::Done,
            None => Framing::Chunks,
        }
    }

    fn put_head(&mut self, head: &AnswerHead, framing: Framing) {
        let may_have_body = self.may_have_body(head.status);
        let out = &mut self.output;
        out.reserve(HEAD_BYTES);
        let reason = head.status.canonical_reason().unwrap_or_default();
        for part in ["HTTP/1.1 ", head.status.as_str(), " ", reason, "\r\n"] {
            out.put_slice(part.as_bytes());
        }
        for (name, value) in head.fields.iter() {
            if !SAID_HERE.contains(name) {
                put_field(out, name.as_str(), value);
            }
        }
        put_field(out, "date", get_cached_date().as_bytes());
        if framing == Framing::Chunks {
            put_field(out, "transfer-encoding", b"chunked");
        } else if !head.fields.contains(&CONTENT_LENGTH) && may_have_body {
            put_field(out, "content-length", b"0");
        }
        if !self.head.is_kept {
            put_field(out, "connection", b"close");
        }
        out.put_slice(b"\r\n");
    }

    /// Frames a piece of the body into `output`, or returns it to be sent as it is.
    fn put_piece(&mut self, piece: Bytes, ends: bool) -> Result<Option<Bytes>> {
        match &mut self.framing {
            Framing::Length(rest) => {
                let bytes = piece.len() as u64;
                *rest = match rest.checked_sub(bytes) {
                    Some(rest) if !ends || rest == 0 => rest,
                    _ => return down(ErrorType::WriteError, "an answer has another length than it said"),
                };
                if *rest == 0 {
                    self.framing = Framing::Done;
                }
                self.body_bytes += bytes;
                if self.output.len() + piece.len() > GATHERED_BYTES {
                    return Ok(Some(piece));
                }
                self.output.extend_from_slice(&piece);
            }
            Framing::Chunks => {
                put_chunk(&mut self.output, &piece);
                self.body_bytes += piece.len() as u64;
                if ends {
                    self.output.put_slice(LAST_CHUNK);
                    self.framing = Framing::Done;
                }
            }
            // The body of an answer that has none.
            Framing::Done | Framing::Unsaid | Framing::Failed => {}
        }
        Ok(None)
    }
}

impl Conversation for Request {
    fn request(&self) -> &RequestHeader {
        &self.head.request
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.head.request
    }

    fn raw_head(&self) -> Option<Bytes> {
        None
    }

    fn peer(&self) -> Option<IpAddr> {
        Some(self.connection.peer)
    }

    fn shared_connection(&self) -> Option<Ending> {
        None
    }

    fn be_patient(&mut self, patience: Patience) {
        self.patience = patience;
    }

    fn has_body(&mut self) -> bool {
        self.had_body
    }

    fn is_body_done(&mut self) -> bool {
        self.head.body.is_done()
    }

    fn keep_body(&mut self) {
        self.kept.begin();
    }

    fn kept_body(&self) -> Option<Bytes> {
        self.kept.whole()
    }

    fn is_body_kept(&self) -> bool {
        self.kept.is_whole()
    }

    async fn read_body(&mut self, listen: bool) -> Result<Option<Bytes>> {
        loop {
            let taken = self.head.body.take(&mut self.connection.input);
            let taken =
                taken.map_err(|error| Error::because(ErrorType::InvalidHTTPHeader, "a body", error).into_down());
            if let Some(piece) = taken? {
                self.kept.keep(&piece);
                return Ok(Some(piece));
            }
            if !self.head.body.is_done() {
                self.fill_body().await?;
                continue;
            }
            // The next request, which may come before the answer to this one.
            if !listen || self.connection.is_ahead() {
                return Ok(None);
            }
            return match self.connection.fill().await {
                Ok(1..) => Ok(None),
                _ => down(ErrorType::ConnectionClosed, "the client went away"),
            };
        }
    }

    async fn drain_body(&mut self) -> Result<()> {
        self.kept.forget();
        let limit = self.patience.drain;
        drain(self, limit).await
    }

    async fn write_head(&mut self, head: AnswerHead, ends: bool) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        // What is left of a body that was not wanted would be taken for the next request.
        self.head.is_kept &= self.head.body.is_done();
        let framing = self.framing_of(&head, ends);
        self.put_head(&head, framing);
        self.framing = framing;
        self.status = Some(head.status);
        if ends { self.send(None, !self.is_last()).await } else { Ok(()) }
    }

    async fn write_body(&mut self, piece: Option<Bytes>, ends: bool) -> Result<()> {
        let large = self.put_piece(piece.unwrap_or_default(), ends)?;
        if large.is_some() || ends || self.output.len() > GATHERED_BYTES {
            self.send(large, ends && !self.is_last()).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        self.send(None, true).await
    }

    fn status(&self) -> Option<StatusCode> {
        self.status
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn end_connection(&mut self) {
        self.head.is_kept = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn connected() -> (Connection, DuplexStream) {
        let (ours, theirs) = duplex(64 * 1024);
        (Connection::new(Box::new(ours), Ipv4Addr::LOCALHOST.into()), theirs)
    }

    async fn asked(connection: Connection, client: &mut DuplexStream, wire: &str) -> Request {
        client.write_all(wire.as_bytes()).await.unwrap();
        match connection.ask().await {
            Asked::Request(request) => request,
            Asked::Odd(..) | Asked::Gone => panic!("{wire:?} is a request"),
        }
    }

    fn head(status: StatusCode, length: Option<usize>) -> AnswerHead {
        let mut head = AnswerHead::new(status, 1);
        head.fields.extend(length.map(|length| (CONTENT_LENGTH, HeaderValue::from(length))));
        head
    }

    /// What the client gets that was sent so far, without its date.
    async fn received(client: &mut DuplexStream) -> String {
        let mut wire = BytesMut::with_capacity(READ_BYTES);
        client.read_buf(&mut wire).await.unwrap();
        let text = String::from_utf8(wire.to_vec()).unwrap();
        let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with("date: ")).collect();
        lines.join("\r\n")
    }

    #[tokio::test]
    async fn one_request_follows_another_even_before_its_answer() {
        let (mut connection, mut client) = connected();
        let both = "POST /1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
                    GET /2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        client.write_all(both.as_bytes()).await.unwrap();
        assert!(connection.wait().await);
        let Asked::Request(mut first) = connection.ask().await else { panic!("a request") };
        first.keep_body();
        assert_eq!(first.read_body(false).await.unwrap().unwrap(), "ab");
        assert!(first.read_body(false).await.unwrap().is_none());
        assert!(first.read_body(true).await.unwrap().is_none(), "the next request is no reason to give this one up");
        assert_eq!(first.kept_body().unwrap(), "ab");
        first.write_head(head(StatusCode::OK, Some(2)), false).await.unwrap();
        first.write_body(Some("ok".into()), true).await.unwrap();
        assert_eq!(received(&mut client).await, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let Asked::Request(mut second) = first.finish().await.unwrap().ask().await else { panic!("a request") };
        assert_eq!(second.request().uri.path(), "/2");
        second.write_head(head(StatusCode::NO_CONTENT, None), true).await.unwrap();
        assert_eq!(received(&mut client).await, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        assert!(second.finish().await.is_none());
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_answer_without_a_length_comes_in_chunks_as_it_is_made() {
        let (connection, mut client) = connected();
        let mut request = asked(connection, &mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        request.write_head(head(StatusCode::OK, None), false).await.unwrap();
        request.flush().await.unwrap();
        assert_eq!(received(&mut client).await, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        request.write_body(Some("hello".into()), false).await.unwrap();
        request.flush().await.unwrap();
        assert_eq!(received(&mut client).await, "5\r\nhello\r\n");
        request.write_body(None, true).await.unwrap();
        assert_eq!(received(&mut client).await, "0\r\n\r\n");
        assert_eq!(request.body_bytes(), 5);
        assert!(request.finish().await.is_some());
    }

    #[tokio::test]
    async fn an_answer_to_head_says_how_long_it_would_be() {
        let (connection, mut client) = connected();
        let mut request = asked(connection, &mut client, "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        request.write_head(head(StatusCode::OK, Some(5)), true).await.unwrap();
        assert_eq!(received(&mut client).await, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
        assert!(request.finish().await.is_some());
    }

    #[tokio::test]
    async fn an_answer_that_is_not_whole_ends_its_connection() {
        for (said, sent) in [(5, "abc"), (2, "abc")] {
            let (connection, mut client) = connected();
            let mut request = asked(connection, &mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            request.write_head(head(StatusCode::OK, Some(said)), false).await.unwrap();
            assert!(request.write_body(Some(sent.into()), true).await.is_err());
            assert!(request.finish().await.is_none());
        }
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_ends_its_connection_after_the_answer() {
        let (connection, mut client) = connected();
        let mut request =
            asked(connection, &mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab").await;
        request.write_head(head(StatusCode::FORBIDDEN, Some(0)), true).await.unwrap();
        assert!(received(&mut client).await.ends_with("connection: close\r\n\r\n"));
        assert!(request.finish().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_gone_or_slow_is_noticed() {
        let (connection, mut client) = connected();
        let mut request = asked(connection, &mut client, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        drop(client);
        assert_eq!(*request.read_body(true).await.unwrap_err().etype(), ErrorType::ConnectionClosed);
        let (connection, mut client) = connected();
        let mut request =
            asked(connection, &mut client, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab").await;
        let second = Duration::from_secs(1);
        request.be_patient(Patience { read: Some(second), write: Some(second), drain: second });
        assert_eq!(request.read_body(false).await.unwrap().unwrap(), "ab");
        assert_eq!(*request.read_body(false).await.unwrap_err().etype(), ErrorType::ReadTimedout);
        assert_eq!(*request.drain_body().await.unwrap_err().etype(), ErrorType::ReadTimedout);
        request.write_head(head(StatusCode::OK, Some(1_000_000)), false).await.unwrap();
        let error = request.write_body(Some(vec![b'x'; 1_000_000].into()), true).await.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::WriteTimedout);
    }

    #[tokio::test]
    async fn what_was_read_of_a_request_can_be_read_again() {
        let (connection, mut client) = connected();
        let wire = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nab";
        let request = asked(connection, &mut client, wire).await;
        assert_eq!(request.into_unread().1, wire);
        let (connection, mut client) = connected();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let Asked::Odd(_, read) = connection.ask().await else { panic!("an odd request") };
        assert_eq!(read, "GET / HTTP/1.0\r\n\r\n");
    }
}
