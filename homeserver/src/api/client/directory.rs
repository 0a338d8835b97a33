//! "Room aliases".

use axum::{Router, extract::State};
use ruma::{
    OwnedRoomAliasId,
    api::client::{
        alias::{create_alias::v3 as create_alias, delete_alias::v3 as delete_alias, get_alias::v3 as get_alias},
        room::aliases::v3 as list_aliases,
    },
};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter as _, caller::Requester, json::RawJson},
    membership::Membership,
    rooms::{Authority, Rooms},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<create_alias::Request, _, _>(create)
        .endpoint::<delete_alias::Request, _, _>(delete)
        .endpoint::<get_alias::Request, _, _>(resolve)
        .endpoint::<list_aliases::Request, _, _>(list)
}

/// What a requester may do with what belongs to others.
pub(super) fn authority(requester: &Requester) -> Authority {
    if requester.is_admin { Authority::Admin } else { Authority::User }
}

async fn create(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<create_alias::Request>,
) -> Result<RawJson, ApiError> {
    check(&request.room_alias)?;
    rooms.create_alias(&requester.user_id, &request.room_alias, &request.room_id).await?;
    Ok(RawJson("{}".to_owned()))
}

async fn delete(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<delete_alias::Request>,
) -> Result<RawJson, ApiError> {
    check(&request.room_alias)?;
    rooms.delete_alias(&requester.user_id, authority(&requester), &request.room_alias).await?;
    Ok(RawJson("{}".to_owned()))
}

/// Asks for no access token: aliases are public.
async fn resolve(
    State(membership): State<Membership>,
    State(rooms): State<Rooms>,
    Ruma(request): Ruma<get_alias::Request>,
) -> Result<Ruma<get_alias::Response>, ApiError> {
    check(&request.room_alias)?;
    let (room_id, mut servers) = membership.resolve_alias(&request.room_alias).await?;
    if request.room_alias.server_name() == rooms.server_name() && servers.is_empty() {
        servers.push(rooms.server_name().to_owned());
    }
    Ok(Ruma(get_alias::Response::new(room_id, servers)))
}

async fn list(
    State(rooms): State<Rooms>,
    requester: Requester,
    Ruma(request): Ruma<list_aliases::Request>,
) -> Result<Ruma<list_aliases::Response>, ApiError> {
    let aliases = rooms.list_aliases(&requester.user_id, &request.room_id).await?;
    Ok(Ruma(list_aliases::Response::new(aliases)))
}

/// ruma holds aliases to their length and their two parts; a database cannot keep a null byte, and nobody can see one.
fn check(alias: &OwnedRoomAliasId) -> Result<(), ApiError> {
    if alias.as_str().contains(char::is_control) {
        return Err(ApiError::invalid_param("An alias has no control characters"));
    }
    Ok(())
}
