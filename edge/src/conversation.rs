//! One request of a client and the way back, whichever protocol it came by.

use std::net::IpAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{StatusCode, Version};
use pingora_error::{Error, ErrorType, Result};
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

    /// What the client speaks.
    fn version(&self) -> Version {
        self.request().version
    }

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

/// So much of a body is kept for another attempt.
const MOST_KEPT_BYTES: usize = 64 * 1024;

/// What was read of a request's body and may be sent once more.
#[derive(Debug, Default)]
pub(crate) struct KeptBody {
    /// `None` when it is not kept, or no longer.
    kept: Option<Kept>,
    bytes: usize,
}

/// In as few pieces as can be, because a client may send many that are small.
#[derive(Debug)]
enum Kept {
    Nothing,
    Piece(Bytes),
    Joined(BytesMut),
}

impl KeptBody {
    /// Keeps what is read from now on, as far as it is small.
    pub(crate) fn begin(&mut self) {
        self.kept.get_or_insert(Kept::Nothing);
    }

    /// A piece was read.
    pub(crate) fn keep(&mut self, piece: &Bytes) {
        self.bytes += piece.len();
        let join = |mut joined: BytesMut| {
            joined.extend_from_slice(piece);
            Kept::Joined(joined)
        };
        let kept = self.kept.take().filter(|_| self.is_whole());
        self.kept = kept.map(|kept| match kept {
            Kept::Nothing => Kept::Piece(piece.clone()),
            Kept::Piece(first) => join(first.into()),
            Kept::Joined(joined) => join(joined),
        });
    }

    /// Nothing will be sent again.
    pub(crate) fn forget(&mut self) {
        self.kept = None;
    }

    /// What was kept; `None` when that is nothing.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        match self.kept.as_ref()? {
            Kept::Nothing => None,
            Kept::Piece(only) => Some(only.clone()),
            Kept::Joined(joined) => Some(Bytes::copy_from_slice(joined)),
        }
    }

    /// Whether all that was read is small enough to be kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.bytes <= MOST_KEPT_BYTES
    }
}

/// Reads what is left of a body, for so long.
pub(crate) async fn drain(client: &mut impl Conversation, within_time: Duration) -> Result<()> {
    let draining = async {
        while client.read_body(false).await?.is_some() {}
        Ok(())
    };
    within(Some(within_time), ErrorType::ReadTimedout, draining).await?
}

/// Lets a client that was answered before it had sent everything go on for a while, or stop by itself. Otherwise it could lose
/// its answer: the system takes it back when a connection ends with something unread, and some clients take the end of a
/// stream of HTTP/2 for a failure.
pub(crate) async fn let_finish(client: &mut impl Conversation) {
    if !client.is_body_done() {
        // Either it stops sending or its time is up: both end the request. Rare, so in a place of its own.
        let _ = Box::pin(client.drain_body()).await;
    }
}

/// An error for which the client is to blame.
pub(crate) fn down<T>(kind: ErrorType, what: &'static str) -> Result<T> {
    Error::e_explain(kind, what).map_err(Error::into_down)
}

/// Waits for the client, so long at most.
pub(crate) async fn within<F: Future>(limit: Option<Duration>, kind: ErrorType, future: F) -> Result<F::Output> {
    let mut future = pin!(future);
    // Mostly there is nothing to wait for, and no need to look at a clock.
    if let Poll::Ready(output) = futures_util::poll!(&mut future) {
        return Ok(output);
    }
    let Some(limit) = limit else { return Ok(future.await) };
    tokio::time::timeout(limit, future).await.or_else(|_| down(kind, "the client took too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_body_is_kept_however_it_comes() {
        let mut body = KeptBody::default();
        body.keep(&Bytes::from_static(b"before"));
        assert_eq!(body.whole(), None);
        body.begin();
        for (piece, whole) in [("a", "a"), ("b", "ab"), ("c", "abc")] {
            body.keep(&Bytes::from_static(piece.as_bytes()));
            assert_eq!(body.whole().unwrap(), whole);
        }
        assert!(body.is_whole());
        body.keep(&Bytes::from(vec![0; MOST_KEPT_BYTES]));
        assert!(body.whole().is_none() && !body.is_whole());
    }
}
