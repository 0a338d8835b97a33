//! Asks the DNS for addresses, aliases and services, and keeps apart "there is none" and "nobody answered".

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::doctor::observed::{HostRecords, Lookup, Service, Services};

/// How long one name server may take for one question.
const WITHIN: Duration = Duration::from_secs(3);
/// Aliases that are followed.
const MOST_ALIASES: usize = 8;

/// The name servers that are asked.
pub(crate) struct Dns {
    resolver: TokioResolver,
}

impl Dns {
    /// Asks these name servers, or those of the operating system where none are given.
    pub(crate) fn new(name_servers: &[SocketAddr]) -> Result<Self, NetError> {
        let mut builder = if name_servers.is_empty() {
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
        let options = builder.options_mut();
        options.timeout = WITHIN;
        options.attempts = 1;
        // Other servers do not read this machine's /etc/hosts.
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self { resolver: builder.build()? })
    }

    /// Addresses and aliases of `host`.
    pub(crate) async fn host(&self, host: &str) -> HostRecords {
        let (v4, v6, aliases) = tokio::join!(
            self.lookup(host, RecordType::A, |data| match data {
                RData::A(address) => Some(address.0),
                _ => None,
            }),
            self.lookup(host, RecordType::AAAA, |data| match data {
                RData::AAAA(address) => Some(address.0),
                _ => None,
            }),
            self.aliases(host),
        );
        HostRecords { host: host.to_owned(), aliases, v4, v6 }
    }

    /// Service records of `host`.
    pub(crate) async fn services(&self, host: &str) -> Services {
        let (current_name, deprecated_name) = (format!("_matrix-fed._tcp.{host}"), format!("_matrix._tcp.{host}"));
        let (current, deprecated) = tokio::join!(
            self.lookup(&current_name, RecordType::SRV, service_of),
            self.lookup(&deprecated_name, RecordType::SRV, service_of),
        );
        Services { host: host.to_owned(), current, deprecated }
    }

    async fn aliases(&self, host: &str) -> Vec<String> {
        let mut aliases: Vec<String> = Vec::new();
        while aliases.len() < MOST_ALIASES {
            let from = aliases.last().map_or(host, String::as_str);
            let found = self
                .lookup(from, RecordType::CNAME, |data| match data {
                    RData::CNAME(target) => Some(without_dot(&target.0)),
                    _ => None,
                })
                .await;
            match found.records() {
                [target, ..] if target != host && !aliases.contains(target) => aliases.push(target.clone()),
                _ => break,
            }
        }
        aliases
    }

    async fn lookup<T>(&self, name: &str, kind: RecordType, pick: impl Fn(&RData) -> Option<T>) -> Lookup<T> {
        let Ok(mut asked) = Name::from_ascii(name) else { return Lookup::NoSuchName };
        // With its final dot, so that no search domain is tried.
        asked.set_fqdn(true);
        match self.resolver.lookup(asked, kind).await {
            Ok(lookup) => {
                let found: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
                if found.is_empty() { Lookup::Nothing } else { Lookup::Found(found) }
            }
            Err(error) if error.is_nx_domain() => Lookup::NoSuchName,
            Err(error) if error.is_no_records_found() => Lookup::Nothing,
            Err(error) => Lookup::Failed(error.to_string()),
        }
    }
}

fn service_of(data: &RData) -> Option<Service> {
    let RData::SRV(srv) = data else { return None };
    let target = without_dot(&srv.target);
    Some(Service { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}

fn without_dot(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_ascii_lowercase()
}
