//! Everything that the edge listens on, bound before anything is started.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;
use tokio::net::TcpListener;

use crate::config::EdgeConfig;
use crate::listener::endpoint::{BindError, bind};

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

impl Listeners {
    pub(super) fn bind(config: &EdgeConfig) -> Result<Self, BindError> {
        let all = |addresses: &[SocketAddr], key| -> Result<Vec<_>, _> {
            addresses.iter().map(|address| bind(*address, key)).collect()
        };
        Ok(Self {
            https: all(&config.listen.https, "listen.https")?,
            federation: all(&config.listen.federation, "listen.federation")?,
            http: all(&config.listen.http, "listen.http")?,
            internal: config
                .listen
                .internal
                .iter()
                .map(|one| Ok((one.address, bind(one.address, "listen.internal")?)))
                .collect::<Result<_, BindError>>()?,
            exposition: config
                .telemetry
                .metrics_address
                .map(|address| bind(address, "telemetry.metrics_address"))
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
