//! Media: what local users upload, what other servers have, and thumbnails of both.

mod blobs;
mod download;
mod file_name;
mod folder;
mod mxc;
mod resize;
mod thumbnail;
mod turns;
mod upload;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use gatehouse_shared::{clock::Clock, limits::DEFAULT_MAX_UPLOAD_BYTES};
use ruma::OwnedServerName;
use tokio::sync::{Notify, Semaphore};

use self::{blobs::Blobs, folder::FolderBlobs, turns::Turns};
pub use self::{
    blobs::{BlobBody, BlobName},
    download::{Content, DownloadError, RemoteMedia},
    mxc::{MediaId, Mxc},
    thumbnail::{Method, ThumbnailError, Wanted},
    upload::{Described, ReserveError, Reserved, UploadError, UploadToError},
};
use crate::storage::Db;

/// Pictures of 32 million pixels are more than cameras of phones make by default.
const DEFAULT_MAX_IMAGE_PIXELS: u64 = 32_000_000;
/// Pictures that are scaled at a time at most: each may take half a gigabyte while it is.
const MAX_RESIZERS: usize = 2;

/// What an operator decides about media.
#[derive(Clone, Debug)]
pub struct MediaOptions {
    /// Where the bytes are kept.
    pub folder: PathBuf,
    /// The largest upload, and the largest file taken from another server, in bytes.
    pub max_upload_bytes: u64,
    /// The largest picture that is scaled, in pixels.
    pub max_image_pixels: u64,
    /// Who may use the old endpoints that ask for no access token.
    pub unauthenticated: Unauthenticated,
}

impl MediaOptions {
    /// The defaults, with the bytes in `folder`.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            max_image_pixels: DEFAULT_MAX_IMAGE_PIXELS,
            unauthenticated: Unauthenticated::Refused,
        }
    }
}

/// Whether `/_matrix/media/v3/download` and `/thumbnail` answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// They answer that there is nothing: the freeze of the specification, for all media.
    Refused,
    /// They answer whoever asks, for clients and servers from before Matrix 1.11.
    Served,
}

/// The media of this server. Clones share everything.
#[derive(Clone)]
pub struct Media {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    clock: Arc<dyn Clock>,
    server_name: OwnedServerName,
    options: MediaOptions,
    blobs: Box<dyn Blobs>,
    /// Somebody uploaded to a reserved id.
    uploaded: Notify,
    resizers: Arc<Semaphore>,
    thumbnail_turns: Turns<thumbnail::Key>,
}

impl Media {
    /// Opens the media folder.
    ///
    /// # Errors
    /// Those of the file system; the folder must be writable.
    pub async fn open(
        db: Db,
        clock: Arc<dyn Clock>,
        server_name: OwnedServerName,
        options: MediaOptions,
    ) -> io::Result<Self> {
        let blobs = Box::new(FolderBlobs::open(&options.folder, clock.as_ref()).await?);
        let resizers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_RESIZERS));
        let shared = Shared {
            db,
            clock,
            server_name,
            options,
            blobs,
            uploaded: Notify::new(),
            resizers: Arc::new(Semaphore::new(resizers)),
            thumbnail_turns: Turns::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The largest upload that is taken, in bytes.
    pub fn max_upload_bytes(&self) -> u64 {
        self.shared.options.max_upload_bytes
    }

    /// Whether the old endpoints answer.
    pub fn unauthenticated(&self) -> Unauthenticated {
        self.shared.options.unauthenticated
    }

    /// The name under which this server's media are known.
    pub fn server_name(&self) -> &ruma::ServerName {
        &self.shared.server_name
    }

    fn is_local(&self, mxc: &Mxc) -> bool {
        mxc.server_name == self.shared.server_name
    }

    fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }
}
