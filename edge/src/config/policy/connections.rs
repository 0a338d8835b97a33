//! `[connections]`: connections and the pace of bodies.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// Connections and the pace of bodies. How many connections there may be in all is `limits.max_connections` of the
/// edge's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionPolicy {
    /// Most connections of one client at one time.
    pub per_client: usize,
    /// Most header fields of a request.
    pub max_header_fields: usize,
    /// How fast a client must send a body, and take an answer, in bytes per second.
    pub min_bytes_per_second: u64,
    /// How long it may be slower than that, in seconds.
    pub slow_seconds: u64,
}

impl Default for ConnectionPolicy {
    fn default() -> Self {
        Self { per_client: 1_000, max_header_fields: 100, min_bytes_per_second: 256, slow_seconds: 30 }
    }
}

impl ConnectionPolicy {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.per_client == 0 {
            checker.reject("connections.per_client", "must be at least 1");
        }
        if self.max_header_fields < 16 {
            checker.reject("connections.max_header_fields", "must be at least 16: browsers send as many");
        }
        if self.slow_seconds == 0 {
            checker.reject("connections.slow_seconds", "must be at least 1 second");
        }
    }
}
