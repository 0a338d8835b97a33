//! Users of other servers leave, or refuse an invite, through us.

use axum::{
    Router,
    extract::{FromRef, State},
    routing::put,
};
use ruma::api::federation::membership::{create_leave_event, prepare_leave_event};
use serde_json::value::RawValue;

use super::{FederationOrigin, SignedRequest, joins::room_and_event};
use crate::{
    api::{
        ApiError, Ruma, RumaRouter,
        json::{RawJson, parse_json},
    },
    federation::{Federation, Handshake},
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .endpoint::<prepare_leave_event::v1::Request, _, _>(make_leave)
        .endpoint::<create_leave_event::v2::Request, _, _>(send_leave)
        .route("/_matrix/federation/v1/send_leave/{room_id}/{event_id}", put(send_leave_v1))
}

async fn make_leave(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<prepare_leave_event::v1::Request>,
) -> Result<Ruma<prepare_leave_event::v1::Response>, ApiError> {
    let (room_id, user_id) = (&request.room_id, &request.user_id);
    let template = federation.make_membership(Handshake::Leave, &origin, room_id, user_id, &[]).await?;
    let version = Some(template.room_version.id());
    Ok(Ruma(prepare_leave_event::v1::Response::new(version, template.raw())))
}

async fn send_leave(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<create_leave_event::v2::Request>,
) -> Result<Ruma<create_leave_event::v2::Response>, ApiError> {
    federation.send_leave(&origin, &request.room_id, &request.event_id, &request.pdu).await?;
    Ok(Ruma(create_leave_event::v2::Response::new()))
}

/// The first version of the endpoint.
async fn send_leave_v1(State(federation): State<Federation>, signed: SignedRequest) -> Result<RawJson, ApiError> {
    let (room_id, event_id) = room_and_event(&signed.path_args)?;
    let event: Box<RawValue> = parse_json(signed.request.body())?;
    federation.send_leave(&signed.origin, room_id, event_id, &event).await?;
    Ok(RawJson("[200,{}]".to_owned()))
}
