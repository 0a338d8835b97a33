//! Server administration: where a user is logged in.

use axum::{Json, Router, extract::State};
use ruma::api::client::admin::get_user_info;
use serde_json::{Value, json};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_user_info::v3::Request, _, _>(whois)
}

/// For administrators, and for everybody about themselves.
async fn whois(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_user_info::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    if !requester.is_admin {
        requester.must_be(&request.user_id)?;
    }
    let devices = accounts.devices_of(&request.user_id).await?;
    let connection = |ip: String, seen: u64| json!({ "connections": [{ "ip": ip, "last_seen": seen }] });
    let devices: serde_json::Map<String, Value> = devices
        .into_iter()
        .map(|device| (device.device_id, json!({ "sessions": [connection(device.last_seen_ip, device.last_seen_ts)] })))
        .collect();
    Ok(Json(json!({ "user_id": request.user_id, "devices": devices })))
}
