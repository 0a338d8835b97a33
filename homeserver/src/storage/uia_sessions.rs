//! Statements for `uia_sessions` and `registration_nonces`: what was begun and not finished.

use super::{Db, DbError, Stmt};
use crate::params;

/// A user-interactive authentication that has begun.
#[derive(Debug, Clone)]
pub struct UiaSessionRow {
    pub request_digest: Vec<u8>,
    /// JSON array of stages.
    pub completed: String,
}

pub fn upsert(session: &str, request_digest: &[u8], completed: &str, now_ms: u64) -> Stmt {
    let sql = "INSERT INTO uia_sessions (session, created_ts, request_digest, completed) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (session) DO UPDATE SET completed = excluded.completed";
    Stmt::new(sql, params![session, now_ms, request_digest, completed])
}

/// A session that began at `not_before_ms` or later.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, session: &str, not_before_ms: u64) -> Result<Option<UiaSessionRow>, DbError> {
    let sql = "SELECT request_digest, completed FROM uia_sessions WHERE session = $1 AND created_ts >= $2";
    let Some(row) = db.query_opt(sql, params![session, not_before_ms]).await? else { return Ok(None) };
    Ok(Some(UiaSessionRow { request_digest: row.get(0)?, completed: row.get(1)? }))
}

pub fn delete(session: &str) -> Stmt {
    Stmt::new("DELETE FROM uia_sessions WHERE session = $1", params![session])
}

pub fn insert_nonce(nonce: &str, now_ms: u64) -> Stmt {
    Stmt::new("INSERT INTO registration_nonces (nonce, created_ts) VALUES ($1, $2)", params![nonce, now_ms])
}

/// Uses a nonce up; touches no row when it was never given, was used, or is older than `not_before_ms`.
pub fn take_nonce(nonce: &str, not_before_ms: u64) -> Stmt {
    let sql = "DELETE FROM registration_nonces WHERE nonce = $1 AND created_ts >= $2";
    Stmt::new(sql, params![nonce, not_before_ms])
}

/// Forgets what is older than `before_ms`.
pub fn prune(before_ms: u64) -> Vec<Stmt> {
    vec![
        Stmt::new("DELETE FROM uia_sessions WHERE created_ts < $1", params![before_ms]),
        Stmt::new("DELETE FROM registration_nonces WHERE created_ts < $1", params![before_ms]),
    ]
}
