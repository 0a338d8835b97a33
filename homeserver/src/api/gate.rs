//! Lets through what the edge vouches for, and nothing else; answers what no handler knows.

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use gatehouse_shared::{
    contract::{ClusterSecret, HEALTH_PATH, verify},
    telemetry::TraceParent,
};
use http::StatusCode;
use ruma::ServerName;
use tracing::Instrument;

use super::{ApiError, Draining, HttpMetrics, error::no_space};

/// The check at the shard's door: who holds the cluster's secret may come in.
#[derive(Clone)]
pub struct Gate {
    secret: Arc<ClusterSecret>,
    draining: Draining,
    metrics: HttpMetrics,
    /// Whom users turn to when the server needs its administrator.
    contact: Arc<str>,
}

impl Gate {
    pub fn new(secret: ClusterSecret, draining: Draining, metrics: HttpMetrics, server_name: &ServerName) -> Self {
        Self { secret: Arc::new(secret), draining, metrics, contact: no_space::contact(server_name).into() }
    }

    /// Puts the check before every route of `router`, and the answers for unknown paths and methods behind them.
    pub(super) fn guard(self, router: Router) -> Router {
        let draining = self.draining.clone();
        router
            .fallback(|| async { ApiError::unrecognized() })
            .method_not_allowed_fallback(|| async {
                ApiError::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "M_UNRECOGNIZED",
                    "This endpoint does not know this method",
                )
            })
            .layer(middleware::from_fn_with_state(self, admit))
            .route(HEALTH_PATH, get(move || health(draining.clone())))
    }
}

/// A shard that is about to end takes no new requests: the edge sends them elsewhere, or holds them.
async fn health(draining: Draining) -> (StatusCode, &'static str) {
    if draining.has_begun() { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "ok") }
}

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let forwarded = match verify(&gate.secret, request.method(), request.uri(), request.headers()) {
        Ok(forwarded) => forwarded,
        Err(error) => {
            tracing::warn!(%error, "refused a request that no edge vouches for; is the cluster secret the same on both sides?");
            return ApiError::forbidden("This address answers the edge only; ask the server by its public name")
                .into_response();
        }
    };
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    // The path may hold what its client alone should know, so the route stands for it.
    let span =
        tracing::info_span!("request", request.id = %forwarded.request_id, http.method = %method, http.route = route);
    if let Some(parent) = TraceParent::from_headers(request.headers()) {
        parent.adopt(&span);
    }
    request.extensions_mut().insert(forwarded);
    let response = no_space::complete(next.run(request).instrument(span).await, &gate.contact);
    gate.metrics.answered(&method, route, response.status(), begun.elapsed());
    response
}
