//! Which address is the client's when a trusted proxy stands in between.

use std::net::{IpAddr, SocketAddr};

use gatehouse_shared::net::client_ip::canonical;
use http::HeaderMap;

use super::prefix_map::PrefixMap;

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The rightmost address of `X-Forwarded-For` that is no trusted proxy's, if `peer` is one's: whatever stands left of it
/// was written by somebody who is not trusted. The header means nothing when `peer` is not trusted.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &PrefixMap<()>) -> IpAddr {
    let mut client = peer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for line in lines {
        let Ok(line) = line.to_str() else { return client };
        for hop in line.rsplit(',') {
            if !trusted.contains(client) {
                return client;
            }
            // A trusted proxy that writes no address here is the last one that is known.
            let Some(address) = address(hop.trim()) else { return client };
            client = address;
        }
    }
    client
}

/// An address, bare or in brackets, with a port or without.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(canonical)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client_of(peer: &str, lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].iter().map(|prefix| prefix.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_client() {
        assert_eq!(client_of("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", &["6.6.6.6, 192.0.2.1, 10.0.0.2"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", &["6.6.6.6", "192.0.2.1", "10.0.0.2"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(client_of("2001:db8::1", &["[2001:db9::1]:4711"]), "2001:db9::1");
        assert_eq!(client_of("10.0.0.1", &["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(client_of("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(client_of("198.51.100.1", &["192.0.2.1"]), "198.51.100.1");
        assert_eq!(client_of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", &["192.0.2.1, unknown"]), "10.0.0.1");
        assert_eq!(client_of("10.0.0.1", &["192.0.2.1, _hidden, 10.0.0.2"]), "10.0.0.2");
    }
}
