//! Carries a request to its shard and the answer back, over a [`Link`].

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT, RETRY_AFTER, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};
use pingora_error::{Error, ErrorType, OkOrErr, Result};
use pingora_http::RequestHeader;

use super::answer::finish_piece;
use super::{Proxy, announced_length};
use crate::answer_head::AnswerHead;
use crate::conversation::Conversation;
use crate::exchange::Exchange;
use crate::upstream::link::{Head, Length, Link, Writer, WrongLength};

/// A shard that takes no more of a request may have answered it already; so long its answer is waited for.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Whether a request goes to its shard over a link; what changes the protocol, waits within itself, or names headers that
/// are for one connection alone takes Pingora's way.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let plain = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")
    };
    !headers.contains_key(UPGRADE) && !headers.contains_key(EXPECT) && headers.get_all(CONNECTION).iter().all(plain)
}

/// What is still to be done with the client's side of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Its body is read.
    Sends,
    /// It waits for the answer, and may go away.
    Waits,
    /// Nothing more is heard from it.
    Silent,
}

impl Proxy {
    /// Brings the request to a shard, again if need be, and its answer to the client.
    pub(super) async fn carry(&self, client: &mut impl Conversation, exchange: &mut Exchange) -> Result<()> {
        if client.has_body() {
            client.keep_body();
        }
        loop {
            match self.attempt(client, exchange).await {
                Err(error) if error.retry() => {}
                done => return done,
            }
        }
    }

