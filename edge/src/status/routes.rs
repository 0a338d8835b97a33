//! Which endpoints are slow. Paths become templates: what stands for a user, a room or an id is left out, so that there are
//! few of them whatever clients ask for.

use std::collections::HashMap;
use std::time::Duration;

use crate::routing::routing_key::{FNV_OFFSET, fnv1a};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// More templates than the specification has endpoints; what comes beyond them is not looked at.
const MAX_ROUTES: usize = 300;
const MAX_SEGMENTS: usize = 10;
/// What is reported covers between one and two of these.
const GENERATION: Duration = Duration::from_secs(5 * 60);
/// From half a millisecond, doubling: the last one takes everything from 16 s on.
const BUCKETS: usize = 17;
const SHOWN: usize = 10;

/// One endpoint, by its answers of the last minutes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlowRoute {
    /// Its template, such as `/_matrix/client/v3/rooms/{}/messages`.
    pub(crate) route: String,
    pub(crate) requests: u64,
    /// 19 of 20 answers took no longer, in milliseconds.
    pub(crate) p95_ms: f64,
    pub(crate) slowest_ms: f64,
}

#[derive(Debug, Clone, Default)]
struct Durations {
    buckets: [u64; BUCKETS],
    slowest: Duration,
}

/// What was answered lately.
#[derive(Debug)]
pub(crate) struct Routes(Mutex<Generations>);

#[derive(Debug)]
struct Generations {
    since: Instant,
    current: HashMap<u64, Durations>,
    previous: HashMap<u64, Durations>,
    /// The templates by their hash; never forgotten, and never more than [`MAX_ROUTES`].
    templates: HashMap<u64, String>,
}

impl Routes {
    pub(crate) fn new(now: Instant) -> Self {
        let (current, previous, templates) = Default::default();
        Self(Mutex::new(Generations { since: now, current, previous, templates }))
    }

    /// Notes an answer of a shard to `path`.
    pub(crate) fn answered(&self, path: &str, took: Duration, now: Instant) {
        let Some(hash) = hash_of(path) else { return };
        let mut all = self.0.lock();
        all.turn(now);
        if let Some(durations) = all.current.get_mut(&hash) {
            return durations.note(took);
        }
        if !all.templates.contains_key(&hash) {
            if all.templates.len() >= MAX_ROUTES {
                return;
            }
            all.templates.insert(hash, template(path));
        }
        all.current.entry(hash).or_default().note(took);
    }

    /// The slowest of them, the slowest first.
    pub(crate) fn slowest(&self) -> Vec<SlowRoute> {
        let all = self.0.lock();
        let mut merged = all.previous.clone();
        for (hash, durations) in &all.current {
            merged.entry(*hash).or_default().add(durations);
        }
        let report = |(hash, durations): (u64, Durations)| {
            let route = all.templates.get(&hash)?.clone();
            let (requests, p95_ms) = (durations.buckets.iter().sum(), durations.p95_ms());
            Some(SlowRoute { route, requests, p95_ms, slowest_ms: durations.slowest.as_secs_f64() * 1e3 })
        };
        let mut routes: Vec<SlowRoute> = merged.into_iter().filter_map(report).collect();
        routes.sort_by(|a, b| b.p95_ms.total_cmp(&a.p95_ms).then_with(|| b.slowest_ms.total_cmp(&a.slowest_ms)));
        routes.truncate(SHOWN);
        routes
    }
}

impl Generations {
    fn turn(&mut self, now: Instant) {
        if now.duration_since(self.since) < GENERATION {
            return;
        }
        self.previous = std::mem::take(&mut self.current);
        if now.duration_since(self.since) >= 2 * GENERATION {
            self.previous.clear();
        }
        self.since = now;
    }
}

impl Durations {
    fn note(&mut self, took: Duration) {
        self.buckets[bucket(took)] += 1;
        self.slowest = self.slowest.max(took);
    }

    fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(own, other)| *own += other);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// The upper end of the bucket that holds it, or the slowest answer when that is less.
    fn p95_ms(&self) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let rank = total - total / 20;
        let mut below = 0;
        let at = self.buckets.iter().position(|count| {
            below += count;
            below >= rank
        });
        let slowest = self.slowest.as_secs_f64() * 1e3;
        match at {
            Some(at) if at + 1 < BUCKETS => (0.5 * f64::from(1_u32 << at)).min(slowest),
            _ => slowest,
        }
    }
}

