//! What a client hears from e2ee.

use http::StatusCode;

use super::ApiError;
use crate::e2ee::{
    BackupError, KeyChangesError, SendToDeviceError, UploadKeysError, UploadSignaturesError, UploadSigningKeysError,
};

impl From<UploadKeysError> for ApiError {
    fn from(error: UploadKeysError) -> Self {
        let message = error.to_string();
        match error {
            UploadKeysError::DeviceKeys(source) => Self::bad_json(format!("device_keys: {source}")),
            UploadKeysError::WrongOwner | UploadKeysError::OneTimeKey(_) => Self::invalid_param(message),
            UploadKeysError::Exists(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message),
            UploadKeysError::NoDevice => {
                Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "This device is logged out")
            }
            UploadKeysError::Commit(error) => error.into(),
            UploadKeysError::Db(error) => error.into(),
        }
    }
}

impl From<UploadSigningKeysError> for ApiError {
    fn from(error: UploadSigningKeysError) -> Self {
        let message = error.to_string();
        match error {
            UploadSigningKeysError::Key { .. } => Self::invalid_param(message),
            UploadSigningKeysError::Signature(_) => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", message),
            UploadSigningKeysError::NoMasterKey => Self::missing_param(message),
            UploadSigningKeysError::NamedLikeDevice(_) => Self::forbidden(message),
            UploadSigningKeysError::Commit(error) => error.into(),
            UploadSigningKeysError::Db(error) => error.into(),
        }
    }
}

impl From<UploadSignaturesError> for ApiError {
    fn from(error: UploadSignaturesError) -> Self {
        match error {
            UploadSignaturesError::Commit(error) => error.into(),
            UploadSignaturesError::Db(error) => error.into(),
            error => Self::invalid_param(error.to_string()),
        }
    }
}

impl From<KeyChangesError> for ApiError {
    fn from(error: KeyChangesError) -> Self {
        match error {
            KeyChangesError::Token(_) => Self::invalid_param(error.to_string()),
            KeyChangesError::Db(error) => error.into(),
        }
    }
}

impl From<SendToDeviceError> for ApiError {
    fn from(error: SendToDeviceError) -> Self {
        match error {
            SendToDeviceError::TooLarge => Self::too_large("A message is larger than 64 KiB"),
            SendToDeviceError::Name => Self::invalid_param(error.to_string()),
            SendToDeviceError::Commit(error) => error.into(),
            SendToDeviceError::Db(error) => error.into(),
        }
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        let message = error.to_string();
        match error {
            BackupError::NotFound => Self::not_found(message),
            BackupError::WrongVersion { current } => {
                Self::new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION", message)
                    .with("current_version", current.to_string())
            }
            BackupError::OtherAlgorithm | BackupError::OtherVersion => Self::invalid_param(message),
            BackupError::Shape(_) => Self::bad_json(message),
            BackupError::Db(error) => error.into(),
        }
    }
}
