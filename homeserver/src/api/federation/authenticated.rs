//! The extractors of requests that another server signed: without them no handler learns who asks.

use axum::extract::{FromRef, FromRequest, Request};
use gatehouse_shared::{contract::Verdict, limits::MAX_FEDERATION_JSON_BYTES};
use http::StatusCode;
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

impl<S> FromRequest<S> for SignedRequest
where
    S: Send + Sync,
    Federation: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let limit = usize::try_from(MAX_FEDERATION_JSON_BYTES).unwrap_or(usize::MAX);
        let (request, path_args) = collect(request, state, limit).await?;
        let origin = Federation::from_ref(state).authenticate(&request).await?;
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
