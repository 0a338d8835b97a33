//! Identical questions that come at the same time are worked on once.
//!
//! A message that many servers cannot place makes all of them ask for the state before it within seconds.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Questions that are remembered before those that nobody asks any more are dropped.
const QUESTIONS_REMEMBERED: usize = 1_000;

/// What is being worked on, by question. Clones share it.
pub(super) struct Coalesced<K, V>(Arc<Mutex<HashMap<K, Weak<OnceCell<V>>>>>);

impl<K: Eq + Hash, V: Clone> Coalesced<K, V> {
    /// What `work` brings, or what the same work brings for somebody who asked before and waits as well. When that one gives
    /// up or fails, the next one works.
    pub(super) async fn get<E>(&self, question: K, work: impl Future<Output = Result<V, E>>) -> Result<V, E> {
        let shared = {
            let mut questions = self.0.lock();
            if questions.len() >= QUESTIONS_REMEMBERED {
                questions.retain(|_, asked| asked.strong_count() > 0);
            }
            let asked = questions.entry(question).or_default();
            asked.upgrade().unwrap_or_else(|| {
                let first = Arc::default();
                *asked = Arc::downgrade(&first);
                first
            })
        };
        shared.get_or_try_init(|| work).await.cloned()
    }
}

impl<K, V> Clone for Coalesced<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Coalesced<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use futures_util::{FutureExt, future::join_all};

    use super::*;

    #[tokio::test]
    async fn the_same_question_is_worked_on_once_at_a_time() {
        let coalesced = Coalesced::<&str, u32>::default();
        let worked = Cell::new(0);
        let work = async || {
            worked.set(worked.get() + 1);
            tokio::task::yield_now().await;
            Ok::<_, ()>(worked.get())
        };
        let answers = join_all((0..50).map(|_| coalesced.get("one", work()))).await;
        assert_eq!((answers, worked.get()), (vec![Ok(1); 50], 1));
        assert_eq!(coalesced.get("one", work()).await, Ok(2), "an answer is not kept");
        let (one, two) = tokio::join!(coalesced.get("one", work()), coalesced.get("two", work()));
        assert_eq!((one, two, worked.get()), (Ok(4), Ok(4), 4));
    }

    #[tokio::test]
    async fn the_next_one_works_when_the_first_gives_up_or_fails() {
        let coalesced = Coalesced::<&str, u32>::default();
        let mut gives_up = Box::pin(coalesced.get("one", pending::<Result<u32, ()>>()));
        assert!((&mut gives_up).now_or_never().is_none());
        let mut waits = Box::pin(coalesced.get("one", async { Ok::<_, ()>(7) }));
        assert!((&mut waits).now_or_never().is_none());
        drop(gives_up);
        assert_eq!(waits.await, Ok(7));
        let fails = coalesced.get("one", async {
            tokio::task::yield_now().await;
            Err("broken")
        });
        assert_eq!(tokio::join!(fails, coalesced.get("one", async { Ok::<_, &str>(8) })), (Err("broken"), Ok(8)));
    }

    #[tokio::test]
    async fn what_nobody_asks_any_more_is_forgotten() {
        let coalesced = Coalesced::<usize, u32>::default();
        for question in 0..5 * QUESTIONS_REMEMBERED {
            coalesced.get(question, async { Ok::<_, ()>(1) }).await.unwrap();
        }
        assert!(coalesced.0.lock().len() <= QUESTIONS_REMEMBERED);
    }
}
