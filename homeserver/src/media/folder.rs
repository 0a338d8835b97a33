//! Keeps blobs in a folder: `blobs/ab/cd/…` by the hex of their SHA-256, and `incoming/` while they are written.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use gatehouse_shared::clock::Clock;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::blobs::{BlobBody, BlobName, BlobWriter, Blobs, Finished};

/// Bytes that are read or written at a time.
const CHUNK: usize = 64 * 1024;
/// A file in `incoming/` that is older than this belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of blobs. Several shards may share it.
#[derive(Clone, Debug)]
pub(super) struct FolderBlobs {
    blobs: Arc<Path>,
    incoming: Arc<Path>,
}

impl FolderBlobs {
    /// Opens `folder`, makes it when it is not there, and removes what an earlier process left half-written.
    ///
    /// # Errors
    /// Those of the file system; the folder must be writable.
    pub(super) async fn open(folder: &Path, clock: &dyn Clock) -> io::Result<Self> {
        let (blobs, incoming) = (folder.join("blobs"), folder.join("incoming"));
        fs::create_dir_all(&blobs).await?;
        fs::create_dir_all(&incoming).await?;
        let folder = Self { blobs: blobs.into(), incoming: incoming.into() };
        folder.sweep(clock).await?;
        Ok(folder)
    }

    async fn sweep(&self, clock: &dyn Clock) -> io::Result<()> {
        let mut files = fs::read_dir(&self.incoming).await?;
        while let Some(file) = files.next_entry().await? {
            let modified = file.metadata().await.and_then(|metadata| metadata.modified());
            let is_old = modified.is_ok_and(|at| clock.now().duration_since(at).is_ok_and(|age| age > ABANDONED));
            // Another shard that shares the folder may have removed it first.
            if is_old && let Err(error) = fs::remove_file(file.path()).await {
                tracing::debug!(%error, "a half-written file of an earlier process could not be removed");
            }
        }
        Ok(())
    }

    fn path(&self, name: BlobName) -> PathBuf {
        let hex = name.hex();
        let (first, second) = (hex.get(..2).unwrap_or_default(), hex.get(2..4).unwrap_or_default());
        self.blobs.join(first).join(second).join(&hex)
    }
}

impl Blobs for FolderBlobs {
    fn create(&self) -> BoxFuture<'_, io::Result<Box<dyn BlobWriter>>> {
        async move {
            let path = self.incoming.join(format!("{:032x}", rand::random::<u128>()));
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path).await?;
            file.set_max_buf_size(CHUNK);
            let incoming = Incoming { path: Some(path) };
            let writer = FolderWriter { file, incoming, hash: Sha256::new(), size: 0, folder: self.clone() };
            Ok(Box::new(writer) as Box<dyn BlobWriter>)
        }
        .boxed()
    }

    fn open(&self, name: BlobName, range: Range<u64>) -> BoxFuture<'_, io::Result<Option<BlobBody>>> {
        async move {
            let mut file = match File::open(self.path(name)).await {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            file.set_max_buf_size(CHUNK);
            if range.start > 0 {
                file.seek(io::SeekFrom::Start(range.start)).await?;
            }
            let file = file.take(range.end.saturating_sub(range.start));
            Ok(Some(stream::try_unfold(file, next_chunk).boxed()))
        }
        .boxed()
    }
}

async fn next_chunk(mut file: tokio::io::Take<File>) -> io::Result<Option<(Bytes, tokio::io::Take<File>)>> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    if file.read_buf(&mut chunk).await? == 0 {
        // Less than was promised to the reader: it must not take what it has for the whole.
        return if file.limit() == 0 { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
    }
    Ok(Some((chunk.freeze(), file)))
}

struct FolderWriter {
    file: File,
    incoming: Incoming,
    hash: Sha256,
    size: u64,
    folder: FolderBlobs,
}

