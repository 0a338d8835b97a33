//! What the edge answers itself.

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::edge::{Edge, Options, patiently};

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
async fn the_further_documents_say_what_is_configured() {
    let edge = Edge::start().await;
    for target in ["/.well-known/matrix/support", "/.well-known/matrix/policy_server", "/.well-known/matrix/other"] {
        assert_eq!(edge.ask("GET", target).await.status, StatusCode::NOT_FOUND, "{target}");
    }
    let key = "6yhHGKhCiXTSEN2ksjV7kX/N6rBQZ3Xb+M7LlC6NS+s";
    let sections = format!(
        "[[server.rtc_foci]]\ntype = \"livekit\"\nlivekit_service_url = \"https://rtc.localhost\"\n\
         [server.client_extra.\"org.example.theme\"]\ndark = true\n\
         [server.support]\nsupport_page = \"https://localhost/help\"\n\
         [[server.support.contacts]]\nrole = \"m.role.security\"\nmatrix_id = \"@admin:example.net\"\n\
         [server.policy_server]\ned25519 = \"{key}\"\n"
    );
    let edge = Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await;
    for (target, document) in [
        (
            "client",
            serde_json::json!({
                "m.homeserver": { "base_url": "https://matrix.localhost:8443" },
                "org.matrix.msc4143.rtc_foci": [{ "type": "livekit", "livekit_service_url": "https://rtc.localhost" }],
                "org.example.theme": { "dark": true },
            }),
        ),
        (
            "support",
            serde_json::json!({
                "support_page": "https://localhost/help",
                "contacts": [{ "role": "m.role.security", "matrix_id": "@admin:example.net" }],
            }),
        ),
        ("policy_server", serde_json::json!({ "public_keys": { "ed25519": key } })),
    ] {
        let answer = edge.ask("GET", &format!("/.well-known/matrix/{target}")).await;
        assert_eq!(answer.json(), document);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("cache-control"), "public, max-age=3600");
    }
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
