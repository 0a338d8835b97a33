//! Clients that send or take as little as they can: they end, and others do not notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::client::{request, tcp_from, tls_over};
use crate::double::Order;
use crate::edge::{Edge, Options, patiently};
use crate::policy::Policy;

/// Slow clients of each kind at one time.
const CROWD: usize = 100;

/// Every limit at its shortest, so that a test can wait for it.
async fn hurried(policy: &Policy) -> Edge {
    policy.write("[connections]\nmin_bytes_per_second = 1000\nslow_seconds = 2\n");
    let sections = format!("[admission]\npolicy = {:?}\n", policy.file());
    let limits = "header_seconds = 2\nbody_idle_seconds = 20\nhandshake_seconds = 2";
    Edge::with(Options { shards: 1, limits, sections: &sections, ..Options::default() }).await
}

/// Sends `head`, then a byte at a time until it is cut; says how long that took.
async fn drip(edge: &Edge, client: &str, head: &str) -> Duration {
    let tcp = tcp_from(client, edge.https).await;
    let stream = tls_over(tcp, &edge.ca, "localhost", &[b"http/1.1"]).await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let start = Instant::now();
    write.write_all(head.as_bytes()).await.unwrap();
    let cut = tokio::spawn(async move { read.read_to_end(&mut Vec::new()).await });
    while !cut.is_finished() && write.write_all(b"x").await.is_ok() && write.flush().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let _ = cut.await;
    start.elapsed()
}

const SLOW_HEADER: &str = "GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\nx: ";
const SLOW_BODY: &str = "PUT /_matrix/client/v3/slow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n";

#[tokio::test]
async fn a_crowd_of_slow_senders_is_cut_while_a_healthy_client_is_served() {
    let policy = Policy::new("");
    let edge = Arc::new(hurried(&policy).await);
    let mut crowd = JoinSet::new();
    for (kind, head) in [(1, SLOW_HEADER), (2, SLOW_BODY)] {
        for number in 0..CROWD {
            let (edge, client) = (edge.clone(), format!("127.0.{kind}.{}", number % 200 + 1));
            crowd.spawn(async move { drip(&edge, &client, head).await });
        }
    }
    let mut healthy = edge.from("127.0.0.1").await;
    let mut took = Vec::new();
    let mut ended = 0;
    while ended < 2 * CROWD {
        let start = Instant::now();
        assert_eq!(healthy.send(request("GET", "/_matrix/client/versions", "")).await.unwrap().status, 200);
        took.push(start.elapsed());
        while let Some(cut) = crowd.try_join_next() {
            let cut = cut.unwrap();
            assert!(cut < Duration::from_secs(20), "a slow client held out for {cut:?}");
            ended += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort();
    let p99 = took[took.len() * 99 / 100 - usize::from(took.len() >= 100)];
    println!("{} slow clients; a healthy one's p99 was {p99:?} over {} requests", 2 * CROWD, took.len());
}

/// A body of which nothing comes holds its stream, and the shard's connection, only for a while.
#[tokio::test]
async fn a_stream_of_http2_that_owes_its_body_ends() {
    let policy = Policy::new("");
    let edge = hurried(&policy).await;
    let tcp = tcp_from("127.0.0.1", edge.https).await;
    let stream = tls_over(tcp, &edge.ca, "localhost", &[b"h2"]).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (_never, owed) = mpsc::channel::<Bytes>(1);
    let put = http::Request::put("https://localhost/_matrix/client/v3/x").body(Owed(owed)).unwrap();
    assert!(patiently("the end of the stream", sender.send_request(put)).await.is_err());
    let _ = patiently("the end of the connection", connection).await;
    assert_eq!(edge.shard().served(), 0);
}

/// A body that is what a channel gives.
struct Owed(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Owed {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(hyper::body::Frame::data(chunk))))
    }
}

/// Only the client's turn counts: neither a long poll nor a slow shard is its fault.
#[tokio::test]
async fn a_slow_shard_cuts_nobody() {
    let policy = Policy::new("");
    let edge = hurried(&policy).await;
    for http2 in [false, true] {
        let tcp = tcp_from("127.0.0.1", edge.https).await;
        let mut connection = if http2 {
            crate::client::Connection::http2_over(tcp, &edge.ca).await
        } else {
            crate::client::Connection::http1_over(tcp, &edge.ca).await.unwrap()
        };
        let until = Arc::new(Notify::new());
        edge.shard().order(Order::Wait(until.clone()));
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            until.notify_one();
        });
        let post = request("POST", "/_matrix/client/v3/sync", "a small body");
        assert_eq!(patiently("the long poll", connection.send(post)).await.unwrap().status, 200);
    }
}

/// Whoever asks for much and takes nothing is cut.
#[tokio::test]
async fn a_crowd_that_reads_nothing_is_cut() {
    let policy = Policy::new("[connections]\nmin_bytes_per_second = 32768\nslow_seconds = 2\n");
    let edge = Arc::new(policy.edge("").await);
    let mut healthy = edge.from("127.0.0.1").await;
    let mut crowd = JoinSet::new();
    for number in 1..=CROWD / 5 {
        let edge = edge.clone();
        crowd.spawn(async move { ask_for_ever(&edge, &format!("127.0.3.{number}")).await });
    }
    patiently("the cut of the crowd", async {
        while !crowd.is_empty() {
            let versions = request("GET", "/_matrix/client/versions", "");
            assert_eq!(healthy.send(versions).await.unwrap().status, 200);
            while crowd.try_join_next().is_some() {}
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Has the shard send a megabyte back again and again, and reads nothing of it, until it is cut. The kernel takes some
/// megabytes in the client's place.
async fn ask_for_ever(edge: &Edge, client: &str) {
    let tcp = tcp_from(client, edge.https).await;
    let mut stream = tls_over(tcp, &edge.ca, "localhost", &[b"http/1.1"]).await.unwrap();
    let mut asked = b"PUT /_matrix/client/v3/x HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    asked.resize(asked.len() + 1_000_000, b'x');
    while stream.write_all(&asked).await.is_ok() && stream.flush().await.is_ok() {}
}
