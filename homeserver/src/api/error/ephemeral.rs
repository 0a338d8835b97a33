//! What a client hears from ephemeral.

use super::ApiError;
use crate::ephemeral::{PresenceError, ReceiptError, TypingError};

const NOT_IN_ROOM: &str = "You are not in this room";

impl From<TypingError> for ApiError {
    fn from(error: TypingError) -> Self {
        match error {
            TypingError::NotJoined => Self::forbidden(NOT_IN_ROOM),
            TypingError::Commit(error) => error.into(),
            TypingError::Db(error) => error.into(),
        }
    }
}

impl From<ReceiptError> for ApiError {
    fn from(error: ReceiptError) -> Self {
        let message = error.to_string();
        match error {
            ReceiptError::NotJoined => Self::forbidden(NOT_IN_ROOM),
            ReceiptError::NoSuchEvent => Self::not_found(message),
            ReceiptError::ThreadId | ReceiptError::ThreadedMarker | ReceiptError::OtherThread => {
                Self::invalid_param(message)
            }
            ReceiptError::Commit(error) => error.into(),
            ReceiptError::Db(error) => error.into(),
        }
    }
}

impl From<PresenceError> for ApiError {
    fn from(error: PresenceError) -> Self {
        let message = error.to_string();
        match error {
            PresenceError::State => Self::invalid_param(message),
            PresenceError::StatusTooLong => Self::too_large(message),
            PresenceError::NotShared => Self::forbidden("You share no room with this user"),
            PresenceError::Commit(error) => error.into(),
            PresenceError::Db(error) => error.into(),
        }
    }
}
