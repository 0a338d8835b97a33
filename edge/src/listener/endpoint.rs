//! One listening address: binds it, accepts, shakes hands, and serves each connection in a task of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use gatehouse_shared::net::client_ip::canonical;
use pingora_core::protocols::{ALPN, IO, Stream};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::application::Application;
use super::client_io::{ClientIo, ClientSocket};
use super::client_tls::{ClientTls, TlsError};
use super::proxy_protocol::{self, Announced};
use super::tls_session::SessionError;
use super::{http1, http2, tls};
use crate::admission::connection_limit::Counted;
use crate::admission::prefix_map::PrefixMap;
use crate::bans::Bans;
use crate::config::policy::Feed;
use crate::ending::Ending;
use crate::header_deadline::{HeaderDeadline, HeaderProgress};
use crate::http2::request::Client;
use crate::metrics::Connections;
use crate::workers::Turns;

const BACKLOG: u32 = 4096;
/// So much of an answer waits in the kernel for a client that does not take it, beside what is on its way. Without a limit it
/// is some megabytes: nobody would notice that the client takes nothing, and a thousand of them would cost gigabytes.
const MOST_UNSENT_BYTES: u32 = 64 * 1024;

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
        prepare(SockRef::from(&socket))?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| BindError { address, key, source })
}

/// Listens on a socket that another process has bound.
pub(crate) fn take_over(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    prepare(SockRef::from(&listener))?;
    TcpListener::from_std(listener)
}

/// Sets what each connection inherits.
fn prepare(socket: SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_notsent_lowat(MOST_UNSENT_BYTES)?;
    socket.set_tcp_nodelay(true)
}

/// What every endpoint of the edge shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) bans: Arc<Bans>,
    /// Whose connections begin with a PROXY header.
    pub(crate) proxy_protocol_from: Arc<PrefixMap<()>>,
    /// One permit a connection.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) handshake_within: Duration,
    pub(crate) header_within: Duration,
    /// Cancelled when no more connections are to be accepted.
    pub(crate) stop: CancellationToken,
    pub(crate) ends: Ends,
    pub(crate) connections: TaskTracker,
    /// Which worker serves the next connection.
    pub(crate) turns: Arc<Turns>,
}

/// How connections learn that the edge stops.
#[derive(Clone)]
pub(crate) struct Ends {
    /// Comes when connections are to take no more requests.
    pub(crate) leaving: Ending,
    /// Turns true with that; Pingora's way of saying so.
    pub(crate) stopping: watch::Receiver<bool>,
    /// Comes when connections of HTTP/1.1 without a request are to end.
    pub(crate) parting: Ending,
    /// Comes when the connections that are left are to be cut.
    pub(crate) cut: Ending,
}

/// One listening address and what serves it.
pub(crate) struct Endpoint<A> {
    pub(crate) app: Arc<A>,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) metrics: Connections,
    pub(crate) shared: Shared,
}

