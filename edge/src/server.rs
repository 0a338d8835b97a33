//! Puts the edge together from its configuration, runs it, and takes it down in order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use gatehouse_shared::config::Secret;
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::metrics as exposition;
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProxyHttp};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::admission::request_class::BodyLimits;
use crate::chance::Chance;
use crate::config::{EdgeConfig, TlsConfig, chain_of};
use crate::listener::certificates::{Certificate, CertificateError, Certificates};
use crate::listener::development_ca::{self, DevelopmentCa, DevelopmentCaError};
use crate::listener::endpoint::{BindError, Endpoint, Shared, bind};
use crate::listener::tls;
use crate::metrics::Metrics;
use crate::proxy::Proxy;
use crate::redirect::RedirectToHttps;
use crate::routing::well_known::WellKnown;
use crate::upstream::health;
use crate::upstream::pool::{Pool, UnusableAddress};
use crate::upstream::supervise::{SuperviseError, Supervisor};

/// An idle HTTP/2 connection is closed after this time; Pingora's own default is never.
const H2_IDLE: Duration = Duration::from_secs(300);
/// Attempts of one request. The time a request may wait is what ends it; this only keeps a mistake from looping.
const MAX_ATTEMPTS: usize = 1_000;
const UPSTREAM_KEEPALIVE: usize = 512;

/// Why the edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address for metrics cannot be listened on.
    #[error("cannot listen on {address} (telemetry.metrics_address)")]
    BindMetrics {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A certificate cannot be used.
    #[error("cannot use a certificate of [tls]")]
    Certificate(#[from] CertificateError),
    /// The development authority cannot be made.
    #[error("cannot make the development certificate authority")]
    DevelopmentCa(#[from] DevelopmentCaError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The cluster secret is too short.
    #[error("the cluster secret is too short (upstream.cluster_secret)")]
    ClusterSecret,
    /// A shard's address cannot be used.
    #[error(transparent)]
    Shard(#[from] UnusableAddress),
    /// No shard can be supervised.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// Where the edge listens, once it does. Written to standard output, so that whoever started it knows.
#[derive(Debug, Clone, Serialize)]
pub struct Listening {
    /// Addresses for clients, with TLS.
    pub https: Vec<SocketAddr>,
    /// Addresses for other servers, with TLS.
    pub federation: Vec<SocketAddr>,
    /// Addresses in the clear.
    pub http: Vec<SocketAddr>,
    /// The private address of `/metrics` and `/healthz`.
    pub metrics: Option<SocketAddr>,
    /// The development authority's certificate.
    pub ca: Option<std::path::PathBuf>,
}

/// What the edge needs from its process.
pub struct Environment {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Decides the ids of requests.
    pub seed: u64,
    /// Whether spans are exported.
    pub exports_spans: bool,
    /// Cancelled to stop the edge.
    pub stop: CancellationToken,
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("exports_spans", &self.exports_spans).finish_non_exhaustive()
    }
}

/// Runs the edge until it is stopped. `announce` is called once everything listens.
///
/// # Errors
/// When something it needs cannot be had; nothing runs then.
pub async fn run(
    config: EdgeConfig,
    environment: Environment,
    announce: impl FnOnce(&Listening),
) -> Result<(), StartError> {
    let Environment { clock, seed, exports_spans, stop } = environment;
    let (certificates, ca) = prepare_certificates(&config, clock.as_ref())?;
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let supervisor = prepare_supervisor(&config)?;
    let pool = Arc::new(make_pool(&config, supervisor.as_deref(), &metrics)?);

    let https = bind_all(&config.listen.https, "https")?;
    let federation = bind_all(&config.listen.federation, "federation")?;
    let http = bind_all(&config.listen.http, "http")?;
    let exposition = bind_metrics(config.telemetry.metrics_address).await?;
    let listening = Listening {
        https: addresses(&https),
        federation: addresses(&federation),
        http: addresses(&http),
        metrics: exposition.as_ref().and_then(|listener| listener.local_addr().ok()),
        ca: ca.map(|ca| ca.ca),
    };

    let stop_shards = CancellationToken::new();
    let shards = TaskTracker::new();
    start_shards(&config, &pool, supervisor, &metrics, &shards, &stop_shards);
    if let Some(listener) = exposition {
        let watched = pool.clone();
        let healthy: exposition::Healthy = Arc::new(move || watched.shards().iter().any(|shard| shard.is_healthy()));
        shards.spawn(exposition::serve(listener, Arc::new(registry), healthy, stop_shards.clone()));
    }
    shards.spawn(reload_on_hangup(
        certificates.clone(),
        config.tls.clone(),
        listening.ca.clone(),
        stop_shards.clone(),
    )?);

    let (stopping_sender, stopping) = watch::channel(false);
    let shared = Shared {
        clock,
        places: Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS))),
        handshake_within: Duration::from_secs(config.limits.handshake_seconds),
        header_within: Duration::from_secs(config.limits.header_seconds),
        stop: stop.clone(),
        cut: CancellationToken::new(),
        stopping,
        connections: TaskTracker::new(),
    };
    let proxy = Arc::new(application(make_proxy(&config, pool, metrics.clone(), seed, exports_spans)?));
    let redirect = Arc::new(application(RedirectToHttps { port: public_https_port(&config, &listening) }));
    let acceptor = Arc::new(Acceptor::from_server_config(tls::server_config(certificates)?));
    let accepting = TaskTracker::new();
    accept_on(https, "https", &proxy, Some(&acceptor), &metrics, &shared, &accepting);
    accept_on(federation, "federation", &proxy, Some(&acceptor), &metrics, &shared, &accepting);
    accept_on(http, "http", &redirect, None, &metrics, &shared, &accepting);
    accepting.close();
    announce(&listening);

    stop.cancelled().await;
    // Receivers live in `shared`, so this reaches them; connections then finish what they began and take no more.
    let _ = stopping_sender.send(true);
    accepting.wait().await;
    proxy.cleanup().await;
    redirect.cleanup().await;
    drain(&shared, Duration::from_secs(config.limits.drain_seconds)).await;
    stop_shards.cancel();
    shards.close();
    shards.wait().await;
    info!("stopped");
    Ok(())
}

