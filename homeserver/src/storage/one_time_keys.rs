//! One-time keys and fallback keys: each one-time key leaves the table with the claim that gets it.

use std::collections::BTreeMap;

use super::{Db, DbError, Row, Snapshot, Stmt, db::json_list};
use crate::params;

/// The algorithm that clients want to hear of even when no key of it is left.
const SIGNED_CURVE25519: &str = "signed_curve25519";

/// Claims that one transaction carries at most.
const CLAIMS_AT_A_TIME: usize = 200;

/// A key as it is given out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub algorithm: String,
    pub key_id: String,
    pub json: String,
}

/// Whose key of which algorithm somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub user_nid: i64,
    pub device_id: String,
    pub algorithm: String,
}

/// Adds a one-time key behind those that the device has.
pub fn insert(user_nid: i64, device_id: &str, key: &StoredKey) -> Stmt {
    let sql = "INSERT INTO one_time_keys (user_nid, device_id, algorithm, key_id, place, json) \
               SELECT $1, $2, $3, $4, COALESCE(MAX(place), 0) + 1, $5 FROM one_time_keys \
               WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 \
               ON CONFLICT (user_nid, device_id, algorithm, key_id) DO NOTHING";
    Stmt::new(sql, params![user_nid, device_id, &key.algorithm, &key.key_id, &key.json])
}

/// Replaces the device's fallback key of an algorithm. The same key again stays as used as it was.
pub fn upsert_fallback(user_nid: i64, device_id: &str, key: &StoredKey) -> Stmt {
    let sql = "INSERT INTO fallback_keys (user_nid, device_id, algorithm, key_id, json, is_used) \
               VALUES ($1, $2, $3, $4, $5, FALSE) ON CONFLICT (user_nid, device_id, algorithm) DO UPDATE \
               SET key_id = excluded.key_id, json = excluded.json, \
                   is_used = fallback_keys.is_used AND fallback_keys.json = excluded.json";
    Stmt::new(sql, params![user_nid, device_id, &key.algorithm, &key.key_id, &key.json])
}

/// Removes everything of devices that are gone.
pub fn delete_of_device(user_nid: i64, device_id: &str) -> [Stmt; 2] {
    [
        Stmt::new("DELETE FROM one_time_keys WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id]),
        Stmt::new("DELETE FROM fallback_keys WHERE user_nid = $1 AND device_id = $2", params![user_nid, device_id]),
    ]
}

/// Those of the device's unclaimed one-time keys that have one of `key_ids`.
///
/// # Errors
/// Those of the database.
pub async fn list(db: &Db, user_nid: i64, device_id: &str, key_ids: &[&str]) -> Result<Vec<StoredKey>, DbError> {
    let sql = "SELECT algorithm, key_id, json FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 \
               AND key_id IN (SELECT value FROM json_each(CAST($3 AS TEXT)))";
    db.query(sql, params![user_nid, device_id, json_list(key_ids)]).await?.iter().map(|row| read_key(row, 0)).collect()
}

/// How many unclaimed one-time keys a device has, by algorithm; see [`read_counts`].
pub fn counts(user_nid: i64, device_id: &str) -> Stmt {
    let sql = "SELECT algorithm, COUNT(*) FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 GROUP BY algorithm";
    Stmt::new(sql, params![user_nid, device_id])
}

/// Reads the answer to [`counts`]: `device_one_time_keys_count` of a sync.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_counts(rows: &[Row]) -> Result<BTreeMap<String, i64>, DbError> {
    let mut counts = BTreeMap::from([(SIGNED_CURVE25519.to_owned(), 0)]);
    for row in rows {
        counts.insert(row.get(0)?, row.get(1)?);
    }
    Ok(counts)
}

/// Which algorithms have a fallback key that nobody was given yet; see [`read_unused_fallback_types`].
pub fn unused_fallback_types(user_nid: i64, device_id: &str) -> Stmt {
    let sql = "SELECT algorithm FROM fallback_keys WHERE user_nid = $1 AND device_id = $2 AND NOT is_used \
               ORDER BY algorithm";
    Stmt::new(sql, params![user_nid, device_id])
}

