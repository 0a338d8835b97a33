//! What a client hears about aliases and the list of published rooms.

use http::StatusCode;

use super::ApiError;
use crate::rooms::{CreateAliasError, DeleteAliasError, ListAliasesError, ListPublishedError, PublishError};

impl From<CreateAliasError> for ApiError {
    fn from(error: CreateAliasError) -> Self {
        let message = error.to_string();
        match error {
            CreateAliasError::NotOurs => Self::invalid_param(message),
            CreateAliasError::UnknownRoom => Self::not_found(message),
            CreateAliasError::NotInRoom => Self::forbidden(message),
            CreateAliasError::Taken => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", message),
            CreateAliasError::Db(error) => error.into(),
        }
    }
}

impl From<DeleteAliasError> for ApiError {
    fn from(error: DeleteAliasError) -> Self {
        let message = error.to_string();
        match error {
            DeleteAliasError::NotFound => Self::not_found(message),
            DeleteAliasError::Forbidden => Self::forbidden(message),
            DeleteAliasError::Db(error) => error.into(),
        }
    }
}

impl From<ListAliasesError> for ApiError {
    fn from(error: ListAliasesError) -> Self {
        let message = error.to_string();
        match error {
            ListAliasesError::UnknownRoom => Self::not_found(message),
            ListAliasesError::NotInRoom => Self::forbidden(message),
            ListAliasesError::Db(error) => error.into(),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let message = error.to_string();
        match error {
            PublishError::UnknownRoom => Self::not_found(message),
            PublishError::Forbidden => Self::forbidden(message),
            PublishError::Db(error) => error.into(),
        }
    }
}

impl From<ListPublishedError> for ApiError {
    fn from(error: ListPublishedError) -> Self {
        let message = error.to_string();
        match error {
            ListPublishedError::BadToken => Self::invalid_param(message),
            ListPublishedError::Db(error) => error.into(),
        }
    }
}
