//! `gatehouse doctor`: finds what keeps other servers and clients from a server, by asking as they ask.
//!
//! `probe` asks and brings home plain data (`observed`), `checks` judge that data and do nothing else.

use std::net::SocketAddr;

use futures_util::future::join_all;
use gatehouse_shared::clock::Clock;
use rustls_pki_types::CertificateDer;
use url::Url;

mod canonical_json;
mod checks;
mod discovery;
pub mod finding;
mod observed;
mod probe;
pub mod report;

#[cfg(any(test, fuzzing))]
pub(crate) use checks::testing::judge_bytes;
pub use probe::ProbeError;
#[cfg(any(test, fuzzing))]
pub(crate) use probe::tls::described;

use crate::config::EdgeConfig;
use crate::server_name::{Host, ServerName};
use checks::{client_base_url, delegated};
use discovery::Route;
use observed::{ClientApi, Endpoint, Expected, Fetch, HostRecords, Lookup, Observed, Services};
use probe::document::fetch_everywhere;
use probe::{Instruments, MOST_ADDRESSES, endpoint};
use report::{Report, RouteTold};

/// The page that a client in a browser is on, as far as the probes pretend.
const BROWSER: &str = "https://client.example";

/// What the doctor is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// The server name, as it was typed.
    pub server_name: &'a str,
    /// The configuration that should be behind it.
    pub config: Option<&'a EdgeConfig>,
    /// Name servers to ask instead of the operating system's.
    pub name_servers: &'a [SocketAddr],
    /// Certificate authorities to trust beside the operating system's.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// Asks everything and judges it. `progress` hears what is asked next.
///
/// # Errors
/// When nothing can be asked at all. What is wrong with the server is the result, not an error.
pub async fn examine(
    question: Question<'_>,
    clock: &dyn Clock,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Report, ProbeError> {
    let name: ServerName = match question.server_name.parse() {
        Ok(name) => name,
        Err(error) => {
            let verdict = checks::name::refuse(question.server_name, error);
            return Ok(Report::new(question.server_name, None, vec![verdict]));
        }
    };
    let instruments = Instruments::new(question.name_servers, question.authorities, clock)?;
    let observed = observe(&instruments, name, question.config.map(expected), progress).await;
    let route = RouteTold::new(&observed.route);
    Ok(Report::new(question.server_name, Some(route), checks::all(&observed)))
}

fn expected(config: &EdgeConfig) -> Expected {
    let server = &config.server;
    Expected {
        server_name: server.name.clone(),
        base_url: server.base_url.clone(),
        federation_address: server.federation_address.clone(),
    }
}

async fn observe(
    instruments: &Instruments<'_>,
    name: ServerName,
    expected: Option<Expected>,
    progress: &(dyn Fn(&str) + Sync),
) -> Observed {
    progress("asking the DNS");
    let own_host = match &name.host {
        Host::Name(host) => Some(instruments.dns.host(host).await),
        Host::Address(_) => None,
    };
    progress("fetching the well-known documents");
    let (server_document, client_document) = documents(instruments, &name, own_host.as_ref()).await;
    let now = instruments.clock.now();
    let delegated = delegated(&server_document, now);
    progress("looking for service records");
    let services = services(instruments, &name, delegated.as_ref()).await;
    let decides = discovery::service_host(delegated.as_ref().unwrap_or(&name));
    let deciding = services.iter().find(|services| Some(services.host.as_str()) == decides);
    let route = discovery::route(&name, delegated.as_ref(), deciding);
    progress("looking up where they lead");
    let targets = targets(instruments, &route).await;
    progress("connecting as other servers do");
    let endpoints = endpoints(instruments, &route, &targets).await;
    progress("connecting as clients do");
    let client_api = client_api(instruments, &client_document).await;
    Observed {
        name,
        now,
        expected,
        own_host,
        server_document,
        client_document,
        services,
        route,
        targets,
        endpoints,
        client_api,
    }
}

/// The two documents. That for servers is not asked for where the name itself says where to connect.
async fn documents(
    instruments: &Instruments<'_>,
    name: &ServerName,
    own_host: Option<&HostRecords>,
) -> (Vec<Fetch>, Vec<Fetch>) {
    let Some(host) = own_host else { return (Vec::new(), Vec::new()) };
    let fetch = async |kind: &str, origin| match Url::parse(&format!("https://{}/.well-known/matrix/{kind}", host.host))
    {
        Ok(url) => fetch_everywhere(instruments, &url, host, origin).await,
        Err(_) => Vec::new(),
    };
    let server =
        async { if discovery::service_host(name).is_some() { fetch("server", None).await } else { Vec::new() } };
    tokio::join!(server, fetch("client", Some(BROWSER)))
}

/// The service records of the name's host and of the delegated one.
async fn services(instruments: &Instruments<'_>, name: &ServerName, delegated: Option<&ServerName>) -> Vec<Services> {
    let mut hosts: Vec<&str> =
        [Some(name), delegated].into_iter().flatten().filter_map(discovery::service_host).collect();
    hosts.dedup();
    join_all(hosts.into_iter().map(|host| instruments.dns.services(host))).await
}

async fn targets(instruments: &Instruments<'_>, route: &Route) -> Vec<HostRecords> {
    let mut hosts: Vec<&str> = Vec::new();
    for target in &route.targets {
        if !hosts.contains(&target.host.as_str()) {
            hosts.push(&target.host);
        }
    }
    let records = async |host: &str| match probe::document::literal(host) {
        Some(address) => literal_records(host, address),
        None => instruments.dns.host(host).await,
    };
    join_all(hosts.into_iter().take(MOST_ADDRESSES).map(records)).await
}

/// An address needs no DNS.
fn literal_records(host: &str, address: std::net::IpAddr) -> HostRecords {
    let (v4, v6) = match address {
        std::net::IpAddr::V4(v4) => (Lookup::Found(vec![v4]), Lookup::Nothing),
        std::net::IpAddr::V6(v6) => (Lookup::Nothing, Lookup::Found(vec![v6])),
    };
    HostRecords { host: host.to_owned(), aliases: Vec::new(), v4, v6 }
}

async fn endpoints(instruments: &Instruments<'_>, route: &Route, targets: &[HostRecords]) -> Vec<Endpoint> {
    let mut places: Vec<SocketAddr> = Vec::new();
    for target in &route.targets {
        let records = targets.iter().find(|records| records.host == target.host);
        for address in records.map(HostRecords::addresses).unwrap_or_default() {
            let place = SocketAddr::new(address, target.port);
            if !places.contains(&place) && places.len() < MOST_ADDRESSES {
                places.push(place);
            }
        }
    }
    join_all(places.into_iter().map(|place| endpoint::probe(instruments, route, place))).await
}

async fn client_api(instruments: &Instruments<'_>, documents: &[Fetch]) -> Option<ClientApi> {
    let base_url = client_base_url(documents)?;
    let text = base_url.as_str().trim_end_matches('/').to_owned();
    let url = Url::parse(&format!("{text}/_matrix/client/versions")).ok()?;
    let host = url.host_str()?;
    let records = match probe::document::literal(host) {
        Some(address) => literal_records(host, address),
        None => instruments.dns.host(host).await,
    };
    let versions = fetch_everywhere(instruments, &url, &records, Some(BROWSER)).await;
    Some(ClientApi { base_url: text, versions })
}
