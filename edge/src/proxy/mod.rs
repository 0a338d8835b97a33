//! The way of one request: admitted, routed, sent to a shard, answered.

use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::contract::ClusterSecret;
use gatehouse_shared::net::client_ip::canonical;
use http::StatusCode;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::access_log::{AccessRecorder, Answered};
use crate::admission::request_class::RequestClass;
use crate::bans::Bans;
use crate::chance::Chance;
use crate::content::answer_cache::{AnswerCache, Document, Looked};
use crate::conversation::{self, Conversation, Patience};
use crate::exchange::Exchange;
use crate::header_deadline;
use crate::live::{Current, Live};
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
pub(crate) mod bridge;
mod carry;
mod examine;
mod relay;
mod through_pingora;

pub(crate) use examine::host_of;
pub(crate) use through_pingora::ThroughPingora;

use carry::is_plain;
use examine::{Next, announced_length};

/// How long a client that was answered may go on sending before it is cut, so that it gets to read the answer.
const DRAIN_ANSWERED: Duration = Duration::from_secs(3);
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

impl Proxy {
    /// Takes a request that is answered without Pingora's proxy: all but those that change the protocol, or go to another
    /// server than a shard.
    pub(crate) fn take(&self, request: &RequestHeader) -> Option<Box<Exchange>> {
        let exchange = Box::new(Exchange::new(self.live.load_full()));
        let host = host_of(request).unwrap_or_default();
        let route = exchange.live.front.routes.find(host, request.uri.path());
        let to_shards = route.is_none_or(|(route, _)| route.backend().is_none());
        (to_shards && is_plain(&request.headers)).then_some(exchange)
    }

    /// Answers a request that was taken, and says when that was done.
    pub(crate) async fn answer(&self, client: &mut impl Conversation, mut exchange: Box<Exchange>) -> Instant {
        self.receive(client, &mut exchange);
        let answered = match self.respond(client, &mut exchange, true).await {
            Ok(true) => Ok(()),
            Ok(false) => Error::e_explain(ErrorType::InternalError, "a request for another server was taken"),
            Err(error) => Err(error),
        };
        if let Err(error) = &answered {
            Box::pin(self.fail(client, error, &mut exchange)).await;
        }
        self.conclude(client, answered.err().as_deref(), &mut exchange)
    }

    /// How long a client may take that asks now.
    pub(crate) fn patience(&self) -> Patience {
        patience(&self.live.load())
    }

    /// The head of a request is there.
    fn receive(&self, client: &mut impl Conversation, exchange: &mut Exchange) {
        header_deadline::header_arrived();
        client.be_patient(patience(&exchange.live));
        if let Some(peer) = client.peer() {
            exchange.client = canonical(peer);
        }
    }

    /// Answers a request; `false` leaves that to Pingora's proxy, as does whoever is not `plain`. What is rare has a place of
    /// its own, so that the usual request does without it.
    async fn respond(&self, client: &mut impl Conversation, exchange: &mut Exchange, plain: bool) -> Result<bool> {
        let reply = match self.examine(client, exchange)? {
            Next::Forward => match self.recall(exchange).await {
                Some(reply) => Some(reply),
                None if plain && exchange.route.is_none() => {
                    self.carry(client, exchange).await?;
                    None
                }
                None => return Ok(false),
            },
            Next::Reply(reply) => Some(reply),
            Next::File(route) => {
                Box::pin(routed::send_file(client, &route, &exchange.live.front, &exchange.host)).await?
            }
        };
        if let Some(reply) = reply {
            Box::pin(self.refuse_or_answer(client, reply, exchange)).await?;
        }
        conversation::let_finish(client).await;
        Ok(true)
    }

    /// The request failed for good: says so in Matrix's words, if anything can still be said. Returns the status.
    async fn fail(&self, client: &mut impl Conversation, error: &Error, exchange: &mut Exchange) -> u16 {
        let reply = if is_answered(client) { None } else { refusal::failure(error, exchange) };
        let status = reply.as_ref().map_or(0, |reply| reply.status().as_u16());
        if status >= 500 {
            warn!(request.id = %exchange.request_id, %error, status, "a request failed");
        }
        client.end_connection();
        if let Some(reply) = reply
            && self.refuse_or_answer(client, reply, exchange).await.is_ok()
        {
            conversation::let_finish(client).await;
        }
        status
    }

    /// Counts and logs a request that is over, and says when that was.
    fn conclude(&self, client: &impl Conversation, error: Option<&Error>, exchange: &mut Exchange) -> Instant {
        header_deadline::header_expected();
        let status = client.status().map(|status| status.as_u16());
        let now = Instant::now();
        let took = now.duration_since(exchange.started);
        self.metrics.answered(exchange.class, status, took);
        if let Some(status) = status {
            exchange.span.record("http.response.status_code", status);
        }
        let request = client.request();
        // A long poll takes as long as its client likes, and a path that is not there is nobody's endpoint.
        let is_endpoint = exchange.passage.is_some() && status.is_some_and(|status| !matches!(status, 404 | 405));
        if is_endpoint && exchange.class != RequestClass::Sync {
            self.routes.answered(request.uri.path(), took, now);
        }
        self.access_log.record(&exchange.live, client, || Answered {
            client: exchange.client,
            took,
            class: exchange.class,
            shard: exchange.shard().map_or("", |shard| shard.name()),
            attempts: exchange.attempts,
            request_id: exchange.request_id.as_str(),
        });
        debug!(
            request.id = %exchange.request_id,
            client = %exchange.client,
            method = %request.method,
            path = request.uri.path(),
            status,
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            attempts = exchange.attempts,
            error = error.map(tracing::field::display),
            "request"
        );
        now
    }

    /// The answer to a request for a document that the edge keeps, if it has it.
    async fn recall(&self, exchange: &mut Exchange) -> Option<Reply> {
        let document = exchange.document?;
        Box::pin(self.look_up(document, exchange)).await
    }

    async fn look_up(&self, document: Document, exchange: &mut Exchange) -> Option<Reply> {
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

    /// Writes the answer; what a client that is refused still sends is not taken for its next request.
    async fn refuse_or_answer(
        &self,
        client: &mut impl Conversation,
        mut reply: Reply,
        exchange: &Exchange,
    ) -> Result<()> {
        if reply.status().is_client_error() && !client.is_body_done() {
            client.end_connection();
        }
        for (name, value) in exchange.live.front.security.of(Kind::Matrix, &exchange.host) {
            reply = reply.with(name.clone(), value.clone());
        }
        reply.send(client).await
    }
}

fn patience(live: &Live) -> Patience {
    let idle = Some(live.body_idle);
    let write = live.pace.map_or(idle, |pace| Some(pace.longest_write()));
    Patience { read: idle, write, drain: DRAIN_ANSWERED }
}

/// Whether a final answer has begun: `100 Continue` is none, `101 Switching Protocols` is one.
fn is_answered(client: &impl Conversation) -> bool {
    client.status().is_some_and(|status| !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS)
}
