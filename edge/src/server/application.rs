//! The applications behind the listeners, and what is set on Pingora's proxy.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::configuration::ServerConf;
use pingora_http::RequestHeader;
use pingora_proxy::{HttpProxy, ProxyHttp};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use crate::conversation::{self, Conversation};
use crate::exchange::Exchange;
use crate::listener::application::Application;
use crate::listener::pipe::pipe;
use crate::proxy::{Proxy, ThroughPingora, bridge};
use crate::upstream::link::Link;

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

    fn answer(&self, client: &mut impl Conversation, taken: Box<Exchange>) -> impl Future<Output = Instant> + Send {
        self.proxy.answer(client, taken)
    }

    /// Pingora's proxy can only be given a session that Pingora has read, so it reads the request in HTTP/1.1, from a pipe.
    async fn answer_through_pingora(&self, client: &mut impl Conversation, stopping: &watch::Receiver<bool>) {
        client.be_patient(self.proxy.patience());
        let (ours, theirs) = pipe(client.peer().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        let mut session = ServerSession::new_http1(Box::new(theirs));
        session.set_keepalive(None);
        let passing = bridge::pass(client, Link::over(ours));
        let (_, passed) = tokio::join!(self.pingora.process_new_http(session, stopping), passing);
        match passed {
            Ok(()) => conversation::let_finish(client).await,
            Err(error) => debug!(%error, "a request ended before its answer"),
        }
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

    async fn answer(&self, _client: &mut impl Conversation, taken: Infallible) -> Instant {
        match taken {}
    }

    /// Never asked: only what is in the clear is served so, and that is HTTP/1.
    async fn answer_through_pingora(&self, _client: &mut impl Conversation, _stopping: &watch::Receiver<bool>) {}

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
    application
}
