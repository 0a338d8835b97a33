//! The tables of other servers' signing keys; written by `remote`.

use ruma::ServerName;

use super::{Db, DbError, Stmt};
use crate::params;

/// One key of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    pub key_id: String,
    /// In unpadded base64.
    pub public_key: String,
    /// Events made later than this are not signed by this key; milliseconds since the Unix epoch.
    pub valid_until_ts: u64,
    /// Whether the server still signs requests with it.
    pub is_current: bool,
}

/// A server's document of keys, as it signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDocument {
    pub document: String,
    pub valid_until_ts: u64,
    pub fetched_ts: u64,
}

pub(crate) async fn find_document(db: &Db, server: &ServerName) -> Result<Option<StoredDocument>, DbError> {
    let sql = "SELECT document, valid_until_ts, fetched_ts FROM server_key_documents WHERE server_name = $1";
    let row = db.query_opt(sql, params![server.as_str()]).await?;
    row.map(|row| Ok(StoredDocument { document: row.get(0)?, valid_until_ts: row.get(1)?, fetched_ts: row.get(2)? }))
        .transpose()
}

pub(crate) async fn list_keys(db: &Db, server: &ServerName) -> Result<Vec<StoredKey>, DbError> {
    let sql = "SELECT key_id, public_key, valid_until_ts, is_current FROM server_keys WHERE server_name = $1";
    let rows = db.query(sql, params![server.as_str()]).await?;
    let key = |row: &super::Row| {
        Ok(StoredKey {
            key_id: row.get(0)?,
            public_key: row.get(1)?,
            valid_until_ts: row.get(2)?,
            is_current: row.get(3)?,
        })
    };
    rows.iter().map(key).collect()
}

/// Stores a newer document and its keys. Keys that it no longer names stay for the events that they signed.
pub(crate) async fn store(
    db: &Db,
    server: &ServerName,
    document: &StoredDocument,
    keys: &[StoredKey],
) -> Result<(), DbError> {
    let upsert_document = "INSERT INTO server_key_documents (server_name, document, valid_until_ts, fetched_ts) \
        VALUES ($1, $2, $3, $4) \
        ON CONFLICT (server_name) DO UPDATE SET document = $2, valid_until_ts = $3, fetched_ts = $4";
    let retire = "UPDATE server_keys SET is_current = FALSE WHERE server_name = $1";
    let upsert_key = "INSERT INTO server_keys (server_name, key_id, public_key, valid_until_ts, is_current) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (server_name, key_id) DO UPDATE \
        SET public_key = $3, valid_until_ts = $4, is_current = $5";
    let mut stmts = vec![
        Stmt::new(
            upsert_document,
            params![server.as_str(), &document.document, document.valid_until_ts, document.fetched_ts],
        ),
        Stmt::new(retire, params![server.as_str()]),
    ];
    stmts.extend(keys.iter().map(|key| {
        Stmt::new(
            upsert_key,
            params![server.as_str(), &key.key_id, &key.public_key, key.valid_until_ts, key.is_current],
        )
    }));
    db.write(stmts).await?;
    Ok(())
}
