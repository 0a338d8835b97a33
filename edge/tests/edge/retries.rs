//! What happens to requests when shards die, drain, or are not there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::{Connection, request};
use crate::double::{Order, Shard};
use crate::edge::{Edge, Options, patiently};

const SEND: &str = "/_matrix/client/v3/rooms/!a:localhost/send/m.room.message/txn1";

async fn two_shards() -> Edge {
    Edge::with(Options { shards: 2, ..Options::default() }).await
}

/// The index of the shard that serves the room of [`SEND`].
async fn home_of_room(edge: &Edge) -> usize {
    let echo = edge.ask("GET", SEND).await.json();
    if echo["shard"] == "shard 0" { 0 } else { 1 }
}

async fn is_answered_by_the_other(edge: &Edge, mut connection: Connection) {
    let body = "x".repeat(60_000);
    let home = home_of_room(edge).await;
    edge.shards[home].order(Order::Die);
    let sent = connection.send(request("PUT", SEND, body.clone()));
    let answer = patiently("the retry", sent).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let echo = answer.json();
    assert_eq!(echo["shard"], format!("shard {}", 1 - home));
    assert_eq!(echo["body_bytes"], body.len());
    assert!(echo["forwarded"]["error"].is_null(), "{echo}");
}

#[tokio::test]
async fn an_idempotent_request_in_flight_on_a_dying_shard_is_answered_by_another() {
    let edge = two_shards().await;
    is_answered_by_the_other(&edge, edge.http1().await).await;
    let edge = two_shards().await;
    is_answered_by_the_other(&edge, edge.http2().await).await;
}

#[tokio::test]
async fn a_request_that_might_be_carried_out_twice_is_not_retried() {
    let edge = two_shards().await;
    let home = home_of_room(&edge).await;
    edge.shards[home].order(Order::Die);
    let mut connection = edge.http1().await;
    let sent = connection.send(request("POST", "/_matrix/client/v3/rooms/!a:localhost/leave", "{}"));
    patiently("the answer", sent).await.unwrap().assert_error(502, "M_UNKNOWN");
    assert_eq!(edge.shards[1 - home].served(), 0);
}

#[tokio::test]
async fn a_request_that_kills_every_shard_is_given_up() {
    let edge = Edge::start().await;
    for _ in 0..5 {
        edge.shards[0].order(Order::HangUp);
    }
    let mut connection = edge.http1().await;
    let sent = connection.send(request("PUT", SEND, "{}"));
    patiently("the answer", sent).await.unwrap().assert_error(502, "M_UNKNOWN");
    assert_eq!(edge.shards[0].served(), 3);
}

#[tokio::test]
async fn a_shard_that_dies_slowly_interrupts_a_request_but_once() {
    let edge = Edge::start().await;
    let mut connection = edge.http1().await;
    connection.send(request("PUT", SEND, "{}")).await.unwrap();
    edge.shards[0].die().await;
    let path = &edge.shards[0].path;
    std::fs::remove_file(path).unwrap();
    // The kernel closes what a killed process had open one by one: for a while its socket takes connections that nobody
    // will ever serve.
    let dying = UnixListener::bind(path).unwrap();
    let dead = Notify::new();
    let restarted = async {
        let closing = async {
            loop {
                drop(dying.accept().await.unwrap());
            }
        };
        tokio::select! {
            () = closing => {}
            () = dead.notified() => {}
        }
        Shard::start(path, "the next one")
    };
    let seen = async {
        edge.healthy_shards(0).await;
        dead.notify_one();
    };
    let put = connection.send(request("PUT", SEND, "{}"));
    let (answer, _next, ()) = tokio::join!(patiently("the interrupted request", put), restarted, seen);
    assert_eq!(answer.unwrap().json()["shard"], "the next one");
}

