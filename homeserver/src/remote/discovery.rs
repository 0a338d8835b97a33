//! Decides where a server is: address, port, `Host` header and the name its certificate must bear.
//!
//! Specification: server-server API, "Resolving server names". The steps below bear its numbers.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use gatehouse_shared::clock::Clock;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use ruma::{OwnedServerName, ServerName};
use serde::Deserialize;

pub use super::dns::DnsError;
use super::dns::{Dns, Found};

/// The port of federation where nothing else is said.
const DEFAULT_PORT: u16 = 8448;
/// The port of well-known documents.
const HTTPS_PORT: u16 = 443;
/// How long a well-known document holds when it does not say.
const WELL_KNOWN_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long it holds at most, whatever it says.
const WELL_KNOWN_MAX: Duration = Duration::from_secs(48 * 60 * 60);
/// How long it holds at least, so that `no-store` does not mean a request before each request.
const WELL_KNOWN_MIN: Duration = Duration::from_secs(5 * 60);
/// How long the absence of a document is believed at first; doubled with each failure in a row.
const ERROR_FIRST: Duration = Duration::from_secs(60);
/// How long it is believed at most.
const ERROR_MAX: Duration = Duration::from_secs(60 * 60);
/// The largest document that is read, in bytes.
const WELL_KNOWN_BYTES: usize = 50 * 1024;
/// How long fetching the document may take, redirects included.
const WELL_KNOWN_TIMEOUT: Duration = Duration::from_secs(15);
/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// Servers that are remembered.
const REMEMBERED: usize = 10_000;
/// How long a route holds at most, so that a moved server is found again.
const ROUTE_MAX: Duration = Duration::from_secs(10 * 60);
/// And at least, because some records live for no time at all.
const ROUTE_MIN: Duration = Duration::from_secs(30);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What the `Host` header says.
    pub host: String,
    /// The name or address that the certificate must bear, as a URL writes it.
    pub tls_name: String,
    /// Where to connect, in order of trial.
    pub addresses: Vec<SocketAddr>,
}

/// Why a server cannot be found. It counts as unreachable.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    #[error(transparent)]
    Dns(#[from] DnsError),
    #[error("{0} is a private address, which is not called")]
    PrivateAddress(IpAddr),
}

/// Finds servers and remembers where they were. Clones share the memory.
#[derive(Clone)]
pub struct Discovery {
    shared: Arc<Shared>,
}

struct Shared {
    dns: Dns,
    http: reqwest::Client,
    clock: Arc<dyn Clock>,
    https_port: u16,
    routes: Mutex<HashMap<OwnedServerName, (Route, Instant)>>,
    well_known: Mutex<HashMap<String, WellKnown>>,
}

/// What a host's well-known document said.
#[derive(Clone, Debug)]
struct WellKnown {
    delegated: Option<OwnedServerName>,
    /// Failures in a row.
    failures: u32,
    valid_until: SystemTime,
}

impl Discovery {
    /// `tls` trusts whom this server trusts.
    pub(super) fn new(dns: Dns, tls: rustls::ClientConfig, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        Self::at_port(HTTPS_PORT, dns, tls, clock)
    }

