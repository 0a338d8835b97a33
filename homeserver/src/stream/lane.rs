//! The one writer of a shard: collects what is ready and commits many writes in one transaction of its lane.

use std::{sync::Arc, time::Duration};

use gatehouse_shared::clock::Clock;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Change, LogEntry, Stream, change};
use crate::{
    params,
    storage::{Db, DbError, Stmt, Value, db::Outcome},
};

/// Writes that one transaction carries at most.
const BATCH: usize = 256;
/// How long a lane belongs to a shard that does not renew it.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);
/// How long the log is kept for shards and followers that read it later.
const LOG_KEPT: Duration = Duration::from_secs(600);

/// Something to commit that readers must learn of.
#[derive(Debug, Default)]
pub struct Write {
    /// A statement that must touch or answer a row, or nothing of this write happens ([`CommitError::Conflict`]).
    /// The guards of all writes in a transaction run first, in order of submission.
    pub guard: Option<Stmt>,
    /// What is written when the guards held. [`Value::Lane`] and [`Value::Seq`] stand for the commit's place.
    pub statements: Vec<Stmt>,
    /// What caches, sleepers and followers learn.
    pub changes: Vec<Change>,
}

/// Where a write stands in the order of commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub lane: i64,
    pub seq: i64,
}

/// Why a write did not happen. In every case nothing of it is stored, except that after `Db` with a lost connection
/// the outcome is unknown, as with any database.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error("somebody else wrote first")]
    Conflict,
    #[error("the server is shutting down")]
    Closed,
    #[error(transparent)]
    Db(#[from] Arc<DbError>),
}

/// This shard's lane. Clones share the writer.
#[derive(Clone)]
pub struct Lane {
    queue: mpsc::UnboundedSender<Pending>,
}

struct Pending {
    write: Write,
    answer: Answer,
}

type Answer = Box<dyn FnOnce(Result<Committed, CommitError>) + Send>;

/// Hears of a write's outcome before anybody else does.
type Tell = Box<dyn FnOnce(&Result<Committed, CommitError>) + Send>;

impl Lane {
    pub(super) async fn start(
        stream: Stream,
        clock: Arc<dyn Clock>,
        shutdown: CancellationToken,
    ) -> Result<Self, DbError> {
        let db = stream.shared.db.clone();
        let holder = format!("{:016x}", rand::random::<u64>());
        let held = Held { holder, lease: Mutex::new(Lease::default()), clock };
        held.take(&db).await?;
        // Our own lane enters the vector before anything is committed in it.
        stream.refresh().await?;
        let (queue, pending) = mpsc::unbounded_channel();
        let held = Arc::new(held);
        tokio::spawn(Arc::clone(&held).keep(db.clone(), shutdown));
        tokio::spawn(Writer { db, held, stream }.run(pending));
        Ok(Self { queue })
    }

    /// Commits `write` in this shard's lane. When this returns, the write is durable, and readers on this shard see it.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when the guard touched nothing; the database's errors otherwise.
    pub async fn commit(&self, write: Write) -> Result<Committed, CommitError> {
        self.submit(write).await
    }

    /// Queues `write` at once, in order of the calls; the returned future is its outcome.
    pub fn submit(
        &self,
        write: Write,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send + 'static + use<> {
        self.submit_and_tell(write, Box::new(|_| {}))
    }

    /// As [`Self::submit`]. `tell` hears the outcome even when the future is dropped, and before it; it is dropped unheard
    /// when the lane has ended.
    pub fn submit_and_tell(
        &self,
        write: Write,
        tell: Tell,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send + 'static + use<> {
        let (answer, answered) = oneshot::channel();
        let answer: Answer = Box::new(move |outcome| {
            tell(&outcome);
            // A caller that gave up does not need the answer; what was committed stays.
            let _ = answer.send(outcome);
        });
        let sent = self.queue.send(Pending { write, answer }).is_ok();
        async move {
            if !sent {
                return Err(CommitError::Closed);
            }
            answered.await.unwrap_or(Err(CommitError::Closed))
        }
    }
}

// --- holding the lane

#[derive(Clone, Copy, Default)]
struct Lease {
    lane: i64,
    epoch: i64,
}

struct Held {
    holder: String,
    lease: Mutex<Lease>,
    clock: Arc<dyn Clock>,
}

impl Held {
    fn lease(&self) -> Lease {
        *self.lease.lock()
    }

    /// Takes a lane whose lease ran out, or makes a new one.
    async fn take(&self, db: &Db) -> Result<(), DbError> {
        let now = self.clock.now_ms();
        // The embedded engine has one shard, which its lock file guarantees: the lane is ours whatever it says.
        let expired_before = if db.is_shared() { Value::from(now) } else { Value::Int(i64::MAX) };
        let until = Value::from(now + millis(LEASE));
        let reuse = "UPDATE lanes SET holder = $1, epoch = epoch + 1, leased_until = $2 \
                     WHERE lane = (SELECT MIN(lane) FROM lanes WHERE leased_until < $3) AND leased_until < $3 \
                     RETURNING lane, epoch";
        let create = "INSERT INTO lanes (lane, holder, epoch, seq, leased_until) \
                      SELECT COALESCE(MAX(lane), 0) + 1, $1, 1, 0, $2 FROM lanes RETURNING lane, epoch";
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
        let lease = Lease { lane: row.get(0)?, epoch: row.get(1)? };
        tracing::info!(lane = lease.lane, epoch = lease.epoch, "holding a lane");
        *self.lease.lock() = lease;
        Ok(())
    }

