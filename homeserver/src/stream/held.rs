//! Which lane belongs to this shard: takes one, renews its lease and prunes its log.

use std::{sync::Arc, time::Duration};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::{
    params,
    storage::{Db, DbError, Stmt, Value, db::Outcome},
};

/// How long a lane belongs to a shard that does not renew it.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the log is kept for shards and followers that read it later.
const LOG_KEPT: Duration = Duration::from_secs(600);

/// Which lane is ours, and where it stands: nobody else moves it while the epoch is the same.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    pub(super) lane: i64,
    pub(super) epoch: i64,
    /// The position of the newest commit.
    pub(super) seq: i64,
}

impl Lease {
    /// The position that the next commit takes.
    pub(super) fn next(self) -> i64 {
        self.seq + 1
    }
}

/// The lane that this shard holds.
pub(super) struct Held {
    holder: String,
    lease: Mutex<Lease>,
    clock: Arc<dyn Clock>,
}

impl Held {
    /// Takes a lane.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn start(db: &Db, clock: Arc<dyn Clock>) -> Result<Self, DbError> {
        let holder = format!("{:016x}", rand::random::<u64>());
        let held = Self { holder, lease: Mutex::new(Lease::default()), clock };
        held.take(db).await?;
        Ok(held)
    }

    pub(super) fn lease(&self) -> Lease {
        *self.lease.lock()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A commit took the next position.
    pub(super) fn advance(&self) {
        self.lease.lock().seq += 1;
    }

    /// The lane does not stand where we left it: a commit whose outcome never reached us was made after all, or somebody
    /// took the lane because we seemed dead. Finds out where it stands, or takes another one.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn find_again(&self, db: &Db) -> Result<(), DbError> {
        let lease = self.lease();
        let sql = "SELECT seq FROM lanes WHERE lane = $1 AND epoch = $2";
        if let Some(row) = db.query_opt(sql, params![lease.lane, lease.epoch]).await? {
            self.lease.lock().seq = row.get(0)?;
            return Ok(());
        }
        tracing::warn!(lane = lease.lane, "the lane's lease was lost; taking a new one");
        self.take(db).await
    }

    /// Takes a lane whose lease ran out, or makes a new one.
    async fn take(&self, db: &Db) -> Result<(), DbError> {
        let now = self.clock.now_ms();
        // The embedded engine has one shard, which its lock file guarantees: the lane is ours whatever it says.
        let expired_before = if db.is_shared() { Value::from(now) } else { Value::Int(i64::MAX) };
        let until = Value::from(now + millis(LEASE));
        let reuse = "UPDATE lanes SET holder = $1, epoch = epoch + 1, leased_until = $2 \
                     WHERE lane = (SELECT MIN(lane) FROM lanes WHERE leased_until < $3) AND leased_until < $3 \
                     RETURNING lane, epoch, seq";
        let create = "INSERT INTO lanes (lane, holder, epoch, seq, leased_until) \
                      SELECT COALESCE(MAX(lane), 0) + 1, $1, 1, 0, $2 FROM lanes RETURNING lane, epoch, seq";
        let row = loop {
            let reused = Stmt::new(reuse, vec![self.holder.as_str().into(), until.clone(), expired_before.clone()]);
            if let Some(row) = first_row(db.write(vec![reused]).await?) {
                break row;
            }
            let created = Stmt::new(create, vec![self.holder.as_str().into(), until.clone()]);
            match db.write(vec![created]).await {
                Ok(outcomes) => break first_row(outcomes).ok_or(DbError::NoRow)?,
                // Another shard made the same lane at the same moment.
                Err(DbError::Constraint(_)) => {}
                Err(error) => return Err(error),
            }
        };
        let lease = Lease { lane: row.get(0)?, epoch: row.get(1)?, seq: row.get(2)? };
        tracing::info!(lane = lease.lane, epoch = lease.epoch, "holding a lane");
        *self.lease.lock() = lease;
        Ok(())
    }

    /// Renews the lease and prunes the log until shutdown.
    pub(super) async fn keep(self: Arc<Self>, db: Db, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.renew(&db).await {
                tracing::warn!(%error, "cannot renew the lane's lease; trying again");
            }
        }
    }

    async fn renew(&self, db: &Db) -> Result<(), DbError> {
        let lease = self.lease();
        let now = self.clock.now_ms();
        if db.is_shared() {
            let sql = "UPDATE lanes SET leased_until = $1 WHERE lane = $2 AND epoch = $3";
            db.execute(sql, params![now + millis(LEASE), lease.lane, lease.epoch]).await?;
        }
        let prune = "DELETE FROM lane_log WHERE lane = $1 AND written_ts < $2 AND seq <= \
                     (SELECT COALESCE(MIN(seq), 9223372036854775807) FROM follower_cursors WHERE lane = $1)";
        db.execute(prune, params![lease.lane, now.saturating_sub(millis(LOG_KEPT))]).await?;
        Ok(())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn first_row(outcomes: Vec<Outcome>) -> Option<crate::storage::Row> {
    outcomes.into_iter().next().and_then(|outcome| outcome.rows.into_iter().next())
}
