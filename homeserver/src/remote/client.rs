//! Sends signed requests to other servers, within limits, and says whose fault a failure is.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use gatehouse_shared::{clock::Clock, servers::ServerNames};
use http::{StatusCode, header};
use parking_lot::{Mutex, RwLock};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use ruma::{
    OwnedServerName, ServerName,
    api::{
        IncomingResponse, OutgoingBody, OutgoingRequest, SupportedVersions,
        path_builder::{PathBuilder, SinglePath, VersionHistory},
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::{
    config::RemoteConfig,
    destinations::Destinations,
    discovery::{Discovery, DiscoveryError, Route, ip_literal},
    dns::Dns,
    signing_key::SigningKey,
    x_matrix,
};

/// Connections to one server at a time.
const CONNECTIONS: usize = 8;
/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Servers whose connections are kept.
const KEPT: usize = 2_000;

/// How much a call is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Others may answer too, or later will do: not asked while the server counts as dead; one minute, 16 MiB.
    Brief,
    /// A person waits for just this server: asked even while it counts as dead; three minutes, 128 MiB.
    Insistent,
}

impl Patience {
    fn timeout(self) -> Duration {
        match self {
            Self::Brief => Duration::from_secs(60),
            Self::Insistent => Duration::from_secs(180),
        }
    }

    fn max_bytes(self) -> usize {
        match self {
            Self::Brief => 16 * 1024 * 1024,
            Self::Insistent => 128 * 1024 * 1024,
        }
    }
}

/// Whose fault it is that a call failed: decides retry, ban and alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The other server answered, and what it said does not help.
    Peer,
    /// The other server cannot be reached now; later may be better.
    Unreachable,
    /// A bug of ours, or what our operator decided.
    Ours,
}

/// Why a call to another server failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("{0} counts as dead and is asked again later")]
    BackingOff(OwnedServerName),
    #[error("cannot find the server")]
    NotFound(#[from] DiscoveryError),
    #[error("the server did not answer")]
    NoAnswer(#[source] reqwest::Error),
    /// An answer that is an error.
    #[error("the server answered {status} {errcode}: {message}")]
    Refused { status: StatusCode, errcode: String, message: String, body: Map<String, Value> },
    #[error("the server's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the server's answer cannot be understood")]
    Nonsense(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("federation is switched off")]
    Disabled,
    /// By the lists of the operator's policy.
    #[error("this server has nothing to do with {0}")]
    Denied(OwnedServerName),
    #[error("this server asked itself")]
    Ourselves,
    #[error("the request could not be made")]
    Unmakeable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RequestError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::BackingOff(_) | Self::NotFound(_) | Self::NoAnswer(_) => Blame::Unreachable,
            Self::Refused { status, .. } if status.is_server_error() => Blame::Unreachable,
            Self::Refused { .. } | Self::TooLong(_) | Self::Nonsense(_) => Blame::Peer,
            Self::Disabled | Self::Denied(_) | Self::Ourselves | Self::Unmakeable(_) => Blame::Ours,
        }
    }

    /// How long the other server asks to be left alone (`429 M_LIMIT_EXCEEDED`).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { status, body, .. } if *status == StatusCode::TOO_MANY_REQUESTS => {
                body.get("retry_after_ms").and_then(Value::as_u64).map(Duration::from_millis)
            }
            _ => None,
        }
    }

    /// The errcode of an answer that is an error.
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Refused { errcode, .. } => Some(errcode),
            _ => None,
        }
    }
}

