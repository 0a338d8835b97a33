//! `GET /_matrix/federation/v1/backfill/{roomId}`.

use axum::{
    Router,
    extract::{FromRef, State},
};
use ruma::{MilliSecondsSinceUnixEpoch, UInt, api::federation::backfill::get_backfill::v1};

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
    Router::new().endpoint::<v1::Request, _, _>(backfill)
}

async fn backfill(
    State(federation): State<Federation>,
    FederationOrigin { origin, request }: FederationOrigin<v1::Request>,
) -> Result<Ruma<v1::Response>, ApiError> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let events = federation.backfill(&origin, &request.room_id, &request.v, limit).await?;
    let now = MilliSecondsSinceUnixEpoch(UInt::new_saturating(events.now_ms));
    Ok(Ruma(v1::Response::new(events.server_name, now, events.pdus)))
}
