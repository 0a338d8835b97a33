//! Receipts and fully-read markers: the newest of each kind, which never moves back.
//!
//! Positions of readers travel as lists: the seq of lane n at place n.

use super::{Db, DbError, Row, Snapshot, Stmt, Value, db::json_list};
use crate::params;

/// `receipt_type` of a public receipt.
pub const READ: &str = "m.read";
/// `receipt_type` of a receipt that only its user sees.
pub const READ_PRIVATE: &str = "m.read.private";
/// The marker's position is kept among the receipts; readers get the marker from the room's account data.
pub const FULLY_READ: &str = "m.fully_read";
/// `thread_id` of a receipt that belongs to no thread.
pub const UNTHREADED: &str = "";

/// Where a user's receipt of one kind stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    pub room_nid: i64,
    pub user_nid: i64,
    pub receipt_type: String,
    /// [`UNTHREADED`], `main`, or the root of the thread.
    pub thread_id: String,
    pub event_id: String,
    /// The event's position in the room; `None` while we do not have the event.
    pub position: Option<i64>,
    pub receipt_ts: u64,
}

/// Moves a receipt forward; touches nothing when it would move back or stay. The guard of a write of the lane, whose
/// statements must have [`place`] in them.
pub fn advance(receipt: &ReceiptRow) -> Stmt {
    // Where a position is not known, the time has to do.
    let sql = "INSERT INTO receipts (room_nid, user_nid, receipt_type, thread_id, event_id, position, receipt_ts, \
                                     lane, seq) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0) ON CONFLICT (room_nid, user_nid, receipt_type, thread_id) \
        DO UPDATE SET event_id = excluded.event_id, position = excluded.position, receipt_ts = excluded.receipt_ts \
        WHERE excluded.position > receipts.position \
        OR ((excluded.position IS NULL OR receipts.position IS NULL) AND excluded.event_id <> receipts.event_id \
            AND excluded.receipt_ts >= receipts.receipt_ts)";
    let ReceiptRow { room_nid, user_nid, receipt_type, thread_id, event_id, position, receipt_ts } = receipt;
    Stmt::new(sql, params![*room_nid, *user_nid, receipt_type, thread_id, event_id, *position, *receipt_ts])
}

/// Notes where in the order of commits a receipt moved; see [`advance`].
pub fn place(receipt: &ReceiptRow) -> Stmt {
    let sql = "UPDATE receipts SET lane = $5, seq = $6 \
               WHERE room_nid = $1 AND user_nid = $2 AND receipt_type = $3 AND thread_id = $4";
    let mut params = params![receipt.room_nid, receipt.user_nid, &receipt.receipt_type, &receipt.thread_id];
    params.extend([Value::Lane, Value::Seq]);
    Stmt::new(sql, params)
}

/// The receipts of `room_nids` that moved after `since` up to `upto` and that `viewer_nid` may see: public ones, and
/// its own private ones. In order of rooms and events.
///
/// # Errors
/// Those of the database.
pub async fn receipts_since(
    snapshot: &mut Snapshot,
    room_nids: &[i64],
    viewer_nid: i64,
    since: &[i64],
    upto: &[i64],
) -> Result<Vec<ReceiptRow>, DbError> {
    let stmt = moved(room_nids, viewer_nid, since, upto);
    read_moved(&snapshot.query(stmt.sql, stmt.params).await?)
}

/// The statement of [`receipts_since`], to be sent with others; [`read_moved`] reads its answer.
pub fn moved(room_nids: &[i64], viewer_nid: i64, since: &[i64], upto: &[i64]) -> Stmt {
    let sql = "SELECT r.room_nid, r.user_nid, r.receipt_type, r.thread_id, r.event_id, r.position, r.receipt_ts \
        FROM receipts r \
        JOIN json_each(CAST($4 AS TEXT)) upto ON upto.key = r.lane AND r.seq <= CAST(upto.value AS BIGINT) \
        LEFT JOIN json_each(CAST($3 AS TEXT)) since ON since.key = r.lane \
        WHERE r.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
        AND r.seq > COALESCE(CAST(since.value AS BIGINT), 0) \
        AND (r.receipt_type = 'm.read' OR (r.receipt_type = 'm.read.private' AND r.user_nid = $2)) \
        ORDER BY r.room_nid, r.event_id, r.receipt_type, r.user_nid, r.thread_id";
    Stmt::new(sql, params![json_list(room_nids), viewer_nid, json_list(since), json_list(upto)])
}

