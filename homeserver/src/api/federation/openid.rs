//! `GET /_matrix/federation/v1/openid/userinfo`.

use axum::{Router, extract::State};
use http::StatusCode;
use ruma::api::federation::openid::get_openid_userinfo::v1;

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<v1::Request, _, _>(userinfo)
}

async fn userinfo(
    State(accounts): State<Accounts>,
    Ruma(request): Ruma<v1::Request>,
) -> Result<Ruma<v1::Response>, ApiError> {
    match accounts.find_openid_user(&request.access_token).await? {
        Some(user_id) => Ok(Ruma(v1::Response::new(user_id))),
        None => Err(ApiError::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "The token is unknown or has expired")),
    }
}
