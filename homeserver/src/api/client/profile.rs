//! Profiles.

use axum::{Json, Router, extract::State, routing::get};
use ruma::{OwnedUserId, UserId};
use serde_json::{Map, Value, json};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, caller::Requester, json::JsonBody},
    federation::Federation,
};

pub(super) fn routes() -> Router<ApiState> {
    // Fields have any name and any content, so they are not read as ruma's types, which know some of them.
    let mut router = Router::new();
    for version in ["r0", "v3", "unstable/uk.tcpip.msc4133"] {
        let profile = format!("/_matrix/client/{version}/profile/{{arg1}}");
        router = router
            .route(&format!("{profile}/{{arg2}}"), get(get_field).put(set_field).delete(delete_field))
            .route(&profile, get(get_profile));
    }
    router
}

async fn get_profile(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    JsonBody { path_args, .. }: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let [user_id] = path_args.try_into().map_err(|_| ApiError::unrecognized())?;
    Ok(Json(profile_of(&accounts, &federation, &parse_user(user_id)?).await?.into()))
}

async fn get_field(
    State(accounts): State<Accounts>,
    State(federation): State<Federation>,
    JsonBody { path_args, .. }: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let (user_id, key) = user_and_key(path_args)?;
    let mut profile = profile_of(&accounts, &federation, &user_id).await?;
    match profile.remove(&key) {
        Some(value) => Ok(Json(json!({ key: value }))),
        None => Err(ApiError::not_found("The profile has no such field")),
    }
}

/// A user's profile, here or on the user's own server.
async fn profile_of(
    accounts: &Accounts,
    federation: &Federation,
    user_id: &UserId,
) -> Result<Map<String, Value>, ApiError> {
    if user_id.server_name() == federation.server_name() {
        return Ok(accounts.profile(user_id).await?);
    }
    Ok(federation.profile(user_id, None).await?.into_iter().collect())
}

async fn set_field(
    State(accounts): State<Accounts>,
    requester: Requester,
    JsonBody { mut body, path_args }: JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let (user_id, key) = user_and_key(path_args)?;
    let value = match body.remove(&key) {
        Some(value) => value,
        None if is_old(&key) => Value::Null,
        None => return Err(ApiError::missing_param(format!("The body has no {key:?}"))),
    };
    // Before fields could be deleted, clients set the two old ones to null or to nothing.
    let is_taken_away = is_old(&key) && (value.is_null() || value == "");
    accounts.set_profile_field(&requester, &user_id, &key, (!is_taken_away).then_some(value)).await?;
    Ok(Json(json!({})))
}

async fn delete_field(
    State(accounts): State<Accounts>,
    requester: Requester,
    JsonBody { path_args, .. }: JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let (user_id, key) = user_and_key(path_args)?;
    accounts.set_profile_field(&requester, &user_id, &key, None).await?;
    Ok(Json(json!({})))
}

fn is_old(key: &str) -> bool {
    matches!(key, "displayname" | "avatar_url")
}

fn user_and_key(path_args: Vec<String>) -> Result<(OwnedUserId, String), ApiError> {
    let [user_id, key]: [String; 2] = path_args.try_into().map_err(|_| ApiError::unrecognized())?;
    Ok((parse_user(user_id)?, key))
}

fn parse_user(user_id: String) -> Result<OwnedUserId, ApiError> {
    UserId::parse(user_id).map_err(|error| ApiError::invalid_param(format!("user id: {error}")))
}
