//! Statements for events: what is stored of each, and where it stands.

use std::collections::HashMap;

use ruma::{EventId, OwnedEventId};

use super::{Db, DbError, Row, Stmt, Value, db::json_list};
use crate::{
    params,
    rules::{pdu::Pdu, room_version::RoomVersion},
};

/// What the checks on receipt made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Accepted,
    /// Stored and part of the graph, but shown to nobody and no part of the current state.
    SoftFailed,
    /// Refused by the authorization rules; stored so that what rests on it can be judged.
    Rejected,
}

impl Standing {
    /// As the column `standing` has it.
    pub fn number(self) -> i64 {
        match self {
            Self::Accepted => 0,
            Self::SoftFailed => 1,
            Self::Rejected => 2,
        }
    }

    fn from_number(number: i64) -> Result<Self, DbError> {
        match number {
            0 => Ok(Self::Accepted),
            1 => Ok(Self::SoftFailed),
            2 => Ok(Self::Rejected),
            other => Err(DbError::Corrupt(format!("events.standing {other}"))),
        }
    }
}

/// An event with its place in the database.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    pub event_nid: i64,
    /// The room's local order; `None` for an outlier.
    pub position: Option<i64>,
    pub standing: Standing,
    /// The state before the event, where it is known.
    pub state_nid: Option<i64>,
    pub redacted_by: Option<OwnedEventId>,
    pub pdu: Pdu,
}

/// Where a new event goes.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub event_nid: i64,
    pub room_nid: i64,
    pub position: Option<i64>,
    pub state_nid: Option<i64>,
    pub standing: Standing,
}

/// Inserts an event within a write of the lane; an outlier of the same id becomes this event.
pub fn insert(pdu: &Pdu, place: Place) -> Stmt {
    Stmt::insert(
        "INSERT INTO events (event_nid, room_nid, event_id, position, lane, seq, depth, event_type, state_key, sender, \
         origin_server_ts, standing, state_nid, json) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        vec![
            place.event_nid.into(),
            place.room_nid.into(),
            pdu.event_id().as_str().into(),
            place.position.into(),
            Value::Lane,
            Value::Seq,
            pdu.depth().into(),
            pdu.event_type().into(),
            pdu.state_key().into(),
            pdu.sender().as_str().into(),
            u64::from(pdu.origin_server_ts().0).into(),
            place.standing.number().into(),
            place.state_nid.into(),
            pdu.json().into(),
        ],
    )
}

/// Gives an outlier its place in the room's order, within a write of the lane. The outlier may be a redacted copy.
pub fn place_outlier(pdu: &Pdu, place: Place) -> Stmt {
    Stmt::new(
        "UPDATE events SET position = $2, lane = $3, seq = $4, standing = $5, state_nid = $6, \
         json = CASE WHEN redacted_by IS NULL THEN $7 ELSE json END WHERE event_nid = $1 AND position IS NULL",
        vec![
            place.event_nid.into(),
            place.position.into(),
            Value::Lane,
            Value::Seq,
            place.standing.number().into(),
            place.state_nid.into(),
            pdu.json().into(),
        ],
    )
}

/// Inserts an event without a place in its room. It is no news to any reader, so it takes no position in a lane.
pub fn insert_outlier(pdu: &Pdu, event_nid: i64, room_nid: i64, standing: Standing) -> Stmt {
    Stmt::new(
        "INSERT INTO events (event_nid, room_nid, event_id, position, lane, seq, depth, event_type, state_key, sender, \
         origin_server_ts, standing, state_nid, json) \
         VALUES ($1, $2, $3, NULL, 0, 0, $4, $5, $6, $7, $8, $9, NULL, $10) ON CONFLICT (event_id) DO NOTHING",
        params![
            event_nid,
            room_nid,
            pdu.event_id().as_str(),
            pdu.depth(),
            pdu.event_type(),
            pdu.state_key(),
            pdu.sender().as_str(),
            u64::from(pdu.origin_server_ts().0),
            standing.number(),
            pdu.json()
        ],
    )
}

/// Takes the content away that `redacted` no longer has.
pub fn redact(event_nid: i64, redacted: &Pdu, redacted_by: &EventId) -> Stmt {
    Stmt::new(
        "UPDATE events SET json = $2, redacted_by = $3 WHERE event_nid = $1 AND redacted_by IS NULL",
        params![event_nid, redacted.json(), redacted_by.as_str()],
    )
}

/// Remembers that an event relates to another one (`m.relates_to`, or a redaction as `m.redaction`).
pub fn insert_relation(place: Place, relates_to: &str, rel_type: &str) -> Stmt {
    Stmt::new(
        "INSERT INTO event_relations (event_nid, room_nid, relates_to, rel_type, position) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (event_nid) DO NOTHING",
        params![place.event_nid, place.room_nid, relates_to, rel_type, place.position.unwrap_or(0)],
    )
}

