//! Device management.

use axum::{Router, extract::State};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::client::device::{Device, delete_device, delete_devices, get_device, get_devices, update_device},
};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, interactive::Interactive},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<delete_device::v3::Request, _, _>(delete)
        .endpoint::<delete_devices::v3::Request, _, _>(delete_many)
        .endpoint::<get_device::v3::Request, _, _>(get)
        .endpoint::<get_devices::v3::Request, _, _>(list)
        .endpoint::<update_device::v3::Request, _, _>(rename)
}

async fn list(
    State(accounts): State<Accounts>,
    requester: Requester,
    _: Ruma<get_devices::v3::Request>,
) -> Result<Ruma<get_devices::v3::Response>, ApiError> {
    let devices = accounts.devices(requester.user_nid).await?;
    Ok(Ruma(get_devices::v3::Response::new(devices.into_iter().map(to_device).collect())))
}

async fn get(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_device::v3::Request>,
) -> Result<Ruma<get_device::v3::Response>, ApiError> {
    let device = accounts.device(requester.user_nid, request.device_id.as_str()).await?;
    Ok(Ruma(get_device::v3::Response::new(to_device(device))))
}

async fn rename(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<update_device::v3::Request>,
) -> Result<Ruma<update_device::v3::Response>, ApiError> {
    let device_id = request.device_id.as_str();
    match request.display_name {
        Some(name) => accounts.rename_device(&requester, device_id, Some(&name)).await?,
        // Left out means left alone; the device must still be there.
        None => drop(accounts.device(requester.user_nid, device_id).await?),
    }
    Ok(Ruma(update_device::v3::Response::new()))
}

async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Interactive { request, uia }: Interactive<delete_device::v3::Request>,
) -> Result<Ruma<delete_device::v3::Response>, ApiError> {
    accounts.confirm(&requester, &uia).await?;
    accounts.delete_devices(requester.user_nid, &[request.device_id.as_str()]).await?;
    Ok(Ruma(delete_device::v3::Response::new()))
}

async fn delete_many(
    State(accounts): State<Accounts>,
    requester: Requester,
    Interactive { request, uia }: Interactive<delete_devices::v3::Request>,
) -> Result<Ruma<delete_devices::v3::Response>, ApiError> {
    accounts.confirm(&requester, &uia).await?;
    accounts.delete_devices(requester.user_nid, &request.devices).await?;
    Ok(Ruma(delete_devices::v3::Response::new()))
}

fn to_device(row: crate::accounts::DeviceRow) -> Device {
    let mut device = Device::new(row.device_id.into());
    device.display_name = row.display_name;
    device.last_seen_ip = Some(row.last_seen_ip);
    device.last_seen_ts = UInt::try_from(row.last_seen_ts).ok().map(MilliSecondsSinceUnixEpoch);
    device
}
