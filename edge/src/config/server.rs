//! `[server]`: which Matrix server this is, and where others find it.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

/// Which Matrix server this is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The server name: the part of every user id after the colon.
    pub name: String,
    /// Base URL for clients, published in `/.well-known/matrix/client`. Left out: the document is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// `HOST:PORT` for other servers, published in `/.well-known/matrix/server`. Left out: the document is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federation_address: Option<String>,
}

impl ServerConfig {
    /// The hosts that clients and servers reach this server by, without ports, brackets and repetitions.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let base_url = self.base_url.as_deref().and_then(|url| url.parse::<http::Uri>().ok());
        let base = base_url.as_ref().and_then(http::Uri::host);
        let mut hosts = Vec::new();
        for named in [Some(self.name.as_str()), base, self.federation_address.as_deref()].into_iter().flatten() {
            let host = host_of(named).to_owned();
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        hosts
    }

    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !is_server_name(&self.name) {
            checker.reject("server.name", "is not a server name (a host name or address, perhaps with a port)");
        }
        let base_url = self.base_url.as_deref().map(str::parse::<http::Uri>);
        let usable = |uri: &http::Uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("https" | "http"));
        if base_url.is_some_and(|parsed| !parsed.is_ok_and(|uri| usable(&uri) && uri.query().is_none())) {
            checker.reject("server.base_url", "is not an https URL without a query");
        }
        if self.federation_address.as_deref().is_some_and(|address| !is_server_name(address)) {
            checker.reject("server.federation_address", "is not HOST or HOST:PORT");
        }
    }
}

/// A server name may hold a port and an address in brackets; a host is neither.
pub(crate) fn host_of(server_name: &str) -> &str {
    match server_name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => server_name.split(':').next().unwrap_or(server_name),
    }
}

/// The grammar of the specification's appendix "Server Name": a host name, IPv4 or bracketed IPv6, and maybe a port.
fn is_server_name(name: &str) -> bool {
    if name.is_empty() || name.len() > 230 {
        return false;
    }
    let (host, port) = match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", rest),
        Some(_) => return false,
        None => name.find(':').map_or((name, ""), |colon| name.split_at(colon)),
    };
    let host_is_fine =
        !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    let port_is_fine = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok());
    host_is_fine && port_is_fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_are_named_without_ports() {
        let server = ServerConfig {
            name: "[::1]:8448".to_owned(),
            base_url: Some("https://matrix.example.org:8443/".to_owned()),
            federation_address: Some("matrix.example.org:443".to_owned()),
        };
        assert_eq!(server.hosts(), ["::1", "matrix.example.org"]);
    }

    #[test]
    fn server_names_follow_the_grammar() {
        for name in ["example.org", "localhost:8448", "192.0.2.1", "[::1]:8448", "[2001:db8::1]"] {
            assert!(is_server_name(name), "{name}");
        }
        for name in ["", "exa mple", "a:b:c", "a:99999", "[::1", "[zz]", "a/b", ":1"] {
            assert!(!is_server_name(name), "{name}");
        }
    }
}
