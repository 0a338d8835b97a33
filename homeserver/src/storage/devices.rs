//! Statements for `devices`.

use super::{Db, DbError, Row, Stmt, db::json_list};
use crate::params;

/// A device as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    pub device_id: String,
    pub display_name: Option<String>,
    /// Milliseconds since the epoch.
    pub last_seen_ts: u64,
    pub last_seen_ip: String,
}

/// A new device, or a device that logs in again and keeps its name.
pub fn upsert(user_nid: i64, device_id: &str, display_name: Option<&str>, client: &str, now_ms: u64) -> Stmt {
    let sql = "INSERT INTO devices (user_nid, device_id, display_name, created_ts, last_seen_ts, last_seen_ip) \
               VALUES ($1, $2, $3, $4, $4, $5) ON CONFLICT (user_nid, device_id) \
               DO UPDATE SET last_seen_ts = excluded.last_seen_ts, last_seen_ip = excluded.last_seen_ip";
    Stmt::new(sql, params![user_nid, device_id, display_name, now_ms, client])
}

/// Touches no row when there is no such device.
pub fn rename(user_nid: i64, device_id: &str, display_name: Option<&str>) -> Stmt {
    let sql = "UPDATE devices SET display_name = $3 WHERE user_nid = $1 AND device_id = $2";
    Stmt::new(sql, params![user_nid, device_id, display_name])
}

/// Notes when and from where a device was last used; never back in time.
pub fn seen(user_nid: i64, device_id: &str, client: &str, at_ms: u64) -> Stmt {
    let sql = "UPDATE devices SET last_seen_ts = $3, last_seen_ip = $4 \
               WHERE user_nid = $1 AND device_id = $2 AND last_seen_ts < $3";
    Stmt::new(sql, params![user_nid, device_id, at_ms, client])
}

/// Deletes devices and their access and refresh tokens.
pub fn delete<S: AsRef<str>>(user_nid: i64, device_ids: &[S]) -> Vec<Stmt> {
    let list = json_list(device_ids.iter().map(AsRef::as_ref));
    let tokens = "DELETE FROM access_tokens \
                  WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))";
    let devices = "DELETE FROM devices \
                   WHERE user_nid = $1 AND device_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))";
    vec![Stmt::new(tokens, params![user_nid, &list]), Stmt::new(devices, params![user_nid, &list])]
}

/// All devices of a user, by id.
///
/// # Errors
/// Those of the database.
pub async fn list(db: &Db, user_nid: i64) -> Result<Vec<DeviceRow>, DbError> {
    let sql = "SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices \
               WHERE user_nid = $1 ORDER BY device_id";
    db.query(sql, params![user_nid]).await?.iter().map(read).collect()
}

/// One device of a user.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64, device_id: &str) -> Result<Option<DeviceRow>, DbError> {
    let sql = "SELECT device_id, display_name, last_seen_ts, last_seen_ip FROM devices \
               WHERE user_nid = $1 AND device_id = $2";
    db.query_opt(sql, params![user_nid, device_id]).await?.as_ref().map(read).transpose()
}

fn read(row: &Row) -> Result<DeviceRow, DbError> {
    Ok(DeviceRow {
        device_id: row.get(0)?,
        display_name: row.get(1)?,
        last_seen_ts: row.get(2)?,
        last_seen_ip: row.get(3)?,
    })
}
