//! The edge's configuration: one type per section, and the checks that types alone cannot express.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gatehouse_shared::config::{Checker, ConfigError, Secret, load_checked};
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::limits::DEFAULT_MAX_UPLOAD_BYTES;
use gatehouse_shared::net::ListenAddr;
use gatehouse_shared::telemetry::{self, TelemetryConfig};
use serde::{Deserialize, Serialize};

use crate::listener::certificates::Certificate;

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
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryConfig,
}

/// `[server]`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The server name: the part of every user id after the colon.
    pub name: String,
    /// Base URL for clients, published in `/.well-known/matrix/client`. Left out: the document is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// `HOST:PORT` for other servers, published in `/.well-known/matrix/server`. Left out: the document is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federation_address: Option<String>,
}

/// `[listen]`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ListenConfig {
    /// Addresses for clients, with TLS. `[::]:443` takes IPv4 as well.
    pub https: Vec<SocketAddr>,
    /// Addresses for other servers, with TLS.
    pub federation: Vec<SocketAddr>,
    /// Addresses in the clear, which redirect to HTTPS.
    pub http: Vec<SocketAddr>,
}

/// `[tls]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificates, chosen by the names they hold; the first one serves clients that ask for no known name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// A certificate authority of this machine's own, for development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub development_ca: Option<DevelopmentCaConfig>,
}

/// One entry of `[[tls.certificates]]`; both files are read again on SIGHUP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// `[tls.development_ca]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentCaConfig {
    /// Folder for the authority and its certificate; made with mode 0700.
    pub folder: PathBuf,
    /// Names on the certificate beside the server's own name, `localhost`, `127.0.0.1` and `::1`.
    #[serde(default)]
    pub names: Vec<String>,
}

/// `[upstream]`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// The secret that every edge and shard of this cluster holds; at least 32 bytes.
    pub cluster_secret: Secret,
    /// Addresses of shards that something else runs: `unix:/path` or `ADDRESS:PORT`.
    #[serde(default)]
    pub shards: Vec<ListenAddr>,
    /// Time between two health checks of a shard, in milliseconds.
    #[serde(default = "defaults::health_interval_ms")]
    pub health_interval_ms: u64,
    /// How long a request waits while no shard is healthy, in seconds.
    #[serde(default = "defaults::hold_seconds")]
    pub hold_seconds: u64,
    /// How long connecting to a shard may take, in milliseconds.
    #[serde(default = "defaults::connect_timeout_ms")]
    pub connect_timeout_ms: u64,
}

/// `[supervise]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuperviseConfig {
    /// How many shards to run. An SQLite file takes one.
    pub shards: u16,
    /// The shards' program. Left out: `gatehouse-homeserver` beside this program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The shards' configuration file.
    pub config: PathBuf,
    /// Folder for the shards' sockets; made with mode 0700.
    pub socket_folder: PathBuf,
    /// How long a shard may take to finish its requests when it is stopped, in seconds.
    #[serde(default = "defaults::stop_seconds")]
    pub stop_seconds: u64,
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Largest media upload, in bytes. The shards' own limit must not be larger.
    pub max_upload_bytes: u64,
    /// Most connections from outside at one time.
    pub max_connections: usize,
    /// How long a TLS handshake may take, in seconds.
    pub handshake_seconds: u64,
    /// How long a client may take to send the header of a request, in seconds.
    pub header_seconds: u64,
    /// How long a client may send or take nothing within a body, in seconds.
    pub body_idle_seconds: u64,
    /// How long requests in flight may take to finish when the edge stops, in seconds.
    pub drain_seconds: u64,
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
        }
    }
}

mod defaults {
    pub(super) fn health_interval_ms() -> u64 {
        1_000
    }

    pub(super) fn hold_seconds() -> u64 {
        20
    }

    pub(super) fn connect_timeout_ms() -> u64 {
        2_000
    }

