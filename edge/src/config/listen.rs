//! `[listen]`: where the edge listens.

use std::net::SocketAddr;
use std::path::PathBuf;

use gatehouse_shared::config::Checker;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::chain_of;
use crate::listener::client_certificates::client_authorities;

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
    /// Addresses with TLS that serve only clients with a certificate.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub internal: Vec<InternalListenerConfig>,
}

/// One entry of `[[listen.internal]]`: mutual TLS, for administration and for services of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InternalListenerConfig {
    /// The address.
    pub address: SocketAddr,
    /// PEM file with the authorities that sign clients' certificates; watched like all certificates.
    pub client_ca: PathBuf,
}

impl ListenConfig {
    /// Whether any of the addresses speaks TLS.
    pub(super) fn speaks_tls(&self) -> bool {
        !(self.https.is_empty() && self.federation.is_empty() && self.internal.is_empty())
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !self.speaks_tls() && self.http.is_empty() {
            checker.reject("listen", "names no address to listen on");
        }
        for (index, internal) in self.internal.iter().enumerate() {
            if let Err(error) = client_authorities(&internal.client_ca) {
                checker.reject(&format!("listen.internal[{index}].client_ca"), chain_of(&error));
            }
        }
    }
}
