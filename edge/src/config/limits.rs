//! `[limits]`: limits on what comes from outside.

use gatehouse_shared::config::Checker;
use gatehouse_shared::limits::DEFAULT_MAX_UPLOAD_BYTES;
use serde::{Deserialize, Serialize};

/// Limits on what comes from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Largest media upload, in bytes. The shards' own limit must not be larger.
    pub max_upload_bytes: u64,
    /// Most connections from outside at one time; fewer where the process may not open as many files and some more.
    pub max_connections: usize,
    /// How long a TLS handshake may take, in seconds.
    pub handshake_seconds: u64,
    /// How long a client may take to send the header of a request, in seconds.
    pub header_seconds: u64,
    /// How long a client may send or take nothing within a body, in seconds.
    pub body_idle_seconds: u64,
    /// How long requests in flight may take to finish when the edge stops, in seconds.
    pub drain_seconds: u64,
    /// How long requests in flight may take to finish in a process that was replaced by an upgrade, in seconds.
    pub upgrade_drain_seconds: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            max_connections: 20_000,
            handshake_seconds: 10,
            header_seconds: 15,
            body_idle_seconds: 30,
            drain_seconds: 10,
            upgrade_drain_seconds: 90,
        }
    }
}

impl LimitsConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.max_connections == 0 {
            checker.reject("limits.max_connections", "must be at least 1");
        }
        for (key, seconds) in [
            ("limits.handshake_seconds", self.handshake_seconds),
            ("limits.header_seconds", self.header_seconds),
            ("limits.body_idle_seconds", self.body_idle_seconds),
        ] {
            if seconds == 0 {
                checker.reject(key, "must be at least 1 second");
            }
        }
    }
}
