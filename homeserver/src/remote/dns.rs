//! Asks the DNS for addresses and services, and decides which addresses may be called at all.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{Name, RData},
};
use ipnet::IpNet;

/// Ranges that are not of the public internet: a name that leads there must not make us call our own network.
const PRIVATE: [&str; 22] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "::/128",
    "::1/128",
    "64:ff9b::/96",
    "2001:db8::/32",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
];

/// A resolver, and the ranges that it may lead to. Clones share the cache.
#[derive(Clone)]
pub(super) struct Dns {
    resolver: TokioResolver,
    ranges: Arc<Ranges>,
}

struct Ranges {
    refused: Vec<IpNet>,
    allowed: Vec<IpNet>,
}

/// Where a service record leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) target: String,
    pub(super) port: u16,
}

/// Addresses or services, and until when they hold.
pub(super) struct Found<T> {
    pub(super) items: Vec<T>,
    pub(super) valid_until: Instant,
}

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("the DNS does not know {0}")]
    Unknown(String),
    #[error("the DNS did not answer for {name}")]
    Failed { name: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{0} leads to a private address, which is not called")]
    Private(String),
    #[error("{0} says that it offers no such service")]
    NotOffered(String),
}

impl Dns {
    /// Asks the operating system's DNS servers, or those given.
    pub(super) fn new(name_servers: &[SocketAddr], allowed: Vec<IpNet>) -> Result<Self, NetError> {
        let builder = if name_servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = name_servers.iter().map(|address| {
                let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                connections.iter_mut().for_each(|connection| connection.port = address.port());
                NameServerConfig::new(address.ip(), true, connections)
            });
            let config = ResolverConfig::from_name_servers(servers.collect());
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let refused = PRIVATE.iter().filter_map(|range| range.parse().ok()).collect();
        Ok(Self { resolver: builder.build()?, ranges: Arc::new(Ranges { refused, allowed }) })
    }

    /// Whether `address` is of the public internet, or allowed by the operator.
    pub(super) fn permits(&self, address: IpAddr) -> bool {
        // An IPv4 address stays what it is when it is written as an IPv6 one.
        let address = address.to_canonical();
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&address));
        within(&self.ranges.allowed) || !within(&self.ranges.refused)
    }

    /// The addresses of `host` that may be called.
    pub(super) async fn addresses(&self, host: &str) -> Result<Found<IpAddr>, DnsError> {
        let lookup = self.resolver.lookup_ip(absolute(host)?).await.map_err(|error| failure(host, error))?;
        let all: Vec<IpAddr> = lookup.iter().collect();
        if all.is_empty() {
            return Err(DnsError::Unknown(host.to_owned()));
        }
        let items: Vec<IpAddr> = all.into_iter().filter(|address| self.permits(*address)).collect();
        if items.is_empty() {
            return Err(DnsError::Private(host.to_owned()));
        }
        Ok(Found { items, valid_until: lookup.valid_until() })
    }

    /// The services of `name`, in the order in which they are to be tried (RFC 2782).
    pub(super) async fn services(&self, name: &str) -> Result<Found<Service>, DnsError> {
        let lookup = self.resolver.srv_lookup(absolute(name)?).await.map_err(|error| failure(name, error))?;
        let mut records: Vec<(u16, u16, Service)> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(srv) => {
                    let target = srv.target.to_ascii().trim_end_matches('.').to_owned();
                    Some((srv.priority, srv.weight, Service { target, port: srv.port }))
                }
                _ => None,
            })
            .collect();
        if records.is_empty() {
            return Err(DnsError::Unknown(name.to_owned()));
        }
        records.retain(|(_, _, service)| !service.target.is_empty());
        if records.is_empty() {
            return Err(DnsError::NotOffered(name.to_owned()));
        }
        Ok(Found { items: in_order_of_trial(records), valid_until: lookup.valid_until() })
    }
}

/// The name with its final dot, so that no search domain is tried.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let mut parsed = Name::from_ascii(name).map_err(|_| DnsError::Unknown(name.to_owned()))?;
    parsed.set_fqdn(true);
    Ok(parsed)
}

fn failure(name: &str, error: NetError) -> DnsError {
    if error.is_no_records_found() || error.is_nx_domain() {
        DnsError::Unknown(name.to_owned())
    } else {
        DnsError::Failed { name: name.to_owned(), source: error.into() }
    }
}

/// Lower priorities first; within one, drawn by weight.
fn in_order_of_trial(mut records: Vec<(u16, u16, Service)>) -> Vec<Service> {
    let mut ordered = Vec::with_capacity(records.len());
    records.sort_by_key(|(priority, ..)| *priority);
    while let Some((priority, ..)) = records.first() {
        let equal = records.iter().take_while(|(other, ..)| other == priority).count();
        let total: u64 = records.iter().take(equal).map(|(_, weight, _)| u64::from(*weight) + 1).sum();
        let mut drawn = rand::random_range(0..total);
        let chosen = records.iter().take(equal).position(|(_, weight, _)| {
            let share = u64::from(*weight) + 1;
            let hit = drawn < share;
            drawn = drawn.saturating_sub(share);
            hit
        });
        ordered.push(records.remove(chosen.unwrap_or(0)).2);
    }
    ordered
}

/// What follows redirects may only reach what we may call.
impl reqwest::dns::Resolve for Dns {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let dns = self.clone();
        Box::pin(async move {
            let found = dns.addresses(name.as_str()).await?;
            let addresses = found.items.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses) as reqwest::dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn private_addresses_are_refused_in_every_spelling_unless_allowed() {
        let dns = Dns::new(&["127.0.0.1:9".parse().unwrap()], vec!["10.1.0.0/16".parse().unwrap()]).unwrap();
        assert_eq!(PRIVATE.len(), dns.ranges.refused.len());
        for refused in
            ["127.0.0.1", "10.2.0.1", "192.168.1.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fd00::1", "0.0.0.0"]
        {
            assert!(!dns.permits(refused.parse().unwrap()), "{refused}");
        }
        for allowed in ["10.1.2.3", "::ffff:10.1.2.3", "1.1.1.1", "2606:4700::1111"] {
            assert!(dns.permits(allowed.parse().unwrap()), "{allowed}");
        }
    }

    #[test]
    fn lower_priorities_are_tried_first() {
        let service = |target: &str| Service { target: target.to_owned(), port: 1 };
        let records = vec![(20, 0, service("c")), (10, 5, service("b")), (10, 0, service("a"))];
        let ordered = in_order_of_trial(records);
        assert_eq!(ordered.len(), 3);
        assert_eq!(ordered[2], service("c"));
    }
}
