//! The edge's configuration: one file per section, and the checks that types alone cannot express.

use std::path::Path;

use gatehouse_shared::config::{Checker, ConfigError, load_checked};
use gatehouse_shared::telemetry::{self, TelemetryConfig};
use serde::{Deserialize, Serialize};

mod control;
mod limits;
mod listen;
mod server;
mod supervise;
mod tls;
mod upstream;

pub use control::{ControlConfig, DEFAULT_SOCKET};
pub use limits::LimitsConfig;
pub use listen::ListenConfig;
pub use server::ServerConfig;
pub use supervise::SuperviseConfig;
pub use tls::{CertificateFiles, DevelopmentCaConfig, TlsConfig};
pub use upstream::UpstreamConfig;

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
    /// Where the operator's commands reach a running edge.
    #[serde(default)]
    pub control: ControlConfig,
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
    config.tls.check(&config.listen, checker);
    config.upstream.check(config.supervise.as_ref(), checker);
    if let Some(supervise) = &config.supervise {
        supervise.check(checker);
    }
    config.limits.check(checker);
    config.control.check(checker);
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
