//! The published room directory, for other servers.

use axum::{Router, extract::State};
use ruma::{
    UInt,
    api::federation::directory::{get_public_rooms::v1 as get_public_rooms, get_public_rooms_filtered::v1 as filtered},
    directory::{Filter, RoomNetwork},
};

use super::FederationOrigin;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter},
    rooms::{DirectoryPage, Rooms},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_public_rooms::Request, _, _>(list).endpoint::<filtered::Request, _, _>(search)
}

async fn list(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<get_public_rooms::Request>,
) -> Result<Ruma<get_public_rooms::Response>, ApiError> {
    let page = page(&rooms, &request.room_network, &Filter::new(), request.limit, request.since.as_deref()).await?;
    let mut response = get_public_rooms::Response::new();
    response.chunk = page.rooms;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    Ok(Ruma(response))
}

async fn search(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<filtered::Request>,
) -> Result<Ruma<filtered::Response>, ApiError> {
    let page = page(&rooms, &request.room_network, &request.filter, request.limit, request.since.as_deref()).await?;
    let mut response = filtered::Response::new();
    response.chunk = page.rooms;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    Ok(Ruma(response))
}

async fn page(
    rooms: &Rooms,
    network: &RoomNetwork,
    filter: &Filter,
    limit: Option<UInt>,
    since: Option<&str>,
) -> Result<DirectoryPage, ApiError> {
    // No network of another kind is bridged here.
    if matches!(network, RoomNetwork::ThirdParty(_)) {
        return Ok(DirectoryPage::default());
    }
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(rooms.list_published(filter, limit, since).await?)
}
