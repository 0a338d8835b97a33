//! The rooms that a user is in.

use axum::{Router, extract::State};
use ruma::{OwnedRoomId, api::client::membership::joined_rooms::v3 as joined_rooms};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    sync::Syncer,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<joined_rooms::Request, _, _>(joined)
}

async fn joined(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(_): Ruma<joined_rooms::Request>,
) -> Result<Ruma<joined_rooms::Response>, ApiError> {
    let rooms = sync.joined_rooms(requester.user_nid).await?;
    let rooms = rooms.iter().filter_map(|room_id| OwnedRoomId::try_from(&**room_id).ok()).collect();
    Ok(Ruma(joined_rooms::Response::new(rooms)))
}
