//! A small shard: real HTTP over a real Unix socket, with behaviour that a test chooses.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gatehouse_shared::config::Secret;
use gatehouse_shared::contract::{ClusterSecret, HEALTH_PATH, verify};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const SECRET: &str = "a cluster secret for tests, long enough";

/// What the shard does with its next request; without orders it echoes.
pub(crate) enum Order {
    /// Takes the request, and waits until the test says so before it echoes.
    Wait(Arc<Notify>),
    /// Answers 200 with these headers and this body.
    Say(Vec<(&'static str, &'static str)>, String),
    /// The same, once the test says so.
    SayWhen(Arc<Notify>, Vec<(&'static str, &'static str)>, String),
    /// Answers with this status and headers.
    Answer(StatusCode, Vec<(&'static str, &'static str)>),
    /// Takes the request and dies: every connection is cut and the socket is gone.
    Die,
    /// Takes the request and cuts this one connection.
    HangUp,
}

/// Copies in turns, as `tokio::io::copy` does, whoever reads or writes.
async fn copy<R, W>(mut from: R, mut to: W) -> std::io::Result<u64>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    tokio::io::copy(&mut from, &mut to).await
}

/// A running shard.
pub(crate) struct Shard {
    pub(crate) path: PathBuf,
    name: String,
    secret: ClusterSecret,
    orders: Mutex<VecDeque<Order>>,
    served: Mutex<usize>,
    accepted: Mutex<usize>,
    /// Notified with each request that is taken.
    pub(crate) taken: Notify,
    draining: AtomicBool,
    alive: CancellationToken,
    connections: TaskTracker,
}

impl Shard {
    pub(crate) fn start(path: &Path, name: &str) -> Arc<Self> {
        // The socket of a dead shard stays in the way of the next one.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let shard = Arc::new(Self {
            path: path.to_owned(),
            name: name.to_owned(),
            secret: ClusterSecret::new(&Secret::new(SECRET)).unwrap(),
            orders: Mutex::default(),
            served: Mutex::default(),
            accepted: Mutex::default(),
            taken: Notify::new(),
            draining: AtomicBool::new(false),
            alive: CancellationToken::new(),
            connections: TaskTracker::new(),
        });
        tokio::spawn(shard.clone().accept(listener));
        shard
    }

    pub(crate) fn order(&self, order: Order) {
        self.orders.lock().unwrap().push_back(order);
    }

    /// How many connections it has accepted, health checks included.
    pub(crate) fn accepted(&self) -> usize {
        *self.accepted.lock().unwrap()
    }

    /// Says from now on that it is about to end.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// How many requests it has taken.
    pub(crate) fn served(&self) -> usize {
        *self.served.lock().unwrap()
    }

    /// Cuts every connection and stops listening.
    pub(crate) async fn die(&self) {
        self.alive.cancel();
        self.connections.close();
        self.connections.wait().await;
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                () = self.alive.cancelled() => return,
                accepted = listener.accept() => accepted.unwrap().0,
            };
            *self.accepted.lock().unwrap() += 1;
            let shard = self.clone();
            self.connections.spawn(async move {
                let alive = shard.alive.clone();
                let service = service_fn(move |request| shard.clone().answer(request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(accepted), service)
                    .with_upgrades();
                tokio::select! {
                    () = alive.cancelled() => {}
                    _ = connection => {}
                }
            });
        }
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        if request.uri().path() == HEALTH_PATH {
            let draining = self.draining.load(Ordering::Relaxed);
            let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            return Ok(Response::builder().status(status).body(Full::default()).unwrap());
        }
        if request.headers().contains_key("upgrade") {
            return Ok(upgrade(request));
        }
        if request.uri().path() == LONG {
            return Ok(Response::new(Full::new(Bytes::from_static(&LONG_ANSWER))));
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
        *self.served.lock().unwrap() += 1;
        self.taken.notify_one();
        let order = self.orders.lock().unwrap().pop_front();
        match order {
            Some(Order::Wait(until)) => until.notified().await,
            Some(Order::Say(headers, body)) => return Ok(said(headers, body)),
            Some(Order::SayWhen(when, headers, body)) => {
                when.notified().await;
                return Ok(said(headers, body));
            }
            Some(Order::Answer(status, headers)) => {
                let mut response = Response::builder().status(status);
                for (name, value) in headers {
                    response = response.header(name, value);
                }
                return Ok(response.body(Full::default()).unwrap());
            }
            Some(Order::Die) => {
                self.alive.cancel();
                std::future::pending::<()>().await;
            }
            Some(Order::HangUp) => return Err(std::io::Error::other("hangs up")),
            None => {}
        }
        let forwarded = verify(&self.secret, &head.method, &head.uri, &head.headers);
        let headers: Vec<(String, String)> = head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let echo = serde_json::json!({
            "shard": self.name,
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(&body),
            "body_bytes": body.len(),
            "forwarded": match forwarded {
                Ok(forwarded) => serde_json::json!({
                    "client": forwarded.client.to_string(),
                    "scheme": forwarded.scheme.as_str(),
                    "host": forwarded.host,
                    "request_id": forwarded.request_id,
                }),
                Err(error) => serde_json::json!({ "error": error.to_string() }),
            },
        });
        Ok(Response::new(Full::new(echo.to_string().into())))
    }
}

fn said(headers: Vec<(&'static str, &'static str)>, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::builder();
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::from(body)).unwrap()
}

/// How many bytes a shard sends on its own, and reads meanwhile, at the target [`FLOOD`].
pub(crate) const FLOOD_BYTES: u64 = 32 << 20;
/// Where a shard switches protocols, sends and reads at once and then says goodbye by one byte of its own.
pub(crate) const FLOOD: &str = "/_matrix/client/unstable/flood";
/// Where a shard switches protocols and reads nothing.
pub(crate) const DEAF: &str = "/_matrix/client/unstable/deaf";

/// Where a shard answers with more than a kernel takes in its client's place.
const LONG: &str = "/_matrix/client/unstable/long";
static LONG_ANSWER: [u8; 1 << 20] = [b'x'; 1 << 20];

/// Switches protocols and echoes bytes from then on, or does what the target says.
pub(crate) fn upgrade(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.uri().path().to_owned();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let stream = TokioIo::new(upgraded.await.unwrap());
        let (mut read, mut write) = tokio::io::split(stream);
        match target.as_str() {
            FLOOD => {
                let sent = tokio::io::repeat(b's').take(FLOOD_BYTES);
                let received = (&mut read).take(FLOOD_BYTES);
                let (sent, received) = tokio::join!(copy(sent, &mut write), copy(received, tokio::io::sink()));
                assert_eq!((sent.unwrap(), received.unwrap()), (FLOOD_BYTES, FLOOD_BYTES));
                write.write_all(b".").await.unwrap();
                let _ = copy(read, tokio::io::sink()).await;
            }
            DEAF => std::future::pending().await,
            _ => drop(copy(read, write).await),
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .body(Full::default())
        .unwrap()
}
