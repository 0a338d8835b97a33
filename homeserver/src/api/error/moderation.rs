//! What a client hears about its reports.

use super::ApiError;
use crate::moderation::ReportError;

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotFound => Self::not_found("There is nothing of that name that you could report"),
            ReportError::Db(error) => error.into(),
        }
    }
}
