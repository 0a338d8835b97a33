//! What the edge answers itself.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::edge::{Edge, patiently};

#[tokio::test]
async fn the_well_known_documents_are_served_for_browsers_too() {
    let edge = Edge::start().await;
    let client = edge.ask("GET", "/.well-known/matrix/client").await;
    assert_eq!(client.json(), serde_json::json!({ "m.homeserver": { "base_url": "https://matrix.localhost:8443" } }));
    let server = edge.ask("GET", "/.well-known/matrix/server").await;
    assert_eq!(server.json(), serde_json::json!({ "m.server": "matrix.localhost:443" }));
    for document in [client, server] {
        assert_eq!(document.status, StatusCode::OK);
        assert_eq!(document.header("content-type"), "application/json");
        assert_eq!(document.header("access-control-allow-origin"), "*");
    }
    assert!(edge.ask("HEAD", "/.well-known/matrix/client").await.body.is_empty());
    edge.ask("PUT", "/.well-known/matrix/client").await.assert_error(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn a_preflight_is_answered_without_a_shard() {
    let edge = Edge::start().await;
    for target in ["/_matrix/client/v3/login", "/_matrix/media/v3/upload", "/anything"] {
        let answer = edge.ask("OPTIONS", target).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-allow-methods").contains("PUT"));
        assert!(answer.header("access-control-allow-headers").contains("Authorization"));
    }
    assert_eq!(edge.shards[0].served(), 0);
}

#[tokio::test]
async fn the_endpoint_in_the_clear_redirects_to_https() {
    let edge = Edge::start().await;
    let mut stream = tokio::net::TcpStream::connect(edge.http).await.unwrap();
    let request = "POST /_matrix//client/%2e?a=b HTTP/1.1\r\nhost: example.org:80\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    patiently("the redirect", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(
        answer.to_lowercase().contains("location: https://example.org:8443/_matrix//client/%2e?a=b\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_private_address_tells_health() {
    let edge = Edge::start().await;
    assert!(edge.private("/healthz").await.starts_with("HTTP/1.1 200 "));
    edge.shards[0].die().await;
    edge.healthy_shards(0).await;
    assert!(edge.private("/healthz").await.starts_with("HTTP/1.1 503 "));
}
