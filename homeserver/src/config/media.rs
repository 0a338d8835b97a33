//! `[media]`: uploads.

use std::path::PathBuf;

use gatehouse_shared::{config::Checker, limits::DEFAULT_MAX_UPLOAD_BYTES};
use serde::{Deserialize, Serialize};

/// Uploads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Folder for media; every shard of a cluster must see the same one. Left out: `media` in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Largest upload, in bytes. The edge's own limit must not be smaller.
    pub max_upload_bytes: u64,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self { folder: None, max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES }
    }
}

impl MediaConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.max_upload_bytes == 0 {
            checker.reject("media.max_upload_bytes", "must be at least 1 byte");
        }
    }
}
