//! Another server behind the edge (a bridge, a single sign-on server): its addresses in turn, without those that failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, OkOrErr, OrErr, Result};
use tokio::net::lookup_host;
use tokio::time::Instant;

use super::tls::{Authorities, PemFileError};
use crate::config::{BackendAddr, RouteConfig};

/// An address that could not be reached is asked again after this time, or when no other one is left.
const AVOIDED_FOR: Duration = Duration::from_secs(5);
/// How long the addresses of a name are believed.
const NAME_LIFETIME: Duration = Duration::from_secs(10);
/// An idle connection is kept this long.
const IDLE: Duration = Duration::from_secs(30);

/// The addresses of one route.
#[derive(Debug)]
pub(crate) struct Backend {
    addresses: Vec<Address>,
    turn: AtomicUsize,
    /// Keeps the connections of routes apart: those that trust different authorities must not share any.
    group: u64,
    authorities: Option<Arc<CaType>>,
    connect_within: Duration,
    answer_within: Duration,
}

#[derive(Debug)]
struct Address {
    at: BackendAddr,
    avoided_until: Mutex<Option<Instant>>,
    resolved: Mutex<Option<(SocketAddr, Instant)>>,
}

impl Backend {
    /// The other server of the route with this number.
    pub(crate) fn new(number: usize, route: &RouteConfig) -> Result<Self, PemFileError> {
        let address =
            |at: &BackendAddr| Address { at: at.clone(), avoided_until: Mutex::new(None), resolved: Mutex::new(None) };
        let authorities = route.ca.as_deref().map(Authorities::load).transpose()?;
        Ok(Self {
            addresses: route.upstream.iter().map(address).collect(),
            turn: AtomicUsize::new(0),
            // Far from the generations of shards.
            group: u64::MAX - number as u64,
            authorities: authorities.map(|authorities| authorities.for_peers()),
            connect_within: Duration::from_millis(route.connect_timeout_ms),
            answer_within: Duration::from_secs(route.answer_seconds),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The next address, and its index for [`Self::avoid`].
    pub(crate) async fn peer(&self, upgrades: bool) -> Result<(usize, HttpPeer)> {
        let now = Instant::now();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let order = (0..self.addresses.len()).map(|step| first.wrapping_add(step) % self.addresses.len());
        let is_avoided = |index: usize| {
            self.addresses.get(index).and_then(|address| *address.avoided_until.lock()).is_some_and(|until| now < until)
        };
        let index = order.clone().find(|index| !is_avoided(*index)).or_else(|| order.clone().next());
        let chosen = index.and_then(|index| Some((index, self.addresses.get(index)?)));
        let (index, address) = chosen.or_err(ErrorType::InternalError, "a route without an address")?;
        let mut peer = address.peer(now).await?;
        peer.group_key = self.group;
        peer.options.connection_timeout = Some(self.connect_within);
        peer.options.total_connection_timeout = Some(self.connect_within);
        peer.options.idle_timeout = Some(IDLE);
        peer.options.ca.clone_from(&self.authorities);
        if !upgrades {
            peer.options.read_timeout = Some(self.answer_within);
        }
        Ok((index, peer))
    }

    /// The address could not be reached.
    pub(crate) fn avoid(&self, index: usize) {
        if let Some(address) = self.addresses.get(index) {
            *address.avoided_until.lock() = Some(Instant::now() + AVOIDED_FOR);
            *address.resolved.lock() = None;
        }
    }
}

impl Address {
    async fn peer(&self, now: Instant) -> Result<HttpPeer> {
        match &self.at {
            BackendAddr::Unix(path) => {
                let path = path.to_str().or_err(ErrorType::SocketError, "the path of a socket is not text")?;
                HttpPeer::new_uds(path, false, String::new())
            }
            BackendAddr::Tcp { tls, host, port } => {
                let address = self.resolve(host, *port, now).await?;
                // The name is never empty: Pingora verifies nothing of a peer without one.
                Ok(HttpPeer::new(address, *tls, host.clone()))
            }
        }
    }

    async fn resolve(&self, host: &str, port: u16, now: Instant) -> Result<SocketAddr> {
        if let Some((address, until)) = *self.resolved.lock()
            && now < until
        {
            return Ok(address);
        }
        let found = lookup_host((host, port)).await.or_err(ErrorType::ConnectError, "while looking up a name")?.next();
        let Some(address) = found else {
            return Error::e_explain(ErrorType::ConnectError, "the name of an upstream has no address");
        };
        *self.resolved.lock() = Some((address, now + NAME_LIFETIME));
        Ok(address)
    }
}
