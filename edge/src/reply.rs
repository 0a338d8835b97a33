//! The answers that the edge makes itself: Matrix errors, documents, preflights and redirects, all with CORS headers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, RETRY_AFTER,
};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use pingora_error::Result;
use serde_json::json;

use crate::answer_head::AnswerHead;
use crate::conversation::Conversation;

/// What the client-server API recommends under "Web Browser Clients".
const CORS: [(HeaderName, &str); 3] = [
    (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    (ACCESS_CONTROL_ALLOW_HEADERS, "X-Requested-With, Content-Type, Authorization"),
];

/// Lets any page read an answer.
pub(crate) fn allow_browsers(head: &mut AnswerHead) {
    for (name, value) in CORS {
        head.fields.insert(name, HeaderValue::from_static(value));
    }
}

/// An answer of the edge's own.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    /// Whether any page may read the answer.
    cors: bool,
}

impl Reply {
    /// A Matrix error.
    pub(crate) fn error(status: StatusCode, errcode: &str, message: &str) -> Self {
        Self::json(status, json!({ "errcode": errcode, "error": message }).to_string().into())
    }

    /// `M_LIMIT_EXCEEDED`, which every client knows how to wait for.
    pub(crate) fn busy(retry_after_seconds: u64, message: &str) -> Self {
        Self::limit_exceeded(retry_after_seconds, retry_after_seconds.saturating_mul(1_000), message)
    }

    /// The client may come again after `wait`.
    pub(crate) fn limited(wait: Duration) -> Self {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Self::limit_exceeded(ms.div_ceil(1_000), ms, "Too many requests")
    }

    fn limit_exceeded(retry_after_seconds: u64, retry_after_ms: u64, message: &str) -> Self {
        let body = json!({ "errcode": "M_LIMIT_EXCEEDED", "error": message, "retry_after_ms": retry_after_ms });
        let mut reply = Self::json(StatusCode::TOO_MANY_REQUESTS, body.to_string().into());
        reply.headers.push((RETRY_AFTER, HeaderValue::from(retry_after_seconds)));
        reply
    }

    /// A document that others may keep for an hour.
    pub(crate) fn document(body: Bytes) -> Self {
        let mut reply = Self::json(StatusCode::OK, body);
        reply.headers.push((CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600")));
        reply
    }

    /// JSON that a shard said to somebody else.
    pub(crate) fn kept(body: Bytes) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// The answer to a preflight.
    pub(crate) fn preflight() -> Self {
        let headers = vec![(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"))];
        Self { status: StatusCode::NO_CONTENT, headers, body: Bytes::new(), cors: true }
    }

    /// To the same target elsewhere, with the same method.
    pub(crate) fn redirect(location: HeaderValue) -> Self {
        Self::redirect_with(StatusCode::PERMANENT_REDIRECT, location)
    }

    /// To `location`.
    pub(crate) fn redirect_with(status: StatusCode, location: HeaderValue) -> Self {
        Self { status, headers: vec![(LOCATION, location)], body: Bytes::new(), cors: true }
    }

    /// A text that a program reads.
    pub(crate) fn text(body: String) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
        Self { status: StatusCode::OK, headers, body: body.into(), cors: false }
    }

    fn json(status: StatusCode, body: Bytes) -> Self {
        let headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        Self { status, headers, body, cors: true }
    }

    /// Puts a header on, unless the answer has it already.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if !self.headers.iter().any(|(has, _)| *has == name) {
            self.headers.push((name, value));
        }
        self
    }

    /// For pages of this server alone.
    pub(crate) fn without_cors(mut self) -> Self {
        self.cors = false;
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Writes the answer.
    pub(crate) async fn send(self, client: &mut impl Conversation) -> Result<()> {
        let mut head = AnswerHead::new(self.status, CORS.len() + self.headers.len() + 1);
        head.fields.extend(self.headers);
        if self.cors {
            allow_browsers(&mut head);
        }
        let bodiless = self.status == StatusCode::NO_CONTENT;
        if !bodiless {
            head.fields.insert(CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        let ends = bodiless || self.body.is_empty() || client.request().method == Method::HEAD;
        client.write_head(head, ends).await?;
        if ends { Ok(()) } else { client.write_body(Some(self.body), true).await }
    }
}
