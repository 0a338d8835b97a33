//! Chooses a shard for a key by rendezvous hashing over the healthy ones.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gatehouse_shared::net::ListenAddr;
use pingora_core::upstreams::peer::HttpPeer;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

/// An idle connection to a shard is kept this long.
const IDLE: Duration = Duration::from_secs(60);

/// One shard and whether it takes requests.
pub(crate) struct Shard {
    address: ListenAddr,
    name: String,
    seed: u64,
    peer: HttpPeer,
    /// Which of the connections in Pingora's pool may be used: those of an earlier generation belong to a dead process.
    generation: AtomicU64,
    healthy: AtomicBool,
    /// Healthy or not, it gets no new requests: it is about to be stopped.
    draining: AtomicBool,
    /// Requests that it has and has not answered.
    in_flight: watch::Sender<usize>,
    gauge: Gauge,
    /// Asks for a health check now rather than at the next turn.
    doubt: Notify,
    changed: watch::Sender<u64>,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("name", &self.name).field("healthy", &self.is_healthy()).finish_non_exhaustive()
    }
}

/// The address of a shard cannot be connected to: its path is too long for a socket or not text.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot be connected to: the path is too long or not UTF-8")]
pub struct UnusableAddress(ListenAddr);

impl Shard {
    fn new(
        address: ListenAddr,
        connect_timeout: Duration,
        gauge: impl FnOnce(&str) -> Gauge,
        changed: watch::Sender<u64>,
    ) -> Result<Self, UnusableAddress> {
        let mut peer = match &address {
            ListenAddr::Tcp(address) => HttpPeer::new(address, false, String::new()),
            ListenAddr::Unix(path) => path_peer(path).ok_or_else(|| UnusableAddress(address.clone()))?,
        };
        peer.options.connection_timeout = Some(connect_timeout);
        peer.options.idle_timeout = Some(IDLE);
        // No read timeout: a long poll may take as long as it likes, and a shard that dies closes its connections.
        let name = address.to_string();
        let gauge = gauge(&name);
        let seed = spread(name.bytes().fold(0, |seed, byte| spread(seed ^ u64::from(byte))));
        let (healthy, draining) = (AtomicBool::new(false), AtomicBool::new(false));
        let (generation, in_flight, doubt) = (AtomicU64::new(0), watch::Sender::new(0), Notify::new());
        Ok(Self { address, name, seed, peer, generation, healthy, draining, in_flight, gauge, doubt, changed })
    }

    pub(crate) fn address(&self) -> &ListenAddr {
        &self.address
    }

    pub(crate) fn peer(&self) -> HttpPeer {
        let mut peer = self.peer.clone();
        peer.group_key = self.generation.load(Ordering::Acquire);
        peer
    }

    /// Lets no idle connection be used again. When one of them turns out to be dead, the others are as well.
    pub(crate) fn forget_connections(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether `peer` is how this shard is reached.
    fn is_reached_by(&self, peer: &HttpPeer) -> bool {
        self.peer._address == peer._address
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Acquire) && !self.draining.load(Ordering::SeqCst)
    }

    /// Counts a request that is sent to this shard, until what this answers is dropped. `None` when the shard is drained:
    /// counted before it is asked, so that whoever drains sees the request or the request sees that.
    fn enter(self: &Arc<Self>) -> Option<Passage> {
        self.in_flight.send_modify(|count| *count += 1);
        let passage = Passage(self.clone());
        (!self.draining.load(Ordering::SeqCst)).then_some(passage)
    }

    /// How many requests it has and has not answered.
    pub(crate) fn in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    /// Takes no new requests from now on, whatever its health check says.
    pub(crate) fn begin_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.mark_unhealthy(&"it is drained");
    }

    /// May take requests again as soon as its health check says so.
    pub(crate) fn end_draining(&self) {
        self.draining.store(false, Ordering::SeqCst);
        self.check_now();
    }

    /// Resolves once it has answered everything.
    pub(crate) async fn drained(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.in_flight.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Resolves once it takes requests.
    pub(crate) async fn becomes_healthy(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_healthy() && changed.changed().await.is_ok() {}
    }

    /// The shard takes requests, unless it is drained.
    pub(crate) fn mark_healthy(&self) {
        if self.draining.load(Ordering::SeqCst) {
            return;
        }
        if !self.healthy.swap(true, Ordering::AcqRel) {
            info!(shard = %self.name, "the shard takes requests");
            self.note_change(1);
        }
    }

    /// The shard takes no requests, and why.
    pub(crate) fn mark_unhealthy(&self, reason: &dyn fmt::Display) {
        if self.healthy.swap(false, Ordering::AcqRel) {
            warn!(shard = %self.name, %reason, "the shard takes no requests");
            self.forget_connections();
            self.note_change(0);
        }
    }

    fn note_change(&self, gauge: i64) {
        self.gauge.set(gauge);
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        self.doubt.notify_one();
    }

    /// Something made this shard doubtful, or promises that it may be well again: check it now.
    pub(crate) fn check_now(&self) {
        self.doubt.notify_one();
    }

    /// Resolves when a check is asked for.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }
}