impl BlobWriter for FolderWriter {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        async move {
            self.hash.update(&bytes);
            self.size = self.size.saturating_add(bytes.len() as u64);
            self.file.write_all(&bytes).await
        }
        .boxed()
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, io::Result<Finished>> {
        async move {
            self.file.flush().await?;
            self.file.sync_all().await?;
            let name = BlobName::new(self.hash.finalize().into());
            let path = self.folder.path(name);
            if let Some(incoming) = self.incoming.path.take() {
                // From here the file is no longer ours to remove: a rename that was sent cannot be called back.
                tokio::task::spawn_blocking(move || place(&incoming, &path)).await??;
            }
            Ok(Finished { name, size: self.size })
        }
        .boxed()
    }
}

/// Moves a synced file to its place and makes the move durable, folders included. When the same content is there
/// already it is replaced by its equal, because its own move may not be durable yet.
fn place(incoming: &Path, path: &Path) -> io::Result<()> {
    let placed = (|| {
        let second = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let first = second.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let blobs = first.parent().ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(second)?;
        std::fs::rename(incoming, path)?;
        // All three even when they were there before: who made them may not have come to this point yet.
        [second, first, blobs].into_iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
    })();
    if placed.is_err() {
        // Best effort: what stays is swept at a later start.
        let _ = std::fs::remove_file(incoming);
    }
    placed
}

/// A file that goes when nobody finishes it.
struct Incoming {
    path: Option<PathBuf>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(%error, "a half-written file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use gatehouse_shared::clock::SystemClock;

    use super::*;

    async fn write(folder: &FolderBlobs, chunks: &[&'static [u8]]) -> Finished {
        let mut writer = folder.create().await.unwrap();
        for chunk in chunks {
            writer.write(Bytes::from_static(chunk)).await.unwrap();
        }
        writer.finish().await.unwrap()
    }

    async fn read(folder: &FolderBlobs, name: BlobName, range: Range<u64>) -> io::Result<Option<Vec<u8>>> {
        let Some(body) = folder.open(name, range).await? else { return Ok(None) };
        Ok(Some(body.try_collect::<Vec<_>>().await?.concat()))
    }

    fn count(path: &Path) -> usize {
        std::fs::read_dir(path).unwrap().count()
    }

    #[tokio::test]
    async fn what_was_written_is_read_whole_or_in_part() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = FolderBlobs::open(temporary.path(), &SystemClock).await.unwrap();
        let Finished { name, size } = write(&folder, &[b"hello ", b"world"]).await;
        assert_eq!(size, 11);
        assert_eq!(name.hex(), "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9");
        assert_eq!(read(&folder, name, 0..11).await.unwrap().unwrap(), b"hello world");
        assert_eq!(read(&folder, name, 3..8).await.unwrap().unwrap(), b"lo wo");
        assert_eq!(read(&folder, name, 4..4).await.unwrap().unwrap(), b"");
        assert!(read(&folder, name, 0..12).await.is_err(), "a blob that is too short is no whole blob");
        assert_eq!(read(&folder, BlobName::new([0; 32]), 0..1).await.unwrap(), None);
        assert_eq!(write(&folder, &[b"hello world"]).await.name, name);
        assert_eq!(count(&temporary.path().join("incoming")), 0);
        assert_eq!(count(&temporary.path().join("blobs")), 1);
    }

    #[tokio::test]
    async fn a_dropped_writer_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = FolderBlobs::open(temporary.path(), &SystemClock).await.unwrap();
        let mut writer = folder.create().await.unwrap();
        writer.write(Bytes::from_static(b"half")).await.unwrap();
        drop(writer);
        assert_eq!(count(&temporary.path().join("incoming")), 0);
        assert_eq!(count(&temporary.path().join("blobs")), 0);
    }

    #[tokio::test]
    async fn what_an_earlier_process_left_is_swept_after_a_day() {
        let temporary = tempfile::tempdir().unwrap();
        let incoming = temporary.path().join("incoming");
        std::fs::create_dir_all(&incoming).unwrap();
        std::fs::write(incoming.join("left"), b"half").unwrap();
        FolderBlobs::open(temporary.path(), &SystemClock).await.unwrap();
        assert_eq!(count(&incoming), 1);
        let now = SystemClock.now_ms();
        let tomorrow = gatehouse_shared::clock::TurnedClock::at_ms(now + 25 * 60 * 60 * 1000);
        FolderBlobs::open(temporary.path(), &tomorrow).await.unwrap();
        assert_eq!(count(&incoming), 0);
    }
}