fn bucket(took: Duration) -> usize {
    let half_milliseconds = took.as_micros().div_ceil(500).max(1);
    (u128::BITS - (half_milliseconds - 1).leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

/// Whether a segment is a word of the specification's paths rather than somebody's name or number.
fn is_word(segment: &[u8]) -> bool {
    let version = segment.len() <= 3 && matches!(segment.first(), Some(b'v' | b'r'));
    let is_dotted = segment.first() == Some(&b'.');
    let letters = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_' || *byte == b'.' && is_dotted;
    segment.len() <= 32
        && if version {
            segment.iter().skip(1).all(u8::is_ascii_digit)
        } else {
            segment.iter().all(letters) || segment == b"sendToDevice"
        }
}

fn segments(path: &str) -> impl Iterator<Item = &[u8]> {
    let words = |segment| if is_word(segment) { segment } else { b"{}" };
    path.as_bytes().split(|byte| *byte == b'/').skip(1).map(words)
}

/// A number for the template, found without writing it (FNV-1a). `None` for paths that are no endpoint of Matrix.
fn hash_of(path: &str) -> Option<u64> {
    if !path.starts_with("/_matrix/") && !path.starts_with("/_synapse/") {
        return None;
    }
    let mut count = 0;
    let hash = segments(path).fold(FNV_OFFSET, |hash, segment| {
        count += 1;
        segment.iter().copied().chain([b'/']).fold(hash, fnv1a)
    });
    (count <= MAX_SEGMENTS).then_some(hash)
}

fn template(path: &str) -> String {
    segments(path).flat_map(|segment| [b"/", segment]).flatten().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_left_out_of_templates() {
        for (path, expected) in [
            ("/_matrix/client/versions", "/_matrix/client/versions"),
            ("/_matrix/client/v3/rooms/!a:b/send/m.room.message/m17", "/_matrix/client/v3/rooms/{}/send/{}/{}"),
            ("/_matrix/client/r0/sendToDevice/m.x/1", "/_matrix/client/r0/sendToDevice/{}/{}"),
            ("/_matrix/client/v3/profile/@a:b/displayname", "/_matrix/client/v3/profile/{}/displayname"),
            ("/_matrix/federation/v1/send/1700", "/_matrix/federation/v1/send/{}"),
            ("/_matrix/client/v3/keys/device_signing/upload", "/_matrix/client/v3/keys/device_signing/upload"),
        ] {
            assert_eq!(template(path), expected);
        }
        assert_eq!(hash_of("/_matrix/client/v3/user/@a:b"), hash_of("/_matrix/client/v3/user/@b:c"));
        assert_eq!(hash_of("/somewhere"), None);
        assert_eq!(hash_of(&format!("/_matrix{}", "/a".repeat(20))), None);
    }

    #[test]
    fn there_are_never_many_templates() {
        let now = Instant::now();
        let routes = Routes::new(now);
        for number in 0..10_000_u32 {
            let word: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
            routes.answered(&format!("/_matrix/client/{word}"), Duration::from_millis(1), now);
        }
        assert_eq!(routes.0.lock().templates.len(), MAX_ROUTES);
        assert_eq!(routes.slowest().len(), SHOWN);
    }

    #[test]
    fn the_slowest_comes_first_and_old_answers_are_forgotten() {
        let start = Instant::now();
        let routes = Routes::new(start);
        for _ in 0..99 {
            routes.answered("/_matrix/client/v3/fast", Duration::from_micros(900), start);
        }
        routes.answered("/_matrix/client/v3/fast", Duration::from_secs(3), start);
        routes.answered("/_matrix/client/v3/slow", Duration::from_millis(700), start);
        let [slow, fast] = &routes.slowest()[..] else { panic!("{routes:?}") };
        assert_eq!((slow.route.as_str(), slow.p95_ms), ("/_matrix/client/v3/slow", 700.0));
        assert_eq!((fast.requests, fast.p95_ms, fast.slowest_ms), (100, 1.0, 3_000.0));
        let later = start + GENERATION;
        routes.answered("/_matrix/client/v3/fast", Duration::from_millis(1), later);
        assert_eq!(routes.slowest().len(), 2);
        routes.answered("/_matrix/client/v3/fast", Duration::from_millis(1), later + 2 * GENERATION);
        assert_eq!(routes.slowest().len(), 1);
    }
}
