//! What a client hears when reading fails.

use super::ApiError;
use crate::sync::{ParseTokenError, ReadError};

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Token(error) => error.into(),
            ReadError::UnknownFilter => Self::not_found("There is no filter of this id"),
            ReadError::NotInRoom => Self::forbidden("You are not in this room, and it is not open to everybody"),
            ReadError::UnknownEvent => Self::not_found("There is no such event, or you may not see it"),
            ReadError::UnknownState => Self::not_found("The room has no state of this type and key"),
            ReadError::Db(error) => error.into(),
        }
    }
}

impl From<ParseTokenError> for ApiError {
    fn from(_: ParseTokenError) -> Self {
        Self::invalid_param("The token is none of this server")
    }
}
