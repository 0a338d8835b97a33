//! What the policy lets pass, and in which words it refuses.

use http::Request;
use http::header::AUTHORIZATION;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Connection, request, tcp_from, tls};
use crate::edge::{Edge, patiently};
use crate::policy::Policy;

fn versions() -> Request<http_body_util::Full<bytes::Bytes>> {
    request("GET", "/_matrix/client/versions", "")
}

fn authorized(target: &str, authorization: &str) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut request = request("GET", target, "");
    request.headers_mut().insert(AUTHORIZATION, authorization.parse().unwrap());
    request
}

#[tokio::test]
async fn a_client_that_asks_too_much_is_told_when_to_come_again() {
    let policy = Policy::new("[classes.client]\nclient = { burst = 3, per_second = 0.01 }\n");
    let edge = policy.edge("").await;
    let mut connections =
        [edge.from("127.0.0.1").await, Connection::http2_over(tcp_from("127.0.0.1", edge.https).await, &edge.ca).await];
    for number in 0..6 {
        let answer = connections[number % 2].send(versions()).await.unwrap();
        if number < 3 {
            assert_eq!(answer.status, 200);
            continue;
        }
        answer.assert_error(429, "M_LIMIT_EXCEEDED");
        let wait = answer.json()["retry_after_ms"].as_u64().unwrap();
        assert!((90_000..=100_001).contains(&wait), "{wait}");
        assert_eq!(answer.header("retry-after"), wait.div_ceil(1_000).to_string());
    }
    assert_eq!(edge.ask_from("127.0.0.2", versions()).await.status, 200, "another client has buckets of its own");
    let sync = request("GET", "/_matrix/client/v3/sync", "");
    assert_eq!(edge.ask_from("127.0.0.1", sync).await.status, 200, "another class has too");
    assert_eq!(edge.shard().served(), 5);
    assert!(edge.private("/metrics").await.contains("gatehouse_edge_requests_refused_total{reason=\"limited\"} 3"));
}

#[tokio::test]
async fn a_token_has_a_limit_wherever_it_comes_from() {
    let policy = Policy::new("[classes.sync]\ntoken = { burst = 1, per_second = 0.01 }\n");
    let edge = policy.edge("").await;
    let sync = |token: &str| authorized("/_matrix/client/v3/sync", &format!("Bearer {token}"));
    assert_eq!(edge.ask_from("127.0.0.1", sync("one")).await.status, 200);
    assert_eq!(edge.ask_from("127.0.0.2", sync("one")).await.status, 429);
    assert_eq!(edge.ask_from("127.0.0.1", sync("two")).await.status, 200);
}

#[tokio::test]
async fn a_server_that_is_denied_gets_no_further_than_the_door() {
    let policy = Policy::new("[servers]\ndeny = [\"*.evil.example\"]\n");
    let edge = policy.edge("").await;
    let signed = |origin: &str| {
        authorized(
            "/_matrix/federation/v1/version",
            &format!("X-Matrix origin=\"{origin}\",key=\"ed25519:1\",sig=\"x\""),
        )
    };
    edge.ask_from("127.0.0.1", signed("very.evil.example")).await.assert_error(403, "M_FORBIDDEN");
    assert_eq!(edge.ask_from("127.0.0.1", signed("good.example")).await.status, 200);
    assert_eq!(edge.shard().served(), 1);
}

#[tokio::test]
async fn a_reload_swaps_the_policy_whole_or_not_at_all() {
    let policy = Policy::new("[classes.client]\nclient = { burst = 2, per_second = 0.01 }\n");
    let edge = policy.edge("").await;
    let status = async || edge.ask_from("127.0.0.1", versions()).await.status.as_u16();
    assert_eq!([status().await, status().await, status().await], [200, 200, 429]);
    policy.write("[classes.client]\nclient = { burst = 0, per_second = 0.01 }\n");
    let told = edge.command(&["reload"]).await;
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("policy.toml:5:") && told.stderr.contains("classes.client.client"), "{}", told.stderr);
    assert_eq!(status().await, 429, "the old policy stands");
    policy.write("[classes.client]\nclient = { burst = 3, per_second = 0.01 }\n");
    assert_eq!(edge.command(&["reload"]).await.code, Some(0));
    assert_eq!([status().await, status().await], [200, 429], "what was used stays used");
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_a_neighbour_has_others() {
    let policy = Policy::new("[connections]\nper_client = 3\n");
    let edge = policy.edge("").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(edge.from("127.0.0.1").await);
    }
    patiently("the refusal", async { while !edge.drops("127.0.0.1").await {} }).await;
    assert!(!edge.drops("127.0.0.2").await);
    held.pop();
    patiently("the place of a connection that ended", async {
        while edge.drops("127.0.0.1").await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// What no client sends and some server somewhere reads in its own way.
const AMBIGUOUS: [&str; 9] = [
    "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX",
    "transfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n0\r\n\r\nX",
    "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
    "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "content-length: +5\r\n\r\nhello",
    "content-length: 5, 5\r\n\r\nhello",
    "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
];

/// What a connection answers to a request with these last fields and this body, until it ends.
async fn put(edge: &Edge, rest: &str) -> String {
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let head = "PUT /_matrix/client/v3/x HTTP/1.1\r\nhost: localhost\r\n";
    stream.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently("the end", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_with_two_ends_reaches_no_shard() {
    let edge = Policy::new("").edge("").await;
    for ambiguous in AMBIGUOUS {
        let answer = put(&edge, ambiguous).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{ambiguous:?}: {answer}");
    }
    assert_eq!(edge.shard().served(), 0);
}

#[tokio::test]
async fn a_header_has_so_many_fields() {
    let edge = Policy::new("[connections]\nmax_header_fields = 20\n").edge("").await;
    let mut crowded = versions();
    for number in 0..20 {
        crowded.headers_mut().insert(http::HeaderName::try_from(format!("x-{number}")).unwrap(), "1".parse().unwrap());
    }
    edge.ask_from("127.0.0.1", crowded).await.assert_error(431, "M_TOO_LARGE");
    assert_eq!(edge.ask_from("127.0.0.1", versions()).await.status, 200);
}
