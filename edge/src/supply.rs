//! Where the certificates in use come from: watched files, ACME, the development authority; swapped as one.

mod sources;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::acme::challenge::Challenges;
use crate::acme::challenge::http::Tokens;
use crate::acme::keeper::Keeper;
use crate::acme::store::{Store, StoreError};
use crate::certificate_metrics::CertificateMetrics;
use crate::chance::Chance;
use crate::config::{EdgeConfig, InternalListenerConfig};
use crate::listener::certificates::{CertificateError, Certificates};
use crate::listener::client_certificates::{
    ClientAuthorities, ClientAuthorityError, ClientVerifier, client_authorities,
};
use crate::listener::development_ca::DevelopmentCaError;
use crate::listener::tls;
use sources::{Ordered, Sources};

/// Why the certificates of a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SupplyError {
    /// A certificate's files.
    #[error("cannot use a certificate of [tls]")]
    Certificate(#[from] CertificateError),
    /// The authorities of clients' certificates.
    #[error("cannot use a client_ca of [[listen.internal]]")]
    ClientAuthority(#[from] ClientAuthorityError),
    /// The development authority.
    #[error("cannot make the development certificate authority")]
    DevelopmentCa(#[from] DevelopmentCaError),
    /// The folder for ACME.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Supplies the listeners with certificates. Clones are the same supply.
#[derive(Clone)]
pub(crate) struct Supply(Arc<Shared>);

struct Shared {
    certificates: Arc<Certificates>,
    tokens: Arc<Tokens>,
    internal: Vec<(SocketAddr, Arc<ClientVerifier>)>,
    metrics: CertificateMetrics,
    clock: Arc<dyn Clock>,
    chance: Arc<Chance>,
    current: Mutex<Sources>,
    /// Everything that runs beside: keepers of certificates and the watch over files.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Certificates that were read and checked, and are not in use yet.
pub(crate) struct Prepared {
    sources: Sources,
    internal: Vec<(SocketAddr, Arc<dyn ClientAuthorities>)>,
}

impl Supply {
    /// Reads all certificates and puts them into use; those that ACME has not got yet are self-signed. Nothing is ordered
    /// or watched before [`Supply::start`].
    pub(crate) fn new(
        config: &EdgeConfig,
        metrics: CertificateMetrics,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Result<Self, SupplyError> {
        // First, because it stamps the files: one that is replaced meanwhile is seen to change.
        let sources = Sources::read(config, &Sources::default(), clock.as_ref())?;
        let verifier = |listener: &InternalListenerConfig| {
            Ok((listener.address, Arc::new(ClientVerifier::new(client_authorities(&listener.client_ca)?))))
        };
        let internal = config.listen.internal.iter().map(verifier).collect::<Result<_, ClientAuthorityError>>()?;
        let supply = Self(Arc::new(Shared {
            certificates: Arc::default(),
            tokens: Arc::default(),
            internal,
            metrics,
            clock,
            chance: Arc::new(Chance::seeded(seed)),
            current: Mutex::new(sources),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }));
        let _ = supply.0.publish(&supply.0.current.lock());
        Ok(supply)
    }

    /// What answers handshakes.
    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        self.0.certificates.clone()
    }

    /// What answers HTTP-01.
    pub(crate) fn tokens(&self) -> Arc<Tokens> {
        self.0.tokens.clone()
    }

    /// How an address of `[[listen.internal]]` speaks TLS.
    pub(crate) fn mutual_tls(&self, address: SocketAddr) -> Option<Arc<ServerConfig>> {
        let (_, verifier) = self.0.internal.iter().find(|(own, _)| *own == address)?;
        Some(tls::mutual_config(self.0.certificates.clone(), verifier.clone()))
    }

    /// The development authority's own certificate.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.0.current.lock().development_ca()
    }

    /// Orders and watches from now on, until `stop`.
    pub(crate) fn start(&self) {
        let sources = self.0.current.lock();
        for ordered in sources.orders() {
            self.0.clone().keep(ordered.clone());
        }
        self.0.tasks.spawn(watch::watch(self.0.clone(), self.0.stop.clone()));
    }

    /// Reads and checks the certificates of `config`, changing nothing.
    pub(crate) fn prepare(&self, config: &EdgeConfig) -> Result<Prepared, SupplyError> {
        let sources = Sources::read(config, &self.0.current.lock(), self.0.clock.as_ref())?;
        let read = |one: &InternalListenerConfig| Ok((one.address, client_authorities(&one.client_ca)?));
        let internal = config.listen.internal.iter().map(read).collect::<Result<_, ClientAuthorityError>>()?;
        Ok(Prepared { sources, internal })
    }

    /// Puts what was prepared into use, for handshakes that begin from now on. Certificates that ACME keeps for the same
    /// entry of the configuration go on being kept. Returns how many certificates there are.
    pub(crate) fn apply(&self, prepared: Prepared) -> usize {
        for (address, authorities) in prepared.internal {
            self.0.replace_client_authorities(address, authorities);
        }
        let mut current = self.0.current.lock();
        let old = std::mem::replace(&mut *current, prepared.sources);
        let is_in = |sources: &Sources, ordered: &Arc<Ordered>| sources.orders().any(|one| Arc::ptr_eq(one, ordered));
        for gone in old.orders().filter(|ordered| !is_in(&current, ordered)) {
            gone.stop.cancel();
        }
        for new in current.orders().filter(|ordered| !is_in(&old, ordered)) {
            self.0.clone().keep(new.clone());
        }
        self.0.publish(&current)
    }

    /// Ends what runs beside; an order in flight is given up.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Shared {
    /// Has the listeners use what the sources hold, and says how many certificates that is.
    fn publish(&self, sources: &Sources) -> usize {
        let all = sources.in_order();
        let certificates: Vec<_> = all.iter().map(|(certificate, _)| certificate.clone()).collect();
        self.certificates.replace(&certificates, sources.unknown_names());
        self.metrics.in_use(&all);
        all.len()
    }

    /// Nothing happens for an address that nobody listens on; it waits for the next start.
    fn replace_client_authorities(&self, address: SocketAddr, authorities: Arc<dyn ClientAuthorities>) {
        if let Some((_, verifier)) = self.internal.iter().find(|(own, _)| *own == address) {
            verifier.replace(authorities);
        }
    }

    /// Has ACME keep the certificate, until it is no longer wanted or the edge stops.
    fn keep(self: Arc<Self>, ordered: Arc<Ordered>) {
        let Some(name) = ordered.names.first() else { return };
        let (orders, failures) = self.metrics.orders(name);
        let (shared, slot) = (self.clone(), ordered.clone());
        let keeper = Keeper {
            config: ordered.config.clone(),
            names: ordered.names.clone(),
            store: Store::at(&ordered.folder),
            challenges: Challenges {
                tokens: self.tokens.clone(),
                certificates: self.certificates.clone(),
                dns: ordered.config.dns.clone(),
                clock: self.clock.clone(),
            },
            clock: self.clock.clone(),
            chance: self.chance.clone(),
            orders,
            failures,
            deliver: Box::new(move |certificate| {
                // The lock first: whoever publishes next must see the new certificate.
                let current = shared.current.lock();
                slot.deliver(certificate);
                let _ = shared.publish(&current);
            }),
        };
        let stop_all = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop_all.cancelled() => {}
                () = keeper.run(ordered.stop.clone()) => {}
            }
        });
    }
}
