//! `[server]`: which Matrix server this is, and where others find it.

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

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
}

impl ServerConfig {
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

fn is_server_name(text: &str) -> bool {
    text.parse::<ServerName>().is_ok()
}