#[tokio::test]
async fn requests_wait_for_a_shard_that_is_being_started() {
    let edge = Edge::start().await;
    edge.shards[0].die().await;
    edge.healthy_shards(0).await;
    let mut connection = edge.http2().await;
    let path = edge.shards[0].path.clone();
    let restarted = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Shard::start(&path, "the next one")
    };
    let post = connection.send(request("POST", "/_matrix/client/v3/createRoom", "{}"));
    let (answer, shard) = tokio::join!(patiently("the held request", post), restarted);
    assert_eq!(answer.unwrap().json()["shard"], "the next one");
    assert_eq!(shard.served(), 1);
    assert!(edge.private("/metrics").await.contains("gatehouse_edge_requests_held_total 1"));
}

#[tokio::test]
async fn a_request_that_waited_long_enough_is_told_to_come_again() {
    let edge = Edge::with(Options { shards: 1, upstream: "hold_seconds = 1", ..Options::default() }).await;
    edge.shards[0].die().await;
    edge.healthy_shards(0).await;
    let start = Instant::now();
    let answer = edge.ask("GET", "/_matrix/client/versions").await;
    answer.assert_error(429, "M_LIMIT_EXCEEDED");
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.json()["retry_after_ms"], 2_000);
}

#[tokio::test]
async fn a_shard_that_cannot_serve_now_is_overload_to_a_client() {
    let edge = Edge::start().await;
    edge.shards[0].order(Order::Answer(StatusCode::SERVICE_UNAVAILABLE, vec![("retry-after", "7")]));
    let answer = edge.ask("PUT", SEND).await;
    answer.assert_error(429, "M_LIMIT_EXCEEDED");
    assert_eq!(answer.header("retry-after"), "7");
    assert_eq!(answer.json()["retry_after_ms"], 7_000);
    assert_eq!(edge.shards[0].served(), 1);
    assert_eq!(edge.ask("PUT", SEND).await.status, StatusCode::OK);
}

#[tokio::test]
async fn connections_to_a_shard_are_kept_and_shared() {
    let edge = Edge::start().await;
    let before = edge.shards[0].accepted();
    let start = Instant::now();
    for _ in 0..20 {
        let mut connection = edge.http1().await;
        for _ in 0..5 {
            connection.send(request("GET", SEND, "")).await.unwrap();
        }
    }
    let health_checks = usize::try_from(start.elapsed().as_millis() / 200).unwrap() + 1;
    let accepted = edge.shards[0].accepted() - before;
    assert!(accepted <= health_checks + 2, "{accepted} connections for 100 requests in a row");
}

#[tokio::test]
async fn pooled_connections_to_a_shard_that_restarted_harm_nobody() {
    let edge = Edge::start().await;
    let mut connection = edge.http2().await;
    connection.send(request("GET", SEND, "")).await.unwrap();
    edge.shards[0].die().await;
    let _next = Shard::start(&edge.shards[0].path, "the next one");
    // Not idempotent, and sent on nothing but connections that are new or known to be alive.
    let post = connection.send(request("POST", "/_matrix/client/v3/createRoom", "{}"));
    assert_eq!(patiently("the request", post).await.unwrap().json()["shard"], "the next one");
}

#[tokio::test]
async fn a_shard_that_dies_over_many_kept_connections_costs_no_request() {
    let edge = Edge::start().await;
    let release = Arc::new(Notify::new());
    let mut waiting = JoinSet::new();
    for _ in 0..12 {
        edge.shards[0].order(Order::Wait(release.clone()));
        let mut connection = edge.http1().await;
        waiting.spawn(async move { connection.send(request("GET", SEND, "")).await });
    }
    while edge.shards[0].served() < 12 {
        edge.shards[0].taken.notified().await;
    }
    release.notify_waiters();
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, StatusCode::OK);
    }
    let mut connection = edge.http1().await;
    edge.shards[0].die().await;
    let _next = Shard::start(&edge.shards[0].path, "the next one");
    let sent = connection.send(request("PUT", SEND, "{}"));
    assert_eq!(patiently("the request", sent).await.unwrap().json()["shard"], "the next one");
}
