//! Events and states of rooms.

use axum::{
    Router,
    extract::{FromRef, State},
};
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::federation::event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
};

use super::FederationOrigin;
use crate::{
    api::{ApiError, Ruma, RumaRouter},
    federation::Federation,
};

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .endpoint::<get_event::v1::Request, _, _>(event)
        .endpoint::<get_missing_events::v1::Request, _, _>(missing_events)
        .endpoint::<get_room_state::v1::Request, _, _>(state)
        .endpoint::<get_room_state_ids::v1::Request, _, _>(state_ids)
}

async fn event(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<get_event::v1::Request>,
) -> Result<Ruma<get_event::v1::Response>, ApiError> {
    let event = federation.event(&origin, &request.event_id).await?;
    let now = MilliSecondsSinceUnixEpoch(UInt::new_saturating(event.now_ms));
    Ok(Ruma(get_event::v1::Response::new(event.server_name, now, event.pdu)))
}

async fn state(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<get_room_state::v1::Request>,
) -> Result<Ruma<get_room_state::v1::Response>, ApiError> {
    let (pdus, auth_chain) = federation.state(&origin, &request.room_id, &request.event_id).await?;
    Ok(Ruma(get_room_state::v1::Response::new(auth_chain, pdus)))
}

async fn state_ids(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<get_room_state_ids::v1::Request>,
) -> Result<Ruma<get_room_state_ids::v1::Response>, ApiError> {
    let ids = federation.state_ids(&origin, &request.room_id, &request.event_id).await?;
    Ok(Ruma(get_room_state_ids::v1::Response::new(ids.auth_chain_ids.clone(), ids.pdu_ids.clone())))
}

async fn missing_events(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<get_missing_events::v1::Request>,
) -> Result<Ruma<get_missing_events::v1::Response>, ApiError> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let (earliest, latest) = (&request.earliest_events, &request.latest_events);
    let min_depth = request.min_depth.into();
    let events = federation.missing_events(&origin, &request.room_id, earliest, latest, min_depth, limit).await?;
    Ok(Ruma(get_missing_events::v1::Response::new(events)))
}
