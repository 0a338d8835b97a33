//! HTTP/2 with one client: takes its streams, says goodbye when the edge stops, and ends a connection that is idle.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatehouse_shared::limits::MAX_REQUEST_HEADER_BYTES;
use h2::server::Builder;
use pingora_core::protocols::Stream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::application::Application;
use super::endpoint::Ends;
use crate::conversation::Conversation as _;
use crate::http2::request::{Client, Request};

/// How long a connection may be without a request, at least; at most it is twice as long.
const IDLE: Duration = Duration::from_secs(300);
/// How long a client without requests may take to notice that it was told goodbye. What it sends until then is answered.
const FAREWELL: Duration = Duration::from_secs(1);
/// A client that sends so many streams that are no requests is not worth its connection.
const MAX_REJECTED_STREAMS: u32 = 32;
/// So many requests a client may have answered at once.
const MAX_CONCURRENT_STREAMS: u32 = 100;
/// What a client may send of one body, and of all, before any of it is taken: smaller windows would throttle uploads.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Serves `stream`, on which HTTP/2 was agreed, until either side ends it.
pub(crate) async fn serve<A: Application>(app: &Arc<A>, stream: Stream, client: Client, ends: &Ends) {
    let mut options = Builder::new();
    // HTTP/2 counts 32 bytes for each field beside its name and value (RFC 9113, section 10.5.1).
    options.max_header_list_size(2 * MAX_REQUEST_HEADER_BYTES as u32);
    options.max_concurrent_streams(MAX_CONCURRENT_STREAMS);
    options.initial_window_size(STREAM_WINDOW);
    options.initial_connection_window_size(CONNECTION_WINDOW);
    let mut connection = match options.handshake::<_, Bytes>(stream).await {
        Ok(connection) => connection,
        Err(error) => return debug!(%error, "the client does not speak HTTP/2"),
    };
    // Both live as long as the connection, which asks them whenever it is woken.
    let (mut leaving, mut timer) = (pin!(ends.leaving.ended()), pin!(tokio::time::sleep(IDLE)));
    let (mut is_leaving, mut may_idle) = (false, IDLE);
    // Whether there was a request when the timer was set, or since.
    let mut is_asked = false;
    let mut was_sending = false;
    let mut rejected = 0;
    let served = Arc::new((app.clone(), ends.stopping.clone()));
    let requests = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut leaving, if !is_leaving => {
                connection.graceful_shutdown();
                is_leaving = true;
                may_idle = FAREWELL;
                timer.as_mut().reset(Instant::now() + may_idle);
                continue;
            }
            accepted = connection.accept() => accepted,
            () = &mut timer => {
                let is_answering = !requests.is_empty();
                // What was answered may have to be taken yet. When the edge leaves, that is given its own time.
                let is_sending = connection.has_streams();
                let is_busy = is_answering || is_sending && (is_leaving || !was_sending);
                if !is_asked && !is_busy {
                    return;
                }
                is_asked = is_answering;
                was_sending = is_sending;
                timer.as_mut().reset(Instant::now() + may_idle);
                continue;
            }
        };
        is_asked = true;
        match accepted {
            Some(Ok((request, respond))) => match Request::new(request, respond, client.clone()) {
                // In a box, because a task is moved more than once, and when it ends. Not awaited here: what it writes fails
                // once the connection is gone.
                Some(request) => drop(requests.spawn(Box::pin(answer(served.clone(), request)))),
                None => {
                    rejected += 1;
                    if rejected >= MAX_REJECTED_STREAMS {
                        return debug!("the client sends streams that are no requests");
                    }
                }
            },
            Some(Err(error)) => return debug!(%error, "the client's connection ended"),
            None => return,
        }
    }
}

/// One request and its answer.
async fn answer<A: Application>(served: Arc<(Arc<A>, watch::Receiver<bool>)>, mut request: Request) {
    let (app, stopping) = &*served;
    match app.take(request.request()) {
        Some(taken) => {
            app.answer(&mut request, taken).await;
        }
        None => Box::pin(app.answer_through_pingora(&mut request, stopping)).await,
    }
    request.finish();
}
