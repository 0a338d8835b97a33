//! Reads which events relate to which.

use super::{DbError, Row, Stmt, db::json_list};
use crate::params;

/// How many events relate to each of these events, of the kinds that are bundled: see [`read_tallies`].
pub fn tallies(event_ids: &[&str]) -> Stmt {
    let sql = "SELECT l.relates_to, l.rel_type, COUNT(*) FROM json_each(CAST($1 AS TEXT)) wanted \
               JOIN event_relations l ON l.relates_to = wanted.value \
               JOIN events e ON e.event_nid = l.event_nid AND e.redacted_by IS NULL AND e.standing = 0 \
               WHERE l.rel_type IN ('m.replace', 'm.thread', 'm.reference') GROUP BY l.relates_to, l.rel_type";
    Stmt::new(sql, params![json_list(event_ids)])
}

/// How many events relate to an event in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    pub relates_to: String,
    pub rel_type: String,
    pub count: i64,
}

/// Reads the rows of [`tallies`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_tallies(rows: &[Row]) -> Result<Vec<Tally>, DbError> {
    rows.iter().map(|row| Ok(Tally { relates_to: row.get(0)?, rel_type: row.get(1)?, count: row.get(2)? })).collect()
}

/// The newest events that relate to each of these events, 50 of each bundled kind: see [`read_children`].
pub fn newest_children(event_ids: &[&str]) -> Stmt {
    let sql = "SELECT ranked.relates_to, ranked.rel_type, ranked.event_nid, ranked.event_id FROM \
               (SELECT l.relates_to, l.rel_type, l.event_nid, e.event_id, l.position, \
                ROW_NUMBER() OVER (PARTITION BY l.relates_to, l.rel_type ORDER BY l.position DESC) AS place \
                FROM json_each(CAST($1 AS TEXT)) wanted JOIN event_relations l ON l.relates_to = wanted.value \
                JOIN events e ON e.event_nid = l.event_nid AND e.redacted_by IS NULL AND e.standing = 0 \
                WHERE l.rel_type IN ('m.replace', 'm.thread', 'm.reference')) ranked \
               WHERE ranked.place <= 50 ORDER BY ranked.position DESC";
    Stmt::new(sql, params![json_list(event_ids)])
}

/// An event that relates to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub relates_to: String,
    pub rel_type: String,
    pub event_nid: i64,
    pub event_id: String,
}

/// Reads the rows of [`newest_children`], newest first.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_children(rows: &[Row]) -> Result<Vec<Child>, DbError> {
    rows.iter()
        .map(|row| {
            Ok(Child { relates_to: row.get(0)?, rel_type: row.get(1)?, event_nid: row.get(2)?, event_id: row.get(3)? })
        })
        .collect()
}

/// In which threads, by their roots, a user has written: one column, the root.
pub fn threads_with(event_ids: &[&str], sender: &str) -> Stmt {
    let sql = "SELECT DISTINCT l.relates_to FROM json_each(CAST($1 AS TEXT)) wanted \
               JOIN event_relations l ON l.relates_to = wanted.value AND l.rel_type = 'm.thread' \
               JOIN events e ON e.event_nid = l.event_nid AND e.sender = $2";
    Stmt::new(sql, params![json_list(event_ids), sender])
}

/// The events that relate to an event: number and position, in order. One statement for each step of a recursion.
pub fn children(event_ids: &[&str]) -> Stmt {
    let sql = "SELECT l.event_nid, l.position, l.rel_type, e.event_id, e.event_type \
               FROM json_each(CAST($1 AS TEXT)) wanted JOIN event_relations l ON l.relates_to = wanted.value \
               JOIN events e ON e.event_nid = l.event_nid AND e.standing = 0 \
               WHERE l.rel_type <> 'm.redaction' ORDER BY l.position LIMIT 10000";
    Stmt::new(sql, params![json_list(event_ids)])
}

/// One row of [`children`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub event_nid: i64,
    pub position: i64,
    pub rel_type: String,
    pub event_id: String,
    pub event_type: String,
}

/// Reads the rows of [`children`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_relations(rows: &[Row]) -> Result<Vec<Relation>, DbError> {
    rows.iter()
        .map(|row| {
            Ok(Relation {
                event_nid: row.get(0)?,
                position: row.get(1)?,
                rel_type: row.get(2)?,
                event_id: row.get(3)?,
                event_type: row.get(4)?,
            })
        })
        .collect()
}

/// The roots of a room's threads, by their newest event, before a position: root and that position.
pub fn threads(room_nid: i64, before: i64, limit: i64) -> Stmt {
    let sql = "SELECT l.relates_to, MAX(l.position) FROM event_relations l \
               WHERE l.room_nid = $1 AND l.rel_type = 'm.thread' \
               GROUP BY l.relates_to HAVING MAX(l.position) < $2 ORDER BY MAX(l.position) DESC LIMIT $3";
    Stmt::new(sql, params![room_nid, before, limit])
}

/// Reads the rows of [`threads`].
///
/// # Errors
/// [`DbError::Column`].
pub fn read_threads(rows: &[Row]) -> Result<Vec<(String, i64)>, DbError> {
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}
