//! TLS as the edge's listeners have it, for tests.

use std::sync::Arc;

use gatehouse_shared::clock::SystemClock;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::certificates::{Certificate, Certificates};
use super::tickets::Tickets;
use super::{development_ca, tls};
use crate::config::UnknownNames;

/// A server as the edge's listeners are, and clients that trust it.
pub(super) struct Server {
    pub(super) config: Arc<ServerConfig>,
    roots: Arc<RootCertStore>,
}

impl Server {
    pub(super) fn new(tickets: Arc<Tickets>) -> Self {
        // As the program does; another test may have been first.
        let _ = aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let made = development_ca::prepare(folder.path(), &[], &SystemClock).unwrap();
        let certificates = Arc::new(Certificates::default());
        certificates.replace(&[Certificate::load(&made.leaf).unwrap()], UnknownNames::Refuse);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&made.ca).unwrap()).unwrap();
        Self { config: tls::server_config(certificates, tickets), roots: Arc::new(roots) }
    }

    /// A client that has not been here yet, and speaks one version.
    pub(super) fn client(&self, version: &'static SupportedProtocolVersion) -> ClientConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
        client.with_root_certificates(self.roots.clone()).with_no_client_auth()
    }
}
