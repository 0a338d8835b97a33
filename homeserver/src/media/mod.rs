//! Media: what local users upload, what other servers have, and thumbnails of both.

mod blobs;
mod download;
mod fetch;
mod file_name;
mod folder;
mod multipart;
mod mxc;
mod resize;
mod thumbnail;
mod turns;
mod upload;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, sync::Arc};

use gatehouse_shared::clock::Clock;
use ruma::OwnedServerName;
use tokio::sync::{Notify, Semaphore};

use self::{blobs::Blobs, folder::FolderBlobs, turns::Turns};
pub use self::{
    blobs::{BlobBody, BlobName},
    download::{Content, DownloadError, RemoteMedia},
    fetch::FetchError,
    multipart::{Envelope, MultipartError},
    mxc::{MediaId, Mxc},
    thumbnail::{Method, ThumbnailError, Wanted},
    upload::{Described, ReserveError, Reserved, UploadError, UploadToError},
};
use crate::{remote::FederationClient, storage::Db};

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
    /// `None` where no other server is called.
    remote: Option<FederationClient>,
    fetch_turns: Turns<Mxc>,
}

impl Media {
    /// Opens the media folder. Without `remote` there are only the media that are here already.
    ///
    /// # Errors
    /// Those of the file system; the folder must be writable.
    pub async fn open(
        db: Db,
        clock: Arc<dyn Clock>,
        server_name: OwnedServerName,
        options: MediaOptions,
        remote: Option<FederationClient>,
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
            remote,
            fetch_turns: Turns::default(),
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