/// One request on its way to a shard, or in it.
#[derive(Debug)]
pub(crate) struct Passage(Arc<Shard>);

impl Passage {
    /// The way to the shard.
    pub(crate) fn peer(&self) -> HttpPeer {
        self.0.peer()
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.0.in_flight.send_modify(|count| *count -= 1);
    }
}

fn path_peer(path: &Path) -> Option<HttpPeer> {
    HttpPeer::new_uds(path.to_str()?, false, String::new()).ok()
}

/// All shards.
#[derive(Debug)]
pub(crate) struct Pool {
    shards: Vec<Arc<Shard>>,
    changed: watch::Sender<u64>,
}

impl Pool {
    pub(crate) fn new(
        addresses: impl IntoIterator<Item = ListenAddr>,
        connect_timeout: Duration,
        gauge: impl Fn(&str) -> Gauge,
    ) -> Result<Self, UnusableAddress> {
        let changed = watch::Sender::new(0);
        let shard = |address| Shard::new(address, connect_timeout, &gauge, changed.clone()).map(Arc::new);
        let shards = addresses.into_iter().map(shard).collect::<Result<_, _>>()?;
        Ok(Self { shards, changed })
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The shard that `peer` is the way to.
    pub(crate) fn reached_by(&self, peer: &HttpPeer) -> Option<&Arc<Shard>> {
        self.shards.iter().find(|shard| shard.is_reached_by(peer))
    }

    /// The healthy shard that serves `key`, if there is one.
    pub(crate) fn find(&self, key: u64) -> Option<&Arc<Shard>> {
        let healthy = self.shards.iter().filter(|shard| shard.is_healthy());
        healthy.max_by_key(|shard| spread(key ^ shard.seed))
    }

    /// Sends a request to the healthy shard that serves `key`, if there is one.
    pub(crate) fn enter(&self, key: u64) -> Option<Passage> {
        // A shard that is drained between the two calls is not found again.
        std::iter::from_fn(|| self.find(key)).find_map(Shard::enter)
    }

    /// Like [`Self::enter`], but waits until `deadline` for a shard to become healthy.
    pub(crate) async fn wait_for(&self, key: u64, deadline: Instant) -> Option<Passage> {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(passage) = self.enter(key) {
                return Some(passage);
            }
            // The sender lives in `self`, so only the deadline ends this early.
            tokio::time::timeout_at(deadline, changed.changed()).await.ok()?.ok()?;
        }
    }
}

/// A bijection in which every bit of the input reaches every bit of the output (the finalizer of SplitMix64).
fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(shards: usize) -> Pool {
        let addresses = (0..shards).map(|shard| ListenAddr::Unix(format!("/run/shard-{shard}.sock").into()));
        Pool::new(addresses, Duration::from_secs(1), |_| Gauge::default()).unwrap()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..10_000_u64).map(|key| spread(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn only_the_keys_of_a_dead_shard_move() {
        let pool = pool(5);
        pool.shards().iter().for_each(|shard| shard.mark_healthy());
        let before: Vec<String> = keys().map(|key| pool.find(key).unwrap().name.clone()).collect();
        let dead = pool.shards()[2].clone();
        dead.mark_unhealthy(&"killed");
        let mut moved = 0;
        for (key, was) in keys().zip(&before) {
            let is = &pool.find(key).unwrap().name;
            assert_ne!(*is, dead.name);
            if *was == dead.name {
                moved += 1;
            } else {
                assert_eq!(is, was, "a key of a living shard moved");
            }
        }
        assert!((1_700..2_300).contains(&moved), "{moved} of 10,000 keys were on one shard of five");
        dead.mark_healthy();
        assert!(keys().zip(&before).all(|(key, was)| pool.find(key).unwrap().name == *was));
    }

    #[tokio::test]
    async fn a_drained_shard_keeps_its_requests_and_takes_no_more() {
        let pool = pool(1);
        let shard = &pool.shards()[0];
        shard.mark_healthy();
        let passage = pool.enter(1).unwrap();
        shard.begin_draining();
        shard.mark_healthy();
        assert!(pool.enter(1).is_none() && shard.enter().is_none());
        assert_eq!(shard.in_flight(), 1);
        drop(passage);
        shard.drained().await;
        shard.end_draining();
        shard.mark_healthy();
        assert!(pool.enter(1).is_some());
    }

    #[test]
    fn without_a_healthy_shard_there_is_none() {
        assert!(pool(3).find(1).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gets_the_first_shard_that_becomes_healthy() {
        let pool = Arc::new(pool(2));
        let waiting = pool.clone();
        let deadline = Instant::now() + Duration::from_secs(5);
        let waiter =
            tokio::spawn(async move { waiting.wait_for(7, deadline).await.map(|passage| passage.0.name.clone()) });
        tokio::task::yield_now().await;
        pool.shards()[1].mark_healthy();
        assert_eq!(waiter.await.unwrap().unwrap(), pool.shards()[1].name);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gives_up_at_its_deadline() {
        let start = Instant::now();
        assert!(pool(2).wait_for(7, start + Duration::from_secs(5)).await.is_none());
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
