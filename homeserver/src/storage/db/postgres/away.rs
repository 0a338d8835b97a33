//! Knows when PostgreSQL does not answer, so that callers hear of it at once instead of waiting one after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{DbError, Shared};

/// Pause between two looks whether the server answers again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Whether the server counts as away: it left something unanswered, and no new connection has worked since.
#[derive(Debug, Default)]
pub(super) struct Away {
    is_away: AtomicBool,
}

impl Away {
    pub(super) fn check(&self) -> Result<(), DbError> {
        if self.is_away.load(Ordering::Acquire) { Err(not_answering()) } else { Ok(()) }
    }
}

impl Shared {
    /// Notes that something was not answered in time. All idle connections are given up, and one task looks whether the
    /// server answers; until it does nobody else asks.
    pub(super) fn does_not_answer(self: &Arc<Self>) -> DbError {
        self.idle.lock().clear();
        if !self.away.is_away.swap(true, Ordering::AcqRel) {
            tracing::warn!("the database does not answer; requests are refused until it does");
            tokio::spawn(look_for(Arc::downgrade(self)));
        }
        not_answering()
    }
}

async fn look_for(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        // A server that refuses does answer: whoever asks next hears so without a wait.
        if tokio::time::timeout(super::CONNECT_TIMEOUT, shared.connect_slowly()).await.is_ok() {
            shared.away.is_away.store(false, Ordering::Release);
            tracing::info!("the database answers again");
            return;
        }
        drop(shared);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn not_answering() -> DbError {
    DbError::Unavailable("it does not answer".into())
}
