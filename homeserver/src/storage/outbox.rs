//! What waits to be sent to other servers, and how far the sender has read each lane; written by `federation`.

use ruma::{OwnedServerName, ServerName};

use super::{Db, DbError, Row, Stmt, db::json_list};
use crate::params;

/// The name under which the sender keeps its cursors.
const FOLLOWER: &str = "federation_sender";

/// One thing to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    pub outbox_nid: i64,
    pub item: Item,
}

/// An event by its number, or an EDU as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Event(i64),
    Edu(String),
}

/// Queues an item.
pub(crate) fn insert(destination: &ServerName, item: &Item) -> Stmt {
    let (event_nid, edu) = match item {
        Item::Event(event_nid) => (Some(*event_nid), None),
        Item::Edu(edu) => (None, Some(edu.as_str())),
    };
    Stmt::new(
        "INSERT INTO outbox (destination, event_nid, edu) VALUES ($1, $2, $3)",
        params![destination.as_str(), event_nid, edu],
    )
}

/// The oldest `limit` items for a server, in order.
pub(crate) async fn list(db: &Db, destination: &ServerName, limit: usize) -> Result<Vec<Queued>, DbError> {
    let sql = "SELECT outbox_nid, event_nid, edu FROM outbox WHERE destination = $1 ORDER BY outbox_nid LIMIT $2";
    let rows = db.query(sql, params![destination.as_str(), limit]).await?;
    let queued = |row: &Row| {
        let item = match (row.get::<Option<i64>>(1)?, row.get::<Option<String>>(2)?) {
            (Some(event_nid), _) => Item::Event(event_nid),
            (None, Some(edu)) => Item::Edu(edu),
            (None, None) => return Err(DbError::Corrupt("outbox: neither an event nor an EDU".to_owned())),
        };
        Ok(Queued { outbox_nid: row.get(0)?, item })
    };
    rows.iter().map(queued).collect()
}

/// Forgets what was delivered.
pub(crate) fn delete(destination: &ServerName, outbox_nids: &[i64]) -> Stmt {
    Stmt::new(
        "DELETE FROM outbox WHERE destination = $1 \
         AND outbox_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($2 AS TEXT)))",
        params![destination.as_str(), json_list(outbox_nids)],
    )
}

/// Forgets all but the newest `count` items for a server. What it misses it fetches from us once it is back.
pub(crate) fn delete_all_but_newest(destination: &ServerName, count: usize) -> Stmt {
    Stmt::new(
        "DELETE FROM outbox WHERE destination = $1 AND outbox_nid <= (SELECT outbox_nid FROM outbox \
         WHERE destination = $1 ORDER BY outbox_nid DESC LIMIT 1 OFFSET $2)",
        params![destination.as_str(), count],
    )
}

/// Forgets everything for a server.
pub(crate) fn delete_all(destination: &ServerName) -> Stmt {
    Stmt::new("DELETE FROM outbox WHERE destination = $1", params![destination.as_str()])
}

/// The servers for which something waits.
pub(crate) async fn list_destinations(db: &Db) -> Result<Vec<OwnedServerName>, DbError> {
    let rows = db.query("SELECT DISTINCT destination FROM outbox", params![]).await?;
    let server = |row: &Row| {
        let name: String = row.get(0)?;
        name.try_into().map_err(|error| DbError::Corrupt(format!("outbox.destination: {error}")))
    };
    rows.iter().map(server).collect()
}

/// How far the sender has read each lane; lanes that it has not met yet are at 0.
pub(crate) async fn list_cursors(db: &Db) -> Result<Vec<(i64, i64)>, DbError> {
    let sql = "SELECT l.lane, COALESCE(c.seq, 0) FROM lanes l \
               LEFT JOIN follower_cursors c ON c.lane = l.lane AND c.follower = $1";
    let rows = db.query(sql, params![FOLLOWER]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Moves the sender on in a lane.
pub(crate) fn set_cursor(lane: i64, seq: i64) -> Stmt {
    Stmt::new(
        "INSERT INTO follower_cursors (follower, lane, seq) VALUES ($1, $2, $3) \
         ON CONFLICT (follower, lane) DO UPDATE SET seq = $3",
        params![FOLLOWER, lane, seq],
    )
}

/// What a lane changed after `seq`, oldest first: position and changes, as the lane wrote them.
pub(crate) async fn list_log(db: &Db, lane: i64, seq: i64, limit: usize) -> Result<Vec<(i64, String)>, DbError> {
    let sql = "SELECT seq, changes FROM lane_log WHERE lane = $1 AND seq > $2 ORDER BY seq LIMIT $3";
    let rows = db.query(sql, params![lane, seq, limit]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Remembers who delivers a membership that was made through another server.
pub(crate) fn note_handshake(event_id: &ruma::EventId, is_delivered_by_us: bool) -> Stmt {
    Stmt::new(
        "INSERT INTO handshake_events (event_id, is_delivered_by_us) VALUES ($1, $2) ON CONFLICT (event_id) DO NOTHING",
        params![event_id.as_str(), is_delivered_by_us],
    )
}

/// What [`note_handshake`] said of an event, if it was said.
pub(crate) async fn is_delivered_by_us(db: &Db, event_id: &ruma::EventId) -> Result<Option<bool>, DbError> {
    let sql = "SELECT is_delivered_by_us FROM handshake_events WHERE event_id = $1";
    db.query_opt(sql, params![event_id.as_str()]).await?.map(|row| row.get(0)).transpose()
}

/// Local users of a room whose typing changed after `since` up to `upto` (positions by lane number), and whether they
/// type at `now_ms`.
pub(crate) async fn list_local_typing(
    db: &Db,
    room_nid: i64,
    since: &[i64],
    upto: &[i64],
    now_ms: u64,
) -> Result<Vec<(i64, bool)>, DbError> {
    let sql = "SELECT t.user_nid, t.expires_ts > $4 FROM typing t \
               JOIN json_each(CAST($3 AS TEXT)) upto ON upto.key = t.lane AND t.seq <= CAST(upto.value AS BIGINT) \
               LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = t.lane \
               JOIN memberships m ON m.room_nid = t.room_nid AND m.user_nid = t.user_nid AND m.is_local \
               WHERE t.room_nid = $1 AND t.seq > COALESCE(CAST(since.value AS BIGINT), 0)";
    let rows = db.query(sql, params![room_nid, json_list(since), json_list(upto), now_ms]).await?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// The id of a room.
pub(crate) async fn find_room_id(db: &Db, room_nid: i64) -> Result<Option<String>, DbError> {
    let row = db.query_opt("SELECT room_id FROM rooms WHERE room_nid = $1", params![room_nid]).await?;
    row.map(|row| row.get(0)).transpose()
}
