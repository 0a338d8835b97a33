//! Reads who is in which room.

use std::sync::Arc;

use super::{DbError, Row, Stmt, db::json_list};
use crate::params;

/// A user's membership of a room, with the room's row.
#[derive(Clone, Debug)]
pub struct UserRoom {
    pub room_nid: i64,
    pub room_id: Arc<str>,
    /// The position of the room's newest event.
    pub version: i64,
    /// The newest append's place in the order of commits.
    pub lane: i64,
    pub seq: i64,
    /// The state after the newest event.
    pub state_nid: i64,
    pub membership: String,
    pub member_event_nid: i64,
    /// The position of the membership event; `None` when only an invite or knock told us of the room.
    pub member_position: Option<i64>,
    pub member_lane: i64,
    pub member_seq: i64,
    pub stripped_state: Option<String>,
}

macro_rules! columns {
    () => {
        "SELECT m.room_nid, r.room_id, r.version, r.lane, r.seq, r.state_nid, m.membership, m.event_nid, m.position, \
         m.lane, m.seq, m.stripped_state FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid "
    };
}

/// All rooms of a user but those that were forgotten: see [`read_user_rooms`].
pub fn of_user(user_nid: i64) -> Stmt {
    Stmt::new(concat!(columns!(), "WHERE m.user_nid = $1 AND NOT m.is_forgotten"), params![user_nid])
}

/// A user's membership of these rooms.
pub fn of_user_in(user_nid: i64, room_nids: &[i64]) -> Stmt {
    let sql = concat!(
        columns!(),
        "WHERE m.user_nid = $1 AND NOT m.is_forgotten \
         AND m.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($2 AS TEXT)))"
    );
    Stmt::new(sql, params![user_nid, json_list(room_nids)])
}

/// A user's membership of the rooms of these ids.
pub fn of_user_in_room_ids(user_nid: i64, room_ids: &[&str]) -> Stmt {
    let sql = concat!(
        columns!(),
        "WHERE m.user_nid = $1 AND NOT m.is_forgotten \
         AND r.room_id IN (SELECT value FROM json_each(CAST($2 AS TEXT)))"
    );
    Stmt::new(sql, params![user_nid, json_list(room_ids)])
}

/// A user's membership of one room, unless it was forgotten.
pub fn of_user_in_room(user_nid: i64, room_id: &str) -> Stmt {
    Stmt::new(
        concat!(columns!(), "WHERE m.user_nid = $1 AND r.room_id = $2 AND NOT m.is_forgotten"),
        params![user_nid, room_id],
    )
}

/// Reads the rows of the statements above.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_user_rooms(rows: &[Row]) -> Result<Vec<UserRoom>, DbError> {
    let read = |row: &Row| {
        Ok(UserRoom {
            room_nid: row.get(0)?,
            room_id: row.get::<String>(1)?.into(),
            version: row.get(2)?,
            lane: row.get(3)?,
            seq: row.get(4)?,
            state_nid: row.get(5)?,
            membership: row.get(6)?,
            member_event_nid: row.get(7)?,
            member_position: row.get(8)?,
            member_lane: row.get(9)?,
            member_seq: row.get(10)?,
            stripped_state: row.get(11)?,
        })
    };
    rows.iter().map(read).collect()
}

/// The rooms that a user is joined to: see [`read_joined`].
pub fn joined(user_nid: i64) -> Stmt {
    let sql = "SELECT m.room_nid, r.room_id FROM memberships m JOIN rooms r ON r.room_nid = m.room_nid \
               WHERE m.user_nid = $1 AND m.membership = 'join'";
    Stmt::new(sql, params![user_nid])
}

/// Pairs of room number and room id.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_joined(rows: &[Row]) -> Result<Vec<(i64, Arc<str>)>, DbError> {
    rows.iter().map(|row| Ok((row.get(0)?, row.get::<String>(1)?.into()))).collect()
}

/// How many users are joined to and invited to rooms: see [`read_counts`].
pub fn counts(room_nids: &[i64]) -> Stmt {
    let sql = "SELECT m.room_nid, m.membership, COUNT(*) FROM memberships m \
               WHERE m.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
               AND m.membership IN ('join', 'invite') GROUP BY m.room_nid, m.membership";
    Stmt::new(sql, params![json_list(room_nids)])
}

/// How many users have one of the two memberships in a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    pub joined: i64,
    pub invited: i64,
}

/// Reads the rows of [`counts`]; rooms without members are not among them.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_counts(rows: &[Row]) -> Result<std::collections::HashMap<i64, MemberCounts>, DbError> {
    let mut rooms = std::collections::HashMap::<i64, MemberCounts>::new();
    for row in rows {
        let counts = rooms.entry(row.get(0)?).or_default();
        match row.get::<String>(1)?.as_str() {
            "join" => counts.joined = row.get(2)?,
            _ => counts.invited = row.get(2)?,
        }
    }
    Ok(rooms)
}

/// Who stands for rooms without a name: in each the first five other members, and five who left: see [`read_heroes`].
pub fn heroes(room_nids: &[i64], user_nid: i64) -> Stmt {
    let sql = "SELECT ranked.room_nid, ranked.user_id, ranked.is_present, ranked.event_nid FROM \
               (SELECT m.room_nid, n.user_id, m.event_nid, m.membership IN ('join', 'invite') AS is_present, \
                ROW_NUMBER() OVER (PARTITION BY m.room_nid, m.membership IN ('join', 'invite') \
                                   ORDER BY m.position, m.user_nid) AS place \
                FROM memberships m JOIN user_names n ON n.user_nid = m.user_nid \
                WHERE m.room_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
                AND m.user_nid <> $2 AND m.membership <> 'knock') ranked \
               WHERE ranked.place <= 5 ORDER BY ranked.room_nid, ranked.place";
    Stmt::new(sql, params![json_list(room_nids), user_nid])
}

/// A user who stands for a room without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hero {
    pub user_id: String,
    pub member_event_nid: i64,
}

/// Reads the rows of [`heroes`]: those who left count only where nobody else is left.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_heroes(rows: &[Row]) -> Result<std::collections::HashMap<i64, Vec<Hero>>, DbError> {
    let mut present = std::collections::HashMap::<i64, Vec<Hero>>::new();
    let mut gone = std::collections::HashMap::<i64, Vec<Hero>>::new();
    for row in rows {
        let hero = Hero { user_id: row.get(1)?, member_event_nid: row.get(3)? };
        let heroes = if row.get::<bool>(2)? { &mut present } else { &mut gone };
        heroes.entry(row.get(0)?).or_default().push(hero);
    }
    for (room_nid, heroes) in gone {
        present.entry(room_nid).or_insert(heroes);
    }
    Ok(present)
}
