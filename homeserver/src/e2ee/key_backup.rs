//! Server-side backups of room keys, which only their user's clients can read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{E2ee, is_storable};
use crate::storage::{
    DbError,
    key_backup::{self, BackupSession, BackupVersion, Sessions},
};

/// Why something about a backup was refused.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("there is no such backup version, or nothing in it under that name")]
    NotFound,
    #[error("the backup's current version is {current}")]
    WrongVersion { current: i64 },
    #[error("the algorithm of a backup version cannot change")]
    OtherAlgorithm,
    #[error("the version in the body is not the one in the path")]
    OtherVersion,
    #[error("the backup has the wrong shape: {0}")]
    Shape(&'static str),
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A version of a backup, and how much is in it.
#[derive(Clone, Debug)]
pub struct BackupInfo {
    pub version: i64,
    pub algorithm: String,
    /// JSON text.
    pub auth_data: String,
    pub state: BackupState,
}

/// What clients compare to see whether they know a backup's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupState {
    pub etag: i64,
    pub count: i64,
}

/// The body that makes or changes a version.
#[derive(Debug, Deserialize)]
pub struct BackupWrite {
    pub algorithm: String,
    pub auth_data: Box<RawValue>,
    pub version: Option<String>,
}

/// Backed-up sessions, by room and session: JSON text of `KeyBackupData`.
pub type SessionsOfRooms = BTreeMap<String, BTreeMap<String, Box<RawValue>>>;

/// `KeyBackupData` with the part that only clients understand left as it is.
#[derive(Deserialize, Serialize)]
struct SessionData {
    first_message_index: i64,
    forwarded_count: i64,
    is_verified: bool,
    session_data: Box<RawValue>,
}

impl E2ee {
    /// Makes a new version of the user's backup, which is the current one from then on.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn create_backup(&self, user_nid: i64, backup: &BackupWrite) -> Result<i64, BackupError> {
        check(backup)?;
        loop {
            let auth_data = backup.auth_data.get();
            match key_backup::create_version(&self.parts.db, user_nid, &backup.algorithm, auth_data).await {
                // Another device made a version at the same moment: ours becomes the one after.
                Err(DbError::Constraint(_)) => {}
                result => return Ok(result?),
            }
        }
    }

    /// The version named, or the current one.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn backup_info(&self, user_nid: i64, version: Option<&str>) -> Result<BackupInfo, BackupError> {
        let version = version.map(parse_version).transpose()?;
        let found = key_backup::find_version(&self.parts.db, user_nid, version).await?;
        let BackupVersion { version, algorithm, auth_data, etag } = found.ok_or(BackupError::NotFound)?;
        let count = key_backup::count_sessions(user_nid, version);
        let count = self.parts.db.query_one(count.sql, count.params).await?.get(0)?;
        Ok(BackupInfo { version, algorithm, auth_data, state: BackupState { etag, count } })
    }

    /// Changes the `auth_data` of a version.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn update_backup(&self, user_nid: i64, version: &str, backup: &BackupWrite) -> Result<(), BackupError> {
        check(backup)?;
        if backup.version.as_deref().is_some_and(|in_body| in_body != version) {
            return Err(BackupError::OtherVersion);
        }
        let version = parse_version(version)?;
        let stored = key_backup::find_version(&self.parts.db, user_nid, Some(version)).await?;
        if stored.ok_or(BackupError::NotFound)?.algorithm != backup.algorithm {
            return Err(BackupError::OtherAlgorithm);
        }
        match key_backup::update_auth_data(&self.parts.db, user_nid, version, backup.auth_data.get()).await? {
            true => Ok(()),
            false => Err(BackupError::NotFound),
        }
    }

    /// Deletes a version and all that is in it.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn delete_backup(&self, user_nid: i64, version: &str) -> Result<(), BackupError> {
        match key_backup::delete_version(&self.parts.db, user_nid, parse_version(version)?).await? {
            true => Ok(()),
            false => Err(BackupError::NotFound),
        }
    }

    /// Stores sessions in the current version, each unless a better one is stored.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn store_sessions(
        &self,
        user_nid: i64,
        version: &str,
        rooms: SessionsOfRooms,
    ) -> Result<BackupState, BackupError> {
        let sessions = read_sessions(rooms)?;
        let version = parse_version(version)?;
        let mut tx = self.parts.db.begin().await?;
        let current = key_backup::find_version_in(&mut tx, user_nid, None).await?;
        match current {
            None => return Err(BackupError::NotFound),
            Some(current) if current.version != version => {
                return Err(BackupError::WrongVersion { current: current.version });
            }
            Some(_) => {}
        }
        let mut statements = vec![key_backup::lock_version(user_nid, version)];
        statements.extend(sessions.iter().map(|session| key_backup::upsert_if_better(user_nid, version, session)));
        let outcomes = tx.run(statements).await?;
        let Some((locked, stored)) = outcomes.split_first() else { return Err(DbError::NoRow.into()) };
        if locked.affected == 0 {
            return Err(BackupError::NotFound);
        }
        let has_changed = stored.iter().any(|outcome| outcome.affected > 0);
        self.finish(tx, user_nid, version, has_changed).await
    }

    /// Deletes sessions of a version.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn delete_sessions(
        &self,
        user_nid: i64,
        version: &str,
        sessions: Sessions<'_>,
    ) -> Result<BackupState, BackupError> {
        check_names(sessions)?;
        let version = parse_version(version)?;
        let mut tx = self.parts.db.begin().await?;
        let outcomes = tx
            .run(vec![
                key_backup::lock_version(user_nid, version),
                key_backup::delete_sessions(user_nid, version, sessions),
            ])
            .await?;
        let [locked, deleted] = outcomes.as_slice() else { return Err(DbError::NoRow.into()) };
        if locked.affected == 0 {
            return Err(BackupError::NotFound);
        }
        self.finish(tx, user_nid, version, deleted.affected > 0).await
    }

    /// Raises the etag when something changed, reads the new state and commits.
    async fn finish(
        &self,
        mut tx: crate::storage::Tx,
        user_nid: i64,
        version: i64,
        has_changed: bool,
    ) -> Result<BackupState, BackupError> {
        if has_changed {
            let raise = key_backup::raise_etag(user_nid, version);
            tx.execute(raise.sql, raise.params).await?;
        }
        let backup = key_backup::find_version_in(&mut tx, user_nid, Some(version)).await?;
        let etag = backup.ok_or(BackupError::NotFound)?.etag;
        let outcomes = tx.run_and_commit(vec![key_backup::count_sessions(user_nid, version)]).await?;
        let row = outcomes.first().and_then(|outcome| outcome.rows.first()).ok_or(DbError::NoRow)?;
        Ok(BackupState { etag, count: row.get(0)? })
    }

    /// Sessions of a version. Asking for one session that is not there is an error; asking for many is not.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub async fn list_sessions(
        &self,
        user_nid: i64,
        version: &str,
        sessions: Sessions<'_>,
    ) -> Result<SessionsOfRooms, BackupError> {
        check_names(sessions)?;
        let version = parse_version(version)?;
        if key_backup::find_version(&self.parts.db, user_nid, Some(version)).await?.is_none() {
            return Err(BackupError::NotFound);
        }
        let rows = key_backup::list_sessions(&self.parts.db, user_nid, version, sessions).await?;
        if rows.is_empty() && matches!(sessions, Sessions::One { .. }) {
            return Err(BackupError::NotFound);
        }
        let mut rooms = SessionsOfRooms::new();
        for row in rows {
            let (room_id, session_id, json) = to_json(row)?;
            rooms.entry(room_id).or_default().insert(session_id, json);
        }
        Ok(rooms)
    }
}

