//! Admits a request, and decides who answers it.

use std::net::IpAddr;
use std::sync::Arc;

use gatehouse_shared::contract::Scheme;
use gatehouse_shared::telemetry::TraceParent;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use pingora_error::Result;
use pingora_http::RequestHeader;
use tracing::info_span;

use super::Proxy;
use crate::admission::forwarded_for;
use crate::admission::framing;
use crate::admission::request_shape;
use crate::config::policy::Feed;
use crate::content::answer_cache;
use crate::conversation::Conversation;
use crate::exchange::{Exchange, RequestId};
use crate::front::{Front, Route};
use crate::refusal;
use crate::reply::Reply;
use crate::routed::{self, Routed};
use crate::routing::route_table::{Destination, key, route};
use crate::routing::well_known::Document;
use crate::upstream::headers::{Announced, Facts, Vouched, strip};

/// What is done with a request once it is examined.
pub(super) enum Next {
    /// The edge's own answer.
    Reply(Reply),
    /// A file of a static folder.
    File(Arc<Route>),
    /// A shard's answer, or another server's.
    Forward,
}

impl Proxy {
    /// Admits and routes.
    pub(super) fn examine(&self, client: &mut impl Conversation, exchange: &mut Exchange) -> Result<Next> {
        let live = exchange.live.clone();
        let is_clear = is_clear(client);
        let request = client.request_mut();
        exchange.client = forwarded_for::client(exchange.client, &request.headers, &exchange.live.trusted_proxies);
        strip(request);
        let host = host_of(request);
        let most_fields = live.rules.connections.max_header_fields;
        let shape = request_shape::check(request.raw_path(), host, &request.headers, most_fields);
        if let Err(misshapen) = shape {
            // Nothing more is believed of who writes such requests.
            client.end_connection();
            return Ok(Next::Reply(refusal::misshapen(misshapen)));
        }
        if !is_clear {
            self.bans.found(Feed::Smuggling, exchange.client);
            // What follows its header may be a body or not: nothing more of this connection is read.
            client.end_connection();
            return Ok(Next::Reply(refusal::unclear_framing()));
        }
        exchange.host = host.unwrap_or_default().to_owned();
        let path = request.uri.path();
        exchange.class = live.rules.classes.class(&request.method, path);
        if let Err(refused) = self.admit(request, exchange) {
            return Ok(Next::Reply(refusal::refused(refused)));
        }
        let served = self.role.serves(path);
        if let Some((route, rest)) = live.front.routes.find(&exchange.host, path).filter(|_| served) {
            return match routed::follow(route, request, rest) {
                Routed::Reply(reply) => Ok(Next::Reply(reply)),
                Routed::File(route) => Ok(Next::File(route)),
                Routed::Backend(route) => self.take_past_the_shards(route, request, exchange),
            };
        }
        if request.method == Method::OPTIONS {
            return Ok(Next::Reply(Reply::preflight()));
        }
        if let Some(status) = live.front.admin.refuses(exchange.client, path) {
            return Ok(Next::Reply(refusal::admin(status)));
        }
        let affinity = match route(path) {
            Destination::Shard(affinity) if served => affinity,
            Destination::Document(document) => return Ok(Next::Reply(document_of(&live.front, request, document))),
            Destination::Shard(_) | Destination::Nowhere => return Ok(Next::Reply(refusal::unrecognized())),
        };
        exchange.body_limit = exchange.live.body_limits.of(exchange.class);
        if announced_length(request).is_some_and(|length| length > exchange.body_limit) {
            return Ok(Next::Reply(refusal::too_large(exchange)));
        }
        self.retries.deposit();
        let address = text_of(exchange.client);
        exchange.key = key(affinity, &request.headers, request.uri.query(), &address);
        if let Some(seconds) = self.overload.refuses(&self.pool, request, exchange) {
            let jitter = self.chance.number() % live.config.overload.retry_after_seconds.max(1);
            return Ok(Next::Reply(Reply::busy(seconds + jitter, "The server is busy; try again later")));
        }
        exchange.document = answer_cache::Document::asked_by(request);
        let traceparent = self.identify(request, exchange)?;
        let facts = facts(exchange, request, &traceparent);
        exchange.vouched = Vouched::new(&address, facts, &self.secret);
        Ok(Next::Forward)
    }

