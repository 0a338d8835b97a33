//! Reads events by their place in a room, for sync and for everything that pages through history. Only accepted events:
//! what was rejected or soft-failed is shown to nobody.

use std::sync::Arc;

use ruma::OwnedEventId;

use super::{DbError, Row, Stmt, db::json_list, event_cache::CachedEvent};
use crate::{
    params,
    rules::{pdu::Pdu, room_version::RoomVersion},
};

/// An event, and the commit that it came with.
#[derive(Clone, Debug)]
pub struct Placed {
    pub lane: i64,
    pub seq: i64,
    pub event: Arc<CachedEvent>,
}

/// Where an event stands, without the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub position: i64,
    pub lane: i64,
    pub seq: i64,
    /// The state before the event.
    pub state_nid: Option<i64>,
}

macro_rules! columns {
    () => {
        "SELECT e.event_nid, e.room_nid, e.event_id, e.position, e.lane, e.seq, e.state_nid, e.redacted_by, e.json, \
         r.room_version "
    };
}

/// The events of each room's last `count` positions, in no particular order. Some positions hold no visible event.
pub fn newest(room_nids: &[i64], count: i64) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN rooms r ON r.room_nid = CAST(wanted.value AS BIGINT) \
         JOIN events e ON e.room_nid = r.room_nid AND e.position > r.version - $2 WHERE e.standing = 0"
    );
    Stmt::new(sql, params![json_list(room_nids), count])
}

/// Up to `count` events at or before `position`, newest first.
pub fn at_or_before(room_nid: i64, position: i64, count: i64) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM events e JOIN rooms r ON r.room_nid = e.room_nid \
         WHERE e.room_nid = $1 AND e.position <= $2 AND e.standing = 0 ORDER BY e.position DESC LIMIT $3"
    );
    Stmt::new(sql, params![room_nid, position, count])
}

/// Up to `count` events after `position`, oldest first.
pub fn after(room_nid: i64, position: i64, count: i64) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM events e JOIN rooms r ON r.room_nid = e.room_nid \
         WHERE e.room_nid = $1 AND e.position > $2 AND e.standing = 0 ORDER BY e.position LIMIT $3"
    );
    Stmt::new(sql, params![room_nid, position, count])
}

/// The events of these numbers, outliers too, in no particular order.
pub fn by_nids(event_nids: &[i64]) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN events e ON e.event_nid = CAST(wanted.value AS BIGINT) \
         JOIN rooms r ON r.room_nid = e.room_nid"
    );
    Stmt::new(sql, params![json_list(event_nids)])
}

/// Of the events of these numbers all that are no memberships, and the memberships of `members`.
pub fn by_nids_with_members(event_nids: &[i64], members: &[&str]) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN events e ON e.event_nid = CAST(wanted.value AS BIGINT) \
         JOIN rooms r ON r.room_nid = e.room_nid WHERE e.event_type <> 'm.room.member' \
         OR e.state_key IN (SELECT value FROM json_each(CAST($2 AS TEXT)))"
    );
    Stmt::new(sql, params![json_list(event_nids), json_list(members)])
}

/// The events of these ids that were accepted.
pub fn by_ids(event_ids: &[&str]) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN events e ON e.event_id = wanted.value \
         JOIN rooms r ON r.room_nid = e.room_nid WHERE e.standing = 0"
    );
    Stmt::new(sql, params![json_list(event_ids)])
}

/// The events that stand in rooms' current states at these types with an empty state key.
pub fn current_of_types(room_nids: &[i64], event_types: &[&str]) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN rooms r ON r.room_nid = CAST(wanted.value AS BIGINT) \
         JOIN current_state c ON c.room_nid = r.room_nid AND c.state_key = '' \
         AND c.event_type IN (SELECT value FROM json_each(CAST($2 AS TEXT))) \
         JOIN events e ON e.event_nid = c.event_nid"
    );
    Stmt::new(sql, params![json_list(room_nids), json_list(event_types)])
}

/// The memberships of these users in rooms' current states.
pub fn current_members(room_nids: &[i64], user_ids: &[&str]) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN rooms r ON r.room_nid = CAST(wanted.value AS BIGINT) \
         JOIN current_state c ON c.room_nid = r.room_nid AND c.event_type = 'm.room.member' \
         AND c.state_key IN (SELECT value FROM json_each(CAST($2 AS TEXT))) \
         JOIN events e ON e.event_nid = c.event_nid"
    );
    Stmt::new(sql, params![json_list(room_nids), json_list(user_ids)])
}

/// One entry of a room's current state.
pub fn current_at(room_nid: i64, event_type: &str, state_key: &str) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM current_state c JOIN events e ON e.event_nid = c.event_nid JOIN rooms r ON r.room_nid = c.room_nid \
         WHERE c.room_nid = $1 AND c.event_type = $2 AND c.state_key = $3"
    );
    Stmt::new(sql, params![room_nid, event_type, state_key])
}

/// A room's whole current state.
pub fn current_state(room_nid: i64) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM current_state c JOIN events e ON e.event_nid = c.event_nid JOIN rooms r ON r.room_nid = c.room_nid \
         WHERE c.room_nid = $1"
    );
    Stmt::new(sql, params![room_nid])
}

/// All memberships of a room's current state.
pub fn current_members_of(room_nid: i64) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM current_state c JOIN events e ON e.event_nid = c.event_nid JOIN rooms r ON r.room_nid = c.room_nid \
         WHERE c.room_nid = $1 AND c.event_type = 'm.room.member'"
    );
    Stmt::new(sql, params![room_nid])
}

