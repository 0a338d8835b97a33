//! Answers that other servers' transactions were given.

use ruma::ServerName;

use super::{Db, DbError};
use crate::params;

/// What a transaction was answered, if it came before.
pub(crate) async fn find(db: &Db, origin: &ServerName, txn_id: &str) -> Result<Option<String>, DbError> {
    let sql = "SELECT answer FROM received_transactions WHERE origin = $1 AND txn_id = $2";
    db.query_opt(sql, params![origin.as_str(), txn_id]).await?.map(|row| row.get(0)).transpose()
}

/// Remembers an answer.
pub(crate) async fn insert(
    db: &Db,
    origin: &ServerName,
    txn_id: &str,
    now_ms: u64,
    answer: &str,
) -> Result<(), DbError> {
    let sql = "INSERT INTO received_transactions (origin, txn_id, received_ts, answer) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (origin, txn_id) DO NOTHING";
    db.execute(sql, params![origin.as_str(), txn_id, now_ms, answer]).await?;
    Ok(())
}

/// Forgets answers given before a time, in milliseconds since the Unix epoch.
pub(crate) async fn delete_before(db: &Db, received_ts: u64) -> Result<(), DbError> {
    db.execute("DELETE FROM received_transactions WHERE received_ts < $1", params![received_ts]).await?;
    Ok(())
}
