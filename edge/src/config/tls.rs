//! `[tls]`: certificates.

use std::path::PathBuf;

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

use super::{ListenConfig, chain_of};
use crate::listener::certificates::Certificate;

/// Certificates.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificates, chosen by the names they hold; the first one serves clients that ask for no known name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// A certificate authority of this machine's own, for development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub development_ca: Option<DevelopmentCaConfig>,
}

/// One entry of `[[tls.certificates]]`; both files are read again on SIGHUP.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A certificate authority of this machine's own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentCaConfig {
    /// Folder for the authority and its certificate; made with mode 0700.
    pub folder: PathBuf,
    /// Names on the certificate beside the server's own name, `localhost`, `127.0.0.1` and `::1`.
    #[serde(default)]
    pub names: Vec<String>,
}

impl TlsConfig {
    pub(super) fn check(&self, listen: &ListenConfig, checker: &mut Checker<'_>) {
        if listen.speaks_tls() && self.certificates.is_empty() && self.development_ca.is_none() {
            checker
                .reject("tls", "needs `certificates` or `development_ca`, because `listen` names addresses with TLS");
        }
        for (index, files) in self.certificates.iter().enumerate() {
            if let Err(error) = Certificate::load(files) {
                checker.reject(&format!("tls.certificates[{index}]"), chain_of(&error));
            }
        }
    }
}
