//! The table of servers that failed; written by `remote`.

use ruma::ServerName;

use super::{Db, DbError};
use crate::params;

/// What is known of a server that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Since when, in milliseconds since the Unix epoch.
    pub failing_since: u64,
    /// Not before, in milliseconds since the Unix epoch.
    pub retry_after: u64,
    /// The rest before that.
    pub rest_ms: u64,
}

pub(crate) async fn find(db: &Db, server_name: &ServerName) -> Result<Option<Failing>, DbError> {
    let sql = "SELECT failing_since, retry_after, rest_ms FROM destinations WHERE server_name = $1";
    let row = db.query_opt(sql, params![server_name.as_str()]).await?;
    row.map(|row| Ok(Failing { failing_since: row.get(0)?, retry_after: row.get(1)?, rest_ms: row.get(2)? }))
        .transpose()
}

pub(crate) async fn upsert(db: &Db, server_name: &ServerName, failing: Failing) -> Result<(), DbError> {
    let sql = "INSERT INTO destinations (server_name, failing_since, retry_after, rest_ms) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (server_name) DO UPDATE SET failing_since = $2, retry_after = $3, rest_ms = $4";
    let params = params![server_name.as_str(), failing.failing_since, failing.retry_after, failing.rest_ms];
    db.execute(sql, params).await?;
    Ok(())
}

pub(crate) async fn delete(db: &Db, server_name: &ServerName) -> Result<(), DbError> {
    db.execute("DELETE FROM destinations WHERE server_name = $1", params![server_name.as_str()]).await?;
    Ok(())
}
