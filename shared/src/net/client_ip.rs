//! The one form in which a client's address is compared, limited, banned and logged.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The address with `::ffff:a.b.c.d` turned into `a.b.c.d`, as a dual-stack listener sees IPv4 clients.
pub fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The prefix that stands for one client: the whole IPv4 address, or the /64 that an IPv6 site is given.
pub fn prefix(address: IpAddr) -> IpNet {
    match canonical(address) {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::from(v4)),
        IpAddr::V6(v6) => {
            let network = std::net::Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64));
            IpNet::V6(Ipv6Net::new_assert(network, 64))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_client() {
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(canonical(mapped).to_string(), "192.0.2.7");
        assert_eq!(prefix(mapped).to_string(), "192.0.2.7/32");
    }

    #[test]
    fn an_ipv6_client_is_its_64() {
        let address: IpAddr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        assert_eq!(prefix(address).to_string(), "2001:db8:1:2::/64");
    }
}
