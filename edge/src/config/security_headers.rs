//! `[security_headers]`: what browsers are told beside the answer.

use serde::{Deserialize, Serialize};

/// What browsers are told beside the answer. Each is left out where the answer already has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecurityHeadersConfig {
    /// How long browsers insist on HTTPS for this host (`Strict-Transport-Security`), in seconds; 0 says nothing of it.
    /// Never said for localhost and for addresses.
    pub hsts_seconds: u64,
    /// Whether that is said of all names below the host as well.
    pub hsts_subdomains: bool,
    /// `Content-Security-Policy` for static folders; empty for none.
    pub static_policy: String,
    /// `Content-Security-Policy` for media, as the specification recommends it; empty for none.
    pub media_policy: String,
}

impl Default for SecurityHeadersConfig {
    fn default() -> Self {
        Self {
            hsts_seconds: 15_552_000,
            hsts_subdomains: false,
            static_policy: "object-src 'none'; base-uri 'self'; frame-ancestors 'self'".to_owned(),
            media_policy: "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                           style-src 'unsafe-inline'; object-src 'self';"
                .to_owned(),
        }
    }
}

impl SecurityHeadersConfig {
    pub(super) fn check(&self, checker: &mut gatehouse_shared::config::Checker<'_>) {
        for (key, policy) in [
            ("security_headers.static_policy", &self.static_policy),
            ("security_headers.media_policy", &self.media_policy),
        ] {
            if http::HeaderValue::from_str(policy).is_err() {
                checker.reject(key, "cannot be written as a header");
            }
        }
    }
}
