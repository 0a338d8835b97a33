//! How late the edge's timers are: the sign that it has more to do than its processors can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const TICK: Duration = Duration::from_millis(50);
/// As many ticks as are late in a row before that counts: one late tick is a machine that was suspended, or a neighbour.
const TICKS: usize = 8;

/// The lag of the runtime, as last measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct LoopLag(Arc<AtomicU64>);

impl LoopLag {
    /// The least of the newest delays.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    /// Measures until `stop`.
    pub(crate) async fn measure(self, stop: CancellationToken) {
        let mut delays = [Duration::ZERO; TICKS];
        for at in (0..TICKS).cycle() {
            let due = Instant::now() + TICK;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(due) => {}
            }
            if let Some(delay) = delays.get_mut(at) {
                *delay = due.elapsed();
            }
            let least = delays.iter().min().copied().unwrap_or_default();
            self.0.store(u64::try_from(least.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
