//! How requests of configured routes are answered: from a folder, with a redirect, or by another server.

use std::io;
use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use tracing::error;

use crate::answer_head::AnswerHead;
use crate::content::static_folder::{FileAnswer, FileBody, Found, StaticFolder};
use crate::conversation::Conversation;
use crate::front::{Front, Route, Target};
use crate::refusal;
use crate::reply::Reply;
use crate::routing::routes::leads_astray;
use crate::routing::security_headers::Kind;

/// What a route makes of a request.
#[derive(Debug)]
pub(crate) enum Routed {
    /// An answer at once.
    Reply(Reply),
    /// A file, to be looked for.
    File(Arc<Route>),
    /// Another server.
    Backend(Arc<Route>),
}

/// Decides what `route` makes of a request; `rest` is what of the path follows the route's own.
pub(crate) fn follow(route: &Arc<Route>, request: &RequestHeader, rest: &str) -> Routed {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    match &route.target {
        Target::Backend(_) if leads_astray(request.uri.path()) => Routed::Reply(refusal::astray().without_cors()),
        Target::Backend(_) => Routed::Backend(route.clone()),
        Target::Redirect(to) => match to.location(rest, request.uri.query()) {
            Some(location) => Routed::Reply(Reply::redirect_with(to.status, location).without_cors()),
            None => Routed::Reply(refusal::astray().without_cors()),
        },
        Target::Folder(_) if reads => Routed::File(route.clone()),
        Target::Folder(_) if request.method == Method::OPTIONS => Routed::Reply(Reply::preflight().without_cors()),
        Target::Folder(_) => Routed::Reply(refusal::read_only().without_cors()),
    }
}

/// The target that a route's server gets: without the route's path where it is to be taken off.
pub(crate) fn strip_prefix(front: &Front, host: &str, request: &mut RequestHeader) -> Result<()> {
    let Some((_, rest)) = front.routes.find(host, request.uri.path()) else { return Ok(()) };
    let slash = if rest.is_empty() { "/" } else { "" };
    let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target = format!("{slash}{rest}{query}");
    request.set_raw_path(target.as_bytes())
}

/// Finds the file for a request of `route` and sends it. `Some` is what is to be answered when there is none.
pub(crate) async fn send_file(
    client: &mut impl Conversation,
    route: &Route,
    front: &Front,
    host: &str,
) -> Result<Option<Reply>> {
    let Target::Folder(folder) = &route.target else { return Ok(Some(refusal::not_found())) };
    let request = client.request();
    let path = request.uri.path();
    let rest = front.routes.find(host, path).map_or("", |(_, rest)| rest);
    let found = match rest.strip_prefix('/') {
        Some(below) => find(folder, below, request).await,
        // The route's own path, without the slash that makes it a folder's.
        None => Ok(Found::Folder),
    };
    match found {
        Ok(Found::File(answer)) => send(client, answer, route, front, host).await.map(|()| None),
        Ok(Found::Nothing) => Ok(Some(refusal::not_found().without_cors())),
        Ok(Found::Folder) => {
            let query = request.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
            let location = HeaderValue::from_str(&format!("{path}/{query}"));
            let location = location.or_err(ErrorType::InternalError, "a checked path cannot be written")?;
            Ok(Some(Reply::redirect_with(StatusCode::MOVED_PERMANENTLY, location).without_cors()))
        }
        Err(error) => {
            error!(folder = %folder.root.display(), %error, "cannot serve a static folder");
            Ok(Some(refusal::unreadable().without_cors()))
        }
    }
}

async fn find(folder: &StaticFolder, below: &str, request: &RequestHeader) -> io::Result<Found> {
    let (folder, below, headers) = (folder.clone(), below.to_owned(), request.headers.clone());
    tokio::task::spawn_blocking(move || folder.find(&below, &headers)).await.map_err(io::Error::other)?
}

async fn send(
    client: &mut impl Conversation,
    answer: FileAnswer,
    route: &Route,
    front: &Front,
    host: &str,
) -> Result<()> {
    let mut head = AnswerHead::new(answer.status, answer.headers.len() + 8);
    head.fields.extend(answer.headers);
    for (name, value) in front.security.of(Kind::Static, host) {
        head.fields.insert(name.clone(), value.clone());
    }
    route.on_answers.edit_answer(&mut head);
    let request = client.request();
    let is_head = request.method == Method::HEAD;
    let mut encoder = front.compression.begin(request, &mut head);
    let body = answer.body.filter(|body| !is_head && !body.is_read());
    client.write_head(head, body.is_none()).await?;
    let Some(mut body) = body else { return Ok(()) };
    while !body.is_read() {
        let (chunk, rest) = read(body).await.or_err(ErrorType::InternalError, "a file cannot be read on")?;
        body = rest;
        let ends = body.is_read();
        let mut chunk = Some(chunk);
        if let Some(encoder) = &mut encoder {
            encoder.encode(&mut chunk, ends)?;
        }
        client.write_body(chunk, ends).await?;
    }
    Ok(())
}

async fn read(mut body: FileBody) -> io::Result<(bytes::Bytes, FileBody)> {
    let read = tokio::task::spawn_blocking(move || body.read_chunk().map(|chunk| (chunk, body)));
    read.await.map_err(io::Error::other)?
}
