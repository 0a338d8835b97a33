//! Client config: account data, global and of rooms.

use axum::{Router, extract::State};
use ruma::{
    RoomId, UserId,
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data, set_room_account_data,
    },
};
use serde_json::{Map, Value, json};

use crate::{
    accounts::Accounts,
    api::{
        ApiError, ApiState, Ruma, RumaRouter,
        caller::Requester,
        json::{JsonBody, RawJson},
    },
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<get_global_account_data::v3::Request, _, _>(get_global)
        .endpoint::<get_room_account_data::v3::Request, _, _>(get_of_room)
        .endpoint::<set_global_account_data::v3::Request, _, _>(set_global)
        .endpoint::<set_room_account_data::v3::Request, _, _>(set_of_room)
}

async fn get_global(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_global_account_data::v3::Request>,
) -> Result<RawJson, ApiError> {
    requester.must_be(&request.user_id)?;
    Ok(RawJson(accounts.account_data(&requester, None, &request.event_type.to_string()).await?))
}

async fn get_of_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<get_room_account_data::v3::Request>,
) -> Result<RawJson, ApiError> {
    requester.must_be(&request.user_id)?;
    let data_type = request.event_type.to_string();
    Ok(RawJson(accounts.account_data(&requester, Some(&request.room_id), &data_type).await?))
}

// The content is an object of the client's own: not read as one of ruma's types.

async fn set_global(
    State(accounts): State<Accounts>,
    requester: Requester,
    JsonBody { body, path_args }: JsonBody<Map<String, Value>>,
) -> Result<RawJson, ApiError> {
    let [user_id, data_type] = args(path_args)?;
    requester.must_be(&parse_user(&user_id)?)?;
    accounts.set_account_data(&requester, None, &data_type, &body).await?;
    Ok(RawJson(json!({}).to_string()))
}

async fn set_of_room(
    State(accounts): State<Accounts>,
    requester: Requester,
    JsonBody { body, path_args }: JsonBody<Map<String, Value>>,
) -> Result<RawJson, ApiError> {
    let [user_id, room_id, data_type] = args(path_args)?;
    requester.must_be(&parse_user(&user_id)?)?;
    let room_id = RoomId::parse(room_id).map_err(|error| ApiError::invalid_param(format!("room id: {error}")))?;
    accounts.set_account_data(&requester, Some(&room_id), &data_type, &body).await?;
    Ok(RawJson(json!({}).to_string()))
}

fn args<const N: usize>(path_args: Vec<String>) -> Result<[String; N], ApiError> {
    path_args.try_into().map_err(|_| ApiError::unrecognized())
}

fn parse_user(user_id: &str) -> Result<ruma::OwnedUserId, ApiError> {
    UserId::parse(user_id).map_err(|error| ApiError::invalid_param(format!("user id: {error}")))
}
