//! How long things may take: long polls and WebSockets forever, slow senders not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use crate::client::{request, tls};
use crate::double::{DEAF, FLOOD, FLOOD_BYTES, Order};
use crate::edge::{Edge, Options, patiently};

/// Every deadline of the edge at its shortest.
async fn hurried() -> Edge {
    let limits = "header_seconds = 1\nbody_idle_seconds = 1\nhandshake_seconds = 1";
    Edge::with(Options { shards: 1, limits, upstream: "connect_timeout_ms = 500", ..Options::default() }).await
}

/// Longer than every deadline of [`hurried`].
const LONG: Duration = Duration::from_millis(2_500);

#[tokio::test]
async fn a_long_poll_outlasts_every_deadline() {
    let edge = hurried().await;
    for mut connection in [edge.http1().await, edge.http2().await] {
        let until = Arc::new(Notify::new());
        edge.shards[0].order(Order::Wait(until.clone()));
        tokio::spawn(async move {
            tokio::time::sleep(LONG).await;
            until.notify_one();
        });
        let poll = request("GET", "/_matrix/client/v3/sync?timeout=3600000", "");
        let answer = patiently("the long poll", connection.send(poll)).await.unwrap();
        assert_eq!(answer.json()["method"], "GET");
        // An idle connection outlasts them too.
        tokio::time::sleep(LONG).await;
        connection.send(request("GET", "/_matrix/client/versions", "")).await.unwrap();
    }
    assert_eq!(edge.shards[0].served(), 4, "nothing was tried twice");
}

#[tokio::test]
async fn a_websocket_passes_through_and_may_be_silent() {
    let edge = hurried().await;
    let mut stream = web_socket(&edge, "/_matrix/client/unstable/socket").await;
    for silence in [Duration::ZERO, LONG] {
        tokio::time::sleep(silence).await;
        stream.write_all(b"\x81\x05hello").await.unwrap();
        let mut echo = [0; 7];
        patiently("the echo", stream.read_exact(&mut echo)).await.unwrap();
        assert_eq!(&echo, b"\x81\x05hello");
    }
    // What it carries is no body: the limits of bodies do not apply. It goes back and forth in turns, because Pingora
    // does not read from a shard while it writes to it.
    let turn = vec![b'x'; 64 * 1024];
    let mut echo = vec![0; turn.len()];
    for _ in 0..32 {
        stream.write_all(&turn).await.unwrap();
        stream.flush().await.unwrap();
        patiently("the echo", stream.read_exact(&mut echo)).await.unwrap();
    }
}

/// A WebSocket, or any protocol that is switched to, right after the handshake.
async fn web_socket(edge: &Edge, target: &str) -> TlsStream<TcpStream> {
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let handshake = format!(
        "GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently("the handshake", stream.read_u8()).await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", answer.escape_ascii());
    stream
}

/// Each of the two sends and reads independently, as programs that speak WebSocket do. (Pingora writes to a shard and reads
/// from it in turns: one that reads only when its last answer was taken stalls once all buffers between are full.)
#[tokio::test]
async fn a_websocket_may_be_flooded_both_ways_at_once() {
    let edge = hurried().await;
    let stream = web_socket(&edge, FLOOD).await;
    let (read, mut write) = tokio::io::split(stream);
    let send = async {
        let sent = tokio::io::copy(&mut tokio::io::repeat(b'c').take(FLOOD_BYTES), &mut write).await;
        write.flush().await.unwrap();
        sent.unwrap()
    };
    let receive = async {
        let mut received = Vec::new();
        read.take(FLOOD_BYTES + 1).read_to_end(&mut received).await.unwrap();
        received
    };
    let (sent, received) = patiently("the flood", async { tokio::join!(send, receive) }).await;
    assert_eq!((sent, received.len() as u64), (FLOOD_BYTES, FLOOD_BYTES + 1));
    assert_eq!(received.last(), Some(&b'.'), "the shard did not get all of it");
}

/// What a peer does not take stays with the sender: between them stand the system's buffers and a few chunks.
#[tokio::test]
async fn a_websocket_whose_peer_reads_nothing_holds_the_sender_back() {
    let edge = hurried().await;
    let mut stream = web_socket(&edge, DEAF).await;
    let chunk = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while tokio::time::timeout(LONG, stream.write_all(&chunk)).await.is_ok_and(|written| written.is_ok()) {
        sent += chunk.len();
        assert!(sent < 64 << 20, "{sent} bytes are on their way to nobody");
    }
}

async fn is_cut(edge: &Edge, sent: &[u8]) {
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    stream.write_all(sent).await.unwrap();
    let start = Instant::now();
    let mut rest = Vec::new();
    // Cut without TLS's goodbye or with it; either way nothing more comes.
    let _ = patiently("the cut", stream.read_to_end(&mut rest)).await;
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_that_sends_its_header_slowly_is_cut() {
    let edge = hurried().await;
    is_cut(&edge, b"").await;
    is_cut(&edge, b"GET /_matrix/client/versions HTTP/1.1\r\nhost: loc").await;
    let mut h2 = tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    h2.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let _ = patiently("the cut", h2.read_to_end(&mut Vec::new())).await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    stream.write_all(b"GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
    let dripping = async {
        // Each byte would renew a timeout that counts from the last read.
        while stream.write_all(b"x").await.is_ok() && stream.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    patiently("the cut of a dripping header", dripping).await;
    assert_eq!(edge.shards[0].served(), 0);
}

#[tokio::test]
async fn a_header_that_begins_before_the_last_answer_is_due_as_well() {
    let edge = hurried().await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let answered = "GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n";
    stream.write_all(format!("{answered}GET /_matrix/client/v3/x HTTP/1.1\r\nhost: loc").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently("the cut", stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", answer.escape_ascii());
    assert_eq!(edge.shards[0].served(), 1);
}

#[tokio::test]
async fn a_client_that_stops_within_its_body_is_told_and_cut() {
    let edge = hurried().await;
    let mut stream = tls(edge.https, &edge.ca, "localhost", &[b"http/1.1"]).await;
    let head = "PUT /_matrix/client/v3/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently("the cut", stream.read_to_end(&mut answer)).await;
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", answer.escape_ascii());
    assert_eq!(edge.shards[0].served(), 0);
}
