//! Whose device lists changed since a position, for whom that matters, and how current our copies of remote lists are.
//!
//! Positions travel as lists: the seq of lane n at place n.

use super::{Db, DbError, Row, Snapshot, Stmt, Value, db::json_list, device_keys, one_time_keys, to_device};
use crate::params;

/// Notes that a user's devices or cross-signing keys changed. Belongs into a write of the lane, beside
/// `Change::Devices`.
pub fn changed(user_nid: i64) -> Stmt {
    let sql = "INSERT INTO device_list_changes (user_nid, version, lane, seq) VALUES ($1, 1, $2, $3) \
               ON CONFLICT (user_nid) DO UPDATE SET version = device_list_changes.version + 1, \
               lane = excluded.lane, seq = excluded.seq";
    Stmt::new(sql, vec![user_nid.into(), Value::Lane, Value::Seq])
}

/// Notes that one device of a local user changed or went: [`changed`], and which device it was.
pub fn device_changed(user_nid: i64, device_id: &str) -> [Stmt; 2] {
    let sql = "INSERT INTO device_changes (user_nid, device_id, version) \
               SELECT user_nid, $2, version FROM device_list_changes WHERE user_nid = $1 \
               ON CONFLICT (user_nid, device_id) DO UPDATE SET version = excluded.version";
    [changed(user_nid), Stmt::new(sql, params![user_nid, device_id])]
}

/// Everything that has to go when a device goes: its keys, what waits for it, and the note that it went. For the write
/// of the lane that deletes the device, beside `Change::Devices`.
pub fn device_deleted(user_nid: i64, device_id: &str) -> Vec<Stmt> {
    let mut stmts = device_changed(user_nid, device_id).to_vec();
    stmts.extend(device_keys::delete_of_device(user_nid, device_id));
    stmts.extend(one_time_keys::delete_of_device(user_nid, device_id));
    stmts.push(to_device::delete_of_device(user_nid, device_id));
    stmts
}

/// Notes that a user signed another user's keys. Belongs into a write of the lane, beside `Change::User`.
pub fn user_signed(signer_nid: i64, target_nid: i64) -> Stmt {
    let sql = "INSERT INTO user_signature_changes (signer_nid, target_nid, lane, seq) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (signer_nid, target_nid) DO UPDATE SET lane = excluded.lane, seq = excluded.seq";
    Stmt::new(sql, vec![signer_nid.into(), target_nid.into(), Value::Lane, Value::Seq])
}

/// `device_lists` of a sync, as row numbers of users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceListChanges {
    pub changed: Vec<i64>,
    pub left: Vec<i64>,
}

/// Whose devices the user has to look at anew, and whose it can forget, after `since` up to `upto`.
///
/// Changed are users whose keys changed and who share a room with the user (and the user itself), and users with whom a
/// shared room is new. A user who merely changed its profile in a room can be among the changed: a client then asks
/// once too often, never once too little.
///
/// # Errors
/// Those of the database.
pub async fn device_list_changes(
    snapshot: &mut Snapshot,
    user_nid: i64,
    since: &[i64],
    upto: &[i64],
) -> Result<DeviceListChanges, DbError> {
    let answers = snapshot.query_all(changes(user_nid, since, upto).into()).await?;
    read_changes(&answers)
}

