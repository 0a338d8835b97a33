//! Answers what the operator's commands ask: one line a subject.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::protocol::{Answer, Request, ShardReport};
use crate::config::chain_of;
use crate::metrics::Metrics;
use crate::reload::{ReloadError, Reloader};
use crate::status::Status;
use crate::upgrade::successor::Successor;
use crate::upstream::pool::{Pool, Shard};
use crate::upstream::supervise::Supervised;

/// What the answers are made from.
pub(crate) struct Desk {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) successor: Successor,
    /// How long a restarted shard may take until it serves.
    pub(crate) restart_within: Duration,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
}

impl Desk {
    /// Does what is asked and says what came of it.
    pub(crate) async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::done(&self.status()),
            Request::Reload => self.reload().await,
            Request::Shards => Answer::done(&self.shards()),
            Request::RestartShards { only } => self.restart_shards(only.as_deref()).await,
            Request::Upgrade => self.upgrade().await,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            server_name: self.reloader.live.load().config.server.name.clone(),
            shards: self.shards(),
        }
    }

    fn shards(&self) -> Vec<ShardReport> {
        let report = |shard: &Arc<Shard>| {
            let name = shard.address().to_string();
            let starts = self.metrics.shard_starts(&name).get();
            let supervised = self.successor.supervised.iter().any(|own| Arc::ptr_eq(&own.shard, shard));
            ShardReport { shard: name, healthy: shard.is_healthy(), in_flight: shard.in_flight(), supervised, starts }
        };
        self.pool.shards().iter().map(report).collect()
    }

    /// One after the other: the next one stops when the one before serves again.
    async fn restart_shards(&self, only: Option<&str>) -> Answer {
        let supervised = &self.successor.supervised;
        let meant = |own: &&Supervised| only.is_none_or(|only| own.shard.address().to_string() == only);
        let meant: Vec<&Supervised> = supervised.iter().filter(meant).collect();
        if meant.is_empty() {
            return Answer::refused("this edge supervises no such shard; `gatehouse shards list` shows them all");
        }
        for (done, own) in meant.iter().enumerate() {
            if !own.restart(self.restart_within).await {
                let (shard, left) = (own.shard.address(), meant.len() - done - 1);
                let seconds = self.restart_within.as_secs();
                return Answer::refused(format!(
                    "{shard} does not serve {seconds} s after it was stopped; {left} other shards were left alone"
                ));
            }
        }
        Answer::done(&self.shards())
    }

    async fn upgrade(&self) -> Answer {
        match self.successor.upgrade().await {
            Ok(upgraded) => Answer::done(&upgraded),
            Err(error) => Answer::refused(chain_of(&error)),
        }
    }

    async fn reload(&self) -> Answer {
        match self.reloader.reload().await {
            Ok(reloaded) => Answer::done(&reloaded),
            Err(error) => {
                let details = match &error {
                    ReloadError::Config(config) => serde_json::json!({ "mistakes": config.mistakes() }),
                    _ => serde_json::Value::Null,
                };
                let message = format!("nothing was changed:\n{}", chain_of(&error));
                Answer::Refused(super::protocol::Refusal { message, details })
            }
        }
    }
}
