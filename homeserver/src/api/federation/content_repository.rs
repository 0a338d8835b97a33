//! Media of our users, for other servers: the content in the second part of a `multipart/mixed`.

use axum::{Router, body::Body, extract::State, response::Response};
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use ruma::api::federation::authenticated_media::{get_content, get_content_thumbnail};

use super::FederationOrigin;
use crate::{
    api::{
        ApiError, ApiState, RumaRouter,
        client::media::{mxc, wanted},
    },
    media::{Content, Envelope, Media, RemoteMedia},
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
    let mxc = mxc(media.server_name(), &request.media_id)?;
    let content = media.find(&mxc, request.timeout_ms, RemoteMedia::Refuse).await?;
    respond(&media, &content).await
}

async fn thumbnail(
    State(media): State<Media>,
    FederationOrigin { request, .. }: FederationOrigin<get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(media.server_name(), &request.media_id)?;
    let wanted = wanted(request.width, request.height, request.method.as_ref())?;
    let content = media.thumbnail(&mxc, wanted, request.timeout_ms, RemoteMedia::Refuse).await?;
    respond(&media, &content).await
}

async fn respond(media: &Media, content: &Content) -> Result<Response, ApiError> {
    let envelope = Envelope::new(&content.content_type, &content.disposition().to_string());
    let body = media.body(content, 0..content.size).await?;
    let length = envelope.before.len() as u64 + content.size + envelope.behind.len() as u64;
    let before = stream::iter([Ok(envelope.before)]);
    let behind = stream::iter([Ok(envelope.behind)]);
    let mut response = Response::new(Body::from_stream(before.chain(body).chain(behind)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let content_type = HeaderValue::from_str(&envelope.content_type).map_err(|_| ApiError::internal())?;
    headers.insert(header::CONTENT_TYPE, content_type);
    Ok(response)
}
