//! Reads requests that need user-interactive authentication: what is asked for, and the `auth` that came along.

use axum::extract::{FromRequest, Request};
use ruma::api::IncomingRequest;
use serde_json::{Map, Value};

use super::{
    ApiError,
    endpoint::{MAX_JSON_BODY, Ruma, collect, parse},
    json::parse_json,
};
use crate::accounts::{AuthAttempt, UiaRequest};

/// A request of the specification that its sender has to confirm. Its handler asks `Accounts::confirm` first.
pub struct Interactive<T> {
    pub request: T,
    pub uia: UiaRequest,
}

impl<S, T> FromRequest<S> for Interactive<T>
where
    S: Send + Sync,
    T: IncomingRequest,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (request, path_args) = collect(request, state, MAX_JSON_BODY).await?;
        let mut body: Map<String, Value> = parse_json(request.body())?;
        let auth = body.remove("auth");
        // Ruma reads the same request without `auth`, of which it knows only some shapes.
        let without_auth = Value::Object(body.clone()).to_string();
        let (parts, _) = request.into_parts();
        let uia = UiaRequest {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            auth: auth.map(read_attempt).transpose()?,
            body,
        };
        let request = http::Request::from_parts(parts, without_auth.into());
        let Ruma(request) = parse(&request, &path_args)?;
        Ok(Self { request, uia })
    }
}

fn read_attempt(auth: Value) -> Result<AuthAttempt, ApiError> {
    if auth.is_null() {
        return Ok(AuthAttempt::default());
    }
    serde_json::from_value(auth).map_err(|error| ApiError::bad_json(format!("auth: {error}")))
}
