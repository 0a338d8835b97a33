//! What is known of prefixes of addresses, found by an address in as many looks as there are lengths.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// A map from prefixes; both families share it.
#[derive(Debug, Clone)]
pub(crate) struct PrefixMap<V> {
    values: HashMap<IpNet, V>,
    /// How many entries have each length.
    ipv4: [usize; 33],
    ipv6: [usize; 129],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), ipv4: [0; 33], ipv6: [0; 129] }
    }
}

impl<V> PrefixMap<V> {
    pub(crate) fn insert(&mut self, prefix: IpNet, value: V) -> Option<V> {
        let prefix = prefix.trunc();
        let old = self.values.insert(prefix, value);
        if old.is_none() {
            *self.count(prefix) += 1;
        }
        old
    }

    pub(crate) fn remove(&mut self, prefix: IpNet) -> Option<V> {
        let prefix = prefix.trunc();
        let old = self.values.remove(&prefix)?;
        *self.count(prefix) -= 1;
        Some(old)
    }

    pub(crate) fn get(&self, prefix: IpNet) -> Option<&V> {
        self.values.get(&prefix.trunc())
    }

    /// Everything that is known of prefixes around `address`, the longest first.
    pub(crate) fn around(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, &V)> {
        let counts: &[usize] = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let lengths = counts.iter().enumerate().rev().filter(|(_, count)| **count > 0);
        lengths.filter_map(move |(length, _)| {
            let prefix = prefix_of(address, u8::try_from(length).ok()?);
            self.values.get(&prefix).map(|value| (prefix, value))
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        !self.values.is_empty() && self.around(address).next().is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&IpNet, &V)> {
        self.values.iter()
    }

    fn count(&mut self, prefix: IpNet) -> &mut usize {
        let length = usize::from(prefix.prefix_len());
        match prefix {
            IpNet::V4(_) => &mut self.ipv4[length],
            IpNet::V6(_) => &mut self.ipv6[length],
        }
    }
}

impl FromIterator<IpNet> for PrefixMap<()> {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let mut map = Self::default();
        for prefix in prefixes {
            map.insert(prefix, ());
        }
        map
    }
}

/// The prefix of so many bits around `address`; the whole address when there are not so many.
pub(crate) fn prefix_of(address: IpAddr, bits: u8) -> IpNet {
    IpNet::new(address, bits).map_or_else(|_| IpNet::from(address), |prefix| prefix.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_finds_every_prefix_around_it() {
        let mut map = PrefixMap::default();
        for (prefix, value) in [("192.0.2.0/24", 1), ("192.0.2.7/32", 2), ("2001:db8::/32", 3), ("0.0.0.0/0", 4)] {
            map.insert(prefix.parse().unwrap(), value);
        }
        let found = |map: &PrefixMap<i32>, address: &str| -> Vec<i32> {
            map.around(address.parse().unwrap()).map(|(_, value)| *value).collect()
        };
        assert_eq!(found(&map, "192.0.2.7"), [2, 1, 4]);
        assert_eq!(found(&map, "192.0.2.8"), [1, 4]);
        assert_eq!(found(&map, "2001:db8:1::1"), [3]);
        assert_eq!(found(&map, "2001:db9::1"), [] as [i32; 0]);
        assert_eq!(map.remove("192.0.2.99/24".parse().unwrap()), Some(1));
        assert_eq!(found(&map, "192.0.2.8"), [4]);
    }
}
