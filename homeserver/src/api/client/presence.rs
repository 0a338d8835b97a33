//! Presence.

use axum::{Router, extract::State};
use ruma::api::client::presence::{get_presence, set_presence};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    ephemeral::Ephemeral,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_presence::v3::Request, _, _>(get).endpoint::<set_presence::v3::Request, _, _>(set)
}

async fn get(
    State(ephemeral): State<Ephemeral>,
    requester: Requester,
    Ruma(request): Ruma<get_presence::v3::Request>,
) -> Result<Ruma<get_presence::v3::Response>, ApiError> {
    let presence = ephemeral.presence_of(requester.user_nid, &request.user_id).await?;
    let mut response = get_presence::v3::Response::new(presence.presence);
    response.status_msg = presence.status_msg;
    response.currently_active = Some(presence.currently_active);
    response.last_active_ago = presence.last_active_ago;
    Ok(Ruma(response))
}

async fn set(
    State(ephemeral): State<Ephemeral>,
    requester: Requester,
    Ruma(request): Ruma<set_presence::v3::Request>,
) -> Result<Ruma<set_presence::v3::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    ephemeral.set_presence(requester.user_nid, &request.presence, request.status_msg.as_deref()).await?;
    Ok(Ruma(set_presence::v3::Response::new()))
}
