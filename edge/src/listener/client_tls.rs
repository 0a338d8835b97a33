//! TLS with one client, as Pingora wants to see it. Its own TLS stream hides rustls, and keeps room for three of them.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::client_io::ClientSocket;

/// The name of HTTP/2 over TLS (RFC 9113, section 3.2).
const HTTP2: &[u8] = b"h2";

/// A connection on which hands were shaken.
pub(crate) struct ClientTls(TlsStream<ClientSocket>);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// What came is something else than TLS.
    #[error("this is no TLS")]
    Garbage,
    /// The handshake failed.
    #[error(transparent)]
    Failed(io::Error),
}

impl ClientTls {
    /// Shakes hands.
    pub(super) async fn accept(acceptor: &TlsAcceptor, socket: ClientSocket) -> Result<Self, HandshakeError> {
        let mut tls = match acceptor.accept(socket).into_fallible().await {
            Ok(tls) => tls,
            Err((_, socket)) if socket.heard_garbage() => return Err(HandshakeError::Garbage),
            Err((error, _)) => return Err(HandshakeError::Failed(error)),
        };
        let (socket, session) = tls.get_mut();
        socket.end_handshake(session.alpn_protocol() == Some(HTTP2));
        // What is left of the handshake in TLS 1.3 are tickets, which a client needs for its next connection: when its first
        // request is there already, they leave with the answer.
        let is_asked = session.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0);
        if !is_asked || session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            tls.flush().await.map_err(HandshakeError::Failed)?;
        }
        Ok(Self(tls))
    }

    /// What was agreed on to speak.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().1.alpn_protocol()
    }

    fn socket(&self) -> &ClientSocket {
        self.0.get_ref().0
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(self.socket()).finish()
    }
}

impl AsyncRead for ClientTls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientTls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for ClientTls {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(&mut self.0).await;
    }
}

impl UniqueID for ClientTls {
    fn id(&self) -> UniqueIDType {
        self.socket().id()
    }
}

impl Ssl for ClientTls {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        match self.protocol()? {
            HTTP2 => Some(ALPN::H2),
            b"http/1.1" => Some(ALPN::H1),
            _ => None,
        }
    }
}

impl Peek for ClientTls {}

impl GetTimingDigest for ClientTls {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.socket().get_timing_digest()
    }
}

impl GetProxyDigest for ClientTls {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientTls {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket().get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.0.get_mut().0.set_socket_digest(digest);
    }
}
