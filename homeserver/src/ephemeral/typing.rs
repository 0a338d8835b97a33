//! Typing: begins with a request, and ends with another one or by itself.

use std::time::Duration;

use ruma::{RoomId, UserId};
use tokio_util::sync::CancellationToken;

use super::Ephemeral;
use crate::{
    storage::{
        DbError, Stmt,
        typing::{self, TypingRow},
    },
    stream::{Change, CommitError, Write},
};

/// The longest that a client may type without saying so again.
const LONGEST: Duration = Duration::from_secs(120);
/// How long a remote user types, whose server says no time.
const REMOTE: Duration = Duration::from_secs(30);
/// How often a shard looks for typing whose own shard died.
const LOOK_FOR_ORPHANS: Duration = Duration::from_secs(30);
/// Pause before an end that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Why typing was refused.
#[derive(Debug, thiserror::Error)]
pub enum TypingError {
    #[error("the user is not in the room")]
    NotJoined,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Ephemeral {
    /// The user types in a room for `timeout` from now (two minutes at most), or stops with `None`.
    ///
    /// # Errors
    /// See [`TypingError`].
    pub async fn set_typing(
        &self,
        user_nid: i64,
        room_id: &RoomId,
        timeout: Option<Duration>,
    ) -> Result<(), TypingError> {
        let room_nid = self.joined_room(user_nid, room_id).await?.ok_or(TypingError::NotJoined)?;
        match timeout {
            Some(timeout) => self.start_typing(room_nid, user_nid, timeout.min(LONGEST)).await,
            None => self.end_typing(room_nid, user_nid, typing::is_typing(room_nid, user_nid)).await,
        }
    }

    /// Takes another server's word that its user types (an `m.typing` EDU). Passed over when the user is not in the
    /// room. The caller has checked that the sending server is the user's.
    ///
    /// # Errors
    /// See [`TypingError`].
    pub async fn receive_typing(&self, user_id: &UserId, room_id: &RoomId, typing: bool) -> Result<(), TypingError> {
        let Some(user_nid) = self.parts().names.find(user_id).await? else { return Ok(()) };
        match self.set_typing(user_nid, room_id, typing.then_some(REMOTE)).await {
            Err(TypingError::NotJoined) => Ok(()),
            result => result,
        }
    }

    async fn start_typing(&self, room_nid: i64, user_nid: i64, timeout: Duration) -> Result<(), TypingError> {
        let now_ms = self.parts().clock.now_ms();
        let row = TypingRow { room_nid, user_nid, expires_ts: now_ms.saturating_add(millis(timeout)) };
        let extend = typing::extend(row, now_ms);
        if self.parts().db.execute(extend.sql, extend.params).await? == 0 {
            let write = Write {
                guard: None,
                statements: vec![typing::start(row)],
                changes: vec![Change::Room { room: room_nid }],
            };
            self.parts().lane.commit(write).await?;
        }
        self.watch(row);
        Ok(())
    }

    async fn end_typing(&self, room_nid: i64, user_nid: i64, guard: Stmt) -> Result<(), TypingError> {
        let write = Write {
            guard: Some(guard.into()),
            statements: vec![typing::stop(room_nid, user_nid)],
            changes: vec![Change::Room { room: room_nid }],
        };
        match self.parts().lane.commit(write).await {
            // The user does not type, or types again.
            Ok(_) | Err(CommitError::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends typing that has run out: what was left from before this shard began, and on a shared database, until
    /// shutdown, what another shard left that died.
    pub async fn end_orphaned_typing(self, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_FOR_ORPHANS);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            match typing::list_unended(&self.parts().db).await {
                Ok(rows) => rows.into_iter().for_each(|row| self.watch(row)),
                Err(error) => {
                    tracing::warn!(%error, "cannot look for typing that has run out; trying again");
                    continue;
                }
            }
            if !self.parts().db.is_shared() {
                return;
            }
        }
    }

    /// Makes sure that typing ends when it runs out.
    fn watch(&self, row: TypingRow) {
        let key = (row.room_nid, row.user_nid);
        if self.shared.watched.lock().insert(key) {
            tokio::spawn(self.clone().end_in_time(row));
        }
    }

    async fn end_in_time(self, mut row: TypingRow) {
        let (room_nid, user_nid) = (row.room_nid, row.user_nid);
        loop {
            let now_ms = self.parts().clock.now_ms();
            tokio::time::sleep(Duration::from_millis(row.expires_ts.saturating_sub(now_ms))).await;
            let guard = typing::has_expired(room_nid, user_nid, self.parts().clock.now_ms());
            if let Err(error) = self.end_typing(room_nid, user_nid, guard).await {
                tracing::warn!(%error, "cannot end typing that has run out; trying again");
                tokio::time::sleep(RETRY).await;
                continue;
            }
            // Who starts again from here on is watched anew; who started before is in the table now.
            self.shared.watched.lock().remove(&(room_nid, user_nid));
            match typing::find(&self.parts().db, room_nid, user_nid).await {
                Ok(Some(extended)) if self.shared.watched.lock().insert((room_nid, user_nid)) => row = extended,
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot see whether a user still types");
                    return;
                }
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
