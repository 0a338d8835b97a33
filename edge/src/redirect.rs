//! What the endpoints in the clear do: answer an authority's challenge, and send every other request to HTTPS, unread.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gatehouse_shared::net::client_ip::canonical;
use http::{HeaderValue, StatusCode};
use pingora_core::modules::http::HttpModules;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_proxy::{ProxyHttp, Session};

use crate::access_log::{AccessRecorder, Answered};
use crate::acme::challenge::http::Tokens;
use crate::admission::request_class::RequestClass;
use crate::admission::request_shape;
use crate::header_deadline;
use crate::live::Current;
use crate::proxy::host_of;
use crate::reply::Reply;
use crate::routing::routes::without_port;

const DRAIN: Duration = Duration::from_secs(1);

/// Redirects to HTTPS.
pub(crate) struct RedirectToHttps {
    /// The port of the first address with TLS, for a server without a base URL.
    pub(crate) first_port: u16,
    pub(crate) live: Current,
    pub(crate) access_log: AccessRecorder,
    /// Challenges that are answered here, because an authority looks for them in the clear.
    pub(crate) tokens: Arc<Tokens>,
}

#[async_trait]
impl ProxyHttp for RedirectToHttps {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, (): &mut ()) -> Result<()> {
        header_deadline::header_arrived();
        // What a client sends in the clear is not read.
        session.set_total_drain_timeout(Some(DRAIN));
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        let request = session.req_header();
        if let Some(authorization) = self.tokens.find(request.uri.path()) {
            Reply::text(authorization).send(&mut *session.downstream_session).await?;
            return Ok(true);
        }
        let host = host_of(request);
        let reply = match request_shape::check(request.raw_path(), host, &request.headers, usize::MAX) {
            Ok(()) => {
                let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
                let port = self.live.load().public_port.unwrap_or(self.first_port);
                location(port, host.unwrap_or_default(), target).map(Reply::redirect)
            }
            Err(_) => None,
        };
        let misshapen = || Reply::error(StatusCode::BAD_REQUEST, "M_UNRECOGNIZED", "Speak HTTPS to this server");
        reply.unwrap_or_else(misshapen).send(&mut *session.downstream_session).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Error::e_explain(ErrorType::InternalError, "a request in the clear has no shard")
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, (): &mut ())
    where
        Self::CTX: Send + Sync,
    {
        header_deadline::header_expected();
        let address = session.client_addr().and_then(|address| address.as_inet());
        let client = address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| canonical(address.ip()));
        self.access_log.record(&self.live.load(), &*session.downstream_session, || Answered {
            client,
            took: Duration::ZERO,
            class: RequestClass::Other,
            shard: "",
            attempts: 0,
            request_id: "",
        });
    }
}

fn location(port: u16, host: &str, target: &str) -> Option<HeaderValue> {
    let host = without_port(host);
    let url = match port {
        443 => format!("https://{host}{target}"),
        port => format!("https://{host}:{port}{target}"),
    };
    HeaderValue::from_str(&url).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_keeps_host_and_target() {
        let at = |port, host| location(port, host, "/a//b?c=%2F").unwrap();
        assert_eq!(at(443, "example.org:80"), "https://example.org/a//b?c=%2F");
        assert_eq!(at(8443, "example.org"), "https://example.org:8443/a//b?c=%2F");
        assert_eq!(at(8443, "[::1]:8080"), "https://[::1]:8443/a//b?c=%2F");
        assert_eq!(at(443, "[::1]"), "https://[::1]/a//b?c=%2F");
    }
}
