//! The certificates of one configuration, and in which order they are offered.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::SupplyError;
use super::watch::{Stamp, stamp};
use crate::acme::store::Store;
use crate::certificate_metrics::Source;
use crate::config::{
    AcmeConfig, CertificateFiles, DevelopmentCaConfig, EdgeConfig, InternalListenerConfig, UnknownNames, chain_of,
    host_of,
};
use crate::listener::certificates::Certificate;
use crate::listener::client_certificates::{ClientAuthorities, client_authorities};
use crate::listener::development_ca::{self, DevelopmentCa};

/// The sources of one configuration. What ACME brings arrives while they are in use.
#[derive(Default)]
pub(super) struct Sources {
    unknown_names: UnknownNames,
    files: Vec<Watched>,
    orders: Vec<Arc<Ordered>>,
    development: Option<Development>,
    /// Authorities of clients' certificates; only watched here.
    client_authorities: Vec<(SocketAddr, PathBuf, Stamp)>,
}

/// One entry of `[[tls.certificates]]`.
struct Watched {
    files: CertificateFiles,
    stamps: [Stamp; 2],
    certificate: Certificate,
}

#[derive(Clone)]
struct Development {
    config: DevelopmentCaConfig,
    names: Vec<String>,
    made: DevelopmentCa,
    certificate: Certificate,
}

/// One entry of `[[tls.acme]]`.
pub(super) struct Ordered {
    pub(super) config: AcmeConfig,
    pub(super) names: Vec<String>,
    pub(super) folder: PathBuf,
    /// Ends its keeper.
    pub(super) stop: CancellationToken,
    certificate: Mutex<(Certificate, Source)>,
}

impl Ordered {
    pub(super) fn deliver(&self, certificate: Certificate) {
        *self.certificate.lock() = (certificate, Source::Acme);
    }
}

impl Sources {
    /// Reads everything; what ACME and the development authority have for the same entries of `old` is taken over.
    pub(super) fn read(config: &EdgeConfig, old: &Self, clock: &dyn Clock) -> Result<Self, SupplyError> {
        let files = config.tls.certificates.iter().map(Watched::read).collect::<Result<_, _>>()?;
        let order = |acme: &AcmeConfig| read_ordered(acme, config, old, clock);
        let orders = config.tls.acme.iter().map(order).collect::<Result<_, _>>()?;
        let sign = |section: &DevelopmentCaConfig| read_development(section, config, old, clock);
        let development = config.tls.development_ca.as_ref().map(sign).transpose()?;
        let watched = |listener: &InternalListenerConfig| {
            (listener.address, listener.client_ca.clone(), stamp(&listener.client_ca))
        };
        let client_authorities = config.listen.internal.iter().map(watched).collect();
        Ok(Self { unknown_names: config.tls.unknown_names, files, orders, development, client_authorities })
    }

    pub(super) fn unknown_names(&self) -> UnknownNames {
        self.unknown_names
    }

    pub(super) fn orders(&self) -> impl Iterator<Item = &Arc<Ordered>> {
        self.orders.iter()
    }

    pub(super) fn development_ca(&self) -> Option<PathBuf> {
        self.development.as_ref().map(|development| development.made.ca.clone())
    }

    /// Files first, then what ACME has, then development; placeholders come last, so that they hide nothing better.
    pub(super) fn in_order(&self) -> Vec<(Certificate, Source)> {
        let mut all: Vec<_> = self.files.iter().map(|watched| (watched.certificate.clone(), Source::File)).collect();
        all.extend(self.orders.iter().map(|ordered| ordered.certificate.lock().clone()));
        all.extend(self.development.iter().map(|made| (made.certificate.clone(), Source::Development)));
        all.sort_by_key(|(_, source)| *source == Source::SelfSigned);
        all
    }

    /// Reads the files again that have changed; a pair that cannot be used leaves the old one in use. Returns whether
    /// any certificate is new.
    pub(super) fn refresh_files(&mut self) -> bool {
        let mut is_new = false;
        for watched in &mut self.files {
            let stamps = stamps(&watched.files);
            if stamps == watched.stamps {
                continue;
            }
            watched.stamps = stamps;
            match Certificate::load(&watched.files) {
                Ok(certificate) => {
                    is_new = true;
                    watched.certificate = certificate;
                    info!(chain = %watched.files.chain.display(), "the certificate's files have changed and are in use");
                }
                // Whoever writes two files writes one first; the other's change brings us here again.
                Err(error) => {
                    warn!(error = chain_of(&error), "the certificate's files have changed; kept the one in use")
                }
            }
        }
        is_new
    }

    /// The authorities of clients' certificates that have changed, with the addresses that ask them.
    pub(super) fn refresh_client_authorities(&mut self) -> Vec<(SocketAddr, Arc<dyn ClientAuthorities>)> {
        let mut changed = Vec::new();
        for (address, path, seen) in &mut self.client_authorities {
            let now = stamp(path);
            if now == *seen {
                continue;
            }
            *seen = now;
            match client_authorities(path) {
                Ok(authorities) => changed.push((*address, authorities)),
                Err(error) => warn!(error = chain_of(&error), "client_ca has changed; kept the one in use"),
            }
        }
        changed
    }
}

impl Watched {
    fn read(files: &CertificateFiles) -> Result<Self, SupplyError> {
        // Before the files: a change in between is then seen as one.
        let stamps = stamps(files);
        Ok(Self { files: files.clone(), stamps, certificate: Certificate::load(files)? })
    }
}

fn stamps(files: &CertificateFiles) -> [Stamp; 2] {
    [stamp(&files.chain), stamp(&files.key)]
}

fn read_ordered(
    acme: &AcmeConfig,
    config: &EdgeConfig,
    old: &Sources,
    clock: &dyn Clock,
) -> Result<Arc<Ordered>, SupplyError> {
    let names = acme.names_for(&config.server);
    // `check` has made sure that there is one where there is an entry.
    let folder = config.tls.state_folder.clone().unwrap_or_default();
    let is_same =
        |ordered: &&Arc<Ordered>| ordered.config == *acme && ordered.names == names && ordered.folder == folder;
    if let Some(same) = old.orders.iter().find(is_same) {
        return Ok(same.clone());
    }
    let store = Store::at(&folder);
    store.prepare()?;
    let stored = names.first().map(|name| store.find_certificate(name)).transpose();
    let stored = stored.map(Option::flatten).unwrap_or_else(|error| {
        warn!(error = chain_of(&error), "the stored certificate cannot be used; another is ordered");
        None
    });
    let certificate = match stored {
        Some(stored) => (stored, Source::Acme),
        None => (Certificate::self_signed(&names, clock.now())?, Source::SelfSigned),
    };
    let certificate = Mutex::new(certificate);
    Ok(Arc::new(Ordered { config: acme.clone(), names, folder, stop: CancellationToken::new(), certificate }))
}

fn read_development(
    section: &DevelopmentCaConfig,
    config: &EdgeConfig,
    old: &Sources,
    clock: &dyn Clock,
) -> Result<Development, SupplyError> {
    let own = host_of(&config.server.name).to_owned();
    let names: Vec<String> = section.names.iter().cloned().chain([own]).collect();
    if let Some(same) = old.development.as_ref().filter(|old| old.config == *section && old.names == names) {
        return Ok(same.clone());
    }
    let made = development_ca::prepare(&section.folder, &names, clock)?;
    let certificate = Certificate::load(&made.leaf)?;
    Ok(Development { config: section.clone(), names, made, certificate })
}
