//! What is made of an answer on its way to the client.

use bytes::Bytes;
use gatehouse_shared::contract::{VERDICT, Verdict};
use http::StatusCode;
use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tracing::warn;

use super::Proxy;
use crate::admission::request_class::RequestClass;
use crate::answer_head::AnswerHead;
use crate::exchange::Exchange;
use crate::front::Route;
use crate::reply::allow_browsers;
use crate::routing::security_headers::Kind;
use crate::upstream::headers::strip_answer;

impl Proxy {
    /// What an answer says about its shard. One that is well but cannot serve now (its database is away, say) answers 503:
    /// clients get 429.
    pub(super) fn judge_answer(&self, status: StatusCode, retry_after: &str, exchange: &mut Exchange) -> Result<()> {
        let Some(shard) = exchange.shard() else { return Ok(()) };
        if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
            self.pool.note_failure(shard);
        } else {
            shard.note_success();
        }
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return Ok(());
        }
        exchange.retry_after = retry_after.parse().ok();
        Error::e_explain(ErrorType::HTTPStatus(429), "the shard cannot serve now")
    }

    /// Makes the head of an answer that of the edge's answer.
    pub(super) fn finish_answer(&self, request: &RequestHeader, response: &mut AnswerHead, exchange: &mut Exchange) {
        if let Some(route) = exchange.route.clone() {
            return finish_routed(&route, request, response, exchange);
        }
        if response.fields.contains(&VERDICT) {
            let verdict = response.fields.text(&VERDICT);
            match Verdict::parse(verdict) {
                Some(verdict) => self.heed(&verdict, request, response, exchange),
                None => warn!(verdict, "a shard gave a verdict that this version does not know"),
            }
        }
        strip_answer(response);
        let for_browsers = exchange.class != RequestClass::Federation && !response.status.is_informational();
        if for_browsers && !response.fields.contains(&ACCESS_CONTROL_ALLOW_ORIGIN) {
            allow_browsers(response);
        }
        if !response.status.is_informational() {
            exchange.answered();
            if exchange.fetching.as_mut().is_some_and(|fetching| !fetching.header(response)) {
                // Whoever waits for it need not wait any longer.
                exchange.fetching = None;
            }
            put_security_headers(security_kind(exchange.class), exchange, response);
            if exchange.class != RequestClass::Media {
                exchange.encoder = exchange.live.front.compression.begin(request, response);
            }
        }
    }
}

/// Makes a piece of an answer that of the edge's answer; it may still be nothing.
pub(super) fn finish_piece(piece: &mut Option<Bytes>, ends: bool, exchange: &mut Exchange) -> Result<()> {
    if let Some(fetching) = &mut exchange.fetching {
        fetching.body(piece.as_ref(), ends);
    }
    if let Some(encoder) = &mut exchange.encoder {
        encoder.encode(piece, ends)?;
    }
    Ok(())
}

fn security_kind(class: RequestClass) -> Kind {
    if class == RequestClass::Media { Kind::Media } else { Kind::Matrix }
}

/// What another server answers is its own, but for what the configuration and the contract say.
fn finish_routed(route: &Route, request: &RequestHeader, response: &mut AnswerHead, exchange: &mut Exchange) {
    strip_answer(response);
    if !response.status.is_informational() {
        put_security_headers(Kind::Foreign, exchange, response);
        route.on_answers.edit_answer(response);
        exchange.encoder = exchange.live.front.compression.begin(request, response);
    }
}

fn put_security_headers(kind: Kind, exchange: &Exchange, response: &mut AnswerHead) {
    for (name, value) in exchange.live.front.security.of(kind, &exchange.host) {
        if !response.fields.contains(name) {
            response.fields.append(name.clone(), value.clone());
        }
    }
}