/// What decides which part of a room's history a user sees: the room's history visibility and the user's memberships,
/// over time. Outliers, which states from afar brought along, are among them.
pub fn visibility_history(room_nids: &[i64], user_id: &str) -> Stmt {
    let sql = concat!(
        columns!(),
        "FROM json_each(CAST($1 AS TEXT)) wanted JOIN rooms r ON r.room_nid = CAST(wanted.value AS BIGINT) \
         JOIN events e ON e.room_nid = r.room_nid AND e.state_key IN ('', $2) \
         AND e.event_type IN ('m.room.member', 'm.room.history_visibility') \
         WHERE e.standing = 0 AND ((e.event_type = 'm.room.member' AND e.state_key = $2) \
         OR (e.event_type = 'm.room.history_visibility' AND e.state_key = ''))"
    );
    Stmt::new(sql, params![json_list(room_nids), user_id])
}

/// Which state event each of these state events took the place of: see [`read_replaced`].
pub fn replaced(event_nids: &[i64]) -> Stmt {
    let sql = "SELECT e.event_nid, (SELECT p.event_nid FROM events p WHERE p.room_nid = e.room_nid \
               AND p.event_type = e.event_type AND p.state_key = e.state_key AND p.position < e.position \
               AND p.standing = 0 ORDER BY p.position DESC LIMIT 1) \
               FROM json_each(CAST($1 AS TEXT)) wanted JOIN events e ON e.event_nid = CAST(wanted.value AS BIGINT)";
    Stmt::new(sql, params![json_list(event_nids)])
}

/// Pairs of a state event and the one before it at the same key.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_replaced(rows: &[Row]) -> Result<Vec<(i64, i64)>, DbError> {
    let mut pairs = Vec::new();
    for row in rows {
        if let Some(before) = row.get::<Option<i64>>(1)? {
            pairs.push((row.get(0)?, before));
        }
    }
    Ok(pairs)
}

/// Up to `count` places at or before `position`, newest first: see [`read_place`].
pub fn places_at_or_before(room_nid: i64, position: i64, count: i64) -> Stmt {
    let sql = "SELECT position, lane, seq, state_nid FROM events \
               WHERE room_nid = $1 AND position <= $2 ORDER BY position DESC LIMIT $3";
    Stmt::new(sql, params![room_nid, position, count])
}

/// The first event of a room after `position`: its place, from which the state after `position` is known.
pub fn place_after(room_nid: i64, position: i64) -> Stmt {
    let sql = "SELECT position, lane, seq, state_nid FROM events \
               WHERE room_nid = $1 AND position > $2 AND state_nid IS NOT NULL ORDER BY position LIMIT 1";
    Stmt::new(sql, params![room_nid, position])
}

/// Reads one row of [`places_at_or_before`] or [`place_after`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_place(row: &Row) -> Result<Place, DbError> {
    Ok(Place { position: row.get(0)?, lane: row.get(1)?, seq: row.get(2)?, state_nid: row.get(3)? })
}

/// Which of these events a device's requests made: see [`read_transactions`].
pub fn transactions(user_nid: i64, device_id: &str, event_ids: &[&str]) -> Stmt {
    let sql = "SELECT event_id, txn_id FROM transaction_ids WHERE user_nid = $1 AND device_id = $2 \
               AND event_id IN (SELECT value FROM json_each(CAST($3 AS TEXT)))";
    Stmt::new(sql, params![user_nid, device_id, json_list(event_ids)])
}

/// Pairs of event id and transaction id.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_transactions(rows: &[Row]) -> Result<Vec<(String, String)>, DbError> {
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The event nearest to a time, at or after it (`forwards`) or at or before it, by its sender's clock.
pub fn nearest(room_nid: i64, origin_server_ts: i64, forwards: bool) -> Stmt {
    let sql = if forwards {
        concat!(
            columns!(),
            "FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE e.room_nid = $1 AND e.position IS NOT NULL \
             AND e.standing = 0 AND e.origin_server_ts >= $2 ORDER BY e.origin_server_ts, e.position LIMIT 20"
        )
    } else {
        concat!(
            columns!(),
            "FROM events e JOIN rooms r ON r.room_nid = e.room_nid WHERE e.room_nid = $1 AND e.position IS NOT NULL \
             AND e.standing = 0 AND e.origin_server_ts <= $2 ORDER BY e.origin_server_ts DESC, e.position DESC LIMIT 20"
        )
    };
    Stmt::new(sql, params![room_nid, origin_server_ts])
}

/// Reads the rows of any of the statements that answer events.
///
/// # Errors
/// [`DbError::Column`]; [`DbError::Corrupt`] for an event that cannot be read.
pub fn read_events(rows: &[Row]) -> Result<Vec<Placed>, DbError> {
    rows.iter().map(read_event).collect()
}

fn read_event(row: &Row) -> Result<Placed, DbError> {
    let corrupt = |error: &dyn std::fmt::Display| DbError::Corrupt(format!("events: {error}"));
    let event_id = OwnedEventId::try_from(row.get::<String>(2)?).map_err(|error| corrupt(&error))?;
    let version = RoomVersion::parse(&row.get::<String>(9)?).map_err(|error| corrupt(&error))?;
    let pdu = Pdu::from_stored(event_id, version, row.get::<String>(8)?).map_err(|error| corrupt(&error))?;
    let redacted_by = row.get::<Option<String>>(7)?.and_then(|event_id| event_id.try_into().ok());
    let event = CachedEvent {
        event_nid: row.get(0)?,
        room_nid: row.get(1)?,
        position: row.get(3)?,
        state_nid: row.get(6)?,
        redacted_by,
        transaction: None,
        pdu,
    };
    Ok(Placed { lane: row.get(4)?, seq: row.get(5)?, event: Arc::new(event) })
}
