//! Answers an authority's challenge, and takes the answer down again.

pub(crate) mod dns;
pub(crate) mod http;
mod tls_alpn;

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use instant_acme::KeyAuthorization;
use tracing::warn;

use crate::config::{ChallengeKind, DnsConfig, chain_of};
use crate::listener::certificates::{Certificates, ChallengeAnswer};
use dns::{DnsError, DnsRecord};
use http::{Token, Tokens};

/// Why a challenge cannot be answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChallengeError {
    /// The certificate of TLS-ALPN-01 cannot be made.
    #[error("cannot make the challenge's certificate")]
    Certificate(#[from] rcgen::Error),
    /// Its key cannot be used.
    #[error("cannot use the challenge's key")]
    Key(#[from] rustls::Error),
    /// The record cannot be set.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

/// Where answers are given.
#[derive(Clone)]
pub(crate) struct Challenges {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) dns: Option<DnsConfig>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// An answer that stands until it is taken down.
pub(super) struct Answer {
    name: String,
    given: Given,
}

enum Given {
    /// Goes when it is dropped.
    Http(#[expect(dead_code, reason = "held for its drop")] Token),
    /// Goes when it is dropped.
    TlsAlpn(#[expect(dead_code, reason = "held for its drop")] ChallengeAnswer),
    Dns(DnsRecord),
}

impl Challenges {
    pub(super) async fn answer(
        &self,
        kind: ChallengeKind,
        name: &str,
        token: &str,
        authorization: &KeyAuthorization,
    ) -> Result<Answer, ChallengeError> {
        let given = match kind {
            ChallengeKind::Http01 => {
                Given::Http(self.tokens.answer(token.to_owned(), authorization.as_str().to_owned()))
            }
            ChallengeKind::TlsAlpn01 => {
                let key = tls_alpn::certificate(name, authorization.digest().as_ref())?;
                Given::TlsAlpn(self.certificates.answer_challenge(name.to_owned(), key))
            }
            ChallengeKind::Dns01 => {
                let dns = self.dns.as_ref().ok_or(DnsError::NotConfigured)?;
                Given::Dns(DnsRecord::set(dns, name, authorization.dns_value(), self.clock.clone()).await?)
            }
        };
        Ok(Answer { name: name.to_owned(), given })
    }
}

impl Answer {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the authority can see it.
    pub(super) async fn seen(&self) -> Result<(), ChallengeError> {
        match &self.given {
            Given::Http(_) | Given::TlsAlpn(_) => Ok(()),
            Given::Dns(record) => Ok(record.seen().await?),
        }
    }

    /// Takes it down. A record that stays behind does no harm, so nothing fails for it.
    pub(super) async fn take_down(self) {
        if let Given::Dns(record) = self.given
            && let Err(error) = record.delete().await
        {
            warn!(name = self.name, error = chain_of(&error), "a challenge's record stays in the DNS");
        }
    }
}
