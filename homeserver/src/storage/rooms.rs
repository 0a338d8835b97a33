//! Statements for rooms: the row that every append compares and swaps, the current state and the memberships.

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};

use super::{Db, DbError, Row, Stmt, Value, db::json_list};
use crate::{params, rules::room_version::RoomVersion};

/// An event that no other one points at yet.
#[derive(Clone, Debug)]
pub struct Extremity {
    pub event_nid: i64,
    pub event_id: OwnedEventId,
    pub depth: u64,
}

/// A room's row.
#[derive(Clone, Debug)]
pub struct RoomRow {
    pub room_nid: i64,
    pub room_id: OwnedRoomId,
    pub room_version: RoomVersion,
    /// The position of the newest event; 0 for a room that is only known by an invite.
    pub version: i64,
    pub extremities: Vec<Extremity>,
    pub state_nid: i64,
    /// Whether this server takes part in the room now: one of its users is joined, or nobody is.
    pub is_resident: bool,
    pub members: Members,
}

/// How many users are joined to a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Users of this server.
    pub local: i64,
    /// Users of other servers.
    pub remote: i64,
}

/// A room's row with its forward extremities, one row for each; one row without for a room that has none.
const FIND: &str = "SELECT r.room_nid, r.room_id, r.room_version, r.version, r.state_nid, r.is_resident, \
    e.event_nid, e.event_id, e.depth, r.local_members, r.remote_members FROM rooms r \
    LEFT JOIN json_each(CAST(r.extremities AS TEXT)) x ON TRUE \
    LEFT JOIN events e ON e.event_nid = CAST(x.value AS BIGINT) WHERE r.room_id = $1";

/// The room of this id, if this server knows it. One round trip.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, room_id: &RoomId) -> Result<Option<RoomRow>, DbError> {
    let rows = db.query(FIND, params![room_id.as_str()]).await?;
    rows.first().map(|first| read(first, &rows)).transpose()
}

fn read(row: &Row, rows: &[Row]) -> Result<RoomRow, DbError> {
    let corrupt = |what: &str, error: &dyn std::fmt::Display| DbError::Corrupt(format!("rooms.{what}: {error}"));
    let room_id: String = row.get(1)?;
    let version: String = row.get(2)?;
    let mut extremities = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(event_nid) = row.get::<Option<i64>>(6)? {
            let event_id: String = row.get(7)?;
            let event_id = event_id.try_into().map_err(|error| corrupt("extremities", &error))?;
            extremities.push(Extremity { event_nid, event_id, depth: row.get(8)? });
        }
    }
    Ok(RoomRow {
        room_nid: row.get(0)?,
        room_id: room_id.try_into().map_err(|error| corrupt("room_id", &error))?,
        room_version: RoomVersion::parse(&version).map_err(|error| corrupt("room_version", &error))?,
        version: row.get(3)?,
        extremities,
        state_nid: row.get(4)?,
        is_resident: row.get(5)?,
        members: Members { local: row.get(9)?, remote: row.get(10)? },
    })
}

/// Makes a room's row, as the guard of a write: it touches nothing when the room is already there and resident.
pub fn create(room_nid: i64, room_id: &RoomId, version: RoomVersion) -> Stmt {
    Stmt::new(
        "INSERT INTO rooms (room_nid, room_id, room_version, version, oldest, lane, seq, extremities, state_nid, is_resident) \
         VALUES ($1, $2, $3, 0, 0, 0, 0, '[]', 0, FALSE) ON CONFLICT (room_id) DO NOTHING",
        params![room_nid, room_id.as_str(), version.as_str()],
    )
}

/// Says which version a room is of, while nothing is appended to it.
pub fn set_version(room_nid: i64, version: RoomVersion) -> Stmt {
    Stmt::new(
        "UPDATE rooms SET room_version = $2 WHERE room_nid = $1 AND version = 0",
        params![room_nid, version.as_str()],
    )
}

/// What an append makes of a room's row.
#[derive(Clone, Debug)]
pub struct Swap {
    pub room_nid: i64,
    pub expected_version: i64,
    /// In ascending order.
    pub expected_extremities: Vec<i64>,
    pub new_version: i64,
    /// In ascending order.
    pub extremities: Vec<i64>,
    pub state_nid: i64,
    pub is_resident: bool,
    pub members: Members,
}

impl Swap {
    /// Takes in the swap that comes right after this one: the two are one step then. `false` when `next` is another room's,
    /// or expects something else than this one makes.
    #[must_use]
    pub fn join(&mut self, next: &Self) -> bool {
        let follows = next.room_nid == self.room_nid
            && next.expected_version == self.new_version
            && next.expected_extremities == self.extremities;
        if follows {
            let expected_extremities = std::mem::take(&mut self.expected_extremities);
            *self = Self { expected_version: self.expected_version, expected_extremities, ..next.clone() };
        }
        follows
    }
}

/// The guard of an append: moves the room on, if nobody else did meanwhile.
///
/// The version alone would not tell: an append can be built upon one that is still to be committed, and when that one
/// loses, another shard's event has made the version that was waited for. Event numbers are nobody else's.
pub fn compare_and_swap(swap: &Swap) -> Stmt {
    Stmt::new(
        "UPDATE rooms SET version = $3, extremities = $4, state_nid = $5, is_resident = $9, local_members = $10, \
         remote_members = $11, lane = $6, seq = $7 WHERE room_nid = $1 AND version = $2 AND extremities = $8",
        vec![
            swap.room_nid.into(),
            swap.expected_version.into(),
            swap.new_version.into(),
            json_list(&swap.extremities).into(),
            swap.state_nid.into(),
            Value::Lane,
            Value::Seq,
            json_list(&swap.expected_extremities).into(),
            swap.is_resident.into(),
            swap.members.local.into(),
            swap.members.remote.into(),
        ],
    )
}

