//! Decides which authority is asked next, and when, after orders that failed. No I/O, no clock.

use std::time::{Duration, SystemTime};

/// Whose fault a failed order is; it decides how soon to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The authority cannot be reached or answers nonsense: it counts nothing, so asking again soon is fine.
    Unreachable,
    /// The authority says no, or could not verify a name. It counts that: Let's Encrypt takes five a name and hour.
    Refused,
    /// The authority says that we ask too much.
    Limited,
    /// Something of ours: the challenge could not be set up, the folder not be written.
    Ours,
}

/// Failures in a row after which the next authority is asked.
const PATIENCE: u32 = 3;
/// A limit longer than this makes the next authority's turn at once.
const LONG_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What is known of each authority, in the order of the configuration.
#[derive(Debug, Clone)]
pub(super) struct Attempts(Vec<Tries>);

#[derive(Debug, Clone, Copy, Default)]
struct Tries {
    failures: u32,
    not_before: Option<SystemTime>,
}

/// The next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// The authority's index.
    pub(super) authority: usize,
    /// Not before this moment; `None`: at once.
    pub(super) not_before: Option<SystemTime>,
}

impl Attempts {
    /// `limits` are moments before which an authority does not want to be asked.
    pub(super) fn new(limits: impl IntoIterator<Item = Option<SystemTime>>) -> Self {
        Self(limits.into_iter().map(|not_before| Tries { failures: 0, not_before }).collect())
    }

    /// The first authority that has not failed too often; when all have, the one that may be asked first.
    pub(super) fn next(&self, now: SystemTime) -> Next {
        let patient =
            |tries: &Tries| tries.failures < PATIENCE && tries.not_before.is_none_or(|at| at <= now + LONG_LIMIT);
        let first = self.0.iter().position(patient);
        let soonest = || (0..self.0.len()).min_by_key(|index| self.0.get(*index).and_then(|tries| tries.not_before));
        let authority = first.or_else(soonest).unwrap_or_default();
        Next { authority, not_before: self.0.get(authority).and_then(|tries| tries.not_before) }
    }

    /// Notes a failure. `retry_after` is what the authority asked for; `spread` in 0..1 keeps many edges apart.
    pub(super) fn failed(
        &mut self,
        authority: usize,
        blame: Blame,
        retry_after: Option<SystemTime>,
        now: SystemTime,
        spread: f64,
    ) -> SystemTime {
        let Some(tries) = self.0.get_mut(authority) else { return now };
        tries.failures = tries.failures.saturating_add(1);
        let at = now + pause(blame, tries.failures).mul_f64(1.0 + 0.25 * spread.clamp(0.0, 1.0));
        let at = retry_after.map_or(at, |asked| asked.max(at));
        tries.not_before = Some(at);
        at
    }

    /// An order succeeded: all is forgiven.
    pub(super) fn succeeded(&mut self) {
        self.0.fill(Tries::default());
    }
}

/// The pause after so many failures in a row.
fn pause(blame: Blame, failures: u32) -> Duration {
    let (first, factor, most): (u64, u64, u64) = match blame {
        Blame::Unreachable => (5, 2, 15 * 60),
        Blame::Ours => (15, 2, 60 * 60),
        // 1, 3, 9, 27 and 81 minutes: the fifth failure comes 40 minutes after the first.
        Blame::Refused => (60, 3, 4 * 60 * 60),
        Blame::Limited => (60 * 60, 2, 24 * 60 * 60),
    };
    let grown = factor.checked_pow(failures.saturating_sub(1)).and_then(|factor| first.checked_mul(factor));
    Duration::from_secs(grown.unwrap_or(most).min(most))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_authority_is_asked_three_times_then_the_second_then_whoever_is_due() {
        let mut attempts = Attempts::new([None, None]);
        assert_eq!(attempts.next(at(0)), Next { authority: 0, not_before: None });
        for (failure, pause) in [(0, 5), (1, 10), (2, 20)] {
            let next = attempts.failed(0, Blame::Unreachable, None, at(failure), 0.0);
            assert_eq!(next, at(failure) + pause * SECOND);
        }
        assert_eq!(attempts.next(at(3)), Next { authority: 1, not_before: None });
        for _ in 0..3 {
            attempts.failed(1, Blame::Refused, None, at(3), 0.0);
        }
        assert_eq!(attempts.next(at(3)).authority, 0, "it is due sooner");
        attempts.succeeded();
        assert_eq!(attempts.next(at(4)), Next { authority: 0, not_before: None });
    }

    #[test]
    fn what_the_authority_asks_for_is_the_least() {
        let mut attempts = Attempts::new([None]);
        assert_eq!(attempts.failed(0, Blame::Limited, Some(at(100_000)), at(0), 0.9), at(100_000));
        assert_eq!(attempts.next(at(0)), Next { authority: 0, not_before: Some(at(100_000)) });
        assert_eq!(attempts.failed(0, Blame::Refused, Some(at(1)), at(0), 0.0), at(180), "our own pause is longer");
    }

    #[test]
    fn a_long_limit_makes_it_the_next_ones_turn_also_after_a_restart() {
        let mut attempts = Attempts::new([None, None]);
        attempts.failed(0, Blame::Limited, Some(at(7_200)), at(0), 0.0);
        assert_eq!(attempts.next(at(0)).authority, 1);
        assert_eq!(Attempts::new([Some(at(7_200)), None]).next(at(0)).authority, 1);
        assert_eq!(Attempts::new([Some(at(7_200)), None]).next(at(7_000)).authority, 0);
    }

    #[test]
    fn five_refusals_do_not_fall_into_one_hour() {
        let first_five: u64 = (1..=5).map(|failures| pause(Blame::Refused, failures).as_secs()).sum();
        assert!(first_five > 3_600);
        assert_eq!(pause(Blame::Refused, u32::MAX), Duration::from_secs(4 * 60 * 60));
    }
}
