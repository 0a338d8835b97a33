//! What TLS towards other servers and shards is verified by, and what the edge shows of itself.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pingora_core::protocols::tls::CaType;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a file with certificates or a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PemFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not PEM as it should be", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file holds no certificate, or one that cannot be read.
    #[error("{} holds no usable certificate", .0.display())]
    NoCertificate(PathBuf),
}

/// The authorities that one peer is verified by.
#[derive(Debug, Clone)]
pub(crate) struct Authorities(Vec<CertificateDer<'static>>);

impl Authorities {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// When it cannot be read or holds no certificate.
    pub(crate) fn load(path: &Path) -> Result<Self, PemFileError> {
        certificates(path).map(Self)
    }

    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    pub(crate) fn for_peers(&self) -> Arc<CaType> {
        // Parsing was tried when they were read.
        self.0.iter().map(|certificate| WrappedX509::new(certificate.to_vec(), parse_x509)).collect()
    }
}

/// The certificate and key by which the edge says who it is.
#[derive(Debug)]
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads two PEM files.
    ///
    /// # Errors
    /// When one of them cannot be read or holds something else.
    pub(crate) fn load(chain: &Path, key: &Path) -> Result<Self, PemFileError> {
        let pem = std::fs::read(key).map_err(|source| PemFileError::Read { path: key.to_owned(), source })?;
        let parsed = PrivateKeyDer::from_pem_slice(&pem);
        let parsed = parsed.map_err(|source| PemFileError::Pem { path: key.to_owned(), source })?;
        Ok(Self { chain: certificates(chain)?, key: parsed })
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }

    pub(crate) fn for_peers(&self) -> Arc<CertKey> {
        let chain = self.chain.iter().map(|certificate| certificate.to_vec()).collect();
        Arc::new(CertKey::new(chain, self.key.secret_der().to_vec()))
    }
}

/// At least one certificate, each of which can be parsed.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemFileError> {
    let pem = std::fs::read(path).map_err(|source| PemFileError::Read { path: path.to_owned(), source })?;
    let found = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|source| PemFileError::Pem { path: path.to_owned(), source })?;
    let parse = |certificate: &CertificateDer<'_>| X509Certificate::from_der(certificate).is_ok();
    if found.is_empty() || !found.iter().all(parse) {
        return Err(PemFileError::NoCertificate(path.to_owned()));
    }
    Ok(found)
}
