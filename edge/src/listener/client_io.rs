//! The bytes of one client: buffered towards the socket, watched by the header deadline, visible to Pingora.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use super::gathered::{Gathered, Unsent};
use crate::header_deadline::HeaderDeadline;

/// A TCP connection as Pingora wants it, whose own stream cannot be buffered from outside.
pub(crate) struct ClientSocket {
    tcp: Gathered,
    client: SocketAddr,
    accepted: SystemTime,
}

impl ClientSocket {
    /// `client` is the address that the proxy will see.
    pub(crate) fn new(tcp: TcpStream, client: SocketAddr, accepted: SystemTime) -> Self {
        Self { tcp: Gathered::new(tcp), client, accepted }
    }

    /// Hands are shaken, and what is gathered may have to wait for the first answer.
    pub(super) fn expect_http(&mut self, is_http2: bool) {
        self.tcp.settle();
        if is_http2 {
            self.tcp.expect_frames();
        }
    }

    /// Where TLS puts what it has to say, once there is [room](Self::poll_room).
    pub(super) fn unsent(&mut self) -> &mut Unsent {
        self.tcp.unsent()
    }

    /// Sends until no more is gathered than may be.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_room(cx)
    }
}

impl fmt::Debug for ClientSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientSocket").field("descriptor", &self.tcp.descriptor()).finish_non_exhaustive()
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

/// A handshake that fails leaves its alert in the buffer, and nobody flushes it: the stream is dropped where it failed.
impl Drop for ClientSocket {
    fn drop(&mut self) {
        self.tcp.send_what_fits();
    }
}

#[async_trait]
impl Shutdown for ClientSocket {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(&mut self.tcp).await;
    }
}

impl UniqueID for ClientSocket {
    fn id(&self) -> UniqueIDType {
        self.tcp.descriptor()
    }
}

impl Ssl for ClientSocket {}

impl Peek for ClientSocket {}

impl GetTimingDigest for ClientSocket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.accepted, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for ClientSocket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

/// Made for who asks: most connections never meet anybody who does. Nobody sets one, which is for connections to servers.
impl GetSocketDigest for ClientSocket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let digest = SocketDigest::from_raw_fd(self.tcp.descriptor());
        // A digest just made has no address yet, so setting it cannot fail.
        let _ = digest.peer_addr.set(Some(self.client.into()));
        Some(Arc::new(digest))
    }

    fn set_socket_digest(&mut self, _: SocketDigest) {}
}

/// What the proxy reads and writes: the socket itself or TLS on it, under the header deadline.
pub(crate) struct ClientIo<S> {
    inner: S,
    deadline: HeaderDeadline,
    timer: Option<Pin<Box<Sleep>>>,
    /// The first byte of what is read next, when somebody looked at it.
    peeked: Option<u8>,
}

impl<S: IO> ClientIo<S> {
    pub(crate) fn new(inner: S, mut deadline: HeaderDeadline) -> Self {
        if matches!(inner.selected_alpn_proto(), Some(ALPN::H2)) {
            deadline.expect_preface();
        }
        Self { inner, deadline, timer: None, peeked: None }
    }
}

impl<S: fmt::Debug> fmt::Debug for ClientIo<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<S: IO> AsyncRead for ClientIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if buf.remaining() > 0
            && let Some(first) = this.peeked.take()
        {
            buf.put_slice(&[first]);
            if buf.remaining() > 0 {
                // What comes right behind it is read along. An end or an error will be met again.
                let _ = Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            this.deadline.received(buf.filled().len() - before - 1);
            return Poll::Ready(Ok(()));
        }
        if let Poll::Ready(done) = Pin::new(&mut this.inner).poll_read(cx, buf) {
            this.deadline.received(buf.filled().len() - before);
            return Poll::Ready(done);
        }
        let Some(due) = this.deadline.due() else {
            this.timer = None;
            return Poll::Pending;
        };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        ready!(timer.as_mut().poll(cx));
        this.deadline.expire();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the request's header took too long")))
    }
}

impl<S: IO> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.deadline.answering();
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.deadline.answering();
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<S: IO> Shutdown for ClientIo<S> {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut self.inner).await;
    }
}

impl<S: IO> UniqueID for ClientIo<S> {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl<S: IO> Ssl for ClientIo<S> {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

/// Waits for the first byte of what comes next, and no further.
#[async_trait]
impl<S: IO> Peek for ClientIo<S> {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let Some(first) = buf.first_mut() else { return Ok(false) };
        if self.peeked.is_none() {
            let mut byte = [0];
            if self.read(&mut byte).await? == 0 {
                return Ok(false);
            }
            self.peeked = Some(byte[0]);
        }
        *first = self.peeked.unwrap_or_default();
        Ok(true)
    }
}

impl<S: IO> GetTimingDigest for ClientIo<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl<S: IO> GetProxyDigest for ClientIo<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S: IO> GetSocketDigest for ClientIo<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}
