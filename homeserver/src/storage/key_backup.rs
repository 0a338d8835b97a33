//! Server-side backup of room keys: versions, and the sessions in each.

use super::{Db, DbError, Row, Stmt, Tx};
use crate::params;

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupVersion {
    pub version: i64,
    pub algorithm: String,
    /// JSON text.
    pub auth_data: String,
    pub etag: i64,
}

/// A backed-up session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSession {
    pub room_id: String,
    pub session_id: String,
    pub first_message_index: i64,
    pub forwarded_count: i64,
    pub is_verified: bool,
    /// JSON text.
    pub session_data: String,
}

/// Which sessions of a version are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions<'a> {
    All,
    OfRoom(&'a str),
    One { room_id: &'a str, session_id: &'a str },
}

/// Makes the next version and returns its number.
///
/// # Errors
/// [`DbError::Constraint`] when another request made it at the same moment, and those of the database.
pub async fn create_version(db: &Db, user_nid: i64, algorithm: &str, auth_data: &str) -> Result<i64, DbError> {
    let sql = "INSERT INTO key_backup_versions (user_nid, version, algorithm, auth_data, etag, is_deleted) \
               SELECT $1, COALESCE(MAX(version), 0) + 1, $2, $3, 0, FALSE FROM key_backup_versions \
               WHERE user_nid = $1 RETURNING version";
    let outcomes = db.write(vec![Stmt::new(sql, params![user_nid, algorithm, auth_data])]).await?;
    outcomes.first().and_then(|outcome| outcome.rows.first()).ok_or(DbError::NoRow)?.get(0)
}

/// A version that was not deleted: the newest one, or the one named.
///
/// # Errors
/// Those of the database.
pub async fn find_version(db: &Db, user_nid: i64, version: Option<i64>) -> Result<Option<BackupVersion>, DbError> {
    let stmt = select_version(user_nid, version);
    db.query_opt(stmt.sql, stmt.params).await?.as_ref().map(read_version).transpose()
}

/// As [`find_version`], inside a transaction.
///
/// # Errors
/// Those of the database.
pub async fn find_version_in(
    tx: &mut Tx,
    user_nid: i64,
    version: Option<i64>,
) -> Result<Option<BackupVersion>, DbError> {
    let stmt = select_version(user_nid, version);
    tx.query_opt(stmt.sql, stmt.params).await?.as_ref().map(read_version).transpose()
}

fn select_version(user_nid: i64, version: Option<i64>) -> Stmt {
    match version {
        Some(version) => {
            let sql = "SELECT version, algorithm, auth_data, etag FROM key_backup_versions \
                       WHERE user_nid = $1 AND version = $2 AND NOT is_deleted";
            Stmt::new(sql, params![user_nid, version])
        }
        None => {
            let sql = "SELECT version, algorithm, auth_data, etag FROM key_backup_versions \
                       WHERE user_nid = $1 AND NOT is_deleted ORDER BY version DESC LIMIT 1";
            Stmt::new(sql, params![user_nid])
        }
    }
}

/// Changes a version's `auth_data`; whether there was such a version.
///
/// # Errors
/// Those of the database.
pub async fn update_auth_data(db: &Db, user_nid: i64, version: i64, auth_data: &str) -> Result<bool, DbError> {
    let sql = "UPDATE key_backup_versions SET auth_data = $3 WHERE user_nid = $1 AND version = $2 AND NOT is_deleted";
    Ok(db.execute(sql, params![user_nid, version, auth_data]).await? > 0)
}

/// Deletes a version with everything in it. Whether there was one; a deleted version counts.
///
/// # Errors
/// Those of the database.
pub async fn delete_version(db: &Db, user_nid: i64, version: i64) -> Result<bool, DbError> {
    let mark = "UPDATE key_backup_versions SET is_deleted = TRUE WHERE user_nid = $1 AND version = $2";
    let delete = "DELETE FROM key_backup_sessions WHERE user_nid = $1 AND version = $2";
    let outcomes = db
        .write(vec![Stmt::new(mark, params![user_nid, version]), Stmt::new(delete, params![user_nid, version])])
        .await?;
    Ok(outcomes.first().is_some_and(|outcome| outcome.affected > 0))
}

/// Holds a version against other writers until the transaction ends; touches nothing when it is deleted.
pub fn lock_version(user_nid: i64, version: i64) -> Stmt {
    let sql = "UPDATE key_backup_versions SET etag = etag WHERE user_nid = $1 AND version = $2 AND NOT is_deleted";
    Stmt::new(sql, params![user_nid, version])
}