/// The position before which the room's history begins; 0 while nothing was backfilled.
///
/// # Errors
/// Those of the database.
pub async fn oldest(db: &Db, room_nid: i64) -> Result<i64, DbError> {
    db.query_one("SELECT oldest FROM rooms WHERE room_nid = $1", params![room_nid]).await?.get(0)
}

/// Moves that position; touches nothing when somebody else did meanwhile.
pub fn move_oldest(room_nid: i64, expected: i64, new: i64) -> Stmt {
    let sql = "UPDATE rooms SET oldest = $3 WHERE room_nid = $1 AND oldest = $2";
    Stmt::new(sql, params![room_nid, expected, new])
}

/// Puts an event at a key of the current state.
pub fn set_current_state(room_nid: i64, event_type: &str, state_key: &str, event_nid: i64) -> Stmt {
    Stmt::new(
        "INSERT INTO current_state (room_nid, event_type, state_key, event_nid) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (room_nid, event_type, state_key) DO UPDATE SET event_nid = $4",
        params![room_nid, event_type, state_key, event_nid],
    )
}

/// Takes a key out of the current state, which state resolution can do.
pub fn clear_current_state(room_nid: i64, event_type: &str, state_key: &str) -> Stmt {
    Stmt::new(
        "DELETE FROM current_state WHERE room_nid = $1 AND event_type = $2 AND state_key = $3",
        params![room_nid, event_type, state_key],
    )
}

/// A user's new membership.
#[derive(Clone, Copy, Debug)]
pub struct MembershipRow<'a> {
    pub room_nid: i64,
    pub user_nid: i64,
    pub membership: &'a str,
    pub event_nid: i64,
    /// `None` for an invite or knock to a room that this server does not take part in.
    pub position: Option<i64>,
    pub is_local: bool,
    /// For such a room: what came along, a JSON array of stripped state events.
    pub stripped_state: Option<&'a str>,
}

/// Writes a user's membership within a write of the lane.
pub fn set_membership(row: &MembershipRow<'_>) -> Stmt {
    Stmt::new(
        "INSERT INTO memberships (room_nid, user_nid, membership, event_nid, position, lane, seq, is_local, is_forgotten, stripped_state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, FALSE, $9) \
         ON CONFLICT (room_nid, user_nid) DO UPDATE SET membership = $3, event_nid = $4, position = $5, lane = $6, \
         seq = $7, is_local = $8, is_forgotten = FALSE, stripped_state = $9",
        vec![
            row.room_nid.into(),
            row.user_nid.into(),
            row.membership.into(),
            row.event_nid.into(),
            row.position.into(),
            Value::Lane,
            Value::Seq,
            row.is_local.into(),
            row.stripped_state.into(),
        ],
    )
}

/// Ends the membership of a user whose `m.room.member` event the current state no longer has, which state resolution can
/// do. Within a write of the lane.
pub fn end_membership(room_nid: i64, user_nid: i64, position: i64) -> Stmt {
    Stmt::new(
        "UPDATE memberships SET membership = 'leave', position = $3, lane = $4, seq = $5 \
         WHERE room_nid = $1 AND user_nid = $2",
        vec![room_nid.into(), user_nid.into(), position.into(), Value::Lane, Value::Seq],
    )
}

/// Remembers an event that one at `position` follows and that is not stored.
pub fn insert_gap(room_nid: i64, event_id: &EventId, position: i64) -> Stmt {
    Stmt::new(
        "INSERT INTO backward_extremities (room_nid, event_id, position) VALUES ($1, $2, $3) \
         ON CONFLICT (room_nid, event_id) DO NOTHING",
        params![room_nid, event_id.as_str(), position],
    )
}

/// Whether an event that is stored follows this one, which was not there yet then.
///
/// # Errors
/// Those of the database.
pub async fn is_gap(db: &Db, room_nid: i64, event_id: &EventId) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM backward_extremities WHERE room_nid = $1 AND event_id = $2";
    Ok(db.query_opt(sql, params![room_nid, event_id.as_str()]).await?.is_some())
}

/// The event has arrived.
pub fn close_gap(room_nid: i64, event_id: &EventId) -> Stmt {
    Stmt::new(
        "DELETE FROM backward_extremities WHERE room_nid = $1 AND event_id = $2",
        params![room_nid, event_id.as_str()],
    )
}

/// Which event a client's transaction made, if it did.
///
/// # Errors
/// Those of the database.
pub async fn find_transaction(
    db: &Db,
    user_nid: i64,
    device_id: &str,
    scope: &str,
    txn_id: &str,
) -> Result<Option<String>, DbError> {
    let sql =
        "SELECT event_id FROM transaction_ids WHERE user_nid = $1 AND device_id = $2 AND scope = $3 AND txn_id = $4";
    db.query_opt(sql, params![user_nid, device_id, scope, txn_id]).await?.map(|row| row.get(0)).transpose()
}

/// Remembers which event a client's transaction made. Fails on a transaction that is already there.
pub fn insert_transaction(
    user_nid: i64,
    device_id: &str,
    scope: &str,
    txn_id: &str,
    event_id: &str,
    created_ts: u64,
) -> Stmt {
    Stmt::insert(
        "INSERT INTO transaction_ids (user_nid, device_id, scope, txn_id, event_id, created_ts) VALUES ($1, $2, $3, $4, $5, $6)",
        params![user_nid, device_id, scope, txn_id, event_id, created_ts],
    )
}
