//! The extractors of requests that another server signed: without them no handler learns who asks.

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRef, FromRequest, Request},
    middleware::Next,
    response::Response,
};
use gatehouse_shared::{
    contract::{ORIGIN, Verdict},
    limits::MAX_FEDERATION_JSON_BYTES,
};
use http::{HeaderValue, StatusCode};
use ruma::{OwnedServerName, api::IncomingRequest};

use crate::{
    api::{
        ApiError,
        endpoint::{collect, parse},
    },
    federation::Federation,
    remote::RequestAuthError,
};

/// A request of the specification, and the server that signed it.
pub struct FederationOrigin<T> {
    pub origin: OwnedServerName,
    pub request: T,
}

/// A signed request that no type of ruma's fits: its body, and the path's arguments in order.
pub struct SignedRequest {
    pub origin: OwnedServerName,
    pub request: http::Request<bytes::Bytes>,
    pub path_args: Vec<String>,
}

/// Where the extractor leaves whose signature it found right, for the answer.
#[derive(Clone, Default)]
struct Proven(Arc<OnceLock<OwnedServerName>>);

/// Tells the edge whose signature was right, whatever became of the request afterwards.
pub(super) async fn name_origin(mut request: Request, next: Next) -> Response {
    let proven = Proven::default();
    request.extensions_mut().insert(proven.clone());
    let mut response = next.run(request).await;
    if let Some(origin) = proven.0.get()
        && let Ok(value) = HeaderValue::from_str(origin.as_str())
    {
        response.headers_mut().insert(ORIGIN, value);
    }
    response
}

impl<S> FromRequest<S> for SignedRequest
where
    S: Send + Sync,
    Federation: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let proven = request.extensions().get::<Proven>().cloned();
        let limit = usize::try_from(MAX_FEDERATION_JSON_BYTES).unwrap_or(usize::MAX);
        let (request, path_args) = collect(request, state, limit).await?;
        let origin = Federation::from_ref(state).authenticate(&request).await?;
        if let Some(Proven(place)) = proven {
            // A request is authenticated once.
            let _ = place.set(origin.clone());
        }
        Ok(Self { origin, request, path_args })
    }
}

impl<S, T> FromRequest<S> for FederationOrigin<T>
where
    S: Send + Sync,
    T: IncomingRequest,
    Federation: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let SignedRequest { origin, request, path_args } = SignedRequest::from_request(request, state).await?;
        Ok(Self { origin, request: parse(&request, &path_args)?.0 })
    }
}

impl From<RequestAuthError> for ApiError {
    fn from(error: RequestAuthError) -> Self {
        let unauthorized = |errcode| Self::new(StatusCode::UNAUTHORIZED, errcode, error.to_string());
        match &error {
            RequestAuthError::Disabled => Self::forbidden(error.to_string()),
            RequestAuthError::Unsigned | RequestAuthError::OtherDestination => unauthorized("M_UNAUTHORIZED"),
            RequestAuthError::NoKey { origin, source } => {
                tracing::info!(error = source as &dyn std::error::Error, %origin, "a request cannot be verified");
                unauthorized("M_UNAUTHORIZED")
            }
            RequestAuthError::Wrong { origin } => {
                unauthorized("M_FORBIDDEN").with_verdict(Verdict::BadSignature(origin.to_string()))
            }
        }
    }
}
