//! `[addresses]`: which addresses are one client, and which are treated specially.

use gatehouse_shared::config::Checker;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which addresses are one client, and which are treated specially.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AddressPolicy {
    /// How many leading bits of an IPv4 address are one client.
    pub ipv4_prefix: u8,
    /// How many leading bits of an IPv6 address are one client; a site is usually given 64 or fewer.
    pub ipv6_prefix: u8,
    /// Prefixes that no limit, no jail and no ban touches.
    pub exempt: Vec<IpNet>,
    /// Prefixes that no jail counts: a proxy or a whole network may stand behind one of their addresses.
    pub ignore: Vec<IpNet>,
    /// Prefixes that are always refused, as if they were banned for ever.
    pub deny: Vec<IpNet>,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        let nets = |texts: &[&str]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        Self {
            ipv4_prefix: 32,
            ipv6_prefix: 64,
            exempt: nets(&["127.0.0.0/8", "::1/128"]),
            ignore: nets(&[
                "10.0.0.0/8",
                "172.16.0.0/12",
                "192.168.0.0/16",
                "100.64.0.0/10",
                "169.254.0.0/16",
                "fc00::/7",
                "fe80::/10",
            ]),
            deny: Vec::new(),
        }
    }
}

impl AddressPolicy {
    pub(super) fn check(&self, checker: &mut Checker<'_>) {
        if !(8..=32).contains(&self.ipv4_prefix) {
            checker.reject("addresses.ipv4_prefix", "must be between 8 and 32 bits");
        }
        if !(16..=128).contains(&self.ipv6_prefix) {
            checker.reject("addresses.ipv6_prefix", "must be between 16 and 128 bits");
        }
    }
}
