//! Our signing keys, and those of others as their notary.

use axum::{
    Router,
    extract::{FromRef, State},
    routing::get,
};
use ruma::{
    CanonicalJsonObject,
    api::federation::discovery::{get_remote_server_keys, get_remote_server_keys_batch},
};

use crate::{
    api::{ApiError, Ruma, RumaRouter, json::RawJson},
    federation::Federation,
    rules::canonical,
};

/// Servers that one question names at most.
const MAX_SERVERS: usize = 100;

pub(super) fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    Federation: FromRef<S>,
{
    Router::new()
        .route("/_matrix/key/v2/server", get(own))
        // Some ask for one key by its id; the document is the same.
        .route("/_matrix/key/v2/server/{key_id}", get(own))
        .endpoint::<get_remote_server_keys::v2::Request, _, _>(of_one)
        .endpoint::<get_remote_server_keys_batch::v2::Request, _, _>(of_many)
}

async fn own(State(federation): State<Federation>) -> RawJson {
    RawJson(canonical::to_text(&federation.published_keys()))
}

async fn of_one(
    State(federation): State<Federation>,
    Ruma(request): Ruma<get_remote_server_keys::v2::Request>,
) -> Result<RawJson, ApiError> {
    let until = u64::from(request.minimum_valid_until_ts.get());
    let document = federation.notarised_keys(&request.server_name, Some(until)).await?;
    Ok(answer(document.as_slice()))
}

async fn of_many(
    State(federation): State<Federation>,
    Ruma(request): Ruma<get_remote_server_keys_batch::v2::Request>,
) -> Result<RawJson, ApiError> {
    let mut documents = Vec::new();
    for (server, keys) in request.server_keys.iter().take(MAX_SERVERS) {
        let until = keys.values().filter_map(|criteria| criteria.minimum_valid_until_ts).max();
        let until = until.map(|until| u64::from(until.get()));
        documents.extend(federation.notarised_keys(server, until).await?);
    }
    Ok(answer(&documents))
}

fn answer(documents: &[CanonicalJsonObject]) -> RawJson {
    let documents: Vec<String> = documents.iter().map(canonical::to_text).collect();
    RawJson(format!(r#"{{"server_keys":[{}]}}"#, documents.join(",")))
}
