//! Decides what a sync has to look at, from the changes since its position.

use std::collections::BTreeMap;

use super::memory::Joined;
use crate::stream::{Change, LogEntry};

/// What a sync has to look at.
#[derive(Debug)]
pub(super) enum Scope {
    /// All of the user's rooms and everything else: a first sync, one that comes late, or one whose rooms changed.
    Everything,
    /// Only this.
    Touched(Touched),
}

/// What changes touched, of what concerns one user.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Joined rooms by number.
    pub(super) rooms: BTreeMap<i64, RoomTouch>,
    /// Account data, to-device messages, keys, push rules.
    pub(super) own: bool,
    /// Somebody's devices, or who shares rooms with whom.
    pub(super) devices: bool,
    /// Somebody's presence.
    pub(super) presence: bool,
}

/// What happened in one room.
#[derive(Debug, Default)]
pub(super) struct RoomTouch {
    /// New events by number, in order.
    pub(super) events: Vec<i64>,
    /// Receipts or typing.
    pub(super) passing: bool,
}

impl Touched {
    pub(super) fn is_nothing(&self) -> bool {
        self.rooms.is_empty() && !self.own && !self.devices && !self.presence
    }

    /// Whether there is nothing but new events.
    pub(super) fn is_events_only(&self) -> bool {
        !self.own && !self.devices && !self.presence && self.rooms.values().all(|room| !room.passing)
    }
}

impl Scope {
    /// `joined` are the rooms that the user was joined to all the time, unless a change says otherwise.
    pub(super) fn of(entries: &[LogEntry], user_nid: i64, joined: &Joined) -> Self {
        let mut touched = Touched::default();
        for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
            match change {
                Change::Event { room, event, .. } if joined.contains_key(room) => {
                    touched.rooms.entry(*room).or_default().events.push(*event);
                }
                Change::Membership { user, .. } if *user == user_nid => return Self::Everything,
                Change::Membership { room, .. } if joined.contains_key(room) => touched.devices = true,
                Change::Room { room } if joined.contains_key(room) => {
                    touched.rooms.entry(*room).or_default().passing = true;
                }
                Change::User { user } if *user == user_nid => touched.own = true,
                Change::Devices { .. } => touched.devices = true,
                Change::Presence { .. } => touched.presence = true,
                _ => {}
            }
        }
        Self::Touched(touched)
    }
}
