//! Carries a request to somebody who reads HTTP/1.1 at the other end of a [`Link`], and the answer back, without a judgement.

use gatehouse_shared::contract::TRACEPARENT;
use pingora_error::Result;

use super::{host_of, relay};
use crate::admission::request_shape;
use crate::conversation::Conversation;
use crate::refusal;
use crate::upstream::link::Link;

/// Resolves when the answer is whole, or either side gave up.
///
/// # Errors
/// When one of them did.
pub(crate) async fn pass(client: &mut impl Conversation, mut link: Link) -> Result<()> {
    let request = client.request();
    let host = host_of(request).unwrap_or_default();
    // In HTTP/2 a target may hold what would end a line here.
    if let Err(misshapen) = request_shape::check(request.raw_path(), Some(host), &request.headers, usize::MAX) {
        return refusal::misshapen(misshapen).send(client).await;
    }
    // Left out for shards, which are told it anew.
    let trace = request.headers.get_all(TRACEPARENT).iter().filter_map(|value| value.to_str().ok());
    let (host, lines) = (host.to_owned(), trace.map(|value| format!("{TRACEPARENT}: {value}\r\n")).collect::<String>());
    let mut judge = |_, _| Ok(());
    let mut side = relay::begin(client, &mut link.writer, &host, &lines)?;
    let head = relay::head(client, &mut link, &mut side, &mut judge).await?;
    client.write_head(head, link.reader.is_done()).await?;
    while !link.reader.is_done() {
        let piece = relay::piece(client, &mut link, &mut side, &mut judge).await?;
        client.write_body(piece, link.reader.is_done()).await?;
    }
    Ok(())
}
