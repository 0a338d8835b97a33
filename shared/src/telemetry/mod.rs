//! Sets up what a process tells about itself: log lines on stderr and spans to an OTLP collector.

use std::io;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::Checker;

mod trace_parent;

pub use trace_parent::TraceParent;

/// The environment variable that overrides the configured filter.
pub const FILTER_VARIABLE: &str = "GATEHOUSE_LOG";

/// What libraries report and we count or tell ourselves: Pingora every refused handshake and every client that hangs up,
/// ruma each event that it authorises, twice and under a span. A filter that names these targets overrides this.
const CHATTY_LIBRARIES: &str = "pingora_core=off,pingora_proxy=off,ruma_state_res=error";

/// The `[telemetry]` section of both programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `text` or `json`: how log lines are written to stderr.
    pub log_format: LogFormat,
    /// Which lines are written, such as `info` or `warn,gatehouse=debug`. The environment's `GATEHOUSE_LOG` overrides it.
    pub log_filter: String,
    /// Base URL of an OTLP collector that takes protobuf over HTTP, such as `http://127.0.0.1:4318`. Left out: no export.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Private address for `/metrics` and `/healthz`, such as `127.0.0.1:9400`. Left out: none are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_address: Option<std::net::SocketAddr>,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, log_filter: "info".to_owned(), otlp_endpoint: None, metrics_address: None }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter {filter:?} cannot be read")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// Where it is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The exporter cannot be built.
    #[error("the OTLP exporter cannot be built")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else in this process already took the role.
    #[error("tracing was already set up")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Rejects what the types of `[telemetry]` allow and [`init`] would not take.
pub fn check(config: &TelemetryConfig, checker: &mut Checker<'_>) {
    if let Err(error) = EnvFilter::try_new(&config.log_filter) {
        checker.reject("telemetry.log_filter", error);
    }
    let endpoint = config.otlp_endpoint.as_deref().map(str::parse::<http::Uri>);
    let usable = |uri: &http::Uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https"));
    if endpoint.is_some_and(|parsed| !parsed.is_ok_and(|uri| usable(&uri))) {
        checker.reject("telemetry.otlp_endpoint", "is not an http or https URL");
    }
}

/// Flushes what is still to be exported when it is dropped: keep it until the process ends.
#[derive(Debug)]
#[must_use = "dropping the guard ends the export of spans"]
pub struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// Whether spans are exported, so that requests are worth a span of their own.
    pub fn exports_spans(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Sets up logging and export for this process under the name `service`. A crypto provider must be installed before
/// when the endpoint is `https`.
///
/// # Errors
/// When the filter or the endpoint cannot be used, or tracing was set up before.
pub fn init(config: &TelemetryConfig, service: &'static str) -> Result<Guard, TelemetryError> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| config.log_filter.clone());
    let filter = EnvFilter::try_new(format!("{CHATTY_LIBRARIES},{filter}"))
        .map_err(|source| TelemetryError::Filter { filter, source })?;
    let provider = config.otlp_endpoint.as_deref().map(|endpoint| exporter(endpoint, service)).transpose()?;
    // What is exported does not depend on what the log shows: the spans of statements are below its usual level.
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(
            filter_fn(|metadata| metadata.is_span() && metadata.target().starts_with("gatehouse"))
                .with_max_level_hint(LevelFilter::DEBUG),
        )
    });
    let lines: Box<dyn Layer<_> + Send + Sync> = match config.log_format {
        LogFormat::Text => {
            Box::new(fmt::layer().with_writer(io::stderr).with_ansi(io::IsTerminal::is_terminal(&io::stderr())))
        }
        LogFormat::Json => Box::new(fmt::layer().json().flatten_event(true).with_writer(io::stderr)),
    };
    Registry::default().with(spans).with(lines.with_filter(filter)).try_init()?;
    Ok(Guard(provider))
}

fn exporter(endpoint: &str, service: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