impl<A: Application> Endpoint<A> {
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
        peer.set_ip(canonical(peer.ip()));
        let announces = self.shared.proxy_protocol_from.contains(peer.ip());
        // Who stands behind a load balancer is known when it has said so.
        let counted = if announces { None } else { Some(self.welcome(peer.ip())) };
        let (counted, place) = match (counted.transpose(), self.shared.places.clone().try_acquire_owned()) {
            (Ok(counted), Ok(place)) => (counted, place),
            (counted, _) => {
                let banned = counted.is_err_and(|unwelcome| unwelcome == Unwelcome::Banned);
                return self.refuse(&tcp, if banned { Unwelcome::Banned } else { Unwelcome::Crowded });
            }
        };
        let (Ok(tcp), Some(worker)) = (tcp.into_std(), self.shared.turns.next()) else { return };
        let endpoint = self.clone();
        let served = async move {
            let _place = place;
            // From here on the worker's own runtime watches the socket.
            let Ok(tcp) = TcpStream::from_std(tcp) else { return };
            endpoint.metrics.opened.inc();
            endpoint.metrics.open.inc();
            tokio::select! {
                biased;
                () = endpoint.shared.ends.cut.ended() => {}
                () = endpoint.serve(tcp, peer, counted) => {}
            }
            endpoint.metrics.open.dec();
        };
        // Not awaited here: the tracker waits for all of them when the edge stops.
        drop(self.shared.connections.spawn_on(served, worker));
    }

    async fn serve(&self, mut tcp: TcpStream, peer: SocketAddr, counted: Option<Counted>) {
        let (client, counted) = match counted {
            Some(counted) => (peer, counted),
            None => match self.announced(&mut tcp, peer).await {
                Some(client) => match self.welcome(client.ip()) {
                    Ok(counted) => (client, counted),
                    Err(unwelcome) => return self.refuse(&tcp, unwelcome),
                },
                None => {
                    self.metrics.failed_handshakes.inc();
                    return;
                }
            },
        };
        tokio::select! {
            biased;
            () = counted.cut().ended() => {}
            () = self.shake_hands(tcp, client) => {}
        }
    }

    /// The client that a load balancer announces.
    async fn announced(&self, tcp: &mut TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        match tokio::time::timeout(self.shared.handshake_within, proxy_protocol::read(tcp)).await {
            Ok(Ok(Announced::Client(mut client))) => {
                client.set_ip(canonical(client.ip()));
                return Some(client);
            }
            Ok(Ok(Announced::Itself)) => return Some(peer),
            Ok(Err(error)) => debug!(proxy = %peer.ip(), %error, "no PROXY header where one is expected"),
            Err(_) => debug!(proxy = %peer.ip(), "the PROXY header took too long"),
        }
        None
    }

    /// Whether a connection of this client may stay.
    fn welcome(&self, client: IpAddr) -> Result<Counted, Unwelcome> {
        if !self.shared.bans.may_come(client) {
            return Err(Unwelcome::Banned);
        }
        self.shared.bans.enter(client).ok_or(Unwelcome::Crowded)
    }

    /// Ends a connection at once: the client gets a reset, and this side keeps nothing of it.
    fn refuse(&self, tcp: &TcpStream, unwelcome: Unwelcome) {
        // Were it refused, the connection would end in the usual way.
        let _ = tcp.set_zero_linger();
        match unwelcome {
            Unwelcome::Banned => self.metrics.banned.inc(),
            Unwelcome::Crowded => self.metrics.refused.inc(),
        };
    }

    async fn shake_hands(&self, tcp: TcpStream, client: SocketAddr) {
        let socket = ClientSocket::new(tcp, client, self.shared.clock.now());
        let Some(config) = &self.tls else {
            let connection = self.watch(socket);
            return self.speak_http(connection, client.ip()).await;
        };
        // In a place of its own, which is given back once the hands are shaken: connections live much longer.
        let handshake = Box::pin(ClientTls::accept(config.clone(), socket));
        let connection = match tokio::time::timeout(self.shared.handshake_within, handshake).await {
            // The handshake was the answer to an authority's challenge.
            Ok(Ok(tls)) if tls::is_challenge(&tls) => return,
            Ok(Ok(tls)) => self.watch(tls),
            Ok(Err(error)) => return self.note_failure(client.ip(), &error),
            Err(_) => return self.note_failure(client.ip(), &io::Error::from(io::ErrorKind::TimedOut).into()),
        };
        self.speak_http(connection, client.ip()).await;
    }

    /// Scanners fail handshakes all day: counted, and told only to who asks for it. A client that does not like our
    /// certificate is no offender.
    fn note_failure(&self, client: IpAddr, error: &TlsError) {
        self.metrics.failed_handshakes.inc();
        match error {
            TlsError::Session(SessionError::Garbage) => self.shared.bans.found(Feed::TlsGarbage, client),
            error => debug!(%client, %error, "TLS handshake failed"),
        }
    }

    fn watch(&self, stream: impl IO + 'static) -> Watched {
        let (progress, end) = (Arc::<HeaderProgress>::default(), Ending::default());
        let deadline = HeaderDeadline::new(progress.clone(), self.shared.header_within);
        Watched { stream: Box::new(ClientIo::new(stream, deadline)), progress, end }
    }

    /// Each protocol has a place of its own, because a task is as large as the largest of what it may hold.
    async fn speak_http(&self, Watched { stream, progress, end }: Watched, client: IpAddr) {
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            let both = Client { address: client, end: end.clone() };
            let served = Box::pin(http2::serve(&self.app, stream, both, &self.shared.ends));
            tokio::select! {
                biased;
                () = end.ended() => self.shared.bans.found(Feed::SlowBody, client),
                () = served => {}
            }
        } else {
            let served = Box::pin(http1::serve(&*self.app, stream, client, &self.shared.ends));
            progress.clone().within(served).await;
        }
        if progress.was_overdue() {
            self.shared.bans.found(Feed::SlowHeader, client);
        }
        if progress.was_refused() {
            self.shared.bans.found(Feed::Smuggling, client);
        }
    }
}

/// A connection whose headers have their deadline.
struct Watched {
    stream: Stream,
    progress: Arc<HeaderProgress>,
    /// Ends the connection when one of its streams owes a body.
    end: Ending,
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unwelcome {
    Banned,
    /// All places are taken, or all of this client's.
    Crowded,
}
