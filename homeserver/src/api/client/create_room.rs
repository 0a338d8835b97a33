//! Creation of rooms. The specification, client-server API, "Creation".

use axum::{Router, extract::State};
use http::StatusCode;
use ruma::{
    CanonicalJsonObject, OwnedRoomAliasId, RoomVersionId,
    api::client::room::{Visibility, create_room::v3 as create_room, create_room::v3::RoomPreset},
    serde::Raw,
};
use serde::Deserialize;

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, error},
    membership::Membership,
    rooms::{InitialState, NewRoom, Profile},
    rules::{canonical, room_version::RoomVersion},
};

/// Users that may be invited when a room is made.
const MAX_INVITES: usize = 100;

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<create_room::Request, _, _>(create)
}

async fn create(
    State(membership): State<Membership>,
    requester: Requester,
    Ruma(request): Ruma<create_room::Request>,
) -> Result<Ruma<create_room::Response>, ApiError> {
    let room = new_room(&requester, request)?;
    let room_id = membership.create_room(room).await.map_err(error::rooms::creation)?;
    Ok(Ruma(create_room::Response::new(room_id)))
}

fn new_room(requester: &Requester, request: create_room::Request) -> Result<NewRoom, ApiError> {
    if request.invite.len() > MAX_INVITES {
        return Err(ApiError::invalid_param(format!("At most {MAX_INVITES} users can be invited at once")));
    }
    if !request.invite_3pid.is_empty() {
        return Err(ApiError::invalid_param("This server has no identity server to invite by address"));
    }
    let server = requester.user_id.server_name();
    let alias = request
        .room_alias_name
        .map(|localpart| {
            let valid = !localpart.is_empty() && !localpart.contains([':', '#', '\0']);
            valid
                .then(|| OwnedRoomAliasId::try_from(format!("#{localpart}:{server}")).ok())
                .flatten()
                .ok_or_else(|| ApiError::invalid_param("The alias is not valid"))
        })
        .transpose()?;
    let preset = request.preset.unwrap_or(match request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        _ => RoomPreset::PrivateChat,
    });
    let (local, remote) = request
        .invite
        .into_iter()
        .filter(|user_id| *user_id != requester.user_id)
        .partition(|user_id| user_id.server_name() == server);
    Ok(NewRoom {
        creator: requester.user_id.clone(),
        room_version: room_version(request.room_version.as_ref())?,
        creation_content: request.creation_content.as_ref().map(object_of).transpose()?.unwrap_or_default(),
        preset,
        is_published: request.visibility == Visibility::Public,
        name: request.name,
        topic: request.topic,
        alias,
        power_levels: request.power_level_content_override.as_ref().map(object_of).transpose()?.unwrap_or_default(),
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_, _>>()?,
        invites: dedup(local),
        remote_invites: dedup(remote),
        is_direct: request.is_direct,
        profile: Profile::default(),
    })
}

fn dedup(mut users: Vec<ruma::OwnedUserId>) -> Vec<ruma::OwnedUserId> {
    users.sort();
    users.dedup();
    users
}

/// The version that a client asks for.
pub(super) fn room_version(asked: Option<&RoomVersionId>) -> Result<RoomVersion, ApiError> {
    let Some(asked) = asked else { return Ok(RoomVersion::DEFAULT) };
    RoomVersion::parse(asked.as_str())
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", error.to_string()))
}

/// An object of a request as canonical JSON.
pub(super) fn object_of<T>(raw: &Raw<T>) -> Result<CanonicalJsonObject, ApiError> {
    canonical::parse_object(raw.json().get().as_bytes()).map_err(|error| ApiError::bad_json(error.to_string()))
}

fn initial_state<T>(raw: &Raw<T>) -> Result<InitialState, ApiError> {
    #[derive(Deserialize)]
    struct Fields {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(default)]
        state_key: String,
        content: Raw<serde_json::Value>,
    }
    let fields: Fields = raw.deserialize_as_unchecked().map_err(|error| ApiError::bad_json(error.to_string()))?;
    Ok(InitialState {
        event_type: fields.event_type,
        state_key: fields.state_key,
        content: object_of(&fields.content)?,
    })
}
