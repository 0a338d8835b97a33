//! A request on its way over a [`Link`], and its answer on the way back, each as fast as the other side takes it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Method;
use pingora_error::{Error, ErrorType, Result};

use super::announced_length;
use crate::answer_head::AnswerHead;
use crate::conversation::Conversation;
use crate::upstream::link::{Head, Length, Link, Writer, WrongLength};

/// Who takes no more of a request may have answered it already; so long its answer is waited for.
const LAST_WORD: Duration = Duration::from_secs(1);

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

/// Says whether so many bytes of a body, and perhaps its end, may go on.
pub(super) trait Judge: FnMut(usize, bool) -> Result<()> + Send {}

impl<J: FnMut(usize, bool) -> Result<()> + Send> Judge for J {}

/// Writes the head, with these lines beside what the client said.
pub(super) fn begin(client: &mut impl Conversation, writer: &mut Writer, host: &str, lines: &str) -> Result<Side> {
    let has_body = client.has_body();
    let request = client.request();
    let length = match announced_length(request) {
        Some(bytes) => Length::Known(bytes),
        None if has_body => Length::Unknown,
        None => Length::Nothing,
    };
    let head = Head {
        method: request.method.as_str(),
        target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
        host,
        headers: &request.headers,
        vouched: lines,
    };
    writer.begin(&head, length);
    if has_body {
        return Ok(Side::Sends);
    }
    writer.end().map_err(wrong_length)?;
    Ok(Side::Waits)
}

/// Takes a piece of the body; `None` is its end.
pub(super) fn send(
    client: &mut impl Conversation,
    writer: &mut Writer,
    piece: Option<Bytes>,
    judge: &mut impl Judge,
) -> Result<Side> {
    let ends = piece.is_none() || client.is_body_done();
    let piece = piece.unwrap_or_default();
    judge(piece.len(), ends)?;
    writer.body(&piece).map_err(wrong_length)?;
    if ends {
        writer.end().map_err(wrong_length)?;
    }
    Ok(if ends { Side::Waits } else { Side::Sends })
}

/// Sends the request until its answer begins.
pub(super) async fn head(
    client: &mut impl Conversation,
    Link { reader, writer, .. }: &mut Link,
    side: &mut Side,
    judge: &mut impl Judge,
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
                *side = hear(client, writer, *side, heard?, judge)?;
            }
        }
    }
}

/// The next piece of the answer; the client, who may still be sending, gets what is written before it is waited for.
pub(super) async fn piece(
    client: &mut impl Conversation,
    link: &mut Link,
    side: &mut Side,
    judge: &mut impl Judge,
) -> Result<Option<Bytes>> {
    if let Some(at_hand) = read(client, link, side, judge).now_or_never() {
        return at_hand;
    }
    client.flush().await?;
    read(client, link, side, judge).await
}

async fn read(
    client: &mut impl Conversation,
    Link { reader, writer, .. }: &mut Link,
    side: &mut Side,
    judge: &mut impl Judge,
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
                *side = hear(client, writer, *side, heard?, judge)?;
            }
        }
    }
}

/// Something came from the client: a piece of its body, its end, or what belongs to its next request.
fn hear(
    client: &mut impl Conversation,
    writer: &mut Writer,
    side: Side,
    piece: Option<Bytes>,
    judge: &mut impl Judge,
) -> Result<Side> {
    match side {
        Side::Sends => send(client, writer, piece, judge),
        Side::Waits | Side::Silent => Ok(Side::Silent),
    }
}

fn wrong_length(error: WrongLength) -> Box<Error> {
    Error::because(ErrorType::InvalidHTTPHeader, "a request's body", error).into_down()
}

/// What a client sends is read only as fast as it is taken.
fn listens(side: Side, writer: &Writer) -> bool {
    match side {
        Side::Sends => !writer.has_pending(),
        Side::Waits => true,
        Side::Silent => false,
    }
}