fn prepare_certificates(
    config: &EdgeConfig,
    clock: &dyn Clock,
) -> Result<(Arc<Certificates>, Option<DevelopmentCa>), StartError> {
    let development = config.tls.development_ca.as_ref();
    let ca = development
        .map(|development| {
            let own = host_of_server_name(&config.server.name).to_owned();
            let names: Vec<String> = development.names.iter().cloned().chain([own]).collect();
            development_ca::prepare(&development.folder, &names, clock)
        })
        .transpose()?;
    let certificates = Arc::new(Certificates::default());
    certificates.replace(&load_all(&config.tls, ca.as_ref().map(|ca| &ca.leaf))?);
    Ok((certificates, ca))
}

/// A server name may hold a port and an address in brackets; a certificate holds neither.
fn host_of_server_name(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => name.split(':').next().unwrap_or(name),
    }
}

fn load_all(
    tls: &TlsConfig,
    development: Option<&crate::config::CertificateFiles>,
) -> Result<Vec<Certificate>, CertificateError> {
    tls.certificates.iter().chain(development).map(Certificate::load).collect()
}

/// Reads the certificates again on SIGHUP. Those in use stay when the new ones cannot be used.
fn reload_on_hangup(
    certificates: Arc<Certificates>,
    tls: TlsConfig,
    ca: Option<std::path::PathBuf>,
    stop: CancellationToken,
) -> Result<impl Future<Output = ()>, StartError> {
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let folder = ca.and_then(|ca| ca.parent().map(std::path::Path::to_owned));
    let development = folder.as_deref().map(development_ca::leaf_in);
    Ok(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => {}
            }
            match load_all(&tls, development.as_ref()) {
                Ok(loaded) => {
                    certificates.replace(&loaded);
                    info!(certificates = loaded.len(), "read the certificates again");
                }
                Err(error) => error!(error = chain_of(&error), "kept the certificates in use"),
            }
        }
    })
}

fn prepare_supervisor(config: &EdgeConfig) -> Result<Option<Arc<Supervisor>>, SuperviseError> {
    let prepare = |section| Supervisor::prepare(section, config.upstream.cluster_secret.clone()).map(Arc::new);
    config.supervise.as_ref().map(prepare).transpose()
}

