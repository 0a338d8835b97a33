//! Carries a request to somebody who reads HTTP/1.1 at the other end of a [`Link`], and the answer back, without a judgement.

use std::fmt::Write as _;

use bytes::Bytes;
use http::Method;
use http::header::HeaderName;
use pingora_error::Result;

use super::carry::{Side, length_of, listens, wrong_length};
use super::host_of;
use crate::admission::request_shape;
use crate::conversation::Conversation;
use crate::refusal;
use crate::upstream::link::{Head, Link, Writer};

/// What the writer leaves out for shards, which are told it anew.
const SAID_ANEW: [HeaderName; 1] = [HeaderName::from_static("traceparent")];

/// Resolves when the answer is whole, or either side gave up.
///
/// # Errors
/// When one of them did.
pub(crate) async fn pass(client: &mut impl Conversation, mut link: Link) -> Result<()> {
    let has_body = client.has_body();
    let request = client.request();
    let host = host_of(request);
    // In HTTP/2 a target may hold what would end a line here.
    if let Err(misshapen) = request_shape::check(request.raw_path(), host, &request.headers, usize::MAX) {
        return refusal::misshapen(misshapen).send(client).await;
    }
    let mut others = String::new();
    for name in SAID_ANEW {
        for value in request.headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()) {
            let _ = write!(others, "{name}: {value}\r\n");
        }
    }
    let head = Head {
        method: request.method.as_str(),
        target: request.uri.path_and_query().map_or("/", |target| target.as_str()),
        host: host.unwrap_or_default(),
        headers: &request.headers,
        vouched: &others,
    };
    let to_head = request.method == Method::HEAD;
    let (reader, writer) = (&mut link.reader, &mut link.writer);
    writer.begin(&head, length_of(request, has_body));
    if !has_body {
        writer.end().map_err(wrong_length)?;
    }
    let mut side = if has_body { Side::Sends } else { Side::Waits };
    let head = loop {
        tokio::select! {
            biased;
            sent = writer.send_some(), if writer.has_pending() => if sent.is_err() {
                // What it has to say does not depend on the rest.
                writer.abandon();
            },
            head = reader.head(to_head) => break head?,
            heard = client.read_body(side == Side::Waits), if listens(side, writer) => {
                side = hear(client, writer, side, heard?)?;
            }
        }
    };
    client.write_head(head, reader.is_done()).await?;
    while !reader.is_done() {
        let piece = loop {
            tokio::select! {
                biased;
                piece = reader.body() => break piece?,
                sent = writer.send_some(), if writer.has_pending() => if sent.is_err() {
                    writer.abandon();
                },
                heard = client.read_body(side == Side::Waits), if listens(side, writer) => {
                    side = hear(client, writer, side, heard?)?;
                }
            }
        };
        client.write_body(piece, reader.is_done()).await?;
    }
    Ok(())
}

/// Takes a piece of the body; `None` is its end.
fn hear(client: &mut impl Conversation, writer: &mut Writer, side: Side, piece: Option<Bytes>) -> Result<Side> {
    if side != Side::Sends {
        return Ok(Side::Silent);
    }
    let ends = piece.is_none() || client.is_body_done();
    writer.body(&piece.unwrap_or_default()).map_err(wrong_length)?;
    if ends {
        writer.end().map_err(wrong_length)?;
    }
    Ok(if ends { Side::Waits } else { Side::Sends })
}
