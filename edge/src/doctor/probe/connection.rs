//! One connection: TCP, TLS, and requests over it, each step with its own time limit.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::Instruments;
use crate::doctor::observed::{Answer, Failure, TlsSeen};

/// How long a connection may take, in seconds.
const CONNECT_WITHIN: u64 = 5;
/// How long an answer may take, its body included, in seconds.
const ANSWER_WITHIN: u64 = 15;
/// The most of a body that is read, in bytes. No document of those that are asked for is near it.
pub(crate) const MOST_BODY: usize = 64 * 1024;

/// The version of HTTP that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

impl Version {
    fn alpn(self) -> &'static str {
        match self {
            Self::Http1 => "http/1.1",
            Self::Http2 => "h2",
        }
    }
}

/// A connection that can be asked.
pub(crate) struct Connection {
    sender: Sender,
    request_id: String,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Connection {
    /// Connects to `address` and expects `tls_host` there. What the handshake showed is told also when it failed.
    pub(crate) async fn open(
        instruments: &Instruments<'_>,
        address: SocketAddr,
        tls_host: &str,
        version: Version,
    ) -> (Option<TlsSeen>, Result<Self, Failure>) {
        let tcp = match connect(address).await {
            Ok(tcp) => tcp,
            Err(failure) => return (None, Err(failure)),
        };
        let (seen, shaken) = instruments.trust.shake_hands(tcp, tls_host, version.alpn()).await;
        let stream = match shaken {
            Ok(stream) => stream,
            Err(failure) => return (seen, Err(failure)),
        };
        let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        // Whoever agrees on nothing speaks HTTP/1.1.
        if version == Version::Http2 && agreed.as_deref() != Some(b"h2") {
            return (seen, Err(Failure::NotSpoken("HTTP/2")));
        }
        let sender = match version {
            Version::Http1 => http1::handshake(TokioIo::new(stream)).await.map(|(sender, connection)| {
                tokio::spawn(connection);
                Sender::Http1(sender)
            }),
            Version::Http2 => {
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map(|(sender, connection)| {
                    tokio::spawn(connection);
                    Sender::Http2(sender)
                })
            }
        };
        let request_id = instruments.request_id.clone();
        (seen, sender.map(|sender| Self { sender, request_id }).map_err(|error| Failure::Http(told(&error))))
    }

    /// Asks for `path` of `host`. A browser is played where `origin` is given.
    pub(crate) async fn get(
        &mut self,
        instruments: &Instruments<'_>,
        host: &str,
        path: &str,
        origin: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut request = Request::builder()
            .header(header::USER_AGENT, concat!("gatehouse-doctor/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, "application/json")
            .header("x-request-id", &self.request_id);
        if let Some(origin) = origin {
            request = request.header(header::ORIGIN, origin);
        }
        request = match &self.sender {
            Sender::Http1(_) => request.uri(path).header(header::HOST, host),
            Sender::Http2(_) => {
                let absolute = Uri::builder().scheme("https").authority(host).path_and_query(path).build();
                request.uri(absolute.map_err(|error| Failure::Http(error.to_string()))?)
            }
        };
        let request = request.body(Empty::new()).map_err(|error| Failure::Http(error.to_string()))?;
        let answer = self.exchange(instruments, request);
        let answer = tokio::time::timeout(Duration::from_secs(ANSWER_WITHIN), answer).await;
        answer.unwrap_or(Err(Failure::HttpTimeout(ANSWER_WITHIN)))
    }

    async fn exchange(
        &mut self,
        instruments: &Instruments<'_>,
        request: Request<Empty<Bytes>>,
    ) -> Result<Answer, Failure> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => match sender.ready().await {
                Ok(()) => sender.send_request(request).await,
                Err(error) => Err(error),
            },
            Sender::Http2(sender) => sender.send_request(request).await,
        };
        let (head, body) = response.map_err(|error| Failure::Http(told(&error)))?.into_parts();
        let at = instruments.clock.now();
        let (body, is_cut) = match Limited::new(body, MOST_BODY).collect().await {
            Ok(body) => (body.to_bytes().to_vec(), false),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => (Vec::new(), true),
            Err(error) => return Err(Failure::Http(format!("the body breaks off: {error}"))),
        };
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, is_cut, at })
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    match tokio::time::timeout(Duration::from_secs(CONNECT_WITHIN), TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            // A few small requests; the error would show in the next step anyway.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => Err(match error.kind() {
            ErrorKind::ConnectionRefused => Failure::Refused,
            ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable | ErrorKind::Unsupported => {
                Failure::NoWay(error.to_string())
            }
            _ => Failure::Connect(error.to_string()),
        }),
        Err(_) => Err(Failure::ConnectTimeout(CONNECT_WITHIN)),
    }
}

/// An error of hyper with its cause, which says more than the error.
fn told(error: &hyper::Error) -> String {
    crate::config::chain_of(error)
}
