//! Documents that are the same for everybody, kept and fetched once.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::request;
use crate::double::Order;
use crate::edge::{Edge, Options, patiently};

const VERSIONS: &str = "/_matrix/client/versions";

const JSON: (&str, &str) = ("content-type", "application/json");

fn document(body: &'static str) -> Order {
    Order::Say(vec![JSON], body.to_owned())
}

#[tokio::test]
async fn versions_and_keys_are_fetched_once_and_for_everybody() {
    let edge = Edge::start().await;
    for (target, body) in
        [(VERSIONS, r#"{"versions":[]}"#), ("/_matrix/key/v2/server", r#"{"server_name":"localhost"}"#)]
    {
        let served = edge.shards[0].served();
        edge.shards[0].order(document(body));
        for _ in 0..5 {
            let answer = edge.ask("GET", target).await;
            assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, body.as_bytes()));
            assert_eq!(answer.header("content-type"), "application/json");
        }
        assert_eq!(edge.shards[0].served(), served + 1);
    }
    // Somebody in particular asks the shard.
    let mut personal = request("GET", VERSIONS, "");
    personal.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    assert_eq!(edge.http1().await.send(personal).await.unwrap().json()["shard"], "shard 0");
    assert_eq!(edge.ask("GET", "/_matrix/client/versions?access_token=x").await.json()["shard"], "shard 0");
    let metrics = edge.private("/metrics").await;
    assert!(metrics.contains("gatehouse_edge_answers_from_memory_total 8"), "{metrics}");
}

#[tokio::test]
async fn who_asks_while_a_document_is_fetched_waits_for_the_same() {
    let edge = Edge::start().await;
    let release = Arc::new(Notify::new());
    edge.shards[0].order(Order::SayWhen(release.clone(), vec![JSON], "{}".to_owned()));
    let mut asking = JoinSet::new();
    for _ in 0..4 {
        for mut connection in [edge.http1().await, edge.http2().await] {
            asking.spawn(async move { connection.send(request("GET", VERSIONS, "")).await.unwrap() });
        }
    }
    edge.shards[0].taken.notified().await;
    release.notify_one();
    let answers = patiently("the others", asking.join_all()).await;
    assert!(answers.iter().all(|answer| answer.body == "{}"), "{answers:?}");
    assert_eq!(edge.shards[0].served(), 1);
}

#[tokio::test]
async fn an_old_document_is_better_than_none_while_shards_are_away() {
    let sections = "[cache]\nfresh_seconds = 1\nstale_seconds = 60\n";
    let edge = Edge::with(Options { shards: 1, sections, ..Options::default() }).await;
    edge.shards[0].order(document("{}"));
    assert_eq!(edge.ask("GET", VERSIONS).await.body, "{}");
    edge.shards[0].die().await;
    edge.healthy_shards(0).await;
    // Its freshness ends by the clock of the edge, which is another process.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    assert_eq!(edge.ask("GET", VERSIONS).await.body, "{}");
}

#[tokio::test]
async fn nothing_is_kept_where_nothing_is_to_be() {
    let edge = Edge::with(Options { shards: 1, sections: "[cache]\nfresh_seconds = 0\n", ..Options::default() }).await;
    for _ in 0..2 {
        edge.shards[0].order(document("{}"));
        edge.ask("GET", VERSIONS).await;
    }
    assert_eq!(edge.shards[0].served(), 2);
}
