//! Login, refresh and logout.

use axum::{Json, Router, extract::State, routing::post};
use ruma::api::client::session::{get_login_types, logout, logout_all, refresh_token};
use serde::{Deserialize, Serialize};

use crate::{
    accounts::{Accounts, LoginRequest, NewDevice, NewSession, UserIdentifier},
    api::{
        ApiError, ApiState, Ruma, RumaRouter,
        caller::{ClientAddr, Requester},
        json::JsonBody,
    },
};

const PASSWORD: &str = "m.login.password";

pub(super) fn routes() -> Router<ApiState> {
    // Not ruma's type for `POST /login`: its reader panics at a body without `type`.
    Router::new()
        .endpoint::<get_login_types::v3::Request, _, _>(login_types)
        .endpoint::<logout::v3::Request, _, _>(log_out)
        .endpoint::<logout_all::v3::Request, _, _>(log_out_everywhere)
        .endpoint::<refresh_token::v3::Request, _, _>(refresh)
        .route("/_matrix/client/r0/login", post(log_in))
        .route("/_matrix/client/v3/login", post(log_in))
}

async fn login_types(_: Ruma<get_login_types::v3::Request>) -> Ruma<get_login_types::v3::Response> {
    let password = get_login_types::v3::LoginType::Password(get_login_types::v3::PasswordLoginType::new());
    Ruma(get_login_types::v3::Response::new(vec![password]))
}

#[derive(Deserialize)]
struct LogIn {
    #[serde(rename = "type")]
    kind: String,
    identifier: Option<UserIdentifier>,
    /// The old form of `identifier`.
    user: Option<String>,
    medium: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

/// What a login answers; ruma's type cannot leave `well_known` to the edge and `home_server` in for old clients.
#[derive(Serialize)]
struct LoggedIn {
    user_id: String,
    access_token: String,
    device_id: String,
    home_server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_ms: Option<u64>,
}

async fn log_in(
    State(accounts): State<Accounts>,
    ClientAddr(client): ClientAddr,
    JsonBody { body, .. }: JsonBody<LogIn>,
) -> Result<Json<LoggedIn>, ApiError> {
    if body.kind != PASSWORD {
        let message = format!("Logins of type {:?} are not offered here", body.kind);
        return Err(ApiError::new(http::StatusCode::BAD_REQUEST, "M_UNKNOWN", message));
    }
    let old_form = || match (body.user, body.medium) {
        (Some(user), _) => Some(UserIdentifier { kind: "m.id.user".to_owned(), user: Some(user) }),
        (None, Some(_)) => Some(UserIdentifier { kind: "m.id.thirdparty".to_owned(), user: None }),
        (None, None) => None,
    };
    let request = LoginRequest {
        identifier: body
            .identifier
            .or_else(old_form)
            .ok_or_else(|| ApiError::missing_param("The identifier is missing"))?,
        password: body.password.ok_or_else(|| ApiError::missing_param("The password is missing"))?,
        device: NewDevice {
            device_id: body.device_id,
            display_name: body.initial_device_display_name,
            refreshable: body.refresh_token,
        },
        client,
    };
    let NewSession { user_id, device_id, access_token, refresh_token, expires_in_ms } = accounts.login(request).await?;
    let home_server = user_id.server_name().to_string();
    Ok(Json(LoggedIn { user_id: user_id.into(), access_token, device_id, home_server, refresh_token, expires_in_ms }))
}

async fn refresh(
    State(accounts): State<Accounts>,
    Ruma(request): Ruma<refresh_token::v3::Request>,
) -> Result<Ruma<refresh_token::v3::Response>, ApiError> {
    let (access_token, refresh_token, lifetime_ms) = accounts.refresh(&request.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(access_token);
    response.refresh_token = refresh_token;
    response.expires_in_ms = lifetime_ms.map(std::time::Duration::from_millis);
    Ok(Ruma(response))
}

async fn log_out(
    State(accounts): State<Accounts>,
    requester: Requester,
    _: Ruma<logout::v3::Request>,
) -> Result<Ruma<logout::v3::Response>, ApiError> {
    accounts.log_out(&requester).await?;
    Ok(Ruma(logout::v3::Response::new()))
}

async fn log_out_everywhere(
    State(accounts): State<Accounts>,
    requester: Requester,
    _: Ruma<logout_all::v3::Request>,
) -> Result<Ruma<logout_all::v3::Response>, ApiError> {
    accounts.log_out_everywhere(requester.user_nid).await?;
    Ok(Ruma(logout_all::v3::Response::new()))
}
