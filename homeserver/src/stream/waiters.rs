//! Who sleeps until something concerns them, and whom a change in a room concerns.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    params,
    storage::{Db, DbError},
};

/// Rooms whose local members are remembered.
const ROOMS_REMEMBERED: usize = 10_000;

#[derive(Default)]
pub(super) struct Waiters {
    users: Arc<Mutex<HashMap<i64, watch::Sender<()>>>>,
}

impl Waiters {
    pub(super) fn register(&self, user_nid: i64) -> Waiter {
        let mut users = self.users.lock();
        let receiver = users.entry(user_nid).or_insert_with(|| watch::Sender::new(())).subscribe();
        Waiter { user_nid, receiver: Some(receiver), users: self.users.clone() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.users.lock().is_empty()
    }

    pub(super) fn wake(&self, user_nid: i64) {
        if let Some(sender) = self.users.lock().get(&user_nid) {
            sender.send_replace(());
        }
    }

    pub(super) fn wake_all(&self) {
        self.users.lock().values().for_each(|sender| {
            sender.send_replace(());
        });
    }
}

/// One sleeper. Remembers wake-ups that come before it sleeps.
pub struct Waiter {
    user_nid: i64,
    /// `None` only while dropping.
    receiver: Option<watch::Receiver<()>>,
    users: Arc<Mutex<HashMap<i64, watch::Sender<()>>>>,
}

impl Waiter {
    /// Returns at the next change that concerns the user, or at once when one came since the last call.
    pub async fn woken(&mut self) {
        match &mut self.receiver {
            // The sender lives as long as a receiver does, so this cannot fail.
            Some(receiver) => drop(receiver.changed().await),
            None => std::future::pending().await,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        self.receiver = None;
        if users.get(&self.user_nid).is_some_and(|sender| sender.receiver_count() == 0) {
            users.remove(&self.user_nid);
        }
    }
}

/// The local members of rooms, read when first asked for.
pub(super) struct Audience {
    db: Db,
    rooms: Mutex<HashMap<i64, Arc<Vec<i64>>>>,
    /// Counts what was forgotten, so that a read which began before does not put the old list back.
    forgotten: std::sync::atomic::AtomicU64,
}

impl Audience {
    pub(super) fn new(db: Db) -> Self {
        Self { db, rooms: Mutex::default(), forgotten: std::sync::atomic::AtomicU64::new(0) }
    }

    pub(super) fn forget(&self, room_nid: i64) {
        let mut rooms = self.rooms.lock();
        self.forgotten.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        rooms.remove(&room_nid);
    }

    pub(super) async fn local_members(&self, room_nid: i64) -> Result<Arc<Vec<i64>>, DbError> {
        if let Some(users) = self.rooms.lock().get(&room_nid) {
            return Ok(users.clone());
        }
        let before = self.forgotten.load(std::sync::atomic::Ordering::Relaxed);
        let sql = "SELECT user_nid FROM memberships WHERE room_nid = $1 AND membership = 'join' AND is_local";
        let rows = self.db.query(sql, params![room_nid]).await?;
        let users = Arc::new(rows.iter().map(|row| row.get(0)).collect::<Result<Vec<i64>, _>>()?);
        let mut rooms = self.rooms.lock();
        if self.forgotten.load(std::sync::atomic::Ordering::Relaxed) == before {
            if rooms.len() >= ROOMS_REMEMBERED {
                rooms.clear();
            }
            rooms.insert(room_nid, users.clone());
        }
        Ok(users)
    }

    /// The local users who share a room with `user_nid`, and that user.
    pub(super) async fn sharing_a_room_with(&self, user_nid: i64) -> Result<Arc<Vec<i64>>, DbError> {
        let sql = "SELECT DISTINCT other.user_nid FROM memberships own \
                   JOIN memberships other ON other.room_nid = own.room_nid AND other.membership = 'join' AND other.is_local \
                   WHERE own.user_nid = $1 AND own.membership = 'join'";
        let rows = self.db.query(sql, params![user_nid]).await?;
        let mut users = rows.iter().map(|row| row.get(0)).collect::<Result<Vec<i64>, _>>()?;
        users.push(user_nid);
        Ok(Arc::new(users))
    }
}
