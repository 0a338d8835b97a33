//! Typing notifications.

use axum::{Router, extract::State};
use ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    ephemeral::Ephemeral,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<create_typing_event::v3::Request, _, _>(set)
}

async fn set(
    State(ephemeral): State<Ephemeral>,
    requester: Requester,
    Ruma(request): Ruma<create_typing_event::v3::Request>,
) -> Result<Ruma<create_typing_event::v3::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    let timeout = match request.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    ephemeral.set_typing(requester.user_nid, &request.room_id, timeout).await?;
    Ok(Ruma(create_typing_event::v3::Response::new()))
}
