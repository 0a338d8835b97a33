//! `[listen]`: where the edge listens.

use std::net::SocketAddr;

use gatehouse_shared::config::Checker;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Where the edge listens.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Addresses for clients, with TLS. `[::]:443` takes IPv4 as well.
    pub https: Vec<SocketAddr>,
    /// Addresses for other servers, with TLS.
    pub federation: Vec<SocketAddr>,
    /// Addresses in the clear, which redirect to HTTPS.
    pub http: Vec<SocketAddr>,
    /// Prefixes of load balancers whose connections begin with a PROXY header (version 1 or 2), always.
    pub proxy_protocol_from: Vec<IpNet>,
}

impl ListenConfig {
    /// Whether any of the addresses speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        !(self.https.is_empty() && self.federation.is_empty())
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !self.speaks_tls() && self.http.is_empty() {
            checker.reject("listen", "names no address to listen on");
        }
    }
}
