//! Clients that send or take as little as they can: they end, and others do not notice.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Barrier, Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::client::{Connection, request, tcp_from, tls_over, trusting};
use crate::double::Order;
use crate::edge::{Edge, Options, PATIENCE, patiently};
use crate::policy::Policy;

/// Slow clients of each kind at one time.
const CROWD: usize = 1_000;

/// Every limit at its shortest, so that a test can wait for it.
async fn hurried(policy: &Policy) -> Edge {
    policy.write("[connections]\nmin_bytes_per_second = 1000\nslow_seconds = 2\n");
    let sections = format!("[admission]\npolicy = {:?}\n", policy.file());
    let limits = "header_seconds = 2\nbody_idle_seconds = 20\nhandshake_seconds = 2";
    Edge::with(Options { shards: 1, limits, sections: &sections, ..Options::default() }).await
}

/// What a slow client is slow at.
#[derive(Debug, Clone, Copy)]
enum Slow {
    /// Sends a header a byte a second.
    Header,
    /// Sends a body a byte a second.
    Body,
    /// Takes nothing of an answer.
    Read,
}

impl Slow {
    fn begins_with(self) -> String {
        let (line, rest) = match self {
            Self::Header => ("GET /_matrix/client/versions", "x: "),
            Self::Body => ("PUT /_matrix/client/v3/slow", "content-length: 100000\r\n\r\n"),
            Self::Read => ("GET /_matrix/client/unstable/long", "\r\n"),
        };
        format!("{line} HTTP/1.1\r\nhost: localhost\r\n{rest}")
    }
}

/// Clients that are slow together.
#[derive(Clone)]
struct Crowd {
    edge: SocketAddr,
    tls: TlsConnector,
    /// So that no handshake takes too long.
    hands: Arc<Semaphore>,
    /// Between requests nobody is hurried, so all can begin to be slow when all are connected.
    all_there: Arc<Barrier>,
    slow: Arc<AtomicUsize>,
    over: CancellationToken,
}

impl Crowd {
    fn new(edge: &Edge) -> Self {
        let mut config = trusting(&edge.ca);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            edge: edge.https,
            tls: TlsConnector::from(Arc::new(config)),
            hands: Arc::new(Semaphore::new(32)),
            all_there: Arc::new(Barrier::new(3 * CROWD + 1)),
            slow: Arc::default(),
            over: CancellationToken::new(),
        }
    }

    /// Comes to an end when all of them have.
    async fn come(self) {
        let mut clients = JoinSet::new();
        for (network, kind) in [(1, Slow::Header), (2, Slow::Body), (3, Slow::Read)] {
            for number in 0..CROWD {
                let client = Ipv4Addr::new(127, 0, network, u8::try_from(number % 200).unwrap() + 1);
                let crowd = self.clone();
                clients.spawn(async move {
                    let stream = crowd.connect(client).await;
                    crowd.all_there.wait().await;
                    // A thousand who ask in one moment would be a flood of another kind.
                    tokio::time::sleep(Duration::from_millis(number as u64)).await;
                    crowd.be_slow(kind, stream).await;
                });
            }
        }
        clients.join_all().await;
    }

    /// A connection on which something was answered already.
    async fn connect(&self, client: Ipv4Addr) -> TlsStream<TcpStream> {
        let _hand = self.hands.acquire().await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        // What the kernel takes in a client's place is little.
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(SocketAddr::new(client.into(), 0)).unwrap();
        let tcp = socket.connect(self.edge).await.unwrap();
        let mut stream = self.tls.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        stream.write_all(b"OPTIONS /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "cut before it was slow");
        }
        stream
    }

    /// Goes on until it is cut, or all are.
    async fn be_slow(&self, kind: Slow, stream: TlsStream<TcpStream>) {
        let (mut read, mut write) = tokio::io::split(stream);
        write.write_all(kind.begins_with().as_bytes()).await.unwrap();
        write.flush().await.unwrap();
        self.slow.fetch_add(1, Ordering::SeqCst);
        if let Slow::Read = kind {
            return self.over.cancelled().await;
        }
        // Whether it is told why or is just cut.
        let mut told = Vec::new();
        let mut cut = pin!(read.read_to_end(&mut told));
        while tokio::time::timeout(Duration::from_secs(1), &mut cut).await.is_err() {
            if write.write_all(b"x").await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
    }
}

impl Edge {
    /// How many clients are connected to the address with TLS.
    async fn connected(&self) -> usize {
        let metrics = self.private("/metrics").await;
        let gauge = "gatehouse_edge_connections_open{listener=\"https\"} ";
        metrics.lines().find_map(|line| line.strip_prefix(gauge)).unwrap().parse().unwrap()
    }

