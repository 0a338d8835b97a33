//! One request of a client, on a stream of its own.

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, DATE, EXPECT, HOST};
use http::{Method, Response, StatusCode, request};
use pingora_core::protocols::http::date::get_cached_date;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::RequestHeader;

use crate::answer_head::{AnswerHead, HOP_BY_HOP};
use crate::conversation::{Conversation, KeptBody, Patience, down, drain, within};
use crate::ending::Ending;

/// Who is at the other end of the connection that streams share, and how to end it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) end: Ending,
}

/// A request and its stream.
pub(crate) struct Request {
    client: Client,
    head: RequestHeader,
    body: RecvStream,
    /// Whether there is nothing more to read of the body; what may follow it (trailers) nobody reads, and `h2` keeps.
    is_body_over: bool,
    had_body: bool,
    /// Whether a client that waits for a word before it sends the body has been looked for.
    has_given_word: bool,
    kept: KeptBody,
    patience: Patience,
    /// For the head of the answer.
    respond: SendResponse<Bytes>,
    /// For its body.
    answer: Option<SendStream<Bytes>>,
    status: Option<StatusCode>,
    body_bytes: u64,
    is_ended: bool,
}

impl Request {
    /// A request that came on a stream. One whose target or host could be understood in two ways is refused at once, and
    /// `None`.
    pub(crate) fn new(
        request: http::Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        client: Client,
    ) -> Option<Self> {
        let (parts, body) = request.into_parts();
        if !is_clear(&parts) {
            let mut refusal = Response::new(());
            *refusal.status_mut() = StatusCode::BAD_REQUEST;
            // The client may have given the stream up.
            let _ = respond.send_response(refusal, true);
            return None;
        }
        let is_empty = parts.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        Some(Self {
            client,
            has_given_word: false,
            head: parts.into(),
            is_body_over: false,
            had_body: !body.is_end_stream() && !is_empty,
            body,
            kept: KeptBody::default(),
            patience: Patience { read: None, write: None, drain: Duration::ZERO },
            respond,
            answer: None,
            status: None,
            body_bytes: 0,
            is_ended: false,
        })
    }

    /// The end. An answer that is not whole is cut, so that nobody takes a part for the whole.
    pub(crate) fn finish(mut self) {
        if self.is_ended {
            return;
        }
        match &mut self.answer {
            Some(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }

    /// Resolves when the client gives the stream up.
    async fn given_up<T>(&mut self) -> Result<T> {
        poll_fn(|context| match &mut self.answer {
            Some(answer) => answer.poll_reset(context),
            None => self.respond.poll_reset(context),
        })
        .await
        .or_err(ErrorType::H2Error, "waiting for a client")
        .map_err(Error::into_down)?;
        down(ErrorType::H2Error, "the client gave its request up")
    }

    /// What `h2` has of the body. Only a client whose body is waited for is told to send it, which a stream that is reset is
    /// not: what is put on it would never leave.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let received = self.body.poll_data(context);
        if received.is_pending()
            && let Err(error) = self.give_word()
        {
            return Poll::Ready(Some(Err(error)));
        }
        received
    }

    /// Tells a client that waits for it to send its body (RFC 9110, section 10.1.1).
    fn give_word(&mut self) -> Result<(), h2::Error> {
        if std::mem::replace(&mut self.has_given_word, true) || self.status.is_some() {
            return Ok(());
        }
        let expected = self.head.headers.get(EXPECT).map(|expected| expected.as_bytes());
        if !expected.is_some_and(|expected| expected.eq_ignore_ascii_case(b"100-continue")) {
            return Ok(());
        }
        let mut word = Response::new(());
        *word.status_mut() = StatusCode::CONTINUE;
        self.respond.send_informational(word)
    }

    /// The next piece of the body; `None` at its end.
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        let Some(received) = poll_fn(|context| self.poll_body(context)).await else {
            self.is_body_over = true;
            return Ok(None);
        };
        let piece = received.or_err(ErrorType::ReadError, "reading a body").map_err(Error::into_down)?;
        self.kept.keep(&piece);
        let taken = self.body.flow_control().release_capacity(piece.len());
        taken.or_err(ErrorType::ReadError, "reading a body").map_err(Error::into_down)?;
        Ok(Some(piece))
    }
}