/// Notes that the stored keys changed.
pub fn raise_etag(user_nid: i64, version: i64) -> Stmt {
    let sql = "UPDATE key_backup_versions SET etag = etag + 1 WHERE user_nid = $1 AND version = $2";
    Stmt::new(sql, params![user_nid, version])
}

/// Stores a session, unless a better one is stored: verified beats unverified, then the lower first message index
/// wins, then the lower forwarded count, and the stored one wins a draw.
pub fn upsert_if_better(user_nid: i64, version: i64, session: &BackupSession) -> Stmt {
    let sql = "INSERT INTO key_backup_sessions (user_nid, version, room_id, session_id, first_message_index, \
                                                forwarded_count, is_verified, session_data) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE SET \
            first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count, \
            is_verified = excluded.is_verified, session_data = excluded.session_data \
        WHERE (excluded.is_verified AND NOT key_backup_sessions.is_verified) \
        OR (excluded.is_verified = key_backup_sessions.is_verified AND \
            (excluded.first_message_index < key_backup_sessions.first_message_index \
             OR (excluded.first_message_index = key_backup_sessions.first_message_index \
                 AND excluded.forwarded_count < key_backup_sessions.forwarded_count)))";
    let BackupSession { room_id, session_id, first_message_index, forwarded_count, is_verified, session_data } =
        session;
    Stmt::new(
        sql,
        params![
            user_nid,
            version,
            room_id,
            session_id,
            *first_message_index,
            *forwarded_count,
            *is_verified,
            session_data
        ],
    )
}

/// Deletes sessions of a version.
pub fn delete_sessions(user_nid: i64, version: i64, sessions: Sessions<'_>) -> Stmt {
    match sessions {
        Sessions::All => Stmt::new(
            "DELETE FROM key_backup_sessions WHERE user_nid = $1 AND version = $2",
            params![user_nid, version],
        ),
        Sessions::OfRoom(room_id) => Stmt::new(
            "DELETE FROM key_backup_sessions WHERE user_nid = $1 AND version = $2 AND room_id = $3",
            params![user_nid, version, room_id],
        ),
        Sessions::One { room_id, session_id } => Stmt::new(
            "DELETE FROM key_backup_sessions WHERE user_nid = $1 AND version = $2 AND room_id = $3 AND session_id = $4",
            params![user_nid, version, room_id, session_id],
        ),
    }
}

/// Sessions of a version, by room and session.
///
/// # Errors
/// Those of the database.
pub async fn list_sessions(
    db: &Db,
    user_nid: i64,
    version: i64,
    sessions: Sessions<'_>,
) -> Result<Vec<BackupSession>, DbError> {
    let (sql, params) = match sessions {
        Sessions::All => (
            "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data \
             FROM key_backup_sessions WHERE user_nid = $1 AND version = $2",
            params![user_nid, version],
        ),
        Sessions::OfRoom(room_id) => (
            "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data \
             FROM key_backup_sessions WHERE user_nid = $1 AND version = $2 AND room_id = $3",
            params![user_nid, version, room_id],
        ),
        Sessions::One { room_id, session_id } => (
            "SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data \
             FROM key_backup_sessions WHERE user_nid = $1 AND version = $2 AND room_id = $3 AND session_id = $4",
            params![user_nid, version, room_id, session_id],
        ),
    };
    db.query(sql, params).await?.iter().map(read_session).collect()
}

/// How many sessions a version holds; the answer is one row with one number.
pub fn count_sessions(user_nid: i64, version: i64) -> Stmt {
    let sql = "SELECT COUNT(*) FROM key_backup_sessions WHERE user_nid = $1 AND version = $2";
    Stmt::new(sql, params![user_nid, version])
}

fn read_version(row: &Row) -> Result<BackupVersion, DbError> {
    Ok(BackupVersion { version: row.get(0)?, algorithm: row.get(1)?, auth_data: row.get(2)?, etag: row.get(3)? })
}

fn read_session(row: &Row) -> Result<BackupSession, DbError> {
    Ok(BackupSession {
        room_id: row.get(0)?,
        session_id: row.get(1)?,
        first_message_index: row.get(2)?,
        forwarded_count: row.get(3)?,
        is_verified: row.get(4)?,
        session_data: row.get(5)?,
    })
}
