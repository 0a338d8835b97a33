//! "Published room directory".

use axum::{Router, extract::State};
use ruma::{
    OwnedServerName, UInt,
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
    let asked = Asked { server: request.server, limit: request.limit, since: request.since };
    let page = page(&rooms, &federation, asked, &RoomNetwork::Matrix, Filter::new()).await?;
    let mut response = get_public_rooms::Response::new(page.chunk);
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = page.total_room_count_estimate;
    Ok(Ruma(response))
}

async fn search(
    State(rooms): State<Rooms>,
    State(federation): State<Federation>,
    _: Requester,
    Ruma(request): Ruma<get_public_rooms_filtered::Request>,
) -> Result<Ruma<get_public_rooms_filtered::Response>, ApiError> {
    let asked = Asked { server: request.server, limit: request.limit, since: request.since };
    let page = page(&rooms, &federation, asked, &request.room_network, request.filter).await?;
    let mut response = get_public_rooms_filtered::Response::new();
    response.chunk = page.chunk;
    response.next_batch = page.next_batch;
    response.prev_batch = page.prev_batch;
    response.total_room_count_estimate = page.total_room_count_estimate;
    Ok(Ruma(response))
}

/// Which page is asked for, and of whose directory.
struct Asked {
    server: Option<OwnedServerName>,
    limit: Option<UInt>,
    since: Option<String>,
}

async fn page(
    rooms: &Rooms,
    federation: &Federation,
    asked: Asked,
    network: &RoomNetwork,
    filter: Filter,
) -> Result<DirectoryPage, ApiError> {
    let Asked { server, limit, since } = asked;
    match server.filter(|server| server != rooms.server_name()) {
        Some(server) => Ok(federation.public_rooms(&server, filter, limit, since).await?),
        None => Ok(rooms.list_published(network, &filter, limit, since.as_deref()).await?),
    }
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
