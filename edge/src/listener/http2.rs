//! HTTP/2 with one client: takes its streams, says goodbye when the edge stops, and ends a connection that is idle.
//!
//! Pingora's own loop waits, once it is told to stop, for as long as a client likes. This one says GOAWAY and then gives a
//! connection without requests a moment to notice.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, HttpSession, handshake};
use pingora_core::protocols::{Digest, Stream};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::application::Application;

/// How long a client without requests may take to notice that it was told goodbye. What it sends until then is answered.
const FAREWELL: Duration = Duration::from_secs(1);
/// A client that sends so many streams that are no requests is not worth its connection.
const MAX_REJECTED_STREAMS: u32 = 32;

/// Serves `stream`, on which HTTP/2 was agreed, until either side ends it.
pub(crate) async fn serve<A: Application>(app: &Arc<A>, stream: Stream, stopping: &watch::Receiver<bool>) {
    let digest = Arc::new(Digest {
        ssl_digest: stream.get_ssl_digest(),
        timing_digest: stream.get_timing_digest(),
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
    });
    let mut connection = match handshake(stream, app.pingora().h2_options()).await {
        Ok(connection) => connection,
        Err(error) => return debug!(%error, "the client does not speak HTTP/2"),
    };
    let mut may_idle = app.pingora().server_options().and_then(|options| options.h2_idle_timeout);
    let mut changed = stopping.clone();
    let mut leaving = false;
    let mut rejected = 0;
    // Closed from the start: it then tells whenever it is empty.
    let requests = TaskTracker::new();
    requests.close();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = changed.changed(), if !leaving => {
                connection.graceful_shutdown();
                leaving = true;
                may_idle = Some(FAREWELL);
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut connection, digest.clone()) => accepted,
            () = idle(&requests, may_idle) => return,
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                let session = Box::new(ServerSession::new_http2(session));
                // In a box, because a task is moved more than once, and when it ends. Not awaited here: the connection waits
                // for all of them together.
                drop(requests.spawn(Box::pin(answer(app.clone(), session, stopping.clone()))));
            }
            Ok(Some(H2Accept::Rejected)) => {
                rejected += 1;
                if rejected >= MAX_REJECTED_STREAMS {
                    return debug!("the client sends streams that are no requests");
                }
            }
            Ok(None) => return,
            Err(error) => return debug!(%error, "the client's connection ended"),
        }
    }
}

/// One request and its answer.
async fn answer<A: Application>(app: Arc<A>, mut session: Box<ServerSession>, stopping: watch::Receiver<bool>) {
    let Some(taken) = app.take(session.req_header()) else {
        app.pingora().process_new_http(*session, &stopping).await;
        return;
    };
    app.answer(&mut *session, taken).await;
    // The end of a stream; what could go wrong with it has been noticed.
    let _ = session.finish().await;
}

/// Resolves once nothing was asked for so long.
async fn idle(requests: &TaskTracker, may_idle: Option<Duration>) {
    requests.wait().await;
    match may_idle {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}
