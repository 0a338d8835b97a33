//! Where the proxy asks whether a request may pass, and tells the jails what shards think of it.

use gatehouse_shared::contract::{ORIGIN, Verdict};
use http::header::AUTHORIZATION;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::admission::jail::Offence;
use crate::admission::{Asking, Refused};
use crate::config::policy::Feed;
use crate::exchange::Exchange;
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
        let (now, now_ms) = (exchange.started.duration_since(self.bans.born), self.bans.now_ms());
        let admitted = self.bans.admission.admit(&exchange.live.rules, asking, now, now_ms);
        if let Err(refused) = admitted {
            self.metrics.refused(refused);
            if matches!(refused, Refused::Limited(_)) {
                self.bans.found(Feed::LimitExceeded, exchange.client);
            }
        }
        admitted
    }

    /// Counts a verdict of the shard, and has the jails hear it.
    pub(crate) fn heed(&self, verdict: &Verdict, session: &Session, response: &ResponseHeader, exchange: &Exchange) {
        self.metrics.verdict(verdict);
        let request = session.req_header();
        let token = || access_token(authorization(request), request.uri.query());
        let (feed, mark) = match verdict {
            Verdict::LoginFailed(_) => (Feed::LoginFailed, None),
            Verdict::BadToken(_) => (Feed::BadToken, token().map(|token| self.bans.admission.mark(token))),
            Verdict::BadSignature(_) => (Feed::BadSignature, None),
            Verdict::RegistrationRefused(_) => (Feed::RegistrationRefused, None),
            Verdict::RateLimited(_) => (Feed::RateLimited, None),
        };
        let server = response.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok()).map(str::to_owned);
        self.bans.report(&Offence { feed, client: exchange.client, server, mark });
    }
}

fn authorization(request: &RequestHeader) -> &str {
    request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
