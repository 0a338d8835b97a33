//! What another server hears when we refuse it, and what a client hears of other servers.

use std::time::Duration;

use gatehouse_shared::contract::Verdict;
use http::StatusCode;

use super::ApiError;
use crate::{
    federation::{HandshakeError, InviteError, QueryError, ReceivePduError, ServeError, TransactionError},
    remote::RequestError,
    rooms::ReceiveError,
};

/// When another server should send again what we could not take in.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl From<ServeError> for ApiError {
    fn from(error: ServeError) -> Self {
        let message = error.to_string();
        match error {
            ServeError::NotFound | ServeError::NoSuchUser => Self::not_found(message),
            ServeError::NotInRoom | ServeError::NotAdmitted | ServeError::OtherServersUser => Self::forbidden(message),
            ServeError::IncompatibleVersion(version) => {
                Self::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", message).with("room_version", version)
            }
            ServeError::UnsupportedVersion(version) => {
                Self::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", message)
                    .with("room_version", version.0)
            }
            ServeError::WrongEvent(_) => Self::invalid_param(message),
            ServeError::Event(error) => error.into(),
            ServeError::Forbidden(_) => Self::forbidden(message),
            ServeError::UnableToAuthorise => Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN", message),
            ServeError::UnableToGrant => Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN", message),
            ServeError::Append(error) => error.into(),
            ServeError::Commit(error) => error.into(),
            ServeError::Db(error) => error.into(),
        }
    }
}

impl From<ReceivePduError> for ApiError {
    fn from(error: ReceivePduError) -> Self {
        let message = error.to_string();
        match error {
            ReceivePduError::UnknownRoom => Self::not_found(message),
            ReceivePduError::NotAdmitted | ReceivePduError::Signatures(_) => Self::forbidden(message),
            ReceivePduError::OtherRoom | ReceivePduError::Malformed(_) => Self::bad_json(message),
            ReceivePduError::Incomplete(_) | ReceivePduError::Request(_) => Self::unavailable(RETRY_AFTER),
            ReceivePduError::Room(error) => error.into(),
            ReceivePduError::Db(error) => error.into(),
        }
    }
}

impl From<ReceiveError> for ApiError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::UnknownRoom => Self::not_found("This server does not take part in the room"),
            ReceiveError::MissingPrev(_) | ReceiveError::UnknownState | ReceiveError::Busy => {
                Self::unavailable(RETRY_AFTER)
            }
            ReceiveError::Refused(_) => Self::invalid_param(error.to_string()),
            ReceiveError::Resolve(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a room's state cannot be resolved");
                Self::internal()
            }
            ReceiveError::Commit(error) => error.into(),
            ReceiveError::Db(error) => error.into(),
        }
    }
}

impl From<TransactionError> for ApiError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::TooLarge => {
                Self::too_large(error.to_string()).with_verdict(Verdict::RateLimited("transaction".to_owned()))
            }
            TransactionError::Ours(error) => error.into(),
            TransactionError::Commit(error) => error.into(),
            TransactionError::Db(error) => error.into(),
        }
    }
}

impl From<HandshakeError> for ApiError {
    fn from(error: HandshakeError) -> Self {
        let message = error.to_string();
        match error {
            HandshakeError::NoServer => Self::not_found(message),
            HandshakeError::Request(error) => error.into(),
            HandshakeError::UnsupportedVersion(_) => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION", message)
            }
            HandshakeError::Nonsense(_) | HandshakeError::Event(_) => bad_gateway(message),
            HandshakeError::Forbidden(_) => Self::forbidden(message),
            HandshakeError::Build(_) => Self::bad_json(message),
            HandshakeError::Room(error) => error.into(),
            HandshakeError::Commit(error) => error.into(),
            HandshakeError::Db(error) => error.into(),
        }
    }
}

impl From<InviteError> for ApiError {
    fn from(error: InviteError) -> Self {
        let message = error.to_string();
        match error {
            InviteError::Append(error) => error.into(),
            InviteError::Request(error) => error.into(),
            InviteError::Nonsense(_) => bad_gateway(message),
            InviteError::Forbidden(_) => Self::forbidden(message),
            InviteError::Room(error) => error.into(),
            InviteError::Db(error) => error.into(),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NotFound => Self::not_found(error.to_string()),
            QueryError::Request(error) => error.into(),
        }
    }
}

/// What a client hears when another server was needed. Refusals are passed on, so that the person learns why.
impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        tracing::info!(error = &error as &dyn std::error::Error, "another server was needed for a client's request");
        match error {
            RequestError::Refused { status, errcode, message, .. }
                if status.is_client_error() && errcode.starts_with("M_") && status != StatusCode::UNAUTHORIZED =>
            {
                Self::new(status, &errcode, message)
            }
            RequestError::Disabled => Self::forbidden("This server does not federate"),
            RequestError::Denied(server) => Self::forbidden(format!("This server has nothing to do with {server}")),
            RequestError::Ourselves | RequestError::Unmakeable(_) => Self::internal(),
            other => bad_gateway(other.to_string()),
        }
    }
}

/// Another server did not do its part.
fn bad_gateway(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
}
