//! The client-server API, one file per page of the specification.

mod account;
mod account_data;
mod capabilities;
mod create_room;
mod cross_signing;
mod devices;
mod filters;
mod key_backup;
mod keys;
mod login;
mod media;
mod openid;
mod presence;
mod profile;
mod push_rules;
mod read_markers;
mod receipts;
mod registration;
mod room_membership;
mod room_send;
mod tags;
mod to_device;
mod typing;
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
        .merge(cross_signing::routes())
        .merge(devices::routes())
        .merge(filters::routes())
        .merge(key_backup::routes())
        .merge(keys::routes())
        .merge(login::routes())
        .merge(media::routes())
        .merge(openid::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(push_rules::routes())
        .merge(read_markers::routes())
        .merge(receipts::routes())
        .merge(registration::routes())
        .merge(room_membership::routes())
        .merge(room_send::routes())
        .merge(tags::routes())
        .merge(unauthenticated_media::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
        .merge(versions::routes())
}
