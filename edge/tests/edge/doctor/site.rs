//! Real servers with real TLS, which answer what a test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use gatehouse_shared::clock::{Clock, SystemClock};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::authority::Issued;

pub(super) const SERVER_DOCUMENT: &str = "/.well-known/matrix/server";
pub(super) const CLIENT_DOCUMENT: &str = "/.well-known/matrix/client";
pub(super) const KEYS: &str = "/_matrix/key/v2/server";
pub(super) const VERSION: &str = "/_matrix/federation/v1/version";
pub(super) const VERSIONS: &str = "/_matrix/client/versions";

/// What a path answers.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Page {
    pub(super) fn json(body: impl Into<String>) -> Self {
        let headers =
            vec![("content-type", "application/json".to_owned()), ("access-control-allow-origin", "*".to_owned())];
        Self { status: 200, headers, body: body.into() }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::status(301).with("location", to)
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// A server at some addresses.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) certificate: Issued,
    pub(super) protocols: Vec<&'static [u8]>,
    pub(super) pages: HashMap<&'static str, Page>,
    /// Speaks HTTP/1.1 whatever was agreed upon.
    pub(super) http1_only: bool,
}

impl Site {
    pub(super) fn at(addresses: &[&str], port: u16, certificate: Issued) -> Self {
        let listen = addresses.iter().map(|address| SocketAddr::new(address.parse().unwrap(), port)).collect();
        Self { listen, certificate, protocols: vec![b"h2", b"http/1.1"], pages: HashMap::new(), http1_only: false }
    }

    pub(super) fn page(mut self, path: &'static str, page: Page) -> Self {
        self.pages.insert(path, page);
        self
    }

    /// Listens; the tasks end with the test's runtime.
    pub(super) async fn open(&self) {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let (chain, key) = (self.certificate.chain.clone(), self.certificate.key());
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        config.alpn_protocols = self.protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let pages = Arc::new(self.pages.clone());
        let http1_only = self.http1_only;
        for address in &self.listen {
            let listener = TcpListener::bind(address).await.unwrap();
            let (acceptor, pages) = (acceptor.clone(), pages.clone());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (acceptor, pages) = (acceptor.clone(), pages.clone());
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, pages, http1_only).await;
                        }
                    });
                }
            });
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    pages: Arc<HashMap<&'static str, Page>>,
    http1_only: bool,
) {
    let service = service_fn(move |request| {
        let pages = pages.clone();
        async move { Ok::<_, std::convert::Infallible>(answer(&request, &pages)) }
    });
    let mut connection = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    if http1_only {
        connection = connection.http1_only();
    }
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, pages: &HashMap<&'static str, Page>) -> Response<Full<Bytes>> {
    let page = pages.get(request.uri().path()).cloned().unwrap_or_else(|| Page::status(404));
    let mut response = Response::builder().status(page.status);
    for (name, value) in page.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(page.body.into())).unwrap()
}

/// A shard with these pages at a Unix socket.
pub(super) fn shard(socket: &std::path::Path, pages: HashMap<&'static str, Page>) {
    let listener = UnixListener::bind(socket).unwrap();
    let pages = Arc::new(pages);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, pages.clone(), false));
        }
    });
}

/// Milliseconds since the Unix epoch, so many hours from now.
pub(super) fn in_hours(hours: i64) -> i64 {
    i64::try_from(SystemClock.now_ms()).unwrap() + hours * 3_600_000
}

/// A document of one key, signed by it; its canonical form is written by hand.
pub(super) fn key_document(server_name: &str, valid_until_ts: i64) -> String {
    key_document_of("ed25519:a", server_name, valid_until_ts)
}

pub(super) fn key_document_of(key_id: &str, server_name: &str, valid_until_ts: i64) -> String {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let public = STANDARD_NO_PAD.encode(key.public_key_raw());
    let head = "{\"old_verify_keys\":{},\"server_name\":\"".to_owned() + server_name + "\",";
    let tail =
        format!("\"valid_until_ts\":{valid_until_ts},\"verify_keys\":{{\"{key_id}\":{{\"key\":\"{public}\"}}}}}}");
    let signature = STANDARD_NO_PAD.encode(key.sign((head.clone() + &tail).as_bytes()).unwrap());
    format!("{head}\"signatures\":{{\"{server_name}\":{{\"{key_id}\":\"{signature}\"}}}},{tail}")
}
