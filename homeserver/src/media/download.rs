//! Finds media for whoever may read them, and says how a browser shall treat them.

use std::{io, ops::Range, time::Duration};

use ruma::http_headers::{ContentDisposition, ContentDispositionType};

use super::{
    Media, Mxc,
    blobs::{BlobBody, BlobName},
    fetch::FetchError,
    file_name::{essence, kept_file_name},
};
use crate::storage::{
    DbError,
    media::{self as table, MediaRow, StoredMedia},
};

/// The longest wait for an upload that was announced, whatever the client asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often it is looked for meanwhile, because another shard may have taken the upload.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What content is when nobody said.
const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Whether media of other servers may be fetched from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteMedia {
    Fetch,
    /// Only what is here already.
    Refuse,
}

/// Why there is no content to answer with.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    #[error("there is no such media")]
    NotFound,
    #[error("the media is announced and not uploaded yet")]
    NotYetUploaded,
    #[error("another server's media did not come")]
    Fetch(#[source] FetchError),
    #[error("the content cannot be read")]
    Storage(#[source] io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Content that can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The name of its blob.
    pub blob: BlobName,
    /// In bytes.
    pub size: u64,
    pub content_type: String,
    pub file_name: Option<String>,
}

impl Content {
    /// Whether a browser may show it in place: only the types that "Serving inline content" calls safe.
    pub fn disposition(&self) -> ContentDisposition {
        let essence = essence(&self.content_type).to_ascii_lowercase();
        let kind = if ruma::api::client::media::is_safe_inline_content_type(&essence) {
            ContentDispositionType::Inline
        } else {
            ContentDispositionType::Attachment
        };
        ContentDisposition::new(kind).with_filename(self.file_name.clone())
    }

    /// The same content under another name, when that is one.
    #[must_use]
    pub fn named(self, file_name: &str) -> Self {
        Self { file_name: kept_file_name(file_name).or(self.file_name), ..self }
    }

    pub(super) fn read(media: StoredMedia) -> Result<Self, DbError> {
        let blob = BlobName::from_column(&media.sha256)
            .ok_or_else(|| DbError::Corrupt("media.sha256 is no SHA-256".to_owned()))?;
        let content_type = media.content_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        Ok(Self { blob, size: media.size, content_type, file_name: media.file_name })
    }
}

impl Media {
    /// The content of `mxc`; waits up to `wait` when it is announced and not uploaded yet.
    ///
    /// # Errors
    /// See [`DownloadError`].
    pub async fn find(&self, mxc: &Mxc, wait: Duration, remote: RemoteMedia) -> Result<Content, DownloadError> {
        if self.is_local(mxc) { self.find_local(mxc, wait).await } else { self.find_remote(mxc, remote).await }
    }

    /// The bytes of `content` in `range`.
    ///
    /// # Errors
    /// [`DownloadError::NotFound`] when the blob is gone from the folder, and those of the file system.
    pub async fn body(&self, content: &Content, range: Range<u64>) -> Result<BlobBody, DownloadError> {
        match self.shared.blobs.open(content.blob, range).await.map_err(DownloadError::Storage)? {
            Some(body) => Ok(body),
            None => {
                tracing::error!(blob = content.blob.hex(), "a blob is missing from the media folder; restore it");
                Err(DownloadError::NotFound)
            }
        }
    }

    async fn find_local(&self, mxc: &Mxc, wait: Duration) -> Result<Content, DownloadError> {
        let deadline = tokio::time::Instant::now() + wait.min(MAX_WAIT);
        loop {
            // Before the look, so that an upload between the look and the wait is not missed.
            let mut uploaded = std::pin::pin!(self.shared.uploaded.notified());
            uploaded.as_mut().enable();
            match self.find_row(mxc).await? {
                Some(MediaRow::Stored(media)) => return Ok(Content::read(media)?),
                Some(MediaRow::Reserved { expires_ts, .. }) if expires_ts > self.now_ms() => {}
                Some(MediaRow::Reserved { .. }) | None => return Err(DownloadError::NotFound),
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(DownloadError::NotYetUploaded);
            }
            tokio::select! {
                () = uploaded => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    pub(super) async fn find_row(&self, mxc: &Mxc) -> Result<Option<MediaRow>, DbError> {
        let (server_name, media_id) = mxc.key();
        table::find(&self.shared.db, server_name, media_id).await
    }
}
