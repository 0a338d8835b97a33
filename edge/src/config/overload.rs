//! `[overload]`: when requests are told to come again later, and which ones first.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// When requests are refused with 429 because there are too many, initial syncs first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OverloadConfig {
    /// Requests that one shard works on at a time, without long polls, before everything is refused. The least urgent
    /// (initial syncs) are refused at half of it.
    pub requests_per_shard: usize,
    /// How late the edge's own timers may be, in milliseconds, before everything is refused.
    pub lag_ms: u64,
    /// What `Retry-After` says at least, in seconds; it grows with the load.
    pub retry_after_seconds: u64,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self { requests_per_shard: 512, lag_ms: 1_000, retry_after_seconds: 2 }
    }
}

impl OverloadConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.requests_per_shard == 0 {
            checker.reject("overload.requests_per_shard", "must be at least 1");
        }
        if self.lag_ms < 50 {
            checker.reject(
                "overload.lag_ms",
                "must be at least 50 ms: below that, ordinary scheduling looks like overload",
            );
        }
        if self.retry_after_seconds == 0 {
            checker.reject("overload.retry_after_seconds", "must be at least 1 second");
        }
    }
}
