//! Who calls: one extractor type for each kind of caller, so that a route without its check does not compile.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{FromRef, FromRequestParts};
use gatehouse_shared::contract::{Forwarded, Verdict};
use http::{StatusCode, header, request::Parts};

use super::ApiError;
pub use crate::accounts::Requester;
use crate::accounts::{Accounts, TokenError};

/// The client's address, as the edge vouches for it.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddr(pub IpAddr);

/// A requester who is an administrator of this server.
#[derive(Debug, Clone)]
pub struct Admin(pub Requester);

/// A requester, or nobody when the request has no access token. A wrong token is an error all the same.
#[derive(Debug, Clone)]
pub struct MaybeRequester(pub Option<Requester>);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddr {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // The gate puts it there before any handler runs.
        let forwarded = parts.extensions.get::<Forwarded>();
        Ok(Self(forwarded.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |forwarded| forwarded.client)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Requester
where
    Accounts: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let token = access_token(parts).ok_or_else(missing_token)?;
        let ClientAddr(client) = ClientAddr::from_request_parts(parts, state).await?;
        let accounts = Accounts::from_ref(state);
        accounts.authenticate(&token, client).await.map_err(ApiError::from)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MaybeRequester
where
    Accounts: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if access_token(parts).is_none() {
            return Ok(Self(None));
        }
        Requester::from_request_parts(parts, state).await.map(|requester| Self(Some(requester)))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Admin
where
    Accounts: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let requester = Requester::from_request_parts(parts, state).await?;
        if requester.is_admin { Ok(Self(requester)) } else { Err(ApiError::forbidden("You are no administrator")) }
    }
}

/// The token of the `Authorization` header, or of the query where old clients put it.
fn access_token(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let query = parts.uri.query()?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == "access_token").map(|(_, token)| token.into_owned())
}

fn missing_token() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "This request needs an access token")
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        let unknown = |message| Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message);
        match error {
            TokenError::Unknown => unknown("This token is not known (any more)")
                .with("soft_logout", false)
                .with_verdict(Verdict::BadToken("access-token".to_owned())),
            TokenError::Expired => unknown("The access token has expired; refresh it").with("soft_logout", true),
            TokenError::Db(error) => error.into(),
            TokenError::Commit(error) => error.into(),
        }
    }
}

impl Requester {
    /// For endpoints with the user's own id in the path.
    ///
    /// # Errors
    /// `M_FORBIDDEN` for the id of another user.
    pub fn must_be(&self, user_id: &ruma::UserId) -> Result<(), ApiError> {
        if self.user_id == *user_id { Ok(()) } else { Err(ApiError::forbidden("This belongs to another user")) }
    }
}
