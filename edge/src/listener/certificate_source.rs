//! Where certificates come from: the configured files and the development authority, at the start and on every reload.

use std::path::{Path, PathBuf};

use gatehouse_shared::clock::Clock;

use super::certificates::{Certificate, CertificateError};
use super::development_ca::{self, DevelopmentCa, DevelopmentCaError};
use crate::config::TlsConfig;

/// The certificates of one configuration.
#[derive(Debug)]
pub(crate) struct CertificateSource {
    development: Option<DevelopmentCa>,
}

impl CertificateSource {
    /// Has the development authority sign, where there is one.
    pub(crate) fn prepare(
        config: &TlsConfig,
        server_name: &str,
        clock: &dyn Clock,
    ) -> Result<Self, DevelopmentCaError> {
        let sign = |section: &crate::config::DevelopmentCaConfig| {
            let own = host_of(server_name).to_owned();
            let names: Vec<String> = section.names.iter().cloned().chain([own]).collect();
            development_ca::prepare(&section.folder, &names, clock)
        };
        let development = config.development_ca.as_ref().map(sign).transpose()?;
        Ok(Self { development })
    }

    /// Reads all that `config` names and the development authority's; the configured ones come first.
    pub(crate) fn load(&self, config: &TlsConfig) -> Result<Vec<Certificate>, CertificateError> {
        let development = self.development.as_ref().map(|development| &development.leaf);
        config.certificates.iter().chain(development).map(Certificate::load).collect()
    }

    /// The development authority's own certificate.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.development.as_ref().map(|development| Path::to_owned(&development.ca))
    }
}

/// A server name may hold a port and an address in brackets; a certificate holds neither.
fn host_of(server_name: &str) -> &str {
    match server_name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => server_name.split(':').next().unwrap_or(server_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_for_the_host_of_the_server_name() {
        assert_eq!(host_of("example.org"), "example.org");
        assert_eq!(host_of("example.org:8448"), "example.org");
        assert_eq!(host_of("[::1]:8448"), "::1");
    }
}
