//! What a commit changed, in the few words that caches, sleepers and followers need.

use serde::{Deserialize, Serialize};

use crate::storage::DbError;

/// One thing that a commit changed. Numbers are row numbers (`room_nid`, `user_nid`, `event_nid`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// An event took `position` in a room.
    #[serde(rename = "e")]
    Event { room: i64, event: i64, position: i64 },
    /// A user's membership of a room changed. Comes beside the event, or alone for an invite from afar.
    #[serde(rename = "m")]
    Membership { room: i64, user: i64 },
    /// An event lost its content: caches of events forget it.
    #[serde(rename = "x")]
    Redaction { event: i64 },
    /// Something that passes in a room: receipts, typing.
    #[serde(rename = "r")]
    Room { room: i64 },
    /// Something for one user only: account data, to-device messages, keys, push rules, notification counts.
    #[serde(rename = "u")]
    User { user: i64 },
    /// A user's devices or cross-signing keys changed; concerns everybody who shares a room.
    #[serde(rename = "d")]
    Devices { user: i64 },
    /// A user's presence changed; concerns everybody who shares a room.
    #[serde(rename = "p")]
    Presence { user: i64 },
    /// A user's access tokens changed: shards forget what they cached of them.
    #[serde(rename = "t")]
    Tokens { user: i64 },
}

pub(super) fn format(changes: &[Change]) -> String {
    serde_json::to_string(changes).expect("enums of integers always serialise")
}

pub(super) fn parse(text: &str) -> Result<Vec<Change>, DbError> {
    serde_json::from_str(text).map_err(|error| DbError::Corrupt(format!("lane_log.changes: {error}")))
}
