//! Asks: the DNS, TLS endpoints, HTTP servers. Brings home data and judges nothing.

pub(crate) mod connection;
pub(crate) mod dns;
pub(crate) mod document;
pub(crate) mod endpoint;
pub(crate) mod tls;

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use rustls_pki_types::CertificateDer;

/// Addresses of one host that are asked; who has more has them behind one name for balance, and they are alike.
pub(crate) const MOST_ADDRESSES: usize = 8;

/// What every probe needs.
pub(crate) struct Instruments<'a> {
    pub(crate) dns: dns::Dns,
    pub(crate) trust: tls::Verifier,
    pub(crate) clock: &'a dyn Clock,
    /// Goes along with each request, so that it is known when it comes back.
    pub(crate) request_id: String,
}

/// Why nothing can be asked at all.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The system does not say which name servers to ask.
    #[error("cannot tell which name servers to ask (name one with --name-server)")]
    NameServers(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are no certificate authorities to trust.
    #[error("cannot tell which certificate authorities to trust (install ca-certificates, or name one with --ca)")]
    Authorities(#[source] rustls::Error),
}

impl<'a> Instruments<'a> {
    pub(crate) fn new(
        name_servers: &[std::net::SocketAddr],
        authorities: Vec<CertificateDer<'static>>,
        clock: &'a dyn Clock,
    ) -> Result<Self, ProbeError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(Self {
            dns: dns::Dns::new(name_servers).map_err(|error| ProbeError::NameServers(error.into()))?,
            trust: tls::Verifier::new(authorities, provider).map_err(ProbeError::Authorities)?,
            clock,
            request_id: format!("doctor-{:016x}", rand::random::<u64>()),
        })
    }
}
