//! HTTP/1.1 with one client: one request after the other, and next to nothing in memory while there is none.
//!
//! Pingora's own loop makes the next request's session before there is a request, which costs an idle connection some 20 KiB.
//! This one first waits for a byte.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::watch;

/// How long a connection may be without a request once it had one.
const IDLE: Duration = Duration::from_secs(300);
/// How long a client without requests may go on when the edge stops. A request that comes until then is answered.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long Pingora waits for the rest of a header whose first byte is there, in seconds; the edge's own deadline is shorter.
const KEEPALIVE_SECONDS: u64 = 300;

/// Serves `stream` until either side ends it.
pub(crate) async fn serve<A>(app: &Arc<A>, mut stream: Stream, stopping: &watch::Receiver<bool>)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut persistent: Option<HttpPersistentSettings> = None;
    loop {
        let mut first = [0];
        // The first request of a connection has a deadline of its own.
        let may_idle = if persistent.is_none() { Duration::MAX } else { IDLE };
        let arrived = tokio::select! {
            biased;
            arrived = stream.try_peek(&mut first) => arrived,
            () = idle(stopping.clone(), may_idle) => return,
        };
        if !matches!(arrived, Ok(true)) {
            return;
        }
        let mut session = ServerSession::new_http1(stream);
        session.set_keepalive(Some(KEEPALIVE_SECONDS));
        if let Some(persistent) = persistent.take() {
            persistent.apply_to_session(&mut session);
        }
        if *stopping.borrow() {
            session.set_keepalive(None);
        }
        let Some(reused) = app.process_new_http(session, stopping).await else { return };
        (stream, persistent) = reused.consume();
    }
}

/// Resolves when a connection without a request has been so for too long, or the edge stops.
async fn idle(mut stopping: watch::Receiver<bool>, limit: Duration) {
    let limit = tokio::time::sleep(limit);
    let stopped = async move {
        // An error says that the edge is gone.
        drop(stopping.wait_for(|stopping| *stopping).await);
    };
    tokio::select! {
        () = limit => {}
        () = stopped => tokio::time::sleep(FAREWELL).await,
    }
}
