//! Decides whether a request fits into all of its buckets, and charges either all of them or none.
//!
//! The arithmetic is governor's GCRA. Its own keyed stores charge a bucket as they look at it, and give no way back; a
//! refusal by the second bucket would then have cost the first one. So governor is given a trial of one bucket: a state
//! store that holds a copy of the bucket's value. It decides on the copies of all buckets of a request while these are
//! locked, and the copies are written back only when all of them allow it.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use parking_lot::{Mutex, MutexGuard};

use crate::config::policy::Limit;

/// Buckets lie in so many parts with a lock each, by their key.
const PARTS: usize = 32;
/// No request has more buckets than this.
pub(crate) const MOST_BUCKETS: usize = 4;

/// One bucket that a request wants a place in: which one, and its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Want {
    pub(crate) key: BucketKey,
    pub(crate) quota: Quota,
}

impl Want {
    /// Fills the places that a request leaves.
    pub(crate) const NONE: Self = Self { key: BucketKey(0), quota: Quota::per_second(NonZeroU32::MIN) };
}

/// The name of a bucket: a hash that is keyed anew in each process, so that nobody can aim at another one's bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BucketKey(u64);

impl BucketKey {
    /// The hash itself.
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

/// All buckets that are not full. One that is not there is full.
#[derive(Debug)]
pub(crate) struct Buckets {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
    most_in_part: usize,
}

/// Keys are hashes already.
type Part = HashMap<BucketKey, Tat, BuildHasherDefault<AsItIs>>;

/// GCRA's theoretical arrival time, in nanoseconds since the edge started.
type Tat = u64;

impl Buckets {
    /// `most` buckets at one time: beyond that, those that are nearest to being full are forgotten.
    pub(crate) fn new(most: usize) -> Self {
        let parts = (0..PARTS).map(|_| Mutex::default()).collect();
        Self { parts, hasher: RandomState::new(), most_in_part: (most / PARTS).max(2) }
    }

    /// The key of a bucket of this name.
    pub(crate) fn key(&self, name: impl Hash) -> BucketKey {
        BucketKey(self.hasher.hash_one(name))
    }

    /// Charges all of the buckets, or none and says how long until all of them have room.
    pub(crate) fn charge(&self, wants: &[Want], now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        let mut order = [0; MOST_BUCKETS];
        let order = order.get_mut(..wants.len()).unwrap_or_default();
        order.iter_mut().enumerate().for_each(|(at, place)| *place = at);
        // Locks are taken in one order by everybody.
        order.sort_unstable_by_key(|at| part_of(wants[*at].key));
        let mut locked: [Option<MutexGuard<'_, Part>>; MOST_BUCKETS] = Default::default();
        let mut after = [0; MOST_BUCKETS];
        let mut wait = Duration::ZERO;
        let mut held = None;
        for (slot, at) in order.iter().enumerate() {
            let want = &wants[*at];
            let part = part_of(want.key);
            if held != Some(part) {
                locked[slot] = Some(self.parts[part].lock());
                held = Some(part);
            }
            let tat = locked[..=slot].iter().rev().flatten().next().and_then(|part| part.get(&want.key)).copied();
            match try_one(want.quota, tat.unwrap_or(0), now) {
                Ok(tat) => after[slot] = tat,
                Err(longer) => wait = wait.max(longer),
            }
        }
        if !wait.is_zero() {
            return Err(wait);
        }
        let mut part: Option<MutexGuard<'_, Part>> = None;
        for (slot, at) in order.iter().enumerate() {
            part = locked[slot].take().or(part);
            let Some(part) = &mut part else { continue };
            if part.len() >= self.most_in_part && !part.contains_key(&wants[*at].key) {
                forget(part, now, self.most_in_part / 2);
            }
            part.insert(wants[*at].key, after[slot]);
        }
        Ok(())
    }

    /// Forgets the buckets that are full again.
    pub(crate) fn prune(&self, now: Duration) {
        let now = nanos(now);
        for part in &self.parts {
            let mut part = part.lock();
            part.retain(|_, tat| *tat > now);
            if part.capacity() > 4 * part.len() {
                part.shrink_to_fit();
            }
        }
    }

    /// How many buckets are not full, as far as anybody has looked.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }
}

/// The quota of a limit that the policy's check has found to be one.
pub(crate) fn quota(limit: Limit) -> Quota {
    let burst = NonZeroU32::new(limit.burst).unwrap_or(NonZeroU32::MIN);
    let period = Duration::try_from_secs_f64(1.0 / limit.per_second).unwrap_or(Duration::MAX);
    let period = period.clamp(Duration::from_nanos(1), Duration::from_secs(24 * 3600));
    Quota::with_period(period).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
}

fn part_of(key: BucketKey) -> usize {
    // The low bits place the key within its part, the highest are its tag there.
    (key.0 >> 32) as usize % PARTS
}

fn nanos(since_start: Duration) -> u64 {
    u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX)
}

/// What the bucket's value would be after one more request at `now`, or how long to wait for it.
fn try_one(quota: Quota, tat: Tat, now: u64) -> Result<Tat, Duration> {
    // Governor counts from the moment in which a limiter is made: here that is now, so a value in the past is 0.
    let trial = Trial(Cell::new(Nanos::new(tat.saturating_sub(now))));
    let limiter = RateLimiter::<NotKeyed, _, _, NoOpMiddleware<Duration>>::new(quota, trial, Moment);
    match limiter.check() {
        Ok(()) => Ok(now.saturating_add(limiter.into_state_store().0.get().as_u64())),
        // A bucket without room is one to wait for, be it for a nanosecond.
        Err(refused) => Err(refused.wait_time_from(Duration::ZERO).max(Duration::from_nanos(1))),
    }
}

/// The value of one bucket while it is tried.
struct Trial(Cell<Nanos>);

impl StateStore for Trial {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, after) = decide(Some(self.0.get()))?;
        self.0.set(after);
        Ok(outcome)
    }
}

