//! The server-server API, one file per page of the specification.

mod authenticated;
mod backfill;
mod content_repository;
mod event_auth;
mod events;
mod invites;
mod joins;
mod keys;
mod knocks;
mod leaving;
mod openid;
mod public_rooms;
mod query;
mod transactions;
mod user_devices;
mod user_keys;
mod version;

use axum::{Router, extract::FromRef, middleware};

pub use self::authenticated::{FederationOrigin, SignedRequest};
use super::ApiState;
use crate::federation::Federation;

/// Every route of the server-server API.
pub(super) fn routes() -> Router<ApiState> {
    about_rooms::<ApiState>()
        .merge(content_repository::routes())
        .merge(openid::routes())
        .merge(public_rooms::routes())
        .merge(query::routes())
        .merge(user_devices::routes())
        .merge(user_keys::routes())
        .layer(middleware::from_fn(authenticated::name_origin))
}

/// The routes that rooms are shared through; they need nothing but [`Federation`].
fn about_rooms<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .merge(backfill::routes())
        .merge(event_auth::routes())
        .merge(events::routes())
        .merge(invites::routes())
        .merge(joins::routes())
        .merge(keys::routes())
        .merge(knocks::routes())
        .merge(leaving::routes())
        .merge(transactions::routes())
        .merge(version::routes())
}

/// What two servers need to share rooms, for tests that have no accounts.
#[cfg(test)]
pub(crate) fn rooms_only(federation: Federation) -> Router {
    about_rooms().with_state(federation)
}
