//! The policy as it is decided by: one value, made whole from one file and swapped as one.

use std::net::IpAddr;

use gatehouse_shared::servers::ServerNames;
use governor::Quota;
use ipnet::IpNet;

use super::class_table::ClassTable;
use super::jail::Jail;
use super::prefix_map::{PrefixMap, prefix_of};
use super::rate_limit::quota;
use super::request_class::RequestClass;
use crate::config::policy::{ConnectionPolicy, Policy};

/// The quotas of one class; `None` where there is no limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quotas {
    pub(crate) client: Option<Quota>,
    pub(crate) token: Option<Quota>,
    pub(crate) user: Option<Quota>,
    pub(crate) origin: Option<Quota>,
}

/// A policy, ready to decide.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) classes: ClassTable,
    pub(crate) servers: ServerNames,
    pub(crate) connections: ConnectionPolicy,
    pub(crate) jails: Vec<Jail>,
    exempt: PrefixMap<()>,
    ignore: PrefixMap<()>,
    deny: PrefixMap<()>,
    quotas: [Quotas; RequestClass::ALL.len()],
    ipv4_prefix: u8,
    ipv6_prefix: u8,
}

impl Rules {
    pub(crate) fn new(policy: &Policy) -> Self {
        let quotas = policy.classes.named().map(|(_, class)| Quotas {
            client: class.client.map(quota),
            token: class.token.map(quota),
            user: class.user.map(quota),
            origin: class.origin.map(quota),
        });
        Self {
            classes: ClassTable::new(&policy.classes),
            servers: ServerNames::new(&policy.servers),
            connections: policy.connections.clone(),
            jails: policy.jails.0.iter().map(|(name, jail)| Jail::new(name, jail)).collect(),
            exempt: policy.addresses.exempt.iter().copied().collect(),
            ignore: policy.addresses.ignore.iter().copied().collect(),
            deny: policy.addresses.deny.iter().copied().collect(),
            quotas,
            ipv4_prefix: policy.addresses.ipv4_prefix,
            ipv6_prefix: policy.addresses.ipv6_prefix,
        }
    }

    /// The prefix that stands for the client at `address`.
    pub(crate) fn client(&self, address: IpAddr) -> IpNet {
        prefix_of(address, if address.is_ipv4() { self.ipv4_prefix } else { self.ipv6_prefix })
    }

    /// Whether no limit, no jail and no ban touches `address`.
    pub(crate) fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.contains(address)
    }

    /// Whether jails count `address`.
    pub(crate) fn is_counted(&self, address: IpAddr) -> bool {
        !self.ignore.contains(address) && !self.is_exempt(address)
    }

    pub(crate) fn is_denied(&self, address: IpAddr) -> bool {
        self.deny.contains(address)
    }

    pub(crate) fn quotas(&self, class: RequestClass) -> Quotas {
        self.quotas[class as usize]
    }
}
