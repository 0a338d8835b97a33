//! One listening address: binds it, accepts, shakes hands, and serves each connection in a task of its own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use gatehouse_shared::net::client_ip::canonical;
use pingora_core::apps::{HttpServerApp, ServerApp as _};
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::{ALPN, IO, Ssl as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::client_io::{ClientIo, ClientSocket};
use super::http2;
use super::tls;
use crate::header_deadline::{HeaderDeadline, HeaderProgress};
use crate::metrics::Connections;

const BACKLOG: u32 = 4096;

/// An address that cannot be listened on; the edge does not start without all of its addresses.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key})")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The configuration's key.
    pub key: &'static str,
    /// The system's reason.
    pub source: io::Error,
}

/// Binds `address`, which the configuration names under `key`.
pub(crate) fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| BindError { address, key, source })
}

/// What every endpoint of the edge shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    /// One permit a connection.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) handshake_within: Duration,
    pub(crate) header_within: Duration,
    /// Cancelled when no more connections are to be accepted.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the connections that are left are to be cut.
    pub(crate) cut: CancellationToken,
    /// Turns true with `stop`; Pingora's way of saying so to a connection.
    pub(crate) stopping: watch::Receiver<bool>,
    pub(crate) connections: TaskTracker,
}

/// One listening address and what serves it.
pub(crate) struct Endpoint<A> {
    pub(crate) app: Arc<A>,
    pub(crate) tls: Option<Arc<Acceptor>>,
    pub(crate) metrics: Connections,
    pub(crate) shared: Shared,
}

impl<A: HttpServerApp + Send + Sync + 'static> Endpoint<A> {
    /// Accepts until the edge stops.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.shared.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => self.take(tcp, peer),
                Err(error) => {
                    // Out of descriptors, say: the backlog stays readable, so without a pause this would spin.
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn take(self: &Arc<Self>, tcp: TcpStream, mut peer: SocketAddr) {
        let Ok(place) = self.shared.places.clone().try_acquire_owned() else {
            self.metrics.refused.inc();
            return;
        };
        peer.set_ip(canonical(peer.ip()));
        // Only a socket that is already broken refuses this; serving it will end at once.
        let _ = tcp.set_nodelay(true);
        let endpoint = self.clone();
        let served = async move {
            let _place = place;
            endpoint.metrics.opened.inc();
            endpoint.metrics.open.inc();
            tokio::select! {
                biased;
                () = endpoint.shared.cut.cancelled() => {}
                () = endpoint.serve(tcp, peer) => {}
            }
            endpoint.metrics.open.dec();
        };
        // Not awaited here: the tracker waits for all of them when the edge stops.
        drop(self.shared.connections.spawn(served));
    }

    async fn serve(&self, tcp: TcpStream, peer: SocketAddr) {
        let socket = ClientSocket::new(tcp, peer, self.shared.clock.now());
        let Some(acceptor) = &self.tls else { return self.speak_http(socket).await };
        match tokio::time::timeout(self.shared.handshake_within, acceptor.tls_handshake(socket)).await {
            // The handshake was the answer to an authority's challenge.
            Ok(Ok(tls)) if tls::is_challenge(&tls) => return,
            Ok(Ok(tls)) => return self.speak_http(tls).await,
            // Scanners fail handshakes all day: counted, and told only to who asks for it.
            Ok(Err(error)) => debug!(client = %peer.ip(), %error, "TLS handshake failed"),
            Err(_) => debug!(client = %peer.ip(), "TLS handshake took too long"),
        }
        self.metrics.failed_handshakes.inc();
    }

    async fn speak_http<S: IO + 'static>(&self, stream: S) {
        let progress = Arc::new(HeaderProgress::default());
        let deadline = HeaderDeadline::new(progress.clone(), self.shared.header_within);
        let stream = Box::new(ClientIo::new(stream, deadline));
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return http2::serve(&self.app, stream, &self.shared.stopping).await;
        }
        // An application that hands the connection back has nothing more to do with it.
        drop(progress.within(self.app.process_new(stream, &self.shared.stopping)).await);
    }
}
