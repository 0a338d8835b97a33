//! Reads which servers are in a room, by the memberships of their users.

use ruma::{OwnedServerName, ServerName, UserId};

use super::{Db, DbError};
use crate::params;

/// Whether a user of `server` is joined to a room.
pub(crate) async fn is_joined(db: &Db, room_nid: i64, server: &ServerName) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM memberships m JOIN user_names u ON u.user_nid = m.user_nid \
               WHERE m.room_nid = $1 AND m.membership = 'join' AND u.server_name = $2 LIMIT 1";
    Ok(db.query_opt(sql, params![room_nid, server.as_str()]).await?.is_some())
}

/// The servers with joined users in a room.
pub(crate) async fn list_joined(db: &Db, room_nid: i64) -> Result<Vec<OwnedServerName>, DbError> {
    let sql = "SELECT DISTINCT u.server_name FROM memberships m JOIN user_names u ON u.user_nid = m.user_nid \
               WHERE m.room_nid = $1 AND m.membership = 'join'";
    let rows = db.query(sql, params![room_nid]).await?;
    parse(&rows)
}

/// The servers that share a room with a user.
pub(crate) async fn list_sharing_a_room(db: &Db, user_nid: i64) -> Result<Vec<OwnedServerName>, DbError> {
    let sql = "SELECT DISTINCT u.server_name FROM memberships own \
               JOIN memberships other ON other.room_nid = own.room_nid AND other.membership = 'join' \
               JOIN user_names u ON u.user_nid = other.user_nid \
               WHERE own.user_nid = $1 AND own.membership = 'join'";
    let rows = db.query(sql, params![user_nid]).await?;
    parse(&rows)
}

/// Whether a user of this server exists and may be invited.
pub(crate) async fn has_user(db: &Db, user_id: &UserId) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM users u JOIN user_names n ON n.user_nid = u.user_nid \
               WHERE n.user_id = $1 AND NOT u.is_deactivated";
    Ok(db.query_opt(sql, params![user_id.as_str()]).await?.is_some())
}

fn parse(rows: &[super::Row]) -> Result<Vec<OwnedServerName>, DbError> {
    let server = |row: &super::Row| {
        let name: String = row.get(0)?;
        name.try_into().map_err(|error| DbError::Corrupt(format!("user_names.server_name: {error}")))
    };
    rows.iter().map(server).collect()
}
