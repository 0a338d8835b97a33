//! What the probes bring home: plain data, from which the checks judge without asking anything again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use http::HeaderMap;

use super::discovery::Route;
use crate::server_name::ServerName;

/// What the configuration says, where one was given.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expected {
    pub(crate) server_name: String,
    pub(crate) base_url: Option<String>,
    pub(crate) federation_address: Option<String>,
}

/// The answer to one question to the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup<T> {
    /// At least one record.
    Found(Vec<T>),
    /// The name exists and has no such record.
    Nothing,
    /// The name does not exist.
    NoSuchName,
    /// Nobody answered, or with an error.
    Failed(String),
}

impl<T> Lookup<T> {
    pub(crate) fn records(&self) -> &[T] {
        match self {
            Self::Found(records) => records,
            Self::Nothing | Self::NoSuchName | Self::Failed(_) => &[],
        }
    }
}

/// What the DNS says of a host.
#[derive(Debug, Clone)]
pub(crate) struct HostRecords {
    pub(crate) host: String,
    /// Where aliases lead, step by step.
    pub(crate) aliases: Vec<String>,
    pub(crate) v4: Lookup<Ipv4Addr>,
    pub(crate) v6: Lookup<Ipv6Addr>,
}

impl HostRecords {
    /// All addresses, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.v4.records().iter().copied().map(IpAddr::from);
        v4.chain(self.v6.records().iter().copied().map(IpAddr::from)).collect()
    }
}

/// A service record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    /// Without the final dot; empty for `.`, which says that there is no such service.
    pub(crate) target: String,
}

/// The service records of a host, under both names.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) host: String,
    /// `_matrix-fed._tcp`.
    pub(crate) current: Lookup<Service>,
    /// `_matrix._tcp`, deprecated.
    pub(crate) deprecated: Lookup<Service>,
}

/// Why a place cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the connection is refused")]
    Refused,
    #[error("nothing answers the connection within {0} s")]
    ConnectTimeout(u64),
    /// The fault is on this side: there is no IPv6 here, say.
    #[error("this machine has no way there: {0}")]
    NoWay(String),
    #[error("the connection fails: {0}")]
    Connect(String),
    #[error("the TLS handshake fails: {0}")]
    Tls(String),
    #[error("the TLS handshake is not done within {0} s")]
    TlsTimeout(u64),
    #[error("{0} is not spoken")]
    NotSpoken(&'static str),
    #[error("the HTTP exchange fails: {0}")]
    Http(String),
    #[error("nothing answers the request within {0} s")]
    HttpTimeout(u64),
}

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateSeen {
    pub(crate) subject: String,
    pub(crate) issuer: String,
    /// DNS names and addresses.
    pub(crate) names: Vec<String>,
    /// Seconds since the Unix epoch.
    pub(crate) not_before: i64,
    /// Seconds since the Unix epoch.
    pub(crate) not_after: i64,
    pub(crate) is_self_issued: bool,
}

/// What the chain is worth, were its leaf valid today and of the right name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    Trusted,
    /// It leads to nobody who is trusted.
    UnknownIssuer,
    /// A certificate above the leaf has expired.
    Expired,
    Other(String),
}

/// What a handshake showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsSeen {
    /// The name that was asked for.
    pub(crate) asked: String,
    /// Leaf first; nonsense is left out.
    pub(crate) chain: Vec<CertificateSeen>,
    pub(crate) trust: Trust,
    /// Whether the leaf holds the name that was asked for.
    pub(crate) holds_name: bool,
    pub(crate) version: String,
}

impl TlsSeen {
    /// Whether others accept it at this time.
    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        let now = unix_seconds(now);
        let lives = self.chain.first().is_some_and(|leaf| (leaf.not_before..=leaf.not_after).contains(&now));
        self.trust == Trust::Trusted && self.holds_name && lives
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}

/// An answer over HTTP.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// The body was longer than what is read of it.
    pub(crate) is_cut: bool,
    /// When the header arrived, by this machine's clock.
    pub(crate) at: SystemTime,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a JSON object.
    pub(crate) fn object(&self) -> Result<serde_json::Map<String, serde_json::Value>, String> {
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }

    /// Whether a page of HTML came where a document was asked for.
    pub(crate) fn is_page(&self) -> bool {
        let start = String::from_utf8_lossy(self.body.get(..64.min(self.body.len())).unwrap_or_default());
        let start = start.trim_start().to_ascii_lowercase();
        start.starts_with("<!doctype") || start.starts_with("<html")
    }
}

/// A redirect that was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) location: String,
}

/// How the fetch of a document ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    Answer(Answer),
    Failed(Failure),
    /// The redirects come back to this URL.
    Loop(String),
    TooManyRedirects,
    /// A redirect leads out of TLS, to this URL.
    LeavesTls(String),
    /// A redirect without a place that can be understood.
    BadLocation(String),
    /// This host has no address.
    UnknownHost(String),
}

/// The fetch of one document from one address, redirects followed.
#[derive(Debug, Clone)]
pub(crate) struct Fetch {
    /// What was asked for first.
    pub(crate) url: String,
    /// The address that was asked first, unless there was none.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) hops: Vec<Hop>,
    /// What each handshake on the way showed.
    pub(crate) tls: Vec<(SocketAddr, TlsSeen)>,
    pub(crate) end: End,
}

impl Fetch {
    pub(crate) fn answer(&self) -> Option<&Answer> {
        match &self.end {
            End::Answer(answer) => Some(answer),
            _ => None,
        }
    }

    /// Where it was seen, for a finding.
    pub(crate) fn place(&self) -> String {
        match self.address {
            Some(address) => format!("{} ({})", self.url, address.ip()),
            None => self.url.clone(),
        }
    }
}

/// What HTTP/2 came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Http2 {
    Works,
    NotOffered,
    Broken(String),
    NotTried,
}

/// What one address of the delegated place showed.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<TlsSeen>,
    /// The request id that the probe sent along.
    pub(crate) request_id: String,
    pub(crate) keys: Result<Answer, Failure>,
    pub(crate) version: Result<Answer, Failure>,
    pub(crate) http2: Http2,
}

impl Endpoint {
    /// The answers that it gave.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &Answer> {
        [&self.keys, &self.version].into_iter().filter_map(|result| result.as_ref().ok())
    }
}

/// What the clients' base URL showed.
#[derive(Debug, Clone)]
pub(crate) struct ClientApi {
    pub(crate) base_url: String,
    pub(crate) versions: Vec<Fetch>,
}

/// Everything that was seen.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) name: ServerName,
    pub(crate) now: SystemTime,
    pub(crate) expected: Option<Expected>,
    /// Of the host in the name; `None` for an address.
    pub(crate) own_host: Option<HostRecords>,
    /// From each address of the host; empty where the specification asks for none.
    pub(crate) server_document: Vec<Fetch>,
    pub(crate) client_document: Vec<Fetch>,
    /// Of the hosts whose service records count or might be thought to.
    pub(crate) services: Vec<Services>,
    pub(crate) route: Route,
    /// Of the hosts that the route leads to.
    pub(crate) targets: Vec<HostRecords>,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) client_api: Option<ClientApi>,
}
