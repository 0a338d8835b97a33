//! The seam to where the bytes are kept: a folder now, an object store later. Blobs are named by their content.

use std::{io, ops::Range};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use gatehouse_shared::hex::Hex;

/// The SHA-256 of a blob: its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobName([u8; 32]);

impl BlobName {
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(sha256)
    }

    /// The name in a database's column; `None` when that holds something else.
    pub fn from_column(column: &[u8]) -> Option<Self> {
        column.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// In lower-case hex.
    pub fn hex(&self) -> String {
        Hex::<64>::of(&self.0).to_string()
    }
}

/// Where blobs are kept.
pub(super) trait Blobs: Send + Sync + 'static {
    /// Begins a new blob. Dropped before [`BlobWriter::finish`] it leaves nothing that is ever read.
    fn create(&self) -> BoxFuture<'_, io::Result<Box<dyn BlobWriter>>>;

    /// The bytes of a blob, or those in a range of it; `None` when there is no such blob.
    fn open(&self, name: BlobName, range: Range<u64>) -> BoxFuture<'_, io::Result<Option<BlobBody>>>;
}

/// Bytes as they are read.
pub type BlobBody = BoxStream<'static, io::Result<Bytes>>;

/// A blob that is being written.
pub(super) trait BlobWriter: Send {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>>;

    /// Makes the blob durable under the name of its content. The same content may be there already.
    fn finish(self: Box<Self>) -> BoxFuture<'static, io::Result<Finished>>;
}

/// A blob that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub name: BlobName,
    /// In bytes.
    pub size: u64,
}
