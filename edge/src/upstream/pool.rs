//! Chooses a shard for a key by rendezvous hashing over the healthy ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatehouse_shared::net::ListenAddr;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio::time::Instant;

use super::shard::{Pace, Passage, Shard, ShardPolicy, UnusableAddress, spread};

/// All shards.
#[derive(Debug)]
pub(crate) struct Pool {
    shards: Vec<Arc<Shard>>,
    changed: watch::Sender<u64>,
    /// Requests that wait for a shard.
    waiting: AtomicUsize,
}

impl Pool {
    pub(crate) fn new(
        addresses: impl IntoIterator<Item = ListenAddr>,
        policy: &ShardPolicy,
        gauge: impl Fn(&str) -> Gauge,
    ) -> Result<Self, UnusableAddress> {
        let changed = watch::Sender::new(0);
        let shard = |address| Shard::new(address, policy.clone(), &gauge, changed.clone()).map(Arc::new);
        let shards = addresses.into_iter().map(shard).collect::<Result<_, _>>()?;
        Ok(Self { shards, changed, waiting: AtomicUsize::new(0) })
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// The healthy shard that serves `key`, if there is one. A shard that is restrained (it just came back, or fails its
    /// requests) is asked only for the keys that it takes, unless no other shard is left.
    pub(crate) fn find(&self, key: u64) -> Option<&Arc<Shard>> {
        let healthy = || self.shards.iter().filter(|shard| shard.is_healthy());
        let score = |shard: &&Arc<Shard>| spread(key ^ shard.seed);
        healthy().filter(|shard| shard.takes(key)).max_by_key(score).or_else(|| healthy().max_by_key(score))
    }

    /// Sends a request to the healthy shard that serves `key`, if there is one.
    pub(crate) fn enter(&self, key: u64) -> Option<Passage> {
        // A shard that is drained between the two calls is not found again.
        std::iter::from_fn(|| self.find(key)).find_map(Shard::enter)
    }

    /// Like [`Self::enter`], but waits until `deadline` for a shard to become healthy.
    pub(crate) async fn wait_for(&self, key: u64, deadline: Instant) -> Option<Passage> {
        let mut changed = self.changed.subscribe();
        let _waiting = Waiting::new(&self.waiting);
        loop {
            if let Some(passage) = self.enter(key) {
                return Some(passage);
            }
            // The sender lives in `self`, so only the deadline ends this early.
            tokio::time::timeout_at(deadline, changed.changed()).await.ok()?.ok()?;
        }
    }

    /// How many requests wait for a shard now.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The shard takes requests: little by little when another one has been there for a while, whose caches are warm, and
    /// at once when all of them are new.
    pub(crate) fn welcome(&self, shard: &Shard) {
        let now = Instant::now();
        let beside_settled = self.shards.iter().any(|other| other.is_settled(now));
        shard.mark_healthy(if beside_settled { Pace::Gradual } else { Pace::AtOnce });
    }

    /// A request failed on a shard. After too many in a row its keys go elsewhere, as long as there is an elsewhere.
    pub(crate) fn note_failure(&self, shard: &Arc<Shard>) {
        let key = shard.seed;
        if !shard.note_failure() {
            return;
        }
        let others = self.shards.iter().filter(|other| !Arc::ptr_eq(other, shard));
        if others.into_iter().any(|other| other.is_healthy() && other.takes(key)) {
            shard.leave_out();
        }
    }
}

/// Counts one waiting request; it may be dropped at any time.
struct Waiting<'p>(&'p AtomicUsize);

impl<'p> Waiting<'p> {
    fn new(waiting: &'p AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(shards: usize) -> Pool {
        let addresses = (0..shards).map(|shard| ListenAddr::Unix(format!("/run/shard-{shard}.sock").into()));
        let policy = ShardPolicy {
            connect_timeout: Duration::from_secs(1),
            slow_start: Duration::from_secs(10),
            failures: 3,
            tls: None,
        };
        Pool::new(addresses, &policy, |_| Gauge::default()).unwrap()
    }

    fn homes(pool: &Pool) -> Vec<String> {
        keys().map(|key| pool.find(key).unwrap().name.clone()).collect()
    }

