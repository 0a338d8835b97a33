//! The connections to one shard that wait for their next request, by the worker whose requests they carry.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::link::Link;
use crate::workers;

/// So many are kept for each worker; what is beyond belongs to a peak.
const MOST: usize = 512;

/// Those used last are used first, so that a peak's connections grow old.
#[derive(Debug)]
pub(super) struct IdleLinks {
    workers: Vec<Mutex<VecDeque<Idle>>>,
    life: Duration,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

impl IdleLinks {
    /// [`Self::close_old`] closes a connection that has waited longer than `life`.
    pub(super) fn new(life: Duration) -> Self {
        Self { workers: (0..workers::count()).map(|_| Mutex::default()).collect(), life }
    }

    /// A connection of this generation that nothing was heard from. How long it waited is left to [`Self::close_old`].
    pub(super) async fn take(&self, generation: u64) -> Option<Link> {
        loop {
            let mut idle = self.own()?.lock().pop_back()?;
            if idle.link.generation == generation && idle.link.is_silent().await {
                idle.link.is_reused = true;
                return Some(idle.link);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, link: Link) {
        let Some(own) = self.own() else { return };
        let mut links = own.lock();
        links.push_back(Idle { link, since: Instant::now() });
        let surplus = if links.len() > MOST { links.pop_front() } else { None };
        // Closed without the lock.
        drop(links);
        drop(surplus);
    }

    /// Closes those that have waited too long.
    pub(super) fn close_old(&self) {
        for worker in &self.workers {
            let mut links = worker.lock();
            let old = links.iter().take_while(|idle| idle.since.elapsed() >= self.life).count();
            let old: Vec<Idle> = links.drain(..old).collect();
            drop(links);
            drop(old);
        }
    }

    /// Closes all of them.
    pub(super) fn close_all(&self) {
        for worker in &self.workers {
            let links = std::mem::take(&mut *worker.lock());
            drop(links);
        }
    }

    fn own(&self) -> Option<&Mutex<VecDeque<Idle>>> {
        self.workers.get(workers::index())
    }
}
