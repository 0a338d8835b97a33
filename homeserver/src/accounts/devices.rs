//! A user's devices: listing, naming, deleting, logging out.

use super::{Accounts, Requester, login::MAX_DEVICE_TEXT};
use crate::{
    storage::{
        DbError, Stmt, device_lists,
        devices::{self, DeviceRow},
    },
    stream::{Change, CommitError},
};

/// Why nothing was done with a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("the user has no such device")]
    NotFound,
    #[error("the device's name is too long, or has characters that no text has")]
    BadName,
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Accounts {
    /// All devices of a user, by id. When they were last seen is a minute or two late.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn devices(&self, user_nid: i64) -> Result<Vec<DeviceRow>, DbError> {
        devices::list(&self.inner.db, user_nid).await
    }

    /// All devices of a local user who is known by id.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] when there is no such user, and those of the database.
    pub async fn devices_of(&self, user_id: &ruma::UserId) -> Result<Vec<DeviceRow>, DeviceError> {
        let row = self.find_local(user_id).await?.ok_or(DeviceError::NotFound)?;
        Ok(self.devices(row.user_nid).await?)
    }

    /// One device of a user.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`], and those of the database.
    pub async fn device(&self, user_nid: i64, device_id: &str) -> Result<DeviceRow, DeviceError> {
        devices::find(&self.inner.db, user_nid, device_id).await?.ok_or(DeviceError::NotFound)
    }

    /// Gives a device another name; other users see it with the device's keys.
    ///
    /// # Errors
    /// [`DeviceError::NotFound`] or [`DeviceError::BadName`], and those of the database.
    pub async fn rename_device(
        &self,
        requester: &Requester,
        device_id: &str,
        display_name: Option<&str>,
    ) -> Result<(), DeviceError> {
        if display_name.is_some_and(|name| name.len() > MAX_DEVICE_TEXT || name.contains('\0')) {
            return Err(DeviceError::BadName);
        }
        let user_nid = requester.user_nid;
        let write = crate::stream::Write {
            guard: Some(devices::rename(user_nid, device_id, display_name).into()),
            statements: device_lists::device_changed(user_nid, device_id).into(),
            changes: vec![Change::Devices { user: user_nid }],
        };
        match self.inner.lane.commit(write).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict) => Err(DeviceError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes devices with their tokens and keys; those that are not there are no error.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn delete_devices<S: AsRef<str>>(&self, user_nid: i64, device_ids: &[S]) -> Result<(), CommitError> {
        if device_ids.is_empty() {
            return Ok(());
        }
        self.commit_tokens(user_nid, delete_statements(user_nid, device_ids), vec![Change::Devices { user: user_nid }])
            .await
    }

    /// Ends the session that the request came with; its device goes too.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn log_out(&self, requester: &Requester) -> Result<(), CommitError> {
        self.delete_devices(requester.user_nid, &[&requester.device_id]).await
    }

    /// Ends all sessions of a user.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn log_out_everywhere(&self, user_nid: i64) -> Result<(), LogOutError> {
        let all: Vec<String> = self.devices(user_nid).await?.into_iter().map(|device| device.device_id).collect();
        Ok(self.delete_devices(user_nid, &all).await?)
    }

    /// Ends all sessions of the requester except the one that asks.
    pub(super) async fn log_out_elsewhere(&self, requester: &Requester) -> Result<(), LogOutError> {
        let all = self.devices(requester.user_nid).await?.into_iter().map(|device| device.device_id);
        let others: Vec<String> = all.filter(|device_id| device_id != requester.device_id.as_str()).collect();
        Ok(self.delete_devices(requester.user_nid, &others).await?)
    }
}

/// Why sessions could not be ended.
#[derive(Debug, thiserror::Error)]
pub enum LogOutError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Everything that goes with a device: its tokens, its keys, and what waits for it.
pub(super) fn delete_statements<S: AsRef<str>>(user_nid: i64, device_ids: &[S]) -> Vec<Stmt> {
    let of_devices = device_ids.iter().flat_map(|device_id| device_lists::device_deleted(user_nid, device_id.as_ref()));
    devices::delete(user_nid, device_ids).into_iter().chain(of_devices).collect()
}
