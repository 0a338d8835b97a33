//! Send-to-device messaging.

use axum::{Router, extract::State};
use ruma::api::client::to_device::send_event_to_device;

use super::keys::own_device;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    e2ee::E2ee,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<send_event_to_device::v3::Request, _, _>(send)
}

async fn send(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<send_event_to_device::v3::Request>,
) -> Result<Ruma<send_event_to_device::v3::Response>, ApiError> {
    let event_type = request.event_type.to_string();
    e2ee.send_to_device(own_device(&requester), &event_type, request.txn_id.as_str(), &request.messages).await?;
    Ok(Ruma(send_event_to_device::v3::Response::new()))
}
