//! One certificate with its key: how it is read, and what it says of itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
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
    /// A certificate for these names cannot be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[source] rcgen::Error),
}

/// A certificate with its key and what it says of itself.
#[derive(Debug, Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    about: Arc<About>,
}

#[derive(Debug, PartialEq, Eq)]
struct About {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    issuer: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Certificate {
    /// Reads a chain and its key, and makes sure that they belong together.
    ///
    /// # Errors
    /// When a file cannot be read, or they do not.
    pub fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let (chain, key) = (read(&files.chain)?, read(&files.key)?);
        Self::from_pem(&chain, &key, files)
    }

    /// Like [`Certificate::load`], of text that was read from `files`, which errors name.
    ///
    /// # Errors
    /// When they do not belong together or are not what they must be.
    pub fn from_pem(chain_pem: &[u8], key_pem: &[u8], files: &CertificateFiles) -> Result<Self, CertificateError> {
        let CertificateFiles { chain, key } = files;
        let certificates = CertificateDer::pem_slice_iter(chain_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| CertificateError::Pem { path: chain.clone(), what: "certificate chain", source })?;
        let private = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| CertificateError::Pem {
            path: key.clone(),
            what: "private key",
            source,
        })?;
        let about = certificates
            .first()
            .and_then(|leaf| About::of(leaf))
            .ok_or_else(|| CertificateError::NotACertificate(chain.clone()))?;
        let key = CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider())
            .map_err(|source| CertificateError::KeyMismatch { chain: chain.clone(), key: key.clone(), source })?;
        Ok(Self { key: Arc::new(key), about: Arc::new(about) })
    }

    /// A certificate that nobody trusts, so that a listener has one until an authority has issued a better one.
    ///
    /// # Errors
    /// When a name is none.
    pub fn self_signed(names: &[String], now: SystemTime) -> Result<Self, CertificateError> {
        let make = || -> Result<_, rcgen::Error> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, "Gatehouse, not yet certified");
            params.not_before = now.checked_sub(DAY).unwrap_or(now).into();
            params.not_after = (now + 90 * DAY).into();
            let key = KeyPair::generate()?;
            Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
        };
        let (chain, key) = make().map_err(CertificateError::SelfSigned)?;
        let unnamed = CertificateFiles { chain: "(self-signed)".into(), key: "(self-signed)".into() };
        Self::from_pem(chain.as_bytes(), key.as_bytes(), &unnamed)
    }

    /// The DNS names of the certificate, in lower case.
    pub fn names(&self) -> &[String] {
        &self.about.names
    }

    /// Names and addresses, as a person reads them.
    pub fn identities(&self) -> Vec<String> {
        let addresses = self.about.addresses.iter().map(IpAddr::to_string);
        self.about.names.iter().cloned().chain(addresses).collect()
    }

    /// Whether the certificate holds each of these names and addresses.
    pub fn holds_all(&self, names: &[String]) -> bool {
        let identities = self.identities();
        names.iter().all(|name| identities.contains(name))
    }

    /// Who issued it.
    pub fn issuer(&self) -> &str {
        &self.about.issuer
    }

    /// From when it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.about.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.about.not_after
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// The certificate itself, without its chain.
    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        // Made from at least one certificate: `from_pem` is the only way to one.
        &self.key.cert[0]
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

impl About {
    fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
        let (names, addresses) = identities(&certificate);
        let at = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let validity = certificate.validity();
        Some(Self {
            names,
            addresses,
            issuer: issuer(&certificate),
            not_before: at(validity.not_before.timestamp()),
            not_after: at(validity.not_after.timestamp()),
        })
    }
}

fn identities(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<IpAddr>) {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for name in alternative.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default() {
        match name {
            GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
            GeneralName::IPAddress(octets) => addresses.extend(address(octets)),
            _ => {}
        }
    }
    (names, addresses)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(octets).ok().map(|octets| Ipv6Addr::from(octets).into());
    v4().or_else(v6)
}

/// Organisation and common name, or the whole name where there is neither.
fn issuer(certificate: &X509Certificate<'_>) -> String {
    let name = certificate.issuer();
    let organisation = name.iter_organization().next().and_then(|value| value.as_str().ok());
    let common = name.iter_common_name().next().and_then(|value| value.as_str().ok());
    match (organisation, common) {
        (Some(organisation), Some(common)) => format!("{organisation} {common}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => name.to_string(),
    }
}
