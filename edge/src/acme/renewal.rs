//! Decides when a certificate is renewed. No I/O, no clock, no dice.

use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Certificates that live shorter than this are renewed at half of their life, as their authorities ask.
const SHORT_LIVED: Duration = Duration::from_secs(10 * 24 * 60 * 60);
/// How often an authority is asked for its window, unless it says otherwise.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(6 * 60 * 60);
const LOOK_AGAIN_AT_LEAST: Duration = Duration::from_secs(60);

/// When the authority suggests renewing (ARI, RFC 9773).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// The moment by the certificate's lifetime: a fiftieth of it, ending at two thirds (half, if it is short-lived).
/// `spread` in 0..1 picks the place, so that certificates that were issued together are not renewed together.
pub(super) fn by_lifetime(not_before: SystemTime, not_after: SystemTime, spread: f64) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    let latest = if lifetime < SHORT_LIVED { lifetime / 2 } else { lifetime / 3 * 2 };
    let earlier = (lifetime / 50).mul_f64(1.0 - unit(spread));
    not_before + latest.saturating_sub(earlier)
}

/// A moment in the authority's window, which may lie in the past: then renewal is due now. A window that ends before it
/// begins is no window.
pub(super) fn by_window(window: Window, spread: f64) -> Option<SystemTime> {
    let length = window.end.duration_since(window.start).ok()?;
    Some(window.start + length.mul_f64(unit(spread)))
}

/// When to ask for the window again.
pub(super) fn look_again(suggested: Duration) -> Duration {
    suggested.clamp(LOOK_AGAIN_AT_LEAST, DAY)
}

/// A number in 0..1 that a certificate keeps through its life: restarts do not throw the dice again.
pub(super) fn spread_of(digest: &[u8]) -> f64 {
    let bytes = digest.iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(bytes) / (f64::from(u32::MAX) + 1.0)
}

fn unit(spread: f64) -> f64 {
    if spread.is_finite() { spread.clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn day(days: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(days * 86_400)
    }

    #[test]
    fn a_long_life_is_renewed_before_its_last_third_and_a_short_one_before_its_half() {
        assert_eq!(by_lifetime(day(0), day(90), 1.0), day(60));
        let earliest = by_lifetime(day(0), day(90), 0.0);
        assert!(earliest < day(59) && earliest > day(58));
        assert_eq!(by_lifetime(day(0), day(6), 1.0), day(3));
        assert_eq!(by_lifetime(day(5), day(5), 0.5), day(5));
        assert_eq!(by_lifetime(day(5), day(1), 0.5), day(5), "a certificate that ends before it begins is due at once");
    }

    #[test]
    fn the_window_is_used_from_end_to_end() {
        let window = Window { start: day(10), end: day(12) };
        assert_eq!(by_window(window, 0.0), Some(day(10)));
        assert_eq!(by_window(window, 0.5), Some(day(11)));
        assert_eq!(by_window(window, f64::NAN), Some(day(10)));
        assert_eq!(by_window(Window { start: day(2), end: day(1) }, 0.5), None);
    }

    #[test]
    fn the_authority_cannot_have_itself_asked_all_the_time_or_never() {
        assert_eq!(look_again(Duration::ZERO), LOOK_AGAIN_AT_LEAST);
        assert_eq!(look_again(Duration::from_secs(3_600)), Duration::from_secs(3_600));
        assert_eq!(look_again(100 * DAY), DAY);
    }

    #[test]
    fn the_spread_is_a_fraction() {
        assert!(spread_of(&[0xff; 32]) < 1.0);
        assert_eq!(spread_of(&[0x80, 0, 0, 0]), 0.5);
        assert_eq!(spread_of(&[]), 0.0);
    }
}
