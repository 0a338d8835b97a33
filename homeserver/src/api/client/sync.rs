//! Syncing. Specification: client-server API, "Syncing".

use std::sync::Arc;

use axum::{Router, extract::State};
use ruma::api::client::sync::sync_events::v3::{self as sync_events, Filter};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    sync::{SyncFilter, SyncRequest, Syncer},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<sync_events::Request, _, _>(sync_events)
}

async fn sync_events(
    State(sync): State<Syncer>,
    requester: Requester,
    Ruma(request): Ruma<sync_events::Request>,
) -> Result<RawJson, ApiError> {
    let filter = match &request.filter {
        None => Arc::default(),
        Some(Filter::FilterDefinition(definition)) => Arc::new(SyncFilter::from(definition)),
        // A definition of the wrong shape arrives as if it were an id.
        Some(Filter::FilterId(filter_id)) if filter_id.starts_with('{') => {
            return Err(ApiError::invalid_param("The filter has the wrong shape"));
        }
        Some(Filter::FilterId(filter_id)) => sync.stored_filter(requester.user_nid, filter_id).await?,
        Some(_) => return Err(ApiError::invalid_param("The filter is neither an id nor a JSON object")),
    };
    // Some clients send an empty token where they have none.
    let since = request.since.as_deref().filter(|since| !since.is_empty()).map(str::parse).transpose()?;
    let request = SyncRequest {
        user_id: &requester.user_id,
        user_nid: requester.user_nid,
        device_id: requester.device_id.as_str(),
        since,
        filter,
        timeout: request.timeout.unwrap_or_default(),
        full_state: request.full_state,
        use_state_after: request.use_state_after,
    };
    Ok(RawJson(sync.sync(&request).await?))
}
