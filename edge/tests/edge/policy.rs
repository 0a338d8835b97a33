//! An edge with a policy, and clients at many addresses of this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::Full;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

use crate::client::{Answer, Connection, request, tcp_from, try_tcp_from};
use crate::double::{Order, Shard};
use crate::edge::{Edge, Options, patiently};

/// Nobody is exempt, so that the addresses of this machine are clients like any other.
pub(crate) const STRICT: &str = "[addresses]\nexempt = []\nignore = []\n";

/// A folder with a policy, which may change.
pub(crate) struct Policy {
    folder: TempDir,
}

impl Policy {
    pub(crate) fn new(text: &str) -> Self {
        let policy = Self { folder: tempfile::tempdir().unwrap() };
        policy.write(text);
        policy
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(self.file(), format!("{STRICT}{text}")).unwrap();
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("policy.toml")
    }

    /// Where bans are kept.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// An edge with this policy and further lines for `[admission]`.
    pub(crate) async fn edge(&self, admission: &str) -> Edge {
        let file = self.file();
        let sections = format!("[admission]\npolicy = {file:?}\n{admission}\n");
        Edge::with(Options { shards: 1, sections: &sections, ..Options::default() }).await
    }
}

impl Edge {
    /// A connection from `client`.
    pub(crate) async fn from(&self, client: &str) -> Connection {
        Connection::http1_over(tcp_from(client, self.https).await, &self.ca).await.unwrap()
    }

    /// One request from `client` on a connection of its own.
    pub(crate) async fn ask_from(&self, client: &str, request: Request<Full<bytes::Bytes>>) -> Answer {
        let mut connection = self.from(client).await;
        patiently("an answer", connection.send(request)).await.unwrap()
    }

    /// Whether a connection from `client` is dropped before it may say anything.
    pub(crate) async fn drops(&self, client: &str) -> bool {
        self.drops_at(client, self.https).await
    }

    /// The same for one of the edge's addresses.
    pub(crate) async fn drops_at(&self, client: &str, address: SocketAddr) -> bool {
        // The reset may be here before the connection is looked at.
        let Ok(mut tcp) = try_tcp_from(client, address).await else { return true };
        let mut byte = [0];
        // A server that lets a client in waits for its hello.
        let read = tokio::time::timeout(std::time::Duration::from_millis(200), tcp.read(&mut byte)).await;
        read.is_ok_and(|read| read.is_err() || read.is_ok_and(|bytes| bytes == 0))
    }

    /// Has the shard find `count` requests of `client` at fault. The last ones may go unanswered.
    pub(crate) async fn offend(&self, client: &str, verdict: &'static str, count: usize) {
        for _ in 0..count {
            self.shards[0].order(verdict_order(verdict));
            let login = request("POST", "/_matrix/client/v3/login", "{}");
            let mut connection = self.from(client).await;
            let _ = patiently("a verdict", connection.send(login)).await;
        }
    }

    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.shards[0]
    }
}

pub(crate) fn verdict_order(verdict: &'static str) -> Order {
    Order::Answer(StatusCode::FORBIDDEN, vec![("x-gatehouse-verdict", verdict)])
}
