//! How large a body may be, and that bodies pass unharmed.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{request, tls};
use crate::edge::{Edge, Options, patiently};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_to_go_on() {
    let edge = limited().await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let head = "PUT /_matrix/client/v3/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\
                expect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut go_on = [0; 25];
    patiently("100 Continue", stream.read_exact(&mut go_on)).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently("the answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"body\":\"body\""), "{answer}");
}

async fn limited() -> Edge {
    Edge::with(Options { shards: 1, limits: "max_upload_bytes = 3145728", ..Options::default() }).await
}

fn sized(method: &str, target: &str, bytes: usize) -> Request<Full<Bytes>> {
    request(method, target, vec![b'x'; bytes])
}

#[tokio::test]
async fn a_body_within_its_class_passes_whole() {
    let edge = limited().await;
    for (method, target, bytes) in [
        ("POST", "/_matrix/media/v3/upload", 3 * MIB),
        ("PUT", "/_matrix/federation/v1/send/1", 9 * MIB),
        ("PUT", "/_matrix/client/v3/room_keys/keys", MIB),
        ("PUT", "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", 0),
    ] {
        for mut connection in [edge.http1().await, edge.http2().await] {
            let answer = patiently(target, connection.send(sized(method, target, bytes))).await.unwrap();
            assert_eq!(answer.json()["body_bytes"], bytes, "{target}");
        }
    }
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_at_once() {
    let edge = limited().await;
    for (method, target, bytes) in [
        ("POST", "/_matrix/media/v3/upload", 3 * MIB + 1),
        ("PUT", "/_matrix/federation/v1/send/1", 10 * MIB + 1),
        ("PUT", "/_matrix/client/v3/rooms/!a:b/send/m.room.message/1", MIB + 1),
        ("POST", "/_matrix/media%2fv3/upload", 2 * MIB),
    ] {
        for mut connection in [edge.http1().await, edge.http2().await] {
            let answer = patiently(target, connection.send(sized(method, target, bytes))).await.unwrap();
            answer.assert_error(413, "M_TOO_LARGE");
        }
    }
    assert_eq!(edge.shards[0].served(), 0);
}

#[tokio::test]
async fn a_body_that_does_not_say_is_counted() {
    let edge = limited().await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let head = "POST /_matrix/client/v3/createRoom HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, "x".repeat(65_536));
    for _ in 0..17 {
        // The edge may have refused already and cut the connection.
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let mut answer = vec![0; 4096];
    let length = patiently("the refusal", stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("M_TOO_LARGE"), "{answer}");
    assert_eq!(edge.shards[0].served(), 0);
}
