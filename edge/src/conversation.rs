//! One request of a client and the way back, whichever protocol it came by.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use pingora_error::Result;
use pingora_http::RequestHeader;

use crate::answer_head::AnswerHead;
use crate::ending::Ending;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the next bytes of a body.
    pub(crate) read: Option<Duration>,
    /// To take a part of the answer.
    pub(crate) write: Option<Duration>,
    /// For the rest of a body that nobody wants.
    pub(crate) drain: Duration,
}

/// A request that was read, and what can be done about it. Errors say that the client is to blame for them.
pub(crate) trait Conversation: Send {
    /// The request's head.
    fn request(&self) -> &RequestHeader;

    /// The request's head, to be changed.
    fn request_mut(&mut self) -> &mut RequestHeader;

    /// The head as it came, where it came in HTTP/1 and was changed in reading.
    fn raw_head(&self) -> Option<Bytes>;

    /// The address at the other end of the connection.
    fn peer(&self) -> Option<IpAddr>;

    /// What ends the connection that this request shares with others.
    fn shared_connection(&self) -> Option<Ending>;

    /// Sets how long the client may take from now on.
    fn be_patient(&mut self, patience: Patience);

    /// Whether the request has a body.
    fn has_body(&mut self) -> bool;

    /// Whether all of the body was read.
    fn is_body_done(&mut self) -> bool;

    /// Keeps what is read of the body from now on, as far as it is small.
    fn keep_body(&mut self);

    /// What was kept of the body.
    fn kept_body(&self) -> Option<Bytes>;

    /// Whether all that was read is kept.
    fn is_body_kept(&self) -> bool;

    /// The next piece of the body, `None` at its end. With `listen`, after the end, resolves only when something else is heard
    /// of the client: an error when it is gone. May be dropped and called again.
    fn read_body(&mut self, listen: bool) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Reads what is left of the body, for nothing.
    fn drain_body(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Writes the head of the answer; `ends` says that no body follows.
    fn write_head(&mut self, head: AnswerHead, ends: bool) -> impl Future<Output = Result<()>> + Send;

    /// Writes a piece of the answer's body.
    fn write_body(&mut self, piece: Option<Bytes>, ends: bool) -> impl Future<Output = Result<()>> + Send;

    /// Sends what was written so far and may wait for more; the end of an answer is sent anyway.
    fn flush(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// The status that was written.
    fn status(&self) -> Option<StatusCode>;

    /// How many bytes of the answer's body were written.
    fn body_bytes(&self) -> u64;

    /// Ends the connection after this request, where it has the connection for itself.
    fn end_connection(&mut self);
}
