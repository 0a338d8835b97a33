//! The client-server API, one file per page of the specification.

use axum::Router;

use super::ApiState;

/// Every route of the client-server API.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
}
