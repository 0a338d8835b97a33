//! Takes what local users upload: to a temporary file, then into the blobs, then into a row, then the answer.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{
    Media, Mxc,
    blobs::Finished,
    file_name::{kept_content_type, kept_file_name},
    mxc::MediaId,
};
use crate::storage::{
    DbError,
    media::{self as table, MediaRow, StoredMedia},
};

/// How long something may be uploaded to a reserved id: the specification's recommendation.
const RESERVED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// Ids that a user may have reserved at a time.
const MAX_RESERVED: i64 = 16;

/// What the request says of the bytes that follow.
#[derive(Clone, Debug, Default)]
pub struct Described {
    pub content_type: Option<String>,
    pub file_name: Option<String>,
    /// In bytes, when it is known beforehand.
    pub size: Option<u64>,
}

/// Why an upload was not taken; nothing of it is kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the content is larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the content ended early")]
    Interrupted,
    #[error("the content cannot be written")]
    Storage(#[source] io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Why an upload to a reserved id was not taken.
#[derive(Debug, thiserror::Error)]
pub enum UploadToError {
    #[error("the media id was not reserved, or has expired")]
    NotReserved,
    #[error("somebody else reserved the media id")]
    NotTheReserver,
    #[error("the media id has its content already")]
    AlreadyUploaded,
    #[error(transparent)]
    Upload(#[from] UploadError),
}

/// Why no id was reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    #[error("the user has {MAX_RESERVED} media ids reserved")]
    TooMany,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// An id that waits for its content.
#[derive(Clone, Debug)]
pub struct Reserved {
    pub mxc: Mxc,
    /// Milliseconds since the Unix epoch.
    pub expires_ts: u64,
}

impl Media {
    /// Takes an upload of a local user. It is durable when this returns.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn upload<E>(
        &self,
        uploader_nid: i64,
        described: Described,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<Mxc, UploadError> {
        let media = self.receive(described, body).await?;
        let mxc = self.new_mxc();
        table::upsert(&self.shared.db, mxc.key(), &media, Some(uploader_nid), self.now_ms()).await?;
        Ok(mxc)
    }

    /// Reserves an id, so that a message can name the media before its bytes are uploaded.
    ///
    /// # Errors
    /// [`ReserveError::TooMany`], and those of the database.
    pub async fn reserve(&self, uploader_nid: i64) -> Result<Reserved, ReserveError> {
        let (mxc, now) = (self.new_mxc(), self.now_ms());
        let expires_ts = now.saturating_add(u64::try_from(RESERVED_FOR.as_millis()).unwrap_or(u64::MAX));
        let is_reserved =
            table::reserve(&self.shared.db, mxc.key(), uploader_nid, MAX_RESERVED, now, expires_ts).await?;
        if is_reserved { Ok(Reserved { mxc, expires_ts }) } else { Err(ReserveError::TooMany) }
    }

    /// Takes the content of a reserved id, and wakes those who wait for it.
    ///
    /// # Errors
    /// See [`UploadToError`].
    pub async fn upload_to<E>(
        &self,
        mxc: &Mxc,
        uploader_nid: i64,
        described: Described,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<(), UploadToError> {
        self.check_reservation(mxc, uploader_nid).await?;
        let media = self.receive(described, body).await?;
        if !table::fill(&self.shared.db, mxc.key(), &media).await.map_err(UploadError::from)? {
            return Err(UploadToError::AlreadyUploaded);
        }
        self.shared.uploaded.notify_waiters();
        Ok(())
    }

    async fn check_reservation(&self, mxc: &Mxc, user_nid: i64) -> Result<(), UploadToError> {
        if !self.is_local(mxc) {
            return Err(UploadToError::NotReserved);
        }
        let (server_name, media_id) = mxc.key();
        match table::find(&self.shared.db, server_name, media_id).await.map_err(UploadError::from)? {
            Some(MediaRow::Reserved { uploader_nid, .. }) if uploader_nid != user_nid => {
                Err(UploadToError::NotTheReserver)
            }
            Some(MediaRow::Reserved { expires_ts, .. }) if expires_ts > self.now_ms() => Ok(()),
            Some(MediaRow::Reserved { .. }) | None => Err(UploadToError::NotReserved),
            Some(MediaRow::Stored(_)) => Err(UploadToError::AlreadyUploaded),
        }
    }

    /// Reads the body into a blob.
    async fn receive<E>(
        &self,
        described: Described,
        body: impl Stream<Item = Result<Bytes, E>> + Send,
    ) -> Result<StoredMedia, UploadError> {
        let max = self.shared.options.max_upload_bytes;
        if described.size.is_some_and(|size| size > max) {
            return Err(UploadError::TooLarge { max });
        }
        let mut writer = self.shared.blobs.create().await.map_err(UploadError::Storage)?;
        let mut body = pin!(body);
        let mut received = 0_u64;
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|_| UploadError::Interrupted)?;
            received = received.saturating_add(chunk.len() as u64);
            if received > max {
                return Err(UploadError::TooLarge { max });
            }
            writer.write(chunk).await.map_err(UploadError::Storage)?;
        }
        let Finished { name, size } = writer.finish().await.map_err(UploadError::Storage)?;
        Ok(StoredMedia {
            sha256: name.as_bytes().to_vec(),
            size,
            content_type: described.content_type.as_deref().and_then(kept_content_type),
            file_name: described.file_name.as_deref().and_then(kept_file_name),
        })
    }

    fn new_mxc(&self) -> Mxc {
        Mxc { server_name: self.shared.server_name.clone(), media_id: MediaId::random() }
    }
}
