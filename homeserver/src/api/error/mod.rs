//! The one place that maps errors to the specification's errcodes and status codes. One file per domain room beside.

mod accounts;
mod directory;
mod e2ee;
mod ephemeral;
mod federation;
mod media;
mod moderation;
pub(in crate::api) mod no_space;
pub(in crate::api) mod rooms;
mod storage;
mod sync;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use gatehouse_shared::contract::{VERDICT, Verdict};
use http::{HeaderValue, StatusCode, header};
use ruma::api::error::{DeserializationError, FromHttpRequestError};
use serde_json::{Map, Value, json};

/// An error as a client or another server sees it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Map<String, Value>,
    retry_after: Option<std::time::Duration>,
    verdict: Option<Verdict>,
    /// Whether the answer has to name whom to turn to.
    needs_contact: bool,
}

impl ApiError {
    /// An error with a message for the person in front of the client.
    pub fn new(status: StatusCode, errcode: &str, message: impl Into<String>) -> Self {
        let mut body = Map::new();
        body.insert("errcode".to_owned(), errcode.into());
        body.insert("error".to_owned(), Value::String(message.into()));
        Self { status, body, retry_after: None, verdict: None, needs_contact: false }
    }

    /// The answer that asks for (more) user-interactive authentication: 401 with flows, session and what failed.
    pub fn interactive(body: Map<String, Value>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, body, retry_after: None, verdict: None, needs_contact: false }
    }

    /// Adds a field beside `errcode` and `error`.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.body.insert(key.to_owned(), value.into());
        self
    }

    /// Tells the edge what it should know about the sender; see the contract between edge and shard.
    #[must_use]
    pub fn with_verdict(mut self, verdict: Verdict) -> Self {
        self.verdict = Some(verdict);
        self
    }

    pub fn bad_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", message)
    }

    pub fn not_json(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
    }

    pub fn invalid_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", message)
    }

    pub fn missing_param(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", message)
    }

    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", message)
    }

    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "This server does not know this endpoint")
    }

    /// Something of ours failed; the reason is in the log, under the request's id.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "Something went wrong in the server; its log says what",
        )
    }

    /// The server cannot do it now and may later. The edge turns the status into 429.
    pub fn unavailable(retry_after: std::time::Duration) -> Self {
        let mut error = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_LIMIT_EXCEEDED",
            "The server cannot do this at the moment; please try again",
        );
        error.retry_after = Some(retry_after);
        error
    }

    /// The errcode, for logs.
    pub fn errcode(&self) -> &str {
        self.body.get("errcode").and_then(Value::as_str).unwrap_or("M_UNKNOWN")
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        if let Some(retry_after) = self.retry_after {
            let ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
            self.body.insert("retry_after_ms".to_owned(), json!(ms));
        }
        let mut response = Response::new(Body::from(Value::Object(self.body).to_string()));
        *response.status_mut() = self.status;
        if self.needs_contact {
            response.extensions_mut().insert(no_space::NeedsContact);
        }
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(retry_after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after.as_secs().max(1)));
        }
        if let Some(verdict) = self.verdict
            && let Ok(value) = HeaderValue::from_str(&verdict.to_string())
        {
            headers.insert(VERDICT, value);
        }
        response
    }
}

impl From<FromHttpRequestError> for ApiError {
    fn from(error: FromHttpRequestError) -> Self {
        match error {
            FromHttpRequestError::Deserialization(DeserializationError::Json(error)) => {
                if error.is_syntax() || error.is_eof() {
                    Self::not_json(format!("The body is not valid JSON: {error}"))
                } else {
                    Self::bad_json(format!("The body has the wrong shape: {error}"))
                }
            }
            FromHttpRequestError::Deserialization(DeserializationError::Utf8(_)) => {
                Self::not_json("The body is not valid UTF-8")
            }
            FromHttpRequestError::Deserialization(error) => Self::invalid_param(error.to_string()),
            _ => Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "This endpoint has other methods"),
        }
    }
}
