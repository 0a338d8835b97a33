//! `[compression]`: what is compressed on its way to clients.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// Compression of JSON and text for clients that ask for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionConfig {
    /// Level of zstd, 1 to 19; 0 for never.
    pub zstd: u32,
    /// Level of Brotli, 1 to 11; 0 for never.
    pub brotli: u32,
    /// Level of gzip, 1 to 9; 0 for never.
    pub gzip: u32,
    /// Smallest answer that is compressed, in bytes.
    pub min_bytes: u64,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { zstd: 1, brotli: 1, gzip: 1, min_bytes: 1_024 }
    }
}

impl CompressionConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        for (key, level, most) in [
            ("compression.zstd", self.zstd, 19),
            ("compression.brotli", self.brotli, 11),
            ("compression.gzip", self.gzip, 9),
        ] {
            if level > most {
                checker.reject(key, format_args!("must be at most {most}"));
            }
        }
    }
}
