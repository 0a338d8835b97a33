//! Reads bodies and writes answers where ruma's types do not fit: other APIs, and contents that pass through untouched.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderValue, header};
use serde::de::DeserializeOwned;

use super::{
    ApiError,
    endpoint::{MAX_JSON_BODY, collect},
};

/// A JSON body of a type of our own, and the path's arguments in order. An empty body is an empty object.
pub struct JsonBody<T> {
    pub body: T,
    pub path_args: Vec<String>,
}

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (request, path_args) = collect(request, state, MAX_JSON_BODY).await?;
        Ok(Self { body: parse_json(request.body())?, path_args })
    }
}

/// Reads JSON; an empty body is an empty object.
///
/// # Errors
/// `M_NOT_JSON` for what is no JSON, `M_BAD_JSON` for another shape.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => ApiError::bad_json(format!("The body has the wrong shape: {error}")),
        _ => ApiError::not_json(format!("The body is not valid JSON: {error}")),
    })
}

/// An answer that is JSON text already.
pub struct RawJson(pub String);

impl IntoResponse for RawJson {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
