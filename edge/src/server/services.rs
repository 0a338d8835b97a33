//! What answers on each listener.

use std::net::SocketAddr;
use std::sync::Arc;

use gatehouse_shared::contract::ClusterSecret;
use pingora_core::apps::ServerApp as _;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::StartError;
use super::application::{Everything, Plain};
use super::listeners::{Listeners, Listening};
use crate::access_log::AccessRecorder;
use crate::bans::Bans;
use crate::chance::Chance;
use crate::config::EdgeConfig;
use crate::content::answer_cache::AnswerCache;
use crate::listener::application::Application;
use crate::listener::endpoint::{Endpoint, Shared};
use crate::listener::tickets::Tickets;
use crate::listener::tls;
use crate::live::Current;
use crate::metrics::{Connections, Metrics};
use crate::proxy::Proxy;
use crate::redirect::RedirectToHttps;
use crate::routing::listener_role::Role;
use crate::shedding::Shedding;
use crate::status::routes::Routes;
use crate::supply::Supply;
use crate::upstream::pool::Pool;
use crate::upstream::retry_budget::RetryBudget;

/// The applications behind the listeners.
pub(super) struct Services {
    everything: Arc<Everything>,
    /// For the addresses of federation.
    for_servers: Arc<Everything>,
    /// For the addresses in the clear.
    redirect: Arc<Plain<RedirectToHttps>>,
    tls: Arc<ServerConfig>,
}

impl Services {
    pub(super) fn new(
        config: &EdgeConfig,
        parts: &Parts,
        supply: &Supply,
        listening: &Listening,
        tickets: Arc<Tickets>,
        seed: u64,
    ) -> Result<Self, StartError> {
        let proxy_for = |role, seed| parts.proxy(config, role, seed).map(Everything::new).map(Arc::new);
        let redirect = RedirectToHttps {
            first_port: listening.https.first().map_or(443, SocketAddr::port),
            live: parts.live.clone(),
            tokens: supply.tokens(),
            access_log: parts.access_log.clone(),
        };
        Ok(Self {
            everything: proxy_for(Role::Everything, seed)?,
            for_servers: proxy_for(Role::Federation, seed.wrapping_add(1))?,
            redirect: Arc::new(Plain::new(redirect)),
            tls: tls::server_config(supply.certificates(), tickets),
        })
    }

    /// Accepts on every listener, in tasks of `accepting`.
    pub(super) fn accept(
        &self,
        listeners: Listeners,
        supply: &Supply,
        metrics: &Metrics,
        shared: &Shared,
        accepting: &TaskTracker,
    ) {
        let Listeners { https, federation, http, internal, .. } = listeners;
        let endpoint = |name| metrics.listener(name);
        let tls = Some(&self.tls);
        accept_on(https, &self.everything, tls, endpoint("https"), shared, accepting);
        accept_on(federation, &self.for_servers, tls, endpoint("federation"), shared, accepting);
        accept_on(http, &self.redirect, None, endpoint("http"), shared, accepting);
        for (configured, listener) in internal {
            if let Some(tls) = supply.mutual_tls(configured) {
                accept_on(vec![listener], &self.everything, Some(&tls), endpoint("internal"), shared, accepting);
            }
        }
    }

    /// After the last connection.
    pub(super) async fn cleanup(&self) {
        self.everything.pingora().cleanup().await;
        self.for_servers.pingora().cleanup().await;
        self.redirect.pingora().cleanup().await;
    }
}

/// What the proxies of all listeners share.
pub(super) struct Parts {
    pub(super) live: Current,
    pub(super) pool: Arc<Pool>,
    pub(super) retries: Arc<RetryBudget>,
    pub(super) overload: Arc<Shedding>,
    pub(super) bans: Arc<Bans>,
    pub(super) kept: Arc<AnswerCache>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access_log: AccessRecorder,
    pub(super) routes: Arc<Routes>,
    pub(super) exports_spans: bool,
}

impl Parts {
    fn proxy(&self, config: &EdgeConfig, role: Role, seed: u64) -> Result<Proxy, StartError> {
        Ok(Proxy {
            role,
            live: self.live.clone(),
            pool: self.pool.clone(),
            retries: self.retries.clone(),
            overload: self.overload.clone(),
            kept: self.kept.clone(),
            bans: self.bans.clone(),
            secret: ClusterSecret::new(&config.upstream.cluster_secret).ok_or(StartError::ClusterSecret)?,
            metrics: self.metrics.clone(),
            access_log: self.access_log.clone(),
            routes: self.routes.clone(),
            chance: Chance::seeded(seed),
            exports_spans: self.exports_spans,
        })
    }
}

fn accept_on<A: Application>(
    listeners: Vec<TcpListener>,
    app: &Arc<A>,
    tls: Option<&Arc<ServerConfig>>,
    metrics: Connections,
    shared: &Shared,
    accepting: &TaskTracker,
) {
    let endpoint = Arc::new(Endpoint { app: app.clone(), tls: tls.cloned(), metrics, shared: shared.clone() });
    for listener in listeners {
        accepting.spawn(endpoint.clone().accept(listener));
    }
}
