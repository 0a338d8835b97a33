//! What the edge counts. Every series of a request is looked up once, at the start.

use std::time::Duration;

use gatehouse_shared::contract::Verdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::admission::Refused;
use crate::admission::request_class::RequestClass;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    class: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabels {
    shard: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShedLabels {
    urgency: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabels {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Jails are named by the policy, so there are few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JailLabels {
    jail: String,
}

const STATUSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// What was answered of one class, or the difference between two of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// All of it.
    pub(crate) answered: u64,
    /// 4xx.
    pub(crate) refused: u64,
    /// 5xx and nothing at all.
    pub(crate) failed: u64,
}

impl Totals {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
        }
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            answered: self.answered.saturating_sub(before.answered),
            refused: self.refused.saturating_sub(before.refused),
            failed: self.failed.saturating_sub(before.failed),
        }
    }
}

/// Everything that is counted across the edge.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: [[Counter; STATUSES.len()]; RequestClass::ALL.len()],
    durations: [Histogram; RequestClass::ALL.len()],
    /// Requests that waited because no shard was healthy.
    pub(crate) held: Counter,
    /// Attempts after the first.
    pub(crate) retries: Counter,
    /// Requests answered with what a shard said before.
    pub(crate) from_memory: Counter,
    connections: [Family<ListenerLabels, Counter>; 4],
    open_connections: Family<ListenerLabels, Gauge>,
    shards_healthy: Family<ShardLabels, Gauge>,
    shard_starts: Family<ShardLabels, Counter>,
    verdicts: Family<VerdictLabels, Counter>,
    refusals: Family<ReasonLabels, Counter>,
    imposed: Family<JailLabels, Counter>,
    /// Bans in force.
    pub(crate) bans: Gauge,
    /// Lines of the access log that were not written.
    pub(crate) access_log_dropped: Counter,
    shed: Family<ShedLabels, Counter>,
}

/// What one listener counts.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pub(crate) opened: Counter,
    pub(crate) refused: Counter,
    pub(crate) banned: Counter,
    pub(crate) failed_handshakes: Counter,
    pub(crate) open: Gauge,
}

impl Metrics {
    /// Registers every series under `gatehouse_edge_`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("gatehouse_edge");
        let requests: Family<RequestLabels, Counter> = Family::default();
        // 0.5 ms to 32 s; long polls land in the last bucket, which is as much as one wants to know of them.
        let durations: Family<ClassLabels, Histogram> =
            Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 17)));
        let metrics = Self {
            requests: RequestClass::ALL.map(|class| {
                let class = class.as_str();
                STATUSES.map(|status| requests.get_or_create(&RequestLabels { class, status }).clone())
            }),
            durations: RequestClass::ALL
                .map(|class| durations.get_or_create(&ClassLabels { class: class.as_str() }).clone()),
            held: Counter::default(),
            retries: Counter::default(),
            from_memory: Counter::default(),
            connections: Default::default(),
            open_connections: Family::default(),
            shards_healthy: Family::default(),
            shard_starts: Family::default(),
            verdicts: Family::default(),
            refusals: Family::default(),
            imposed: Family::default(),
            bans: Gauge::default(),
            access_log_dropped: Counter::default(),
            shed: Family::default(),
        };
        let [opened, refused, banned, failed] = metrics.connections.clone();
        registry.register("requests", "Requests answered", requests);
        registry.register(
            "request_duration_seconds",
            "From the header of a request to the end of its answer",
            durations,
        );
        registry.register("requests_held", "Requests that waited for a healthy shard", metrics.held.clone());
        registry.register("request_retries", "Attempts after the first", metrics.retries.clone());
        registry.register(
            "answers_from_memory",
            "Requests answered with what a shard said before",
            metrics.from_memory.clone(),
        );
        registry.register("connections_opened", "Connections accepted", opened);
        registry.register("connections_refused", "Connections refused because all places were taken", refused);
        registry.register("connections_banned", "Connections dropped because their address is banned", banned);
        registry.register("failed_handshakes", "TLS handshakes that failed", failed);
        registry.register("connections_open", "Connections open now", metrics.open_connections.clone());
        registry.register("shard_healthy", "1 while the shard takes requests", metrics.shards_healthy.clone());
        registry.register("shard_starts", "Starts of a supervised shard", metrics.shard_starts.clone());
        let dropped = metrics.access_log_dropped.clone();
        registry.register("access_log_lines_dropped", "Lines of the access log that were not written", dropped);
        registry.register("verdicts", "Verdicts that shards gave", metrics.verdicts.clone());
        registry.register("requests_refused", "Requests that the policy did not let pass", metrics.refusals.clone());
        registry.register("bans_imposed", "Bans that jails imposed", metrics.imposed.clone());
        registry.register("bans", "Bans in force", metrics.bans.clone());
        registry.register("requests_shed", "Requests refused because there were too many", metrics.shed.clone());
        metrics
    }

    pub(crate) fn shed(&self, urgency: &'static str) -> Counter {
        self.shed.get_or_create(&ShedLabels { urgency }).clone()
    }

    pub(crate) fn answered(&self, class: RequestClass, status: Option<u16>, took: Duration) {
        let status = status.map_or(0, |status| usize::from(status / 100)).min(STATUSES.len() - 1);
        self.requests[class as usize][status].inc();
        self.durations[class as usize].observe(took.as_secs_f64());
    }

    /// What was answered of each class since the start, in the order of their discriminants.
    pub(crate) fn totals(&self) -> [Totals; RequestClass::ALL.len()] {
        self.requests.each_ref().map(|statuses| {
            let [none, informational, success, redirection, refused, failed] = statuses.each_ref().map(Counter::get);
            let answered = none + informational + success + redirection + refused + failed;
            Totals { answered, refused, failed: failed + none }
        })
    }

    /// Connections that are open on all listeners.
    pub(crate) fn open_connections(&self) -> u64 {
        let open = |name| self.open_connections.get_or_create(&ListenerLabels { listener: name }).get();
        let all: i64 = ["https", "federation", "http", "internal"].into_iter().map(open).sum();
        u64::try_from(all).unwrap_or_default()
    }

    pub(crate) fn listener(&self, listener: &'static str) -> Connections {
        let labels = ListenerLabels { listener };
        let [opened, refused, banned, failed] =
            self.connections.each_ref().map(|family| family.get_or_create(&labels).clone());
        let open = self.open_connections.get_or_create(&labels).clone();
        Connections { opened, refused, banned, failed_handshakes: failed, open }
    }

    pub(crate) fn shard_healthy(&self, shard: &str) -> Gauge {
        self.shards_healthy.get_or_create(&ShardLabels { shard: shard.to_owned() }).clone()
    }

    pub(crate) fn shard_starts(&self, shard: &str) -> Counter {
        self.shard_starts.get_or_create(&ShardLabels { shard: shard.to_owned() }).clone()
    }

    pub(crate) fn verdict(&self, verdict: &Verdict) {
        self.verdicts.get_or_create(&VerdictLabels { verdict: verdict.kind() }).inc();
    }

    pub(crate) fn refused(&self, refused: Refused) {
        let reason = match refused {
            Refused::Banned => "banned",
            Refused::ServerBanned => "server-banned",
            Refused::Limited(_) => "limited",
        };
        self.refusals.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn imposed(&self, jail: &str) {
        self.imposed.get_or_create(&JailLabels { jail: jail.to_owned() }).inc();
    }
}
