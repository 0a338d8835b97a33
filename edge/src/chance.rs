//! Numbers that no two requests share: ids for logs and traces. They are no secrets and prove nothing.

use std::num::{NonZeroU64, NonZeroU128};
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of distinct numbers, decided by its seed; drawing one takes no lock.
#[derive(Debug)]
pub(crate) struct Chance(AtomicU64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// SplitMix64: a bijection of a counter, so that a number comes again only after all others.
    pub(crate) fn number(&self) -> u64 {
        let mut bits = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(crate) fn span_id(&self) -> NonZeroU64 {
        NonZeroU64::new(self.number()).unwrap_or(NonZeroU64::MIN)
    }

    pub(crate) fn trace_id(&self) -> NonZeroU128 {
        let number = u128::from(self.number()) << 64 | u128::from(self.number());
        NonZeroU128::new(number).unwrap_or(NonZeroU128::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_numbers() {
        let (one, same, other) = (Chance::seeded(1), Chance::seeded(1), Chance::seeded(2));
        assert_eq!(one.number(), same.number());
        assert_ne!(one.number(), other.number());
        assert_ne!(one.trace_id(), one.trace_id());
    }
}
