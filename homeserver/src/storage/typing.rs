//! Who types in which room, and until when.
//!
//! Positions travel as lists: the seq of lane n at place n.

use super::{Db, DbError, Row, Snapshot, Stmt, Value, db::json_list};
use crate::params;

/// A user who types in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypingRow {
    pub room_nid: i64,
    pub user_nid: i64,
    /// When it stops by itself, in milliseconds since the epoch.
    pub expires_ts: u64,
}

/// Moves the end of typing for a user who types already; touches nothing when the user does not. Readers see no
/// difference, so this needs no place in a lane.
pub fn extend(row: TypingRow, now_ms: u64) -> Stmt {
    let sql = "UPDATE typing SET expires_ts = $3 WHERE room_nid = $1 AND user_nid = $2 AND expires_ts > $4";
    Stmt::new(sql, params![row.room_nid, row.user_nid, row.expires_ts, now_ms])
}

/// The user types until `expires_ts`. For a write of the lane, beside `Change::Room`.
pub fn start(row: TypingRow) -> Stmt {
    let sql = "INSERT INTO typing (room_nid, user_nid, expires_ts, lane, seq) VALUES ($1, $2, $3, $4, $5) \
               ON CONFLICT (room_nid, user_nid) DO UPDATE SET expires_ts = excluded.expires_ts, \
               lane = excluded.lane, seq = excluded.seq";
    let mut params = params![row.room_nid, row.user_nid, row.expires_ts];
    params.extend([Value::Lane, Value::Seq]);
    Stmt::new(sql, params)
}

/// Touches a row only while the user types: the guard of [`stop`].
pub fn is_typing(room_nid: i64, user_nid: i64) -> Stmt {
    Stmt::new(
        "SELECT 1 FROM typing WHERE room_nid = $1 AND user_nid = $2 AND expires_ts > 0",
        params![room_nid, user_nid],
    )
}

/// Touches a row only when the user's typing has run out: the guard of [`stop`] for an expiry.
pub fn has_expired(room_nid: i64, user_nid: i64, now_ms: u64) -> Stmt {
    Stmt::new(
        "SELECT 1 FROM typing WHERE room_nid = $1 AND user_nid = $2 AND expires_ts > 0 AND expires_ts <= $3",
        params![room_nid, user_nid, now_ms],
    )
}

/// The user types no more. For a write of the lane, beside `Change::Room`.
pub fn stop(room_nid: i64, user_nid: i64) -> Stmt {
    let sql = "UPDATE typing SET expires_ts = 0, lane = $3, seq = $4 WHERE room_nid = $1 AND user_nid = $2";
    Stmt::new(sql, vec![room_nid.into(), user_nid.into(), Value::Lane, Value::Seq])
}

/// When a user's typing ends, while it has not been ended.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, room_nid: i64, user_nid: i64) -> Result<Option<TypingRow>, DbError> {
    let sql = "SELECT room_nid, user_nid, expires_ts FROM typing \
               WHERE room_nid = $1 AND user_nid = $2 AND expires_ts > 0";
    db.query_opt(sql, params![room_nid, user_nid]).await?.as_ref().map(read).transpose()
}

/// Whose typing has not been ended, in any room, whether it has run out or not.
///
/// # Errors
/// Those of the database.
pub async fn list_unended(db: &Db) -> Result<Vec<TypingRow>, DbError> {
    let sql = "SELECT room_nid, user_nid, expires_ts FROM typing WHERE expires_ts > 0";
    db.query(sql, params![]).await?.iter().map(read).collect()
}

/// In which of `room_nids` who types changed after `since` up to `upto`, with everybody who types there at `now_ms`.
///
/// # Errors
/// Those of the database.
pub async fn typing_since(
    snapshot: &mut Snapshot,
    room_nids: &[i64],
    since: &[i64],
    upto: &[i64],
    now_ms: u64,
) -> Result<Vec<(i64, Vec<i64>)>, DbError> {
    let stmt = typing_changes(room_nids, since, upto, now_ms);
    read_typing_changes(&snapshot.query(stmt.sql, stmt.params).await?)
}

/// The statement of [`typing_since`], to be sent with others; [`read_typing_changes`] reads its answer.
pub fn typing_changes(room_nids: &[i64], since: &[i64], upto: &[i64], now_ms: u64) -> Stmt {
    let sql = "WITH moved AS (\
            SELECT DISTINCT t.room_nid FROM typing t \
            JOIN json_each(CAST($3 AS TEXT)) upto ON upto.key = t.lane AND t.seq <= CAST(upto.value AS BIGINT) \
            LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = t.lane \
            WHERE t.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
            AND t.seq > COALESCE(CAST(since.value AS BIGINT), 0)) \
        SELECT moved.room_nid, t.user_nid FROM moved \
        LEFT JOIN typing t ON t.room_nid = moved.room_nid AND t.expires_ts > $4 \
        ORDER BY moved.room_nid, t.user_nid";
    Stmt::new(sql, params![json_list(room_nids), json_list(since), json_list(upto), now_ms])
}

/// Reads the answer to [`typing_changes`]: rooms with the users who type there.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_typing_changes(rows: &[Row]) -> Result<Vec<(i64, Vec<i64>)>, DbError> {
    let mut rooms: Vec<(i64, Vec<i64>)> = Vec::new();
    for row in rows {
        let room_nid: i64 = row.get(0)?;
        if rooms.last().is_none_or(|(last, _)| *last != room_nid) {
            rooms.push((room_nid, Vec::new()));
        }
        if let (Some(user_nid), Some((_, users))) = (row.get::<Option<i64>>(1)?, rooms.last_mut()) {
            users.push(user_nid);
        }
    }
    Ok(rooms)
}

fn read(row: &Row) -> Result<TypingRow, DbError> {
    Ok(TypingRow { room_nid: row.get(0)?, user_nid: row.get(1)?, expires_ts: row.get(2)? })
}
