//! Decides which thumbnail answers a request, and makes it once.

use std::{io, time::Duration};

use futures_util::TryStreamExt as _;

pub use super::resize::Method;
use super::{
    Media, Mxc, RemoteMedia,
    blobs::BlobName,
    download::{Content, DownloadError},
    resize::{ResizeError, Resized, resize},
};
use crate::storage::{
    DbError,
    media::{self as table, StoredThumbnail},
};

/// The sizes that are made: the specification's table and two above it, because nobody may be given less than asked for.
const SIZES: [(u32, u32); 7] = [(32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200), (3840, 2160)];

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In pixels.
    pub width: u64,
    pub height: u64,
    pub method: Method,
}

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    #[error("the content is no picture of a kind that is known, or is damaged")]
    NotAPicture,
    #[error("the picture is too large to be scaled")]
    TooLarge { is_remote: bool },
    #[error("a thumbnail of no width or height was asked for")]
    NoSize,
    #[error("the picture cannot be read or written")]
    Storage(#[source] io::Error),
    #[error(transparent)]
    Download(#[from] DownloadError),
}

impl From<DbError> for ThumbnailError {
    fn from(error: DbError) -> Self {
        Self::Download(error.into())
    }
}

/// One thumbnail of one content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: BlobName,
    size: (u32, u32),
    method: Method,
}

impl Media {
    /// A thumbnail of `mxc` that is at least as large as wanted, if the picture is.
    ///
    /// # Errors
    /// See [`ThumbnailError`].
    pub async fn thumbnail(
        &self,
        mxc: &Mxc,
        wanted: Wanted,
        wait: Duration,
        remote: RemoteMedia,
    ) -> Result<Content, ThumbnailError> {
        if wanted.width == 0 || wanted.height == 0 {
            return Err(ThumbnailError::NoSize);
        }
        let source = self.find(mxc, wait, remote).await?;
        let key = Key { source: source.blob, size: fitting(wanted), method: wanted.method };
        if let Some(made) = self.find_made(key).await? {
            return Ok(made);
        }
        let _turn = self.shared.thumbnail_turns.take(key).await;
        match self.find_made(key).await? {
            Some(made) => Ok(made),
            None => self.make(&source, key, !self.is_local(mxc)).await,
        }
    }

    async fn find_made(&self, key: Key) -> Result<Option<Content>, ThumbnailError> {
        let found = table::find_thumbnail(&self.shared.db, key.source.as_bytes(), key.size, name(key.method)).await?;
        Ok(found.map(content).transpose()?)
    }

    async fn make(&self, source: &Content, key: Key, is_remote: bool) -> Result<Content, ThumbnailError> {
        // Held by the work itself: who hangs up does not make room before the memory is free again.
        let permit = self.shared.resizers.clone().acquire_owned().await.map_err(closed)?;
        let mut picture = Vec::with_capacity(usize::try_from(source.size).unwrap_or(0));
        let mut body = self.body(source, 0..source.size).await?;
        while let Some(chunk) = body.try_next().await.map_err(ThumbnailError::Storage)? {
            picture.extend_from_slice(&chunk);
        }
        let max_pixels = self.shared.options.max_image_pixels;
        let resized = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            resize(&picture, key.size, key.method, max_pixels)
        });
        let Resized { bytes, content_type } = match resized.await {
            Ok(Ok(resized)) => resized,
            Ok(Err(ResizeError::TooManyPixels { .. })) => return Err(ThumbnailError::TooLarge { is_remote }),
            Ok(Err(error @ (ResizeError::NotAPicture | ResizeError::Damaged(_)))) => {
                tracing::debug!(%error, blob = source.blob.hex(), "no thumbnail could be made");
                return Err(ThumbnailError::NotAPicture);
            }
            Err(error) => {
                tracing::error!(%error, blob = source.blob.hex(), "a picture broke its decoder");
                return Err(ThumbnailError::NotAPicture);
            }
        };
        let mut writer = self.shared.blobs.create().await.map_err(ThumbnailError::Storage)?;
        writer.write(bytes.into()).await.map_err(ThumbnailError::Storage)?;
        let finished = writer.finish().await.map_err(ThumbnailError::Storage)?;
        let made = StoredThumbnail {
            sha256: finished.name.as_bytes().to_vec(),
            size: finished.size,
            content_type: content_type.to_owned(),
        };
        table::upsert_thumbnail(&self.shared.db, key.source.as_bytes(), key.size, name(key.method), &made).await?;
        Ok(content(made)?)
    }
}

/// The semaphore is never closed.
fn closed(error: tokio::sync::AcquireError) -> ThumbnailError {
    ThumbnailError::Storage(io::Error::other(error))
}

/// The smallest size that is made and covers what is wanted; the largest when none does.
fn fitting(wanted: Wanted) -> (u32, u32) {
    let covers = |size: &&(u32, u32)| u64::from(size.0) >= wanted.width && u64::from(size.1) >= wanted.height;
    let [.., largest] = SIZES;
    SIZES.iter().find(covers).copied().unwrap_or(largest)
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Crop => "crop",
        Method::Scale => "scale",
    }
}

fn content(made: StoredThumbnail) -> Result<Content, DbError> {
    let blob = BlobName::from_column(&made.sha256)
        .ok_or_else(|| DbError::Corrupt("media_thumbnails.sha256 is no SHA-256".to_owned()))?;
    let file_name = if made.content_type == "image/png" { "thumbnail.png" } else { "thumbnail.jpg" };
    Ok(Content { blob, size: made.size, content_type: made.content_type, file_name: Some(file_name.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_of_the_table_answers_and_is_never_smaller_than_wanted() {
        for ((width, height), size) in [
            ((1, 1), (32, 32)),
            ((32, 32), (32, 32)),
            ((33, 1), (96, 96)),
            ((200, 241), (640, 480)),
            ((801, 1), (1600, 1200)),
            ((u64::MAX, u64::MAX), (3840, 2160)),
        ] {
            assert_eq!(fitting(Wanted { width, height, method: Method::Scale }), size);
        }
    }
}
