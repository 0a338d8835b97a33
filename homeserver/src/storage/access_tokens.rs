//! Statements for `access_tokens`: access tokens and the refresh tokens given with them. Only digests are kept.

use super::{Db, DbError, Row, Stmt};
use crate::params;

/// SHA-256 over a token.
pub type TokenDigest = [u8; 32];

/// Whom an access token belongs to.
#[derive(Debug, Clone)]
pub struct TokenRow {
    pub user_nid: i64,
    pub user_id: String,
    pub device_id: String,
    pub is_admin: bool,
    /// Milliseconds since the epoch; `None`: does not expire.
    pub expires_ts: Option<u64>,
    /// The access token that ends with the first use of this one.
    pub supersedes: Option<Vec<u8>>,
}

/// A token to keep.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    pub access: &'a TokenDigest,
    pub refresh: Option<&'a TokenDigest>,
    pub user_nid: i64,
    pub device_id: &'a str,
    pub created_ts: u64,
    pub expires_ts: Option<u64>,
    /// The access token that this one replaces.
    pub supersedes: Option<&'a [u8]>,
}

pub fn insert(token: NewToken<'_>) -> Stmt {
    let sql = "INSERT INTO access_tokens \
               (token_digest, user_nid, device_id, created_ts, expires_ts, refresh_digest, supersedes) \
               VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let refresh = token.refresh.map(|digest| digest.to_vec());
    let params = params![
        token.access.to_vec(),
        token.user_nid,
        token.device_id,
        token.created_ts,
        token.expires_ts,
        refresh,
        token.supersedes
    ];
    Stmt::new(sql, params)
}

/// The token with this digest, unless its user is deactivated.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, access: &TokenDigest) -> Result<Option<TokenRow>, DbError> {
    let sql = "SELECT t.user_nid, n.user_id, t.device_id, u.is_admin, t.expires_ts, t.supersedes FROM access_tokens t \
               JOIN users u ON u.user_nid = t.user_nid JOIN user_names n ON n.user_nid = t.user_nid \
               WHERE t.token_digest = $1 AND NOT u.is_deactivated";
    db.query_opt(sql, params![access.to_vec()]).await?.as_ref().map(read).transpose()
}

/// The token that was given with this refresh token, and its own digest.
///
/// # Errors
/// Those of the database.
pub async fn find_by_refresh(db: &Db, refresh: &TokenDigest) -> Result<Option<(Vec<u8>, TokenRow)>, DbError> {
    let sql = "SELECT t.user_nid, n.user_id, t.device_id, u.is_admin, t.expires_ts, t.supersedes, t.token_digest \
               FROM access_tokens t \
               JOIN users u ON u.user_nid = t.user_nid JOIN user_names n ON n.user_nid = t.user_nid \
               WHERE t.refresh_digest = $1 AND NOT u.is_deactivated";
    let Some(row) = db.query_opt(sql, params![refresh.to_vec()]).await? else { return Ok(None) };
    Ok(Some((row.get(6)?, read(&row)?)))
}

/// Ends what `access` replaced: it and its refresh token are used no more.
pub fn retire_superseded(access: &[u8], superseded: &[u8]) -> Vec<Stmt> {
    let delete = "DELETE FROM access_tokens WHERE token_digest = $1";
    let settle = "UPDATE access_tokens SET supersedes = NULL WHERE token_digest = $1";
    vec![Stmt::new(delete, params![superseded]), Stmt::new(settle, params![access])]
}

/// Ends the tokens that were given in place of `access` and never used.
pub fn delete_successors(access: &[u8]) -> Stmt {
    Stmt::new("DELETE FROM access_tokens WHERE supersedes = $1", params![access])
}

pub fn delete_of_device(user_nid: i64, device_id: &str) -> Stmt {
    Stmt::new("DELETE FROM access_tokens WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id])
}

/// The device that a token logs in, for tests and administrators: how many tokens a user has.
///
/// # Errors
/// Those of the database.
pub async fn count(db: &Db, user_nid: i64) -> Result<i64, DbError> {
    db.query_one("SELECT COUNT(*) FROM access_tokens WHERE user_nid = $1", params![user_nid]).await?.get(0)
}

fn read(row: &Row) -> Result<TokenRow, DbError> {
    Ok(TokenRow {
        user_nid: row.get(0)?,
        user_id: row.get(1)?,
        device_id: row.get(2)?,
        is_admin: row.get(3)?,
        expires_ts: row.get(4)?,
        supersedes: row.get(5)?,
    })
}
