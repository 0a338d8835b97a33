//! The two documents by which clients and other servers find this one, written once from the configuration.

use bytes::Bytes;
use serde_json::json;

/// The bodies of the documents that are served; `None` where the configuration says nothing to publish.
#[derive(Debug, Clone)]
pub(crate) struct WellKnown {
    /// `GET /.well-known/matrix/client` (client-server API, "Well-known URI").
    pub(crate) client: Option<Bytes>,
    /// `GET /.well-known/matrix/server` (server-server API, "Resolving server names").
    pub(crate) server: Option<Bytes>,
}

impl WellKnown {
    pub(crate) fn new(base_url: Option<&str>, federation_address: Option<&str>) -> Self {
        let client = base_url.map(|url| json!({ "m.homeserver": { "base_url": url.trim_end_matches('/') } }));
        let server = federation_address.map(|address| json!({ "m.server": address }));
        let written = |document: serde_json::Value| Bytes::from(document.to_string());
        Self { client: client.map(written), server: server.map(written) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_is_configured() {
        let documents = WellKnown::new(Some("https://matrix.example.org/"), Some("matrix.example.org:443"));
        assert_eq!(documents.client.unwrap(), r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#);
        assert_eq!(documents.server.unwrap(), r#"{"m.server":"matrix.example.org:443"}"#);
        assert!(WellKnown::new(None, None).client.is_none());
    }
}
