//! Counts requests and measures how long they take, by route.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

/// What is counted of HTTP. Clones count together.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
}

impl HttpMetrics {
    /// Makes the series known to `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        /// From half a millisecond to 65 seconds, which covers the longest long polls that are usual.
        fn buckets() -> Histogram {
            Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
        }
        let metrics = Self { requests: Family::default(), durations: Family::new_with_constructor(buckets) };
        registry.register("gatehouse_shard_requests", "Requests that were answered", metrics.requests.clone());
        registry.register(
            "gatehouse_shard_request_duration_seconds",
            "Time from a request's header to the header of its answer",
            metrics.durations.clone(),
        );
        metrics
    }

    /// Counts one answer. `route` is the route's pattern, never the path that was asked for.
    pub(super) fn answered(&self, method: &http::Method, route: &str, status: http::StatusCode, took: Duration) {
        // Any client can invent a method, and each would be a series of its own.
        let known = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD"].contains(&method.as_str());
        let method = if known { method.as_str() } else { "other" }.to_owned();
        let route = route.to_owned();
        self.durations
            .get_or_create(&RouteLabels { method: method.clone(), route: route.clone() })
            .observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
    }
}
