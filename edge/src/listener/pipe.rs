//! A connection that leads no further than to another task of the edge, as Pingora wants to see it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::StatusCode;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

/// So much may wait in it, in each direction.
const PIPE_BYTES: usize = 64 * 1024;
/// No socket has this number.
const NO_SOCKET: i32 = -1;

/// The end that Pingora has.
#[derive(Debug)]
pub(crate) struct PipeEnd {
    pipe: DuplexStream,
    client: IpAddr,
}

/// A pipe, at whose one end Pingora sees a client with this address.
pub(crate) fn pipe(client: IpAddr) -> (DuplexStream, PipeEnd) {
    let (ours, theirs) = duplex(PIPE_BYTES);
    (ours, PipeEnd { pipe: theirs, client })
}

impl AsyncRead for PipeEnd {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(cx, buf)
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for PipeEnd {
    async fn shutdown(&mut self) {
        // The other end may be gone already; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(&mut self.pipe).await;
    }
}

impl UniqueID for PipeEnd {
    fn id(&self) -> UniqueIDType {
        NO_SOCKET
    }
}

impl Ssl for PipeEnd {}

impl Peek for PipeEnd {}

impl GetTimingDigest for PipeEnd {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

/// Pingora hands a connection's digests to its requests; the one about proxies on the way has room for a value of ours.
struct Piped;

/// Whether a request came over a pipe, which only those of HTTP/2 do.
pub(super) fn is_piped(digest: &Digest) -> bool {
    let value = digest.proxy_digest.as_ref().and_then(|digest| digest.user_data.as_ref());
    value.is_some_and(|value| value.is::<Piped>())
}

impl GetProxyDigest for PipeEnd {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        let unused = ResponseHeader::build_no_case(StatusCode::OK, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(Piped)))))
    }
}

impl GetSocketDigest for PipeEnd {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        let digest = SocketDigest::from_raw_fd(NO_SOCKET);
        // A digest just made has no address yet, so setting it cannot fail.
        let _ = digest.peer_addr.set(Some(std::net::SocketAddr::new(self.client, 0).into()));
        Some(Arc::new(digest))
    }

    fn set_socket_digest(&mut self, _: SocketDigest) {}
}
