//! What users reported: table `reports`.

use super::{Db, DbError};
use crate::params;

/// A row of `reports`.
#[derive(Clone, Copy, Debug)]
pub struct ReportRow<'a> {
    pub reporter_nid: i64,
    /// Milliseconds since the Unix epoch.
    pub received_ts: u64,
    pub room_id: Option<&'a str>,
    pub event_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub reason: &'a str,
}

/// Adds a report.
///
/// # Errors
/// Those of the database.
pub async fn insert(db: &Db, report: ReportRow<'_>) -> Result<(), DbError> {
    let sql = "INSERT INTO reports (reporter_nid, received_ts, room_id, event_id, user_id, reason) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let ReportRow { reporter_nid, received_ts, room_id, event_id, user_id, reason } = report;
    db.execute(sql, params![reporter_nid, received_ts, room_id, event_id, user_id, reason]).await.map(|_| ())
}
