//! Users of other servers join through us.

use axum::{
    Router,
    extract::{FromRef, State},
    routing::put,
};
use ruma::{
    EventId, RoomId,
    api::federation::membership::{create_join_event, prepare_join_event},
};
use serde_json::{json, value::RawValue};

use super::{FederationOrigin, SignedRequest};
use crate::{
    api::{
        ApiError, Ruma, RumaRouter,
        json::{RawJson, parse_json},
    },
    federation::{Federation, Handshake, SentJoin},
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .endpoint::<prepare_join_event::v1::Request, _, _>(make_join)
        .endpoint::<create_join_event::v2::Request, _, _>(send_join)
        .route("/_matrix/federation/v1/send_join/{room_id}/{event_id}", put(send_join_v1))
}

async fn make_join(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<prepare_join_event::v1::Request>,
) -> Result<Ruma<prepare_join_event::v1::Response>, ApiError> {
    let (room_id, user_id) = (&request.room_id, &request.user_id);
    let template = federation.make_membership(Handshake::Join, &origin, room_id, user_id, &request.ver).await?;
    let mut response = prepare_join_event::v1::Response::new(template.raw());
    response.room_version = Some(template.room_version.id());
    Ok(Ruma(response))
}

async fn send_join(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<create_join_event::v2::Request>,
) -> Result<Ruma<create_join_event::v2::Response>, ApiError> {
    let sent = federation.send_join(&origin, &request.room_id, &request.event_id, &request.pdu).await?;
    let SentJoin { state, auth_chain, event, servers_in_room } = sent;
    let mut room_state = create_join_event::v2::RoomState::new();
    room_state.state = state;
    room_state.auth_chain = auth_chain;
    room_state.event = Some(event);
    room_state.servers_in_room = Some(servers_in_room.iter().map(ToString::to_string).collect());
    Ok(Ruma(create_join_event::v2::Response::new(room_state)))
}

/// The first version of the endpoint, whose answer is the second one's in a list after a status code.
async fn send_join_v1(State(federation): State<Federation>, signed: SignedRequest) -> Result<RawJson, ApiError> {
    let (room_id, event_id) = room_and_event(&signed.path_args)?;
    let event: Box<RawValue> = parse_json(signed.request.body())?;
    let sent = federation.send_join(&signed.origin, room_id, event_id, &event).await?;
    let answer = json!([200, { "state": sent.state, "auth_chain": sent.auth_chain, "event": sent.event }]);
    Ok(RawJson(answer.to_string()))
}

/// The two arguments of the older endpoints' paths.
pub(super) fn room_and_event(path_args: &[String]) -> Result<(&RoomId, &EventId), ApiError> {
    let [room_id, event_id] = path_args else { return Err(ApiError::unrecognized()) };
    let room_id = <&RoomId>::try_from(room_id.as_str()).map_err(|error| ApiError::invalid_param(error.to_string()))?;
    let event_id =
        <&EventId>::try_from(event_id.as_str()).map_err(|error| ApiError::invalid_param(error.to_string()))?;
    Ok((room_id, event_id))
}
