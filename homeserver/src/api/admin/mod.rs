//! What operators' tools call: the parts of Synapse's admin API that its own scripts use.

mod register;

use axum::Router;

use super::ApiState;

/// Every route for operators.
pub(super) fn routes() -> Router<ApiState> {
    Router::new().merge(register::routes())
}
