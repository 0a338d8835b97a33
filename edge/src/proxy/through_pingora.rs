//! What of a request's way Pingora's proxy calls, for what goes that way: a change of protocol, or a server of a configured
//! route.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::{RETRY_AFTER, UPGRADE};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::Proxy;
use super::answer::finish_piece;
use super::carry::is_plain;
use crate::answer_head::AnswerHead;
use crate::exchange::Exchange;
use crate::routed;

/// The proxy, as Pingora sees it.
pub(crate) struct ThroughPingora(pub(crate) Arc<Proxy>);

#[async_trait]
impl ProxyHttp for ThroughPingora {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::new(self.0.live.load_full())
    }

    /// None: the default would compress everything.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<()> {
        self.0.receive(&mut *session.downstream_session, exchange);
        Ok(())
    }

    /// Answers what needs no other server; `true` says that it did.
    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let plain = is_plain(&session.req_header().headers);
        self.0.respond(&mut *session.downstream_session, exchange, plain).await
    }

    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        self.0.begin_attempt(exchange);
        let upgrades = session.req_header().headers.contains_key(UPGRADE);
        self.0.choose_peer(upgrades, exchange).await
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
        self.0.pass_body(body.as_ref().map_or(0, Bytes::len), end, exchange)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        self.0.await_body(&mut *session.downstream_session, exchange);
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
        let retry_after = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        self.0.judge_answer(response.status, retry_after.unwrap_or_default(), exchange)
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
        let mut head = AnswerHead::from(response.as_owned_parts());
        self.0.finish_answer(session.req_header(), &mut head, exchange);
        *response = head.into_parts().or_err(ErrorType::InvalidHTTPHeader, "a field of an answer")?.into();
        Ok(())
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
        self.0.note_unreachable(exchange, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Exchange,
        reused: bool,
    ) -> Box<Error> {
        self.0.note_interrupted(&*session.downstream_session, exchange, error, reused)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, exchange: &mut Exchange) -> FailToProxy
    where
        Self::CTX: Send + Sync,
    {
        let error_code = self.0.fail(&mut *session.downstream_session, error, exchange).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, exchange: &mut Exchange)
    where
        Self::CTX: Send + Sync,
    {
        self.0.conclude(&*session.downstream_session, error, exchange);
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
