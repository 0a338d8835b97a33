//! Registration by shared secret, as Synapse's `register_new_matrix_user` asks for it.

use axum::{Json, Router, extract::State, routing::get};
use serde::{Deserialize, Serialize};

use crate::{
    accounts::{Accounts, SharedSecretRequest},
    api::{ApiError, ApiState, caller::ClientAddr, json::JsonBody},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().route("/_synapse/admin/v1/register", get(nonce).post(register))
}

#[derive(Serialize)]
struct Nonce {
    nonce: String,
}

async fn nonce(State(accounts): State<Accounts>) -> Result<Json<Nonce>, ApiError> {
    Ok(Json(Nonce { nonce: accounts.registration_nonce().await? }))
}

#[derive(Deserialize)]
struct Request {
    nonce: String,
    username: String,
    password: String,
    displayname: Option<String>,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
}

#[derive(Serialize)]
struct Response {
    user_id: String,
    home_server: String,
    access_token: String,
    device_id: String,
}

async fn register(
    State(accounts): State<Accounts>,
    ClientAddr(client): ClientAddr,
    JsonBody { body, .. }: JsonBody<Request>,
) -> Result<Json<Response>, ApiError> {
    let request = SharedSecretRequest {
        nonce: body.nonce,
        username: body.username,
        password: body.password,
        displayname: body.displayname,
        is_admin: body.admin,
        user_type: body.user_type,
        mac: body.mac,
    };
    let session = accounts.register_with_shared_secret(request, client).await?;
    Ok(Json(Response {
        home_server: session.user_id.server_name().to_string(),
        user_id: session.user_id.into(),
        access_token: session.access_token,
        device_id: session.device_id,
    }))
}
