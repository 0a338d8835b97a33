//! The edge's configuration: one file per section, and the checks that types alone cannot express.

use std::path::Path;

use gatehouse_shared::config::{Checker, ConfigError, load_checked};
use gatehouse_shared::telemetry::{self, TelemetryConfig};
use serde::{Deserialize, Serialize};

mod access_log;
mod acme;
mod admin;
mod admission;
mod cache;
mod compression;
mod control;
mod limits;
mod listen;
mod overload;
pub mod policy;
mod route;
mod security_headers;
mod server;
mod supervise;
mod tls;
mod upstream;
mod well_known;

pub use access_log::{AccessLogConfig, AccessLogFormat, WrittenAddress};
pub use acme::{
    AcmeConfig, AuthorityConfig, ChallengeKind, DnsConfig, ExternalAccountConfig, Rfc2136Config, TsigAlgorithm,
};
pub use admin::AdminConfig;
pub use admission::{AdmissionConfig, NftablesConfig};
pub use cache::CacheConfig;
pub use compression::CompressionConfig;
pub use control::{ControlConfig, DEFAULT_SOCKET};
pub use limits::LimitsConfig;
pub use listen::{InternalListenerConfig, ListenConfig};
pub use overload::OverloadConfig;
pub use route::{BackendAddr, RouteConfig};
pub use security_headers::SecurityHeadersConfig;
pub use server::ServerConfig;
pub(crate) use server::host_of;
pub use supervise::SuperviseConfig;
pub use tls::{CertificateFiles, DevelopmentCaConfig, TlsConfig, UnknownNames};
pub use upstream::{ShardTlsConfig, UpstreamConfig};
pub use well_known::{ContactConfig, PolicyServerConfig, RtcFocusConfig, SupportConfig};

/// Everything that `gatehouse run` reads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EdgeConfig {
    /// Which Matrix server this is, and where others find it.
    pub server: ServerConfig,
    /// Where the edge listens.
    pub listen: ListenConfig,
    /// Certificates.
    #[serde(default)]
    pub tls: TlsConfig,
    /// The shards behind the edge.
    pub upstream: UpstreamConfig,
    /// Local shards that the edge itself starts and restarts; left out: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervise: Option<SuperviseConfig>,
    /// Limits on what comes from outside.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// Paths that are answered from a folder, sent elsewhere, or passed to another server.
    #[serde(default, rename = "route", skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteConfig>,
    /// From where the admin API may be reached.
    #[serde(default)]
    pub admin: AdminConfig,
    /// What browsers are told beside the answer.
    #[serde(default)]
    pub security_headers: SecurityHeadersConfig,
    /// Compression of JSON and text.
    #[serde(default)]
    pub compression: CompressionConfig,
    /// Answers that the edge keeps.
    #[serde(default)]
    pub cache: CacheConfig,
    /// When requests are told to come again later.
    #[serde(default)]
    pub overload: OverloadConfig,
    /// Where the operator's commands reach a running edge.
    #[serde(default)]
    pub control: ControlConfig,
    /// Limits and bans.
    #[serde(default)]
    pub admission: AdmissionConfig,
    /// One line for each request; left out: none is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLogConfig>,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// Reads and checks the configuration at `path`.
///
/// # Errors
/// When the file cannot be read, or with every mistake in it.
pub fn load(path: &Path) -> Result<EdgeConfig, ConfigError> {
    load_checked(path, check)
}

/// Reads and checks a configuration that is in memory.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse(text: &str) -> Result<EdgeConfig, Vec<gatehouse_shared::config::Mistake>> {
    gatehouse_shared::config::parse_checked(text, check)
}

fn check(config: &EdgeConfig, checker: &mut Checker<'_>) {
    config.server.check(checker);
    config.listen.check(checker);
    config.tls.check(&config.server, &config.listen, checker);
    config.upstream.check(config.supervise.as_ref(), checker);
    if let Some(supervise) = &config.supervise {
        supervise.check(checker);
    }
    config.limits.check(checker);
    for (index, route) in config.routes.iter().enumerate() {
        route.check(&format!("route[{index}]"), checker);
    }
    config.admin.check(checker);
    config.security_headers.check(checker);
    config.compression.check(checker);
    config.overload.check(checker);
    config.control.check(checker);
    config.admission.check(checker);
    if let Some(access_log) = &config.access_log {
        access_log.check(checker);
    }
    telemetry::check(&config.telemetry, checker);
}

/// An error and its sources in one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
