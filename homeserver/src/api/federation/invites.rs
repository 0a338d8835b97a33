//! Other servers invite our users.

use axum::{
    Router,
    extract::{FromRef, State},
    routing::put,
};
use ruma::api::federation::membership::create_invite;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{FederationOrigin, SignedRequest, joins::room_and_event};
use crate::{
    api::{
        ApiError, Ruma, RumaRouter,
        json::{RawJson, parse_json},
    },
    federation::{Federation, stripped_text},
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .endpoint::<create_invite::v2::Request, _, _>(invite)
        .route("/_matrix/federation/v1/invite/{room_id}/{event_id}", put(invite_v1))
}

async fn invite(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<create_invite::v2::Request>,
) -> Result<Ruma<create_invite::v2::Response>, ApiError> {
    let state: Vec<Box<RawValue>> = request.invite_room_state.iter().filter_map(stripped_text).collect();
    let (room_id, event_id) = (&request.room_id, &request.event_id);
    let version = request.room_version.as_str();
    let event = federation.receive_invite(&origin, room_id, event_id, version, &request.event, &state).await?;
    Ok(Ruma(create_invite::v2::Response::new(event)))
}

/// The first version of the endpoint, for rooms of versions 1 and 2: the body is the event itself.
async fn invite_v1(State(federation): State<Federation>, signed: SignedRequest) -> Result<RawJson, ApiError> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        unsigned: Unsigned,
    }
    #[derive(Default, Deserialize)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<Box<RawValue>>,
    }
    let (room_id, event_id) = room_and_event(&signed.path_args)?;
    let event: Box<RawValue> = parse_json(signed.request.body())?;
    let state = parse_json::<Event>(signed.request.body())?.unsigned.invite_room_state;
    let event = federation.receive_invite(&signed.origin, room_id, event_id, "1", &event, &state).await?;
    Ok(RawJson(format!(r#"[200,{{"event":{}}}]"#, event.get())))
}
