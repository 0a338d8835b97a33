//! Puts the edge together from its configuration, runs it, and takes it down in order.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::clock::Clock;
use gatehouse_shared::metrics as exposition;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access_log::{AccessLog, AccessLogError, AccessRecorder, Destination};
use crate::bans::{self, Bans, OpenError};
use crate::certificate_metrics::CertificateMetrics;
use crate::config::{EdgeConfig, chain_of};
use crate::control::desk::Desk;
use crate::control::socket::{ControlError, ControlSocket};
use crate::ending::Ending;
use crate::listener::endpoint::{BindError, Ends, Shared};
use crate::listener::tickets::Tickets;
use crate::live::{Live, LiveError};
use crate::loop_lag::LoopLag;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::shedding::Shedding;
use crate::status::routes::Routes;
use crate::status::traffic::Traffic;
use crate::status::{self, Source};
use crate::supply::{Supply, SupplyError};
use crate::systemd;
use crate::upgrade::Offered;
use crate::upgrade::predecessor::Predecessor;
use crate::upgrade::successor::{Invocation, Successor};
use crate::upstream::health;
use crate::upstream::pool::Pool;
use crate::upstream::retry_budget::RetryBudget;
use crate::upstream::shard::{ShardPolicy, UnusableAddress};
use crate::upstream::shard_process::Lifeline;
use crate::upstream::shard_tls::{ShardTls, ShardTlsError};
use crate::upstream::supervise::{SuperviseError, Supervised, Supervisor};
use crate::workers::{Turns, Workers};

mod application;
mod listeners;
mod services;

pub use listeners::Listening;

use listeners::{Binder, Listeners};
use services::{Parts, Services};

/// Listeners, files, certificates in the making, the control socket, health checks.
const OWN_DESCRIPTORS: usize = 128;
/// How long a restarted shard may take from its start until it serves.
const RESTART_WITHIN: Duration = Duration::from_secs(60);

