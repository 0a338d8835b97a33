//! Where the proxy asks whether a request may pass, and tells the jails what shards think of it.

use gatehouse_shared::contract::{ORIGIN, Verdict};
use http::header::AUTHORIZATION;
use pingora_http::RequestHeader;

use crate::admission::jail::Offence;
use crate::admission::{Asking, Refused};
use crate::answer_head::AnswerHead;
use crate::config::policy::Feed;
use crate::conversation::Conversation;
use crate::exchange::Exchange;
use crate::pace::Awaited;
use crate::proxy::Proxy;
use crate::routing::route_table::{access_token, x_matrix_origin};

impl Proxy {
    /// Whether the policy lets the request pass; charges its buckets.
    pub(crate) fn admit(&self, request: &RequestHeader, exchange: &Exchange) -> Result<(), Refused> {
        let asking = Asking {
            client: exchange.client,
            class: exchange.class,
            token: access_token(authorization(request), request.uri.query()),
            origin: x_matrix_origin(authorization(request)),
        };
        let now = exchange.started.duration_since(self.bans.born);
        let admitted = self.bans.admission.admit(&exchange.live.rules, asking, now, || self.bans.now_ms());
        if let Err(refused) = admitted {
            self.metrics.refused(refused);
            if matches!(refused, Refused::Limited(_)) {
                self.bans.found(Feed::LimitExceeded, exchange.client);
            }
        }
        admitted
    }

    /// A shard is there to take the body: from now on the client has to send it.
    pub(crate) fn await_body(&self, client: &mut impl Conversation, exchange: &mut Exchange) {
        if client.is_body_done() {
            return;
        }
        exchange.rests();
        if let Some(pace) = exchange.live.pace.filter(|_| exchange.awaited.is_none()) {
            // HTTP/1.1 has a limit on the wait for the next bytes; a stream of HTTP/2 has none, and shares its connection.
            exchange.awaited = Some(Awaited::new(pace, client.shared_connection()));
        }
    }

    /// Whether the body still comes fast enough, with so many more bytes and perhaps its end.
    pub(crate) fn keeps_pace(&self, bytes: usize, end: bool, exchange: &mut Exchange) -> bool {
        let keeps_pace = exchange.awaited.as_ref().is_none_or(|awaited| awaited.receive(bytes));
        if !keeps_pace {
            self.bans.found(Feed::SlowBody, exchange.client);
        }
        if end || !keeps_pace {
            exchange.awaited = None;
        }
        if end {
            exchange.works();
        }
        keeps_pace
    }

    /// Counts a verdict of the shard, and has the jails hear it.
    pub(crate) fn heed(&self, verdict: &Verdict, request: &RequestHeader, response: &AnswerHead, exchange: &Exchange) {
        self.metrics.verdict(verdict);
        let token = || access_token(authorization(request), request.uri.query());
        let (feed, mark) = match verdict {
            Verdict::LoginFailed(_) => (Feed::LoginFailed, None),
            Verdict::BadToken(_) => (Feed::BadToken, token().map(|token| self.bans.admission.mark(token))),
            Verdict::BadSignature(_) => (Feed::BadSignature, None),
            Verdict::RegistrationRefused(_) => (Feed::RegistrationRefused, None),
            Verdict::RateLimited(_) => (Feed::RateLimited, None),
        };
        let server = Some(response.fields.text(&ORIGIN)).filter(|origin| !origin.is_empty()).map(str::to_owned);
        self.bans.report(&Offence { feed, client: exchange.client, server, mark });
    }
}

fn authorization(request: &RequestHeader) -> &str {
    request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
