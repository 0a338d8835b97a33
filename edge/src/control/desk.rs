//! Answers what the operator's commands ask: one line a subject.

use std::sync::Arc;

use gatehouse_shared::net::ListenAddr;
use tokio::time::Instant;

use super::protocol::{Answer, Request, ShardReport};
use crate::config::chain_of;
use crate::metrics::Metrics;
use crate::reload::{ReloadError, Reloader};
use crate::status::Status;
use crate::upstream::pool::Pool;

/// What the answers are made from.
pub(crate) struct Desk {
    pub(crate) reloader: Arc<Reloader>,
    pub(crate) pool: Arc<Pool>,
    /// The shards that this edge starts.
    pub(crate) supervised: Vec<ListenAddr>,
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
        let report = |shard: &Arc<crate::upstream::shard::Shard>| {
            let name = shard.address().to_string();
            let starts = self.metrics.shard_starts(&name).get();
            let supervised = self.supervised.contains(shard.address());
            ShardReport { shard: name, healthy: shard.is_healthy(), supervised, starts }
        };
        self.pool.shards().iter().map(report).collect()
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