    /// Prepares a request for another server.
    fn take_past_the_shards(
        &self,
        route: Arc<Route>,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<Next> {
        exchange.body_limit = route.body_limit;
        if announced_length(request).is_some_and(|length| length > exchange.body_limit) {
            return Ok(Next::Reply(refusal::too_large(exchange)));
        }
        let traceparent = self.identify(request, exchange)?;
        let facts = facts(exchange, request, &traceparent);
        exchange.announced = Announced::new(&exchange.client.to_string(), facts);
        exchange.route = Some(route);
        Ok(Next::Forward)
    }

    /// Gives the request its id and its place in a trace, and its target the form that is passed on.
    fn identify(&self, request: &mut RequestHeader, exchange: &mut Exchange) -> Result<String> {
        if request.raw_path() != target_of(request).as_bytes() {
            // The absolute form of a proxied request: shards get the origin form, which is what is signed.
            let target = target_of(request).to_owned();
            request.set_raw_path(target.as_bytes())?;
        }
        exchange.request_id = RequestId::of(self.chance.number());
        Ok(self.trace(request, exchange).text())
    }

    /// Continues the client's trace or begins one.
    fn trace(&self, request: &RequestHeader, exchange: &mut Exchange) -> TraceParent {
        let parent = TraceParent::from_headers(&request.headers);
        if self.exports_spans {
            exchange.span = info_span!(
                "request",
                otel.kind = "server",
                request.id = %exchange.request_id,
                http.request.method = %request.method,
                url.path = request.uri.path(),
                http.response.status_code = tracing::field::Empty,
            );
            if let Some(parent) = parent {
                parent.adopt(&exchange.span);
            }
            if let Some(own) = TraceParent::of_span(&exchange.span) {
                return own;
            }
        }
        let span_id = self.chance.span_id();
        parent.map_or_else(|| TraceParent::begin(self.chance.trace_id(), span_id), |parent| parent.with_span(span_id))
    }
}

/// An address as text; most are IPv4, and formatting takes its time.
fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else { return address.to_string() };
    let mut text = String::with_capacity("255.255.255.255".len());
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        let digits = [octet / 100, octet / 10 % 10, octet % 10];
        let leading = digits.iter().take(2).take_while(|digit| **digit == 0).count();
        text.extend(digits.into_iter().skip(leading).map(|digit| char::from(b'0' + digit)));
    }
    text
}

/// Whether every reader of the request sees the same end of it.
fn is_clear(client: &impl Conversation) -> bool {
    let request = client.request();
    let raw = request.headers.get(TRANSFER_ENCODING).and_then(|_| client.raw_head());
    framing::is_clear(request.version, &request.headers) && !raw.is_some_and(|raw| framing::names_a_length(&raw))
}

fn facts<'r>(exchange: &'r Exchange, request: &'r RequestHeader, traceparent: &'r str) -> Facts<'r> {
    Facts {
        // Requests in the clear are redirected by another application and never come here.
        scheme: Scheme::Https,
        host: &exchange.host,
        request_id: exchange.request_id.as_str(),
        traceparent,
        method: request.method.as_str(),
        target: target_of(request),
    }
}

/// Path and query.
fn target_of(request: &RequestHeader) -> &str {
    request.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// HTTP/2 names the host in `:authority`, HTTP/1 in `Host`; requests where the two disagree never come here.
pub(crate) fn host_of(request: &RequestHeader) -> Option<&str> {
    let authority = request.uri.authority().map(|authority| authority.as_str());
    let header = || request.headers.get(HOST).and_then(|host| host.to_str().ok());
    authority.or_else(header)
}

pub(super) fn announced_length(request: &RequestHeader) -> Option<u64> {
    request.headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn document_of(front: &Front, request: &RequestHeader, document: Document) -> Reply {
    match (&request.method, front.documents.body_of(document)) {
        (&Method::GET | &Method::HEAD, Some(body)) => Reply::document(body.clone()),
        (&Method::GET | &Method::HEAD, None) => {
            Reply::error(StatusCode::NOT_FOUND, "M_NOT_FOUND", "This server publishes no such document")
        }
        _ => refusal::read_only(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_the_standard_library_does() {
        for octets in [[0, 0, 0, 0], [127, 0, 0, 1], [255, 255, 255, 255], [10, 9, 99, 100], [1, 20, 200, 101]] {
            let address = IpAddr::from(octets);
            assert_eq!(text_of(address), address.to_string());
        }
        assert_eq!(text_of("2001:db8::1".parse().unwrap()), "2001:db8::1");
    }
}
