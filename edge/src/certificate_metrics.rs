//! What the edge counts of certificates and their orders.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::acme::store::seconds;
use crate::listener::certificates::Certificate;

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// `[[tls.certificates]]`.
    File,
    /// `[[tls.acme]]`.
    Acme,
    /// `[tls.development_ca]`.
    Development,
    /// Nobody trusts it; ACME has not got a better one yet.
    SelfSigned,
}

impl Source {
    /// The word for it in metrics and reports.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Acme => "acme",
            Self::Development => "development",
            Self::SelfSigned => "self-signed",
        }
    }
}

/// The names of certificates come from the configuration, so there are as many series as it has entries.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InUse {
    certificate: String,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ordered {
    certificate: String,
}

/// Everything that is counted of certificates.
#[derive(Debug, Clone, Default)]
pub(crate) struct CertificateMetrics {
    expiry: Family<InUse, Gauge>,
    orders: Family<Ordered, Counter>,
    failures: Family<Ordered, Counter>,
}

impl CertificateMetrics {
    /// Registers every series under `gatehouse_edge_`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("gatehouse_edge");
        let metrics = Self::default();
        let expiry = metrics.expiry.clone();
        registry.register("certificate_expiry_seconds", "When a certificate in use expires, Unix time", expiry);
        registry.register("acme_orders", "Certificates that were issued", metrics.orders.clone());
        registry.register("acme_order_failures", "Orders of certificates that failed", metrics.failures.clone());
        metrics
    }

    /// These certificates are in use, and no others.
    pub(crate) fn in_use(&self, certificates: &[(Certificate, Source)]) {
        self.expiry.clear();
        for (certificate, source) in certificates {
            let name = certificate.identities().into_iter().next().unwrap_or_default();
            let labels = InUse { certificate: name, source: source.as_str() };
            let expiry = i64::try_from(seconds(certificate.not_after())).unwrap_or(i64::MAX);
            self.expiry.get_or_create(&labels).set(expiry);
        }
    }

    /// Orders that succeeded and that failed, of the certificate that begins with `name`.
    pub(crate) fn orders(&self, name: &str) -> (Counter, Counter) {
        let labels = Ordered { certificate: name.to_owned() };
        (self.orders.get_or_create(&labels).clone(), self.failures.get_or_create(&labels).clone())
    }
}