    pub(super) fn stop_seconds() -> u64 {
        15
    }
}

/// Reads and checks the configuration at `path`.
///
/// # Errors
/// When the file cannot be read, or with every mistake in it.
pub fn load(path: &Path) -> Result<EdgeConfig, ConfigError> {
    load_checked(path, check)
}

fn check(config: &EdgeConfig, checker: &mut Checker<'_>) {
    check_server(&config.server, checker);
    check_listen(config, checker);
    for (index, files) in config.tls.certificates.iter().enumerate() {
        if let Err(error) = Certificate::load(files) {
            checker.reject(&format!("tls.certificates[{index}]"), chain_of(&error));
        }
    }
    check_upstream(config, checker);
    telemetry::check(&config.telemetry, checker);
    if config.limits.max_connections == 0 {
        checker.reject("limits.max_connections", "must be at least 1");
    }
}

fn check_server(server: &ServerConfig, checker: &mut Checker<'_>) {
    if !is_server_name(&server.name) {
        checker.reject("server.name", "is not a server name (a host name or address, perhaps with a port)");
    }
    let base_url = server.base_url.as_deref().map(str::parse::<http::Uri>);
    let usable = |uri: &http::Uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("https" | "http"));
    if base_url.is_some_and(|parsed| !parsed.is_ok_and(|uri| usable(&uri) && uri.query().is_none())) {
        checker.reject("server.base_url", "is not an https URL without a query");
    }
    if server.federation_address.as_deref().is_some_and(|address| !is_server_name(address)) {
        checker.reject("server.federation_address", "is not HOST or HOST:PORT");
    }
}

fn check_listen(config: &EdgeConfig, checker: &mut Checker<'_>) {
    let ListenConfig { https, federation, http } = &config.listen;
    if https.is_empty() && federation.is_empty() && http.is_empty() {
        checker.reject("listen", "names no address to listen on");
    }
    let no_certificate = config.tls.certificates.is_empty() && config.tls.development_ca.is_none();
    if no_certificate && !(https.is_empty() && federation.is_empty()) {
        checker.reject("tls", "needs `certificates` or `development_ca`, because `listen` names addresses with TLS");
    }
}

fn check_upstream(config: &EdgeConfig, checker: &mut Checker<'_>) {
    if ClusterSecret::new(&config.upstream.cluster_secret).is_none() {
        let least = ClusterSecret::MIN_BYTES;
        checker.reject("upstream.cluster_secret", format_args!("must be at least {least} bytes"));
    }
    if config.upstream.health_interval_ms == 0 {
        checker.reject("upstream.health_interval_ms", "must be at least 1 ms");
    }
    match &config.supervise {
        None if config.upstream.shards.is_empty() => {
            checker.reject("upstream.shards", "names no shard, and there is no [supervise] section to start one");
        }
        Some(supervise) if !(1..=MAX_SUPERVISED).contains(&supervise.shards) => {
            checker.reject("supervise.shards", format_args!("must be between 1 and {MAX_SUPERVISED}"));
        }
        Some(SuperviseConfig { program: Some(program), .. }) if !program.is_file() => {
            checker.reject("supervise.program", format_args!("{} is not a file", program.display()));
        }
        Some(supervise) if !supervise.config.is_file() => {
            checker.reject("supervise.config", format_args!("{} is not a file", supervise.config.display()));
        }
        _ => {}
    }
}

const MAX_SUPERVISED: u16 = 64;

/// The grammar of the specification's appendix "Server Name": a host name, IPv4 or bracketed IPv6, and maybe a port.
fn is_server_name(name: &str) -> bool {
    if name.is_empty() || name.len() > 230 {
        return false;
    }
    let (host, port) = match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
        Some(_) => return false,
        None => name.find(':').map_or((name, ""), |colon| name.split_at(colon)),
    };
    let host_is_fine =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    host_is_fine && port_is_fine
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