/// Reads the answer to [`moved`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_moved(rows: &[Row]) -> Result<Vec<ReceiptRow>, DbError> {
    rows.iter().map(read).collect()
}

/// Where an event stands in its room, and in which thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventInThread {
    pub position: Option<i64>,
    /// The root of the thread that the event is in, itself or by what it relates to; `None` in the main timeline.
    pub thread_root: Option<String>,
}

/// An event of a room.
///
/// # Errors
/// Those of the database.
pub async fn find_event(db: &Db, room_nid: i64, event_id: &str) -> Result<Option<EventInThread>, DbError> {
    let sql = "SELECT e.position, \
            CASE WHEN r.rel_type = 'm.thread' THEN r.relates_to \
                 WHEN beyond.rel_type = 'm.thread' THEN beyond.relates_to END \
        FROM events e LEFT JOIN event_relations r ON r.event_nid = e.event_nid \
        LEFT JOIN events target ON target.event_id = r.relates_to AND target.room_nid = e.room_nid \
        LEFT JOIN event_relations beyond ON beyond.event_nid = target.event_nid \
        WHERE e.event_id = $1 AND e.room_nid = $2";
    let Some(row) = db.query_opt(sql, params![event_id, room_nid]).await? else { return Ok(None) };
    Ok(Some(EventInThread { position: row.get(0)?, thread_root: row.get(1)? }))
}

/// How far a user has read a room or a thread: the highest position that its receipts (public or private, of that
/// thread or unthreaded) name. `None` without any.
///
/// # Errors
/// Those of the database.
pub async fn read_upto(db: &Db, room_nid: i64, user_nid: i64, thread_id: &str) -> Result<Option<i64>, DbError> {
    let sql = "SELECT MAX(position) FROM receipts WHERE room_nid = $1 AND user_nid = $2 \
               AND receipt_type IN ('m.read', 'm.read.private') AND thread_id IN ('', $3)";
    db.query_one(sql, params![room_nid, user_nid, thread_id]).await?.get(0)
}

/// The public receipts of local users in a room that moved after `since` up to `upto`, for other servers.
///
/// # Errors
/// Those of the database.
pub async fn list_local_public(
    db: &Db,
    room_nid: i64,
    since: &[i64],
    upto: &[i64],
) -> Result<Vec<ReceiptRow>, DbError> {
    let sql = "SELECT r.room_nid, r.user_nid, r.receipt_type, r.thread_id, r.event_id, r.position, r.receipt_ts \
        FROM receipts r \
        JOIN json_each(CAST($3 AS TEXT)) upto ON upto.key = r.lane AND r.seq <= CAST(upto.value AS BIGINT) \
        LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = r.lane \
        JOIN memberships m ON m.room_nid = r.room_nid AND m.user_nid = r.user_nid AND m.is_local \
        WHERE r.room_nid = $1 AND r.seq > COALESCE(CAST(since.value AS BIGINT), 0) AND r.receipt_type = 'm.read'";
    db.query(sql, params![room_nid, json_list(since), json_list(upto)]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<ReceiptRow, DbError> {
    Ok(ReceiptRow {
        room_nid: row.get(0)?,
        user_nid: row.get(1)?,
        receipt_type: row.get(2)?,
        thread_id: row.get(3)?,
        event_id: row.get(4)?,
        position: row.get(5)?,
        receipt_ts: row.get(6)?,
    })
}
