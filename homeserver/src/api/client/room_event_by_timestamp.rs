//! The event nearest to a time.

use axum::{Router, extract::State};
use ruma::api::client::room::get_event_by_timestamp::v1 as event_at;

use super::message_pagination::{direction, reader};
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::Syncer,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<event_at::Request, _, _>(event_at)
}

async fn event_at(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<event_at::Request>,
) -> Result<RawJson, ApiError> {
    let ts = i64::try_from(u64::from(request.ts.0)).unwrap_or(i64::MAX);
    Ok(RawJson(sync.event_at(reader(&requester), &request.room_id, ts, direction(request.dir)).await?))
}