/// The statements of [`device_list_changes`], to be sent with others; [`read_changes`] reads their answers.
pub fn changes(user_nid: i64, since: &[i64], upto: &[i64]) -> [Stmt; 2] {
    let changed = "WITH span AS (\
            SELECT upto.key AS lane, COALESCE(CAST(since.value AS BIGINT), 0) AS after_seq, \
                   CAST(upto.value AS BIGINT) AS upto_seq \
            FROM json_each(CAST($3 AS TEXT)) upto LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = upto.key), \
        own_rooms AS (\
            SELECT room_nid FROM memberships WHERE user_nid = $1 AND membership = 'join') \
        SELECT c.user_nid FROM span \
            JOIN device_list_changes c ON c.lane = span.lane AND c.seq > span.after_seq AND c.seq <= span.upto_seq \
            WHERE c.user_nid = $1 OR EXISTS (\
                SELECT 1 FROM own_rooms JOIN memberships m ON m.room_nid = own_rooms.room_nid \
                WHERE m.user_nid = c.user_nid AND m.membership = 'join') \
        UNION SELECT s.target_nid FROM span JOIN user_signature_changes s \
            ON s.lane = span.lane AND s.seq > span.after_seq AND s.seq <= span.upto_seq WHERE s.signer_nid = $1 \
        UNION SELECT m.user_nid FROM span \
            JOIN memberships m ON m.lane = span.lane AND m.seq > span.after_seq AND m.seq <= span.upto_seq \
            JOIN own_rooms ON own_rooms.room_nid = m.room_nid \
            WHERE m.membership = 'join' AND m.user_nid <> $1 \
        UNION SELECT other.user_nid FROM span \
            JOIN memberships own ON own.lane = span.lane AND own.seq > span.after_seq AND own.seq <= span.upto_seq \
            JOIN memberships other ON other.room_nid = own.room_nid AND other.membership = 'join' \
            WHERE own.user_nid = $1 AND own.membership = 'join' AND other.user_nid <> $1";
    let left = "WITH span AS (\
            SELECT upto.key AS lane, COALESCE(CAST(since.value AS BIGINT), 0) AS after_seq, \
                   CAST(upto.value AS BIGINT) AS upto_seq \
            FROM json_each(CAST($3 AS TEXT)) upto LEFT JOIN json_each(CAST($2 AS TEXT)) since ON since.key = upto.key), \
        own_rooms AS (\
            SELECT room_nid FROM memberships WHERE user_nid = $1 AND membership = 'join'), \
        parted AS (\
            SELECT m.user_nid FROM span \
                JOIN memberships m ON m.lane = span.lane AND m.seq > span.after_seq AND m.seq <= span.upto_seq \
                JOIN own_rooms ON own_rooms.room_nid = m.room_nid \
                WHERE m.membership IN ('leave', 'ban') AND m.user_nid <> $1 \
            UNION SELECT other.user_nid FROM span \
                JOIN memberships own ON own.lane = span.lane AND own.seq > span.after_seq AND own.seq <= span.upto_seq \
                JOIN memberships other ON other.room_nid = own.room_nid AND other.membership = 'join' \
                WHERE own.user_nid = $1 AND own.membership IN ('leave', 'ban') AND other.user_nid <> $1) \
        SELECT user_nid FROM parted WHERE NOT EXISTS (\
            SELECT 1 FROM own_rooms JOIN memberships m ON m.room_nid = own_rooms.room_nid \
            WHERE m.user_nid = parted.user_nid AND m.membership = 'join')";
    let (since, upto) = (json_list(since), json_list(upto));
    [Stmt::new(changed, params![user_nid, &since, &upto]), Stmt::new(left, params![user_nid, since, upto])]
}

/// Reads the two answers to [`changes`].
///
/// # Errors
/// [`DbError::Column`], or [`DbError::NoRow`] when an answer is missing.
pub fn read_changes(answers: &[Vec<Row>]) -> Result<DeviceListChanges, DbError> {
    let [changed, left] = answers else { return Err(DbError::NoRow) };
    let users = |rows: &[Row]| rows.iter().map(|row| row.get(0)).collect::<Result<Vec<i64>, _>>();
    Ok(DeviceListChanges { changed: users(changed)?, left: users(left)? })
}

// --- local lists, for other servers

/// One device of a local user as other servers hear of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUpdate {
    pub device_id: String,
    /// The version of the user's list that this change made.
    pub version: i64,
    pub is_deleted: bool,
    pub display_name: Option<String>,
    /// Identity keys, when the device has some.
    pub json: Option<String>,
}

/// How often a user's list changed: its `stream_id`. 0 before the first change.
///
/// # Errors
/// Those of the database.
pub async fn version(db: &Db, user_nid: i64) -> Result<i64, DbError> {
    let sql = "SELECT version FROM device_list_changes WHERE user_nid = $1";
    db.query_opt(sql, params![user_nid]).await?.map_or(Ok(0), |row| row.get(0))
}

/// The devices of a local user that changed after `version`, in order of their changes.
///
/// # Errors
/// Those of the database.
pub async fn list_updates(db: &Db, user_nid: i64, version: i64) -> Result<Vec<DeviceUpdate>, DbError> {
    let sql = "SELECT c.device_id, c.version, d.device_id IS NULL, d.display_name, k.json FROM device_changes c \
               LEFT JOIN devices d ON d.user_nid = c.user_nid AND d.device_id = c.device_id \
               LEFT JOIN device_keys k ON k.user_nid = c.user_nid AND k.device_id = c.device_id \
               WHERE c.user_nid = $1 AND c.version > $2 ORDER BY c.version, c.device_id";
    let rows = db.query(sql, params![user_nid, version]).await?;
    rows.iter()
        .map(|row| {
            Ok(DeviceUpdate {
                device_id: row.get(0)?,
                version: row.get(1)?,
                is_deleted: row.get(2)?,
                display_name: row.get(3)?,
                json: row.get(4)?,
            })
        })
        .collect()
}

