//! A room's threads.

use axum::{Router, extract::State};
use ruma::api::client::threads::get_threads::v1::{self as get_threads, IncludeThreads};

use super::message_pagination::{reader, token};
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::Syncer,
};

/// Threads of one page when the client asks for no number.
const DEFAULT_LIMIT: usize = 20;

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<get_threads::Request, _, _>(threads)
}

async fn threads(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<get_threads::Request>,
) -> Result<RawJson, ApiError> {
    let from = token(request.from.as_deref())?;
    let limit = request.limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(usize::MAX));
    let only_participated = request.include == IncludeThreads::Participated;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    Ok(RawJson(sync.threads(reader(&requester), &request.room_id, from.as_ref(), limit, only_participated).await?))
}