    /// A test cannot listen where the well-known documents of the world are.
    fn at_port(
        https_port: u16,
        dns: Dns,
        tls: rustls::ClientConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, reqwest::Error> {
        let guard = dns.clone();
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            let private = ip_literal(attempt.url().host_str().unwrap_or_default()).is_some_and(|ip| !guard.permits(ip));
            if attempt.previous().len() > REDIRECTS || private { attempt.stop() } else { attempt.follow() }
        });
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .dns_resolver(Arc::new(dns.clone()))
            .redirect(redirects)
            .timeout(WELL_KNOWN_TIMEOUT)
            .pool_max_idle_per_host(0)
            .no_proxy()
            .build()?;
        let shared = Shared { dns, http, clock, https_port, routes: Mutex::default(), well_known: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where `server_name` is.
    ///
    /// # Errors
    /// When neither it nor what it delegates to has an address that may be called.
    pub async fn find(&self, server_name: &ServerName) -> Result<Route, DiscoveryError> {
        if let Some((route, valid_until)) = self.shared.routes.lock().get(server_name)
            && *valid_until > Instant::now()
        {
            return Ok(route.clone());
        }
        let (route, valid_until) = self.search(server_name).await?;
        let now = Instant::now();
        let valid_until = valid_until.clamp(now + ROUTE_MIN, now + ROUTE_MAX);
        let mut routes = self.shared.routes.lock();
        if routes.len() >= REMEMBERED {
            routes.clear();
        }
        routes.insert(server_name.to_owned(), (route.clone(), valid_until));
        Ok(route)
    }

    /// Makes the next [`Self::find`] look again, after a connection failed. What the well-known document said holds.
    pub fn forget(&self, server_name: &ServerName) {
        self.shared.routes.lock().remove(server_name);
    }

    async fn search(&self, server_name: &ServerName) -> Result<(Route, Instant), DiscoveryError> {
        let hostname = server_name.host();
        // Step 1: an IP literal, and step 2: an explicit port.
        if ip_literal(hostname).is_some() || server_name.port().is_some() {
            return self.direct(server_name).await;
        }
        // Step 3: the well-known document. 3.1 and 3.2 are steps 1 and 2 for what it names.
        if let Some(delegated) = self.delegation(hostname).await {
            if ip_literal(delegated.host()).is_some() || delegated.port().is_some() {
                return self.direct(&delegated).await;
            }
            // Steps 3.3 to 3.5.
            return self.by_service(delegated.host()).await;
        }
        // Steps 4 to 6.
        self.by_service(hostname).await
    }

    /// Steps 1 and 2: the name itself says where to connect.
    async fn direct(&self, server_name: &ServerName) -> Result<(Route, Instant), DiscoveryError> {
        let hostname = server_name.host();
        let port = server_name.port().unwrap_or(DEFAULT_PORT);
        let Found { items, valid_until } = match ip_literal(hostname) {
            Some(ip) if self.shared.dns.permits(ip) => {
                Found { items: vec![ip], valid_until: Instant::now() + ROUTE_MAX }
            }
            Some(ip) => return Err(DiscoveryError::PrivateAddress(ip)),
            None => self.shared.dns.addresses(hostname).await?,
        };
        let addresses = items.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok((Route { host: server_name.to_string(), tls_name: hostname.to_owned(), addresses }, valid_until))
    }

    /// Steps 3.3 to 3.5 and 4 to 6: service records, and the host itself where there are none.
    async fn by_service(&self, hostname: &str) -> Result<(Route, Instant), DiscoveryError> {
        for service in ["_matrix-fed._tcp", "_matrix._tcp"] {
            match self.shared.dns.services(&format!("{service}.{hostname}")).await {
                Ok(found) => return self.at_services(hostname, found).await,
                Err(DnsError::Unknown(_)) => {}
                Err(error @ DnsError::NotOffered(_)) => return Err(error.into()),
                // A resolver that cannot answer for service records must not cut off the servers that have none; who
                // answers on 8448 has to show the certificate either way.
                Err(error) => tracing::debug!(%error, server = hostname, "cannot look up service records"),
            }
        }
        let found = self.shared.dns.addresses(hostname).await?;
        let addresses = found.items.into_iter().map(|ip| SocketAddr::new(ip, DEFAULT_PORT)).collect();
        Ok((route_of(hostname, addresses), found.valid_until))
    }

    async fn at_services(
        &self,
        hostname: &str,
        services: Found<super::dns::Service>,
    ) -> Result<(Route, Instant), DiscoveryError> {
        let mut addresses = Vec::new();
        let mut valid_until = services.valid_until;
        let mut failure = None;
        for service in services.items {
            match self.shared.dns.addresses(&service.target).await {
                Ok(found) => {
                    valid_until = valid_until.min(found.valid_until);
                    addresses.extend(found.items.into_iter().map(|ip| SocketAddr::new(ip, service.port)));
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if addresses.is_empty() => Err(error.into()),
            _ => Ok((route_of(hostname, addresses), valid_until)),
        }
    }

    /// Whom the well-known document of `hostname` names, if there is a valid one.
    async fn delegation(&self, hostname: &str) -> Option<OwnedServerName> {
        let now = self.shared.clock.now();
        let known = self.shared.well_known.lock().get(hostname).cloned();
        if let Some(known) = &known
            && known.valid_until > now
        {
            return known.delegated.clone();
        }
        let fresh = match self.fetch_well_known(hostname).await {
            Some((delegated, valid_for)) => {
                WellKnown { delegated: Some(delegated), failures: 0, valid_until: now + valid_for }
            }
            None => {
                let failures = known.map_or(0, |known| known.failures).saturating_add(1);
                let believed = ERROR_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(ERROR_MAX);
                WellKnown { delegated: None, failures, valid_until: now + believed }
            }
        };
        let delegated = fresh.delegated.clone();
        let mut well_known = self.shared.well_known.lock();
        if well_known.len() >= REMEMBERED {
            well_known.clear();
        }
        well_known.insert(hostname.to_owned(), fresh);
        delegated
    }

    async fn fetch_well_known(&self, hostname: &str) -> Option<(OwnedServerName, Duration)> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(rename = "m.server")]
            server: OwnedServerName,
        }
        let url = format!("https://{hostname}:{}/.well-known/matrix/server", self.shared.https_port);
        let response = match self.shared.http.get(url).send().await {
            Ok(response) if response.status() == http::StatusCode::OK => response,
            Ok(_) => return None,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, server = hostname, "no well-known document");
                return None;
            }
        };
        let valid_for = lifetime(response.headers(), self.shared.clock.now());
        let body = super::client::read_body(response, WELL_KNOWN_BYTES).await.ok()?;
        let document: Document = serde_json::from_slice(&body).ok()?;
        Some((document.server, valid_for))
    }
}

fn route_of(hostname: &str, addresses: Vec<SocketAddr>) -> Route {
    Route { host: hostname.to_owned(), tls_name: hostname.to_owned(), addresses }
}

/// The address, when `hostname` is one; IPv6 is in brackets.
pub(super) fn ip_literal(hostname: &str) -> Option<IpAddr> {
    match hostname.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => hostname.parse().ok().map(IpAddr::V4),
    }
}

/// How long a document holds: what its headers say, within our bounds.
fn lifetime(headers: &HeaderMap, now: SystemTime) -> Duration {
    let directives = headers.get_all(header::CACHE_CONTROL);
    for directive in directives.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return WELL_KNOWN_MIN,
            "max-age" => {
                if let Ok(seconds) = value.trim().trim_matches('"').parse::<u64>() {
                    return Duration::from_secs(seconds).clamp(WELL_KNOWN_MIN, WELL_KNOWN_MAX);
                }
            }
            _ => {}
        }
    }
    match headers.get(header::EXPIRES).and_then(|value| value.to_str().ok()).map(httpdate::parse_http_date) {
        Some(Ok(expires)) => expires.duration_since(now).unwrap_or_default().clamp(WELL_KNOWN_MIN, WELL_KNOWN_MAX),
        // An unreadable date means: already expired (RFC 9111, section 5.3).
        Some(Err(_)) => WELL_KNOWN_MIN,
        None => WELL_KNOWN_DEFAULT,
    }
}

#[cfg(test)]
mod tests;
