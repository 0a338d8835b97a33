//! Who is banned, and until when.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::offender::Offender;
use super::prefix_map::PrefixMap;

/// One ban. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ban {
    pub(crate) offender: Offender,
    /// The jail that imposed it, or [`BY_OPERATOR`].
    pub(crate) jail: String,
    pub(crate) since_ms: u64,
    /// The first moment in which it holds no more; `None` for a ban without end.
    pub(crate) until_ms: Option<u64>,
}

/// What stands for a jail when an operator has banned.
pub(crate) const BY_OPERATOR: &str = "operator";

impl Ban {
    pub(crate) fn holds(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }

    /// How much of it is left, in milliseconds; `None` for a ban without end.
    pub(crate) fn left_ms(&self, now_ms: u64) -> Option<u64> {
        self.until_ms.map(|until| until.saturating_sub(now_ms))
    }

    fn outlasts(&self, other: &Self) -> bool {
        match (self.until_ms, other.until_ms) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(own), Some(others)) => own > others,
        }
    }
}

/// All bans. A look costs a relaxed load while there is none, and no look at a clock.
#[derive(Debug, Default)]
pub(crate) struct BanTable {
    any: AtomicBool,
    bans: RwLock<Bans>,
}

#[derive(Debug, Default)]
struct Bans {
    prefixes: PrefixMap<Ban>,
    servers: HashMap<String, Ban>,
}

impl BanTable {
    /// Whether anything of `address` is banned.
    pub(crate) fn holds_address(&self, address: IpAddr, now_ms: impl FnOnce() -> u64) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let now_ms = now_ms();
        self.bans.read().prefixes.around(address).any(|(_, ban)| ban.holds(now_ms))
    }

    /// Whether the server of this name is banned.
    pub(crate) fn holds_server(&self, name: &str, now_ms: impl FnOnce() -> u64) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let now_ms = now_ms();
        self.bans.read().servers.get(&name.to_ascii_lowercase()).is_some_and(|ban| ban.holds(now_ms))
    }

    /// The ban of exactly this offender.
    pub(crate) fn find(&self, offender: &Offender, now_ms: u64) -> Option<Ban> {
        let bans = self.bans.read();
        let ban = match offender {
            Offender::Prefix(prefix) => bans.prefixes.get(*prefix),
            Offender::Server(name) => bans.servers.get(name),
        };
        ban.filter(|ban| ban.holds(now_ms)).cloned()
    }

    /// Adds a ban; `false` when the offender is banned for as long already.
    pub(crate) fn insert(&self, ban: Ban) -> bool {
        let mut bans = self.bans.write();
        let standing = match &ban.offender {
            Offender::Prefix(prefix) => bans.prefixes.get(*prefix),
            Offender::Server(name) => bans.servers.get(name),
        };
        if standing.is_some_and(|standing| !ban.outlasts(standing)) {
            return false;
        }
        match ban.offender.clone() {
            Offender::Prefix(prefix) => bans.prefixes.insert(prefix, ban),
            Offender::Server(name) => bans.servers.insert(name, ban),
        };
        self.any.store(true, Ordering::Relaxed);
        true
    }

    /// Lifts the ban of exactly this offender.
    pub(crate) fn remove(&self, offender: &Offender) -> Option<Ban> {
        let mut bans = self.bans.write();
        let removed = match offender {
            Offender::Prefix(prefix) => bans.prefixes.remove(*prefix),
            Offender::Server(name) => bans.servers.remove(name),
        };
        self.note_whether_any(&bans);
        removed
    }

    /// How many there are, with those that have expired and are not forgotten yet.
    pub(crate) fn len(&self) -> usize {
        let bans = self.bans.read();
        bans.prefixes.len() + bans.servers.len()
    }

    /// Every ban that holds, the newest first.
    pub(crate) fn list(&self, now_ms: u64) -> Vec<Ban> {
        let bans = self.bans.read();
        let all = bans.prefixes.iter().map(|(_, ban)| ban).chain(bans.servers.values());
        let mut list: Vec<Ban> = all.filter(|ban| ban.holds(now_ms)).cloned().collect();
        list.sort_by(|one, other| (other.since_ms, &one.offender).cmp(&(one.since_ms, &other.offender)));
        list
    }

    /// Forgets bans that have expired. They hold no more without this; it only frees their memory.
    pub(crate) fn prune(&self, now_ms: u64) {
        let mut bans = self.bans.write();
        let expired: Vec<_> =
            bans.prefixes.iter().filter(|(_, ban)| !ban.holds(now_ms)).map(|(prefix, _)| *prefix).collect();
        for prefix in expired {
            bans.prefixes.remove(prefix);
        }
        bans.servers.retain(|_, ban| ban.holds(now_ms));
        self.note_whether_any(&bans);
    }

    fn note_whether_any(&self, bans: &Bans) {
        let any = bans.prefixes.len() + bans.servers.len() > 0;
        self.any.store(any, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(offender: &str, until_ms: Option<u64>) -> Ban {
        Ban { offender: offender.parse().unwrap(), jail: "test".to_owned(), since_ms: 0, until_ms }
    }

    fn holds(table: &BanTable, address: &str, now_ms: u64) -> bool {
        table.holds_address(address.parse().unwrap(), || now_ms)
    }

    #[test]
    fn a_ban_ends_at_its_millisecond() {
        let table = BanTable::default();
        assert!(table.insert(ban("192.0.2.0/24", Some(1_000))));
        assert!(holds(&table, "192.0.2.9", 999));
        assert!(!holds(&table, "192.0.2.9", 1_000));
        assert!(!holds(&table, "192.0.3.9", 999));
        assert_eq!(table.list(999).len(), 1);
        assert!(table.list(1_000).is_empty());
    }

    #[test]
    fn the_longer_ban_stands() {
        let table = BanTable::default();
        assert!(table.insert(ban("192.0.2.1", Some(2_000))));
        assert!(!table.insert(ban("192.0.2.1", Some(1_000))));
        assert!(table.insert(ban("192.0.2.1", None)));
        assert!(!table.insert(ban("192.0.2.1", Some(u64::MAX))));
        assert!(holds(&table, "192.0.2.1", u64::MAX));
        assert!(table.remove(&"192.0.2.1".parse().unwrap()).is_some());
        assert!(!holds(&table, "192.0.2.1", 0));
    }

    #[test]
    fn a_short_ban_within_a_long_one_ends_alone() {
        let table = BanTable::default();
        table.insert(ban("2001:db8::/32", Some(5_000)));
        table.insert(ban("2001:db8::/64", Some(1_000)));
        assert!(holds(&table, "2001:db8::1", 4_999));
        table.prune(1_000);
        assert!(holds(&table, "2001:db8::1", 4_999) && !holds(&table, "2001:db8::1", 5_000));
    }

    #[test]
    fn servers_are_banned_by_name() {
        let table = BanTable::default();
        table.insert(ban("evil.example", Some(1_000)));
        assert!(table.holds_server("EVIL.example", || 0));
        assert!(!table.holds_server("good.example", || 0) && !table.holds_server("evil.example", || 1_000));
    }
}
