//! How many requests may be sent again: a share of all, so that failing shards are not drowned in repetitions.

use std::sync::atomic::{AtomicU64, Ordering};

/// In thousandths of a retry.
const ONE: u64 = 1_000;

/// A bucket that every request fills a little and every retry empties by one.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    saved: AtomicU64,
    most: u64,
    per_request: u64,
}

impl RetryBudget {
    /// `percent` of the requests may be retries, and `burst` at one time: when a shard dies, all that it had in flight is
    /// sent again, once, and that is no storm.
    pub(crate) fn new(percent: u32, burst: u32) -> Self {
        let most = u64::from(burst) * ONE;
        Self { saved: AtomicU64::new(most), most, per_request: u64::from(percent) * ONE / 100 }
    }

    /// A request came.
    pub(crate) fn deposit(&self) {
        // Nearly always the bucket is full, and nothing is written.
        if self.saved.load(Ordering::Relaxed) < self.most {
            let add = |saved: u64| Some(saved.saturating_add(self.per_request).min(self.most));
            // The closure never gives up.
            let _ = self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// A request wants to be sent again; `false` when it may not.
    pub(crate) fn withdraw(&self) -> bool {
        self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(ONE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_requests_after_a_burst() {
        let budget = RetryBudget::new(20, 3);
        assert!((0..3).all(|_| budget.withdraw()));
        assert!(!budget.withdraw());
        let mut retried = 0;
        for _ in 0..100 {
            budget.deposit();
            retried += u32::from(budget.withdraw());
        }
        assert_eq!(retried, 20);
        (0..1_000).for_each(|_| budget.deposit());
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 3);
    }
}
