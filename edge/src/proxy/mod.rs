//! The way of one request: admitted, routed, sent to a shard, answered. Pingora calls these in this order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::net::client_ip::canonical;
use http::StatusCode;
use http::header::UPGRADE;
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::access_log::{AccessRecorder, Answered};
use crate::admission::request_class::RequestClass;
use crate::bans::Bans;
use crate::chance::Chance;
use crate::content::answer_cache::{AnswerCache, Looked};
use crate::exchange::Exchange;
use crate::header_deadline;
use crate::live::Current;
use crate::metrics::Metrics;
use crate::refusal;
use crate::reply::Reply;
use crate::routed;
use crate::routing::listener_role::Role;
use crate::routing::security_headers::Kind;
use crate::shedding::Shedding;
use crate::status::routes::Routes;
use crate::upstream::pool::Pool;
use crate::upstream::retry_budget::RetryBudget;

mod answer;
mod attempt;
mod carry;
mod examine;

pub(crate) use examine::host_of;

use answer::finish_piece;
use carry::is_plain;
use examine::{Next, announced_length};

/// How long a client that was refused may go on sending before it is cut, so that it gets to read the refusal.
const DRAIN_REFUSED: Duration = Duration::from_secs(3);
/// How long a request waits before it asks a crowded shard again.
const CROWDED_PAUSE: Duration = Duration::from_millis(5);

