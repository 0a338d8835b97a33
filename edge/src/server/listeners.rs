//! Everything that the edge listens on, bound before anything is started.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use serde::Serialize;
use tokio::net::TcpListener;

use crate::config::EdgeConfig;
use crate::listener::endpoint::{BindError, bind, take_over};
use crate::upgrade::Offered;

/// Where the edge listens, once it does. Written to standard output, so that whoever started it knows.
#[derive(Debug, Clone, Serialize)]
pub struct Listening {
    /// Addresses for clients, with TLS.
    pub https: Vec<SocketAddr>,
    /// Addresses for other servers, with TLS.
    pub federation: Vec<SocketAddr>,
    /// Addresses in the clear.
    pub http: Vec<SocketAddr>,
    /// Addresses with mutual TLS.
    pub internal: Vec<SocketAddr>,
    /// The private address of `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
    /// The development authority's certificate.
    pub ca: Option<PathBuf>,
}

/// Everything that the edge listens on, bound before anything is started.
pub(super) struct Listeners {
    pub(super) https: Vec<TcpListener>,
    pub(super) federation: Vec<TcpListener>,
    pub(super) http: Vec<TcpListener>,
    /// With the addresses that the configuration names them by.
    pub(super) internal: Vec<(SocketAddr, TcpListener)>,
    pub(super) exposition: Option<TcpListener>,
}

/// Binds addresses, or takes the sockets that a predecessor has bound; remembers all of them for a successor.
pub(super) struct Binder {
    inherited: Vec<(Offered, OwnedFd)>,
    bound: Vec<(Offered, OwnedFd)>,
}

impl Binder {
    pub(super) fn new(inherited: Vec<(Offered, OwnedFd)>) -> Self {
        Self { inherited, bound: Vec::new() }
    }

    /// Listens on `address`, which the configuration names under `key`.
    pub(super) fn tcp(&mut self, address: SocketAddr, key: &'static str) -> Result<TcpListener, BindError> {
        let offered = Offered { key: key.to_owned(), address: address.to_string() };
        let listener = match self.take(&offered) {
            Some(socket) => take_over(socket).map_err(|source| BindError { address, key, source })?,
            None => bind(address, key)?,
        };
        self.remember(offered, &listener).map_err(|source| BindError { address, key, source })?;
        Ok(listener)
    }

    /// The inherited socket of this name.
    pub(super) fn take(&mut self, wanted: &Offered) -> Option<OwnedFd> {
        let at = self.inherited.iter().position(|(offered, _)| offered == wanted)?;
        Some(self.inherited.swap_remove(at).1)
    }

    pub(super) fn remember(&mut self, offered: Offered, socket: &impl AsFd) -> io::Result<()> {
        self.bound.push((offered, socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    /// What a successor may have. Inherited sockets that nobody asked for are closed with the last process that has them.
    pub(super) fn finish(self) -> Vec<(Offered, OwnedFd)> {
        self.bound
    }
}

impl Listeners {
    pub(super) fn bind(config: &EdgeConfig, binder: &mut Binder) -> Result<Self, BindError> {
        let mut all = |addresses: &[SocketAddr], key| -> Result<Vec<_>, _> {
            addresses.iter().map(|address| binder.tcp(*address, key)).collect()
        };
        Ok(Self {
            https: all(&config.listen.https, "listen.https")?,
            federation: all(&config.listen.federation, "listen.federation")?,
            http: all(&config.listen.http, "listen.http")?,
            internal: config
                .listen
                .internal
                .iter()
                .map(|one| Ok((one.address, binder.tcp(one.address, "listen.internal")?)))
                .collect::<Result<_, BindError>>()?,
            exposition: config
                .telemetry
                .metrics_address
                .map(|address| binder.tcp(address, "telemetry.metrics_address"))
                .transpose()?,
        })
    }

    pub(super) fn describe(&self, ca: Option<PathBuf>) -> Listening {
        let addresses = |listeners: &[TcpListener]| listeners.iter().filter_map(|one| one.local_addr().ok()).collect();
        Listening {
            https: addresses(&self.https),
            federation: addresses(&self.federation),
            http: addresses(&self.http),
            internal: self.internal.iter().filter_map(|(_, one)| one.local_addr().ok()).collect(),
            metrics: self.exposition.as_ref().and_then(|listener| listener.local_addr().ok()),
            ca,
        }
    }
}
