//! Other servers query and claim keys of our users' devices.

use axum::{Router, extract::State};
use ruma::api::federation::keys::{claim_keys, get_keys};

use super::FederationOrigin;
use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter},
    e2ee::{Asker, E2ee},
    federation::Federation,
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<claim_keys::v1::Request, _, _>(claim).endpoint::<get_keys::v1::Request, _, _>(query)
}

async fn query(
    State(e2ee): State<E2ee>,
    State(federation): State<Federation>,
    FederationOrigin { request, .. }: FederationOrigin<get_keys::v1::Request>,
) -> Result<Ruma<get_keys::v1::Response>, ApiError> {
    let own = federation.server_name();
    let wanted = request.device_keys;
    let users: Vec<_> = wanted.keys().filter(|user_id| user_id.server_name() == own).cloned().collect();
    let mut keys = e2ee.device_keys_of(Asker::Server, &users).await?;
    for (user_id, devices) in &mut keys.device_keys {
        let named = wanted.get(user_id).filter(|named| !named.is_empty());
        devices.retain(|device_id, _| named.is_none_or(|named| named.contains(device_id)));
    }
    let mut response = get_keys::v1::Response::new(keys.device_keys);
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    Ok(Ruma(response))
}

async fn claim(
    State(e2ee): State<E2ee>,
    State(federation): State<Federation>,
    FederationOrigin { request, .. }: FederationOrigin<claim_keys::v1::Request>,
) -> Result<Ruma<claim_keys::v1::Response>, ApiError> {
    let own = federation.server_name();
    let mut wanted = request.one_time_keys;
    wanted.retain(|user_id, _| user_id.server_name() == own);
    Ok(Ruma(claim_keys::v1::Response::new(e2ee.claim_local_keys(wanted).await?)))
}
