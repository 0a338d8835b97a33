//! `[media]`: uploads.

use std::path::PathBuf;

use gatehouse_shared::{config::Checker, limits::DEFAULT_MAX_UPLOAD_BYTES};
use serde::{Deserialize, Serialize};

/// More than what cameras of phones make by default.
const DEFAULT_MAX_IMAGE_PIXELS: u64 = 32_000_000;
/// Pictures are scaled in memory; beyond this one of them would take gigabytes.
const MAX_IMAGE_PIXELS: u64 = 500_000_000;

/// Uploads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MediaConfig {
    /// Folder for media; every shard of a cluster must see the same one. Left out: `media` in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
    /// Largest upload, in bytes. The edge's own limit must not be smaller.
    pub max_upload_bytes: u64,
    /// Largest picture that thumbnails are made of, in pixels. Scaling takes up to 8 bytes of memory for each.
    pub max_image_pixels: u64,
    /// Whether the download endpoints from before Matrix 1.11, which ask for no access token, answer: for clients and
    /// servers that know no others.
    pub serve_unauthenticated: bool,
}

impl Default for MediaConfig {
    fn default() -> Self {
        Self {
            folder: None,
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            max_image_pixels: DEFAULT_MAX_IMAGE_PIXELS,
            serve_unauthenticated: false,
        }
    }
}

impl MediaConfig {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if self.max_upload_bytes == 0 {
            checker.reject("media.max_upload_bytes", "must be at least 1 byte");
        }
        if !(1..=MAX_IMAGE_PIXELS).contains(&self.max_image_pixels) {
            checker.reject("media.max_image_pixels", format_args!("must be from 1 to {MAX_IMAGE_PIXELS}"));
        }
    }
}