fn check(backup: &BackupWrite) -> Result<(), BackupError> {
    if !is_storable(&backup.algorithm) {
        return Err(BackupError::Shape("algorithm"));
    }
    if !backup.auth_data.get().starts_with('{') {
        return Err(BackupError::Shape("auth_data"));
    }
    Ok(())
}

fn check_names(sessions: Sessions<'_>) -> Result<(), BackupError> {
    let is_good = match sessions {
        Sessions::All => true,
        Sessions::OfRoom(room_id) => is_storable(room_id),
        Sessions::One { room_id, session_id } => is_storable(room_id) && is_storable(session_id),
    };
    if is_good { Ok(()) } else { Err(BackupError::NotFound) }
}

fn parse_version(version: &str) -> Result<i64, BackupError> {
    version.parse().map_err(|_| BackupError::NotFound)
}

/// In order of rooms and sessions, so that two requests for the same sessions wait for each other in one order.
fn read_sessions(rooms: SessionsOfRooms) -> Result<Vec<BackupSession>, BackupError> {
    let mut all = Vec::new();
    for (room_id, sessions) in rooms {
        for (session_id, json) in sessions {
            if !is_storable(&room_id) || !is_storable(&session_id) {
                return Err(BackupError::Shape("a room or session id"));
            }
            let data: SessionData = serde_json::from_str(json.get()).map_err(|_| BackupError::Shape("a session"))?;
            if data.first_message_index < 0 || data.forwarded_count < 0 {
                return Err(BackupError::Shape("a negative count"));
            }
            all.push(BackupSession {
                room_id: room_id.clone(),
                session_id,
                first_message_index: data.first_message_index,
                forwarded_count: data.forwarded_count,
                is_verified: data.is_verified,
                session_data: data.session_data.get().to_owned(),
            });
        }
    }
    Ok(all)
}

fn to_json(row: BackupSession) -> Result<(String, String, Box<RawValue>), BackupError> {
    let corrupt = |error: serde_json::Error| DbError::Corrupt(format!("key_backup_sessions: {error}"));
    let data = SessionData {
        first_message_index: row.first_message_index,
        forwarded_count: row.forwarded_count,
        is_verified: row.is_verified,
        session_data: RawValue::from_string(row.session_data).map_err(corrupt)?,
    };
    let json = serde_json::value::to_raw_value(&data).map_err(corrupt)?;
    Ok((row.room_id, row.session_id, json))
}
