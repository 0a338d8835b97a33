//! Each user's presence as it was last set.
//!
//! Positions travel as lists: the seq of lane n at place n.

use super::{Db, DbError, Row, Snapshot, Stmt, Value, db::json_list};
use crate::params;

/// A user's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRow {
    pub user_nid: i64,
    /// `online`, `unavailable` or `offline`.
    pub presence: String,
    pub status_msg: Option<String>,
    /// Milliseconds since the epoch.
    pub last_active_ts: u64,
}

/// Sets a user's presence. For a write of the lane, beside `Change::Presence`.
pub fn upsert(row: &PresenceRow) -> Stmt {
    let sql = "INSERT INTO presence (user_nid, presence, status_msg, last_active_ts, lane, seq) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_nid) DO UPDATE SET presence = excluded.presence, \
               status_msg = excluded.status_msg, last_active_ts = excluded.last_active_ts, \
               lane = excluded.lane, seq = excluded.seq";
    let mut params = params![row.user_nid, &row.presence, row.status_msg.as_deref(), row.last_active_ts];
    params.extend([Value::Lane, Value::Seq]);
    Stmt::new(sql, params)
}

/// A user's presence, if it was ever set.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64) -> Result<Option<PresenceRow>, DbError> {
    let sql = "SELECT user_nid, presence, status_msg, last_active_ts FROM presence WHERE user_nid = $1";
    db.query_opt(sql, params![user_nid]).await?.as_ref().map(read).transpose()
}

/// Whether two users are joined to a room both.
///
/// # Errors
/// Those of the database.
pub async fn is_shared(db: &Db, one: i64, other: i64) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM memberships own JOIN memberships other ON other.room_nid = own.room_nid \
               WHERE own.user_nid = $1 AND own.membership = 'join' \
               AND other.user_nid = $2 AND other.membership = 'join' LIMIT 1";
    Ok(db.query_opt(sql, params![one, other]).await?.is_some())
}

/// What changed after `since` up to `upto` of the presence of the viewer and of those who share a room with it.
///
/// # Errors
/// Those of the database.
pub async fn presence_since(
    snapshot: &mut Snapshot,
    viewer_nid: i64,
    since: &[i64],
    upto: &[i64],
) -> Result<Vec<PresenceRow>, DbError> {
    let stmt = changes(viewer_nid, since, upto);
    read_changes(&snapshot.query(stmt.sql, stmt.params).await?)
}

/// The statement of [`presence_since`], to be sent with others; [`read_changes`] reads its answer.
pub fn changes(viewer_nid: i64, since: &[i64], upto: &[i64]) -> Stmt {
    let sql = "SELECT p.user_nid, p.presence, p.status_msg, p.last_active_ts \
        FROM json_each(CAST($3 AS TEXT)) upto \
        LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = upto.key \
        JOIN presence p ON p.lane = upto.key AND p.seq <= CAST(upto.value AS BIGINT) \
                        AND p.seq > COALESCE(CAST(since.value AS BIGINT), 0) \
        WHERE p.user_nid = $1 OR EXISTS (\
            SELECT 1 FROM memberships own JOIN memberships other ON other.room_nid = own.room_nid \
            WHERE own.user_nid = $1 AND own.membership = 'join' \
            AND other.user_nid = p.user_nid AND other.membership = 'join') ORDER BY p.user_nid";
    Stmt::new(sql, params![viewer_nid, json_list(since), json_list(upto)])
}

/// Reads the answer to [`changes`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_changes(rows: &[Row]) -> Result<Vec<PresenceRow>, DbError> {
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<PresenceRow, DbError> {
    Ok(PresenceRow {
        user_nid: row.get(0)?,
        presence: row.get(1)?,
        status_msg: row.get(2)?,
        last_active_ts: row.get(3)?,
    })
}
