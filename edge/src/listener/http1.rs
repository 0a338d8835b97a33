//! HTTP/1.1 with one client: one request after the other, and next to nothing in memory while there is none.

use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v1::server::HttpSession;
use tokio::time::Instant;

use super::application::Application;
use super::endpoint::Ends;
use crate::conversation::Conversation;
use crate::header_deadline;
use crate::http1::connection::{Asked, Connection};

/// How long a connection may be without a request once it had one.
const IDLE: Duration = Duration::from_secs(300);
/// How long a client without requests may go on when the edge stops. A request that comes until then is answered.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves `stream` until either side ends it. Once the edge is leaving the next answer is the last one; a connection that is
/// without a request ends when they part.
pub(crate) async fn serve<A: Application>(app: &A, stream: Stream, client: IpAddr, ends: &Ends) {
    let mut connection = Connection::new(stream, client);
    // Both live as long as the connection: made anew for each request, they would cost more than much of the rest.
    let (mut parting, mut timer) = (pin!(ends.parting.ended()), pin!(tokio::time::sleep(IDLE)));
    let mut leaves = false;
    // The first request of a connection has a deadline of its own.
    let mut due = None;
    loop {
        tokio::select! {
            biased;
            arrived = connection.wait() => if !arrived {
                return;
            },
            () = &mut parting, if !leaves => {
                leaves = true;
                timer.as_mut().reset(Instant::now() + FAREWELL);
                due = Some(timer.deadline());
                continue;
            }
            () = &mut timer => {
                let now = Instant::now();
                if due.is_some_and(|due| due <= now) {
                    return;
                }
                timer.as_mut().reset(due.unwrap_or(now + IDLE));
                continue;
            }
        }
        let Some((kept, answered)) = one(app, connection, client, ends).await else { return };
        connection = kept;
        if connection.is_ahead() {
            header_deadline::header_ahead();
        }
        due = Some(answered + IDLE);
    }
}

/// One request and its answer; the connection if it goes on, and when it was answered.
async fn one<A: Application>(
    app: &A,
    connection: Connection,
    client: IpAddr,
    ends: &Ends,
) -> Option<(Connection, Instant)> {
    let mut request = match connection.ask().await {
        Asked::Request(request) => request,
        Asked::Odd(stream, read) => return through_pingora(app, stream, read, client, ends).await,
        Asked::Gone => return None,
    };
    let Some(taken) = app.take(request.request()) else {
        let (stream, read) = request.into_unread();
        return through_pingora(app, stream, read, client, ends).await;
    };
    if ends.leaving.is_over() {
        request.end_connection();
    }
    let answered = app.answer(&mut request, taken).await;
    request.finish().await.map(|connection| (connection, answered))
}

/// Has Pingora read the request again, from its first byte, and answer it.
async fn through_pingora<A: Application>(
    app: &A,
    stream: Stream,
    read: BytesMut,
    client: IpAddr,
    ends: &Ends,
) -> Option<(Connection, Instant)> {
    let mut session = HttpSession::new(stream);
    session.set_pipelined_prefix(read);
    let mut session = ServerSession::H1(session);
    session.set_keepalive((!ends.leaving.is_over()).then_some(IDLE.as_secs()));
    let reused = app.pingora().process_new_http(session, &ends.stopping).await?;
    Some((Connection::new(reused.consume().0, client), Instant::now()))
}