    fn share_of(pool: &Pool, shard: &Shard) -> usize {
        homes(pool).iter().filter(|home| **home == shard.name).count()
    }

    fn keys() -> impl Iterator<Item = u64> {
        (0..10_000_u64).map(|key| spread(key.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    #[test]
    fn only_the_keys_of_a_dead_shard_move() {
        let pool = pool(5);
        pool.shards().iter().for_each(|shard| shard.mark_healthy(Pace::AtOnce));
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
        dead.mark_healthy(Pace::AtOnce);
        assert!(keys().zip(&before).all(|(key, was)| pool.find(key).unwrap().name == *was));
    }

    #[tokio::test]
    async fn a_drained_shard_keeps_its_requests_and_takes_no_more() {
        let pool = pool(1);
        let shard = &pool.shards()[0];
        pool.welcome(shard);
        let passage = pool.enter(1).unwrap();
        shard.begin_draining();
        pool.welcome(shard);
        assert!(pool.enter(1).is_none() && shard.enter().is_none());
        assert_eq!(shard.in_flight(), 1);
        drop(passage);
        shard.drained().await;
        shard.end_draining();
        pool.welcome(shard);
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
            tokio::spawn(
                async move { waiting.wait_for(7, deadline).await.map(|passage| passage.shard().name.clone()) },
            );
        tokio::task::yield_now().await;
        pool.shards()[1].mark_healthy(Pace::AtOnce);
        assert_eq!(waiter.await.unwrap().unwrap(), pool.shards()[1].name);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gives_up_at_its_deadline() {
        let start = Instant::now();
        assert!(pool(2).wait_for(7, start + Duration::from_secs(5)).await.is_none());
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_comes_back_takes_its_keys_little_by_little_and_no_others() {
        let pool = pool(4);
        pool.shards().iter().for_each(|shard| pool.welcome(shard));
        let before = homes(&pool);
        tokio::time::advance(Duration::from_secs(60)).await;
        let back = pool.shards()[1].clone();
        let whole = share_of(&pool, &back);
        back.mark_unhealthy(&"restarted");
        pool.welcome(&back);
        let mut had = Vec::new();
        for seconds in 0..10 {
            let now = homes(&pool);
            let has: Vec<usize> = (0..now.len()).filter(|key| now[*key] == back.name).collect();
            let expected = whole * seconds.max(1) / 10;
            assert!(has.len().abs_diff(expected) < whole / 12, "{} instead of {expected} after {seconds} s", has.len());
            assert!(had.iter().all(|key| has.contains(key)), "a key went back");
            assert!(has.iter().all(|key| before[*key] == back.name), "a key of another shard moved");
            had = has;
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(homes(&pool), before);
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_start_together_or_alone_take_everything_at_once() {
        let pool = pool(2);
        pool.welcome(&pool.shards()[0]);
        tokio::time::advance(Duration::from_secs(1)).await;
        pool.welcome(&pool.shards()[1]);
        assert!(share_of(&pool, &pool.shards()[1]) > 4_000);
        pool.shards().iter().for_each(|shard| shard.mark_unhealthy(&"killed"));
        pool.welcome(&pool.shards()[1]);
        assert_eq!(share_of(&pool, &pool.shards()[1]), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shard_that_fails_its_requests_is_left_out_for_a_while_unless_it_is_the_last() {
        let pool = pool(2);
        pool.shards().iter().for_each(|shard| pool.welcome(shard));
        let (failing, other) = (&pool.shards()[0], &pool.shards()[1]);
        pool.note_failure(failing);
        pool.note_failure(failing);
        failing.note_success();
        pool.note_failure(failing);
        pool.note_failure(failing);
        assert!(share_of(&pool, failing) > 4_000, "not three in a row");
        pool.note_failure(failing);
        assert_eq!(share_of(&pool, failing), 0);
        for _ in 0..10 {
            pool.note_failure(other);
        }
        assert_eq!(share_of(&pool, other), 10_000, "the last one stays");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(share_of(&pool, failing) > 4_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_shard_takes_no_more_keys() {
        let pool = pool(2);
        pool.shards().iter().for_each(|shard| pool.welcome(shard));
        pool.shards()[0].mark_draining();
        assert_eq!(share_of(&pool, &pool.shards()[0]), 0);
    }
}