    async fn see_off(&self, crowd: &Crowd) {
        let every = Duration::from_millis(100);
        while crowd.slow.load(Ordering::SeqCst) < 3 * CROWD {
            tokio::time::sleep(every).await;
        }
        assert_eq!(self.connected().await, 3 * CROWD + 1, "all of them at once, and a healthy one");
        while self.connected().await > 1 {
            tokio::time::sleep(every).await;
        }
        crowd.over.cancel();
    }
}

/// Asks again and again while `so` says so; the p99 of how long the answers took.
async fn p99(healthy: &mut Connection, mut so: impl FnMut(usize) -> bool) -> Duration {
    let mut took = Vec::new();
    while so(took.len()) {
        let start = Instant::now();
        let answer = patiently("a healthy client's answer", healthy.send(request("GET", "/_matrix/client/v3/x", "")));
        let answer = answer.await.unwrap();
        took.push(start.elapsed());
        assert_eq!(answer.status, 200, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(took.len() >= 100, "{} answers have no p99", took.len());
    took.sort();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{} requests of a healthy client: median {median:?}, p99 {p99:?}", took.len());
    p99
}

#[tokio::test]
async fn thousands_of_slow_clients_are_cut_while_a_healthy_one_keeps_its_pace() {
    allow_many_descriptors();
    let policy = Policy::new("[connections]\nmin_bytes_per_second = 20000\nslow_seconds = 6\n");
    // Fewer than have a request that is not answered.
    let most = CROWD * 3 / 2;
    let sections = format!("[admission]\npolicy = {:?}\n[overload]\nrequests_per_shard = {most}\n", policy.file());
    let limits = "header_seconds = 6";
    let edge = Edge::with(Options { shards: 1, limits, sections: &sections, ..Options::default() }).await;
    let mut healthy = edge.from("127.0.0.1").await;
    let before = p99(&mut healthy, |asked| asked < 500).await;

    let crowd = Crowd::new(&edge);
    let coming = crowd.clone();
    // With a thread of their own: the healthy client and the shard are not to wait for them here, in the test.
    let slow = std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(coming.come());
    });
    tokio::time::timeout(4 * PATIENCE, crowd.all_there.wait()).await.expect("the crowd does not get in");
    let seen_off = patiently("the end of the crowd", edge.see_off(&crowd));
    let (during, ()) = tokio::join!(p99(&mut healthy, |_| !crowd.over.is_cancelled()), seen_off);
    slow.join().unwrap();
    // All share the processors, and with other tests at that.
    let bound = 3 * before + Duration::from_millis(25);
    assert!(during < bound, "its p99 was {before:?} before and {during:?} beside them");
}

/// A test may be started where few are allowed.
fn allow_many_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
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

/// The window of a stream that nobody reads is soon full, and the shard's connection is not held for it.
#[tokio::test]
async fn a_stream_of_http2_whose_answer_nobody_takes_ends() {
    let policy = Policy::new("");
    let edge = hurried(&policy).await;
    policy.write("[connections]\nmin_bytes_per_second = 50000\nslow_seconds = 2\n");
    assert_eq!(edge.command(&["reload"]).await.code, Some(0));
    let tcp = tcp_from("127.0.0.1", edge.https).await;
    let stream = tls_over(tcp, &edge.ca, "localhost", &[b"h2"]).await.unwrap();
    let mut small_window = http2::Builder::new(TokioExecutor::new());
    small_window.initial_stream_window_size(65_535);
    let (mut sender, connection) = small_window.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    const ANSWERED: &str = "gatehouse_edge_requests_total{class=\"client\",status=\"2xx\"} 1\n";
    let get = |path: &str| http::Request::get(format!("https://localhost{path}")).body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(get("/_matrix/client/unstable/long")).await.unwrap();
    patiently("the end of the request", async {
        while !edge.private("/metrics").await.contains(ANSWERED) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(answer.into_body().collect().await.is_err(), "a part was taken for the whole");
    let other = sender.send_request(get("/_matrix/client/versions")).await.unwrap();
    assert_eq!(other.status(), 200, "the connection goes on");
}

/// Only the client's turn counts: neither a long poll nor a slow shard is its fault.
#[tokio::test]
async fn a_slow_shard_cuts_nobody() {
    let policy = Policy::new("");
    let edge = hurried(&policy).await;
    for http2 in [false, true] {
        let tcp = tcp_from("127.0.0.1", edge.https).await;
        let mut connection = if http2 {
            Connection::http2_over(tcp, &edge.ca).await
        } else {
            Connection::http1_over(tcp, &edge.ca).await.unwrap()
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