/// Reads the answer to [`unused_fallback_types`]: `device_unused_fallback_key_types` of a sync.
///
/// # Errors
/// [`DbError::Column`].
pub fn read_unused_fallback_types(rows: &[Row]) -> Result<Vec<String>, DbError> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// How many unclaimed one-time keys a device has, by algorithm.
///
/// # Errors
/// Those of the database.
pub async fn one_time_key_counts(
    snapshot: &mut Snapshot,
    user_nid: i64,
    device_id: &str,
) -> Result<BTreeMap<String, i64>, DbError> {
    let stmt = counts(user_nid, device_id);
    read_counts(&snapshot.query(stmt.sql, stmt.params).await?)
}

/// Which algorithms have a fallback key that nobody was given yet.
///
/// # Errors
/// Those of the database.
pub async fn unused_fallback_key_types(
    snapshot: &mut Snapshot,
    user_nid: i64,
    device_id: &str,
) -> Result<Vec<String>, DbError> {
    let stmt = unused_fallback_types(user_nid, device_id);
    read_unused_fallback_types(&snapshot.query(stmt.sql, stmt.params).await?)
}

/// Gives out one key for each claim that can be met: the oldest one-time key, or the fallback key when there is none.
/// A one-time key is given to one claim only, whichever shards claim at the same moment.
///
/// # Errors
/// Those of the database; claims of earlier batches are then met already, and their keys are lost.
pub async fn claim(db: &Db, mut claims: Vec<Claim>) -> Result<Vec<(Claim, StoredKey)>, DbError> {
    // In one order everywhere, so that two claimers of the same devices do not wait for each other in a circle.
    claims.sort_unstable();
    claims.dedup();
    let mut given = Vec::with_capacity(claims.len());
    for batch in claims.chunks(CLAIMS_AT_A_TIME) {
        claim_batch(db, batch, &mut given).await?;
    }
    Ok(given)
}

async fn claim_batch(db: &Db, batch: &[Claim], given: &mut Vec<(Claim, StoredKey)>) -> Result<(), DbError> {
    let mut open: Vec<Claim> = batch.to_vec();
    let mut tx = db.begin().await?;
    while !open.is_empty() {
        let oldest = tx.run(open.iter().map(take_oldest).collect()).await?;
        open = keep_given(open, oldest.iter().map(|outcome| outcome.rows.as_slice()), given)?;
        let fallback = tx.run(open.iter().map(use_fallback).collect()).await?;
        open = keep_given(open, fallback.iter().map(|outcome| outcome.rows.as_slice()), given)?;
        // Who is left has no key, or was overtaken between the two looks by claimers that have committed since.
        let left = tx.run(open.iter().map(has_key).collect()).await?;
        let mut left = left.iter().map(|outcome| !outcome.rows.is_empty());
        open.retain(|_| left.next().unwrap_or(false));
    }
    tx.commit().await
}

fn keep_given<'a>(
    claims: Vec<Claim>,
    answers: impl Iterator<Item = &'a [Row]>,
    given: &mut Vec<(Claim, StoredKey)>,
) -> Result<Vec<Claim>, DbError> {
    let mut open = Vec::new();
    for (claim, rows) in claims.into_iter().zip(answers) {
        match rows.first() {
            Some(row) => {
                let key = StoredKey { algorithm: claim.algorithm.clone(), key_id: row.get(0)?, json: row.get(1)? };
                given.push((claim, key));
            }
            None => open.push(claim),
        }
    }
    Ok(open)
}

fn take_oldest(claim: &Claim) -> Stmt {
    let sql = "DELETE FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 AND key_id = \
               (SELECT key_id FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 \
                ORDER BY place, key_id LIMIT 1) RETURNING key_id, json";
    Stmt::new(sql, params![claim.user_nid, &claim.device_id, &claim.algorithm])
}

fn use_fallback(claim: &Claim) -> Stmt {
    let sql = "UPDATE fallback_keys SET is_used = TRUE WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 \
               AND NOT EXISTS (SELECT 1 FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3) \
               RETURNING key_id, json";
    Stmt::new(sql, params![claim.user_nid, &claim.device_id, &claim.algorithm])
}

fn has_key(claim: &Claim) -> Stmt {
    let sql = "SELECT 1 FROM one_time_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3 \
               UNION SELECT 1 FROM fallback_keys WHERE user_nid = $1 AND device_id = $2 AND algorithm = $3";
    Stmt::new(sql, params![claim.user_nid, &claim.device_id, &claim.algorithm])
}

fn read_key(row: &Row, first: usize) -> Result<StoredKey, DbError> {
    Ok(StoredKey { algorithm: row.get(first)?, key_id: row.get(first + 1)?, json: row.get(first + 2)? })
}
