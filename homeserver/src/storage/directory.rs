//! Aliases, the list of published rooms, and who can be found: tables `room_aliases` and `published_rooms`.

use super::{Db, DbError, Row, db::json_list};
use crate::params;

/// A row of `room_aliases`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasRow {
    pub room_id: String,
    /// Who made it.
    pub creator: String,
}

/// Where an alias leads.
///
/// # Errors
/// Those of the database.
pub async fn find_alias(db: &Db, alias: &str) -> Result<Option<AliasRow>, DbError> {
    let sql = "SELECT room_id, creator FROM room_aliases WHERE alias = $1";
    let row = db.query_opt(sql, params![alias]).await?;
    row.map(|row| Ok(AliasRow { room_id: row.get(0)?, creator: row.get(1)? })).transpose()
}

/// Makes an alias; whether it was free.
///
/// # Errors
/// Those of the database.
pub async fn insert_alias(db: &Db, alias: &str, room_id: &str, creator: &str) -> Result<bool, DbError> {
    let sql = "INSERT INTO room_aliases (alias, room_id, creator) VALUES ($1, $2, $3) ON CONFLICT (alias) DO NOTHING";
    Ok(db.execute(sql, params![alias, room_id, creator]).await? == 1)
}

/// Deletes an alias of a room; whether it was there.
///
/// # Errors
/// Those of the database.
pub async fn delete_alias(db: &Db, alias: &str, room_id: &str) -> Result<bool, DbError> {
    let sql = "DELETE FROM room_aliases WHERE alias = $1 AND room_id = $2";
    Ok(db.execute(sql, params![alias, room_id]).await? == 1)
}

/// The aliases of a room that this server gave.
///
/// # Errors
/// Those of the database.
pub async fn list_aliases(db: &Db, room_id: &str) -> Result<Vec<String>, DbError> {
    let sql = "SELECT alias FROM room_aliases WHERE room_id = $1 ORDER BY alias";
    db.query(sql, params![room_id]).await?.iter().map(|row| row.get(0)).collect()
}

/// Whether the room is published.
///
/// # Errors
/// Those of the database.
pub async fn is_published(db: &Db, room_nid: i64) -> Result<bool, DbError> {
    let sql = "SELECT room_nid FROM published_rooms WHERE room_nid = $1";
    Ok(db.query_opt(sql, params![room_nid]).await?.is_some())
}

/// Publishes a room, or takes it off the list.
///
/// # Errors
/// Those of the database.
pub async fn set_published(db: &Db, room_nid: i64, is_published: bool) -> Result<(), DbError> {
    let sql = if is_published {
        "INSERT INTO published_rooms (room_nid) VALUES ($1) ON CONFLICT (room_nid) DO NOTHING"
    } else {
        "DELETE FROM published_rooms WHERE room_nid = $1"
    };
    db.execute(sql, params![room_nid]).await.map(|_| ())
}

/// A published room and how many users are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRoom {
    pub room_nid: i64,
    pub room_id: String,
    pub joined: i64,
}

/// All published rooms that this server takes part in, the largest first.
///
/// # Errors
/// Those of the database.
pub async fn list_published(db: &Db) -> Result<Vec<PublishedRoom>, DbError> {
    let sql = "SELECT p.room_nid, r.room_id, \
                   (SELECT COUNT(*) FROM memberships m WHERE m.room_nid = p.room_nid AND m.membership = 'join') AS joined \
               FROM published_rooms p JOIN rooms r ON r.room_nid = p.room_nid \
               WHERE r.is_resident ORDER BY joined DESC, p.room_nid";
    db.query(sql, params![])
        .await?
        .iter()
        .map(|row| Ok(PublishedRoom { room_nid: row.get(0)?, room_id: row.get(1)?, joined: row.get(2)? }))
        .collect()
}

/// A state event with an empty state key.
#[derive(Clone, Debug)]
pub struct SummaryState {
    pub room_nid: i64,
    pub event_type: String,
    /// The event.
    pub json: String,
}

/// The state of rooms that their summaries are made of: of `event_types`, with empty state keys.
///
/// # Errors
/// Those of the database.
pub async fn summary_state(db: &Db, room_nids: &[i64], event_types: &[&str]) -> Result<Vec<SummaryState>, DbError> {
    let sql = "SELECT c.room_nid, c.event_type, e.json FROM current_state c JOIN events e ON e.event_nid = c.event_nid \
               WHERE c.state_key = '' \
               AND c.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
               AND c.event_type IN (SELECT value FROM json_each(CAST($2 AS TEXT)))";
    let rows = db.query(sql, params![json_list(room_nids), json_list(event_types)]).await?;
    let read = |row: &Row| Ok(SummaryState { room_nid: row.get(0)?, event_type: row.get(1)?, json: row.get(2)? });
    rows.iter().map(read).collect()
}

/// A user and the membership event that shows its name.
#[derive(Clone, Debug)]
pub struct VisibleUser {
    pub user_id: String,
    /// The `m.room.member` event.
    pub json: String,
}

/// Users whom `user_nid` may find: those in rooms of its own and in published rooms, whose id or membership event
/// contains `part` (in lower case; LIKE's special characters escaped by `\`). At most `limit` rows, some of the same
/// user.
///
/// # Errors
/// Those of the database.
pub async fn visible_users(db: &Db, user_nid: i64, part: &str, limit: i64) -> Result<Vec<VisibleUser>, DbError> {
    let sql = "SELECT u.user_id, e.json FROM memberships m \
               JOIN user_names u ON u.user_nid = m.user_nid JOIN events e ON e.event_nid = m.event_nid \
               WHERE m.membership = 'join' AND m.user_nid <> $1 AND m.room_nid IN ( \
                   SELECT mine.room_nid FROM memberships mine WHERE mine.user_nid = $1 AND mine.membership = 'join' \
                   UNION SELECT room_nid FROM published_rooms) \
               AND (LOWER(u.user_id) LIKE $2 ESCAPE '\\' OR LOWER(e.json) LIKE $2 ESCAPE '\\') LIMIT $3";
    let rows = db.query(sql, params![user_nid, format!("%{part}%"), limit]).await?;
    rows.iter().map(|row| Ok(VisibleUser { user_id: row.get(0)?, json: row.get(1)? })).collect()
}
