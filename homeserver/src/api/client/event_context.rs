//! What stands around an event.

use axum::{Router, extract::State};
use ruma::api::client::context::get_context::v3 as get_context;

use super::message_pagination::reader;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::{EventFilter, LazyLoading, Syncer},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_context::Request, _, _>(context)
}

async fn context(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_context::Request>,
) -> Result<RawJson, ApiError> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let filter = EventFilter::from(&request.filter);
    let lazy = LazyLoading::from(&request.filter.lazy_load_options);
    let (room_id, event_id) = (&request.room_id, &request.event_id);
    Ok(RawJson(sync.context(reader(&requester), room_id, event_id, limit, &filter, lazy).await?))
}
