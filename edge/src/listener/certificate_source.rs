//! Where certificates come from: the configured files and the development authority, at the start and on every SIGHUP.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::certificates::{Certificate, CertificateError, Certificates};
use super::development_ca::{self, DevelopmentCa, DevelopmentCaError};
use crate::config::{TlsConfig, chain_of};

/// The certificates of one configuration.
#[derive(Debug)]
pub(crate) struct CertificateSource {
    config: TlsConfig,
    development: Option<DevelopmentCa>,
}

impl CertificateSource {
    /// Has the development authority sign, where there is one.
    pub(crate) fn prepare(config: TlsConfig, server_name: &str, clock: &dyn Clock) -> Result<Self, DevelopmentCaError> {
        let sign = |section: &crate::config::DevelopmentCaConfig| {
            let own = host_of(server_name).to_owned();
            let names: Vec<String> = section.names.iter().cloned().chain([own]).collect();
            development_ca::prepare(&section.folder, &names, clock)
        };
        let development = config.development_ca.as_ref().map(sign).transpose()?;
        Ok(Self { config, development })
    }

    /// Reads all of them; the configured ones come first.
    pub(crate) fn load(&self) -> Result<Vec<Certificate>, CertificateError> {
        let development = self.development.as_ref().map(|development| &development.leaf);
        self.config.certificates.iter().chain(development).map(Certificate::load).collect()
    }

    /// The development authority's own certificate.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.development.as_ref().map(|development| Path::to_owned(&development.ca))
    }

    /// Reads all of them again on SIGHUP, until `stop`. Those in use stay when the new ones cannot be used.
    pub(crate) fn reload_on_hangup(
        self,
        certificates: Arc<Certificates>,
        stop: CancellationToken,
    ) -> io::Result<impl Future<Output = ()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = hangup.recv() => {}
                }
                match self.load() {
                    Ok(loaded) => {
                        certificates.replace(&loaded);
                        info!(certificates = loaded.len(), "read the certificates again");
                    }
                    Err(error) => error!(error = chain_of(&error), "kept the certificates in use"),
                }
            }
        })
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
