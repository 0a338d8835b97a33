//! Media and their thumbnails: tables `media` and `media_thumbnails`.

use super::{Db, DbError, Row, Stmt};
use crate::params;

/// A row of `media` that has its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMedia {
    pub sha256: Vec<u8>,
    pub size: u64,
    pub content_type: Option<String>,
    pub file_name: Option<String>,
}

/// What a media id stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaRow {
    Stored(StoredMedia),
    /// Made by `/create` and waiting for its upload.
    Reserved {
        uploader_nid: i64,
        expires_ts: u64,
    },
}

/// A row of `media_thumbnails`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredThumbnail {
    pub sha256: Vec<u8>,
    pub size: u64,
    pub content_type: String,
}

/// The row of an mxc URI.
pub async fn find(db: &Db, server_name: &str, media_id: &str) -> Result<Option<MediaRow>, DbError> {
    let sql = "SELECT sha256, size, content_type, file_name, uploader_nid, expires_ts FROM media \
               WHERE server_name = $1 AND media_id = $2";
    db.query_opt(sql, params![server_name, media_id]).await?.map(|row| read(&row)).transpose()
}

/// Adds a medium with its content, or gives the row of a remote one its new content. `uploader_nid` is `None` for
/// media of other servers.
pub async fn upsert(
    db: &Db,
    (server_name, media_id): (&str, &str),
    media: &StoredMedia,
    uploader_nid: Option<i64>,
    created_ts: u64,
) -> Result<(), DbError> {
    let sql = "INSERT INTO media (server_name, media_id, sha256, size, content_type, file_name, uploader_nid, created_ts) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
               ON CONFLICT (server_name, media_id) DO UPDATE SET \
                   sha256 = excluded.sha256, size = excluded.size, content_type = excluded.content_type, \
                   file_name = excluded.file_name, created_ts = excluded.created_ts";
    let StoredMedia { sha256, size, content_type, file_name } = media.clone();
    let params = params![server_name, media_id, sha256, size, content_type, file_name, uploader_nid, created_ts];
    db.execute(sql, params).await.map(|_| ())
}

/// Reserves an id unless the user has `at_most` reserved already; whether it was reserved. What the user let expire is
/// deleted on the way.
pub async fn reserve(
    db: &Db,
    (server_name, media_id): (&str, &str),
    uploader_nid: i64,
    at_most: i64,
    now: u64,
    expires_ts: u64,
) -> Result<bool, DbError> {
    let expire = "DELETE FROM media WHERE uploader_nid = $1 AND sha256 IS NULL AND expires_ts <= $2";
    let insert = "INSERT INTO media (server_name, media_id, size, uploader_nid, created_ts, expires_ts) \
                  SELECT $1, $2, 0, CAST($3 AS BIGINT), CAST($4 AS BIGINT), CAST($5 AS BIGINT) \
                  WHERE (SELECT COUNT(*) FROM media WHERE uploader_nid = $3 AND sha256 IS NULL) < $6";
    let insert_params = params![server_name, media_id, uploader_nid, now, expires_ts, at_most];
    let stmts = vec![Stmt::new(expire, params![uploader_nid, now]), Stmt::new(insert, insert_params)];
    Ok(db.write(stmts).await?.last().is_some_and(|outcome| outcome.affected == 1))
}

/// Gives a reserved id its content; whether it was still without.
pub async fn fill(db: &Db, (server_name, media_id): (&str, &str), media: &StoredMedia) -> Result<bool, DbError> {
    let sql = "UPDATE media SET sha256 = $3, size = $4, content_type = $5, file_name = $6, expires_ts = NULL \
               WHERE server_name = $1 AND media_id = $2 AND sha256 IS NULL";
    let StoredMedia { sha256, size, content_type, file_name } = media.clone();
    let params = params![server_name, media_id, sha256, size, content_type, file_name];
    Ok(db.execute(sql, params).await? == 1)
}

/// The thumbnail of a content at one size.
pub async fn find_thumbnail(
    db: &Db,
    source_sha256: &[u8],
    (width, height): (u32, u32),
    method: &str,
) -> Result<Option<StoredThumbnail>, DbError> {
    let sql = "SELECT sha256, size, content_type FROM media_thumbnails \
               WHERE source_sha256 = $1 AND width = $2 AND height = $3 AND method = $4";
    let row = db.query_opt(sql, params![source_sha256, width, height, method]).await?;
    row.map(|row| Ok(StoredThumbnail { sha256: row.get(0)?, size: row.get(1)?, content_type: row.get(2)? })).transpose()
}

/// Remembers a thumbnail.
pub async fn upsert_thumbnail(
    db: &Db,
    source_sha256: &[u8],
    (width, height): (u32, u32),
    method: &str,
    thumbnail: &StoredThumbnail,
) -> Result<(), DbError> {
    let sql = "INSERT INTO media_thumbnails (source_sha256, width, height, method, sha256, size, content_type) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) \
               ON CONFLICT (source_sha256, width, height, method) DO UPDATE SET \
                   sha256 = excluded.sha256, size = excluded.size, content_type = excluded.content_type";
    let StoredThumbnail { sha256, size, content_type } = thumbnail.clone();
    db.execute(sql, params![source_sha256, width, height, method, sha256, size, content_type]).await.map(|_| ())
}

fn read(row: &Row) -> Result<MediaRow, DbError> {
    let Some(sha256) = row.get::<Option<Vec<u8>>>(0)? else {
        return Ok(MediaRow::Reserved {
            uploader_nid: row.get(4)?,
            expires_ts: row.get::<Option<u64>>(5)?.unwrap_or(0),
        });
    };
    Ok(MediaRow::Stored(StoredMedia { sha256, size: row.get(1)?, content_type: row.get(2)?, file_name: row.get(3)? }))
}
