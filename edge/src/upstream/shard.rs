//! One shard: whether it takes requests, which of them, and how it is reached.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use gatehouse_shared::net::ListenAddr;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::Result as PingoraResult;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::idle_links::IdleLinks;
use super::link::Link;
use super::shard_tls::ShardTls;

/// An idle connection to a shard is kept this long.
const IDLE: Duration = Duration::from_secs(60);
/// What a shard that comes back takes of its keys at once.
const FIRST_SHARE: f64 = 0.1;
/// A shard that fails requests is left out for this long, twice as long each further time, up to [`LONGEST_OUT`].
const FIRST_OUT: Duration = Duration::from_secs(5);
const LONGEST_OUT: Duration = Duration::from_secs(80);

/// How shards are reached and judged.
#[derive(Debug, Clone)]
pub(crate) struct ShardPolicy {
    pub(crate) connect_timeout: Duration,
    /// Over how long a shard that comes back takes its keys again.
    pub(crate) slow_start: Duration,
    /// So many failed requests in a row, and its keys go elsewhere for a while.
    pub(crate) failures: u32,
    pub(crate) tls: Option<Arc<ShardTls>>,
}

/// One shard and whether it takes requests.
pub(crate) struct Shard {
    address: ListenAddr,
    pub(super) name: String,
    pub(super) seed: u64,
    peer: HttpPeer,
    policy: ShardPolicy,
    idle: IdleLinks,
    /// Which of the idle connections may be used: those of an earlier generation belong to a dead process.
    generation: AtomicU64,
    state: AtomicU8,
    /// Since when it takes requests, and whether it takes its keys little by little.
    up_since: Mutex<Option<(Instant, Pace)>>,
    /// Requests that failed in a row.
    failures: AtomicU32,
    left_out: Mutex<LeftOut>,
    /// Whether anything keeps keys away from it; the locks are looked into only then.
    restrained: AtomicU8,
    /// Healthy or not, it gets no new requests: the edge is about to stop it.
    draining: AtomicBool,
    /// Requests that it has and has not answered.
    in_flight: AtomicUsize,
    /// Tells who drains it that it has answered everything.
    idle_again: Notify,
    /// Those of them that are work, unlike long polls and what waits for a client.
    working: AtomicUsize,
    gauge: Gauge,
    /// Asks for a health check now rather than at the next turn.
    doubt: Notify,
    checks: watch::Sender<Checks>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    AtOnce,
    Gradual,
}

#[derive(Debug, Default)]
struct LeftOut {
    until: Option<Instant>,
    times: u32,
}

/// How many health checks began, and the number of the last one that ended.
#[derive(Debug, Default)]
struct Checks {
    begun: u64,
    ended: u64,
}

