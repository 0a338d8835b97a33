//! A TCP connection whose writes are gathered until they are flushed: what belongs together leaves in one system call.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// So much is gathered: what is larger has been put together by whoever wrote it.
const GATHERED_BYTES: usize = 4 * 1024;
/// So much where each piece is written by itself: two frames of HTTP/2 of the largest usual size.
const GATHERED_FRAMES: usize = 40 * 1024;
/// So many pieces leave at once.
const MOST_PIECES: usize = 16;
/// A buffer that is larger is not kept for the next answer.
const LARGEST_SPARE: usize = 128 * 1024;

thread_local! {
    /// The buffer that was emptied last on this worker, so that the next answer needs no memory of its own.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What is to be sent. It grows as it fills, and is only there while something is in it, so that an idle connection does not
/// pay for it.
#[derive(Default)]
pub(super) struct Unsent {
    /// All of it can be written to; `start..end` is what is to be sent.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Unsent {
    /// Room for so many bytes behind what is there. [`Self::add`] says how many of them were filled.
    pub(super) fn room(&mut self, bytes: usize) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = SPARE.take();
        }
        if self.start > 0 && self.buffer.len() < self.end + bytes {
            // What is sent gives its place up, or the buffer would grow with all that is ever written.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let end = self.end + bytes;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.end..end]
    }

    /// So many bytes of the room are filled.
    pub(super) fn add(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.add(bytes.len());
    }

    /// What is there.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many bytes are sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
        if self.start == self.end {
            let emptied = std::mem::take(self).buffer;
            if emptied.len() <= LARGEST_SPARE {
                SPARE.set(emptied);
            }
        }
    }

    /// Takes no more memory than what is there.
    fn settle(&mut self) {
        if !self.buffer.is_empty() {
            let rest = self.bytes().to_vec();
            self.advance(rest.len());
            (self.end, self.buffer) = (rest.len(), rest);
        }
    }
}

/// The connection, and what it has not sent yet.
pub(crate) struct Gathered {
    tcp: TcpStream,
    most: usize,
    unsent: Unsent,
}

impl Gathered {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, most: GATHERED_BYTES, unsent: Unsent::default() }
    }

    /// The connection's number in this process.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }

    /// From now on frames are written.
    pub(super) fn expect_frames(&mut self) {
        self.most = GATHERED_FRAMES;
    }

    /// What is gathered may have to wait, and is not to hold more memory than it takes.
    pub(super) fn settle(&mut self) {
        self.unsent.settle();
    }

    /// Where what is to be sent is put, once there is [room](Self::poll_room).
    pub(super) fn unsent(&mut self) -> &mut Unsent {
        &mut self.unsent
    }

    /// Sends until no more is gathered than may be.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(self.most - 1, cx)
    }

    /// Sends what is left as far as the system takes it at once. What does not leave stays unsaid.
    pub(crate) fn send_what_fits(&mut self) {
        if !self.unsent.bytes().is_empty() {
            // The other side sees the end of the connection anyway.
            let _ = self.tcp.try_write(self.unsent.bytes());
        }
    }

    /// Sends until so many bytes are left, or less.
    fn poll_send(&mut self, left: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent.bytes().len() > left {
            ready!(self.poll_send_with(&[], cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends some of what was gathered and of `more` behind it; returns how much of `more` is sent.
    fn poll_send_with(&mut self, more: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let gathered = self.unsent.bytes();
        let mut pieces = [IoSlice::new(&[]); MOST_PIECES];
        let ahead = usize::from(!gathered.is_empty());
        pieces[0] = IoSlice::new(gathered);
        let count = more.len().min(MOST_PIECES - ahead);
        pieces[ahead..ahead + count].copy_from_slice(&more[..count]);
        let written = match &pieces[..ahead + count] {
            [only] => ready!(Pin::new(&mut self.tcp).poll_write(cx, only))?,
            pieces => ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, pieces))?,
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_gathered = written.min(gathered.len());
        if of_gathered > 0 {
            self.unsent.advance(of_gathered);
        }
        Poll::Ready(Ok(written - of_gathered))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        while self.unsent.bytes().len() + bytes > self.most {
            let sent = ready!(self.poll_send_with(bufs, cx))?;
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
        for buf in bufs {
            self.unsent.put(buf);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(0, cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(0, cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Gathered) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (connected.unwrap(), Gathered::new(accepted.unwrap().0))
    }

    #[tokio::test]
    async fn small_and_large_writes_arrive_in_order() {
        for frames in [false, true] {
            let (mut client, mut edge) = pair().await;
            if frames {
                edge.expect_frames();
            }
            let sizes = [1, 4095, 1, 4096, 40_959, 10_000, 3, 40_000, 200, 300_000, 7, 39_000, 39_000, 2_000_000];
            let mut expected = Vec::new();
            let writes = async {
                for (number, bytes) in sizes.into_iter().enumerate() {
                    let part = vec![number as u8; bytes];
                    let (head, rest) = part.split_at(bytes / 3);
                    edge.write_all_buf(&mut bytes::Buf::chain(head, rest)).await.unwrap();
                    expected.extend(part);
                }
                edge.write_all(b"end").await.unwrap();
                expected.extend(b"end");
                edge.shutdown().await.unwrap();
            };
            let mut arrived = Vec::new();
            let (_, read) = tokio::join!(writes, client.read_to_end(&mut arrived));
            read.unwrap();
            assert!(arrived == expected);
            assert!(edge.unsent.buffer.is_empty(), "nothing is kept once it is sent");
        }
    }

    #[test]
    fn what_is_sent_takes_no_room() {
        let mut unsent = Unsent::default();
        unsent.put(&[0]);
        for round in 1..=100 {
            unsent.put(&[round; 10_000]);
            unsent.advance(10_000);
            assert_eq!(unsent.bytes(), [round]);
        }
        assert!(unsent.buffer.len() < 30_000, "{}", unsent.buffer.len());
    }

    #[tokio::test]
    async fn what_is_small_waits_for_the_flush() {
        let (mut client, mut edge) = pair().await;
        edge.write_all(&[1; 1_000]).await.unwrap();
        assert_eq!(edge.unsent.bytes().len(), 1_000);
        edge.write_all(&[2; 8_000]).await.unwrap();
        assert!(edge.unsent.bytes().is_empty(), "both left together");
        edge.expect_frames();
        for frame in [[3; 16_393], [4; 16_393]] {
            edge.write_all(&frame).await.unwrap();
        }
        assert_eq!(edge.unsent.bytes().len(), 2 * 16_393);
        edge.flush().await.unwrap();
        let mut arrived = vec![0; 9_000 + 2 * 16_393];
        client.read_exact(&mut arrived).await.unwrap();
        assert!(arrived.is_sorted());
    }
}