/// Every device of a local user, with or without keys, and the version of the list, at one moment.
///
/// # Errors
/// Those of the database.
pub async fn list_devices(
    snapshot: &mut Snapshot,
    user_nid: i64,
) -> Result<(i64, Vec<device_keys::DeviceKeysRow>), DbError> {
    let devices = "SELECT d.device_id, d.display_name, k.json FROM devices d \
        LEFT JOIN device_keys k ON k.user_nid = d.user_nid AND k.device_id = d.device_id \
        WHERE d.user_nid = $1 ORDER BY d.device_id";
    let version = "SELECT version FROM device_list_changes WHERE user_nid = $1";
    let answers =
        snapshot.query_all(vec![Stmt::new(devices, params![user_nid]), Stmt::new(version, params![user_nid])]).await?;
    let [devices, version] = answers.as_slice() else { return Err(DbError::NoRow) };
    let version = version.first().map_or(Ok(0), |row| row.get(0))?;
    let read = |row: &Row| {
        Ok(device_keys::DeviceKeysRow {
            user_nid,
            device_id: row.get(0)?,
            display_name: row.get(1)?,
            json: row.get(2)?,
        })
    };
    Ok((version, devices.iter().map(read).collect::<Result<_, DbError>>()?))
}

// --- remote lists

/// How well we know a remote user's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteList {
    /// The newest update that we took.
    pub stream_id: i64,
    /// Whether no update was missed since the list was fetched.
    pub is_current: bool,
}

/// What we know of a remote user's list; none when it was never fetched.
///
/// # Errors
/// Those of the database.
pub async fn find_remote(db: &Db, user_nid: i64) -> Result<Option<RemoteList>, DbError> {
    let sql = "SELECT stream_id, is_current FROM remote_device_lists WHERE user_nid = $1";
    let Some(row) = db.query_opt(sql, params![user_nid]).await? else { return Ok(None) };
    Ok(Some(RemoteList { stream_id: row.get(0)?, is_current: row.get(1)? }))
}

/// Those of `user_nids` whose remote list we hold and have no reason to doubt: no update was missed, and the user and a
/// local user share a room in which nothing changed about either since the list was asked for. So their server has had a
/// reason to send updates all the time.
///
/// # Errors
/// Those of the database.
pub async fn list_current_remote(db: &Db, user_nids: &[i64]) -> Result<Vec<i64>, DbError> {
    let sql = "SELECT l.user_nid FROM remote_device_lists l WHERE l.is_current \
        AND l.user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) AND EXISTS (\
            SELECT 1 FROM memberships theirs \
            JOIN json_each(CAST(l.asked_at AS TEXT)) their_span \
                ON their_span.key = theirs.lane AND theirs.seq <= CAST(their_span.value AS BIGINT) \
            JOIN memberships ours ON ours.room_nid = theirs.room_nid AND ours.membership = 'join' AND ours.is_local \
            JOIN json_each(CAST(l.asked_at AS TEXT)) our_span \
                ON our_span.key = ours.lane AND ours.seq <= CAST(our_span.value AS BIGINT) \
            WHERE theirs.user_nid = l.user_nid AND theirs.membership = 'join')";
    db.query(sql, params![json_list(user_nids)]).await?.iter().map(|row| row.get(0)).collect()
}

/// Notes that a remote user's list was fetched, when the lanes stood at `asked_at` (the seq of lane n at place n).
pub fn upsert_remote(user_nid: i64, stream_id: i64, asked_at: &[i64]) -> Stmt {
    let sql = "INSERT INTO remote_device_lists (user_nid, stream_id, is_current, asked_at) VALUES ($1, $2, TRUE, $3) \
               ON CONFLICT (user_nid) DO UPDATE SET stream_id = excluded.stream_id, \
               is_current = excluded.is_current, asked_at = excluded.asked_at";
    Stmt::new(sql, params![user_nid, stream_id, json_list(asked_at)])
}

/// Touches a row only while the remote list stands at `stream_id` and is current: the guard of an update that builds
/// on it.
pub fn advance_remote(user_nid: i64, from: i64, to: i64) -> Stmt {
    let sql = "UPDATE remote_device_lists SET stream_id = $3 WHERE user_nid = $1 AND stream_id = $2 AND is_current";
    Stmt::new(sql, params![user_nid, from, to])
}

/// Marks a remote list as one that has to be fetched anew.
pub fn doubt_remote(user_nid: i64) -> Stmt {
    Stmt::new("UPDATE remote_device_lists SET is_current = FALSE WHERE user_nid = $1", params![user_nid])
}

/// Whether a local user shares a room with the user.
///
/// # Errors
/// Those of the database.
pub async fn is_seen_by_local_users(db: &Db, user_nid: i64) -> Result<bool, DbError> {
    let sql = "SELECT 1 FROM memberships own JOIN memberships other ON other.room_nid = own.room_nid \
               AND other.membership = 'join' AND other.is_local \
               WHERE own.user_nid = $1 AND own.membership = 'join' LIMIT 1";
    Ok(db.query_opt(sql, params![user_nid]).await?.is_some())
}
