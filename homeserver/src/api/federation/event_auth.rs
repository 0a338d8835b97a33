//! `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`.

use axum::{
    Router,
    extract::{FromRef, State},
};
use ruma::api::federation::authorization::get_event_authorization::v1;

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
    Router::new().endpoint::<v1::Request, _, _>(event_auth)
}

async fn event_auth(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<v1::Request>,
) -> Result<Ruma<v1::Response>, ApiError> {
    let chain = federation.event_auth(&origin, &request.room_id, &request.event_id).await?;
    Ok(Ruma(v1::Response::new(chain)))
}