/// Why the edge does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificates(#[from] SupplyError),
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
    /// No shard can be supervised.
    #[error(transparent)]
    Supervise(#[from] SuperviseError),
    /// Something that the configuration asks for cannot be made.
    #[error(transparent)]
    Live(#[from] LiveError),
    /// The operator's commands cannot be received.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Bans cannot be kept.
    #[error(transparent)]
    Bans(#[from] OpenError),
    /// The process that is to be replaced does not say what it has.
    #[error("cannot take over from the old process")]
    Inherit(#[source] io::Error),
    /// The access log cannot be opened.
    #[error(transparent)]
    AccessLog(#[from] AccessLogError),
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
}

/// What the edge needs from its process.
pub struct Environment {
    /// The configuration's file, which a reload reads again.
    pub config_file: PathBuf,
    /// How the process was started, for an upgrade.
    pub invocation: Invocation,
    /// The process that this one is to replace.
    pub predecessor: Option<Predecessor>,
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
    let Environment { config_file, invocation, predecessor, clock, seed, exports_spans, stop } = environment;
    let config = Arc::new(config);
    let mut registry = Registry::default();
    let supply = Supply::new(&config, CertificateMetrics::new(&mut registry), clock.clone(), seed)?;
    let live = Live::prepare(config.clone())?.into_current();
    let metrics = Arc::new(Metrics::new(&mut registry));
    let access_log = start_access_log(&config, &metrics, &clock)?;
    let supervisor = prepare_supervisor(&config)?;
    let pool = Arc::new(make_pool(&config, supervisor.as_deref(), &metrics)?);
    let stop_background = CancellationToken::new();
    let background = TaskTracker::new();
    let tasks = (&background, &stop_background);
    let bans = bans::open(&config.admission, live.clone(), clock.clone(), metrics.clone(), tasks)?;
    let inherited = predecessor.as_ref().map(Predecessor::inherit).transpose().map_err(StartError::Inherit)?;
    let mut binder = Binder::new(inherited.unwrap_or_default());
    let mut listeners = Listeners::bind(&config, &mut binder)?;
    let control = bind_control(&config, &mut binder)?;
    let listening = listeners.describe(supply.ca());
    let routes = Arc::new(Routes::new(Instant::now()));
    let lag = LoopLag::new();
    let parts = Parts {
        live: live.clone(),
        pool: pool.clone(),
        retries: Arc::new(RetryBudget::new(config.upstream.retry_percent, config.upstream.retry_burst)),
        overload: Arc::new(Shedding::new(lag.clone(), &metrics)),
        bans: bans.clone(),
        kept: Arc::default(),
        metrics: metrics.clone(),
        access_log: access_log.clone(),
        routes: routes.clone(),
        exports_spans,
    };
    let tickets = Arc::new(Tickets::new()?);
    let services = Services::new(&config, &parts, &supply, &listening, tickets.clone(), seed)?;
    let hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let workers = Workers::start().map_err(StartError::Thread)?;

    // From here on nothing can fail any more.
    let running = match &predecessor {
        Some(predecessor) => predecessor.take_over(&bans).await,
        None => HashMap::new(),
    };
    let older = predecessor.map(|older| background.spawn(older.share_bans(bans.clone(), stop_background.clone())));
    let serving = stop.child_token();
    let replaced = CancellationToken::new();
    let supervised = start_shards(&config, &pool, supervisor, running, &metrics, &background, &stop_background);
    let reloader = Arc::new(Reloader {
        file: config_file,
        started_with: config.clone(),
        live: live.clone(),
        supply: supply.clone(),
        access_log: access_log.log.clone(),
        supervised: supervised.clone(),
        turn: tokio::sync::Mutex::default(),
    });
    background.spawn(reloader.clone().on_hangup(hangup, stop_background.clone()));
    let successor = Successor {
        invocation,
        sockets: Mutex::new(binder.finish()),
        supervised,
        serving: serving.clone(),
        replaced: replaced.clone(),
        bans: bans.clone(),
        tasks: background.clone(),
        stop: stop_background.clone(),
        turn: tokio::sync::Mutex::default(),
    };
    let restart_within =
        RESTART_WITHIN + Duration::from_secs(config.supervise.as_ref().map_or(0, |own| own.stop_seconds));
    let traffic = Arc::new(Traffic::default());
    background.spawn(traffic.clone().watch(metrics.clone(), serving.clone()));
    let source = Arc::new(Source {
        clock: clock.clone(),
        started: Instant::now(),
        live: live.clone(),
        pool: pool.clone(),
        supervised: successor.supervised.clone(),
        bans: bans.clone(),
        metrics: metrics.clone(),
        traffic,
        routes,
        reading: Arc::default(),
    });
    let desk = Arc::new(Desk { reloader, source: source.clone(), bans: bans.clone(), successor, restart_within });
    if let Some(control) = control {
        background.spawn(control.serve(desk.clone(), serving.clone(), replaced.clone()));
    }
    workers.spawn_on_each(&background, || lag.clone().measure(stop_background.clone()));
    background.spawn(tickets.change_keys(stop_background.clone()));
    if let Some(listener) = listeners.exposition.take() {
        let healthy: exposition::Healthy = Arc::new(move || pool.shards().iter().any(|shard| shard.is_healthy()));
        let pages = status::page::pages(source);
        background.spawn(exposition::serve_with(listener, Arc::new(registry), healthy, pages, serving.clone()));
    }
    let (say_stopping, stopping) = watch::channel(false);
    let shared = make_shared(&config, bans, clock, workers.turns(), serving.clone(), stopping);
    let accepting = TaskTracker::new();
    services.accept(listeners, &supply, &metrics, &shared, &accepting);
    accepting.close();
    // After the listeners: an authority looks at them.
    supply.start();
    announce(&listening);
    systemd::notify("READY=1");

    serving.cancelled().await;
    // The addresses are given up, unless another process has them now.
    desk.successor.sockets.lock().clear();
    // Connections finish what they began and take no more. Receivers live in `shared`, so the word reaches them.
    shared.ends.leaving.end();
    let _ = say_stopping.send(true);
    supply.stop().await;
    accepting.wait().await;
    if replaced.is_cancelled() {
        // Idle connections stay until they ask again or go: to close one over a request that is on its way would fail it.
        let longest = Duration::from_secs(live.load().config.limits.upgrade_drain_seconds);
        drain(&shared, older, longest, &stop).await;
    } else {
        systemd::notify("STOPPING=1");
    }
    services.cleanup().await;
    finish(&shared, Duration::from_secs(live.load().config.limits.drain_seconds)).await;
    stop_background.cancel();
    background.close();
    background.wait().await;
    drop(workers);
    access_log.log.close();
    info!("stopped");
    Ok(())
}

/// The control socket. Only one that the configuration names is worth failing for.
fn bind_control(config: &EdgeConfig, binder: &mut Binder) -> Result<Option<ControlSocket>, ControlError> {
    let path = config.control.socket();
    let offered = Offered { key: "control.socket".to_owned(), address: path.display().to_string() };
    let bound = match binder.take(&offered) {
        Some(socket) => ControlSocket::inherited(socket, path),
        None => ControlSocket::bind(path),
    };
    let bound = bound.and_then(|socket| socket.remember(|listener| binder.remember(offered, listener)));
    match bound {
        Err(error) if config.control.socket.is_none() => {
            warn!(error = chain_of(&error), "runs without a control socket");
            Ok(None)
        }
        bound => bound.map(Some),
    }
}

/// For how many connections from outside there is room.
fn places(wanted: usize) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|most| usize::try_from(most).ok());
    let room = room_among(descriptors.unwrap_or(usize::MAX));
    if room < wanted {
        info!(
            limits.max_connections = wanted,
            descriptors, room, "takes fewer connections, because the process may open no more files (LimitNOFILE)"
        );
    }
    wanted.min(room)
}

/// Of so many descriptors, some are for what the edge does itself and for its way to the shards: were all of them taken by
/// idle clients, no request could be answered.
fn room_among(descriptors: usize) -> usize {
    (descriptors - descriptors / 8).saturating_sub(OWN_DESCRIPTORS).max(1)
}

fn make_shared(
    config: &EdgeConfig,
    bans: Arc<Bans>,
    clock: Arc<dyn Clock>,
    turns: Arc<Turns>,
    stop: CancellationToken,
    stopping: watch::Receiver<bool>,
) -> Shared {
    let limits = &config.limits;
    Shared {
        clock,
        bans,
        proxy_protocol_from: Arc::new(config.listen.proxy_protocol_from.iter().copied().collect()),
        places: Arc::new(Semaphore::new(places(limits.max_connections).min(Semaphore::MAX_PERMITS))),
        handshake_within: Duration::from_secs(limits.handshake_seconds),
        header_within: Duration::from_secs(limits.header_seconds),
        stop,
        ends: Ends { leaving: Ending::default(), stopping, parting: Ending::default(), cut: Ending::default() },
        connections: TaskTracker::new(),
        turns,
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

/// Watches all shards and runs the supervised ones, beginning with those that are `running` already.
fn start_shards(
    config: &EdgeConfig,
    pool: &Arc<Pool>,
    supervisor: Option<Arc<Supervisor>>,
    mut running: HashMap<String, Lifeline>,
    metrics: &Metrics,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Vec<Supervised> {
    let interval = Duration::from_millis(config.upstream.health_interval_ms);
    let mut supervised = Vec::new();
    for shard in pool.shards() {
        tasks.spawn(health::watch(pool.clone(), shard.clone(), interval, stop.clone()));
        if let Some(supervisor) = supervisor.as_ref().filter(|own| own.addresses().contains(shard.address())) {
            let name = shard.address().to_string();
            let (starts, taken_over) = (metrics.shard_starts(&name), running.remove(&name));
            let (orders, ordered) = mpsc::channel(1);
            tasks.spawn(supervisor.clone().run(shard.clone(), starts, ordered, taken_over, stop.clone()));
            supervised.push(Supervised { shard: shard.clone(), orders });
        }
    }
    supervised
}

fn start_access_log(
    config: &EdgeConfig,
    metrics: &Metrics,
    clock: &Arc<dyn Clock>,
) -> Result<AccessRecorder, StartError> {
    let destination = Destination::open(config.access_log.as_ref())?;
    let log = AccessLog::start(destination, metrics.access_log_dropped.clone()).map_err(StartError::Thread)?;
    Ok(AccessRecorder { log: Arc::new(log), clock: clock.clone() })
}

/// Lets connections end by themselves, for so long at most or until the process is told to stop. An `older` process that
/// has not finished either hears through this one of the next one's bans.
async fn drain(shared: &Shared, older: Option<JoinHandle<()>>, within: Duration, stop: &CancellationToken) {
    shared.connections.close();
    info!(connections = shared.connections.len(), "finishing what was begun");
    let finished = async {
        shared.connections.wait().await;
        if let Some(older) = older {
            // A task that panicked hears of nothing more either.
            let _ = older.await;
        }
    };
    tokio::select! {
        () = finished => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(within) => {}
    }
}

/// Lets requests in flight finish; what is left at the end of the time is cut.
async fn finish(shared: &Shared, within: Duration) {
    shared.connections.close();
    shared.ends.parting.end();
    if tokio::time::timeout(within, shared.connections.wait()).await.is_err() {
        warn!(connections = shared.connections.len(), "cut the connections that did not end in time");
        shared.ends.cut.end();
        shared.connections.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_all_descriptors() {
        assert_eq!(room_among(1_024), 768);
        assert_eq!(room_among(20_000), 17_372);
        assert_eq!(room_among(64), 1);
        assert!(room_among(usize::MAX) > usize::MAX / 2);
    }
}
