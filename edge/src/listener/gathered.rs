//! A TCP connection whose writes are gathered until they are flushed: header and body leave in one segment.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Large enough for the header and body of a usual answer. The buffer is only there while something is in it, so that an
/// idle connection does not pay for it.
const GATHERED_BYTES: usize = 4096;

thread_local! {
    /// The buffer that was emptied last on this worker, so that the next answer needs no memory of its own.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The connection, and what it has not sent yet.
pub(crate) struct Gathered {
    tcp: TcpStream,
    unsent: Vec<u8>,
    /// How much of `unsent` is sent.
    sent: usize,
}

impl Gathered {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, unsent: Vec::new(), sent: 0 }
    }

    /// Sends what is left as far as the system takes it at once. What does not leave stays unsaid.
    pub(crate) fn send_what_fits(&mut self) {
        if let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            // The other side sees the end of the connection anyway.
            let _ = self.tcp.try_write(rest);
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.unsent.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                bytes => self.sent += bytes,
            }
        }
        if self.unsent.capacity() > 0 {
            let mut emptied = std::mem::take(&mut self.unsent);
            emptied.clear();
            SPARE.set(emptied);
        }
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Makes room for so many bytes; `false` when they are better sent as they are.
    fn poll_room(&mut self, bytes: usize, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.unsent.len() + bytes > GATHERED_BYTES {
            ready!(self.poll_send(cx))?;
        }
        if bytes >= GATHERED_BYTES {
            return Poll::Ready(Ok(false));
        }
        if self.unsent.capacity() == 0 {
            self.unsent = SPARE.take();
            self.unsent.reserve_exact(GATHERED_BYTES);
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for Gathered {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if !ready!(self.poll_room(buf.len(), cx))? {
            return Pin::new(&mut self.tcp).poll_write(cx, buf);
        }
        self.unsent.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum();
        if !ready!(self.poll_room(bytes, cx))? {
            return Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        }
        for buf in bufs {
            self.unsent.extend_from_slice(buf);
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

    #[tokio::test]
    async fn small_and_large_writes_arrive_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut client, mut edge) = (connected.unwrap(), Gathered::new(accepted.unwrap().0));
        let mut expected = Vec::new();
        let writes = async {
            for (number, bytes) in [1, 4095, 1, 4096, 10_000, 3, 4000, 200, 300_000, 7].into_iter().enumerate() {
                let part = vec![number as u8; bytes];
                edge.write_all(&part).await.unwrap();
                expected.extend(part);
            }
            edge.write_all_buf(&mut &b"end"[..]).await.unwrap();
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
