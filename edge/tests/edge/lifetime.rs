//! How the edge starts and stops.

use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::client::request;
use crate::double::Order;
use crate::edge::{Edge, Options, patiently, program};

#[tokio::test]
async fn an_address_that_is_taken_ends_the_start_with_a_clear_word() {
    let edge = Edge::start().await;
    let config = std::fs::read_to_string(edge.folder.path().join("edge.toml")).unwrap();
    let second = edge.folder.path().join("second.toml");
    std::fs::write(&second, config.replacen("https = [\"127.0.0.1:0\"]", &format!("https = [\"{}\"]", edge.https), 1))
        .unwrap();
    let output =
        program().arg("run").arg("--config").arg(&second).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
    let output = patiently("the refusal", output).await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(&edge.https.to_string()) && told.contains("listen.https"), "{told}");
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn sigterm_lets_requests_finish_and_idle_connections_go() {
    let mut edge = Edge::start().await;
    let mut idle = edge.http1().await;
    idle.send(request("GET", "/_matrix/client/versions", "")).await.unwrap();
    let mut idle_h2 = edge.http2().await;
    idle_h2.send(request("GET", "/_matrix/client/versions", "")).await.unwrap();
    let until = Arc::new(Notify::new());
    edge.shards[0].order(Order::Wait(until.clone()));
    // The requests so far left one mark.
    edge.shards[0].taken.notified().await;
    let mut busy = edge.http1().await;
    let request = busy.send(request("GET", "/_matrix/client/v3/sync", ""));
    let stopped = async {
        edge.shards[0].taken.notified().await;
        edge.signal("TERM");
        // The address is given up at once, while the request goes on.
        while tokio::net::TcpStream::connect(edge.https).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        until.notify_one();
        Instant::now()
    };
    let (answer, finished) = patiently("the end", async { tokio::join!(request, stopped) }).await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(edge.ended().await.success());
    assert!(finished.elapsed() < Duration::from_secs(5), "it took {:?}", finished.elapsed());
}

#[tokio::test]
async fn a_long_poll_does_not_keep_the_edge_from_stopping() {
    let mut edge = Edge::with(Options { shards: 1, limits: "drain_seconds = 1", ..Options::default() }).await;
    edge.shards[0].order(Order::Wait(Arc::new(Notify::new())));
    let mut busy = edge.http1().await;
    let poll = tokio::spawn(async move { busy.send(request("GET", "/_matrix/client/v3/sync", "")).await });
    edge.shards[0].taken.notified().await;
    edge.signal("TERM");
    assert!(edge.ended().await.success());
    assert!(poll.await.unwrap().is_err());
}

#[tokio::test]
async fn an_idle_client_that_answers_nothing_does_not_keep_the_edge_from_stopping() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut edge = Edge::with(Options { shards: 1, limits: "drain_seconds = 3600", ..Options::default() }).await;
    let mut idle = crate::client::tls(edge.https, &edge.ca, "localhost", &[b"h2"]).await;
    // The preface and empty settings (RFC 9113, sections 3.4 and 6.5), and nothing ever after.
    idle.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    patiently("the edge's settings", idle.read_exact(&mut settings)).await.unwrap();
    let began = Instant::now();
    edge.signal("TERM");
    let mut farewell = Vec::new();
    // How the connection is closed does not matter.
    let _ = patiently("the farewell", idle.read_to_end(&mut farewell)).await;
    let goaway = farewell.windows(5).any(|bytes| bytes == [8, 7, 0, 0, 0]);
    assert!(edge.ended().await.success());
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?}", began.elapsed());
    assert!(goaway, "no GOAWAY in {farewell:?}");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut edge = Edge::with(Options { shards: 1, limits: "drain_seconds = 3600", ..Options::default() }).await;
    edge.shards[0].order(Order::Wait(Arc::new(Notify::new())));
    let mut busy = edge.http1().await;
    let poll = tokio::spawn(async move { busy.send(request("GET", "/_matrix/client/v3/sync", "")).await });
    edge.shards[0].taken.notified().await;
    edge.signal("TERM");
    while tokio::net::TcpStream::connect(edge.https).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    edge.signal("TERM");
    assert_eq!(edge.ended().await.code(), Some(130));
    assert!(poll.await.unwrap().is_err());
}
