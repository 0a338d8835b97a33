//! `[cache]`: answers of shards that the edge keeps.

use serde::{Deserialize, Serialize};

/// Answers that the edge keeps: `/_matrix/client/versions` and the key server's document, for as long as the shards say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// How long such an answer is kept at most, in seconds; 0 keeps none.
    pub fresh_seconds: u64,
    /// How long after that it still answers while a new one is being fetched or no shard is there, in seconds.
    pub stale_seconds: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { fresh_seconds: 60, stale_seconds: 3_600 }
    }
}
