//! Fetches media of other servers from them, and keeps what came.

use std::io;

use http::{StatusCode, header};
use ruma::http_headers::ContentDisposition;

use super::{
    Media, Mxc,
    download::{Content, DownloadError, RemoteMedia},
    file_name::{kept_content_type, kept_file_name},
    multipart::{self, MultipartError, Piece},
};
use crate::{
    remote::{FederationClient, RequestError},
    storage::{
        DbError,
        media::{self as table, MediaRow, StoredMedia},
    },
};

/// How long the other server may wait for an upload that is not there yet, in milliseconds.
const THEIR_WAIT_MS: u32 = 20_000;

/// Why another server's media did not come. All but the last two are the other server's doing.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the media are larger than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the server did not give them")]
    Request(#[source] RequestError),
    #[error("the answer broke off")]
    Interrupted(#[source] reqwest::Error),
    #[error("the answer cannot be read")]
    Multipart(#[from] MultipartError),
    #[error("the server keeps them at another address, which this server does not follow")]
    Elsewhere,
    #[error("the media cannot be written")]
    Storage(#[source] io::Error),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Media {
    pub(super) async fn find_remote(&self, mxc: &Mxc, remote: RemoteMedia) -> Result<Content, DownloadError> {
        if let Some(MediaRow::Stored(media)) = self.find_row(mxc).await? {
            return Ok(Content::read(media)?);
        }
        let Some(client) = self.shared.remote.as_ref().filter(|_| remote == RemoteMedia::Fetch) else {
            return Err(DownloadError::NotFound);
        };
        let _turn = self.shared.fetch_turns.take(mxc.clone()).await;
        if let Some(MediaRow::Stored(media)) = self.find_row(mxc).await? {
            return Ok(Content::read(media)?);
        }
        let media = self.fetch(client, mxc).await.map_err(classify)?;
        Ok(Content::read(media)?)
    }

    async fn fetch(&self, client: &FederationClient, mxc: &Mxc) -> Result<StoredMedia, FetchError> {
        let max = self.shared.options.max_upload_bytes;
        // A media id has no letter that means anything in a path.
        let target =
            format!("/_matrix/federation/v1/media/download/{}?timeout_ms={THEIR_WAIT_MS}", mxc.media_id.as_str());
        let mut response = client.open(&mxc.server_name, &target).await.map_err(FetchError::Request)?;
        let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let mut reader = multipart::Reader::new(content_type.unwrap_or_default())?;
        let mut writer = self.shared.blobs.create().await.map_err(FetchError::Storage)?;
        let mut head = multipart::Head::default();
        let mut received = 0_u64;
        loop {
            while let Some(piece) = reader.next()? {
                match piece {
                    Piece::Head(found) if found.location.is_some() => return Err(FetchError::Elsewhere),
                    Piece::Head(found) => head = found,
                    Piece::Chunk(chunk) => {
                        received = received.saturating_add(chunk.len() as u64);
                        if received > max {
                            return Err(FetchError::TooLarge { max });
                        }
                        writer.write(chunk).await.map_err(FetchError::Storage)?;
                    }
                    Piece::End => {
                        let finished = writer.finish().await.map_err(FetchError::Storage)?;
                        let media = described(finished.name.as_bytes(), finished.size, &head);
                        table::upsert(&self.shared.db, mxc.key(), &media, None, self.now_ms()).await?;
                        return Ok(media);
                    }
                }
            }
            match response.chunk().await.map_err(FetchError::Interrupted)? {
                Some(chunk) => reader.feed(&chunk),
                None => return Err(MultipartError::Truncated.into()),
            }
        }
    }
}

/// What the other server says of its media, held to what this server keeps of its own.
fn described(sha256: &[u8], size: u64, head: &multipart::Head) -> StoredMedia {
    let disposition = head.content_disposition.as_deref().and_then(|text| text.parse::<ContentDisposition>().ok());
    StoredMedia {
        sha256: sha256.to_vec(),
        size,
        content_type: head.content_type.as_deref().and_then(kept_content_type),
        file_name: disposition.and_then(|disposition| kept_file_name(&disposition.filename?)),
    }
}

fn classify(error: FetchError) -> DownloadError {
    match error {
        FetchError::Request(RequestError::Refused { status, ref errcode, .. }) => match (status, errcode.as_str()) {
            (_, "M_NOT_YET_UPLOADED") => DownloadError::NotYetUploaded,
            (StatusCode::NOT_FOUND, _) => DownloadError::NotFound,
            _ => DownloadError::Fetch(error),
        },
        FetchError::Storage(error) => DownloadError::Storage(error),
        FetchError::Db(error) => DownloadError::Db(error),
        error => DownloadError::Fetch(error),
    }
}
