//! What a running edge says about itself, to a terminal, a program and the status page alike.

pub(crate) mod page;
pub(crate) mod routes;
pub(crate) mod traffic;

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use gatehouse_shared::clock::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::bans::Bans;
use crate::certs::{self, Listed};
use crate::control::bans::{self, BanReport};
use crate::control::protocol::ShardReport;
use crate::live::Current;
use crate::metrics::Metrics;
use crate::upstream::pool::Pool;
use crate::upstream::shard::Shard;
use crate::upstream::supervise::Supervised;
use routes::{Routes, SlowRoute};
use traffic::{ClassTraffic, Traffic};

/// The edge at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The program's version.
    pub(crate) version: String,
    /// The process.
    pub(crate) process_id: u32,
    /// Seconds since it began to serve.
    pub(crate) uptime_seconds: u64,
    /// The time of day, in seconds since the Unix epoch.
    pub(crate) now: u64,
    /// The server's name.
    pub(crate) server_name: String,
    /// Connections that are open.
    pub(crate) connections: u64,
    /// The seconds that one number of a class's history stands for.
    pub(crate) history_step_seconds: u64,
    /// Classes of requests that there were lately.
    pub(crate) traffic: Vec<ClassTraffic>,
    /// All shards.
    pub(crate) shards: Vec<ShardReport>,
    /// Certificates in use and expected.
    pub(crate) certificates: Vec<CertificateStatus>,
    /// Who is kept out.
    pub(crate) bans: Vec<BanReport>,
    /// The slowest first.
    pub(crate) slow_routes: Vec<SlowRoute>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertificateStatus {
    pub(crate) names: Vec<String>,
    /// Where it comes from.
    pub(crate) source: String,
    /// When it expires, in seconds since the Unix epoch.
    pub(crate) expires: Option<u64>,
    /// What is wrong with it.
    pub(crate) problem: Option<String>,
}

/// Where all of it is found.
pub(crate) struct Source {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Instant,
    pub(crate) live: Current,
    pub(crate) pool: Arc<Pool>,
    /// The shards that this edge starts.
    pub(crate) supervised: Vec<Supervised>,
    pub(crate) bans: Arc<Bans>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) routes: Arc<Routes>,
    /// Held by whoever reads the files of certificates: where a file system hangs, one thread hangs with it.
    pub(crate) reading: Arc<Mutex<()>>,
}

impl Source {
    /// How it is now.
    pub(crate) async fn status(&self) -> Status {
        let certificates = self.certificates().await;
        let live = self.live.load();
        let since_epoch = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            now: since_epoch.as_secs(),
            server_name: live.config.server.name.clone(),
            connections: self.metrics.open_connections(),
            history_step_seconds: traffic::STEP.as_secs(),
            traffic: self.traffic.report(),
            shards: self.shards(),
            certificates,
            bans: bans::list(&self.bans),
            slow_routes: self.routes.slowest(),
        }
    }

    async fn certificates(&self) -> Vec<CertificateStatus> {
        let turn = self.reading.clone().lock_owned().await;
        let (config, clock) = (self.live.load().config.clone(), self.clock.clone());
        let read = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            certs::list(&config, clock.as_ref()).iter().map(Listed::status).collect()
        });
        // It fails only when the runtime is taken down, and nobody is there to be told then.
        read.await.unwrap_or_default()
    }

    /// All shards, as the edge sees them.
    pub(crate) fn shards(&self) -> Vec<ShardReport> {
        let report = |shard: &Arc<Shard>| {
            let name = shard.address().to_string();
            let starts = self.metrics.shard_starts(&name).get();
            let supervised = self.supervised.iter().any(|own| Arc::ptr_eq(&own.shard, shard));
            ShardReport { shard: name, healthy: shard.is_healthy(), in_flight: shard.in_flight(), supervised, starts }
        };
        self.pool.shards().iter().map(report).collect()
    }
}
