//! Statements for `profiles`: display names, avatars and any other field.

use super::{Db, DbError, Stmt};
use crate::params;

/// A local user's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileRow {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
    /// JSON object with all other fields.
    pub fields: String,
}

/// `None` for a user who never set anything.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64) -> Result<Option<ProfileRow>, DbError> {
    let sql = "SELECT displayname, avatar_url, fields FROM profiles WHERE user_nid = $1";
    let Some(row) = db.query_opt(sql, params![user_nid]).await? else { return Ok(None) };
    Ok(Some(ProfileRow { displayname: row.get(0)?, avatar_url: row.get(1)?, fields: row.get(2)? }))
}

pub fn upsert(user_nid: i64, profile: &ProfileRow) -> Stmt {
    let sql = "INSERT INTO profiles (user_nid, displayname, avatar_url, fields) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (user_nid) DO UPDATE SET displayname = excluded.displayname, \
               avatar_url = excluded.avatar_url, fields = excluded.fields";
    let ProfileRow { displayname, avatar_url, fields } = profile;
    Stmt::new(sql, params![user_nid, displayname.as_deref(), avatar_url.as_deref(), fields])
}

pub fn delete(user_nid: i64) -> Stmt {
    Stmt::new("DELETE FROM profiles WHERE user_nid = $1", params![user_nid])
}

/// The profile, held until the transaction ends; an empty one for a user who never set anything.
///
/// # Errors
/// Those of the database.
pub async fn lock(tx: &mut super::Tx, user_nid: i64) -> Result<ProfileRow, DbError> {
    // Writing the row takes its lock on either engine.
    let sql = "INSERT INTO profiles (user_nid, fields) VALUES ($1, '{}') \
               ON CONFLICT (user_nid) DO UPDATE SET fields = profiles.fields \
               RETURNING displayname, avatar_url, fields";
    let row = tx.query_one(sql, params![user_nid]).await?;
    Ok(ProfileRow { displayname: row.get(0)?, avatar_url: row.get(1)?, fields: row.get(2)? })
}