fn make_pool(config: &EdgeConfig, supervisor: Option<&Supervisor>, metrics: &Metrics) -> Result<Pool, UnusableAddress> {
    let own = supervisor.map(Supervisor::addresses).unwrap_or_default();
    let addresses = own.iter().chain(&config.upstream.shards).cloned();
    let connect_timeout = Duration::from_millis(config.upstream.connect_timeout_ms);
    Pool::new(addresses, connect_timeout, |shard| metrics.shard_healthy(shard))
}

fn start_shards(
    config: &EdgeConfig,
    pool: &Arc<Pool>,
    supervisor: Option<Arc<Supervisor>>,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let interval = Duration::from_millis(config.upstream.health_interval_ms);
    for shard in pool.shards() {
        tasks.spawn(health::watch(shard.clone(), interval, stop.clone()));
        if let Some(supervisor) = supervisor.as_ref().filter(|own| own.addresses().contains(shard.address())) {
            let starts = metrics.shard_starts(&shard.address().to_string());
            tasks.spawn(supervisor.clone().run(shard.clone(), starts, stop.clone()));
        }
    }
}

fn bind_all(addresses: &[SocketAddr], key: &'static str) -> Result<Vec<TcpListener>, BindError> {
    addresses.iter().map(|address| bind(*address, key)).collect()
}

async fn bind_metrics(address: Option<SocketAddr>) -> Result<Option<TcpListener>, StartError> {
    let Some(address) = address else { return Ok(None) };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(StartError::BindMetrics { address, source }),
    }
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// The port that clients reach: of the base URL where there is one, or else of the first address.
fn public_https_port(config: &EdgeConfig, listening: &Listening) -> u16 {
    let published = config.server.base_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    match published {
        Some(url) => url.port_u16().unwrap_or(443),
        None => listening.https.first().map_or(443, SocketAddr::port),
    }
}

fn make_proxy(
    config: &EdgeConfig,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    seed: u64,
    exports_spans: bool,
) -> Result<Proxy, StartError> {
    let secret: &Secret = &config.upstream.cluster_secret;
    Ok(Proxy {
        well_known: WellKnown::new(config.server.base_url.as_deref(), config.server.federation_address.as_deref()),
        pool,
        secret: ClusterSecret::new(secret).ok_or(StartError::ClusterSecret)?,
        body_limits: BodyLimits { upload: config.limits.max_upload_bytes },
        body_idle: Duration::from_secs(config.limits.body_idle_seconds),
        hold: Duration::from_secs(config.upstream.hold_seconds),
        metrics,
        chance: Chance::seeded(seed),
        exports_spans,
    })
}

fn application<P: ProxyHttp>(inner: P) -> HttpProxy<P> {
    let conf = ServerConf {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        upstream_keepalive_pool_size: UPSTREAM_KEEPALIVE,
        max_retries: MAX_ATTEMPTS,
        ..ServerConf::default()
    };
    let mut application = HttpProxy::new(inner, Arc::new(conf));
    application.handle_init_modules();
    application.h2_options = Some(h2_options());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(H2_IDLE);
    application.server_options = Some(options);
    application
}

/// Pingora's bounds on headers and streams, with windows that do not throttle uploads.
fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    options.initial_window_size(256 * 1024);
    options.initial_connection_window_size(1024 * 1024);
    options
}

fn accept_on<A: ServerApp + Send + Sync + 'static>(
    listeners: Vec<TcpListener>,
    name: &'static str,
    app: &Arc<A>,
    tls: Option<&Arc<Acceptor>>,
    metrics: &Metrics,
    shared: &Shared,
    accepting: &TaskTracker,
) {
    let endpoint = Arc::new(Endpoint {
        app: app.clone(),
        tls: tls.cloned(),
        metrics: metrics.listener(name),
        shared: shared.clone(),
    });
    for listener in listeners {
        accepting.spawn(endpoint.clone().accept(listener));
    }
}

/// Lets requests in flight finish; what is left at the end of the time is cut.
async fn drain(shared: &Shared, within: Duration) {
    shared.connections.close();
    if tokio::time::timeout(within, shared.connections.wait()).await.is_err() {
        warn!(connections = shared.connections.len(), "cut the connections that did not end in time");
        shared.cut.cancel();
        shared.connections.wait().await;
    }
}
