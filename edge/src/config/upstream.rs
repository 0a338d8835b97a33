//! `[upstream]`: the shards behind the edge.

use gatehouse_shared::config::{Checker, Secret};
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::net::ListenAddr;
use serde::{Deserialize, Serialize};

use super::SuperviseConfig;

/// The shards behind the edge.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The secret that every edge and shard of this cluster holds; at least 32 bytes.
    pub cluster_secret: Secret,
    /// Addresses of shards that something else runs: `unix:/path` or `ADDRESS:PORT`.
    #[serde(default)]
    pub shards: Vec<ListenAddr>,
    /// Time between two health checks of a shard, in milliseconds.
    #[serde(default = "health_interval_ms")]
    pub health_interval_ms: u64,
    /// How long a request waits while no shard is healthy, in seconds.
    #[serde(default = "hold_seconds")]
    pub hold_seconds: u64,
    /// How long connecting to a shard may take, in milliseconds.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

pub(super) fn health_interval_ms() -> u64 {
    1_000
}

pub(super) fn hold_seconds() -> u64 {
    20
}

pub(super) fn connect_timeout_ms() -> u64 {
    2_000
}

impl UpstreamConfig {
    pub(super) fn check(&self, supervise: Option<&SuperviseConfig>, checker: &mut Checker<'_>) {
        if ClusterSecret::new(&self.cluster_secret).is_none() {
            let least = ClusterSecret::MIN_BYTES;
            checker.reject("upstream.cluster_secret", format_args!("must be at least {least} bytes"));
        }
        if self.health_interval_ms == 0 {
            checker.reject("upstream.health_interval_ms", "must be at least 1 ms");
        }
        if self.shards.is_empty() && supervise.is_none() {
            checker.reject("upstream.shards", "names no shard, and there is no [supervise] section to start one");
        }
    }
}
