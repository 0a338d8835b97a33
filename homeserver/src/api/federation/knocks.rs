//! Users of other servers knock through us.

use axum::{
    Router,
    extract::{FromRef, State},
};
use ruma::api::federation::membership::{RawStrippedState, create_knock_event, prepare_knock_event};

use super::FederationOrigin;
use crate::{
    api::{ApiError, Ruma, RumaRouter},
    federation::{Federation, Handshake},
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .endpoint::<prepare_knock_event::v1::Request, _, _>(make_knock)
        .endpoint::<create_knock_event::v1::Request, _, _>(send_knock)
}

async fn make_knock(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<prepare_knock_event::v1::Request>,
) -> Result<Ruma<prepare_knock_event::v1::Response>, ApiError> {
    let (room_id, user_id) = (&request.room_id, &request.user_id);
    let template = federation.make_membership(Handshake::Knock, &origin, room_id, user_id, &request.ver).await?;
    Ok(Ruma(prepare_knock_event::v1::Response::new(template.room_version.id(), template.raw())))
}

async fn send_knock(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<create_knock_event::v1::Request>,
) -> Result<Ruma<create_knock_event::v1::Response>, ApiError> {
    let state = federation.send_knock(&origin, &request.room_id, &request.event_id, &request.pdu).await?;
    let state = state.into_iter().map(RawStrippedState::Pdu).collect();
    Ok(Ruma(create_knock_event::v1::Response::new(state)))
}
