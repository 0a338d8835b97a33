//! How many requests of each class were answered lately. Requests pay nothing for it: what is counted anyway is looked at
//! every two seconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::admission::request_class::RequestClass;
use crate::metrics::{Metrics, Totals};

/// Time between two looks.
pub(crate) const STEP: Duration = Duration::from_secs(2);
/// Five minutes.
const STEPS: usize = 150;
/// Rates are those of the last half minute.
const STEPS_OF_RATE: usize = 15;
const CLASSES: usize = RequestClass::ALL.len();

/// One class of requests. Rates are per second, over the last half minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassTraffic {
    pub(crate) class: String,
    /// All answers.
    pub(crate) per_second: f64,
    /// Answers that blame the client (4xx).
    pub(crate) refused_per_second: f64,
    /// Answers that blame the server (5xx), and requests without any.
    pub(crate) failed_per_second: f64,
    /// How many were answered in each step of the last five minutes, the newest last.
    pub(crate) history: Vec<u64>,
}

/// What the looks have seen.
#[derive(Debug, Default)]
pub(crate) struct Traffic(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<[Totals; CLASSES]>,
    steps: VecDeque<[Totals; CLASSES]>,
}

impl Traffic {
    /// Looks every two seconds until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, metrics: Arc<Metrics>, stop: CancellationToken) {
        let mut turn = tokio::time::interval(STEP);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turn.tick() => self.look(metrics.totals()),
            }
        }
    }

    fn look(&self, totals: [Totals; CLASSES]) {
        let mut seen = self.0.lock();
        if let Some(last) = seen.last.replace(totals) {
            let mut step = totals;
            step.iter_mut().zip(&last).for_each(|(now, before)| *now = now.since(*before));
            if seen.steps.len() == STEPS {
                seen.steps.pop_front();
            }
            seen.steps.push_back(step);
        }
    }

    /// The classes that were seen within five minutes.
    pub(crate) fn report(&self) -> Vec<ClassTraffic> {
        let seen = self.0.lock();
        let of_class = |class: RequestClass| {
            let history: Vec<u64> = seen.steps.iter().map(|step| step[class as usize].answered).collect();
            if history.iter().all(|answered| *answered == 0) {
                return None;
            }
            let recent = seen.steps.iter().rev().take(STEPS_OF_RATE);
            let mut sum = Totals::default();
            recent.clone().for_each(|step| sum = sum.plus(step[class as usize]));
            let seconds = recent.count() as f64 * STEP.as_secs_f64();
            Some(ClassTraffic {
                class: class.as_str().to_owned(),
                per_second: sum.answered as f64 / seconds,
                refused_per_second: sum.refused as f64 / seconds,
                failed_per_second: sum.failed as f64 / seconds,
                history,
            })
        };
        RequestClass::ALL.into_iter().filter_map(of_class).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_half_minute() {
        let traffic = Traffic::default();
        let mut totals = [Totals::default(); CLASSES];
        traffic.look(totals);
        assert!(traffic.report().is_empty());
        let sync = RequestClass::Sync as usize;
        for step in 0..200 {
            totals[sync].answered += if step < 190 { 100 } else { 4 };
            totals[sync].refused += 1;
            traffic.look(totals);
        }
        let report = traffic.report();
        let [sync] = report.as_slice() else { panic!("{report:?}") };
        assert_eq!((sync.class.as_str(), sync.history.len()), ("sync", STEPS));
        assert_eq!(sync.history.last(), Some(&4));
        assert!((sync.per_second - (5.0 * 100.0 + 10.0 * 4.0) / 30.0).abs() < 1e-9);
        assert!((sync.refused_per_second - 0.5).abs() < 1e-9);
    }
}
