//! Puts the edge together from its configuration, runs it, and takes it down in order.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use gatehouse_shared::config::Secret;
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::limits::MAX_REQUEST_HEADER_BYTES;
use gatehouse_shared::metrics as exposition;
use pingora_core::apps::{HttpServerOptions, ServerApp};
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProxyHttp};
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admission::request_class::BodyLimits;
use crate::chance::Chance;
use crate::config::{EdgeConfig, LimitsConfig};
use crate::front::{Front, UnusableRoute};
use crate::listener::certificate_source::CertificateSource;
use crate::listener::certificates::{CertificateError, Certificates};
use crate::listener::development_ca::DevelopmentCaError;
use crate::listener::endpoint::{BindError, Endpoint, Shared, bind};
use crate::listener::tls;
use crate::loop_lag::LoopLag;
use crate::metrics::{Connections, Metrics};
use crate::proxy::Proxy;
use crate::redirect::RedirectToHttps;
use crate::routing::listener_role::Role;
use crate::shedding::Shedding;
use crate::upstream::health;
use crate::upstream::pool::Pool;
use crate::upstream::retry_budget::RetryBudget;
use crate::upstream::shard::{ShardPolicy, UnusableAddress};
use crate::upstream::shard_tls::{ShardTls, ShardTlsError};
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
    /// TLS towards shards cannot be set up.
    #[error(transparent)]
    ShardTls(#[from] ShardTlsError),
    /// A route cannot be used.
    #[error(transparent)]
    Route(#[from] UnusableRoute),
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
    pub ca: Option<PathBuf>,
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
    let source = CertificateSource::prepare(config.tls.clone(), &config.server.name, clock.as_ref())?;
    let certificates = Arc::new(Certificates::default());
    certificates.replace(&source.load()?);
    let mut registry = Registry::default();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let supervisor = prepare_supervisor(&config)?;
    let pool = Arc::new(make_pool(&config, supervisor.as_deref(), &metrics)?);
    let listeners = Listeners::bind(&config)?;
    let listening = listeners.describe(source.ca());
    let lag = LoopLag::default();
    let parts = Parts {
        front: Arc::new(Front::new(&config)?),
        pool: pool.clone(),
        retries: Arc::new(RetryBudget::new(config.upstream.retry_percent, config.upstream.retry_burst)),
        overload: Arc::new(Shedding::new(&config.overload, lag.clone(), &metrics)),
        metrics: metrics.clone(),
        exports_spans,
    };
    let proxy_for = |role, seed| make_proxy(&config, &parts, role, seed).map(application);
    let proxy = Arc::new(proxy_for(Role::Everything, seed)?);
    let for_servers = Arc::new(proxy_for(Role::Federation, seed.wrapping_add(1))?);
    let redirect = Arc::new(application(RedirectToHttps { port: public_https_port(&config, &listening) }));
    let acceptor = Arc::new(Acceptor::from_server_config(tls::server_config(certificates.clone())?));
    let stop_shards = CancellationToken::new();
    let reload = source.reload_on_hangup(certificates, stop_shards.clone()).map_err(StartError::Signals)?;

    // From here on nothing can fail any more.
    let shards = TaskTracker::new();
    shards.spawn(reload);
    shards.spawn(lag.measure(stop_shards.clone()));
    start_shards(&config, &pool, supervisor, &metrics, &shards, &stop_shards);
    let Listeners { https, federation, http, exposition } = listeners;
    if let Some(listener) = exposition {
        let healthy: exposition::Healthy = Arc::new(move || pool.shards().iter().any(|shard| shard.is_healthy()));
        shards.spawn(exposition::serve(listener, Arc::new(registry), healthy, stop_shards.clone()));
    }
    let (say_stopping, stopping) = watch::channel(false);
    let shared = make_shared(&config.limits, clock, stop.clone(), stopping);
    let accepting = TaskTracker::new();
    let endpoint = |name| metrics.listener(name);
    accept_on(https, &proxy, Some(&acceptor), endpoint("https"), &shared, &accepting);
    accept_on(federation, &for_servers, Some(&acceptor), endpoint("federation"), &shared, &accepting);
    accept_on(http, &redirect, None, endpoint("http"), &shared, &accepting);
    accepting.close();
    announce(&listening);

    stop.cancelled().await;
    // Receivers live in `shared`, so this reaches them; connections then finish what they began and take no more.
    let _ = say_stopping.send(true);
    accepting.wait().await;
    proxy.cleanup().await;
    for_servers.cleanup().await;
    redirect.cleanup().await;
    drain(&shared, Duration::from_secs(config.limits.drain_seconds)).await;
    stop_shards.cancel();
    shards.close();
    shards.wait().await;
    info!("stopped");
    Ok(())
}

/// Everything that the edge listens on, bound before anything is started.
struct Listeners {
    https: Vec<TcpListener>,
    federation: Vec<TcpListener>,
    http: Vec<TcpListener>,
    exposition: Option<TcpListener>,
}

impl Listeners {
    fn bind(config: &EdgeConfig) -> Result<Self, BindError> {
        let all = |addresses: &[SocketAddr], key| -> Result<Vec<_>, _> {
            addresses.iter().map(|address| bind(*address, key)).collect()
        };
        Ok(Self {
            https: all(&config.listen.https, "listen.https")?,
            federation: all(&config.listen.federation, "listen.federation")?,
            http: all(&config.listen.http, "listen.http")?,
            exposition: config
                .telemetry
                .metrics_address
                .map(|address| bind(address, "telemetry.metrics_address"))
                .transpose()?,
        })
    }

    fn describe(&self, ca: Option<PathBuf>) -> Listening {
        let addresses = |listeners: &[TcpListener]| listeners.iter().filter_map(|one| one.local_addr().ok()).collect();
        Listening {
            https: addresses(&self.https),
            federation: addresses(&self.federation),
            http: addresses(&self.http),
            metrics: self.exposition.as_ref().and_then(|listener| listener.local_addr().ok()),
            ca,
        }
    }
}

fn make_shared(
    limits: &LimitsConfig,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    stopping: watch::Receiver<bool>,
) -> Shared {
    Shared {
        clock,
        places: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
        handshake_within: Duration::from_secs(limits.handshake_seconds),
        header_within: Duration::from_secs(limits.header_seconds),
        stop,
        cut: CancellationToken::new(),
        stopping,
        connections: TaskTracker::new(),
    }
}

fn prepare_supervisor(config: &EdgeConfig) -> Result<Option<Arc<Supervisor>>, SuperviseError> {
    let prepare = |section| Supervisor::prepare(section, config.upstream.cluster_secret.clone()).map(Arc::new);
    config.supervise.as_ref().map(prepare).transpose()
}

fn make_pool(config: &EdgeConfig, supervisor: Option<&Supervisor>, metrics: &Metrics) -> Result<Pool, StartError> {
    let own = supervisor.map(Supervisor::addresses).unwrap_or_default();
    let addresses = own.iter().chain(&config.upstream.shards).cloned();
    let upstream = &config.upstream;
    let policy = ShardPolicy {
        connect_timeout: Duration::from_millis(upstream.connect_timeout_ms),
        slow_start: Duration::from_secs(upstream.slow_start_seconds),
        failures: upstream.failures,
        tls: upstream.tls.as_ref().map(ShardTls::new).transpose()?.map(Arc::new),
    };
    Ok(Pool::new(addresses, &policy, |shard| metrics.shard_healthy(shard))?)
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
        tasks.spawn(health::watch(pool.clone(), shard.clone(), interval, stop.clone()));
        if let Some(supervisor) = supervisor.as_ref().filter(|own| own.addresses().contains(shard.address())) {
            let starts = metrics.shard_starts(&shard.address().to_string());
            tasks.spawn(supervisor.clone().run(shard.clone(), starts, stop.clone()));
        }
    }
}

