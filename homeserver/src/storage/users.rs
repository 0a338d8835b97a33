//! Statements for `users`: local accounts.

use super::{Db, DbError, Stmt};
use crate::params;

/// A local account.
#[derive(Debug, Clone)]
pub struct UserRow {
    pub user_nid: i64,
    /// `None` when no password logs this user in.
    pub password_hash: Option<String>,
    pub is_admin: bool,
    pub is_deactivated: bool,
}

/// A new account; touches no row when the number has one already.
pub fn insert(user_nid: i64, password_hash: Option<&str>, is_admin: bool, now_ms: u64) -> Stmt {
    let sql = "INSERT INTO users (user_nid, password_hash, is_admin, is_deactivated, is_erased, created_ts) \
               VALUES ($1, $2, $3, FALSE, FALSE, $4) ON CONFLICT (user_nid) DO NOTHING";
    Stmt::new(sql, params![user_nid, password_hash, is_admin, now_ms])
}

/// The account with this number, deactivated ones included.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64) -> Result<Option<UserRow>, DbError> {
    let sql = "SELECT password_hash, is_admin, is_deactivated FROM users WHERE user_nid = $1";
    let Some(row) = db.query_opt(sql, params![user_nid]).await? else { return Ok(None) };
    Ok(Some(UserRow { user_nid, password_hash: row.get(0)?, is_admin: row.get(1)?, is_deactivated: row.get(2)? }))
}

pub fn set_password_hash(user_nid: i64, password_hash: &str) -> Stmt {
    let sql = "UPDATE users SET password_hash = $2 WHERE user_nid = $1 AND NOT is_deactivated";
    Stmt::new(sql, params![user_nid, password_hash])
}

/// Takes the password away and marks the account; `is_erased` only ever becomes true.
pub fn deactivate(user_nid: i64, is_erased: bool) -> Stmt {
    let sql = "UPDATE users SET password_hash = NULL, is_deactivated = TRUE, is_erased = (is_erased OR $2) \
               WHERE user_nid = $1";
    Stmt::new(sql, params![user_nid, is_erased])
}
