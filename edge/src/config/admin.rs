//! `[admin]`: from where the admin API may be reached.

use gatehouse_shared::config::Checker;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Who may reach the admin API (`/_synapse/admin` and `/_matrix/client/*/admin`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Prefixes of clients that may. Not the private ranges by default: behind a container engine's bridge, everybody
    /// comes from one of those.
    pub allow: Vec<IpNet>,
    /// What everybody else gets: 403, or 404 as if there were no such API.
    pub refuse_with: u16,
}

impl Default for AdminConfig {
    fn default() -> Self {
        let loopback = [[127, 0, 0, 0].into(), std::net::Ipv6Addr::LOCALHOST.into()];
        // The lengths are those of the families, so both are prefixes.
        let prefixes =
            loopback.into_iter().zip([8, 128]).filter_map(|(address, length)| IpNet::new(address, length).ok());
        Self { allow: prefixes.collect(), refuse_with: 403 }
    }
}

impl AdminConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !matches!(self.refuse_with, 403 | 404) {
            checker.reject("admin.refuse_with", "must be 403 or 404");
        }
    }
}
