//! To-device messages: a queue for each local device, and an outbox for each other server.
//!
//! A message leaves its device's queue when a sync acknowledges it by the position that it continues from. When more
//! waits than one answer carries, the position covers messages that were not delivered yet; then a watermark (the
//! `message_nid` of the last one delivered) stands beside the position: delivered is what the position covers *and*
//! the watermark reaches.
//!
//! A queue has no largest length. Its messages carry keys: one that was dropped is a conversation that stays unreadable
//! without anybody knowing why, and the specification wants them kept until they are delivered. What bounds a queue is who
//! may write into it (devices that are logged in, each message within the size of a request, and rates at the edge) and how
//! long it lives: it goes with its device, in the commit that deletes that.

use super::{Db, DbError, Row, Snapshot, Stmt, Value, db::json_list};
use crate::params;

/// What a device has been given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// The position that its sync continues from: the seq of lane n at place n.
    pub since: Vec<i64>,
    /// Set when the position covers messages beyond the last one delivered.
    pub watermark: Option<i64>,
}

/// What a device is given now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToDevicePage {
    /// Whole events as JSON text, in order.
    pub events: Vec<String>,
    /// To be kept beside the position when more is waiting than these.
    pub watermark: Option<i64>,
    /// Whether something was delivered earlier that can be deleted now: call [`acknowledge`].
    pub has_acknowledged: bool,
}

/// Which devices of a user a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient<'a> {
    Device(&'a str),
    AllDevices,
}

/// Puts a message into the queues of a local user's devices that exist when the transaction commits.
pub fn enqueue(user_nid: i64, recipient: Recipient<'_>, json: std::sync::Arc<str>) -> Stmt {
    let (sql, mut params) = match recipient {
        Recipient::Device(device_id) => (
            "INSERT INTO to_device_messages (user_nid, device_id, lane, seq, json) \
             SELECT user_nid, device_id, $2, $3, $4 FROM devices WHERE user_nid = $1 AND device_id = $5",
            params![device_id],
        ),
        Recipient::AllDevices => (
            "INSERT INTO to_device_messages (user_nid, device_id, lane, seq, json) \
             SELECT user_nid, device_id, $2, $3, $4 FROM devices WHERE user_nid = $1 ORDER BY device_id",
            params![],
        ),
    };
    let mut all = vec![Value::Int(user_nid), Value::Lane, Value::Seq, Value::SharedText(json)];
    all.append(&mut params);
    Stmt::new(sql, all)
}

/// Takes a transaction of a device (of a remote user when `device_id` is empty); touches nothing when it was taken
/// before.
pub fn take_transaction(user_nid: i64, device_id: &str, event_type: &str, txn_id: &str, now_ms: u64) -> Stmt {
    let sql = "INSERT INTO to_device_transactions (user_nid, device_id, event_type, txn_id, created_ts) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_nid, device_id, event_type, txn_id) DO NOTHING";
    Stmt::new(sql, params![user_nid, device_id, event_type, txn_id, now_ms])
}

/// Forgets transactions that are too old to be repeated.
pub fn delete_transactions_before(created_ts: u64) -> Stmt {
    Stmt::new("DELETE FROM to_device_transactions WHERE created_ts < $1", params![created_ts])
}

