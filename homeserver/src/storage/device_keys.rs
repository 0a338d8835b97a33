//! Identity keys of devices, cross-signing keys, and the signatures that were added to either.

use super::{Db, DbError, Row, Snapshot, Stmt, db::json_list};
use crate::params;

/// A device's identity keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceKeysRow {
    pub user_nid: i64,
    pub device_id: String,
    pub display_name: Option<String>,
    /// As uploaded, without `unsigned`. Remote devices may have none.
    pub json: Option<String>,
}

/// A cross-signing key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossSigningKeyRow {
    pub user_nid: i64,
    /// `master`, `self_signing` or `user_signing`.
    pub key_usage: String,
    /// Unpadded base64.
    pub public_key: String,
    pub json: String,
}

/// A signature that came after the key it signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySignatureRow {
    pub target_nid: i64,
    /// A device id, or the public key of a master key.
    pub target_key: String,
    pub signer_nid: i64,
    pub key_id: String,
    pub signature: String,
}

/// Everything that is known of some users' keys.
#[derive(Clone, Debug, Default)]
pub struct KeysOfUsers {
    pub devices: Vec<DeviceKeysRow>,
    pub cross_signing: Vec<CrossSigningKeyRow>,
    pub signatures: Vec<KeySignatureRow>,
}

/// Writes a local device's identity keys.
pub fn upsert(user_nid: i64, device_id: &str, json: &str) -> Stmt {
    let sql = "INSERT INTO device_keys (user_nid, device_id, json) VALUES ($1, $2, $3) \
               ON CONFLICT (user_nid, device_id) DO UPDATE SET json = excluded.json";
    Stmt::new(sql, params![user_nid, device_id, json])
}

