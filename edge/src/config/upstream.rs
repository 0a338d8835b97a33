//! `[upstream]`: the shards behind the edge.

use std::path::PathBuf;

use gatehouse_shared::config::{Checker, Secret};
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::net::ListenAddr;
use serde::{Deserialize, Serialize};

use super::{SuperviseConfig, chain_of};
use crate::upstream::shard_tls::ShardTls;

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
    /// Over how long a shard that comes back takes its keys again, in seconds; 0 for at once.
    #[serde(default = "slow_start_seconds")]
    pub slow_start_seconds: u64,
    /// How many requests in a row a shard may fail (5xx, or it went away) before others take its keys for a while.
    #[serde(default = "failures")]
    pub failures: u32,
    /// How many of all requests may be sent again because a shard went away over them, in percent.
    #[serde(default = "retry_percent")]
    pub retry_percent: u32,
    /// How many requests may be sent again at one time.
    #[serde(default = "retry_burst")]
    pub retry_burst: u32,
    /// TLS towards shards at TCP addresses. Left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ShardTlsConfig>,
}

/// TLS towards shards at TCP addresses, on networks that are not trusted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardTlsConfig {
    /// PEM file with the authority that shards are verified by.
    pub ca: PathBuf,
    /// The name that is on the shards' certificates.
    pub name: String,
    /// PEM file with the certificate that the edge shows. Left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
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

pub(super) fn slow_start_seconds() -> u64 {
    20
}

pub(super) fn failures() -> u32 {
    20
}

pub(super) fn retry_percent() -> u32 {
    20
}

pub(super) fn retry_burst() -> u32 {
    1_000
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
        if self.failures == 0 {
            checker.reject("upstream.failures", "must be at least 1");
        }
        if self.retry_percent > 100 {
            checker.reject("upstream.retry_percent", "must be at most 100");
        }
        if let Some(tls) = &self.tls {
            tls.check(checker);
        }
        if self.shards.is_empty() && supervise.is_none() {
            checker.reject("upstream.shards", "names no shard, and there is no [supervise] section to start one");
        }
    }
}

impl ShardTlsConfig {
    fn check(&self, checker: &mut Checker<'_>) {
        if self.certificate.is_some() != self.key.is_some() {
            checker.reject("upstream.tls", "needs both `certificate` and `key`, or neither");
        } else if let Err(error) = ShardTls::new(self) {
            checker.reject("upstream.tls", chain_of(&error));
        }
    }
}
