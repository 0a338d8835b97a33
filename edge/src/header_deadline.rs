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
    /// Bytes of the next header came before the last answer was out.
    ahead: AtomicBool,
    /// A header that had begun was not complete in time.
    overdue: AtomicBool,
    /// Something was answered to what is no header.
    refused: AtomicBool,
}

impl HeaderProgress {
    /// Runs the connection's task so that [`header_arrived`] and [`header_expected`] find this.
    pub(crate) fn within<F: Future>(self: Arc<Self>, task: F) -> impl Future<Output = F::Output> {
        // No `async fn`: it would have room for the task twice.
        CONNECTION.scope(self, task)
    }

    /// Whether the connection ended over a header that was sent too slowly.
    pub(crate) fn was_overdue(&self) -> bool {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Whether the connection ended over a header that the proxy never got to see, because it is none.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
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

/// The next header has begun already, among bytes that came before the last answer.
pub(crate) fn header_ahead() {
    let _ = CONNECTION.try_with(|progress| progress.ahead.store(true, Ordering::Relaxed));
}

/// The length of HTTP/2's connection preface (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;

/// The deadline of one connection: set when the first header is awaited, and again with the first bytes of each further
/// one, because between requests a connection may idle.
#[derive(Debug)]
pub(crate) struct HeaderDeadline {
    progress: Arc<HeaderProgress>,
    within: Duration,
    answered: u32,
    /// Bytes of the header that is awaited have come.
    begun: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Bytes of a header are there; it is due once more of it has to be waited for, which mostly is not so.
    Begun,
    /// Bytes of a header are there or overdue from the start.
    Due(Instant),
    /// Between requests, or within one.
    Idle,
    /// HTTP/2: so many bytes of the connection preface are still to come.
    Preface { due: Instant, missing: usize },
    /// HTTP/2 once it is under way: its frames have limits of their own.
    Off,
}

impl HeaderDeadline {
    /// For HTTP/1.1.
    pub(crate) fn new(progress: Arc<HeaderProgress>, within: Duration) -> Self {
        Self { progress, within, answered: 0, begun: false, state: State::Due(Instant::now() + within) }
    }

    /// HTTP/2 was agreed on: only its preface is due.
    pub(crate) fn expect_preface(&mut self) {
        self.state = State::Preface { due: Instant::now() + self.within, missing: PREFACE_BYTES };
    }

    /// So many bytes arrived.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.rest_between_requests();
        self.begun |= bytes > 0;
        match &mut self.state {
            State::Idle if self.progress.owes_header() => self.state = State::Begun,
            State::Preface { missing, .. } if *missing <= bytes => self.state = State::Off,
            State::Preface { missing, .. } => *missing -= bytes,
            State::Idle | State::Begun | State::Due(_) | State::Off => {}
        }
    }

    /// Nothing is there to read: until when may that last?
    pub(crate) fn due(&mut self) -> Option<Instant> {
        self.rest_between_requests();
        if matches!(self.state, State::Begun) && self.progress.owes_header() {
            self.state = State::Due(Instant::now() + self.within);
        }
        match self.state {
            State::Due(due) if self.progress.owes_header() => Some(due),
            State::Preface { due, .. } => Some(due),
            State::Begun | State::Due(_) | State::Idle | State::Off => None,
        }
    }

    /// Something is written to the client.
    pub(crate) fn answering(&mut self) {
        if self.begun && matches!(self.state, State::Begun | State::Due(_)) && self.progress.owes_header() {
            self.progress.refused.store(true, Ordering::Relaxed);
        }
    }

    /// The time is up.
    pub(crate) fn expire(&mut self) {
        // Browsers open connections that they may never use; only who begins has to end.
        self.progress.overdue.store(self.begun, Ordering::Relaxed);
    }

    fn rest_between_requests(&mut self) {
        let answered = self.progress.answered.load(Ordering::Relaxed);
        if answered != self.answered {
            self.answered = answered;
            self.begun = self.progress.ahead.swap(false, Ordering::Relaxed);
            self.state = if self.begun { State::Begun } else { State::Idle };
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
                deadline.received(1);
                assert_eq!(deadline.due(), Some(start + within), "a first byte gains no time");
                header_arrived();
                assert_eq!(deadline.due(), None, "a body has no deadline");
                header_expected();
                assert_eq!(deadline.due(), None, "an idle connection has no deadline");
                tokio::time::advance(Duration::from_secs(60)).await;
                deadline.received(1);
                assert_eq!(deadline.due(), Some(start + Duration::from_secs(60) + within));
                header_arrived();
                header_expected();
                header_ahead();
                assert_eq!(deadline.due(), Some(Instant::now() + within), "what came early is no idle connection");
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_connection_ended_over_is_known() {
        let deadline = || HeaderDeadline::new(Arc::default(), Duration::from_secs(15));
        let mut silent = deadline();
        silent.expire();
        assert!(!silent.progress.was_overdue(), "a connection that was opened ahead is no offence");
        let mut slow = deadline();
        slow.received(1);
        slow.expire();
        assert!(slow.progress.was_overdue() && !slow.progress.was_refused());
        let mut refused = deadline();
        refused.received(1);
        refused.answering();
        assert!(refused.progress.was_refused());
        let mut answered = deadline();
        answered.received(1);
        answered.progress.arrived.store(true, Ordering::Relaxed);
        answered.answering();
        assert!(!answered.progress.was_refused());
    }

    #[tokio::test(start_paused = true)]
    async fn http2_owes_its_preface_and_nothing_else() {
        let mut deadline = HeaderDeadline::new(Arc::default(), Duration::from_secs(15));
        deadline.expect_preface();
        let due = Some(Instant::now() + Duration::from_secs(15));
        assert_eq!(deadline.due(), due);
        deadline.received(23);
        assert_eq!(deadline.due(), due);
        deadline.received(1);
        assert_eq!(deadline.due(), None);
        deadline.received(1);
        assert_eq!(deadline.due(), None);
    }
}
