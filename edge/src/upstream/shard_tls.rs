//! TLS towards shards on other machines: which authority they are verified by, and what the edge shows of itself.

use std::net::SocketAddr;
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::CertKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use tokio::io;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{Authorities, Identity, PemFileError};
use crate::config::ShardTlsConfig;

/// How shards are spoken to over TLS.
pub(crate) struct ShardTls {
    name: String,
    server_name: ServerName<'static>,
    authorities: Arc<CaType>,
    identity: Option<Arc<CertKey>>,
    /// For health checks, which Pingora does not make.
    connector: TlsConnector,
}

impl std::fmt::Debug for ShardTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why shards cannot be spoken to over TLS.
#[derive(Debug, thiserror::Error)]
pub enum ShardTlsError {
    /// A file cannot be used.
    #[error("cannot use a file of [upstream.tls]")]
    File(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The name is none.
    #[error("the name is neither a host name nor an address (upstream.tls.name)")]
    Name(#[from] InvalidDnsNameError),
    /// The authority, or the certificate with its key, is refused.
    #[error("cannot set up TLS towards shards")]
    Tls(#[from] rustls::Error),
}

impl From<PemFileError> for ShardTlsError {
    fn from(error: PemFileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl ShardTls {
    pub(crate) fn new(config: &ShardTlsConfig) -> Result<Self, ShardTlsError> {
        let authorities = Authorities::load(&config.ca)?;
        let identity = match (&config.certificate, &config.key) {
            (Some(certificate), Some(key)) => Some(Identity::load(certificate, key)?),
            _ => None,
        };
        let mut roots = RootCertStore::empty();
        for certificate in authorities.certificates() {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.with_root_certificates(roots);
        let client = match &identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain().to_vec(), identity.key())?,
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            name: config.name.clone(),
            server_name: ServerName::try_from(config.name.clone())?,
            authorities: authorities.for_peers(),
            identity: identity.map(|identity| identity.for_peers()),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }

    pub(super) fn peer(&self, address: &SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, true, self.name.clone());
        peer.options.ca = Some(self.authorities.clone());
        peer.client_cert_key.clone_from(&self.identity);
        peer
    }

    pub(super) async fn connect(&self, address: &SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        self.connector.connect(self.server_name.clone(), tcp).await
    }
}