macro_rules! columns {
    () => {
        "SELECT e.event_nid, e.event_id, e.position, e.standing, e.state_nid, e.redacted_by, e.json, r.room_version \
         FROM events e JOIN rooms r ON r.room_nid = e.room_nid "
    };
}

/// The events of these ids that are stored, by id.
///
/// # Errors
/// Those of the database.
pub async fn find_by_ids(
    db: &Db,
    event_ids: impl IntoIterator<Item = &EventId>,
) -> Result<HashMap<OwnedEventId, StoredEvent>, DbError> {
    let list = json_list(event_ids.into_iter().map(EventId::as_str));
    if list == "[]" {
        return Ok(HashMap::new());
    }
    let sql = concat!(columns!(), "WHERE e.event_id IN (SELECT value FROM json_each(CAST($1 AS TEXT)))");
    let rows = db.query(sql, params![list]).await?;
    rows.iter().map(|row| read(row).map(|event| (event.pdu.event_id().to_owned(), event))).collect()
}

/// The event of this id, if it is stored.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, event_id: &EventId) -> Result<Option<StoredEvent>, DbError> {
    let sql = concat!(columns!(), "WHERE e.event_id = $1");
    db.query_opt(sql, params![event_id.as_str()]).await?.as_ref().map(read).transpose()
}

/// The events of these numbers, by number; each must be there.
///
/// # Errors
/// Those of the database; [`DbError::Corrupt`] when one is missing.
pub async fn get_by_nids(db: &Db, event_nids: &[i64]) -> Result<HashMap<i64, StoredEvent>, DbError> {
    if event_nids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql =
        concat!(columns!(), "WHERE e.event_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))");
    let rows = db.query(sql, params![json_list(event_nids)]).await?;
    let found =
        rows.iter().map(|row| read(row).map(|event| (event.event_nid, event))).collect::<Result<HashMap<_, _>, _>>()?;
    match event_nids.iter().find(|event_nid| !found.contains_key(event_nid)) {
        None => Ok(found),
        Some(missing) => Err(DbError::Corrupt(format!("event {missing} is missing"))),
    }
}

/// An event as part of a state: its number, id, type and key.
#[derive(Clone, Debug)]
pub struct StateRow {
    pub event_nid: i64,
    pub event_id: OwnedEventId,
    pub event_type: String,
    pub state_key: String,
}

/// What a state needs to know of its events.
///
/// # Errors
/// Those of the database.
pub async fn state_rows(db: &Db, event_nids: &[i64]) -> Result<Vec<StateRow>, DbError> {
    let sql = "SELECT event_nid, event_id, event_type, state_key FROM events \
               WHERE event_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";
    let rows = db.query(sql, params![json_list(event_nids)]).await?;
    if rows.len() != event_nids.len() {
        return Err(DbError::Corrupt(format!(
            "of the {} events of a state, {} are there",
            event_nids.len(),
            rows.len()
        )));
    }
    rows.iter()
        .map(|row| {
            Ok(StateRow {
                event_nid: row.get(0)?,
                event_id: parse_event_id(row.get(1)?)?,
                event_type: row.get(2)?,
                state_key: row.get::<Option<String>>(3)?.unwrap_or_default(),
            })
        })
        .collect()
}

/// Redactions that arrived before their target, by target.
///
/// # Errors
/// Those of the database.
pub async fn redactions_of(db: &Db, event_id: &EventId) -> Result<Vec<StoredEvent>, DbError> {
    let sql = concat!(
        columns!(),
        "JOIN event_relations l ON l.event_nid = e.event_nid \
         WHERE l.relates_to = $1 AND l.rel_type = 'm.redaction' AND e.standing = 0 ORDER BY e.event_nid"
    );
    db.query(sql, params![event_id.as_str()]).await?.iter().map(read).collect()
}

fn read(row: &Row) -> Result<StoredEvent, DbError> {
    let event_id = parse_event_id(row.get(1)?)?;
    let standing = Standing::from_number(row.get(3)?)?;
    let version: String = row.get(7)?;
    let version = RoomVersion::parse(&version).map_err(|error| DbError::Corrupt(error.to_string()))?;
    let json: String = row.get(6)?;
    let pdu = Pdu::from_stored(event_id, version, json).map_err(|error| DbError::Corrupt(error.to_string()))?;
    Ok(StoredEvent {
        event_nid: row.get(0)?,
        position: row.get(2)?,
        standing,
        state_nid: row.get(4)?,
        redacted_by: row.get::<Option<String>>(5)?.map(parse_event_id).transpose()?,
        pdu: pdu.with_rejected(standing == Standing::Rejected),
    })
}

fn parse_event_id(text: String) -> Result<OwnedEventId, DbError> {
    OwnedEventId::try_from(text).map_err(|error| DbError::Corrupt(format!("events.event_id: {error}")))
}
