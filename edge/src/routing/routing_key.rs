//! The number by which a request is placed; equal on every edge and after every restart.

use percent_encoding::percent_decode_str;

/// FNV-1a over 64 bits, which is as good as any here: it is spread again when a shard is chosen.
pub(crate) struct RoutingHash(u64);

/// What FNV-1a begins with.
pub(crate) const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// One step of FNV-1a.
pub(crate) fn fnv1a(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

impl RoutingHash {
    /// The key of a text from a path; percent-encoding is looked through, so that one thing has one key.
    pub(crate) fn of_encoded(kind: &str, text: &str) -> u64 {
        let mut hash = Self::of_kind(kind);
        percent_decode_str(text).for_each(|byte| hash.add(byte));
        hash.0
    }

    /// The key of a number.
    pub(crate) fn of_number(kind: &str, number: u32) -> u64 {
        let mut hash = Self::of_kind(kind);
        number.to_be_bytes().into_iter().for_each(|byte| hash.add(byte));
        hash.0
    }

    fn of_kind(kind: &str) -> Self {
        let mut hash = Self(FNV_OFFSET);
        kind.bytes().chain([0]).for_each(|byte| hash.add(byte));
        hash
    }

    fn add(&mut self, byte: u8) {
        self.0 = fnv1a(self.0, byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_percent_signs_are_themselves() {
        assert_eq!(RoutingHash::of_encoded("x", "%41"), RoutingHash::of_encoded("x", "A"));
        assert_ne!(RoutingHash::of_encoded("x", "%4"), RoutingHash::of_encoded("x", "4"));
        assert_ne!(RoutingHash::of_encoded("x", "%zz"), RoutingHash::of_encoded("x", "zz"));
        assert_ne!(RoutingHash::of_encoded("x", "a"), RoutingHash::of_encoded("y", "a"));
    }
}
