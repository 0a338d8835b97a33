//! HTTP only: a handler authenticates its caller, calls one function of a domain room and answers.
//!
//! One file per page of the specification. [`endpoint`] turns requests into ruma's types and back, [`caller`] holds the
//! extractor types for the different callers, [`error`] is the one place that maps errors to errcodes.

pub mod admin;
pub mod caller;
pub mod client;
mod draining;
pub mod endpoint;
pub mod error;
pub mod federation;
mod gate;
pub mod interactive;
pub mod json;
mod media;
mod metrics;

use axum::Router;

pub use self::{
    draining::Draining,
    endpoint::{Ruma, RumaRouter},
    error::ApiError,
    gate::Gate,
    metrics::HttpMetrics,
};

/// Declares what handlers can ask for with `State(name): State<Type>`; each handler names only what it uses.
macro_rules! api_state {
    ($(#[$meta:meta])* pub struct $name:ident { $(pub $field:ident: $kind:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone)]
        pub struct $name { $(pub $field: $kind),+ }

        $(impl axum::extract::FromRef<$name> for $kind {
            fn from_ref(state: &$name) -> Self {
                state.$field.clone()
            }
        })+
    };
}

api_state! {
    /// The domain rooms that the API speaks to. Each is cheap to clone.
    pub struct ApiState {
        pub accounts: crate::accounts::Accounts,
        pub draining: Draining,
        pub e2ee: crate::e2ee::E2ee,
        pub ephemeral: crate::ephemeral::Ephemeral,
        pub federation: crate::federation::Federation,
        pub media: crate::media::Media,
        pub moderation: crate::moderation::Moderation,
        pub membership: crate::membership::Membership,
        pub rooms: crate::rooms::Rooms,
        pub sync: crate::sync::Syncer,
        pub turn: crate::accounts::Turn,
    }
}

/// The whole HTTP interface of a shard.
pub fn router(state: ApiState, gate: Gate) -> Router {
    let router = Router::new().merge(admin::routes()).merge(client::routes()).merge(federation::routes());
    gate.guard(router.with_state(state))
}
