//! Another server behind the edge: says what it was asked, over any stream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::TlsAcceptor;

use crate::double::upgrade;

/// A running server.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
}

impl Backend {
    /// Over TCP.
    pub(crate) async fn tcp(name: &'static str) -> Self {
        Self::accepting(move |stream, counter| serve(stream, name, counter)).await
    }

    /// Over TLS.
    pub(crate) async fn tls(name: &'static str, acceptor: TlsAcceptor) -> Self {
        Self::accepting(move |stream, counter| {
            let acceptor = acceptor.clone();
            async move {
                // A client that does not trust it goes away.
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, name, counter).await;
                }
            }
        })
        .await
    }

    async fn accepting<S>(serve: impl Fn(TcpStream, Arc<AtomicUsize>) -> S + Send + 'static) -> Self
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                tokio::spawn(serve(stream, counter.clone()));
            }
        });
        Self { address, asked }
    }

    /// Over a Unix socket.
    pub(crate) fn unix(name: &'static str, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                tokio::spawn(serve(stream, name, Arc::default()));
            }
        });
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    name: &'static str,
    asked: Arc<AtomicUsize>,
) {
    let service = service_fn(move |request| {
        asked.fetch_add(1, Ordering::Relaxed);
        answer(request, name)
    });
    // Its client may cut the connection.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(request: Request<Incoming>, name: &'static str) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        return Ok(upgrade(request));
    }
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/status-503") {
        let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
        return Ok(response.header("x-gatehouse-verdict", "bad-token x").body(Full::from("its own words")).unwrap());
    }
    if head.uri.path().ends_with("/never") {
        std::future::pending::<()>().await;
    }
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let echo = serde_json::json!({
        "backend": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body_bytes": body.len(),
    });
    let answer = Response::builder().header("x-powered-by", "a test").header("x-answer", "its own");
    Ok(answer.body(Full::new(echo.to_string().into())).unwrap())
}