/// What the endpoints with TLS do with a request.
pub(crate) struct Proxy {
    /// What the listeners in front of it are for.
    pub(crate) role: Role,
    /// Taken once by each request.
    pub(crate) live: Current,
    pub(crate) pool: Arc<Pool>,
    pub(crate) retries: Arc<RetryBudget>,
    pub(crate) overload: Arc<Shedding>,
    pub(crate) kept: Arc<AnswerCache>,
    pub(crate) secret: ClusterSecret,
    pub(crate) bans: Arc<Bans>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) chance: Chance,
    pub(crate) access_log: AccessRecorder,
    pub(crate) routes: Arc<Routes>,
    /// Whether a span of each request is worth its price.
    pub(crate) exports_spans: bool,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.live.load_full())
    }

    /// None: the default would compress everything.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        header_deadline::header_arrived();
        let idle = Some(exchange.live.body_idle);
        session.set_read_timeout(idle);
        session.set_write_timeout(exchange.live.pace.map_or(idle, |pace| Some(pace.longest_write())));
        session.set_total_drain_timeout(Some(DRAIN_REFUSED));
        Ok(())
    }

    /// Answers what the edge answers itself; `true` says that it did.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        exchange.started = Instant::now();
        if let Some(address) = session.client_addr().and_then(|address| address.as_inet()) {
            exchange.client = canonical(address.ip());
        }
        let reply = match self.examine(session, exchange)? {
            Next::Forward => match self.recall(exchange).await {
                Some(reply) => Some(reply),
                None if exchange.route.is_none() && is_plain(&session.req_header().headers) => {
                    self.carry(session, exchange).await?;
                    return Ok(true);
                }
                None => return Ok(false),
            },
            Next::Reply(reply) => Some(reply),
            Next::File(route) => routed::send_file(session, &route, &exchange.live.front, &exchange.host).await?,
        };
        if let Some(reply) = reply {
            self.refuse_or_answer(session, reply, exchange).await?;
        }
        Ok(true)
    }

    /// For what Pingora brings on its way: a server of a configured route, or a shard with which a protocol is changed.
    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        self.begin_attempt(exchange);
        let upgrades = session.req_header().headers.contains_key(UPGRADE);
        self.choose_peer(upgrades, exchange).await
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        exchange: &mut Exchange,
    ) -> Result<()> {
        // What a WebSocket sends is no body.
        if session.was_upgraded() {
            return Ok(());
        }
        self.pass_body(body.as_ref().map_or(0, Bytes::len), end, exchange)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.await_body(session, exchange);
        match (&exchange.vouched, &exchange.announced, &exchange.route) {
            (Some(vouched), ..) => vouched.put_on(request),
            (None, Some(announced), Some(route)) => {
                announced.put_on(request)?;
                if route.strip_prefix {
                    routed::strip_prefix(&exchange.live.front, &exchange.host, request)?;
                }
                route.on_requests.edit_request(request)
            }
            _ => Error::e_explain(ErrorType::InternalError, "a request was routed before it was examined"),
        }
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.judge_answer(response, exchange)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()>
    where
        Self::CTX: Send + Sync,
    {
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            // A WebSocket may be silent for as long as both sides like.
            session.set_read_timeout(None);
        }
        self.finish_answer(session, response, exchange)
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        ends: bool,
        exchange: &mut Exchange,
    ) -> Result<Option<Duration>>
    where
        Self::CTX: Send + Sync,
    {
        if !session.was_upgraded() {
            finish_piece(body, ends, exchange)?;
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Exchange,
        error: Box<Error>,
    ) -> Box<Error> {
        self.note_unreachable(exchange, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        self.note_interrupted(session, exchange, error, reused)
    }

    /// The request failed for good: says so in Matrix's words, if anything can still be said.
    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy
    where
        Self::CTX: Send + Sync,
    {
        let reply = if is_answered(session) { None } else { refusal::failure(error, exchange) };
        let error_code = reply.as_ref().map_or(0, |reply| reply.status().as_u16());
        if error_code >= 500 {
            warn!(request.id = %exchange.request_id, %error, status = error_code, "a request failed");
        }
        if let Some(reply) = reply {
            session.set_keepalive(None);
            // A client that is gone has no use for the answer.
            let _ = self.refuse_or_answer(session, reply, exchange).await;
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange)
    where
        Self::CTX: Send + Sync,
    {
        header_deadline::header_expected();
        let status = session.response_written().map(|response| response.status.as_u16());
        let took = exchange.started.elapsed();
        self.metrics.answered(exchange.class, status, took);
        if let Some(status) = status {
            exchange.span.record("http.response.status_code", status);
        }
        // A long poll takes as long as its client likes, and a path that is not there is nobody's endpoint.
        let is_endpoint = exchange.passage.is_some() && status.is_some_and(|status| !matches!(status, 404 | 405));
        if is_endpoint && exchange.class != RequestClass::Sync {
            self.routes.answered(session.req_header().uri.path(), took, Instant::now());
        }
        self.access_log.record(&exchange.live, session, || Answered {
            client: exchange.client,
            took,
            class: exchange.class,
            shard: exchange.shard().map_or("", |shard| shard.name()),
            attempts: exchange.attempts,
            request_id: &exchange.request_id,
        });
        debug!(
            request.id = %exchange.request_id,
            client = %exchange.client,
            method = %session.req_header().method,
            path = session.req_header().uri.path(),
            status,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            attempts = exchange.attempts,
            error = error.map(tracing::field::display),
            "request"
        );
    }

    /// Logged once, by `fail_to_proxy` and `logging`.
    fn suppress_error_log(&self, _session: &Session, _exchange: &Exchange, _error: &Error) -> bool {
        true
    }

    /// Counted by `upstream_peer`.
    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _exchange: &Exchange,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

impl Proxy {
    /// The answer to a request for a document that the edge keeps, if it has it.
    async fn recall(&self, exchange: &mut Exchange) -> Option<Reply> {
        let document = exchange.document?;
        let live = &exchange.live;
        let no_shard = self.pool.find(exchange.key).is_none();
        match self.kept.look(document, live.front.lifetimes, live.hold, no_shard).await {
            Looked::Kept(body) => {
                self.metrics.from_memory.inc();
                Some(Reply::kept(body))
            }
            Looked::Fetch(fetching) => {
                exchange.fetching = Some(fetching);
                None
            }
            Looked::Pass => None,
        }
    }

    /// So many bytes of the body came, and perhaps its end: whether they may go on.
    fn pass_body(&self, bytes: usize, end: bool, exchange: &mut Exchange) -> Result<()> {
        if !self.keeps_pace(bytes, end, exchange) {
            return Error::e_explain(ErrorType::HTTPStatus(408), "the body comes too slowly");
        }
        if !exchange.pass_body(bytes) {
            return Error::e_explain(ErrorType::HTTPStatus(413), "the body is larger than its class allows");
        }
        Ok(())
    }

    /// Writes the answer, then lets a client that is still sending finish or be cut, so that it reads the answer first.
    async fn refuse_or_answer(&self, session: &mut Session, mut reply: Reply, exchange: &Exchange) -> Result<()> {
        let refused = reply.status().is_client_error() && !session.is_body_done();
        if refused {
            session.set_keepalive(None);
        }
        for (name, value) in exchange.live.front.security.of(Kind::Matrix, &exchange.host) {
            reply = reply.with(name.clone(), value.clone());
        }
        reply.send(session).await?;
        if refused {
            // Either it stops sending or its time is up: both end the connection.
            let _ = session.drain_request_body().await;
        }
        Ok(())
    }
}

/// Whether a final answer has begun: `100 Continue` is none, `101 Switching Protocols` is one.
fn is_answered(session: &Session) -> bool {
    let written = session.response_written().map(|response| response.status);
    written.is_some_and(|status| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS)
}
