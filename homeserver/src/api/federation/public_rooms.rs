//! The published room directory, for other servers.

use axum::{Router, extract::State};
use ruma::{
    api::federation::directory::{get_public_rooms::v1 as get_public_rooms, get_public_rooms_filtered::v1 as filtered},
    directory::Filter,
};

use super::FederationOrigin;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter},
    rooms::Rooms,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_public_rooms::Request, _, _>(list).endpoint::<filtered::Request, _, _>(search)
}

async fn list(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<get_public_rooms::Request>,
) -> Result<Ruma<get_public_rooms::Response>, ApiError> {
    let since = request.since.as_deref();
    let page = rooms.list_published(&request.room_network, &Filter::new(), request.limit, since).await?;
    let mut response = get_public_rooms::Response::new();
    response.chunk = page.chunk;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = page.total_room_count_estimate;
    Ok(Ruma(response))
}

async fn search(
    State(rooms): State<Rooms>,
    FederationOrigin { request, .. }: FederationOrigin<filtered::Request>,
) -> Result<Ruma<filtered::Response>, ApiError> {
    let since = request.since.as_deref();
    let page = rooms.list_published(&request.room_network, &request.filter, request.limit, since).await?;
    let mut response = filtered::Response::new();
    response.chunk = page.chunk;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = page.total_room_count_estimate;
    Ok(Ruma(response))
}
