//! Logging in, refreshing, logging out.

use std::net::IpAddr;

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;

use super::{Accounts, HashError, Requester, TokenError, secret};
use crate::{
    storage::{DbError, access_tokens, devices, users},
    stream::{Change, CommitError, Write},
};

/// The longest device id and device name that are taken, in bytes.
pub(super) const MAX_DEVICE_TEXT: usize = 512;

/// Who wants to log in, as clients name it (client-server API, "Identifier types"). Unknown kinds are read too, so that
/// the answer can say that they are unknown.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct UserIdentifier {
    #[serde(rename = "type")]
    pub kind: String,
    /// `m.id.user`: the localpart or the whole id.
    pub user: Option<String>,
}

/// A login by password.
pub struct LoginRequest {
    pub identifier: UserIdentifier,
    pub password: String,
    pub device: NewDevice,
    pub client: IpAddr,
}

/// The device that a login or registration makes.
#[derive(Debug, Clone, Default)]
pub struct NewDevice {
    pub device_id: Option<String>,
    pub display_name: Option<String>,
    /// Whether the client can use refresh tokens.
    pub refreshable: bool,
}

/// What a client needs to go on as its user.
#[derive(Debug)]
pub struct NewSession {
    pub user_id: OwnedUserId,
    pub device_id: String,
    pub access_token: String,
    pub refresh_token: Option<String>,
    /// Milliseconds until the access token ends; `None`: it does not.
    pub expires_in_ms: Option<u64>,
}

