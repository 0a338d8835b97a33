//! HTTP/1.1 on one connection: what is read by the edge's own parser and what by Pingora's, one after the other.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::tls;
use crate::edge::{Edge, patiently};
use crate::http2::{LONG, edge_before_an_unreliable_shard};

const PATH: &str = "/_matrix/client/v3/first";

#[tokio::test]
async fn plain_and_odd_requests_share_a_connection() {
    let edge = Edge::start().await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let plain = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let odd = format!("GET https://localhost{PATH} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let old = format!("GET {PATH} HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\n");
    let last =
        format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello");
    for request in [&plain, &odd, &plain, &old, &plain, &plain, &last] {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !is_whole(&answer) {
            let read = patiently("an answer", stream.read_buf(&mut answer)).await.unwrap();
            assert!(read > 0, "{request:?}: {}", answer.escape_ascii());
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{request:?}: {}", answer.escape_ascii());
    }
    assert_eq!(patiently("the end", stream.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn who_is_answered_early_can_send_all_and_read_the_answer() {
    let (edge, _unanswered) = edge_before_an_unreliable_shard("").await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let head = format!("POST /_matrix/media/v3/upload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LONG}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..LONG / 65_536 {
        patiently("room", stream.write_all(&[b'x'; 65_536])).await.unwrap();
    }
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    patiently("the answer and the end", stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && is_whole(&answer), "{}", answer.escape_ascii());
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut length = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, length)| length);
    length.next().is_some_and(|length| length.parse() == Ok(body.len()))
}
