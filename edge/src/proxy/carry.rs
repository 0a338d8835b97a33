//! Carries a request to its shard and the answer back, over a [`Link`].

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Version};
use pingora_error::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::answer::finish_piece;
use super::{Proxy, announced_length};
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
enum Client {
    /// Its body is read.
    Sends,
    /// It waits for the answer, and may go away.
    Waits,
    /// Nothing more is heard from it.
    Silent,
}

impl Proxy {
    /// Brings the request to a shard, again if need be, and its answer to the client.
    pub(super) async fn carry(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        if !session.is_body_empty() {
            session.enable_retry_buffering();
        }
        loop {
            match self.attempt(session, exchange).await {
                Err(error) if error.retry() => {}
                done => return done,
            }
        }
    }

    async fn attempt(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        self.begin_attempt(exchange);
        let shard = self.choose_shard(exchange).await?;
        let mut link = match shard.link().await {
            Ok(link) => link,
            Err(error) => return Err(self.note_unreachable(exchange, error)),
        };
        let was_reused = link.is_reused;
        match self.pass(session, exchange, &mut link).await {
            Ok(()) => {
                if link.is_reusable() {
                    shard.keep(link);
                }
                Ok(())
            }
            Err(error) => Err(self.note_interrupted(session, exchange, error, was_reused)),
        }
    }

    /// One request, one answer.
    async fn pass(&self, session: &mut Session, exchange: &mut Exchange, link: &mut Link) -> Result<()> {
        let mut client = self.begin(session, exchange, &mut link.writer)?;
        let mut header = self.head(session, exchange, link, &mut client).await?;
        self.judge_answer(&header, exchange)?;
        let ends = link.reader.is_done();
        if !ends && !header.headers.contains_key(CONTENT_LENGTH) {
            // Its end is told without closing the connection.
            header.set_version(Version::HTTP_11);
            header.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
        }
        self.finish_answer(session, &mut header, exchange)?;
        session.write_response_header(Box::new(header), ends).await.map_err(Error::into_down)?;
        if ends {
            return session.downstream_session.finish_body().await.map_err(Error::into_down);
        }
        loop {
            let mut piece = self.piece(session, exchange, link, &mut client).await?;
            let ends = link.reader.is_done();
            finish_piece(&mut piece, ends, exchange)?;
            session.write_response_body(piece, ends).await.map_err(Error::into_down)?;
            if ends {
                return Ok(());
            }
        }
    }

    /// Writes the head, and as much of the body as is there.
    fn begin(&self, session: &mut Session, exchange: &mut Exchange, writer: &mut Writer) -> Result<Client> {
        let has_body = !session.is_body_empty();
        let request = session.req_header();
        let Some(vouched) = &exchange.vouched else {
            return Error::e_explain(ErrorType::InternalError, "a request was routed before it was examined");
        };
        let length = match announced_length(request) {
            Some(bytes) => Length::Known(bytes),
            None if has_body => Length::Unknown,
            None => Length::Nothing,
        };
        let head = Head {
            method: request.method.as_str(),
            target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
            host: &exchange.host,
            headers: &request.headers,
            vouched: vouched.lines(),
        };
        writer.begin(&head, length);
        if !has_body {
            writer.end().map_err(wrong_length)?;
            return Ok(Client::Waits);
        }
        self.await_body(session, exchange);
        let mut client = Client::Sends;
        if let Some(sent_before) = session.get_retry_buffer() {
            client = self.send(session, exchange, writer, Some(sent_before))?;
        }
        if client == Client::Sends
            && let Some(piece) = session.downstream_session.read_body_or_idle(false).now_or_never()
        {
            client = self.send(session, exchange, writer, piece.map_err(Error::into_down)?)?;
        }
        Ok(client)
    }

    /// Takes a piece of the body; `None` is its end.
    fn send(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        writer: &mut Writer,
        piece: Option<Bytes>,
    ) -> Result<Client> {
        let ends = piece.is_none() || session.is_body_done();
        let piece = piece.unwrap_or_default();
        self.pass_body(piece.len(), ends, exchange)?;
        writer.body(&piece).map_err(wrong_length)?;
        if ends {
            writer.end().map_err(wrong_length)?;
        }
        Ok(if ends { Client::Waits } else { Client::Sends })
    }

    /// Sends the request until its answer begins.
    async fn head(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        Link { reader, writer, .. }: &mut Link,
        client: &mut Client,
    ) -> Result<ResponseHeader> {
        let to_head = session.req_header().method == Method::HEAD;
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
                heard = session.downstream_session.read_body_or_idle(*client == Client::Waits), if listens(*client, writer) => {
                    *client = self.hear(session, exchange, writer, *client, heard)?;
                }
            }
        }
    }

    /// Reads the next piece of the answer; the client may still be sending.
    async fn piece(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        Link { reader, writer, .. }: &mut Link,
        client: &mut Client,
    ) -> Result<Option<Bytes>> {
        loop {
            tokio::select! {
                biased;
                piece = reader.body() => return piece,
                sent = writer.send_some(), if writer.has_pending() => if sent.is_err() {
                    // Its answer does not depend on the rest of the request.
                    writer.abandon();
                },
                heard = session.downstream_session.read_body_or_idle(*client == Client::Waits), if listens(*client, writer) => {
                    *client = self.hear(session, exchange, writer, *client, heard)?;
                }
            }
        }
    }

    /// Something came from the client: a piece of its body, its end, or the news that it is gone.
    fn hear(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        writer: &mut Writer,
        client: Client,
        heard: Result<Option<Bytes>>,
    ) -> Result<Client> {
        let piece = heard.map_err(Error::into_down)?;
        match client {
            Client::Sends => self.send(session, exchange, writer, piece),
            Client::Waits | Client::Silent => Ok(Client::Silent),
        }
    }
}

fn wrong_length(error: WrongLength) -> Box<Error> {
    Error::because(ErrorType::InvalidHTTPHeader, "a request's body", error).into_down()
}

/// What a client sends is read only as fast as the shard takes it.
fn listens(client: Client, writer: &Writer) -> bool {
    match client {
        Client::Sends => !writer.has_pending(),
        Client::Waits => true,
        Client::Silent => false,
    }
}
