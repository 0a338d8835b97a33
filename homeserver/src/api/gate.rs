//! Lets through what the edge vouches for, and nothing else; answers what no handler knows.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use gatehouse_shared::contract::{ClusterSecret, HEALTH_PATH, verify};
use tracing::Instrument;

use super::ApiError;

/// The check at the shard's door: who holds the cluster's secret may come in.
#[derive(Clone)]
pub struct Gate {
    secret: Arc<ClusterSecret>,
}

impl Gate {
    pub fn new(secret: ClusterSecret) -> Self {
        Self { secret: Arc::new(secret) }
    }

    /// Puts the check before every route of `router`, and the answers for unknown paths and methods behind them.
    pub(super) fn guard(self, router: Router) -> Router {
        router
            .fallback(|| async { ApiError::unrecognized() })
            .method_not_allowed_fallback(|| async {
                ApiError::new(
                    http::StatusCode::METHOD_NOT_ALLOWED,
                    "M_UNRECOGNIZED",
                    "This endpoint does not know this method",
                )
            })
            .layer(middleware::from_fn_with_state(self, admit))
            .route(HEALTH_PATH, get(|| async { "ok" }))
    }
}

async fn admit(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let forwarded = match verify(&gate.secret, request.method(), request.uri(), request.headers()) {
        Ok(forwarded) => forwarded,
        Err(error) => {
            tracing::warn!(%error, "refused a request that no edge vouches for; is the cluster secret the same on both sides?");
            return ApiError::forbidden("This address answers the edge only; ask the server by its public name")
                .into_response();
        }
    };
    let span = tracing::info_span!(
        "request",
        request.id = %forwarded.request_id,
        http.method = %request.method(),
        http.path = request.uri().path(),
    );
    request.extensions_mut().insert(forwarded);
    next.run(request).instrument(span).await
}
