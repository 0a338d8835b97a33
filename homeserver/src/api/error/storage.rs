//! What a client hears when the database or the lane cannot do it.

use std::time::Duration;

use super::ApiError;
use crate::{storage::DbError, stream::CommitError};

/// When a client should try again after the database was away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        Self::from(&error)
    }
}

impl From<&DbError> for ApiError {
    fn from(error: &DbError) -> Self {
        tracing::error!(error = error as &dyn std::error::Error, "the database failed");
        match error {
            DbError::DiskFull(_) => Self::no_space(),
            error if error.is_transient() => Self::unavailable(RETRY_AFTER),
            _ => Self::internal(),
        }
    }
}

impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict | CommitError::Closed => Self::unavailable(RETRY_AFTER),
            CommitError::Db(error) => Self::from(error.as_ref()),
        }
    }
}
