//! Which certificate answers a handshake, and how certificates are read and swapped while the edge runs.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use crate::config::CertificateFiles;

/// Why a certificate cannot be used. All of it is the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file is not what it must be in PEM.
    #[error("{} holds no {what}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Where the text is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// The chain is empty or its first certificate is not X.509.
    #[error("{} does not begin with an X.509 certificate", .0.display())]
    NotACertificate(PathBuf),
    /// The key does not belong to the certificate, or is of a kind that is not supported.
    #[error("the key {} does not fit the certificate {}", key.display(), chain.display())]
    KeyMismatch {
        /// The chain's file.
        chain: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
}

/// A certificate with its key and the names it holds.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

impl Certificate {
    /// Reads a chain and its key, and makes sure that they belong together.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not.
    pub fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let CertificateFiles { chain, key } = files;
        let chain_pem = read(chain)?;
        let key_pem = read(key)?;
        let certificates = CertificateDer::pem_slice_iter(&chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| CertificateError::Pem { path: chain.clone(), what: "certificate chain", source })?;
        let private = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|source| CertificateError::Pem {
            path: key.clone(),
            what: "private key",
            source,
        })?;
        let names = certificates
            .first()
            .and_then(|leaf| names_of(leaf))
            .ok_or_else(|| CertificateError::NotACertificate(chain.clone()))?;
        let key = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
            .map_err(|source| CertificateError::KeyMismatch { chain: chain.clone(), key: key.clone(), source })?;
        Ok(Self { key: Arc::new(key), names })
    }

    /// The DNS names of the certificate, in lower case.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { path: path.clone(), source })
}

fn names_of(leaf: &CertificateDer<'_>) -> Option<Vec<String>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let dns = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    Some(names.iter().filter_map(dns).collect())
}

/// The certificates in use; a swap reaches every handshake that begins after it.
#[derive(Debug, Default)]
pub struct Certificates(ArcSwap<Table>);

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `example.org` stands for `*.example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    fallback: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Puts these certificates in the place of all others. The first serves clients that ask for no known name; when
    /// two hold the same name, the earlier one serves it.
    pub fn replace(&self, certificates: &[Certificate]) {
        let mut table =
            Table { fallback: certificates.first().map(|certificate| certificate.key.clone()), ..Table::default() };
        for Certificate { key, names } in certificates {
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcard, parent),
                    None => (&mut table.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| key.clone());
            }
        }
        self.0.store(Arc::new(table));
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.load();
        // rustls hands the name over in lower case.
        let named = hello.server_name().and_then(|name| {
            let parent = || name.split_once('.').and_then(|(_, parent)| table.wildcard.get(parent));
            table.exact.get(name).or_else(parent)
        });
        named.or(table.fallback.as_ref()).cloned()
    }
}