/// Why no client can be made. The operator has to mend it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot read certificates from {}", path.display())]
    ExtraCa { path: PathBuf, source: rustls::pki_types::pem::Error },
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("cannot set up the DNS resolver")]
    Dns(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot set up the HTTP client")]
    Http(#[source] reqwest::Error),
}

/// Calls other servers. Clones share connections and memory.
#[derive(Clone)]
pub struct FederationClient {
    shared: Arc<Shared>,
}

struct Shared {
    is_enabled: bool,
    servers: RwLock<ServerNames>,
    key: SigningKey,
    discovery: Discovery,
    destinations: Destinations,
    tls: rustls::ClientConfig,
    connections: Mutex<HashMap<OwnedServerName, Arc<Connection>>>,
}

/// One server, where it was found. Its address is fixed in the client, because a `Host` and a certificate's name do
/// not tell where a service record leads.
struct Connection {
    route: Route,
    http: reqwest::Client,
    permits: Semaphore,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed {
    Yes,
    No,
}

impl FederationClient {
    /// # Errors
    /// When the configured certificates or the system's DNS configuration cannot be used.
    pub fn new(
        config: &RemoteConfig,
        key: SigningKey,
        destinations: Destinations,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let tls = tls_config(&config.extra_ca_files)?;
        let dns = Dns::new(&config.name_servers, config.allowed_private_addresses.clone())
            .map_err(|error| ClientError::Dns(error.into()))?;
        let discovery = Discovery::new(dns, tls.clone(), clock).map_err(ClientError::Http)?;
        let shared = Shared {
            is_enabled: config.is_enabled,
            servers: RwLock::default(),
            key,
            discovery,
            destinations,
            tls,
            connections: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether other servers are called at all.
    pub fn is_enabled(&self) -> bool {
        self.shared.is_enabled
    }

    /// Replaces the lists of the servers that are called; at first, all are. What is under way goes on.
    pub fn set_servers(&self, servers: ServerNames) {
        *self.shared.servers.write() = servers;
    }

    /// Whether the operator's policy lets us call this server.
    pub fn may_call(&self, server_name: &ServerName) -> bool {
        self.shared.servers.read().may_talk(server_name.as_str())
    }

    /// The memory of dead servers that this client writes.
    pub fn destinations(&self) -> &Destinations {
        &self.shared.destinations
    }

    /// Sends a signed request and reads the answer.
    ///
    /// # Errors
    /// See [`RequestError`]; an answer with an error status is [`RequestError::Refused`].
    pub async fn send<R>(
        &self,
        destination: &ServerName,
        request: R,
        patience: Patience,
    ) -> Result<R::IncomingResponse, RequestError>
    where
        R: OutgoingRequest<PathBuilder = SinglePath>,
    {
        self.exchange::<R>(destination, written(request, ())?, Signed::Yes, patience).await
    }

    /// As [`Self::send`], for endpoints whose path depends on the version of the specification.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_versioned<R>(
        &self,
        destination: &ServerName,
        request: R,
        patience: Patience,
    ) -> Result<R::IncomingResponse, RequestError>
    where
        R: OutgoingRequest<PathBuilder = VersionHistory>,
    {
        let versions = SupportedVersions {
            versions: [ruma::api::MatrixVersion::V1_1, ruma::api::MatrixVersion::V1_16].into(),
            features: Default::default(),
        };
        let request = written(request, std::borrow::Cow::Owned(versions))?;
        self.exchange::<R>(destination, request, Signed::Yes, patience).await
    }

    /// Sends a request that needs no signature: those for keys, without which no signature can be verified.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_unsigned<R>(
        &self,
        destination: &ServerName,
        request: R,
    ) -> Result<R::IncomingResponse, RequestError>
    where
        R: OutgoingRequest<PathBuilder = SinglePath>,
    {
        self.exchange::<R>(destination, written(request, ())?, Signed::No, Patience::Brief).await
    }

    /// Sends a signed `GET` and answers as soon as the headers of a success are there; the caller reads the body, with
    /// a limit of its own.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn open(&self, destination: &ServerName, target: &str) -> Result<reqwest::Response, RequestError> {
        let request = http::Request::get(target).body(Vec::new()).map_err(|error| unmakeable(error.into()))?;
        let response = self.answered(destination, request, Signed::Yes, Patience::Insistent).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refused(status, &read_body(response, Patience::Brief.max_bytes()).await?))
    }

    async fn exchange<R: OutgoingRequest>(
        &self,
        destination: &ServerName,
        request: http::Request<Vec<u8>>,
        signed: Signed,
        patience: Patience,
    ) -> Result<R::IncomingResponse, RequestError> {
        let response = self.answered(destination, request, signed, patience).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_body(response, patience.max_bytes()).await?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        let mut response = http::Response::new(body.as_ref());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        R::IncomingResponse::try_from_http_response_inner(response)
            .map_err(|error| RequestError::Nonsense(error.into()))
    }

    /// Asks, unless the server counts as dead, and remembers how it went.
    async fn answered(
        &self,
        destination: &ServerName,
        request: http::Request<Vec<u8>>,
        signed: Signed,
        patience: Patience,
    ) -> Result<reqwest::Response, RequestError> {
        if !self.shared.is_enabled {
            return Err(RequestError::Disabled);
        }
        if destination == self.shared.key.server_name() {
            return Err(RequestError::Ourselves);
        }
        if !self.may_call(destination) {
            return Err(RequestError::Denied(destination.to_owned()));
        }
        let destinations = &self.shared.destinations;
        if patience == Patience::Brief && destinations.is_backing_off(destination).await {
            return Err(RequestError::BackingOff(destination.to_owned()));
        }
        let started = destinations.now_ms();
        let result = self.attempt(destination, request, signed, patience).await;
        match &result {
            Ok(response) if response.status().is_server_error() => destinations.failed(destination, started).await,
            Ok(_) => destinations.succeeded(destination).await,
            Err(error) if error.blame() == Blame::Unreachable => {
                // It may have moved.
                self.shared.discovery.forget(destination);
                destinations.failed(destination, started).await;
            }
            Err(_) => {}
        }
        result
    }

    async fn attempt(
        &self,
        destination: &ServerName,
        mut request: http::Request<Vec<u8>>,
        signed: Signed,
        patience: Patience,
    ) -> Result<reqwest::Response, RequestError> {
        let connection = self.connection(destination).await?;
        let url = connection.route.url(request.uri().path_and_query().map_or("/", |target| target.as_str()))?;
        // Signed is what goes over the wire, which is how the URL's parser wrote it.
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        *request.uri_mut() = target.parse().map_err(|error: http::uri::InvalidUri| unmakeable(error.into()))?;
        if signed == Signed::Yes {
            x_matrix::sign(&mut request, &self.shared.key, destination).map_err(|error| unmakeable(error.into()))?;
        }
        let (parts, body) = request.into_parts();
        let _permit = connection.permits.acquire().await.map_err(|error| unmakeable(error.into()))?;
        let mut outgoing = connection
            .http
            .request(parts.method, url)
            .headers(parts.headers)
            .header(header::HOST, &connection.route.host)
            .timeout(patience.timeout());
        if !body.is_empty() {
            outgoing = outgoing.body(body);
        }
        outgoing.send().await.map_err(RequestError::NoAnswer)
    }

    /// The connections to where the server is now.
    async fn connection(&self, destination: &ServerName) -> Result<Arc<Connection>, RequestError> {
        let route = self.shared.discovery.find(destination).await?;
        let mut connections = self.shared.connections.lock();
        if let Some(connection) = connections.get(destination)
            && connection.route.leads_where(&route)
        {
            return Ok(connection.clone());
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(self.shared.tls.clone())
            .https_only(true)
            // In HTTP/2 the `Host` is what the URL says; here it is what the specification says.
            .http1_only()
            .dns_resolver(Arc::new(Fixed(route.addresses.clone())))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(CONNECTIONS)
            .user_agent(concat!("Gatehouse/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|error| unmakeable(error.into()))?;
        let connection = Arc::new(Connection { route, http, permits: Semaphore::new(CONNECTIONS) });
        if connections.len() >= KEPT {
            connections.clear();
        }
        connections.insert(destination.to_owned(), connection.clone());
        Ok(connection)
    }
}

impl Route {
    /// Names are written without a port, so that the ports of the addresses count; literals are not resolved and need it.
    fn url(&self, target: &str) -> Result<url::Url, RequestError> {
        let port = match (ip_literal(&self.tls_name), self.addresses.first()) {
            (Some(_), Some(address)) => format!(":{}", address.port()),
            _ => String::new(),
        };
        url::Url::parse(&format!("https://{}{port}{target}", self.tls_name)).map_err(|error| unmakeable(error.into()))
    }

    /// Whether both lead to the same place, whatever the order of trial.
    fn leads_where(&self, other: &Self) -> bool {
        let sorted = |route: &Self| {
            let mut addresses = route.addresses.clone();
            addresses.sort_unstable();
            addresses
        };
        self.host == other.host && self.tls_name == other.tls_name && sorted(self) == sorted(other)
    }
}

/// Answers every name with the addresses that discovery found.
struct Fixed(Vec<SocketAddr>);

impl Resolve for Fixed {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

fn unmakeable(error: Box<dyn std::error::Error + Send + Sync>) -> RequestError {
    RequestError::Unmakeable(error)
}

/// The request with its target alone as URI.
fn written<R: OutgoingRequest>(
    request: R,
    input: <R::PathBuilder as PathBuilder>::Input<'_>,
) -> Result<http::Request<Vec<u8>>, RequestError> {
    let request = request.try_into_http_request_inner("", input).map_err(|error| unmakeable(error.into()))?;
    let (mut parts, body) = request.into_parts();
    if let Some(content_type) = body.content_type() {
        parts.headers.entry(header::CONTENT_TYPE).or_insert(content_type);
    }
    let body = body.try_into_buf::<Vec<u8>>().map_err(|error| unmakeable(error.into().into()))?;
    Ok(http::Request::from_parts(parts, body))
}

fn refused(status: StatusCode, body: &[u8]) -> RequestError {
    let body = serde_json::from_slice::<Map<String, Value>>(body).unwrap_or_default();
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    RequestError::Refused { status, errcode: text("errcode"), message: text("error"), body }
}

/// Reads at most `limit` bytes of an answer.
pub(super) async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Bytes, RequestError> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(RequestError::NoAnswer)? {
        if body.len().saturating_add(chunk.len()) > limit {
            return Err(RequestError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Trusts whom the operating system trusts, and the extra authorities.
pub(super) fn tls_config(extra_ca_files: &[PathBuf]) -> Result<rustls::ClientConfig, ClientError> {
    let mut extra = Vec::new();
    for path in extra_ca_files {
        extra.extend(certificates(path).map_err(|source| ClientError::ExtraCa { path: path.clone(), source })?);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider.clone()).map_err(ClientError::Tls)?;
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}
