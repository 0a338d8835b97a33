//! Tells requests to come again later when their shard, or the edge itself, has too much to do.

use std::time::Duration;

use pingora_http::RequestHeader;
use prometheus_client::metrics::counter::Counter;

use crate::admission::overload::{Load, Urgency, is_long_poll};
use crate::exchange::Exchange;
use crate::loop_lag::LoopLag;
use crate::metrics::Metrics;
use crate::upstream::pool::Pool;

/// Sees how much there is to do, and counts what was refused.
#[derive(Debug)]
pub(crate) struct Shedding {
    lag: LoopLag,
    refused: [Counter; Urgency::ALL.len()],
}

impl Shedding {
    pub(crate) fn new(lag: LoopLag, metrics: &Metrics) -> Self {
        Self { lag, refused: Urgency::ALL.map(|urgency| metrics.shed(urgency.as_str())) }
    }

    /// After how many seconds the request may come again, if it has to. Notes whether it is work.
    pub(crate) fn refuses(&self, pool: &Pool, request: &RequestHeader, exchange: &mut Exchange) -> Option<u64> {
        let (path, query) = (request.uri.path(), request.uri.query());
        exchange.is_work = !is_long_poll(path, query);
        let config = &exchange.live.config.overload;
        let load = Load {
            in_flight: pool.find(exchange.key).map_or_else(|| pool.waiting(), |shard| shard.working()),
            most_in_flight: config.requests_per_shard,
            lag: self.lag.now(),
            most_lag: Duration::from_millis(config.lag_ms),
        };
        let urgency = Urgency::of(exchange.class, path, query);
        let seconds = load.refuses(urgency, config.retry_after_seconds)?;
        if let Some(refused) = self.refused.get(urgency as usize) {
            refused.inc();
        }
        Some(seconds)
    }
}
