//! Which requests are told to come again later when there are too many: the least urgent first. No I/O.

use std::time::Duration;

use super::request_class::RequestClass;

/// How long a request can wait, as far as its sender is concerned; the least urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// A `/sync` from the beginning: the dearest request there is, of a client that shows nothing yet anyway.
    InitialSync,
    /// Media, directories, searches.
    Background,
    /// Other servers, which come again by themselves.
    Federation,
    /// What a user waits for.
    Ordinary,
}

impl Urgency {
    pub(crate) const ALL: [Self; 4] = [Self::InitialSync, Self::Background, Self::Federation, Self::Ordinary];

    pub(crate) fn of(class: RequestClass, path: &str, query: Option<&str>) -> Self {
        if is_sync(path) && begins_anew(query) {
            return Self::InitialSync;
        }
        match class {
            RequestClass::Media | RequestClass::Other => Self::Background,
            RequestClass::Federation => Self::Federation,
            _ if is_search(path) => Self::Background,
            _ => Self::Ordinary,
        }
    }

    /// At which load, in percent of what is borne, such requests are refused.
    fn limit_percent(self) -> u64 {
        match self {
            Self::InitialSync => 50,
            Self::Background => 70,
            Self::Federation => 80,
            Self::Ordinary => 100,
        }
    }

    /// For metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InitialSync => "initial-sync",
            Self::Background => "background",
            Self::Federation => "federation",
            Self::Ordinary => "ordinary",
        }
    }
}

/// A `/sync` of either kind, however it is versioned.
fn is_sync(path: &str) -> bool {
    path.starts_with("/_matrix/client/") && path.ends_with("/sync")
}

/// Whether a request is a long poll: it waits most of its time and is no load.
pub(crate) fn is_long_poll(path: &str, query: Option<&str>) -> bool {
    is_sync(path) && !begins_anew(query) || path.starts_with("/_matrix/client/v3/events")
}

fn begins_anew(query: Option<&str>) -> bool {
    let continues =
        |pair: &str| ["since=", "pos="].iter().any(|name| pair.strip_prefix(name).is_some_and(|v| !v.is_empty()));
    !query.unwrap_or_default().split('&').any(continues)
}

fn is_search(path: &str) -> bool {
    let after_version = path.strip_prefix("/_matrix/client/").and_then(|rest| rest.split_once('/'));
    after_version.is_some_and(|(_, rest)| matches!(rest, "publicRooms" | "search" | "user_directory/search"))
}

/// How much is going on, and how much is borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests that the shard works on, or that wait for one.
    pub(crate) in_flight: usize,
    /// How many of them are borne.
    pub(crate) most_in_flight: usize,
    /// How late the edge's timers are.
    pub(crate) lag: Duration,
    /// How late they may be.
    pub(crate) most_lag: Duration,
}

impl Load {
    /// In percent of what is borne; the worse of both.
    fn percent(self) -> u64 {
        let of_requests = self.in_flight as u64 * 100 / (self.most_in_flight as u64).max(1);
        let of_lag = self.lag.as_millis() * 100 / self.most_lag.as_millis().max(1);
        of_requests.max(u64::try_from(of_lag).unwrap_or(u64::MAX))
    }

    /// Whether a request is refused, and after how many seconds it may come again: at least `base`, more the further the
    /// load is beyond what is borne of its kind.
    pub(crate) fn refuses(self, urgency: Urgency, base: u64) -> Option<u64> {
        let (percent, limit) = (self.percent(), urgency.limit_percent());
        (percent >= limit).then(|| base.saturating_mul(percent / limit.max(1)).clamp(base, base.saturating_mul(10)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(in_flight: usize, lag_ms: u64) -> Load {
        let (lag, most_lag) = (Duration::from_millis(lag_ms), Duration::from_secs(1));
        Load { in_flight, most_in_flight: 200, lag, most_lag }
    }

    fn refused(load: Load) -> Vec<Urgency> {
        Urgency::ALL.into_iter().filter(|urgency| load.refuses(*urgency, 2).is_some()).collect()
    }

    #[test]
    fn the_least_urgent_are_refused_first() {
        use Urgency::{Background, Federation, InitialSync, Ordinary};
        assert!(refused(load(99, 0)).is_empty());
        assert_eq!(refused(load(100, 0)), [InitialSync]);
        assert_eq!(refused(load(140, 0)), [InitialSync, Background]);
        assert_eq!(refused(load(160, 0)), [InitialSync, Background, Federation]);
        assert_eq!(refused(load(200, 0)), [InitialSync, Background, Federation, Ordinary]);
        assert_eq!(refused(load(0, 500)), [InitialSync]);
        assert_eq!(refused(load(0, 1_000)).len(), 4);
    }

    #[test]
    fn the_further_beyond_the_longer_the_wait() {
        assert_eq!(load(100, 0).refuses(Urgency::InitialSync, 2), Some(2));
        assert_eq!(load(200, 0).refuses(Urgency::InitialSync, 2), Some(4));
        assert_eq!(load(200_000, 0).refuses(Urgency::Ordinary, 2), Some(20));
    }

    #[test]
    fn a_sync_that_continues_is_no_load_and_one_that_begins_is_the_worst() {
        let of = |path, query| Urgency::of(RequestClass::Client, path, query);
        let sync = "/_matrix/client/v3/sync";
        for query in [None, Some("timeout=30000"), Some("since="), Some("filter=since=x")] {
            assert_eq!(of(sync, query), Urgency::InitialSync, "{query:?}");
            assert!(!is_long_poll(sync, query));
        }
        let sliding = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
        for (path, query) in [(sync, "timeout=0&since=l1.5"), (sliding, "pos=7")] {
            assert_eq!(of(path, Some(query)), Urgency::Ordinary);
            assert!(is_long_poll(path, Some(query)));
        }
        assert_eq!(of(sliding, None), Urgency::InitialSync);
        assert_eq!(of("/_matrix/client/v3/publicRooms", None), Urgency::Background);
        assert_eq!(of("/_matrix/client/v3/rooms/!a/send/m/1", None), Urgency::Ordinary);
    }
}
