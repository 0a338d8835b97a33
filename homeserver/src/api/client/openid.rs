//! OpenID.

use std::time::Duration;

use axum::{Router, extract::State};
use ruma::{api::client::account::request_openid_token::v3 as request_token, authentication::TokenType};

use crate::{
    accounts::Accounts,
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::Requester},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new().endpoint::<request_token::Request, _, _>(request)
}

async fn request(
    State(accounts): State<Accounts>,
    requester: Requester,
    Ruma(request): Ruma<request_token::Request>,
) -> Result<Ruma<request_token::Response>, ApiError> {
    requester.must_be(&request.user_id)?;
    let token = accounts.request_openid_token(&requester).await?;
    let server_name = accounts.server_name().to_owned();
    let lifetime = Duration::from_millis(token.lifetime_ms);
    Ok(Ruma(request_token::Response::new(token.token, TokenType::Bearer, server_name, lifetime)))
}
