//! Asks one address of the delegated place what another server would ask.

use std::net::SocketAddr;

use super::Instruments;
use super::connection::{Connection, Version};
use crate::doctor::discovery::Route;
use crate::doctor::observed::{Endpoint, Failure, Http2};

const KEYS: &str = "/_matrix/key/v2/server";
const VERSION: &str = "/_matrix/federation/v1/version";

/// Asks `address` for keys and version over HTTP/1.1, and for the version over HTTP/2.
pub(crate) async fn probe(instruments: &Instruments<'_>, route: &Route, address: SocketAddr) -> Endpoint {
    let first = over_http1(instruments, route, address);
    let second = over_http2(instruments, route, address);
    let (mut endpoint, http2) = tokio::join!(first, second);
    endpoint.http2 = http2;
    endpoint
}

async fn over_http1(instruments: &Instruments<'_>, route: &Route, address: SocketAddr) -> Endpoint {
    let (tls, connection) = Connection::open(instruments, address, &route.tls_host, Version::Http1).await;
    let request_id = instruments.request_id.clone();
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(failure) => {
            let (keys, version) = (Err(failure.clone()), Err(failure));
            return Endpoint { address, tls, request_id, keys, version, http2: Http2::NotTried };
        }
    };
    let keys = connection.get(instruments, &route.host_header, KEYS, None).await;
    let mut version = connection.get(instruments, &route.host_header, VERSION, None).await;
    if matches!(version, Err(Failure::Http(_))) {
        // Whoever closes the connection after each answer is within the rules.
        version = match Connection::open(instruments, address, &route.tls_host, Version::Http1).await.1 {
            Ok(mut again) => again.get(instruments, &route.host_header, VERSION, None).await,
            Err(failure) => Err(failure),
        };
    }
    Endpoint { address, tls, request_id, keys, version, http2: Http2::NotTried }
}

async fn over_http2(instruments: &Instruments<'_>, route: &Route, address: SocketAddr) -> Http2 {
    let (_, connection) = Connection::open(instruments, address, &route.tls_host, Version::Http2).await;
    match connection {
        Ok(mut connection) => match connection.get(instruments, &route.host_header, VERSION, None).await {
            Ok(answer) if answer.status < 500 => Http2::Works,
            Ok(answer) => Http2::Broken(format!("the answer is {}", answer.status)),
            Err(failure) => Http2::Broken(failure.to_string()),
        },
        Err(Failure::NotSpoken(_)) => Http2::NotOffered,
        Err(Failure::Http(error)) => Http2::Broken(error),
        // What keeps HTTP/1.1 away as well is told there.
        Err(_) => Http2::NotTried,
    }
}