/// The port that clients reach: of the base URL where there is one, or else of the first address.
fn public_https_port(config: &EdgeConfig, listening: &Listening) -> u16 {
    let published = config.server.base_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
    match published {
        Some(url) => url.port_u16().unwrap_or(443),
        None => listening.https.first().map_or(443, SocketAddr::port),
    }
}

/// What the proxies of all listeners share.
struct Parts {
    front: Arc<Front>,
    pool: Arc<Pool>,
    retries: Arc<RetryBudget>,
    overload: Arc<Shedding>,
    metrics: Arc<Metrics>,
    exports_spans: bool,
}

fn make_proxy(config: &EdgeConfig, parts: &Parts, role: Role, seed: u64) -> Result<Proxy, StartError> {
    let secret: &Secret = &config.upstream.cluster_secret;
    Ok(Proxy {
        role,
        front: parts.front.clone(),
        pool: parts.pool.clone(),
        retries: parts.retries.clone(),
        overload: parts.overload.clone(),
        secret: ClusterSecret::new(secret).ok_or(StartError::ClusterSecret)?,
        body_limits: BodyLimits { upload: config.limits.max_upload_bytes },
        body_idle: Duration::from_secs(config.limits.body_idle_seconds),
        hold: Duration::from_secs(config.upstream.hold_seconds),
        metrics: parts.metrics.clone(),
        chance: Chance::seeded(seed),
        exports_spans: parts.exports_spans,
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

/// Pingora's bound on streams, our own on headers, and windows that do not throttle uploads.
fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    // HTTP/2 counts 32 bytes for each field beside its name and value (RFC 9113, section 10.5.1).
    options.max_header_list_size(2 * MAX_REQUEST_HEADER_BYTES as u32);
    options.initial_window_size(256 * 1024);
    options.initial_connection_window_size(1024 * 1024);
    options
}

fn accept_on<A: ServerApp + Send + Sync + 'static>(
    listeners: Vec<TcpListener>,
    app: &Arc<A>,
    tls: Option<&Arc<Acceptor>>,
    metrics: Connections,
    shared: &Shared,
    accepting: &TaskTracker,
) {
    let endpoint = Arc::new(Endpoint { app: app.clone(), tls: tls.cloned(), metrics, shared: shared.clone() });
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
