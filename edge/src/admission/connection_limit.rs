//! Whose connections there are: how many each client may have, and which end when an address is banned.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::ending::Ending;

/// All connections that are open, by client.
#[derive(Debug, Default)]
pub(crate) struct LiveConnections(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    clients: HashMap<IpNet, usize>,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug)]
struct Address {
    connections: usize,
    cut: Ending,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    live: Arc<LiveConnections>,
    client: IpNet,
    address: IpAddr,
    cut: Ending,
}

impl Counted {
    /// Comes when the connection is to end at once.
    pub(crate) fn cut(&self) -> &Ending {
        &self.cut
    }
}

impl LiveConnections {
    /// Counts a connection of `address`, which belongs to `client`; `None` when the client has `most` of them.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr, client: IpNet, most: usize) -> Option<Counted> {
        let mut live = self.0.lock();
        let connections = live.clients.entry(client).or_default();
        if *connections >= most {
            return None;
        }
        *connections += 1;
        let entry = live.addresses.entry(address);
        let entry = entry.or_insert_with(|| Address { connections: 0, cut: Ending::default() });
        entry.connections += 1;
        Some(Counted { live: self.clone(), client, address, cut: entry.cut.clone() })
    }

    /// Ends every connection of the addresses that are `hit`, and says how many.
    pub(crate) fn cut(&self, hit: impl Fn(IpAddr) -> bool) -> usize {
        let live = self.0.lock();
        let within = live.addresses.iter().filter(|(address, _)| hit(**address));
        within
            .map(|(_, address)| {
                address.cut.end();
                address.connections
            })
            .sum()
    }

    fn leave(&self, address: IpAddr, client: IpNet) {
        let mut live = self.0.lock();
        if let Some(connections) = live.clients.get_mut(&client) {
            *connections -= 1;
            if *connections == 0 {
                live.clients.remove(&client);
            }
        }
        if let Some(entry) = live.addresses.get_mut(&address) {
            entry.connections -= 1;
            if entry.connections == 0 {
                live.addresses.remove(&address);
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.live.leave(self.address, self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_connections_and_no_more() {
        let live = Arc::new(LiveConnections::default());
        let client: IpNet = "2001:db8::/64".parse().unwrap();
        let enter = |address: &str| live.enter(address.parse().unwrap(), client, 2);
        let first = enter("2001:db8::1").unwrap();
        let _second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        drop(first);
        assert!(enter("2001:db8::3").is_some());
    }

    #[test]
    fn a_ban_cuts_the_connections_of_its_prefix_and_no_others() {
        let live = Arc::new(LiveConnections::default());
        let enter = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            live.enter(address, IpNet::from(address), 10).unwrap()
        };
        let (one, same, other) = (enter("192.0.2.1"), enter("192.0.2.1"), enter("192.0.3.1"));
        let prefix: IpNet = "192.0.2.0/24".parse().unwrap();
        assert_eq!(live.cut(|address| prefix.contains(&address)), 2);
        assert!(one.cut().is_over() && same.cut().is_over() && !other.cut().is_over());
        drop((one, same));
        assert!(!enter("192.0.2.1").cut().is_over(), "a ban that has ended cuts nobody");
    }
}