/// A clock that stands: the time is an argument, and all values are relative to it.
#[derive(Debug, Clone, Copy)]
struct Moment;

impl Clock for Moment {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

/// Makes room in a part that is full: without the buckets that are full again, or else without those that are nearest to
/// it, which lose the least.
fn forget(part: &mut Part, now: u64, keep: usize) {
    part.retain(|_, tat| *tat > now);
    if part.len() <= keep {
        return;
    }
    let mut values: Vec<Tat> = part.values().copied().collect();
    let dropped = values.len() - keep;
    let (_, least_kept, _) = values.select_nth_unstable(dropped);
    let least_kept = *least_kept;
    part.retain(|_, tat| *tat > least_kept);
}

/// A hasher for keys that are hashes.
#[derive(Debug, Clone, Copy, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(burst: u32, per_second: f64) -> Quota {
        quota(Limit { burst, per_second })
    }

    const START: Duration = Duration::from_secs(5);

    #[test]
    fn a_bucket_allows_its_burst_and_then_its_rate() {
        let buckets = Buckets::new(1_000);
        let want = [Want { key: buckets.key("a"), quota: limit(3, 2.0) }];
        for _ in 0..3 {
            assert_eq!(buckets.charge(&want, START), Ok(()));
        }
        assert_eq!(buckets.charge(&want, START), Err(Duration::from_millis(500)));
        assert_eq!(buckets.charge(&want, START + Duration::from_millis(499)), Err(Duration::from_millis(1)));
        assert_eq!(buckets.charge(&want, START + Duration::from_millis(500)), Ok(()));
        assert!(buckets.charge(&want, START + Duration::from_millis(500)).is_err());
        let much_later = START + Duration::from_secs(60);
        for _ in 0..3 {
            assert_eq!(buckets.charge(&want, much_later), Ok(()), "never more than the burst");
        }
        assert!(buckets.charge(&want, much_later).is_err());
    }

    #[test]
    fn a_refusal_charges_nothing() {
        let buckets = Buckets::new(1_000);
        let wide = Want { key: buckets.key("wide"), quota: limit(10, 0.001) };
        let narrow = Want { key: buckets.key("narrow"), quota: limit(1, 0.001) };
        assert_eq!(buckets.charge(&[wide, narrow], START), Ok(()));
        for _ in 0..50 {
            assert!(buckets.charge(&[wide, narrow], START).is_err());
        }
        for _ in 0..9 {
            assert_eq!(buckets.charge(&[wide], START), Ok(()), "the refusals have cost the wide bucket something");
        }
        assert!(buckets.charge(&[wide], START).is_err());
    }

    #[test]
    fn the_longest_wait_is_told() {
        let buckets = Buckets::new(1_000);
        let soon = Want { key: buckets.key("soon"), quota: limit(1, 10.0) };
        let late = Want { key: buckets.key("late"), quota: limit(1, 0.5) };
        assert_eq!(buckets.charge(&[soon, late], START), Ok(()));
        assert_eq!(buckets.charge(&[soon, late], START), Err(Duration::from_secs(2)));
    }

    #[test]
    fn threads_never_get_more_than_the_burst() {
        let buckets = Buckets::new(1_000);
        let wants: Vec<Want> = (0..4).map(|name| Want { key: buckets.key(name), quota: limit(1_000, 0.001) }).collect();
        let allowed = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| buckets.charge(&wants, START).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(allowed, 1_000);
    }

    #[test]
    fn memory_is_bounded_and_the_emptiest_buckets_are_kept() {
        let buckets = Buckets::new(32 * 64);
        let empty = Want { key: buckets.key("attacker"), quota: limit(1, 0.000_1) };
        assert_eq!(buckets.charge(&[empty], START), Ok(()));
        for name in 0..100_000_u32 {
            let want = [Want { key: buckets.key(name), quota: limit(10, 10.0) }];
            assert_eq!(buckets.charge(&want, START), Ok(()));
        }
        assert!(buckets.len() <= 32 * 64);
        assert!(buckets.charge(&[empty], START).is_err(), "a flood of others let the attacker go");
        buckets.prune(START + Duration::from_secs(1));
        assert_eq!(buckets.len(), 1);
    }
}
