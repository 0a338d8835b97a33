//! Changing the password, and giving the account up.

use super::{
    Accounts, HashError, RegisterError, Requester,
    devices::{LogOutError, delete_statements},
    registration::check_password,
};
use crate::{
    storage::{DbError, account_data, profiles, users},
    stream::{Change, CommitError},
};

/// Whether a deactivated user asks that what they sent is forgotten as far as possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    Keep,
    Erase,
}

/// Whether the other sessions end with a new password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherSessions {
    Keep,
    End,
}

/// Why the password or the account is as before.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error(transparent)]
    Weak(#[from] RegisterError),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    LogOut(#[from] LogOutError),
}

impl Accounts {
    /// Sets a new password; the requester has confirmed it before.
    ///
    /// # Errors
    /// [`PasswordError::Weak`] for a password that is not taken, and those of the database.
    pub async fn change_password(
        &self,
        requester: &Requester,
        password: String,
        others: OtherSessions,
    ) -> Result<(), PasswordError> {
        check_password(&password)?;
        let hash = self.inner.passwords.hash(password).await?;
        self.inner.db.write(vec![users::set_password_hash(requester.user_nid, &hash)]).await?;
        if others == OtherSessions::End {
            self.log_out_elsewhere(requester).await?;
        }
        Ok(())
    }

    /// Gives the account up for good: no password, no sessions, no profile, nothing that clients kept, and out of every
    /// room. The name stays taken.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn deactivate(&self, requester: &Requester, erasure: Erasure) -> Result<(), PasswordError> {
        let user_nid = requester.user_nid;
        let devices: Vec<String> = self.devices(user_nid).await?.into_iter().map(|device| device.device_id).collect();
        let mut statements = vec![users::deactivate(user_nid, erasure == Erasure::Erase), profiles::delete(user_nid)];
        statements.extend(account_data::delete_all(user_nid));
        statements.extend(delete_statements(user_nid, &devices));
        self.commit_tokens(user_nid, statements, vec![Change::Devices { user: user_nid }]).await?;
        // The account is gone by now, so this is no failure of the request.
        if let Err(error) = self.inner.membership.leave_everything(&requester.user_id).await {
            tracing::warn!(%error, user.id = %requester.user_id, "a deactivated user is still in rooms");
        }
        Ok(())
    }
}
