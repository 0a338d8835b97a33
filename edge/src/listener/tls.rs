//! How TLS is spoken: protocol versions, tickets and ALPN. The certificate is chosen elsewhere, per handshake.

use std::sync::Arc;

use rustls::server::NoServerSessionStorage;
use rustls::{Error, ServerConfig};

use super::certificates::Certificates;

/// TLS 1.2 and 1.3 with HTTP/2 preferred. Sessions resume by ticket, so no session is kept in memory.
pub(crate) fn server_config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}
