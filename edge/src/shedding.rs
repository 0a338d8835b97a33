//! Tells requests to come again later when their shard, or the edge itself, has too much to do.

use std::time::Duration;

use pingora_http::RequestHeader;
use prometheus_client::metrics::counter::Counter;

use crate::admission::overload::{Load, Urgency, is_long_poll};
use crate::config::OverloadConfig;
use crate::exchange::Exchange;
use crate::loop_lag::LoopLag;
use crate::metrics::Metrics;
use crate::upstream::pool::Pool;

/// How much is borne, and what was refused.
#[derive(Debug)]
pub(crate) struct Shedding {
    most_in_flight: usize,
    most_lag: Duration,
    pub(crate) retry_after_seconds: u64,
    lag: LoopLag,
    refused: [Counter; Urgency::ALL.len()],
}

impl Shedding {
    pub(crate) fn new(config: &OverloadConfig, lag: LoopLag, metrics: &Metrics) -> Self {
        Self {
            most_in_flight: config.requests_per_shard,
            most_lag: Duration::from_millis(config.lag_ms),
            retry_after_seconds: config.retry_after_seconds,
            lag,
            refused: Urgency::ALL.map(|urgency| metrics.shed(urgency.as_str())),
        }
    }

    /// After how many seconds the request may come again, if it has to. Notes whether it is work.
    pub(crate) fn refuses(&self, pool: &Pool, request: &RequestHeader, exchange: &mut Exchange) -> Option<u64> {
        let (path, query) = (request.uri.path(), request.uri.query());
        exchange.is_work = !is_long_poll(path, query);
        let load = Load {
            in_flight: pool.find(exchange.key).map_or_else(|| pool.waiting(), |shard| shard.in_flight()),
            most_in_flight: self.most_in_flight,
            lag: self.lag.now(),
            most_lag: self.most_lag,
        };
        let urgency = Urgency::of(exchange.class, path, query);
        let seconds = load.refuses(urgency, self.retry_after_seconds)?;
        if let Some(refused) = self.refused.get(urgency as usize) {
            refused.inc();
        }
        Some(seconds)
    }
}
