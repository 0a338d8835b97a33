//! The server-server API, one file per page of the specification.

use axum::Router;

use super::ApiState;

/// Every route of the server-server API.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
}