    async fn attempt(&self, client: &mut impl Conversation, exchange: &mut Exchange) -> Result<()> {
        self.begin_attempt(exchange);
        self.choose_shard(exchange).await?;
        let shard = exchange.shard().or_err(ErrorType::InternalError, "no shard was chosen")?;
        let mut link = match shard.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.note_unreachable(exchange, error)),
        };
        let was_reused = link.is_reused;
        match self.pass(client, exchange, &mut link).await {
            Ok(()) => {
                if let Some(shard) = exchange.shard().filter(|_| link.is_reusable()) {
                    shard.keep(link);
                }
                Ok(())
            }
            Err(error) => Err(self.note_interrupted(client, exchange, error, was_reused)),
        }
    }

    /// One request, one answer.
    async fn pass(&self, client: &mut impl Conversation, exchange: &mut Exchange, link: &mut Link) -> Result<()> {
        let mut side = self.begin(client, exchange, &mut link.writer)?;
        let mut head = self.head(client, exchange, link, &mut side).await?;
        self.judge_answer(head.status, head.fields.text(&RETRY_AFTER), exchange)?;
        self.finish_answer(client.request(), &mut head, exchange);
        client.write_head(head, link.reader.is_done()).await?;
        while !link.reader.is_done() {
            let at_hand = self.piece(client, exchange, link, &mut side).now_or_never();
            let mut piece = match at_hand {
                Some(piece) => piece?,
                None => {
                    client.flush().await?;
                    self.piece(client, exchange, link, &mut side).await?
                }
            };
            let ends = link.reader.is_done();
            finish_piece(&mut piece, ends, exchange)?;
            client.write_body(piece, ends).await?;
        }
        Ok(())
    }

    /// Writes the head, and as much of the body as is there.
    fn begin(&self, client: &mut impl Conversation, exchange: &mut Exchange, writer: &mut Writer) -> Result<Side> {
        let has_body = client.has_body();
        let request = client.request();
        let Some(vouched) = &exchange.vouched else {
            return Error::e_explain(ErrorType::InternalError, "a request was routed before it was examined");
        };
        let head = Head {
            method: request.method.as_str(),
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
            host: &exchange.host,
            headers: &request.headers,
            vouched: vouched.lines(),
        };
        writer.begin(&head, length_of(request, has_body));
        if !has_body {
            writer.end().map_err(wrong_length)?;
            return Ok(Side::Waits);
        }
        self.await_body(client, exchange);
        let mut side = Side::Sends;
        if let Some(sent_before) = client.kept_body() {
            side = self.send(client, exchange, writer, Some(sent_before))?;
        }
        if side == Side::Sends
            && let Some(piece) = client.read_body(false).now_or_never()
        {
            side = self.send(client, exchange, writer, piece?)?;
        }
        Ok(side)
    }

    /// Takes a piece of the body; `None` is its end.
    fn send(
        &self,
        client: &mut impl Conversation,
        exchange: &mut Exchange,
        writer: &mut Writer,
        piece: Option<Bytes>,
    ) -> Result<Side> {
        let ends = piece.is_none() || client.is_body_done();
        let piece = piece.unwrap_or_default();
        self.pass_body(piece.len(), ends, exchange)?;
        writer.body(&piece).map_err(wrong_length)?;
        if ends {
            writer.end().map_err(wrong_length)?;
        }
        Ok(if ends { Side::Waits } else { Side::Sends })
    }

    /// Sends the request until its answer begins.
    async fn head(
        &self,
        client: &mut impl Conversation,
        exchange: &mut Exchange,
        Link { reader, writer, .. }: &mut Link,
        side: &mut Side,
    ) -> Result<AnswerHead> {
        let to_head = client.request().method == Method::HEAD;
        loop {
            tokio::select! {
                biased;
                sent = writer.send_some(), if writer.has_pending() => if let Err(error) = sent {
                    writer.abandon();
                    let last_word = tokio::time::timeout(LAST_WORD, reader.head(to_head)).await;
                    return match last_word {
                        Ok(Ok(header)) => Ok(header),
                        _ => Err(Error::because(ErrorType::WriteError, "sending to a shard", error).into_up()),
                    };
                },
                header = reader.head(to_head) => return header,
                heard = client.read_body(*side == Side::Waits), if listens(*side, writer) => {
                    *side = self.hear(client, exchange, writer, *side, heard?)?;
                }
            }
        }
    }

    /// Reads the next piece of the answer; the client may still be sending.
    async fn piece(
        &self,
        client: &mut impl Conversation,
        exchange: &mut Exchange,
        Link { reader, writer, .. }: &mut Link,
        side: &mut Side,
    ) -> Result<Option<Bytes>> {
        loop {
            tokio::select! {
                biased;
                piece = reader.body() => return piece,
                sent = writer.send_some(), if writer.has_pending() => if sent.is_err() {
                    // Its answer does not depend on the rest of the request.
                    writer.abandon();
                },
                heard = client.read_body(*side == Side::Waits), if listens(*side, writer) => {
                    *side = self.hear(client, exchange, writer, *side, heard?)?;
                }
            }
        }
    }

    /// Something came from the client: a piece of its body, its end, or what belongs to its next request.
    fn hear(
        &self,
        client: &mut impl Conversation,
        exchange: &mut Exchange,
        writer: &mut Writer,
        side: Side,
        piece: Option<Bytes>,
    ) -> Result<Side> {
        match side {
            Side::Sends => self.send(client, exchange, writer, piece),
            Side::Waits | Side::Silent => Ok(Side::Silent),
        }
    }
}

/// How a request's body is delimited on its way.
pub(super) fn length_of(request: &RequestHeader, has_body: bool) -> Length {
    match announced_length(request) {
        Some(bytes) => Length::Known(bytes),
        None if has_body => Length::Unknown,
        None => Length::Nothing,
    }
}

pub(super) fn wrong_length(error: WrongLength) -> Box<Error> {
    Error::because(ErrorType::InvalidHTTPHeader, "a request's body", error).into_down()
}

/// What a client sends is read only as fast as the shard takes it.
pub(super) fn listens(side: Side, writer: &Writer) -> bool {
    match side {
        Side::Sends => !writer.has_pending(),
        Side::Waits => true,
        Side::Silent => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_the_connection_alone_takes_pingoras_way() {
        let plain = |fields: &[(http::HeaderName, &'static str)]| {
            let fields = fields.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value)));
            is_plain(&fields.collect())
        };
        assert!(plain(&[]) && plain(&[(CONNECTION, "Keep-Alive")]) && plain(&[(CONNECTION, "close")]));
        assert!(!plain(&[(UPGRADE, "websocket"), (CONNECTION, "upgrade")]));
        assert!(!plain(&[(CONNECTION, "x-token")]));
        assert!(!plain(&[(EXPECT, "100-continue")]));
    }
}
