//! Room tagging.

use axum::{Json, Router, extract::State};
use ruma::{
    RoomId, UserId,
    api::client::tag::{create_tag, delete_tag, get_tags},
};
use serde_json::{Map, Value, json};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester, json::JsonBody},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<create_tag::v3::Request, _, _>(set)
        .endpoint::<delete_tag::v3::Request, _, _>(delete)
        .endpoint::<get_tags::v3::Request, _, _>(list)
}

async fn list(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_tags::v3::Request>,
) -> Result<Json<Value>, ApiError> {
    requester.must_be(&request.user_id)?;
    let tags = accounts.tags(&requester, &request.room_id).await?;
    Ok(Json(json!({ "tags": tags })))
}

async fn set(
    State(accounts): State<Accounts>,
    requester: Requester,
    JsonBody { body, path_args }: JsonBody<Map<String, Value>>,
) -> Result<Json<Value>, ApiError> {
    let [user_id, room_id, tag]: [String; 3] = path_args.try_into().map_err(|_| ApiError::unrecognized())?;
    let user_id = UserId::parse(user_id).map_err(|error| ApiError::invalid_param(format!("user id: {error}")))?;
    let room_id = RoomId::parse(room_id).map_err(|error| ApiError::invalid_param(format!("room id: {error}")))?;
    requester.must_be(&user_id)?;
    if body.get("order").is_some_and(|order| !order.is_number()) {
        return Err(ApiError::bad_json("order must be a number"));
    }
    accounts.set_tag(&requester, &room_id, &tag, Some(body)).await?;
    Ok(Json(json!({})))
}

async fn delete(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<delete_tag::v3::Request>,
) -> Result<Ruma<delete_tag::v3::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    accounts.set_tag(&requester, &request.room_id, &request.tag, None).await?;
    Ok(Ruma(delete_tag::v3::Response::new()))
}
