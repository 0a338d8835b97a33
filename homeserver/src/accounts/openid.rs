//! OpenID tokens: a user proves to a third party which account is theirs.

use super::{Accounts, Requester, secret};
use crate::storage::{DbError, account_data};

/// How long an OpenID token is valid, in milliseconds.
const LIFETIME_MS: u64 = 60 * 60 * 1000;

/// A token that tells a third party, through this server, who somebody is.
#[derive(Debug)]
pub struct OpenIdToken {
    pub token: String,
    pub lifetime_ms: u64,
}

impl Accounts {
    /// A new OpenID token for the requester.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn request_openid_token(&self, requester: &Requester) -> Result<OpenIdToken, DbError> {
        let token = secret::opaque();
        let expires_ts = self.inner.clock.now_ms().saturating_add(LIFETIME_MS);
        let insert = account_data::insert_openid_token(&secret::digest(&token), requester.user_nid, expires_ts);
        self.inner.db.write(vec![insert]).await?;
        Ok(OpenIdToken { token, lifetime_ms: LIFETIME_MS })
    }

    /// Whom an OpenID token belongs to, while it is valid.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find_openid_user(&self, token: &str) -> Result<Option<ruma::OwnedUserId>, DbError> {
        let now = self.inner.clock.now_ms();
        match account_data::find_openid_user(&self.inner.db, &secret::digest(token), now).await? {
            Some(user_nid) => Ok(Some(self.inner.names.name(user_nid).await?)),
            None => Ok(None),
        }
    }
}
