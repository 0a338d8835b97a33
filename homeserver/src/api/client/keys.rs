//! End-to-end encryption keys: upload, query, claim, changes.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, extract::State};
use ruma::{
    OneTimeKeyAlgorithm, UInt,
    api::client::keys::{claim_keys, get_key_changes, get_keys, upload_keys},
};

use crate::{
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
    e2ee::{Asker, E2ee, KeyUpload, OwnDevice},
};

/// How long other servers are waited for when the client does not say.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a client may ask to wait for other servers.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<claim_keys::v3::Request, _, _>(claim)
        .endpoint::<get_key_changes::v3::Request, _, _>(changes)
        .endpoint::<get_keys::v3::Request, _, _>(query)
        .endpoint::<upload_keys::v3::Request, _, _>(upload)
}

async fn upload(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<upload_keys::v3::Request>,
) -> Result<Ruma<upload_keys::v3::Response>, ApiError> {
    let upload = KeyUpload {
        device_keys: request.device_keys,
        one_time_keys: request.one_time_keys,
        fallback_keys: request.fallback_keys,
    };
    let counts = e2ee.upload_keys(own_device(&requester), upload).await?;
    let counts = counts
        .into_iter()
        .map(|(algorithm, count)| (OneTimeKeyAlgorithm::from(algorithm), UInt::try_from(count).unwrap_or(UInt::MAX)));
    Ok(Ruma(upload_keys::v3::Response::new(counts.collect::<BTreeMap<_, _>>())))
}

async fn query(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_keys::v3::Request>,
) -> Result<Ruma<get_keys::v3::Response>, ApiError> {
    let asker = Asker::Local { user_id: &requester.user_id, user_nid: requester.user_nid };
    let keys = e2ee.query_keys(asker, &request.device_keys, timeout(request.timeout)).await?;
    let mut response = get_keys::v3::Response::new();
    response.device_keys = keys.device_keys;
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    response.user_signing_keys = keys.user_signing_keys;
    response.failures = keys.failures;
    Ok(Ruma(response))
}

async fn claim(
    State(e2ee): State<E2ee>,
    _: Requester,
    Ruma(request): Ruma<claim_keys::v3::Request>,
) -> Result<Ruma<claim_keys::v3::Response>, ApiError> {
    let claimed = e2ee.claim_keys(request.one_time_keys, timeout(request.timeout)).await?;
    let mut response = claim_keys::v3::Response::new(claimed.one_time_keys);
    response.failures = claimed.failures;
    Ok(Ruma(response))
}

async fn changes(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<get_key_changes::v3::Request>,
) -> Result<Ruma<get_key_changes::v3::Response>, ApiError> {
    let (changed, left) = e2ee.key_changes(requester.user_nid, &request.from, &request.to).await?;
    Ok(Ruma(get_key_changes::v3::Response::new(changed, left)))
}

/// The device that a request comes from.
pub(super) fn own_device(requester: &Requester) -> OwnDevice<'_> {
    OwnDevice { user_id: &requester.user_id, user_nid: requester.user_nid, device_id: &requester.device_id }
}

fn timeout(wanted: Option<Duration>) -> Duration {
    wanted.unwrap_or(REMOTE_TIMEOUT).min(LONGEST_TIMEOUT)
}
