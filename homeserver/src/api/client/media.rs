//! "Content repository": upload, download and thumbnails.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use ruma::{
    UInt,
    api::client::{authenticated_media, media},
};

use crate::{
    api::{
        ApiError, ApiState, Ruma, RumaRouter as _,
        caller::Requester,
        endpoint::RumaHead,
        json::RawJson,
        media::{mxc, respond, wanted},
    },
    media::{Described, Media, RemoteMedia},
};

/// The routes of this page. `preview_url` is not among them: fetching addresses that people name is a door into the
/// operator's network, and nothing but a preview is lost without it.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<media::create_content::v3::Request, _, _>(upload)
        .endpoint::<media::create_mxc_uri::v1::Request, _, _>(create)
        .endpoint::<media::create_content_async::v3::Request, _, _>(upload_to)
        .endpoint::<authenticated_media::get_media_config::v1::Request, _, _>(config)
        .endpoint::<authenticated_media::get_content::v1::Request, _, _>(download)
        .endpoint::<authenticated_media::get_content_as_filename::v1::Request, _, _>(download_as)
        .endpoint::<authenticated_media::get_content_thumbnail::v1::Request, _, _>(thumbnail)
}

async fn upload(
    State(media): State<Media>,
    requester: Requester,
    request: RumaHead<media::create_content::v3::Request>,
) -> Result<Response, ApiError> {
    let RumaHead { head, body, length } = request;
    let described = Described { content_type: head.content_type, file_name: head.filename, size: length };
    let mxc = media.upload(requester.user_nid, described, body.into_data_stream()).await?;
    Ok(Ruma(media::create_content::v3::Response::new(mxc.uri())).into_response())
}

async fn create(
    State(media): State<Media>,
    requester: Requester,
    _: Ruma<media::create_mxc_uri::v1::Request>,
) -> Result<Response, ApiError> {
    let reserved = media.reserve(requester.user_nid).await?;
    let mut response = media::create_mxc_uri::v1::Response::new(reserved.mxc.uri());
    response.unused_expires_at = UInt::new(reserved.expires_ts).map(ruma::MilliSecondsSinceUnixEpoch);
    Ok(Ruma(response).into_response())
}

async fn upload_to(
    State(media): State<Media>,
    requester: Requester,
    request: RumaHead<media::create_content_async::v3::Request>,
) -> Result<Response, ApiError> {
    let RumaHead { head, body, length } = request;
    let mxc = mxc(&head.server_name, &head.media_id)?;
    let described = Described { content_type: head.content_type, file_name: head.filename, size: length };
    media.upload_to(&mxc, requester.user_nid, described, body.into_data_stream()).await?;
    Ok(RawJson("{}".to_owned()).into_response())
}

async fn config(
    State(media): State<Media>,
    _: Requester,
    _: Ruma<authenticated_media::get_media_config::v1::Request>,
) -> Ruma<authenticated_media::get_media_config::v1::Response> {
    let max = UInt::new_saturating(media.max_upload_bytes());
    Ruma(authenticated_media::get_media_config::v1::Response::new(max))
}

async fn download(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Ruma(request): Ruma<authenticated_media::get_content::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let content = media.find(&mxc, request.timeout_ms, RemoteMedia::Fetch).await?;
    respond(&media, &content, &headers).await
}

async fn download_as(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Ruma(request): Ruma<authenticated_media::get_content_as_filename::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let content = media.find(&mxc, request.timeout_ms, RemoteMedia::Fetch).await?;
    respond(&media, &content.named(&request.filename), &headers).await
}

async fn thumbnail(
    State(media): State<Media>,
    _: Requester,
    headers: HeaderMap,
    Ruma(request): Ruma<authenticated_media::get_content_thumbnail::v1::Request>,
) -> Result<Response, ApiError> {
    let mxc = mxc(&request.server_name, &request.media_id)?;
    let wanted = wanted(request.width, request.height, request.method.as_ref())?;
    let content = media.thumbnail(&mxc, wanted, request.timeout_ms, RemoteMedia::Fetch).await?;
    respond(&media, &content, &headers).await
}