const DOWN: u8 = 0;
const UP: u8 = 1;
const DRAINING: u8 = 2;

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
    pub(super) fn new(
        address: ListenAddr,
        policy: ShardPolicy,
        gauge: impl FnOnce(&str) -> Gauge,
        changed: watch::Sender<u64>,
    ) -> Result<Self, UnusableAddress> {
        let mut peer = match &address {
            ListenAddr::Tcp(address) => match &policy.tls {
                Some(tls) => tls.peer(address),
                None => HttpPeer::new(address, false, String::new()),
            },
            ListenAddr::Unix(path) => path_peer(path).ok_or_else(|| UnusableAddress(address.clone()))?,
        };
        peer.options.connection_timeout = Some(policy.connect_timeout);
        peer.options.idle_timeout = Some(IDLE);
        // No read timeout: a long poll may take as long as it likes, and a shard that dies closes its connections.
        let name = address.to_string();
        let gauge = gauge(&name);
        let seed = spread(name.bytes().fold(0, |seed, byte| spread(seed ^ u64::from(byte))));
        Ok(Self {
            address,
            name,
            seed,
            peer,
            policy,
            idle: IdleLinks::new(IDLE),
            generation: AtomicU64::new(0),
            state: AtomicU8::new(DOWN),
            up_since: Mutex::new(None),
            failures: AtomicU32::new(0),
            left_out: Mutex::default(),
            restrained: AtomicU8::new(0),
            draining: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle_again: Notify::new(),
            working: AtomicUsize::new(0),
            gauge,
            doubt: Notify::new(),
            checks: watch::Sender::default(),
            changed,
        })
    }

    pub(crate) fn address(&self) -> &ListenAddr {
        &self.address
    }

    /// The address as text.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How its TCP port is spoken to; Unix sockets have the file system's permissions instead.
    pub(crate) fn tls(&self) -> Option<&ShardTls> {
        self.policy.tls.as_deref()
    }

    pub(crate) fn peer(&self) -> HttpPeer {
        let mut peer = self.peer.clone();
        peer.group_key = self.generation.load(Ordering::Acquire);
        peer
    }

    /// A connection to it: one that is idle, or a new one.
    pub(crate) async fn link(&self) -> PingoraResult<Link> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(link) = self.idle.take(generation).await {
            return Ok(link);
        }
        // Rare enough for a place of its own.
        let mut link = Box::pin(Link::connect(&self.address, self.tls(), self.policy.connect_timeout)).await?;
        link.generation = generation;
        Ok(link)
    }

    /// Keeps a connection for another request, unless it leads to a process that is gone.
    pub(crate) fn keep(&self, link: Link) {
        if self.generation.load(Ordering::Acquire) == link.generation {
            self.idle.keep(link);
        }
    }

    /// Lets no idle connection be used again. When one of them turns out to be dead, the others are as well.
    pub(crate) fn forget_connections(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle.close_all();
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.state.load(Ordering::Acquire) == UP && !self.draining.load(Ordering::SeqCst)
    }

    /// Counts a request that is sent to this shard, until what this answers is dropped. `None` when the shard is drained:
    /// counted before it is asked, so that whoever drains sees the request or the request sees that.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Passage> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let passage = Passage { shard: self.clone(), is_work: false };
        (!self.draining.load(Ordering::SeqCst)).then_some(passage)
    }

    /// How many requests it has and has not answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
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

    /// Resolves once it has answered everything. Only told while it is drained.
    pub(crate) async fn drained(&self) {
        loop {
            let told = self.idle_again.notified();
            if self.in_flight() == 0 {
                return;
            }
            told.await;
        }
    }

    /// Resolves once it takes requests.
    pub(crate) async fn becomes_healthy(&self) {
        let mut changed = self.changed.subscribe();
        while !self.is_healthy() && changed.changed().await.is_ok() {}
    }

    /// Whether the shard has taken requests for so long that others can lean on it.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        let up_since = self.up_since.lock();
        self.is_healthy() && up_since.is_some_and(|(since, _)| now.duration_since(since) >= self.policy.slow_start)
    }

    /// Whether the shard takes this key, healthy as it is: one that just came back takes a growing share, the same keys
    /// again and more, and one that fails its requests takes none for a while.
    pub(super) fn takes(&self, key: u64) -> bool {
        self.restrained.load(Ordering::Acquire) == 0 || self.takes_restrained(key, Instant::now())
    }

    fn takes_restrained(&self, key: u64, now: Instant) -> bool {
        if self.left_out.lock().until.is_some_and(|until| now < until) {
            return false;
        }
        let up_since = *self.up_since.lock();
        let up_for = match up_since {
            Some((since, Pace::Gradual)) => now.duration_since(since),
            _ => self.policy.slow_start,
        };
        if up_for >= self.policy.slow_start {
            self.restrained.store(0, Ordering::Release);
            return true;
        }
        let share = (up_for.as_secs_f64() / self.policy.slow_start.as_secs_f64()).max(FIRST_SHARE);
        // Another draw than that by which shards are compared, which would favour the keys that it holds by a hair.
        let draw = spread(spread(key ^ self.seed));
        draw as f64 <= share * u64::MAX as f64
    }

    /// The shard takes requests, unless it is drained.
    pub(super) fn mark_healthy(&self, pace: Pace) {
        if self.draining.load(Ordering::SeqCst) || self.state.swap(UP, Ordering::AcqRel) == UP {
            return;
        }
        info!(shard = %self.name, gradual = pace == Pace::Gradual, "the shard takes requests");
        *self.up_since.lock() = Some((Instant::now(), pace));
        *self.left_out.lock() = LeftOut::default();
        self.failures.store(0, Ordering::Release);
        self.restrained.store(u8::from(pace == Pace::Gradual), Ordering::Release);
        self.note_change(1);
    }

    /// The shard takes no requests, and why.
    pub(crate) fn mark_unhealthy(&self, reason: &dyn fmt::Display) {
        let was = self.state.swap(DOWN, Ordering::AcqRel);
        if was == UP {
            warn!(shard = %self.name, %reason, "the shard takes no requests");
        }
        if was != DOWN {
            self.forget_connections();
            self.note_change(0);
        }
    }

    /// The shard is about to end, and says so: what it has, it answers.
    pub(crate) fn mark_draining(&self) {
        if self.state.swap(DRAINING, Ordering::AcqRel) == UP {
            info!(shard = %self.name, "the shard drains");
            self.note_change(0);
        }
    }

    fn note_change(&self, gauge: i64) {
        self.gauge.set(gauge);
        self.changed.send_modify(|changes| *changes = changes.wrapping_add(1));
        self.doubt.notify_one();
    }

    /// A request was answered, and not by a failure of the shard's own.
    pub(crate) fn note_success(&self) {
        // Read first: nearly always there is nothing to forget, and nothing to share between cores.
        if self.failures.load(Ordering::Acquire) > 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// A request failed; `true` when it was the last one in a row that is borne.
    pub(super) fn note_failure(&self) -> bool {
        self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1) >= self.policy.failures
    }

    /// Keys go elsewhere for a while.
    pub(super) fn leave_out(&self) {
        let mut left_out = self.left_out.lock();
        let now = Instant::now();
        if left_out.until.is_some_and(|until| now < until) {
            return;
        }
        let pause = FIRST_OUT.saturating_mul(1 << left_out.times.min(4)).min(LONGEST_OUT);
        left_out.until = Some(now + pause);
        left_out.times += 1;
        self.failures.store(0, Ordering::Release);
        self.restrained.store(1, Ordering::Release);
        warn!(shard = %self.name, seconds = pause.as_secs(), "the shard fails its requests; others take them for a while");
        self.doubt.notify_one();
    }

    /// Something made this shard doubtful, or promises that it may be well again: check it now.
    pub(crate) fn check_now(&self) {
        self.doubt.notify_one();
    }

    /// Resolves once a health check has begun and ended from now on: whether the shard takes requests is known then.
    pub(crate) async fn judged(&self) {
        let mut checks = self.checks.subscribe();
        let next = checks.borrow_and_update().begun + 1;
        self.check_now();
        // The sender lives in `self`, so this cannot fail.
        let _ = checks.wait_for(|checks| checks.ended >= next).await;
    }

    pub(super) fn check_begins(&self) {
        self.idle.close_old();
        self.checks.send_modify(|checks| checks.begun += 1);
    }

    /// What the check found is known to all who ask.
    pub(super) fn check_ended(&self) {
        self.checks.send_modify(|checks| checks.ended = checks.begun);
    }

    /// Resolves when a check is asked for.
    pub(crate) async fn doubted(&self) {
        self.doubt.notified().await;
    }

    /// Requests that it works on now, without those that wait for something to happen.
    pub(crate) fn working(&self) -> usize {
        self.working.load(Ordering::Relaxed)
    }
}

/// One request on its way to a shard, or in it.
#[derive(Debug)]
pub(crate) struct Passage {
    shard: Arc<Shard>,
    is_work: bool,
}

impl Passage {
    pub(crate) fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// Whether the shard works on the request now, which is counted.
    pub(crate) fn set_work(&mut self, is_work: bool) {
        match (std::mem::replace(&mut self.is_work, is_work), is_work) {
            (false, true) => self.shard.working.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.shard.working.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.set_work(false);
        let was_last = self.shard.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        // Whoever drains has said so before it looks at the count.
        if was_last && self.shard.draining.load(Ordering::SeqCst) {
            self.shard.idle_again.notify_waiters();
        }
    }
}

fn path_peer(path: &Path) -> Option<HttpPeer> {
    HttpPeer::new_uds(path.to_str()?, false, String::new()).ok()
}

/// A bijection in which every bit of the input reaches every bit of the output (the finalizer of SplitMix64).
pub(super) fn spread(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
