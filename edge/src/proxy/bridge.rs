//! Carries a request to somebody who reads HTTP/1.1 at the other end of a [`Link`], and the answer back, without a judgement.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{COOKIE, HeaderName};
use http::{HeaderValue, Method};
use pingora_error::Result;
use pingora_http::RequestHeader;

use super::carry::{length_of, wrong_length};
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
    join_cookies(client.request_mut())?;
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
    let mut sends = has_body;
    let head = loop {
        tokio::select! {
            biased;
            sent = writer.send_some(), if writer.has_pending() => if sent.is_err() {
                // What it has to say does not depend on the rest.
                writer.abandon();
                sends = false;
            },
            head = reader.head(to_head) => break head?,
            heard = client.read_body(!sends), if !writer.has_pending() => sends = send(client, writer, heard?)?,
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
                    sends = false;
                },
                heard = client.read_body(!sends), if !writer.has_pending() => sends = send(client, writer, heard?)?,
            }
        };
        client.write_body(piece, reader.is_done()).await?;
    }
    Ok(())
}

/// Takes a piece of the body; `None` is its end. Whether there is more to come.
fn send(client: &mut impl Conversation, writer: &mut Writer, piece: Option<Bytes>) -> Result<bool> {
    let ends = piece.is_none() || client.is_body_done();
    writer.body(&piece.unwrap_or_default()).map_err(wrong_length)?;
    if ends {
        writer.end().map_err(wrong_length)?;
    }
    Ok(!ends)
}

/// HTTP/2 may have one field for each cookie, HTTP/1.1 has one for all (RFC 9113, section 8.2.3).
fn join_cookies(request: &mut RequestHeader) -> Result<()> {
    let crumbs: Vec<_> = request.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    match crumbs.as_slice() {
        [] | [_] => Ok(()),
        crumbs => request.insert_header(COOKIE, crumbs.join(b"; ".as_slice())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_cookie() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for crumb in ["a=1", "b=2"] {
            join_cookies(&mut request).unwrap();
            request.append_header(COOKIE, crumb).unwrap();
        }
        join_cookies(&mut request).unwrap();
        assert_eq!(request.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2"]);
    }
}
