//! "Published room directory", for users of other servers.

use axum::{Router, extract::State};
use ruma::{
    UInt,
    api::federation::directory::{get_public_rooms, get_public_rooms_filtered},
    directory::{Filter, RoomNetwork},
};

use super::FederationOrigin;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter},
    rooms::{DirectoryPage, Rooms},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_public_rooms::v1::Request, _, _>(list)
        .endpoint::<get_public_rooms_filtered::v1::Request, _, _>(search)
}

async fn list(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<get_public_rooms::v1::Request>,
) -> Result<Ruma<get_public_rooms::v1::Response>, ApiError> {
    let page = rooms.list_published(&Filter::new(), limit(request.limit), request.since.as_deref()).await?;
    let mut response = get_public_rooms::v1::Response::new();
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    response.chunk = page.rooms;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    Ok(Ruma(response))
}

async fn search(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<get_public_rooms_filtered::v1::Request>,
) -> Result<Ruma<get_public_rooms_filtered::v1::Response>, ApiError> {
    let page = match request.room_network {
        // No network of another kind is bridged here.
        RoomNetwork::ThirdParty(_) => DirectoryPage::default(),
        _ => rooms.list_published(&request.filter, limit(request.limit), request.since.as_deref()).await?,
    };
    let mut response = get_public_rooms_filtered::v1::Response::new();
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    response.chunk = page.rooms;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    Ok(Ruma(response))
}

fn limit(limit: Option<UInt>) -> Option<usize> {
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
