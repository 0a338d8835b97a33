//! `[tls]`: certificates.

use std::collections::HashMap;
use std::path::PathBuf;

use gatehouse_shared::config::Checker;
use serde::{Deserialize, Serialize};

use super::acme::AcmeConfig;
use super::{ListenConfig, ServerConfig, chain_of};
use crate::listener::certificates::Certificate;

/// Certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Folder for ACME accounts and certificates; made with mode 0700.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_folder: Option<PathBuf>,
    /// What becomes of clients that ask for a name that is on no certificate.
    pub unknown_names: UnknownNames,
    /// Certificates, chosen by the names they hold; the first one serves clients that ask for no name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// Certificates that the edge orders itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acme: Vec<AcmeConfig>,
    /// A certificate authority of this machine's own, for development.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub development_ca: Option<DevelopmentCaConfig>,
}

/// What becomes of a client that asks for a name that is on no certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownNames {
    /// The handshake ends with the alert `unrecognized_name`.
    #[default]
    Refuse,
    /// The first certificate serves it.
    First,
}

/// One entry of `[[tls.certificates]]`; both files are watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file with the chain, leaf first.
    pub chain: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// A certificate authority of this machine's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DevelopmentCaConfig {
    /// Folder for the authority and its certificate; made with mode 0700.
    pub folder: PathBuf,
    /// Names on the certificate beside the server's own name, `localhost`, `127.0.0.1` and `::1`.
    #[serde(default)]
    pub names: Vec<String>,
}

impl TlsConfig {
    pub(super) fn check(&self, server: &ServerConfig, listen: &ListenConfig, checker: &mut Checker<'_>) {
        let has_none = self.certificates.is_empty() && self.acme.is_empty() && self.development_ca.is_none();
        if listen.speaks_tls() && has_none {
            checker.reject(
                "tls",
                "needs `certificates`, `acme` or `development_ca`, because `listen` names addresses with TLS",
            );
        }
        for (index, files) in self.certificates.iter().enumerate() {
            if let Err(error) = Certificate::load(files) {
                checker.reject(&format!("tls.certificates[{index}]"), chain_of(&error));
            }
        }
        if !self.acme.is_empty() && self.state_folder.is_none() {
            checker.reject(
                "tls.state_folder",
                "must be given, because [[tls.acme]] keeps accounts and certificates there",
            );
        }
        let mut taken = HashMap::new();
        for (index, acme) in self.acme.iter().enumerate() {
            let key = format!("tls.acme[{index}]");
            acme.check(&key, server, listen, checker);
            if let Some(first) = acme.names_for(server).into_iter().next()
                && let Some(other) = taken.insert(first.clone(), index)
            {
                let reason =
                    format_args!("begins with {first}, as tls.acme[{other}] does; each needs a first name of its own");
                checker.reject(&format!("{key}.names"), reason);
            }
        }
    }
}
