//! Which client certificates a listener with mutual TLS takes; its authorities are swapped while the edge runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

/// Authorities, as rustls asks them.
pub use rustls::server::danger::ClientCertVerifier as ClientAuthorities;

/// Why the authorities of clients' certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientAuthorityError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not PEM, or holds no certificate of an authority.
    #[error("{} holds no usable certificate of an authority", .0.display())]
    Unusable(PathBuf),
}

/// Reads the authorities in `path`.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn client_authorities(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, ClientAuthorityError> {
    let pem = std::fs::read(path).map_err(|source| ClientAuthorityError::Read { path: path.to_owned(), source })?;
    let unusable = || ClientAuthorityError::Unusable(path.to_owned());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        certificate.ok().and_then(|certificate| roots.add(certificate).ok()).ok_or_else(unusable)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|_| unusable())?;
    Ok(verifier)
}

/// Asks the authorities in use; a swap reaches every handshake that begins after it.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    authorities: ArcSwap<Arc<dyn ClientCertVerifier>>,
    schemes: Vec<SignatureScheme>,
}

impl ClientVerifier {
    pub(crate) fn new(authorities: Arc<dyn ClientCertVerifier>) -> Self {
        let schemes = authorities.supported_verify_schemes();
        Self { authorities: ArcSwap::from_pointee(authorities), schemes }
    }

    pub(crate) fn replace(&self, authorities: Arc<dyn ClientCertVerifier>) {
        self.authorities.store(Arc::new(authorities));
    }
}

impl ClientCertVerifier for ClientVerifier {
    /// Clients are told no names of authorities: they have one certificate for this listener and know which.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.authorities.load().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.load().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.load().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
