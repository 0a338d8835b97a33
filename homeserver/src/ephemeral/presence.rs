//! Presence as users set it. Nothing is guessed from what they do.

use std::time::Duration;

use ruma::{UserId, presence::PresenceState};

use super::Ephemeral;
use crate::{
    storage::{
        DbError, device_lists,
        presence::{self, PresenceRow},
    },
    stream::{Change, CommitError, Write},
};

/// How long after its last sign of life a user counts as currently active.
const ACTIVE: Duration = Duration::from_secs(300);
/// Longest status message, in bytes.
const MAX_STATUS: usize = 2048;

/// A user's presence as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    pub presence: PresenceState,
    pub status_msg: Option<String>,
    pub last_active_ago: Option<Duration>,
    pub currently_active: bool,
}

/// Why presence was refused.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    #[error("no such state of presence")]
    State,
    #[error("the status message is too long")]
    StatusTooLong,
    #[error("the users share no room")]
    NotShared,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Ephemeral {
    /// Sets the presence of a local user.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub async fn set_presence(
        &self,
        user_nid: i64,
        state: &PresenceState,
        status_msg: Option<&str>,
    ) -> Result<(), PresenceError> {
        let last_active_ts = self.parts().clock.now_ms();
        self.store_presence(user_nid, state, status_msg, last_active_ts).await
    }

    /// Takes another server's word for its user's presence (part of an `m.presence` EDU). Passed over for users whom no
    /// local user shares a room with. The caller has checked that the sending server is the user's.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub async fn receive_presence(
        &self,
        user_id: &UserId,
        state: &PresenceState,
        status_msg: Option<&str>,
        last_active_ago: Duration,
    ) -> Result<(), PresenceError> {
        let Some(user_nid) = self.parts().names.find(user_id).await? else { return Ok(()) };
        if !device_lists::is_seen_by_local_users(&self.parts().db, user_nid).await? {
            return Ok(());
        }
        let ago = u64::try_from(last_active_ago.as_millis()).unwrap_or(u64::MAX);
        let last_active_ts = self.parts().clock.now_ms().saturating_sub(ago);
        self.store_presence(user_nid, state, status_msg, last_active_ts).await
    }

    async fn store_presence(
        &self,
        user_nid: i64,
        state: &PresenceState,
        status_msg: Option<&str>,
        last_active_ts: u64,
    ) -> Result<(), PresenceError> {
        if !matches!(state, PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline) {
            return Err(PresenceError::State);
        }
        if status_msg.is_some_and(|message| message.len() > MAX_STATUS) {
            return Err(PresenceError::StatusTooLong);
        }
        let row = PresenceRow {
            user_nid,
            presence: state.as_str().to_owned(),
            status_msg: status_msg.map(|message| message.replace('\0', "")),
            last_active_ts,
        };
        let write = Write {
            guard: None,
            statements: vec![presence::upsert(&row)],
            changes: vec![Change::Presence { user: user_nid }],
        };
        self.parts().lane.commit(write).await?;
        Ok(())
    }

    /// A user's presence, for a local user who shares a room with it or is it. A user who never set it is offline.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub async fn presence_of(&self, asker_nid: i64, user_id: &UserId) -> Result<Presence, PresenceError> {
        let user_nid = self.parts().names.find(user_id).await?.ok_or(PresenceError::NotShared)?;
        if user_nid != asker_nid && !presence::is_shared(&self.parts().db, asker_nid, user_nid).await? {
            return Err(PresenceError::NotShared);
        }
        let Some(row) = presence::find(&self.parts().db, user_nid).await? else {
            return Ok(Presence {
                presence: PresenceState::Offline,
                status_msg: None,
                last_active_ago: None,
                currently_active: false,
            });
        };
        let ago = Duration::from_millis(self.parts().clock.now_ms().saturating_sub(row.last_active_ts));
        let presence = PresenceState::from(row.presence);
        let currently_active = presence == PresenceState::Online && ago < ACTIVE;
        Ok(Presence { presence, status_msg: row.status_msg, last_active_ago: Some(ago), currently_active })
    }
}
