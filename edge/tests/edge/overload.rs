//! Who is told to come again later when there is too much to do.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::request;
use crate::double::Order;
use crate::edge::{Edge, Options, patiently};

const SEND: &str = "/_matrix/client/v3/rooms/!a:localhost/send/m.room.message/1";
const INITIAL: &str = "/_matrix/client/v3/sync?timeout=0";

/// Requests that a shard has taken and will not answer before they are released.
struct Busy {
    release: Arc<Notify>,
    requests: JoinSet<StatusCode>,
}

impl Busy {
    async fn with(edge: &Edge, target: &'static str, count: usize) -> Self {
        let mut busy = Self { release: Arc::new(Notify::new()), requests: JoinSet::new() };
        let before = edge.shards[0].served();
        for _ in 0..count {
            edge.shards[0].order(Order::Wait(busy.release.clone()));
            let mut connection = edge.http1().await;
            busy.requests.spawn(async move { connection.send(request("PUT", target, "{}")).await.unwrap().status });
        }
        patiently("the shard to take them", async {
            while edge.shards[0].served() < before + count {
                edge.shards[0].taken.notified().await;
            }
        })
        .await;
        busy
    }

    async fn finish(self) {
        self.release.notify_waiters();
        let answers = patiently("the answers", self.requests.join_all()).await;
        assert!(answers.iter().all(|status| *status == StatusCode::OK));
    }
}

async fn small_edge() -> Edge {
    let sections = "[overload]\nrequests_per_shard = 10\nlag_ms = 60000\n";
    Edge::with(Options { shards: 1, sections, ..Options::default() }).await
}

#[tokio::test]
async fn the_least_urgent_are_told_first_and_with_429() {
    let edge = small_edge().await;
    let half = Busy::with(&edge, SEND, 5).await;
    let refused = edge.ask("GET", INITIAL).await;
    refused.assert_error(429, "M_LIMIT_EXCEEDED");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((2..=3).contains(&seconds), "{seconds}");
    assert_eq!(refused.json()["retry_after_ms"], seconds * 1_000);
    for target in [SEND, "/_matrix/client/v3/sync?since=x", "/_matrix/client/v1/media/download/a/b"] {
        assert_eq!(edge.ask("GET", target).await.status, StatusCode::OK, "{target}");
    }
    let more = Busy::with(&edge, SEND, 3).await;
    for target in [INITIAL, "/_matrix/client/v1/media/download/a/b", "/_matrix/federation/v1/send/1"] {
        edge.ask("GET", target).await.assert_error(429, "M_LIMIT_EXCEEDED");
    }
    assert_eq!(edge.ask("PUT", SEND).await.status, StatusCode::OK);
    let all = Busy::with(&edge, SEND, 2).await;
    edge.ask("PUT", SEND).await.assert_error(429, "M_LIMIT_EXCEEDED");
    let metrics = edge.private("/metrics").await;
    assert!(metrics.contains("gatehouse_edge_requests_shed_total{urgency=\"initial-sync\"} 2"), "{metrics}");
    assert!(metrics.contains("gatehouse_edge_requests_shed_total{urgency=\"ordinary\"} 1"), "{metrics}");
    for busy in [half, more, all] {
        busy.finish().await;
    }
    assert_eq!(edge.ask("GET", INITIAL).await.status, StatusCode::OK);
}

#[tokio::test]
async fn long_polls_are_no_load() {
    let edge = small_edge().await;
    let polls = Busy::with(&edge, "/_matrix/client/v3/sync?since=x&timeout=30000", 30).await;
    assert_eq!(edge.ask("GET", INITIAL).await.status, StatusCode::OK);
    polls.finish().await;
}
