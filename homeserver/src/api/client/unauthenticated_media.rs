//! "Content repository", the endpoints from before Matrix 1.11, most of which ask for no access token: answered where the
//! configuration says so.
#![expect(deprecated, reason = "ruma marks what new clients shall not call; old ones do")]

use std::time::Duration;

use axum::{Router, extract::State, response::Response};
use http::HeaderMap;
use ruma::{
    UInt,
    api::client::media::{
        get_content::v3 as get_content, get_content_as_filename::v3 as get_content_as_filename,
        get_content_thumbnail::v3 as get_content_thumbnail, get_media_config::v3 as get_media_config,
    },
};

use crate::{
    api::{
        ApiError, ApiState, Ruma, RumaRouter as _,
        caller::Requester,
        media::{mxc, respond, wanted},
    },
    media::{Content, Media, Mxc, RemoteMedia, Unauthenticated},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_media_config::Request, _, _>(config)
        .endpoint::<get_content::Request, _, _>(download)
        .endpoint::<get_content_as_filename::Request, _, _>(download_as)
        .endpoint::<get_content_thumbnail::Request, _, _>(thumbnail)
}

async fn config(
    State(media): State<Media>,
    _: Requester,
    _: Ruma<get_media_config::Request>,
) -> Ruma<get_media_config::Response> {
    let max = UInt::new_saturating(media.max_upload_bytes());
    Ruma(get_media_config::Response::new(max))
}

async fn download(
    State(media): State<Media>,
    headers: HeaderMap,
    Ruma(request): Ruma<get_content::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let content = find_unauthenticated(&media, &mxc, request.timeout_ms, request.allow_remote).await?;
    respond(&media, &content, &headers).await
}

async fn download_as(
    State(media): State<Media>,
    headers: HeaderMap,
    Ruma(request): Ruma<get_content_as_filename::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let content = find_unauthenticated(&media, &mxc, request.timeout_ms, request.allow_remote).await?;
    respond(&media, &content.named(&request.filename), &headers).await
}

async fn thumbnail(
    State(media): State<Media>,
    headers: HeaderMap,
    Ruma(request): Ruma<get_content_thumbnail::Request>,
) -> Result<Response, ApiError> {
    refuse_when_frozen(&media)?;
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let wanted = wanted(request.width, request.height, request.method.as_ref())?;
    let content = media.thumbnail(&mxc, wanted, request.timeout_ms, remote(request.allow_remote)).await?;
    respond(&media, &content, &headers).await
}

async fn find_unauthenticated(
    media: &Media,
    mxc: &Mxc,
    wait: Duration,
    allow_remote: bool,
) -> Result<Content, ApiError> {
    refuse_when_frozen(media)?;
    Ok(media.find(mxc, wait, remote(allow_remote)).await?)
}

fn refuse_when_frozen(media: &Media) -> Result<(), ApiError> {
    match media.unauthenticated() {
        Unauthenticated::Served => Ok(()),
        Unauthenticated::Refused => {
            Err(ApiError::not_found("Media are served under /_matrix/client/v1/media, with an access token"))
        }
    }
}

fn remote(allow_remote: bool) -> RemoteMedia {
    if allow_remote { RemoteMedia::Fetch } else { RemoteMedia::Refuse }
}
