//! Syncing. Specification: client-server API, "Syncing".

use std::sync::Arc;

use axum::{
    Router,
    extract::{RawQuery, State},
};
use ruma::{
    api::client::sync::sync_events::v3::{self as sync_events, Filter},
    presence::PresenceState,
};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::RawJson},
    ephemeral::{Ephemeral, PresenceError},
    sync::{SyncFilter, SyncRequest, Syncer},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<sync_events::Request, _, _>(sync_events)
}

async fn sync_events(
    State(sync): State<Syncer>,
    State(ephemeral): State<Ephemeral>,
    RawQuery(query): RawQuery,
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
    if names_presence(query.as_deref()) {
        tell_presence(&ephemeral, &requester, &request.set_presence).await?;
    }
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

/// Whether the client says anything about presence: left out, ruma takes it for "online".
fn names_presence(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair.starts_with("set_presence=")))
}

/// Presence that cannot be written now is no reason to keep a client from reading.
async fn tell_presence(ephemeral: &Ephemeral, requester: &Requester, state: &PresenceState) -> Result<(), ApiError> {
    let told = ephemeral.set_presence_of_device(requester.user_nid, requester.device_id.as_str(), state).await;
    match told {
        Err(PresenceError::State) => Err(PresenceError::State.into()),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "presence was not set");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
