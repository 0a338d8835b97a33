//! `GET /_matrix/federation/v1/user/devices/{userId}`.

use axum::{Router, extract::State};
use ruma::{UInt, api::federation::device::get_devices::v1};

use super::FederationOrigin;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter},
    e2ee::E2ee,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<v1::Request, _, _>(devices)
}

async fn devices(
    State(e2ee): State<E2ee>,
    FederationOrigin { request, .. }: FederationOrigin<v1::Request>,
) -> Result<Ruma<v1::Response>, ApiError> {
    let list = e2ee.devices_of(&request.user_id).await?;
    let list = list.ok_or_else(|| ApiError::not_found("This server has no such user"))?;
    let stream_id = UInt::new_saturating(u64::try_from(list.stream_id).unwrap_or(0));
    let mut response = v1::Response::new(request.user_id, stream_id);
    response.devices = list
        .devices
        .into_iter()
        .filter_map(|(device_id, display_name, keys)| {
            let mut device = v1::UserDevice::new(device_id, keys?);
            device.device_display_name = display_name;
            Some(device)
        })
        .collect();
    response.master_key = list.master_key;
    response.self_signing_key = list.self_signing_key;
    Ok(Ruma(response))
}
