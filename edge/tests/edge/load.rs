//! Clients that never stop asking, on kept and on new connections, and take nothing but 200 for an answer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use crate::client::{Connection, request};
use crate::edge::{Edge, patiently};

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http1,
    Http2,
}

/// Clients at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: JoinSet<()>,
}

impl Load {
    /// Three clients each that keep an HTTP/1.1 and an HTTP/2 connection, and two that open one for each request.
    pub(crate) async fn start(edge: &Edge) -> Self {
        let mut load = Self { stop: Arc::default(), answered: Arc::default(), clients: JoinSet::new() };
        for client in 0..8 {
            let protocol = if client % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            load.clients.spawn(ask(client, protocol, client < 6, edge.https, edge.ca.clone(), stop, answered));
        }
        load.progress(50).await;
        load
    }

    /// Waits until so many more requests are answered.
    pub(crate) async fn progress(&self, requests: usize) {
        let target = self.answered.load(Ordering::SeqCst) + requests;
        patiently("progress", async {
            while self.answered.load(Ordering::SeqCst) < target {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                assert!(self.clients.len() == 8, "a client failed");
            }
        })
        .await;
    }

    /// Ends it, and says how many requests were answered: all of them with 200, or this panics.
    pub(crate) async fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(client) = self.clients.join_next().await {
            client.unwrap();
        }
        self.answered.load(Ordering::SeqCst)
    }
}

async fn connect(protocol: Protocol, address: SocketAddr, ca: &Path) -> Connection {
    match protocol {
        Protocol::Http1 => Connection::http1(address, ca).await,
        Protocol::Http2 => Connection::http2(address, ca).await,
    }
}

async fn ask(
    client: usize,
    protocol: Protocol,
    keeps: bool,
    address: SocketAddr,
    ca: PathBuf,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) {
    let mut connection = connect(protocol, address, &ca).await;
    let mut number = 0;
    while !stop.load(Ordering::SeqCst) {
        if !keeps || !connection.is_usable().await {
            connection = connect(protocol, address, &ca).await;
        }
        number += 1;
        // Half of them are of a kind that is never sent twice.
        let (method, target) = if number % 2 == 0 {
            ("PUT", format!("/_matrix/client/v3/rooms/!{client}-{number}:b/send/m.room.message/{number}"))
        } else {
            ("POST", format!("/_matrix/client/v3/rooms/!{client}-{number}:b/receipt/m.read/{number}"))
        };
        let sent = patiently("a request", connection.try_send(request(method, &target, "{}"))).await;
        // A connection that said goodbye between the look at it and the request: nothing was sent.
        let Some(answer) = sent else { continue };
        let answer = answer.unwrap_or_else(|error| panic!("{protocol:?}, request {number}: {error:?}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answered.fetch_add(1, Ordering::SeqCst);
    }
}