/// Removes the identity keys of a device that is gone, and the signatures on them.
pub fn delete_of_device(user_nid: i64, device_id: &str) -> [Stmt; 2] {
    [
        Stmt::new("DELETE FROM device_keys WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id]),
        Stmt::new("DELETE FROM key_signatures WHERE target_nid = $1 AND target_key = $2", params![user_nid, device_id]),
    ]
}

/// Answers a row while the device exists: the guard of what is written for it.
pub fn device_exists(user_nid: i64, device_id: &str) -> Stmt {
    Stmt::new("SELECT 1 FROM devices WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id])
}

/// A local device's identity keys.
///
/// # Errors
/// Those of the database.
pub async fn find(db: &Db, user_nid: i64, device_id: &str) -> Result<Option<String>, DbError> {
    let sql = "SELECT json FROM device_keys WHERE user_nid = $1 AND device_id = $2";
    db.query_opt(sql, params![user_nid, device_id]).await?.map(|row| row.get(0)).transpose()
}

/// Whether a user has a device of that name, with or without keys.
///
/// # Errors
/// Those of the database.
pub async fn is_device(db: &Db, user_nid: i64, device_id: &str) -> Result<bool, DbError> {
    let stmt = device_exists(user_nid, device_id);
    Ok(db.query_opt(stmt.sql, stmt.params).await?.is_some())
}

/// Writes a cross-signing key.
pub fn upsert_cross_signing(key: &CrossSigningKeyRow) -> Stmt {
    let sql = "INSERT INTO cross_signing_keys (user_nid, key_usage, public_key, json) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (user_nid, key_usage) DO UPDATE SET public_key = excluded.public_key, json = excluded.json";
    Stmt::new(sql, params![key.user_nid, &key.key_usage, &key.public_key, &key.json])
}

/// Removes a cross-signing key.
pub fn delete_cross_signing(user_nid: i64, key_usage: &str) -> Stmt {
    let sql = "DELETE FROM cross_signing_keys WHERE user_nid = $1 AND key_usage = $2";
    Stmt::new(sql, params![user_nid, key_usage])
}

/// A user's cross-signing keys.
///
/// # Errors
/// Those of the database.
pub async fn list_cross_signing(db: &Db, user_nid: i64) -> Result<Vec<CrossSigningKeyRow>, DbError> {
    let sql = "SELECT user_nid, key_usage, public_key, json FROM cross_signing_keys WHERE user_nid = $1";
    db.query(sql, params![user_nid]).await?.iter().map(read_cross_signing).collect()
}

/// Adds a signature to a key, or replaces the one by the same key.
pub fn upsert_signature(signature: &KeySignatureRow) -> Stmt {
    let sql = "INSERT INTO key_signatures (target_nid, target_key, signer_nid, key_id, signature) \
               VALUES ($1, $2, $3, $4, $5) ON CONFLICT (target_nid, target_key, signer_nid, key_id) \
               DO UPDATE SET signature = excluded.signature";
    let KeySignatureRow { target_nid, target_key, signer_nid, key_id, signature } = signature;
    Stmt::new(sql, params![*target_nid, target_key, *signer_nid, key_id, signature])
}

/// The keys of local and remote users, with the signatures that `asker_nid` may see: those of the keys' owners and its
/// own. The answers belong to one moment.
///
/// # Errors
/// Those of the database.
pub async fn keys_of_users(
    snapshot: &mut Snapshot,
    user_nids: &[i64],
    asker_nid: Option<i64>,
) -> Result<KeysOfUsers, DbError> {
    let users = json_list(user_nids);
    let devices = "SELECT k.user_nid, k.device_id, d.display_name, k.json FROM device_keys k \
        JOIN devices d ON d.user_nid = k.user_nid AND d.device_id = k.device_id \
        WHERE k.user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
        UNION ALL SELECT user_nid, device_id, display_name, json FROM remote_devices \
        WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";
    let cross_signing = "SELECT user_nid, key_usage, public_key, json FROM cross_signing_keys \
        WHERE user_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT)))";
    let signatures = "SELECT target_nid, target_key, signer_nid, key_id, signature FROM key_signatures \
        WHERE target_nid IN (SELECT CAST(value AS BIGINT) FROM json_each(CAST($1 AS TEXT))) \
        AND (signer_nid = target_nid OR signer_nid = $2)";
    // No user has this number.
    let asker = asker_nid.unwrap_or(-1);
    let answers = snapshot
        .query_all(vec![
            Stmt::new(devices, params![&users]),
            Stmt::new(cross_signing, params![&users]),
            Stmt::new(signatures, params![&users, asker]),
        ])
        .await?;
    let [devices, cross_signing, signatures] = answers.as_slice() else { return Err(DbError::NoRow) };
    Ok(KeysOfUsers {
        devices: devices.iter().map(read_device).collect::<Result<_, _>>()?,
        cross_signing: cross_signing.iter().map(read_cross_signing).collect::<Result<_, _>>()?,
        signatures: signatures.iter().map(read_signature).collect::<Result<_, _>>()?,
    })
}

/// Writes a device of a remote user.
pub fn upsert_remote(device: &DeviceKeysRow) -> Stmt {
    let sql = "INSERT INTO remote_devices (user_nid, device_id, display_name, json) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (user_nid, device_id) \
               DO UPDATE SET display_name = excluded.display_name, json = excluded.json";
    let DeviceKeysRow { user_nid, device_id, display_name, json } = device;
    Stmt::new(sql, params![*user_nid, device_id, display_name.as_deref(), json.as_deref()])
}

/// Removes a device of a remote user.
pub fn delete_remote(user_nid: i64, device_id: &str) -> Stmt {
    Stmt::new("DELETE FROM remote_devices WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id])
}

/// Removes all devices of a remote user.
pub fn delete_all_remote(user_nid: i64) -> Stmt {
    Stmt::new("DELETE FROM remote_devices WHERE user_nid = $1", params![user_nid])
}

fn read_device(row: &Row) -> Result<DeviceKeysRow, DbError> {
    Ok(DeviceKeysRow { user_nid: row.get(0)?, device_id: row.get(1)?, display_name: row.get(2)?, json: row.get(3)? })
}

fn read_cross_signing(row: &Row) -> Result<CrossSigningKeyRow, DbError> {
    Ok(CrossSigningKeyRow { user_nid: row.get(0)?, key_usage: row.get(1)?, public_key: row.get(2)?, json: row.get(3)? })
}

fn read_signature(row: &Row) -> Result<KeySignatureRow, DbError> {
    Ok(KeySignatureRow {
        target_nid: row.get(0)?,
        target_key: row.get(1)?,
        signer_nid: row.get(2)?,
        key_id: row.get(3)?,
        signature: row.get(4)?,
    })
}
