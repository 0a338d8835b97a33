//! Which certificate answers a handshake; certificates and challenges are swapped while the edge runs.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::tls::ACME_TLS;
use crate::config::UnknownNames;

pub use super::certificate::{Certificate, CertificateError};

/// The certificates in use; a swap reaches every handshake that begins after it.
#[derive(Debug, Default)]
pub struct Certificates {
    table: ArcSwap<Table>,
    /// Certificates that prove to an authority that a name is ours, while it looks.
    challenges: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

#[derive(Debug, Default)]
struct Table {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `example.org` stands for `*.example.org`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For clients that name nothing.
    first: Option<Arc<CertifiedKey>>,
    unknown_names: UnknownNames,
}

impl Certificates {
    /// Puts these certificates in the place of all others. The first serves clients that ask for no name; when two hold
    /// the same name, the earlier one serves it.
    pub fn replace(&self, certificates: &[Certificate], unknown_names: UnknownNames) {
        let first = certificates.first().map(|certificate| certificate.key().clone());
        let mut table = Table { first, unknown_names, ..Table::default() };
        for certificate in certificates {
            for name in certificate.names() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut table.wildcard, parent),
                    None => (&mut table.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| certificate.key().clone());
            }
        }
        self.table.store(Arc::new(table));
    }

    /// Answers `acme-tls/1` for `name` with this certificate until the answer is dropped.
    pub(crate) fn answer_challenge(self: &Arc<Self>, name: String, key: Arc<CertifiedKey>) -> ChallengeAnswer {
        self.challenges.write().insert(name.clone(), key);
        ChallengeAnswer { certificates: self.clone(), name }
    }
}

/// Takes its challenge's certificate away when it is dropped.
#[derive(Debug)]
pub(crate) struct ChallengeAnswer {
    certificates: Arc<Certificates>,
    name: String,
}

impl Drop for ChallengeAnswer {
    fn drop(&mut self) {
        self.certificates.challenges.write().remove(&self.name);
    }
}

impl Table {
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        // rustls hands the name over in lower case.
        let Some(name) = name else { return self.first.as_ref() };
        let parent = || name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent));
        let named = self.exact.get(name).or_else(parent);
        match self.unknown_names {
            UnknownNames::Refuse => named,
            UnknownNames::First => named.or(self.first.as_ref()),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // RFC 8737: an authority offers this protocol and no other.
        if hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none()) {
            return self.challenges.read().get(hello.server_name()?).cloned();
        }
        self.table.load().find(hello.server_name()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_name_finds_its_certificate_and_an_unknown_one_none() {
        let make = |name: &str| Certificate::self_signed(&[name.to_owned()], UNIX_EPOCH).unwrap();
        let (exact, wildcard) = (make("a.example"), make("*.b.example"));
        let certificates = Certificates::default();
        certificates.replace(&[exact.clone(), wildcard.clone()], UnknownNames::Refuse);
        let is = |name: Option<&str>, expected: Option<&Certificate>| {
            let table = certificates.table.load();
            let found = table.find(name).map(Arc::as_ptr);
            assert_eq!(found, expected.map(|certificate| Arc::as_ptr(certificate.key())), "{name:?}");
        };
        is(Some("a.example"), Some(&exact));
        is(Some("x.b.example"), Some(&wildcard));
        is(Some("b.example"), None);
        is(Some("x.y.b.example"), None);
        is(Some("c.example"), None);
        is(None, Some(&exact));
        certificates.replace(&[exact.clone(), wildcard.clone()], UnknownNames::First);
        is(Some("c.example"), Some(&exact));
        is(Some("x.b.example"), Some(&wildcard));
    }
}
