//! The client-server API, one file per page of the specification.

mod account;
mod account_data;
mod capabilities;
mod create_room;
mod cross_signing;
mod devices;
mod directory;
mod event_context;
mod filters;
mod key_backup;
mod keys;
mod list_joined_rooms;
mod list_public_rooms;
mod login;
pub(in crate::api) mod media;
mod message_pagination;
mod openid;
mod presence;
mod profile;
mod push_rules;
mod read_markers;
mod receipts;
mod registration;
mod relations;
mod report_content;
mod room_event_by_timestamp;
mod room_membership;
mod room_send;
mod rooms;
mod sync;
mod tags;
mod third_party_lookup;
mod threads_list;
mod to_device;
mod typing;
mod unauthenticated_media;
mod users;
mod versions;
mod voip;

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
        .merge(directory::routes())
        .merge(event_context::routes())
        .merge(filters::routes())
        .merge(key_backup::routes())
        .merge(keys::routes())
        .merge(list_joined_rooms::routes())
        .merge(list_public_rooms::routes())
        .merge(login::routes())
        .merge(media::routes())
        .merge(message_pagination::routes())
        .merge(openid::routes())
        .merge(presence::routes())
        .merge(profile::routes())
        .merge(push_rules::routes())
        .merge(read_markers::routes())
        .merge(receipts::routes())
        .merge(registration::routes())
        .merge(relations::routes())
        .merge(report_content::routes())
        .merge(room_event_by_timestamp::routes())
        .merge(room_membership::routes())
        .merge(room_send::routes())
        .merge(rooms::routes())
        .merge(sync::routes())
        .merge(tags::routes())
        .merge(third_party_lookup::routes())
        .merge(threads_list::routes())
        .merge(to_device::routes())
        .merge(typing::routes())
        .merge(unauthenticated_media::routes())
        .merge(users::routes())
        .merge(versions::routes())
        .merge(voip::routes())
}
