//! Cross-signing: publishing keys, and signatures made with them.

use std::collections::BTreeMap;

use axum::{Json, Router, extract::State};
use ruma::{
    OwnedUserId,
    api::client::keys::{upload_signatures, upload_signing_keys},
};
use serde_json::{Value, json};

use super::keys::own_device;
use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, interactive::Interactive},
    e2ee::{E2ee, SigningKeys, UploadSignaturesError},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<upload_signatures::v3::Request, _, _>(upload_signatures)
        .endpoint::<upload_signing_keys::v3::Request, _, _>(upload_signing_keys)
}

async fn upload_signing_keys(
    State(accounts): State<Accounts>,
    State(e2ee): State<E2ee>,
    requester: Requester,
    Interactive { request, uia }: Interactive<upload_signing_keys::v3::Request>,
) -> Result<Ruma<upload_signing_keys::v3::Response>, ApiError> {
    let keys = SigningKeys {
        master_key: request.master_key,
        self_signing_key: request.self_signing_key,
        user_signing_key: request.user_signing_key,
    };
    if e2ee.needs_interactive_auth(own_device(&requester), &keys).await? {
        accounts.confirm(&requester, &uia).await?;
    }
    e2ee.upload_signing_keys(own_device(&requester), &keys).await?;
    Ok(Ruma(upload_signing_keys::v3::Response::new()))
}

async fn upload_signatures(
    State(e2ee): State<E2ee>,
    requester: Requester,
    Ruma(request): Ruma<upload_signatures::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    let signed = request.signed_keys.iter().map(|(user_id, keys)| {
        let keys = keys.iter().map(|(key, object)| (key.to_owned(), object.to_owned())).collect();
        (user_id.clone(), keys)
    });
    let failures = e2ee.upload_signatures(own_device(&requester), &signed.collect()).await?;
    let failures: BTreeMap<OwnedUserId, BTreeMap<String, Value>> = failures
        .into_iter()
        .map(|(user_id, keys)| (user_id, keys.into_iter().map(|(key, error)| (key, failure(&error))).collect()))
        .collect();
    Ok(Json(json!({ "failures": failures })))
}

fn failure(error: &UploadSignaturesError) -> Value {
    let errcode = match error {
        UploadSignaturesError::NotFound => "M_NOT_FOUND",
        UploadSignaturesError::Shape => "M_BAD_JSON",
        UploadSignaturesError::NotTheKey => "M_INVALID_PARAM",
        UploadSignaturesError::Signature(_) => "M_INVALID_SIGNATURE",
        UploadSignaturesError::Commit(_) | UploadSignaturesError::Db(_) => "M_UNKNOWN",
    };
    json!({ "errcode": errcode, "error": error.to_string() })
}
