//! What a client hears from accounts.

use gatehouse_shared::contract::Verdict;
use http::StatusCode;

use super::ApiError;
use crate::accounts::{
    AccountDataError, DeviceError, FilterError, HashError, LogOutError, LoginError, PasswordError, ProfileError,
    PushRuleError, RegisterError, Stage, UiaError, UsernameError,
};
use crate::rules::push::RuleError;

impl From<HashError> for ApiError {
    fn from(error: HashError) -> Self {
        tracing::error!(%error, "a password could not be hashed or verified");
        Self::internal()
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        let message = error.to_string();
        match error {
            LoginError::WrongPassword { user } => {
                Self::forbidden("The user name or the password is wrong").with_verdict(Verdict::LoginFailed(user))
            }
            LoginError::Deactivated { user } => {
                Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", "This account is deactivated")
                    .with_verdict(Verdict::LoginFailed(user))
            }
            LoginError::ThirdParty => Self::forbidden(message),
            LoginError::UnknownIdentifier(_) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message),
            LoginError::MissingUser => Self::missing_param(message),
            LoginError::BadDevice => Self::invalid_param(message),
            LoginError::Hash(error) => error.into(),
            LoginError::Db(error) => error.into(),
            LoginError::Commit(error) => error.into(),
        }
    }
}

impl From<UiaError> for ApiError {
    fn from(error: UiaError) -> Self {
        match error {
            UiaError::Needed(challenge) => Self::interactive(challenge.to_json()),
            UiaError::Failed { stage, subject, challenge } => {
                let verdict = match stage {
                    Stage::RegistrationToken => Verdict::RegistrationRefused(subject),
                    Stage::Password | Stage::Dummy => Verdict::LoginFailed(subject),
                };
                Self::interactive(challenge.to_json()).with_verdict(verdict)
            }
            UiaError::OtherRequest => Self::forbidden("This session was begun for another request"),
            UiaError::Login(error) => error.into(),
            UiaError::Db(error) => error.into(),
        }
    }
}

impl From<UsernameError> for ApiError {
    fn from(error: UsernameError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME", error.to_string())
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        let refused = |reason: &str| Verdict::RegistrationRefused(reason.to_owned());
        let message = error.to_string();
        match error {
            RegisterError::Closed => Self::forbidden(message).with_verdict(refused("closed")),
            RegisterError::InUse => Self::new(StatusCode::BAD_REQUEST, "M_USER_IN_USE", message),
            RegisterError::Username(error) => error.into(),
            RegisterError::NoPassword => Self::missing_param(message),
            RegisterError::WeakPassword => Self::new(StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD", message),
            RegisterError::UnknownNonce => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", message),
            RegisterError::WrongMac => Self::forbidden(message).with_verdict(refused("shared-secret")),
            RegisterError::Uia(error) => error.into(),
            RegisterError::Session(error) => error.into(),
            RegisterError::Hash(error) => error.into(),
            RegisterError::Db(error) => error.into(),
        }
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::NotFound => Self::not_found("There is no such device or user"),
            DeviceError::BadName => Self::invalid_param(error.to_string()),
            DeviceError::Db(error) => error.into(),
            DeviceError::Commit(error) => error.into(),
        }
    }
}

impl From<LogOutError> for ApiError {
    fn from(error: LogOutError) -> Self {
        match error {
            LogOutError::Db(error) => error.into(),
            LogOutError::Commit(error) => error.into(),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Weak(error) => error.into(),
            PasswordError::Hash(error) => error.into(),
            PasswordError::Db(error) => error.into(),
            PasswordError::Commit(error) => error.into(),
            PasswordError::LogOut(error) => error.into(),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::NotFound => Self::not_found("You have no such filter"),
            FilterError::Unwritable(error) => Self::bad_json(error.to_string()),
            FilterError::Db(error) => error.into(),
        }
    }
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        let message = error.to_string();
        match error {
            AccountDataError::NotFound => Self::not_found(message),
            AccountDataError::Reserved(_) => Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", message),
            AccountDataError::BadName => Self::invalid_param(message),
            AccountDataError::Db(error) => error.into(),
            AccountDataError::Commit(error) => error.into(),
        }
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        let message = error.to_string();
        match error {
            ProfileError::NotFound => Self::not_found(message),
            ProfileError::NotYours => Self::forbidden(message),
            ProfileError::KeyTooLong => Self::new(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE", message),
            ProfileError::BadKey | ProfileError::BadValue | ProfileError::BadAvatar => Self::invalid_param(message),
            ProfileError::ProfileTooLarge => Self::new(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE", message),
            ProfileError::Db(error) => error.into(),
        }
    }
}

impl From<PushRuleError> for ApiError {
    fn from(error: PushRuleError) -> Self {
        match error {
            PushRuleError::Rule(RuleError::NotFound) => Self::not_found("There is no such push rule"),
            PushRuleError::Rule(error @ RuleError::UnknownNeighbour) => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error.to_string())
            }
            PushRuleError::Rule(error) => Self::invalid_param(error.to_string()),
            PushRuleError::Db(error) => error.into(),
            PushRuleError::Commit(error) => error.into(),
        }
    }
}
