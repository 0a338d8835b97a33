//! Fetches a document over HTTPS, from each address of its host, and keeps the way that redirects led.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use futures_util::future::join_all;
use url::Url;

use super::connection::{Connection, Version};
use super::{Instruments, MOST_ADDRESSES};
use crate::doctor::observed::{Answer, End, Failure, Fetch, Hop, HostRecords};

/// Redirects that are followed; the specification leaves the number open, and nobody follows many more.
const MOST_REDIRECTS: usize = 10;

/// How long one fetch may take with all its redirects, in seconds.
const WITHIN: u64 = 60;

/// Fetches `url` from each of the addresses of `host`. There is always at least one fetch, which may have failed.
pub(crate) async fn fetch_everywhere(
    instruments: &Instruments<'_>,
    url: &Url,
    host: &HostRecords,
    origin: Option<&str>,
) -> Vec<Fetch> {
    let addresses = host.addresses();
    if addresses.is_empty() {
        let end = End::UnknownHost(host.host.clone());
        return vec![Fetch { url: url.to_string(), address: None, hops: Vec::new(), tls: Vec::new(), end }];
    }
    let within = async |address| {
        let fetch = tokio::time::timeout(Duration::from_secs(WITHIN), fetch(instruments, url, address, origin)).await;
        fetch.unwrap_or_else(|_| Fetch {
            end: End::Failed(Failure::HttpTimeout(WITHIN)),
            ..begun(url, SocketAddr::new(address, url.port_or_known_default().unwrap_or(443)))
        })
    };
    join_all(addresses.into_iter().take(MOST_ADDRESSES).map(within)).await
}

/// A fetch that has nothing to show yet.
fn begun(url: &Url, address: SocketAddr) -> Fetch {
    let end = End::TooManyRedirects;
    Fetch { url: url.to_string(), address: Some(address), hops: Vec::new(), tls: Vec::new(), end }
}

/// Fetches `url`, first from `address` and then wherever redirects lead.
async fn fetch(instruments: &Instruments<'_>, url: &Url, address: IpAddr, origin: Option<&str>) -> Fetch {
    let port = url.port_or_known_default().unwrap_or(443);
    let mut fetch = begun(url, SocketAddr::new(address, port));
    let mut url = url.clone();
    let mut addresses = vec![address];
    loop {
        let answer = ask(instruments, &url, &addresses, origin, &mut fetch).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => return Fetch { end: End::Failed(failure), ..fetch },
        };
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Fetch { end: End::Answer(answer), ..fetch };
        }
        let location = answer.header("location").unwrap_or_default().to_owned();
        fetch.hops.push(Hop { url: url.to_string(), status: answer.status, location: location.clone() });
        if fetch.hops.len() > MOST_REDIRECTS {
            return fetch;
        }
        url = match next(&url, &location, &fetch) {
            ControlFlow::Continue(next) => next,
            ControlFlow::Break(end) => return Fetch { end, ..fetch },
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        addresses = match literal(&host) {
            Some(address) => vec![address],
            None => instruments.dns.host(&host).await.addresses(),
        };
        if addresses.is_empty() {
            return Fetch { end: End::UnknownHost(host), ..fetch };
        }
    }
}

fn next(url: &Url, location: &str, fetch: &Fetch) -> ControlFlow<End, Url> {
    let next = match url.join(location) {
        Ok(next) if !location.is_empty() && next.host_str().is_some() => next,
        _ => return ControlFlow::Break(End::BadLocation(location.to_owned())),
    };
    if next.scheme() != "https" {
        return ControlFlow::Break(End::LeavesTls(next.to_string()));
    }
    if fetch.hops.iter().any(|hop| hop.url == next.as_str()) {
        return ControlFlow::Break(End::Loop(next.to_string()));
    }
    ControlFlow::Continue(next)
}

/// Asks the first of the addresses that answers.
async fn ask(
    instruments: &Instruments<'_>,
    url: &Url,
    addresses: &[IpAddr],
    origin: Option<&str>,
    fetch: &mut Fetch,
) -> Result<Answer, Failure> {
    let port = url.port_or_known_default().unwrap_or(443);
    let host = url.host_str().unwrap_or_default();
    let host_header = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut last = Failure::Connect("there is no address".to_owned());
    for address in addresses.iter().take(MOST_ADDRESSES) {
        let address = SocketAddr::new(*address, port);
        let (seen, connection) = Connection::open(instruments, address, host, Version::Http1).await;
        fetch.tls.extend(seen.map(|seen| (address, seen)));
        match connection {
            Ok(mut connection) => return connection.get(instruments, &host_header, target, origin).await,
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

/// The address, when a host is one; IPv6 is in brackets.
pub(crate) fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}
