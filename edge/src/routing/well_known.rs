//! The documents by which others find this server, written once from the configuration.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// One of the documents below `/.well-known/matrix/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Document {
    /// `client` (client-server API, "Well-known URI").
    Client,
    /// `server` (server-server API, "Resolving server names").
    Server,
    /// `support` (client-server API, "Getting server admin contacts").
    Support,
    /// `policy_server` (client-server API, "Policy servers").
    PolicyServer,
}

impl Document {
    /// Finds the document of a path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/.well-known/matrix/")? {
            "client" => Self::Client,
            "server" => Self::Server,
            "support" => Self::Support,
            "policy_server" => Self::PolicyServer,
            _ => return None,
        })
    }
}

/// What the documents are written from.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Published<'c> {
    pub(crate) base_url: Option<&'c str>,
    pub(crate) federation_address: Option<&'c str>,
    pub(crate) identity_server: Option<&'c str>,
    pub(crate) rtc_foci: &'c [Value],
    pub(crate) client_extra: Option<&'c Map<String, Value>>,
    pub(crate) support: Option<&'c Value>,
    pub(crate) policy_server_key: Option<&'c str>,
}

/// The bodies of the documents that are served; `None` where the configuration says nothing to publish.
#[derive(Debug, Clone)]
pub(crate) struct WellKnown {
    client: Option<Bytes>,
    server: Option<Bytes>,
    support: Option<Bytes>,
    policy_server: Option<Bytes>,
}

impl WellKnown {
    pub(crate) fn new(published: Published<'_>) -> Self {
        let written = |document: Value| Bytes::from(document.to_string());
        let key = published.policy_server_key;
        Self {
            client: published.base_url.map(|url| written(client(url, published))),
            server: published.federation_address.map(|address| written(json!({ "m.server": address }))),
            support: published.support.map(|support| written(support.clone())),
            policy_server: key.map(|key| written(json!({ "public_keys": { "ed25519": key } }))),
        }
    }

    pub(crate) fn body_of(&self, document: Document) -> Option<&Bytes> {
        match document {
            Document::Client => self.client.as_ref(),
            Document::Server => self.server.as_ref(),
            Document::Support => self.support.as_ref(),
            Document::PolicyServer => self.policy_server.as_ref(),
        }
    }
}

/// Without a base URL there is no such document: `m.homeserver` is required in it.
fn client(base_url: &str, published: Published<'_>) -> Value {
    let mut document = published.client_extra.cloned().unwrap_or_default();
    document.insert("m.homeserver".to_owned(), json!({ "base_url": base_url.trim_end_matches('/') }));
    if let Some(url) = published.identity_server {
        document.insert("m.identity_server".to_owned(), json!({ "base_url": url.trim_end_matches('/') }));
    }
    if !published.rtc_foci.is_empty() {
        document.insert("org.matrix.msc4143.rtc_foci".to_owned(), published.rtc_foci.into());
    }
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_is_configured() {
        let documents = WellKnown::new(Published {
            base_url: Some("https://matrix.example.org/"),
            federation_address: Some("matrix.example.org:443"),
            policy_server_key: Some("key"),
            ..Published::default()
        });
        let body = |document| documents.body_of(document).map(|body| String::from_utf8(body.to_vec()).unwrap());
        let client = r#"{"m.homeserver":{"base_url":"https://matrix.example.org"}}"#;
        assert_eq!(body(Document::Client).unwrap(), client);
        assert_eq!(body(Document::Server).unwrap(), r#"{"m.server":"matrix.example.org:443"}"#);
        assert_eq!(body(Document::PolicyServer).unwrap(), r#"{"public_keys":{"ed25519":"key"}}"#);
        assert_eq!(body(Document::Support), None);
    }

    #[test]
    fn the_client_document_holds_what_else_clients_need() {
        let extra = Map::from_iter([("org.example.theme".to_owned(), json!({ "dark": true }))]);
        let documents = WellKnown::new(Published {
            base_url: Some("https://a"),
            identity_server: Some("https://id/"),
            rtc_foci: &[json!({ "type": "livekit", "livekit_service_url": "https://rtc" })],
            client_extra: Some(&extra),
            ..Published::default()
        });
        let document: Value = serde_json::from_slice(documents.body_of(Document::Client).unwrap()).unwrap();
        let expected = json!({
            "m.homeserver": { "base_url": "https://a" },
            "m.identity_server": { "base_url": "https://id" },
            "org.matrix.msc4143.rtc_foci": [{ "type": "livekit", "livekit_service_url": "https://rtc" }],
            "org.example.theme": { "dark": true },
        });
        assert_eq!(document, expected);
    }

    #[test]
    fn without_a_base_url_there_is_no_client_document() {
        let documents = WellKnown::new(Published { identity_server: Some("https://id"), ..Published::default() });
        assert!(documents.body_of(Document::Client).is_none());
    }
}
