//! Paths go through as they are, or nowhere.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::tls;
use crate::edge::{Edge, Options, patiently};

#[tokio::test]
async fn a_path_is_never_normalised_or_decoded() {
    let edge = Edge::start().await;
    for target in [
        "/_matrix/client/v3/rooms/%21a%3Ab/state/m.room.name/",
        "/_matrix/client/v3//rooms/../x",
        "/_matrix/../_gatehouse/health",
        "/_matrix/%2e%2e/%2F%2f",
        "/_matrix/client/v3/rooms/!a:b/event/$x?filter=%7B%7D&&a=+&=",
        "/_matrix/media/v3/download/a/b;c=d",
    ] {
        for mut connection in [edge.http1().await, edge.http2().await] {
            let echo = connection.send(crate::client::request("GET", target, "")).await.unwrap().json();
            assert_eq!(echo["target"], target);
            assert!(echo["forwarded"]["error"].is_null(), "{echo}");
        }
    }
}

#[tokio::test]
async fn what_is_not_matrix_is_unrecognized() {
    let edge = Edge::start().await;
    for target in ["/", "/_gatehouse/health", "//_matrix/client/versions", "/%5fmatrix/client/versions", "/_matrix"] {
        edge.ask("GET", target).await.assert_error(404, "M_UNRECOGNIZED");
    }
    assert_eq!(edge.shards[0].served(), 0);
}

async fn raw(edge: &Edge, request: &str) -> String {
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The end of the connection may come without TLS's own goodbye.
    let _ = patiently(request, stream.read_to_end(&mut answer)).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn the_absolute_form_becomes_the_origin_form() {
    let edge = Edge::start().await;
    let request =
        "GET https://localhost/_matrix/client/versions?a=b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = raw(&edge, request).await;
    assert!(answer.contains("\"target\":\"/_matrix/client/versions?a=b\""), "{answer}");
    assert!(answer.contains("\"client\":\"127.0.0.1\""), "{answer}");
}

#[tokio::test]
async fn what_two_readers_could_read_differently_is_refused() {
    let edge = Edge::start().await;
    for (request, status) in [
        ("GET /_matrix/client/versions HTTP/1.1\r\nconnection: close\r\n\r\n", "400"),
        ("GET /_matrix/client/versions HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        ("GET /_matrix/client/versions HTTP/1.1\r\nhost: a/b\r\nconnection: close\r\n\r\n", "400"),
        ("GET https://a/_matrix/x HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n", "400"),
        ("GET /_matrix/\u{e9} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "400"),
        ("POST /_matrix/x HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "400"),
        ("POST /_matrix/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", "400"),
        ("CONNECT localhost:22 HTTP/1.1\r\nhost: localhost:22\r\n\r\n", "405"),
    ] {
        let answer = raw(&edge, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?} was answered {answer:?}");
    }
    let large =
        format!("GET /_matrix/x HTTP/1.1\r\nhost: a\r\ncookie: {}\r\nconnection: close\r\n\r\n", "a".repeat(40_000));
    assert!(raw(&edge, &large).await.starts_with("HTTP/1.1 431 "));
    let long = format!("GET /_matrix/{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "a".repeat(20_000));
    assert!(raw(&edge, &long).await.starts_with("HTTP/1.1 414 "));
    assert_eq!(edge.shards[0].served(), 0);
}

#[tokio::test]
async fn a_room_stays_on_one_shard_while_it_lives() {
    let edge = Edge::with(Options { shards: 2, ..Options::default() }).await;
    let mut connection = edge.http2().await;
    let mut homes = Vec::new();
    for room in 0..30 {
        let mut shards = std::collections::HashSet::new();
        for target in [
            format!("/_matrix/client/v3/rooms/!{room}:localhost/members"),
            format!("/_matrix/client/v3/rooms/%21{room}%3Alocalhost/state"),
            format!("/_matrix/federation/v1/state/!{room}:localhost"),
        ] {
            let echo = connection.send(crate::client::request("GET", &target, "")).await.unwrap().json();
            shards.insert(echo["shard"].as_str().unwrap().to_owned());
        }
        assert_eq!(shards.len(), 1, "room {room}");
        homes.extend(shards);
    }
    assert!(homes.contains(&"shard 0".to_owned()) && homes.contains(&"shard 1".to_owned()));
    edge.shards[0].die().await;
    edge.healthy_shards(1).await;
    for room in 0..30 {
        let target = format!("/_matrix/client/v3/rooms/!{room}:localhost/members");
        let echo = connection.send(crate::client::request("GET", &target, "")).await.unwrap().json();
        assert_eq!(echo["shard"], "shard 1");
    }
}
