//! Cuts a client that takes too long to send the header of a request; bodies and answers have limits of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static CONNECTION: Arc<HeaderProgress>;
}

/// Whether the connection of the current task owes a header. HTTP/1 answers all requests of a connection in the
/// connection's own task, which is how the proxy finds it; the streams of HTTP/2 have tasks of their own and do not.
#[derive(Debug, Default)]
pub(crate) struct HeaderProgress {
    arrived: AtomicBool,
    answered: AtomicU32,
}

impl HeaderProgress {
    /// Runs the connection's task so that [`header_arrived`] and [`header_expected`] find this.
    pub(crate) async fn within<F: Future>(self: Arc<Self>, task: F) -> F::Output {
        CONNECTION.scope(self, task).await
    }

    fn owes_header(&self) -> bool {
        !self.arrived.load(Ordering::Relaxed)
    }
}

/// The header of a request is complete.
pub(crate) fn header_arrived() {
    // Outside of an HTTP/1 connection there is nothing to note.
    let _ = CONNECTION.try_with(|progress| progress.arrived.store(true, Ordering::Relaxed));
}

/// The request is answered, and the next one may begin.
pub(crate) fn header_expected() {
    let _ = CONNECTION.try_with(|progress| {
        progress.answered.fetch_add(1, Ordering::Relaxed);
        progress.arrived.store(false, Ordering::Relaxed);
    });
}

/// The deadline of one connection: set when the first header is awaited, and again with the first bytes of each further
/// one, because between requests a connection may idle.
#[derive(Debug)]
pub(crate) struct HeaderDeadline {
    progress: Arc<HeaderProgress>,
    within: Duration,
    answered: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes of a header are there or overdue from the start.
    Due(Instant),
    /// Between requests, or within one.
    Idle,
    /// HTTP/2: its frames have limits of their own.
    Off,
}

impl HeaderDeadline {
    pub(crate) fn new(progress: Arc<HeaderProgress>, within: Duration) -> Self {
        Self { progress, within, answered: 0, state: State::Due(Instant::now() + within) }
    }

    /// HTTP/2 was agreed on: once anything arrives, the deadline has done its work.
    pub(crate) fn off(&mut self) {
        self.state = State::Off;
    }

    /// Bytes arrived.
    pub(crate) fn received(&mut self) {
        self.rest_between_requests();
        if matches!(self.state, State::Idle) && self.progress.owes_header() {
            self.state = State::Due(Instant::now() + self.within);
        }
    }

    /// Nothing is there to read: until when may that last?
    pub(crate) fn due(&mut self) -> Option<Instant> {
        self.rest_between_requests();
        match self.state {
            State::Due(due) if self.progress.owes_header() => Some(due),
            _ => None,
        }
    }

    fn rest_between_requests(&mut self) {
        let answered = self.progress.answered.load(Ordering::Relaxed);
        if answered != self.answered && !matches!(self.state, State::Off) {
            self.answered = answered;
            self.state = State::Idle;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_header_is_due_from_the_start_and_from_the_first_bytes_of_the_next() {
        let progress = Arc::new(HeaderProgress::default());
        let within = Duration::from_secs(15);
        let mut deadline = HeaderDeadline::new(progress.clone(), within);
        let start = Instant::now();
        progress
            .within(async {
                assert_eq!(deadline.due(), Some(start + within));
                deadline.received();
                assert_eq!(deadline.due(), Some(start + within), "a first byte gains no time");
                header_arrived();
                assert_eq!(deadline.due(), None, "a body has no deadline");
                header_expected();
                assert_eq!(deadline.due(), None, "an idle connection has no deadline");
                tokio::time::advance(Duration::from_secs(60)).await;
                deadline.received();
                assert_eq!(deadline.due(), Some(start + Duration::from_secs(60) + within));
            })
            .await;
    }
}
