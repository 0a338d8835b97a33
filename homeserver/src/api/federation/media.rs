//! "Content repository": our users' media, for other servers.

use std::time::Duration;

use axum::{Router, body::Body, extract::State, response::Response};
use futures_util::{StreamExt as _, stream};
use http::{HeaderValue, header};
use ruma::api::federation::authenticated_media::{get_content, get_content_thumbnail};

use super::FederationOrigin;
use crate::{
    api::{
        ApiError, ApiState, RumaRouter,
        media::{mxc, value_of, wanted},
    },
    media::{Content, Envelope, Media, Mxc, RemoteMedia},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_content::v1::Request, _, _>(download)
        .endpoint::<get_content_thumbnail::v1::Request, _, _>(thumbnail)
}

async fn download(
    State(media): State<Media>,
    FederationOrigin { request, .. }: FederationOrigin<get_content::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = ours(&media, &request.media_id)?;
    let content = media.find(&mxc, request.timeout_ms, RemoteMedia::Refuse).await?;
    respond(&media, &content).await
}

async fn thumbnail(
    State(media): State<Media>,
    FederationOrigin { request, .. }: FederationOrigin<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = ours(&media, &request.media_id)?;
    let wanted = wanted(request.width, request.height, request.method.as_ref())?;
    let wait: Duration = request.timeout_ms;
    let content = media.thumbnail(&mxc, wanted, wait, RemoteMedia::Refuse).await?;
    respond(&media, &content).await
}

fn ours(media: &Media, media_id: &str) -> Result<Mxc, ApiError> {
    mxc(media.server_name(), media_id)
}

/// The content in its envelope, as it is read from the disk.
async fn respond(media: &Media, content: &Content) -> Result<Response, ApiError> {
    let envelope = Envelope::new(&content.content_type, &content.disposition().to_string());
    let length = content.size.saturating_add((envelope.before.len() + envelope.behind.len()) as u64);
    let body = media.body(content, 0..content.size).await?;
    let one = |bytes| stream::iter([Ok::<_, std::io::Error>(bytes)]);
    let mut response = Response::new(Body::from_stream(one(envelope.before).chain(body).chain(one(envelope.behind))));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value_of(&envelope.content_type)?);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}
