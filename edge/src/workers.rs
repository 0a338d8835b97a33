//! Threads that serve connections, each with a runtime of its own, between which nothing moves.
//!
//! A runtime that shares its tasks among threads wakes one thread from another for nearly every event, which costs more than
//! many a request. Here a connection stays with one worker for its life, and so does what is kept for its requests.
//! Connections are dealt out in turns, which is even enough for clients that stay for hours.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread among the workers, from 0; also 0 on a thread that is none.
pub(crate) fn index() -> usize {
    INDEX.get()
}

/// How many workers there are: one for each processor.
pub(crate) fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The threads; dropped, they end, and what they still do ends where it is.
#[derive(Debug)]
pub(crate) struct Workers {
    turns: Arc<Turns>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

/// Whose turn it is to serve a connection.
#[derive(Debug)]
pub(crate) struct Turns {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
}

impl Workers {
    /// Starts them.
    ///
    /// # Errors
    /// When the system gives no more threads or descriptors.
    pub(crate) fn start() -> io::Result<Self> {
        let (stop, mut runtimes, mut threads) = (CancellationToken::new(), Vec::new(), Vec::new());
        for index in 0..count() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtimes.push(runtime.handle().clone());
            let stop = stop.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                INDEX.set(index);
                runtime.block_on(stop.cancelled());
                // A thread that reads from a disk that hangs is not waited for.
                runtime.shutdown_background();
            })?;
            threads.push(thread);
        }
        Ok(Self { turns: Arc::new(Turns { runtimes, next: AtomicUsize::new(0) }), threads, stop })
    }

    /// Deals connections out.
    pub(crate) fn turns(&self) -> Arc<Turns> {
        self.turns.clone()
    }

    /// Starts a task on each of them.
    pub(crate) fn spawn_on_each<F: Future<Output = ()> + Send + 'static>(
        &self,
        tasks: &TaskTracker,
        task: impl Fn() -> F,
    ) {
        for runtime in &self.turns.runtimes {
            tasks.spawn_on(task(), runtime);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // One that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

impl Turns {
    /// The worker whose turn it is.
    pub(crate) fn next(&self) -> Option<&Handle> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.runtimes.get(turn % self.runtimes.len().max(1))
    }
}
