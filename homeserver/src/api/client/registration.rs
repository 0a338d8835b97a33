//! Account registration.

use axum::{Json, Router, extract::State};
use http::StatusCode;
use ruma::api::client::account::{
    check_registration_token_validity::v1 as token_validity,
    get_username_availability::v3 as availability,
    register::{RegistrationKind, v3 as register},
};
use serde::Serialize;

use crate::{
    accounts::{Accounts, NewDevice, RegisterRequest},
    api::{ApiError, ApiState, Ruma, RumaRouter, caller::ClientAddr, interactive::Interactive},
};

pub(super) fn routes() -> Router<ApiState> {
    Router::new()
        .endpoint::<availability::Request, _, _>(username_availability)
        .endpoint::<register::Request, _, _>(register)
        .endpoint::<token_validity::Request, _, _>(registration_token_validity)
}

async fn register(
    State(accounts): State<Accounts>,
    ClientAddr(client): ClientAddr,
    Interactive { request, uia }: Interactive<register::Request>,
) -> Result<Json<Registered>, ApiError> {
    if request.kind == RegistrationKind::Guest {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "This server does not take guests",
        ));
    }
    let register = RegisterRequest {
        username: request.username,
        password: request.password,
        device: NewDevice {
            device_id: request.device_id.map(Into::into),
            display_name: request.initial_device_display_name,
            refreshable: request.refresh_token,
        },
        inhibit_login: request.inhibit_login,
    };
    let registered = accounts.register(register, &uia, client).await?;
    let mut response = Registered { user_id: registered.user_id.into(), ..Registered::default() };
    if let Some(session) = registered.session {
        response.access_token = Some(session.access_token);
        response.device_id = Some(session.device_id);
        response.refresh_token = session.refresh_token;
        response.expires_in_ms = session.expires_in_ms;
    }
    Ok(Json(response))
}

/// What a registration answers; ruma's type writes a device id of null when nobody is logged in.
#[derive(Default, Serialize)]
struct Registered {
    user_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

async fn username_availability(
    State(accounts): State<Accounts>,
    Ruma(request): Ruma<availability::Request>,
) -> Result<Ruma<availability::Response>, ApiError> {
    accounts.username_available(&request.username).await?;
    Ok(Ruma(availability::Response::new(true)))
}

async fn registration_token_validity(
    State(accounts): State<Accounts>,
    Ruma(request): Ruma<token_validity::Request>,
) -> Result<Ruma<token_validity::Response>, ApiError> {
    if !accounts.takes_registrations() {
        return Err(ApiError::forbidden("This server does not take registrations"));
    }
    Ok(Ruma(token_validity::Response::new(accounts.is_registration_token(&request.token))))
}
