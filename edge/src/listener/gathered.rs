//! A TCP connection whose writes are gathered until they are flushed: what belongs together leaves in one system call.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// So much is gathered: what is larger has been put together by whoever wrote it. The buffer grows as it fills, and is only
/// there while something is in it, so that an idle connection does not pay for it.
const GATHERED_BYTES: usize = 4 * 1024;
/// So much where each piece is written by itself: two frames of HTTP/2 of the largest usual size.
const GATHERED_FRAMES: usize = 40 * 1024;
/// So many pieces leave at once.
const MOST_PIECES: usize = 16;

thread_local! {
    /// The buffer that was emptied last on this worker, so that the next answer needs no memory of its own.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The connection, and what it has not sent yet.
pub(crate) struct Gathered {
    tcp: TcpStream,
    most: usize,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
}

impl Gathered {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, most: GATHERED_BYTES, unsent: Vec::new(), sent: 0 }
    }

    /// The connection's number in this process.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.tcp.as_raw_fd()
    }

    /// From now on frames are written.
    pub(crate) fn expect_frames(&mut self) {
        self.most = GATHERED_FRAMES;
    }

    /// What is gathered may have to wait, and is not to hold more memory than it takes.
    pub(crate) fn settle(&mut self) {
        self.unsent.shrink_to_fit();
    }

    /// Sends what is left as far as the system takes it at once. What does not leave stays unsaid.
    pub(crate) fn send_what_fits(&mut self) {
        if let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // The other side sees the end of the connection anyway.
            let _ = self.tcp.try_write(rest);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            ready!(self.poll_send_with(&[], cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends some of what was gathered and of `more` behind it; returns how much of `more` is sent.
    fn poll_send_with(&mut self, more: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let gathered = self.unsent.get(self.sent..).unwrap_or_default();
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
        let gathered = gathered.len();
        if written < gathered {
            self.sent += written;
            return Poll::Ready(Ok(0));
        }
        if gathered > 0 {
            let mut emptied = std::mem::take(&mut self.unsent);
            emptied.clear();
            SPARE.set(emptied);
            self.sent = 0;
        }
        Poll::Ready(Ok(written - gathered))
    }

    fn gather(&mut self, buf: &[u8]) {
        if self.unsent.capacity() == 0 {
            self.unsent = SPARE.take();
        }
        self.unsent.extend_from_slice(buf);
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
        while self.unsent.len() + bytes > self.most {
            let sent = ready!(self.poll_send_with(bufs, cx))?;
            if sent > 0 {
                return Poll::Ready(Ok(sent));
            }
        }
        for buf in bufs {
            self.gather(buf);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
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
            assert_eq!(edge.unsent.capacity(), 0, "nothing is kept once it is sent");
        }
    }

    #[tokio::test]
    async fn what_is_small_waits_for_the_flush() {
        let (mut client, mut edge) = pair().await;
        edge.write_all(&[1; 1_000]).await.unwrap();
        assert_eq!(edge.unsent.len(), 1_000);
        edge.write_all(&[2; 8_000]).await.unwrap();
        assert!(edge.unsent.is_empty(), "both left together");
        edge.expect_frames();
        for frame in [[3; 16_393], [4; 16_393]] {
            edge.write_all(&frame).await.unwrap();
        }
        assert_eq!(edge.unsent.len(), 2 * 16_393);
        edge.flush().await.unwrap();
        let mut arrived = vec![0; 9_000 + 2 * 16_393];
        client.read_exact(&mut arrived).await.unwrap();
        assert!(arrived.is_sorted());
    }
}
