//! Random numbers without a dependency, for names and ports that must not meet those of another test.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A random number; every [`RandomState`] is seeded by the system.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