/// Removes what waits for a device that is gone.
pub fn delete_of_device(user_nid: i64, device_id: &str) -> Stmt {
    Stmt::new("DELETE FROM to_device_messages WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id])
}

/// What waits for a device after `delivered`, up to `upto` (the seq of lane n at place n), at most `limit` messages.
///
/// # Errors
/// Those of the database.
pub async fn to_device_since(
    snapshot: &mut Snapshot,
    user_nid: i64,
    device_id: &str,
    delivered: &Delivered,
    upto: &[i64],
    limit: usize,
) -> Result<ToDevicePage, DbError> {
    let answers = snapshot.query_all(waiting(user_nid, device_id, delivered, upto, limit).into()).await?;
    read_waiting(&answers, limit)
}

/// The statements of [`to_device_since`], to be sent with others; [`read_waiting`] reads their answers.
pub fn waiting(user_nid: i64, device_id: &str, delivered: &Delivered, upto: &[i64], limit: usize) -> [Stmt; 2] {
    // One more than the limit tells whether there is more.
    let one_more = limit.saturating_add(1);
    let since = json_list(&delivered.since);
    let watermark = delivered.watermark.unwrap_or(i64::MAX);
    let undelivered = "SELECT m.message_nid, m.json FROM to_device_messages m \
        JOIN json_each(CAST($3 AS TEXT)) upto ON upto.key = m.lane AND m.seq <= CAST(upto.value AS BIGINT) \
        LEFT JOIN json_each(CAST($4 AS TEXT)) since ON since.key = m.lane \
        WHERE m.user_nid = $1 AND m.device_id = $2 \
        AND (m.seq > COALESCE(CAST(since.value AS BIGINT), 0) OR m.message_nid > $5) \
        ORDER BY m.message_nid LIMIT $6";
    let acknowledged = "SELECT m.message_nid FROM to_device_messages m \
        JOIN json_each(CAST($3 AS TEXT)) since ON since.key = m.lane AND m.seq <= CAST(since.value AS BIGINT) \
        WHERE m.user_nid = $1 AND m.device_id = $2 AND m.message_nid <= $4 LIMIT 1";
    [
        Stmt::new(undelivered, params![user_nid, device_id, json_list(upto), &since, watermark, one_more]),
        Stmt::new(acknowledged, params![user_nid, device_id, &since, watermark]),
    ]
}

/// Reads the two answers to [`waiting`].
///
/// # Errors
/// [`DbError::Column`], or [`DbError::NoRow`] when an answer is missing.
pub fn read_waiting(answers: &[Vec<Row>], limit: usize) -> Result<ToDevicePage, DbError> {
    let [undelivered, acknowledged] = answers else { return Err(DbError::NoRow) };
    let mut events = Vec::with_capacity(undelivered.len().min(limit));
    let mut last = None;
    for row in undelivered.iter().take(limit) {
        last = Some(row.get(0)?);
        events.push(row.get(1)?);
    }
    let watermark = if undelivered.len() > limit { last } else { None };
    Ok(ToDevicePage { events, watermark, has_acknowledged: !acknowledged.is_empty() })
}

/// Deletes what the device has been given: a sync that continues from there has seen it.
///
/// # Errors
/// Those of the database.
pub async fn acknowledge(db: &Db, user_nid: i64, device_id: &str, delivered: &Delivered) -> Result<(), DbError> {
    let sql = "DELETE FROM to_device_messages WHERE user_nid = $1 AND device_id = $2 AND message_nid <= $4 \
               AND seq <= (SELECT CAST(since.value AS BIGINT) FROM json_each(CAST($3 AS TEXT)) since \
                           WHERE since.key = to_device_messages.lane)";
    let since = json_list(&delivered.since);
    db.execute(sql, params![user_nid, device_id, since, delivered.watermark.unwrap_or(i64::MAX)]).await?;
    Ok(())
}

// --- for other servers

/// A message that waits for another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingToDevice {
    pub edu_nid: i64,
    /// The content of an `m.direct_to_device` EDU.
    pub content: String,
}

/// Puts the content of an `m.direct_to_device` EDU into a server's outbox.
pub fn enqueue_remote(destination: &str, content: String) -> Stmt {
    let sql = "INSERT INTO to_device_outbox (destination, content) VALUES ($1, $2)";
    Stmt::new(sql, params![destination, content])
}

/// The oldest messages that wait for a server, in order.
///
/// # Errors
/// Those of the database.
pub async fn list_outgoing(db: &Db, destination: &str, limit: usize) -> Result<Vec<OutgoingToDevice>, DbError> {
    let sql = "SELECT edu_nid, content FROM to_device_outbox WHERE destination = $1 ORDER BY edu_nid LIMIT $2";
    let rows = db.query(sql, params![destination, limit]).await?;
    rows.iter().map(|row| Ok(OutgoingToDevice { edu_nid: row.get(0)?, content: row.get(1)? })).collect()
}

/// Removes messages that their server has taken. Named one by one: numbers between them may belong to commits that
/// came later.
pub fn delete_outgoing(destination: &str, edu_nids: &[i64]) -> Stmt {
    let sql = "DELETE FROM to_device_outbox WHERE destination = $1 \
               AND edu_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($2 AS TEXT)))";
    Stmt::new(sql, params![destination, json_list(edu_nids)])
}

/// Removes all messages for a server.
pub fn delete_all_outgoing(destination: &str) -> Stmt {
    Stmt::new("DELETE FROM to_device_outbox WHERE destination = $1", params![destination])
}

/// The servers that something waits for.
///
/// # Errors
/// Those of the database.
pub async fn list_destinations(db: &Db) -> Result<Vec<String>, DbError> {
    let rows = db.query("SELECT DISTINCT destination FROM to_device_outbox", params![]).await?;
    rows.iter().map(|row| row.get(0)).collect()
}
