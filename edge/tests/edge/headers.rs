//! What a shard is told, and what nobody else gets to say.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;

use crate::client::{Connection, request};
use crate::double::Order;
use crate::edge::{Edge, patiently};

fn forged() -> Request<Full<Bytes>> {
    let mut forged = request("GET", "/_matrix/client/v3/account/whoami", "");
    for (name, value) in [
        ("x-gatehouse-client", "198.51.100.1"),
        ("X-Gatehouse-Mac", "00"),
        ("x-gatehouse-request-id", "forged"),
        ("x-gatehouse-verdict", "bad-token"),
        ("x-forwarded-for", "198.51.100.1"),
        ("X-Forwarded-Proto", "http"),
        ("forwarded", "for=198.51.100.1"),
        ("x-real-ip", "198.51.100.1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("authorization", "Bearer gh_00000000_x"),
    ] {
        forged.headers_mut().append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    forged
}

async fn is_vouched_for(connection: &mut Connection) {
    let echo = connection.send(forged()).await.unwrap().json();
    assert_eq!(echo["forwarded"]["client"], "127.0.0.1", "{echo}");
    assert_eq!(echo["forwarded"]["scheme"], "https");
    assert_eq!(echo["forwarded"]["host"], "localhost");
    assert_ne!(echo["forwarded"]["request_id"], "forged");
    let text = echo["headers"].to_string();
    assert!(!text.contains("198.51.100.1") && !text.contains("x-gatehouse-verdict"), "{text}");
    assert!(text.contains("Bearer gh_00000000_x"), "other headers pass: {text}");
    assert!(text.contains("00-0af7651916cd43dd8448eb211c80319c-"), "the client's trace goes on: {text}");
    assert!(!text.contains("b7ad6b7169203331"), "under a span of the edge's own: {text}");
}

#[tokio::test]
async fn a_shard_believes_the_edge_and_forged_headers_never_arrive() {
    let edge = Edge::start().await;
    is_vouched_for(&mut edge.http1().await).await;
    is_vouched_for(&mut edge.http2().await).await;
}

#[tokio::test]
async fn connection_headers_cannot_take_the_contract_off() {
    let edge = Edge::start().await;
    let mut tricky = request("GET", "/_matrix/client/versions", "");
    tricky.headers_mut().append("connection", "x-gatehouse-mac, x-gatehouse-client".parse().unwrap());
    let answer = edge.http1().await.send(tricky).await.unwrap();
    let unharmed = answer.status == StatusCode::BAD_REQUEST || answer.json()["forwarded"]["client"] == "127.0.0.1";
    assert!(unharmed, "{answer:?}");
}

#[tokio::test]
async fn every_request_has_an_id_and_a_trace_of_its_own() {
    let edge = Edge::start().await;
    let mut connection = edge.http1().await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..10 {
        let echo = connection.send(request("GET", "/_matrix/client/versions", "")).await.unwrap().json();
        let headers: Vec<(String, String)> = serde_json::from_value(echo["headers"].clone()).unwrap();
        let trace = headers.iter().find(|(name, _)| name == "traceparent").unwrap().1.clone();
        assert!(seen.insert(trace));
        assert!(seen.insert(echo["forwarded"]["request_id"].as_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn a_verdict_is_counted_and_stays_inside() {
    let edge = Edge::start().await;
    let verdict = vec![("x-gatehouse-verdict", "login-failed @alice:localhost"), ("x-gatehouse-other", "1")];
    edge.shards[0].order(Order::Answer(StatusCode::FORBIDDEN, verdict));
    let answer = edge.ask("POST", "/_matrix/client/v3/login").await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-gatehouse")), "{answer:?}");
    let metrics = edge.private("/metrics").await;
    assert!(metrics.contains("gatehouse_edge_verdicts_total{verdict=\"login-failed\"} 1"), "{metrics}");
    // A request is counted once its answer is away, so the client may be here first.
    let counted = "gatehouse_edge_requests_total{class=\"login\",status=\"4xx\"} 1";
    patiently("the count of the request", async { while !edge.private("/metrics").await.contains(counted) {} }).await;
}

#[tokio::test]
async fn a_browser_may_read_what_a_shard_answers() {
    let edge = Edge::start().await;
    let answer = edge.ask("GET", "/_matrix/client/versions").await;
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    edge.shards[0].order(Order::Answer(StatusCode::OK, vec![("access-control-allow-origin", "https://app.example")]));
    let answer = edge.ask("GET", "/_matrix/client/versions").await;
    assert_eq!(answer.headers.get_all("access-control-allow-origin").iter().count(), 1);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example");
}
