//! Turns HTTP requests into ruma's request types and ruma's responses into HTTP.

use axum::{
    body::Body,
    extract::{FromRequest, RawPathParams, Request},
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use bytes::BytesMut;
use http_body_util::{BodyExt, Limited};
use ruma::api::{
    IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt, path_builder::PathBuilder,
};

use super::ApiError;

/// The largest JSON body of a client's request, in bytes. Media has its own limit, and its own handler.
pub const MAX_JSON_BODY: usize = 1024 * 1024;

/// A request of the specification, or the answer to one.
pub struct Ruma<T>(pub T);

impl<S, T> FromRequest<S> for Ruma<T>
where
    S: Send + Sync,
    T: IncomingRequest,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (request, path_args) = collect(request, state, MAX_JSON_BODY).await?;
        parse(&request, &path_args)
    }
}

/// A request whose body is not collected but handed on as it comes: ruma's type without its content, and the body.
pub struct RumaHead<T> {
    pub head: T,
    pub body: Body,
    /// What `Content-Length` says, in bytes.
    pub length: Option<u64>,
}

impl<S, T> FromRequest<S> for RumaHead<T>
where
    S: Send + Sync,
    T: IncomingRequest,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let length =
            parts.headers.get(http::header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (request, path_args) = collect(Request::from_parts(parts, Body::empty()), state, 0).await?;
        let Ruma(head) = parse(&request, &path_args)?;
        Ok(Self { head, body, length })
    }
}

/// Reads the whole body, at most `limit` bytes of it, and the decoded path arguments in order.
///
/// # Errors
/// `M_TOO_LARGE` past the limit, `M_INVALID_PARAM` for a path that is no UTF-8.
pub async fn collect<S: Send + Sync>(
    request: Request,
    state: &S,
    limit: usize,
) -> Result<(http::Request<bytes::Bytes>, Vec<String>), ApiError> {
    use axum::extract::FromRequestParts;
    let (mut parts, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut parts, state)
        .await
        .map_err(|_| ApiError::invalid_param("The path is not valid UTF-8"))?;
    let path_args: Vec<String> = params.iter().map(|(_, value)| value.to_owned()).collect();
    // No text of the specification has one, and PostgreSQL keeps none.
    let has_zero_byte = parts.uri.query().is_some_and(|query| query.contains("%00"));
    if has_zero_byte || path_args.iter().any(|value| value.contains('\0')) {
        return Err(ApiError::invalid_param("The path or the query has a zero byte"));
    }
    let body = Limited::new(body, limit).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ApiError::too_large("The request's body is too large")
        } else {
            ApiError::not_json("The request's body ended early")
        }
    })?;
    Ok((http::Request::from_parts(parts, body.to_bytes()), path_args))
}

/// Reads a collected request as ruma's type.
///
/// # Errors
/// `M_NOT_JSON`, `M_BAD_JSON` or `M_INVALID_PARAM`, as the specification has it.
pub fn parse<T: IncomingRequest>(
    request: &http::Request<bytes::Bytes>,
    path_args: &[String],
) -> Result<Ruma<T>, ApiError> {
    // serde would skip over bytes that nobody reads, and takes a list for an object with its fields in order.
    if std::str::from_utf8(request.body()).is_err() {
        return Err(ApiError::not_json("The body is not valid UTF-8"));
    }
    if request.body().trim_ascii_start().starts_with(b"[") {
        return Err(ApiError::bad_json("The body is a list, where an object is expected"));
    }
    // Endpoints whose last path argument may be left out (the state key) have one argument less then.
    let expected = T::PATH_BUILDER.all_paths().next().map_or(0, |path| path.matches('{').count());
    let mut args: Vec<&str> = path_args.iter().map(String::as_str).collect();
    if args.len() < expected {
        args.resize(expected, "");
    }
    // Clients may leave out a body in which everything is optional; not all of ruma's types know that.
    let left_out = request.body().is_empty() && request.method() != http::Method::GET;
    let mut borrowed = http::Request::new(if left_out { b"{}" } else { request.body().as_ref() });
    *borrowed.method_mut() = request.method().clone();
    *borrowed.uri_mut() = request.uri().clone();
    *borrowed.headers_mut() = request.headers().clone();
    T::try_from_http_request(borrowed, &args).map(Ruma).map_err(ApiError::from)
}

impl<T: OutgoingResponse> IntoResponse for Ruma<T> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<BytesMut>() {
            Ok(response) => response.map(|body| Body::from(body.freeze())),
            Err(error) => {
                tracing::error!(%error, "an answer could not be written");
                ApiError::internal().into_response()
            }
        }
    }
}

/// Registers handlers under the paths that ruma knows for a request.
pub trait RumaRouter<S> {
    /// Registers `handler` for every path of `T`, stable and unstable, under its method.
    #[must_use]
    fn endpoint<T, H, A>(self, handler: H) -> Self
    where
        T: IncomingRequest,
        H: Handler<A, S>,
        A: 'static;
}

impl<S: Clone + Send + Sync + 'static> RumaRouter<S> for axum::Router<S> {
    fn endpoint<T, H, A>(mut self, handler: H) -> Self
    where
        T: IncomingRequest,
        H: Handler<A, S>,
        A: 'static,
    {
        let method = MethodFilter::try_from(T::METHOD).expect("ruma's methods are ordinary ones");
        for path in T::PATH_BUILDER.all_paths() {
            let numbered = numbered(path);
            if let Some(prefix) = path.strip_suffix("/{state_key}").map(self::numbered) {
                self = self.route(&prefix, on(method, handler.clone()));
                self = self.route(&format!("{prefix}/"), on(method, handler.clone()));
            }
            self = self.route(&numbered, on(method, handler.clone()));
        }
        self
    }
}

/// Names path arguments by their place: ruma names the same place differently in different endpoints, which the router
/// would take for a conflict.
fn numbered(path: &str) -> String {
    let mut count = 0;
    let segments = path.split('/').map(|segment| {
        if !segment.starts_with('{') {
            return segment.to_owned();
        }
        count += 1;
        format!("{{arg{count}}}")
    });
    segments.collect::<Vec<_>>().join("/")
}
