//! The applications behind the listeners, and what is set on Pingora's proxy.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use gatehouse_shared::limits::MAX_REQUEST_HEADER_BYTES;
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora_core::server::configuration::ServerConf;
use pingora_http::RequestHeader;
use pingora_proxy::{HttpProxy, ProxyHttp};

use crate::conversation::Conversation;
use crate::exchange::Exchange;
use crate::listener::application::Application;
use crate::proxy::{Proxy, ThroughPingora};

/// An idle HTTP/2 connection is closed after this time; Pingora's own default is never.
const H2_IDLE: Duration = Duration::from_secs(300);
/// Attempts of one request. The time a request may wait is what ends it; this only keeps a mistake from looping.
const MAX_ATTEMPTS: usize = 1_000;
const UPSTREAM_KEEPALIVE: usize = 512;

/// Answers most requests itself, and the rest through Pingora.
pub(super) struct Everything {
    proxy: Arc<Proxy>,
    pingora: Arc<HttpProxy<ThroughPingora>>,
}

impl Everything {
    pub(super) fn new(proxy: Proxy) -> Self {
        let proxy = Arc::new(proxy);
        Self { pingora: Arc::new(with_pingora(ThroughPingora(proxy.clone()))), proxy }
    }
}

impl Application for Everything {
    type Taken = Box<Exchange>;
    type Pingora = HttpProxy<ThroughPingora>;

    fn take(&self, request: &RequestHeader) -> Option<Box<Exchange>> {
        self.proxy.take(request)
    }

    fn answer(&self, client: &mut impl Conversation, taken: Box<Exchange>) -> impl Future<Output = ()> + Send {
        self.proxy.answer(client, taken)
    }

    fn pingora(&self) -> &Arc<Self::Pingora> {
        &self.pingora
    }
}

/// Leaves everything to Pingora.
pub(super) struct Plain<P>(Arc<HttpProxy<P>>);

impl<P: ProxyHttp> Plain<P> {
    pub(super) fn new(inner: P) -> Self {
        Self(Arc::new(with_pingora(inner)))
    }
}

impl<P: ProxyHttp + Send + Sync + 'static> Application for Plain<P>
where
    P::CTX: Send + Sync,
{
    type Taken = Infallible;
    type Pingora = HttpProxy<P>;

    fn take(&self, _request: &RequestHeader) -> Option<Infallible> {
        None
    }

    async fn answer(&self, _client: &mut impl Conversation, taken: Infallible) {
        match taken {}
    }

    fn pingora(&self) -> &Arc<Self::Pingora> {
        &self.0
    }
}

fn with_pingora<P: ProxyHttp>(inner: P) -> HttpProxy<P> {
    let conf = ServerConf {
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        upstream_keepalive_pool_size: UPSTREAM_KEEPALIVE,
        max_retries: MAX_ATTEMPTS,
        ..ServerConf::default()
    };
    let mut application = HttpProxy::new(inner, Arc::new(conf));
    application.handle_init_modules();
    application.h2_options = Some(h2_options());
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(H2_IDLE);
    application.server_options = Some(options);
    application
}

/// Pingora's bound on streams, our own on headers, and windows that do not throttle uploads.
fn h2_options() -> H2Options {
    let mut options = default_h2_options();
    // HTTP/2 counts 32 bytes for each field beside its name and value (RFC 9113, section 10.5.1).
    options.max_header_list_size(2 * MAX_REQUEST_HEADER_BYTES as u32);
    options.initial_window_size(256 * 1024);
    options.initial_connection_window_size(1024 * 1024);
    options
}