/// Sends as much of `piece` as the client has room for, and waits until it has some.
async fn send_some(answer: &mut SendStream<Bytes>, piece: &mut Bytes, ends: bool) -> Result<()> {
    answer.reserve_capacity(piece.len());
    let room = poll_fn(|context| answer.poll_capacity(context)).await;
    let Some(room) = room.transpose().or_err(ErrorType::WriteError, "answering a client")? else {
        return Error::e_explain(ErrorType::WriteError, "the client takes no more");
    };
    let part = piece.split_to(room.min(piece.len()));
    if part.is_empty() {
        return Ok(());
    }
    let ends = ends && piece.is_empty();
    answer.send_data(part, ends).or_err(ErrorType::WriteError, "answering a client")
}

/// Whether target and host are what everybody takes them for: a path, and one name (RFC 9113, section 8.3.1).
fn is_clear(request: &request::Parts) -> bool {
    let has_path = request.uri.path_and_query().is_some_and(|target| target.as_str().starts_with('/'));
    let is_for_all = request.method == Method::OPTIONS && request.uri.path() == "*";
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let is_one_host = second.is_none()
        && match (request.uri.authority(), host) {
            (Some(authority), Some(host)) => authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()),
            (authority, host) => authority.is_some() || host.is_some(),
        };
    request.method != Method::CONNECT && (has_path || is_for_all) && is_one_host
}

impl Conversation for Request {
    fn request(&self) -> &RequestHeader {
        &self.head
    }

    fn request_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    fn raw_head(&self) -> Option<Bytes> {
        None
    }

    fn peer(&self) -> Option<IpAddr> {
        Some(self.client.address)
    }

    fn shared_connection(&self) -> Option<Ending> {
        Some(self.client.end.clone())
    }

    fn be_patient(&mut self, patience: Patience) {
        self.patience = patience;
    }

    fn has_body(&mut self) -> bool {
        self.had_body
    }

    fn is_body_done(&mut self) -> bool {
        !self.had_body || self.is_body_over || self.body.is_end_stream()
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
        if !self.is_body_done() {
            return self.receive().await;
        }
        if listen { self.given_up().await } else { Ok(None) }
    }

    async fn drain_body(&mut self) -> Result<()> {
        self.kept.forget();
        let limit = self.patience.drain;
        drain(self, limit).await
    }

    async fn write_head(&mut self, mut head: AnswerHead, ends: bool) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        // HTTP/2 has nothing of the kind (RFC 9113, section 8.2.2).
        head.fields.retain(|name| !HOP_BY_HOP.contains(name) && *name != DATE);
        head.fields.append(DATE, get_cached_date());
        let status = head.status;
        let parts = head.into_parts().or_err(ErrorType::InvalidHTTPHeader, "a field of an answer")?;
        let sent = self.respond.send_response(Response::from_parts(parts, ()), ends);
        self.answer = Some(sent.or_err(ErrorType::WriteError, "answering a client").map_err(Error::into_down)?);
        self.status = Some(status);
        self.is_ended = ends;
        Ok(())
    }

    async fn write_body(&mut self, piece: Option<Bytes>, ends: bool) -> Result<()> {
        let mut piece = piece.unwrap_or_default();
        if self.is_ended || piece.is_empty() && !ends {
            return Ok(());
        }
        let Some(answer) = &mut self.answer else {
            return Error::e_explain(ErrorType::InternalError, "a body was written before its head");
        };
        let bytes = piece.len();
        if piece.is_empty() {
            let sent = answer.send_data(piece, true);
            sent.or_err(ErrorType::WriteError, "answering a client").map_err(Error::into_down)?;
        } else {
            let sending = async {
                while !piece.is_empty() {
                    send_some(answer, &mut piece, ends).await?;
                }
                Ok(())
            };
            let sent: Result<()> = within(self.patience.write, ErrorType::WriteTimedout, sending).await?;
            sent.map_err(Error::into_down)?;
        }
        self.body_bytes += bytes as u64;
        self.is_ended = ends;
        Ok(())
    }

    /// The connection sends what there is as soon as it can.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn status(&self) -> Option<StatusCode> {
        self.status
    }

    fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The connection is not this request's alone.
    fn end_connection(&mut self) {}
}