    /// Renews the lease and prunes the log until shutdown.
    async fn keep(self: Arc<Self>, db: Db, shutdown: CancellationToken) {
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

// --- writing

struct Writer {
    db: Db,
    held: Arc<Held>,
    stream: Stream,
}

impl Writer {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Pending>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, BATCH).await > 0 {
            let (writes, answers): (Vec<_>, Vec<_>) =
                batch.drain(..).map(|pending| (pending.write, pending.answer)).unzip();
            let results = self.commit_all(&writes).await;
            for (answer, result) in answers.into_iter().zip(results) {
                answer(result);
            }
        }
    }

    async fn commit_all(&self, writes: &[Write]) -> Vec<Result<Committed, CommitError>> {
        match self.commit_together(writes).await {
            Ok(results) => results,
            // One bad write must not take the others with it.
            Err(error) if writes.len() > 1 && !error.is_transient() => {
                let mut results = Vec::with_capacity(writes.len());
                for write in writes {
                    results.push(self.commit_alone(write).await);
                }
                results
            }
            Err(error) => {
                let error = Arc::new(error);
                writes.iter().map(|_| Err(CommitError::Db(error.clone()))).collect()
            }
        }
    }

    async fn commit_alone(&self, write: &Write) -> Result<Committed, CommitError> {
        match self.commit_together(std::slice::from_ref(write)).await {
            Ok(mut results) => results.pop().unwrap_or(Err(CommitError::Closed)),
            Err(error) => Err(CommitError::Db(Arc::new(error))),
        }
    }

    async fn commit_together(&self, writes: &[Write]) -> Result<Vec<Result<Committed, CommitError>>, DbError> {
        let mut tx = self.db.begin().await?;
        let (lane, seq, held) = loop {
            let lease = self.held.lease();
            let take = "UPDATE lanes SET seq = seq + 1 WHERE lane = $1 AND epoch = $2 RETURNING seq";
            let mut first = vec![Stmt::new(take, params![lease.lane, lease.epoch])];
            first.extend(writes.iter().filter_map(|write| write.guard.clone()));
            let mut outcomes = tx.run(place(first, lease.lane, None)).await?.into_iter();
            if let Some(row) = outcomes.next().and_then(|outcome| outcome.rows.into_iter().next()) {
                break (lease.lane, row.get::<i64>(0)?, held_guards(writes, outcomes));
            }
            // Somebody took our lane because we seemed dead. Nothing of this transaction may stand; take another lane.
            drop(tx);
            tracing::warn!(lane = lease.lane, "the lane's lease was lost; taking a new one");
            self.held.take(&self.db).await?;
            self.stream.refresh().await?;
            tx = self.db.begin().await?;
        };
        if !held.contains(&true) {
            // Dropping the transaction gives the position back.
            return Ok(writes.iter().map(|_| Err(CommitError::Conflict)).collect());
        }
        let kept = || writes.iter().zip(&held).filter(|(_, held)| **held).map(|(write, _)| write);
        let changes: Vec<Change> = kept().flat_map(|write| write.changes.iter().copied()).collect();
        let mut statements: Vec<Stmt> = kept().flat_map(|write| write.statements.iter().cloned()).collect();
        statements.push(Stmt::new(
            "INSERT INTO lane_log (lane, seq, written_ts, changes) VALUES ($1, $2, $3, $4)",
            params![lane, seq, self.held.clock.now_ms(), change::format(&changes)],
        ));
        statements.extend(self.db.wake_up_statement());
        let statements = place(statements, lane, Some(seq));
        if self.db.is_shared() {
            // What the other lanes did meanwhile is read behind the commit, in the same round trip.
            let refresh = self.stream.begin_refresh().await;
            let rows = tx.run_commit_and_read(statements, refresh.statement()).await?;
            refresh.finish(&rows).await?;
        } else {
            tx.run_and_commit(statements).await?;
            self.stream.advance_alone(LogEntry { lane, seq, changes: changes.into() }).await;
        }
        Ok(held
            .iter()
            .map(|held| if *held { Ok(Committed { lane, seq }) } else { Err(CommitError::Conflict) })
            .collect())
    }
}

/// Which writes' guards touched something. A later write of the same room fails by itself when an earlier one did,
/// because its guard expects what the earlier one would have made.
fn held_guards(writes: &[Write], mut outcomes: impl Iterator<Item = Outcome>) -> Vec<bool> {
    let touched = |outcome: Outcome| outcome.affected > 0;
    writes.iter().map(|write| write.guard.is_none() || outcomes.next().is_some_and(touched)).collect()
}

fn place(mut statements: Vec<Stmt>, lane: i64, seq: Option<i64>) -> Vec<Stmt> {
    for value in statements.iter_mut().flat_map(|stmt| stmt.params.iter_mut()) {
        match value {
            Value::Lane => *value = Value::Int(lane),
            Value::Seq => *value = seq.map_or(Value::Null, Value::Int),
            _ => {}
        }
    }
    statements
}
