//! A client that speaks HTTP/1.1 or HTTP/2 over TLS and trusts the edge's development authority.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        Self::try_read(response).await.unwrap()
    }

    /// Fails when the body breaks off.
    async fn try_read<B: hyper::body::Body<Data = Bytes>>(response: Response<B>) -> Result<Self, B::Error> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status, headers: head.headers, body })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }

    /// Asserts a refusal that no other page may read.
    #[track_caller]
    pub(crate) fn assert_status_without_cors(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert!(!self.headers.contains_key("access-control-allow-origin"), "{self:?}");
    }

    /// Asserts a Matrix error that a browser may read.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, errcode: &str) {
        assert_eq!((self.status.as_u16(), self.json()["errcode"].as_str()), (status, Some(errcode)), "{self:?}");
        assert!(self.json()["error"].is_string());
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("access-control-allow-origin"), "*");
    }
}

pub(crate) async fn tls(address: SocketAddr, ca: &Path, name: &str, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    tls_over(TcpStream::connect(address).await.unwrap(), ca, name, protocols).await.unwrap()
}

pub(crate) async fn tls_over(
    tcp: TcpStream,
    ca: &Path,
    name: &str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = trusting(ca);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A client's TLS that trusts the authorities in `ca` alone.
pub(crate) fn trusting(ca: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    config.with_root_certificates(roots).with_no_client_auth()
}

/// Connects from an address of this machine (all of 127.0.0.0/8 is), so that a test has many clients.
pub(crate) async fn tcp_from(client: &str, address: SocketAddr) -> TcpStream {
    try_tcp_from(client, address).await.unwrap()
}

pub(crate) async fn try_tcp_from(client: &str, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(client.parse().unwrap(), 0)).unwrap();
    socket.connect(address).await
}

/// One connection.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    pub(crate) async fn http1(address: SocketAddr, ca: &Path) -> Self {
        Self::http1_as(address, ca, "localhost").await
    }

    /// To the server that calls itself `name`.
    pub(crate) async fn http1_as(address: SocketAddr, ca: &Path, name: &str) -> Self {
        Self::http1_named(TcpStream::connect(address).await.unwrap(), ca, name).await.unwrap()
    }

    pub(crate) async fn http1_over(tcp: TcpStream, ca: &Path) -> std::io::Result<Self> {
        Self::http1_named(tcp, ca, "localhost").await
    }

    async fn http1_named(tcp: TcpStream, ca: &Path, name: &str) -> std::io::Result<Self> {
        let stream = tls_over(tcp, ca, name, &[b"http/1.1"]).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self::Http1(sender))
    }

    pub(crate) async fn http2(address: SocketAddr, ca: &Path) -> Self {
        Self::http2_as(address, ca, "localhost").await
    }

    /// To the server that calls itself `name`.
    pub(crate) async fn http2_as(address: SocketAddr, ca: &Path, name: &str) -> Self {
        Self::http2_named(TcpStream::connect(address).await.unwrap(), ca, name).await
    }

    pub(crate) async fn http2_over(tcp: TcpStream, ca: &Path) -> Self {
        Self::http2_named(tcp, ca, "localhost").await
    }

    async fn http2_named(tcp: TcpStream, ca: &Path, name: &str) -> Self {
        let stream = tls_over(tcp, ca, name, &[b"h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    /// Whether another request may be sent: the server has not said that this connection ends.
    pub(crate) async fn is_usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Like [`Self::send`], or `None` when the connection ended before anything of the request was sent.
    pub(crate) async fn try_send(&mut self, mut request: Request<Full<Bytes>>) -> Option<hyper::Result<Answer>> {
        let sent = match self {
            Self::Http1(sender) => {
                request.headers_mut().insert("host", "localhost".parse().unwrap());
                sender.try_send_request(request).await
            }
            Self::Http2(sender) => {
                let target = request.uri().path_and_query().unwrap().as_str();
                *request.uri_mut() = format!("https://localhost{target}").parse().unwrap();
                sender.try_send_request(request).await
            }
        };
        match sent {
            Ok(response) => Some(Ok(Answer::read(response).await)),
            Err(mut error) => match error.take_message() {
                Some(_unsent) => None,
                None => Some(Err(error.into_error())),
            },
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        Ok(Answer::read(self.begin(request).await?).await)
    }

    /// Like [`Self::send`], and fails as well when the answer's body breaks off.
    pub(crate) async fn try_read(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        Answer::try_read(self.begin(request).await?).await
    }

    async fn begin(&mut self, mut request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                request.headers_mut().entry("host").or_insert_with(|| "localhost".parse().unwrap());
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                let target = request.uri().path_and_query().unwrap().as_str();
                *request.uri_mut() = format!("https://localhost{target}").parse().unwrap();
                sender.send_request(request).await
            }
        }
    }
}

pub(crate) fn request(method: &str, target: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(target).body(Full::new(body.into())).unwrap()
}
