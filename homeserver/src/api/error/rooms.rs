//! What a client hears from rooms and memberships.

use http::StatusCode;

use super::ApiError;
use crate::{
    membership::MembershipError,
    rooms::AppendError,
    rules::pdu::{BuildError, PduError},
    storage::DbError,
    stream::CommitError,
};

impl From<AppendError> for ApiError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::UnknownRoom => Self::not_found("This server does not know the room"),
            AppendError::UnknownEvent => Self::not_found("The event is not in the room"),
            AppendError::BadAlias(alias) => Self::new(
                StatusCode::BAD_REQUEST,
                "M_BAD_ALIAS",
                format!("The alias {alias} does not lead to the room"),
            ),
            AppendError::Forbidden(error) => Self::forbidden(error.to_string()),
            AppendError::Format(BuildError::Format(error @ (PduError::TooLarge { .. } | PduError::TooLong { .. }))) => {
                Self::too_large(error.to_string())
            }
            AppendError::Format(BuildError::Sign(error)) => Self::too_large(error.to_string()),
            AppendError::Format(BuildError::Format(error)) => Self::bad_json(error.to_string()),
            AppendError::Busy => Self::unavailable(std::time::Duration::from_secs(1)),
            AppendError::Resolve(error) => {
                tracing::error!(%error, "a room's state cannot be resolved");
                Self::internal()
            }
            AppendError::Commit(error) => error.into(),
            AppendError::Db(error) => error.into(),
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        let message = error.to_string();
        match error {
            MembershipError::UnknownRoom | MembershipError::UnknownAlias => Self::not_found(message),
            MembershipError::NotInRoom
            | MembershipError::TargetNotInRoom
            | MembershipError::AlreadyJoined
            | MembershipError::Banned
            | MembershipError::NoKnocks
            | MembershipError::ConditionsNotMet => Self::forbidden(message),
            MembershipError::CannotAuthorise => Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN", message),
            MembershipError::NotBanned => Self::new(StatusCode::BAD_REQUEST, "M_BAD_STATE", message),
            MembershipError::StillInRoom => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message),
            MembershipError::Handshake(error) => error.into(),
            MembershipError::Invite(error) => error.into(),
            MembershipError::Query(error) => error.into(),
            MembershipError::Append(error) => error.into(),
            MembershipError::Commit(error) => error.into(),
            MembershipError::Db(error) => error.into(),
        }
    }
}

/// The answer when a room cannot be made because its alias is taken.
pub(in crate::api) fn creation(error: MembershipError) -> ApiError {
    let is_taken =
        |error: &CommitError| matches!(error, CommitError::Db(error) if matches!(**error, DbError::Constraint(_)));
    match error {
        MembershipError::Append(AppendError::Commit(error)) if is_taken(&error) => {
            ApiError::new(StatusCode::BAD_REQUEST, "M_ROOM_IN_USE", "The alias is taken")
        }
        MembershipError::Append(AppendError::Forbidden(error)) => {
            ApiError::new(StatusCode::BAD_REQUEST, "M_INVALID_ROOM_STATE", error.to_string())
        }
        error => error.into(),
    }
}
