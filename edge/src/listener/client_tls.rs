//! TLS with one client, as Pingora wants to see it. Its own TLS stream hides rustls, and keeps room for three of them.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::client_io::ClientSocket;
use super::tls_session::{Session, SessionError};

/// The name of HTTP/2 over TLS (RFC 9113, section 3.2).
const HTTP2: &[u8] = b"h2";
/// So much is received at once: nearly two records of the largest size.
const RECEIVED_BYTES: usize = 32 * 1024;

thread_local! {
    /// Where this worker receives and decrypts, so that a connection needs no memory for it.
    static RECEIVED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A connection on which hands were shaken.
pub(crate) struct ClientTls {
    socket: ClientSocket,
    /// In a place of its own, because a connection is moved more than once.
    session: Box<Session>,
}

/// Why there is no connection, or nothing more comes from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error(transparent)]
    Connection(#[from] io::Error),
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Session(broken) => broken.into(),
            TlsError::Connection(error) => error,
        }
    }
}

impl From<SessionError> for io::Error {
    fn from(broken: SessionError) -> Self {
        Self::new(io::ErrorKind::InvalidData, broken)
    }
}

impl ClientTls {
    /// Shakes hands.
    pub(super) async fn accept(config: Arc<ServerConfig>, socket: ClientSocket) -> Result<Self, TlsError> {
        let mut tls = Self { socket, session: Box::new(Session::new(config).map_err(SessionError::from)?) };
        while tls.session.is_handshaking() {
            poll_fn(|cx| tls.poll_receive(cx, &mut ReadBuf::new(&mut []))).await?;
        }
        // What is left of the handshake in TLS 1.3 are tickets, which a client needs for its next connection: when its first
        // request is there already, they leave with the answer.
        if !tls.session.has_plain() || tls.session.version() != Some(ProtocolVersion::TLSv1_3) {
            tls.flush().await?;
        }
        let speaks_http2 = tls.protocol() == Some(HTTP2);
        tls.socket.expect_http(speaks_http2);
        Ok(tls)
    }

    /// What was agreed on to speak.
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.session.protocol()
    }

    /// Receives what is there and decrypts it into `buf`; what does not fit waits in the session. While hands are shaken, what
    /// there is to say leaves when there is nothing to receive.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), TlsError>> {
        let Self { socket, session } = self;
        if session.is_broken() {
            return Poll::Ready(Err(SessionError::Ended.into()));
        }
        RECEIVED.with_borrow_mut(|space| {
            let kept = session.kept().len();
            if space.len() < kept + RECEIVED_BYTES {
                space.resize(kept + RECEIVED_BYTES, 0);
            }
            let (before, room) = space.split_at_mut(kept);
            let mut read = ReadBuf::new(&mut room[..RECEIVED_BYTES]);
            if Pin::new(&mut *socket).poll_read(cx, &mut read)?.is_pending() {
                if session.is_handshaking() {
                    ready!(Pin::new(socket).poll_flush(cx))?;
                }
                return Poll::Pending;
            }
            let received = kept + read.filled().len();
            if received == kept {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
            }
            before.copy_from_slice(session.kept());
            session.receive(&mut space[..received], buf, socket.unsent())?;
            Poll::Ready(Ok(()))
        })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(&self.socket).finish()
    }
}

impl AsyncRead for ClientTls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            self.session.take_plain(buf);
            if buf.filled().len() > before || buf.remaining() == 0 || self.session.has_client_closed() {
                return Poll::Ready(Ok(()));
            }
            let received = ready!(self.poll_receive(cx, buf));
            // What came before it failed is read first, and the end is met again.
            if buf.filled().len() == before && !self.session.has_plain() {
                received?;
            }
        }
    }
}

impl AsyncWrite for ClientTls {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { socket, session } = &mut *self;
        ready!(socket.poll_room(cx))?;
        let written = session.encrypt(bufs, socket.unsent())?;
        // What is large leaves at once. If it does not, the next write waits for it.
        let _ = socket.poll_room(cx)?;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, session } = &mut *self;
        match session.close(socket.unsent()) {
            // One that failed has said so already.
            Ok(()) | Err(SessionError::Ended) => Pin::new(socket).poll_shutdown(cx),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

#[async_trait]
impl Shutdown for ClientTls {
    async fn shutdown(&mut self) {
        // The client may be gone already; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for ClientTls {
    fn id(&self) -> UniqueIDType {
        self.socket.id()
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
        self.socket.get_timing_digest()
    }
}

impl GetProxyDigest for ClientTls {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for ClientTls {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.socket.set_socket_digest(digest);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::SystemTime;

    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;

    use super::*;
    use crate::listener::test_server::Server;
    use crate::listener::tickets::Tickets;

    async fn pair(version: &'static rustls::SupportedProtocolVersion) -> (TlsStream<TcpStream>, ClientTls) {
        let server = Server::new(Arc::new(Tickets::new().unwrap()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = async {
            let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let connector = TlsConnector::from(Arc::new(server.client(version)));
            connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap()
        };
        let edge = async {
            let (tcp, address) = listener.accept().await.unwrap();
            let socket = ClientSocket::new(tcp, address, SystemTime::UNIX_EPOCH);
            ClientTls::accept(server.config.clone(), socket).await.unwrap()
        };
        tokio::join!(client, edge)
    }

    #[tokio::test]
    async fn what_is_written_is_read_at_the_other_end_in_both_directions() {
        for version in rustls::ALL_VERSIONS {
            let (mut client, mut edge) = pair(version).await;
            let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number / 7) as u8).collect();
            let (mut up, mut down) = (Vec::new(), Vec::new());
            let at_client = async {
                client.write_all(&bytes).await.unwrap();
                client.shutdown().await.unwrap();
                client.read_to_end(&mut down).await.unwrap();
            };
            let at_edge = async {
                edge.read_to_end(&mut up).await.unwrap();
                for part in bytes.chunks(70_001) {
                    let (head, rest) = part.split_at(part.len() / 9);
                    edge.write_all_buf(&mut bytes::Buf::chain(head, rest)).await.unwrap();
                }
                AsyncWriteExt::shutdown(&mut edge).await.unwrap();
            };
            tokio::join!(at_client, at_edge);
            assert!(up == bytes && down == bytes);
        }
    }

    #[tokio::test]
    async fn an_end_without_a_goodbye_is_an_error() {
        for version in rustls::ALL_VERSIONS {
            let (mut client, mut edge) = pair(version).await;
            client.get_mut().0.shutdown().await.unwrap();
            let read = edge.read_u8().await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[tokio::test]
    async fn a_session_that_breaks_says_so() {
        for version in rustls::ALL_VERSIONS {
            let (mut client, mut edge) = pair(version).await;
            let mut sent = Vec::new();
            let (tcp, session) = client.get_mut();
            std::io::Write::write_all(&mut session.writer(), b"good").unwrap();
            session.write_tls(&mut sent).unwrap();
            sent.extend_from_slice(&[23, 3, 3, 0, 40, 1, 2, 3]);
            sent.extend_from_slice(&[4; 37]);
            tcp.write_all(&sent).await.unwrap();
            let mut good = [0; 4];
            edge.read_exact(&mut good).await.unwrap();
            assert_eq!(&good, b"good");
            for _ in 0..2 {
                assert_eq!(edge.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
            }
            AsyncWriteExt::shutdown(&mut edge).await.unwrap();
            let read = client.read_u8().await.unwrap_err();
            assert!(read.to_string().contains("BadRecordMac"), "{read}");
        }
    }
}
