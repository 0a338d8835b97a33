//! How late the edge's timers are: the sign that it has more to do than its processors can.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::workers;

const TICK: Duration = Duration::from_millis(50);
/// As many ticks as are late in a row before that counts: one late tick is a machine that was suspended, or a neighbour.
const TICKS: usize = 8;

/// The lag of each worker, as last measured.
#[derive(Debug, Clone)]
pub(crate) struct LoopLag(Arc<[AtomicU64]>);

impl LoopLag {
    pub(crate) fn new() -> Self {
        Self((0..workers::count()).map(|_| AtomicU64::new(0)).collect())
    }

    /// The least of the newest delays of this worker.
    pub(crate) fn now(&self) -> Duration {
        Duration::from_millis(self.0.get(workers::index()).map_or(0, |lag| lag.load(Ordering::Relaxed)))
    }

    /// Measures this worker until `stop`.
    pub(crate) async fn measure(self, stop: CancellationToken) {
        let Some(lag) = self.0.get(workers::index()) else { return };
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
            lag.store(u64::try_from(least.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
