//! The client-server API, one file per page of the specification.

mod account;
mod account_data;
mod capabilities;
mod create_room;
mod devices;
mod filters;
mod login;
mod media;
mod openid;
mod profile;
mod push_rules;
mod registration;
mod room_membership;
mod room_send;
mod tags;
mod unauthenticated_media;
mod versions;

use axum::Router;

use super::ApiState;

/// Every route of the client-server API.
pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .merge(account::routes())
        .merge(account_data::routes())
        .merge(capabilities::routes())
        .merge(create_room::routes())
        .merge(devices::routes())
        .merge(filters::routes())
        .merge(login::routes())
        .merge(media::routes())
        .merge(openid::routes())
        .merge(profile::routes())
        .merge(push_rules::routes())
        .merge(registration::routes())
        .merge(room_membership::routes())
        .merge(room_send::routes())
        .merge(tags::routes())
        .merge(unauthenticated_media::routes())
        .merge(versions::routes())
}
