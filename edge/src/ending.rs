//! An end that many tasks wait for and hardly any ever sees.
//!
//! A connection's task is woken for every request, and each time asks all that it waits for. A cancellation token takes two
//! locks to be asked, which are shared by all connections; this takes none once it has been asked by a task.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// The end of something; all clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    is_over: AtomicBool,
    told: Arc<Notify>,
}

impl Ending {
    /// It has come.
    pub(crate) fn end(&self) {
        self.0.is_over.store(true, Ordering::Release);
        self.0.told.notify_waiters();
    }

    /// Whether it has come.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    /// Resolves when it comes. To be waited for by one task, which may ask as often as it likes.
    pub(crate) fn ended(&self) -> Ended {
        // Made before anybody asks whether it is over, so that no end falls between the two.
        Ended { told: Box::pin(self.0.told.clone().notified_owned()), is_asked: false, ending: self.clone() }
    }
}

/// See [`Ending::ended`].
#[derive(Debug)]
pub(crate) struct Ended {
    ending: Ending,
    told: Pin<Box<OwnedNotified>>,
    /// Whether the task is known, and will be woken.
    is_asked: bool,
}

impl Future for Ended {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.ending.is_over() {
            return Poll::Ready(());
        }
        if self.is_asked {
            return Poll::Pending;
        }
        self.is_asked = true;
        self.told.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_once_it_ends() {
        let ending = Ending::default();
        let mut waiting = ending.ended();
        assert!(futures_util::poll!(&mut waiting).is_pending() && futures_util::poll!(&mut waiting).is_pending());
        let waiter = tokio::spawn(ending.ended());
        let unasked = ending.ended();
        ending.end();
        waiter.await.unwrap();
        waiting.await;
        unasked.await;
        assert!(ending.is_over());
        ending.ended().await;
    }
}
