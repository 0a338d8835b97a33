//! "Published room directory".

use axum::{Router, extract::State};
use ruma::{
    UInt,
    api::client::{
        directory::{
            get_public_rooms::v3 as get_public_rooms, get_public_rooms_filtered::v3 as get_public_rooms_filtered,
            get_room_visibility::v3 as get_room_visibility, set_room_visibility::v3 as set_room_visibility,
        },
        room::Visibility,
    },
    directory::{Filter, RoomNetwork},
};

use super::directory::authority;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter as _, caller::Requester, json::RawJson},
    federation::Federation,
    rooms::{DirectoryPage, Rooms},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_public_rooms::Request, _, _>(list)
        .endpoint::<get_public_rooms_filtered::Request, _, _>(search)
        .endpoint::<get_room_visibility::Request, _, _>(visibility)
        .endpoint::<set_room_visibility::Request, _, _>(set_visibility)
}

async fn list(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    _: Requester,
    Ruma(request): Ruma<get_public_rooms::Request>,
) -> Result<Ruma<get_public_rooms::Response>, ApiError> {
    if let Some(server) = request.server.filter(|server| server != rooms.server_name()) {
        let theirs = federation.public_rooms(&server, Filter::new(), request.limit, request.since).await?;
        let mut response = get_public_rooms::Response::new(theirs.chunk);
        response.next_batch = theirs.next_batch;
        response.prev_batch = theirs.prev_batch;
        response.total_room_count_estimate = theirs.total_room_count_estimate;
        return Ok(Ruma(response));
    }
    let page = rooms.list_published(&Filter::new(), limit(request.limit), request.since.as_deref()).await?;
    let mut response = get_public_rooms::Response::new(page.rooms);
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    Ok(Ruma(response))
}

async fn search(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    _: Requester,
    Ruma(request): Ruma<get_public_rooms_filtered::Request>,
) -> Result<Ruma<get_public_rooms_filtered::Response>, ApiError> {
    if let Some(server) = request.server.filter(|server| server != rooms.server_name()) {
        let theirs = federation.public_rooms(&server, request.filter, request.limit, request.since).await?;
        let mut response = get_public_rooms_filtered::Response::new();
        response.chunk = theirs.chunk;
        response.next_batch = theirs.next_batch;
        response.prev_batch = theirs.prev_batch;
        response.total_room_count_estimate = theirs.total_room_count_estimate;
        return Ok(Ruma(response));
    }
    let page = match request.room_network {
        // No network of another kind is bridged here.
        RoomNetwork::ThirdParty(_) => DirectoryPage::default(),
        _ => rooms.list_published(&request.filter, limit(request.limit), request.since.as_deref()).await?,
    };
    let mut response = get_public_rooms_filtered::Response::new();
    response.chunk = page.rooms;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = Some(UInt::new_saturating(page.total as u64));
    Ok(Ruma(response))
}

/// Asks for no access token, as the specification has it.
async fn visibility(
    State(rooms): State<Rooms>,
    Ruma(request): Ruma<get_room_visibility::Request>,
) -> Result<Ruma<get_room_visibility::Response>, ApiError> {
    let is_published = rooms.is_published(&request.room_id).await?;
    let visibility = if is_published { Visibility::Public } else { Visibility::Private };
    Ok(Ruma(get_room_visibility::Response::new(visibility)))
}

async fn set_visibility(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<set_room_visibility::Request>,
) -> Result<RawJson, ApiError> {
    let is_published = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        _ => return Err(ApiError::invalid_param("`visibility` is `public` or `private`")),
    };
    rooms.set_published(&requester.user_id, authority(&requester), &request.room_id, is_published).await?;
    Ok(RawJson("{}".to_owned()))
}

fn limit(limit: Option<UInt>) -> Option<usize> {
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
