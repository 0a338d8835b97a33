//! Reads what unread counts start from: how far a user has read, and what makes an event notify.

use super::{DbError, Row, Stmt, db::json_list};
use crate::params;

/// A user's own receipts in rooms, public and private: see [`read_own_receipts`].
pub fn own_receipts(user_nid: i64, room_nids: &[i64]) -> Stmt {
    let sql = "SELECT r.room_nid, r.thread_id, r.position FROM json_each(CAST($2 AS TEXT)) wanted \
               JOIN receipts r ON r.room_nid = CAST(wanted.value AS BIGINT) AND r.user_nid = $1 \
               WHERE r.receipt_type IN ('m.read', 'm.read.private') AND r.position IS NOT NULL";
    Stmt::new(sql, params![user_nid, json_list(room_nids)])
}

/// How far a receipt reaches in a room; the thread is empty for a receipt that belongs to none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReceipt {
    pub room_nid: i64,
    pub thread_id: String,
    pub position: i64,
}

/// Reads the rows of [`own_receipts`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_own_receipts(rows: &[Row]) -> Result<Vec<OwnReceipt>, DbError> {
    rows.iter()
        .map(|row| Ok(OwnReceipt { room_nid: row.get(0)?, thread_id: row.get(1)?, position: row.get(2)? }))
        .collect()
}

/// What decides for whom events notify and whose events are hidden: push rules and ignored users, as account data.
pub fn personal(user_nid: i64) -> Stmt {
    let sql = "SELECT data_type, content FROM account_data \
               WHERE user_nid = $1 AND room_id = '' AND data_type IN ('m.push_rules', 'm.ignored_user_list')";
    Stmt::new(sql, params![user_nid])
}

/// A piece of account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountData {
    /// Empty for account data that belongs to no room.
    pub room_id: String,
    pub data_type: String,
    /// JSON.
    pub content: String,
}

/// A user's account data that changed after `since` (the seq of lane n at place n): see [`read_account_data`].
pub fn account_data_since(user_nid: i64, since: &[i64]) -> Stmt {
    let sql = "SELECT a.room_id, a.data_type, a.content FROM account_data a \
               LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = a.lane \
               WHERE a.user_nid = $1 AND a.seq > COALESCE(CAST(since.value AS BIGINT), 0)";
    Stmt::new(sql, params![user_nid, json_list(since)])
}

/// All of a user's account data of these rooms: see [`read_account_data`].
pub fn account_data_of_rooms(user_nid: i64, room_ids: &[&str]) -> Stmt {
    let sql = "SELECT room_id, data_type, content FROM account_data \
               WHERE user_nid = $1 AND room_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))";
    Stmt::new(sql, params![user_nid, json_list(room_ids)])
}

/// Reads the rows of the two statements above.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_account_data(rows: &[Row]) -> Result<Vec<AccountData>, DbError> {
    rows.iter()
        .map(|row| Ok(AccountData { room_id: row.get(0)?, data_type: row.get(1)?, content: row.get(2)? }))
        .collect()
}
