//! Whether a client that owes a body sends it at a pace that a healthy one has.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::config::policy::ConnectionPolicy;
use crate::ending::Ending;

/// The longest part of an answer that is written at once.
const LONGEST_WRITE_BYTES: u64 = 64 * 1024;

/// The slowest pace that is borne.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    slow: Duration,
}

impl Pace {
    /// `None` where the policy bears any.
    pub(crate) fn new(policy: &ConnectionPolicy) -> Option<Self> {
        let slow = Duration::from_secs(policy.slow_seconds);
        (policy.min_bytes_per_second > 0).then_some(Self { bytes_per_second: policy.min_bytes_per_second, slow })
    }

    /// How long a part of an answer may take until it is written.
    pub(crate) fn longest_write(self) -> Duration {
        self.slow.max(Duration::from_secs(LONGEST_WRITE_BYTES / self.bytes_per_second))
    }

    /// How long so many bytes may take.
    fn allows(self, bytes: u64) -> Duration {
        let millis = bytes.saturating_mul(1_000) / self.bytes_per_second;
        self.slow.saturating_add(Duration::from_millis(millis))
    }
}

/// A body that is awaited; dropping this ends the wait.
#[derive(Debug)]
pub(crate) struct Awaited {
    pace: Pace,
    since: Instant,
    received: Arc<AtomicU64>,
    _watch: Option<DropGuard>,
}

impl Awaited {
    /// From now on. A client that sends too little is found out with its next bytes. Where it might send none at all and
    /// nothing else would notice (HTTP/2), `end` is cancelled in its time.
    pub(crate) fn new(pace: Pace, end: Option<Ending>) -> Self {
        let (since, received) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let watch = end.map(|end| {
            let awaited = CancellationToken::new();
            tokio::spawn(watch(pace, since, received.clone(), awaited.clone(), end));
            awaited.drop_guard()
        });
        Self { pace, since, received, _watch: watch }
    }

    /// So many bytes came; `false` when that is too slow.
    pub(crate) fn receive(&self, bytes: usize) -> bool {
        let received = self.received.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.since.elapsed() <= self.pace.allows(received)
    }
}

/// Cancels `end` when the body falls behind, unless it is no longer awaited.
async fn watch(pace: Pace, since: Instant, received: Arc<AtomicU64>, awaited: CancellationToken, end: Ending) {
    loop {
        let due = since + pace.allows(received.load(Ordering::Relaxed));
        if due <= Instant::now() {
            return end.end();
        }
        tokio::select! {
            () = awaited.cancelled() => return,
            () = tokio::time::sleep_until(due) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let policy = ConnectionPolicy { min_bytes_per_second: 100, slow_seconds: 10, ..ConnectionPolicy::default() };
        Pace::new(&policy).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_for_a_while_and_then_at_its_pace() {
        let body = Awaited::new(pace(), None);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(body.receive(1_000));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(body.receive(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!body.receive(1), "1,002 bytes in 21 seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_ends_its_connection() {
        let end = Ending::default();
        let body = Awaited::new(pace(), Some(end.clone()));
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(body.receive(200));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!end.is_over());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(end.is_over());
        let end = Ending::default();
        drop(Awaited::new(pace(), Some(end.clone())));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!end.is_over(), "a body that is there is awaited no more");
    }

    #[test]
    fn an_answer_has_time_for_its_longest_part() {
        assert_eq!(pace().longest_write(), Duration::from_secs(655));
        let any = ConnectionPolicy { min_bytes_per_second: 0, ..ConnectionPolicy::default() };
        assert!(Pace::new(&any).is_none());
    }
}
