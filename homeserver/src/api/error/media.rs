//! What a client or another server hears from media.

use std::io;

use gatehouse_shared::contract::Verdict;
use http::StatusCode;

use super::ApiError;
use crate::{
    media::{DownloadError, FetchError, ReserveError, ThumbnailError, UploadError, UploadToError},
    remote::RequestError,
};

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { max } => Self::too_large(format!("An upload may have at most {max} bytes")),
            UploadError::Interrupted => Self::bad_json("The upload ended early"),
            UploadError::Storage(error) => storage(&error),
            UploadError::Db(error) => error.into(),
        }
    }
}

impl From<UploadToError> for ApiError {
    fn from(error: UploadToError) -> Self {
        match error {
            UploadToError::NotReserved => Self::not_found("This media id was not reserved here, or has expired"),
            UploadToError::NotTheReserver => Self::forbidden("Somebody else reserved this media id"),
            UploadToError::AlreadyUploaded => {
                Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", "This media id has its content already")
            }
            UploadToError::Upload(error) => error.into(),
        }
    }
}

impl From<ReserveError> for ApiError {
    fn from(error: ReserveError) -> Self {
        match error {
            ReserveError::TooMany => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "M_LIMIT_EXCEEDED",
                "Too many media ids wait for their upload; upload to some of them first",
            )
            .with_verdict(Verdict::RateLimited("media-reservations".to_owned())),
            ReserveError::Db(error) => error.into(),
        }
    }
}

impl From<DownloadError> for ApiError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::NotFound => Self::not_found("There is no such media"),
            DownloadError::NotYetUploaded => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "M_NOT_YET_UPLOADED",
                "This media is announced and not uploaded yet",
            ),
            DownloadError::Fetch(FetchError::TooLarge { max }) => Self::new(
                StatusCode::BAD_GATEWAY,
                "M_TOO_LARGE",
                format!("The media are larger than {max} bytes, which is what this server takes from others"),
            ),
            DownloadError::Fetch(FetchError::Request(error @ RequestError::Denied(_))) => error.into(),
            DownloadError::Fetch(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "media of another server did not come");
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The server that has these media did not give them")
            }
            DownloadError::Storage(error) => storage(&error),
            DownloadError::Db(error) => error.into(),
        }
    }
}

impl From<ThumbnailError> for ApiError {
    fn from(error: ThumbnailError) -> Self {
        match error {
            ThumbnailError::NotAPicture => Self::new(
                StatusCode::BAD_REQUEST,
                "M_UNKNOWN",
                "There is no thumbnail of this content: it is no picture of a kind that this server knows, or damaged",
            ),
            ThumbnailError::TooLarge { is_remote: true } => {
                Self::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", "The picture is too large to make a thumbnail of it")
            }
            ThumbnailError::TooLarge { is_remote: false } => {
                Self::too_large("The picture is too large to make a thumbnail of it")
            }
            ThumbnailError::NoSize => Self::invalid_param("A thumbnail needs a width and a height"),
            ThumbnailError::Storage(error) => storage(&error),
            ThumbnailError::Download(error) => error.into(),
        }
    }
}

fn storage(error: &io::Error) -> ApiError {
    tracing::error!(%error, "the media folder failed");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ApiError::no_space(),
        _ => ApiError::internal(),
    }
}
