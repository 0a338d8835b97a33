//! What clients may count on beyond the versions.

use axum::Router;
use ruma::api::client::discovery::get_capabilities::v3 as capabilities;

use crate::{
    api::{ApiState, Ruma, RumaRouter, caller::Requester},
    rules::room_version::RoomVersion,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<capabilities::Request, _, _>(list)
}

async fn list(_: Requester, _: Ruma<capabilities::Request>) -> Ruma<capabilities::Response> {
    let available = RoomVersion::ALL.iter().map(|version| (version.id(), capabilities::RoomVersionStability::Stable));
    let mut found = capabilities::Capabilities::new();
    found.room_versions = capabilities::RoomVersionsCapability::new(RoomVersion::DEFAULT.id(), available.collect());
    found.change_password = capabilities::ChangePasswordCapability::new(true);
    found.profile_fields = Some(capabilities::ProfileFieldsCapability::new(true));
    // No identity server and no mail: addresses cannot be added, and nobody logs in by a token of another device.
    found.thirdparty_id_changes = capabilities::ThirdPartyIdChangesCapability::new(false);
    found.get_login_token = capabilities::GetLoginTokenCapability::new(false);
    Ruma(capabilities::Response::new(found))
}
