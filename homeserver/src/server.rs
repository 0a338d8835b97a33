//! Serves a shard over Unix sockets and TCP, and ends it in order: not healthy, no new connections, last answers.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::Router;
use gatehouse_shared::net::ListenAddr;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long requests in flight may take when the shard ends.
const DRAIN_WITHIN: Duration = Duration::from_secs(12);
/// The largest header of a request, in bytes, which is also the most that a connection buffers.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Pause after the system refused to accept, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    address: ListenAddr,
    source: io::Error,
}

impl Listener {
    /// Binds `address`. A Unix socket is readable by its owner only; a stale one is replaced.
    ///
    /// # Errors
    /// When the address is in use or may not be used.
    pub async fn bind(address: &ListenAddr) -> Result<Self, BindError> {
        let failed = |source| BindError { address: address.clone(), source };
        match address {
            ListenAddr::Tcp(socket) => TcpListener::bind(socket).await.map(Self::Tcp).map_err(failed),
            ListenAddr::Unix(path) => {
                bind_unix(path).await.map(|listener| Self::Unix(listener, path.clone())).map_err(failed)
            }
        }
    }

    /// Where it listens; with the port that the system chose.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn address(&self) -> io::Result<ListenAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(ListenAddr::Tcp),
            Self::Unix(_, path) => Ok(ListenAddr::Unix(path.clone())),
        }
    }
}

/// Binds at `path` itself and not beside it with a move afterwards: the name that a socket was bound to is what its
/// clients see, and the edge keeps a connection for the next request only when that is the name it connected to.
///
/// A folder that others cannot enter keeps them out until the mode is set.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on this socket"));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves `router` on all listeners until `stop`, then lets requests in flight finish.
pub async fn serve(listeners: Vec<Listener>, router: Router, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let accepting = TaskTracker::new();
    for listener in listeners {
        let server = Server { router: router.clone(), connections: connections.clone(), stop: stop.clone() };
        accepting.spawn(server.accept(listener));
    }
    accepting.close();
    accepting.wait().await;
    connections.close();
    if tokio::time::timeout(DRAIN_WITHIN, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "some requests did not finish in time");
    }
}

struct Server {
    router: Router,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    async fn accept(self, listener: Listener) {
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = self.accept_one(&listener) => accepted,
            };
            if let Err(error) = accepted {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    async fn accept_one(&self, listener: &Listener) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener) => {
                let (connection, _) = listener.accept().await?;
                connection.set_nodelay(true)?;
                self.spawn(connection);
            }
            Listener::Unix(listener, _) => self.spawn(listener.accept().await?.0),
        }
        Ok(())
    }

    fn spawn(&self, connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = TowerToHyperService::new(self.router.clone());
        let stop = self.stop.clone();
        self.connections.spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().max_buf_size(MAX_HEADER_BYTES);
            let connection = builder.serve_connection(TokioIo::new(connection), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(error, "a connection ended early");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    async fn ask(stream: &mut UnixStream, path: &str) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.sock");
        let address = ListenAddr::Unix(path.clone());
        let first = Listener::bind(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&address).await.is_err());
        drop(first);
        assert!(path.exists());
        Listener::bind(&address).await.unwrap();
    }

    #[tokio::test]
    async fn requests_in_flight_finish_after_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shard.sock");
        let listener = Listener::bind(&ListenAddr::Unix(path.clone())).await.unwrap();
        let (begun, mut has_begun) = tokio::sync::mpsc::channel::<()>(1);
        let router = Router::new().route(
            "/slow",
            get(move || async move {
                begun.send(()).await.ok();
                tokio::time::sleep(Duration::from_millis(100)).await;
                "done"
            }),
        );
        let stop = CancellationToken::new();
        let served = tokio::spawn(serve(vec![listener], router, stop.clone()));
        let mut idle = UnixStream::connect(&path).await.unwrap();
        let mut busy = UnixStream::connect(&path).await.unwrap();
        ask(&mut busy, "/slow").await;
        has_begun.recv().await.unwrap();
        stop.cancel();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
        served.await.unwrap();
        assert!(UnixStream::connect(&path).await.is_err());
    }
}
