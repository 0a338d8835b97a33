//! Work that must have one owner among the shards.

use super::{Db, DbError, Stmt};
use crate::params;

/// A lease that is held. The epoch is in the WHERE of everything that its holder writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub name: &'static str,
    pub epoch: i64,
}

/// Takes the lease if nobody else holds it; times are milliseconds since the Unix epoch.
pub(crate) async fn take(
    db: &Db,
    name: &'static str,
    holder: &str,
    now_ms: u64,
    until_ms: u64,
) -> Result<Option<Lease>, DbError> {
    // The embedded engine has one shard, which its lock file guarantees: whoever held the lease is gone.
    let expired_before = if db.is_shared() { now_ms } else { u64::MAX };
    let sql = "INSERT INTO leases (name, holder, epoch, leased_until) VALUES ($1, $2, 1, $3) \
               ON CONFLICT (name) DO UPDATE SET holder = $2, epoch = leases.epoch + 1, leased_until = $3 \
               WHERE leases.leased_until < $4 OR leases.holder = $2 RETURNING epoch";
    let outcomes = db.write(vec![Stmt::new(sql, params![name, holder, until_ms, expired_before])]).await?;
    let row = outcomes.into_iter().next().and_then(|outcome| outcome.rows.into_iter().next());
    row.map(|row| Ok(Lease { name, epoch: row.get(0)? })).transpose()
}

/// Keeps the lease until `until_ms`; touches no row when it was lost, and then nothing of its transaction may stand.
pub(crate) fn keep(lease: &Lease, until_ms: u64) -> Stmt {
    Stmt::new(
        "UPDATE leases SET leased_until = $3 WHERE name = $1 AND epoch = $2",
        params![lease.name, lease.epoch, until_ms],
    )
}
