//! Statements for `account_data`, `filters` and `openid_tokens`: what users keep for their clients.

use super::{Db, DbError, Stmt, Value, access_tokens::TokenDigest};
use crate::params;

/// What `room_id` is for account data that belongs to no room.
pub const GLOBAL: &str = "";

/// Sets one piece of account data; a statement of a lane's write, which also carries `Change::User`.
pub fn upsert(user_nid: i64, room_id: &str, data_type: &str, content: &str) -> Stmt {
    let sql = "INSERT INTO account_data (user_nid, room_id, data_type, content, lane, seq) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (user_nid, room_id, data_type) \
               DO UPDATE SET content = excluded.content, lane = excluded.lane, seq = excluded.seq";
    let mut params = params![user_nid, room_id, data_type, content];
    params.extend([Value::Lane, Value::Seq]);
    Stmt::new(sql, params)
}

/// One piece of account data, as JSON.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64, room_id: &str, data_type: &str) -> Result<Option<String>, DbError> {
    let sql = "SELECT content FROM account_data WHERE user_nid = $1 AND room_id = $2 AND data_type = $3";
    let row = db.query_opt(sql, params![user_nid, room_id, data_type]).await?;
    row.map(|row| row.get(0)).transpose()
}

/// Forgets everything of a user that clients keep here.
pub fn delete_all(user_nid: i64) -> Vec<Stmt> {
    vec![
        Stmt::new("DELETE FROM account_data WHERE user_nid = $1", params![user_nid]),
        Stmt::new("DELETE FROM filters WHERE user_nid = $1", params![user_nid]),
    ]
}

pub fn insert_filter(user_nid: i64, filter_id: &str, filter: &str) -> Stmt {
    let sql = "INSERT INTO filters (user_nid, filter_id, filter) VALUES ($1, $2, $3) \
               ON CONFLICT (user_nid, filter_id) DO NOTHING";
    Stmt::new(sql, params![user_nid, filter_id, filter])
}

/// A stored filter, as JSON.
///
/// # Errors
/// Those of the database.
pub async fn find_filter(db: &Db, user_nid: i64, filter_id: &str) -> Result<Option<String>, DbError> {
    let sql = "SELECT filter FROM filters WHERE user_nid = $1 AND filter_id = $2";
    let row = db.query_opt(sql, params![user_nid, filter_id]).await?;
    row.map(|row| row.get(0)).transpose()
}

pub fn insert_openid_token(digest: &TokenDigest, user_nid: i64, expires_ts: u64) -> Stmt {
    let sql = "INSERT INTO openid_tokens (token_digest, user_nid, expires_ts) VALUES ($1, $2, $3)";
    Stmt::new(sql, params![digest.to_vec(), user_nid, expires_ts])
}

/// Whose OpenID token this is, while it is valid.
///
/// # Errors
/// Those of the database.
pub async fn find_openid_user(db: &Db, digest: &TokenDigest, now_ms: u64) -> Result<Option<i64>, DbError> {
    let sql = "SELECT user_nid FROM openid_tokens WHERE token_digest = $1 AND expires_ts > $2";
    let row = db.query_opt(sql, params![digest.to_vec(), now_ms]).await?;
    row.map(|row| row.get(0)).transpose()
}

pub fn prune_openid_tokens(now_ms: u64) -> Stmt {
    Stmt::new("DELETE FROM openid_tokens WHERE expires_ts <= $1", params![now_ms])
}

/// Replaces the content only while it is still `stored`; the guard of a write that edits it. Two edits of one content in
/// one transaction exclude each other, because the first one's guard changes what the second one's looks for.
pub fn replace(user_nid: i64, room_id: &str, data_type: &str, stored: Option<&str>, content: &str) -> Stmt {
    match stored {
        Some(stored) => Stmt::new(
            "UPDATE account_data SET content = $5 \
             WHERE user_nid = $1 AND room_id = $2 AND data_type = $3 AND content = $4",
            params![user_nid, room_id, data_type, stored, content],
        ),
        // Its place in the order of commits is not known to a guard; the upsert of the same write sets it.
        None => Stmt::new(
            "INSERT INTO account_data (user_nid, room_id, data_type, content, lane, seq) \
             VALUES ($1, $2, $3, $4, 0, 0) ON CONFLICT (user_nid, room_id, data_type) DO NOTHING",
            params![user_nid, room_id, data_type, content],
        ),
    }
}