/// Why nobody was logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("the user name or the password is wrong")]
    WrongPassword { user: String },
    #[error("the account is deactivated")]
    Deactivated { user: String },
    #[error("users are not found by e-mail address or telephone number here; log in with the user name")]
    ThirdParty,
    #[error("identifiers of type {0:?} are not known; log in with the user name")]
    UnknownIdentifier(String),
    #[error("the user name is missing")]
    MissingUser,
    #[error("the device's id or name is too long, or has characters that no text has")]
    BadDevice,
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Accounts {
    /// Whom an access token belongs to. No database for a token that this shard has seen before.
    ///
    /// # Errors
    /// [`TokenError::Unknown`], or [`TokenError::Expired`] when its device can refresh it.
    pub async fn authenticate(&self, token: &str, client: IpAddr) -> Result<Requester, TokenError> {
        self.inner.sessions.authenticate(token, client).await
    }

    /// Logs a user in with a password, on a new device or on one that it names.
    ///
    /// # Errors
    /// [`LoginError::WrongPassword`] for unknown users too, after the same time.
    pub async fn login(&self, request: LoginRequest) -> Result<NewSession, LoginError> {
        let LoginRequest { identifier, password, device, client } = request;
        let named = named_user(&identifier)?;
        check_device(&device)?;
        let wrong = || LoginError::WrongPassword { user: named.to_owned() };
        let account = match self.local_user(named) {
            Some(user_id) => self.find_account(user_id).await?,
            None => None,
        };
        let hash = account.as_ref().and_then(|(_, row)| row.password_hash.clone());
        let matches = self.inner.passwords.verify(password, hash).await?;
        let (user_id, row) = account.ok_or_else(wrong)?;
        if row.is_deactivated {
            return Err(LoginError::Deactivated { user: user_id.into() });
        }
        if !matches {
            return Err(wrong());
        }
        self.begin_session(row.user_nid, user_id, device, client).await
    }

    /// Whether `password` is that of an account which can log in.
    pub(super) async fn verify_password(&self, user_nid: i64, password: String) -> Result<bool, LoginError> {
        let row = users::find(&self.inner.db, user_nid).await?.filter(|row| !row.is_deactivated);
        Ok(self.inner.passwords.verify(password, row.and_then(|row| row.password_hash)).await?)
    }

    /// The id of the user that a client names, when it can be one of this server.
    pub(super) fn local_user(&self, named: &str) -> Option<OwnedUserId> {
        let server_name = self.server_name();
        if named.starts_with('@') {
            return UserId::parse(named).ok().filter(|user_id| user_id.server_name() == server_name);
        }
        UserId::parse(format!("@{named}:{server_name}")).ok().filter(|user_id| user_id.localpart() == named)
    }

    /// The account of a user; names are found without regard to case when they are not found as written.
    async fn find_account(&self, user_id: OwnedUserId) -> Result<Option<(OwnedUserId, users::UserRow)>, DbError> {
        if let Some(row) = self.find_local(&user_id).await? {
            return Ok(Some((user_id, row)));
        }
        let lower = format!("@{}:{}", user_id.localpart().to_lowercase(), self.server_name());
        match UserId::parse(lower) {
            Ok(lower) if lower != user_id => Ok(self.find_local(&lower).await?.map(|row| (lower, row))),
            _ => Ok(None),
        }
    }

    /// The account row of a local user, deactivated ones included.
    pub(super) async fn find_local(&self, user_id: &UserId) -> Result<Option<users::UserRow>, DbError> {
        match self.inner.names.find(user_id).await? {
            Some(user_nid) => users::find(&self.inner.db, user_nid).await,
            None => Ok(None),
        }
    }

    /// Makes or takes over a device, and gives it tokens. Earlier tokens of the device end.
    pub(super) async fn begin_session(
        &self,
        user_nid: i64,
        user_id: OwnedUserId,
        device: NewDevice,
        client: IpAddr,
    ) -> Result<NewSession, LoginError> {
        let is_named = device.device_id.is_some();
        let device_id = device.device_id.unwrap_or_else(secret::device_id);
        let minted = self.inner.sessions.mint(user_nid, &user_id, &device_id, device.refreshable);
        let now = self.inner.clock.now_ms();
        let upsert = devices::upsert(user_nid, &device_id, device.display_name.as_deref(), &client.to_string(), now);
        if is_named {
            let statements =
                vec![access_tokens::delete_of_device(user_nid, &device_id), upsert, minted.statement.clone()];
            self.commit_tokens(user_nid, statements, Vec::new()).await?;
        } else {
            // Nobody has to learn of tokens that did not exist before.
            self.inner.db.write(vec![upsert, minted.statement.clone()]).await?;
        }
        Ok(NewSession {
            user_id,
            device_id,
            access_token: minted.access,
            refresh_token: minted.refresh,
            expires_in_ms: minted.lifetime_ms,
        })
    }

    /// New tokens for a refresh token: access token, refresh token, and the milliseconds until the first one ends.
    ///
    /// # Errors
    /// [`TokenError::Unknown`] for a refresh token that was replaced or never given.
    pub async fn refresh(&self, refresh_token: &str) -> Result<(String, Option<String>, Option<u64>), TokenError> {
        let minted = self.inner.sessions.refresh(refresh_token).await?;
        Ok((minted.access, minted.refresh, minted.lifetime_ms))
    }

    /// Commits statements that change a user's tokens, and lets every shard forget what it knows of them.
    pub(super) async fn commit_tokens(
        &self,
        user_nid: i64,
        statements: Vec<crate::storage::Stmt>,
        mut changes: Vec<Change>,
    ) -> Result<(), CommitError> {
        changes.push(Change::Tokens { user: user_nid });
        self.inner.lane.commit(Write { guard: None, statements, changes }).await?;
        self.inner.sessions.forget(user_nid);
        Ok(())
    }
}

fn named_user(identifier: &UserIdentifier) -> Result<&str, LoginError> {
    match identifier.kind.as_str() {
        "m.id.user" => identifier.user.as_deref().filter(|user| !user.is_empty()).ok_or(LoginError::MissingUser),
        "m.id.thirdparty" | "m.id.phone" => Err(LoginError::ThirdParty),
        other => Err(LoginError::UnknownIdentifier(other.to_owned())),
    }
}

pub(super) fn check_device(device: &NewDevice) -> Result<(), LoginError> {
    let texts = [&device.device_id, &device.display_name];
    let bad = |text: &String| text.len() > MAX_DEVICE_TEXT || text.contains('\0');
    let empty_id = device.device_id.as_ref().is_some_and(String::is_empty);
    if empty_id || texts.into_iter().flatten().any(bad) { Err(LoginError::BadDevice) } else { Ok(()) }
}
