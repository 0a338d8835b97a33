//! `[server]`: which Matrix server this is, and where others find it.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::well_known::{PolicyServerConfig, RtcFocusConfig, SupportConfig, check_extra, is_web_url};

use crate::server_name::ServerName;

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
    /// Base URL of an identity server, published in the client document. Left out: none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_server: Option<String>,
    /// Where calls meet, published in the client document.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rtc_foci: Vec<RtcFocusConfig>,
    /// Further keys of the client document, each with its namespace.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub client_extra: Map<String, Value>,
    /// Whom users and other servers ask, published in `/.well-known/matrix/support`. Left out: it is not served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub support: Option<SupportConfig>,
    /// The key of the policy server of this name, published in `/.well-known/matrix/policy_server`. Left out: it is not
    /// served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_server: Option<PolicyServerConfig>,
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
        if self.identity_server.as_deref().is_some_and(|url| !is_web_url(url)) {
            checker.reject("server.identity_server", "is not an https URL");
        }
        let adds_to_client =
            self.identity_server.is_some() || !self.rtc_foci.is_empty() || !self.client_extra.is_empty();
        if adds_to_client && self.base_url.is_none() {
            checker.reject("server.base_url", "must be there when something else is published in the client document");
        }
        check_extra(&self.client_extra, checker);
        if let Some(support) = &self.support {
            support.check(checker);
        }
        if let Some(policy_server) = &self.policy_server {
            policy_server.check(checker);
        }
    }
}

fn is_server_name(text: &str) -> bool {
    text.parse::<ServerName>().is_ok()
}

/// A server name may hold a port and an address in brackets; a host is neither.
pub(crate) fn host_of(server_name: &str) -> &str {
    match server_name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => server_name.split(':').next().unwrap_or(server_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_are_named_without_ports() {
        let text = "name = \"[::1]:8448\"\nbase_url = \"https://matrix.example.org:8443/\"\n\
                    federation_address = \"matrix.example.org:443\"";
        let server: ServerConfig = toml::from_str(text).unwrap();
        assert_eq!(server.hosts(), ["::1", "matrix.example.org"]);
    }
}
