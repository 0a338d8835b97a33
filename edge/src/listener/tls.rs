//! How TLS is spoken: protocol versions, tickets and ALPN. The certificate is chosen elsewhere, per handshake.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

use super::certificates::Certificates;
use super::client_certificates::ClientVerifier;
use super::client_tls::ClientTls;
use super::tickets::Tickets;

/// The protocol of ACME's challenge (RFC 8737). An authority offers nothing else beside it, so it never meets HTTP.
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// Whether this connection was made by an authority, to look at our answer and nothing else.
pub(super) fn is_challenge(connection: &ClientTls) -> bool {
    connection.protocol() == Some(ACME_TLS)
}

/// TLS 1.2 and 1.3 with HTTP/2 preferred. Sessions resume by ticket, so no session is kept in memory.
pub(crate) fn server_config(certificates: Arc<Certificates>, tickets: Arc<Tickets>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec(), ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    Arc::new(config)
}

/// Like [`server_config`], for clients with a certificate. Nothing resumes: every connection proves its certificate anew,
/// against the authorities of that moment.
pub(crate) fn mutual_config(certificates: Arc<Certificates>, clients: Arc<ClientVerifier>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder().with_client_cert_verifier(clients).with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}
