//! The one writer of a shard: collects what is ready and commits many writes in one transaction of its lane.

use std::sync::Arc;

use gatehouse_shared::clock::Clock;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Change, Guard, LogEntry, Stream, change,
    guard::Guards,
    held::{Held, Lease},
};
use crate::{
    params,
    storage::{
        Db, DbError, Stmt, Value,
        db::{Outcome, Tx},
    },
};

/// Writes that one transaction carries at most.
const BATCH: usize = 256;
/// A commit that loses against other transactions is tried so often. Of two in each other's way one always wins.
const ATTEMPTS: usize = 5;

/// Something to commit that readers must learn of.
#[derive(Debug, Default)]
pub struct Write {
    /// What must hold, or nothing of this write happens ([`CommitError::Conflict`]). The guards of all writes in a
    /// transaction run first: those that are about no room in order of submission, then those of rooms in the order of their
    /// numbers, and for each room in order of submission.
    pub guard: Option<Guard>,
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
        let held = Held::start(&db, clock).await?;
        // Our own lane enters the vector before anything is committed in it.
        stream.refresh().await?;
        let (queue, pending) = mpsc::unbounded_channel();
        let held = Arc::new(held);
        tokio::spawn(Arc::clone(&held).keep(db.clone(), shutdown));
        tokio::spawn(Writer { db, held, stream, has_company: false }.run(pending));
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

struct Writer {
    db: Db,
    held: Arc<Held>,
    stream: Stream,
    /// Whether the newest commit saw other shards alive.
    has_company: bool,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Pending>) {
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

    async fn commit_all(&mut self, writes: &[Write]) -> Vec<Result<Committed, CommitError>> {
        match self.commit_in_the_end(writes).await {
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

    async fn commit_alone(&mut self, write: &Write) -> Result<Committed, CommitError> {
        match self.commit_in_the_end(std::slice::from_ref(write)).await {
            Ok(mut results) => results.pop().unwrap_or(Err(CommitError::Closed)),
            Err(error) => Err(CommitError::Db(Arc::new(error))),
        }
    }

    /// Commits; again when another shard's transaction was in the way (two that hold a room each and want the other's, say),
    /// which leaves nothing of this one.
    async fn commit_in_the_end(&mut self, writes: &[Write]) -> Result<Vec<Result<Committed, CommitError>>, DbError> {
        for _ in 1..ATTEMPTS {
            match self.commit_together(writes).await {
                Err(DbError::Serialization(error)) => tracing::debug!(%error, "another transaction was in the way"),
                outcome => return outcome,
            }
        }
        self.commit_together(writes).await
    }

    async fn commit_together(&mut self, writes: &[Write]) -> Result<Vec<Result<Committed, CommitError>>, DbError> {
        let (tx, lease, held) = loop {
            let lease = self.held.lease();
            let guards = Guards::of(writes);
            let take = "UPDATE lanes SET seq = $4 WHERE lane = $1 AND epoch = $2 AND seq = $3";
            let mut first = vec![Stmt::new(take, params![lease.lane, lease.epoch, lease.seq, lease.next()])];
            first.extend(guards.statements());
            let mut tx = self.db.begin().await?;
            let mut outcomes = tx.run(place(first, lease)).await?.into_iter();
            if outcomes.next().is_some_and(|outcome| outcome.affected > 0) {
                break (tx, lease, guards.held(outcomes));
            }
            // Nothing of this transaction may stand.
            drop(tx);
            self.held.find_again(&self.db).await?;
            self.stream.refresh().await?;
        };
        if !held.contains(&true) {
            // Dropping the transaction gives the position back.
            return Ok(writes.iter().map(|_| Err(CommitError::Conflict)).collect());
        }
        let kept = || writes.iter().zip(&held).filter(|(_, held)| **held).map(|(write, _)| write);
        let changes = kept().flat_map(|write| write.changes.iter().copied()).collect();
        let statements = kept().flat_map(|write| write.statements.iter().cloned()).collect();
        self.finish(tx, lease, Stmt::join_inserts(statements), changes).await?;
        let committed = Committed { lane: lease.lane, seq: lease.next() };
        Ok(held.iter().map(|held| if *held { Ok(committed) } else { Err(CommitError::Conflict) }).collect())
    }

    /// Writes what the guards allowed and the log, commits, and takes the commit into this shard's memory.
    async fn finish(
        &mut self,
        tx: Tx,
        lease: Lease,
        mut statements: Vec<Stmt>,
        changes: Arc<[Change]>,
    ) -> Result<(), DbError> {
        let (lane, seq) = (lease.lane, lease.next());
        let mut log = params![lane, seq, self.held.now_ms(), change::format(&changes)];
        let entry = LogEntry { lane, seq, changes };
        let refresh = self.stream.begin_refresh().await;
        let Some(own) = self.db.wake_up_tag() else {
            statements.push(Stmt::new(LOG, log));
            tx.run_and_commit(place(statements, lease)).await?;
            self.held.advance();
            if refresh.knows(lane, lease.seq) {
                refresh.finish_alone(entry).await;
                return Ok(());
            }
            drop(refresh);
            self.look_again().await;
            return Ok(());
        };
        log.push(own.into());
        statements.push(Stmt::new(LOG_AND_LOOK_AROUND, log));
        let statements = place(statements, lease);
        if self.has_company {
            // What the other lanes did meanwhile is read behind the commit, in the same round trip.
            let (outcomes, rows) = tx.run_commit_and_read(statements, refresh.statement()).await?;
            self.held.advance();
            self.has_company = Surroundings::read(&outcomes)?.has_company;
            return refresh.finish(&rows).await;
        }
        let outcomes = tx.run_and_commit(statements).await?;
        self.held.advance();
        let around = Surroundings::read(&outcomes)?;
        self.has_company = around.has_company;
        // Nothing that memory knows is more than what the database has, so an equal sum means that all of it is equal.
        if around.others_stand_at + lease.seq == refresh.sum() {
            refresh.finish_alone(entry).await;
            return Ok(());
        }
        drop(refresh);
        self.look_again().await;
        Ok(())
    }

    /// Reads what memory missed. The commit stands whatever comes of it, and the next look reads the same again.
    async fn look_again(&self) {
        if let Err(error) = self.stream.refresh().await {
            tracing::warn!(%error, "cannot read the lanes after a commit; the next look does");
        }
    }
}

const LOG: &str = "INSERT INTO lane_log (lane, seq, written_ts, changes) VALUES ($1, $2, $3, $4)";

/// As [`LOG`], where other shards can be: wakes those that live (`$5` tells them whose the notification is) and answers
/// whether there are any, and the sum of the other lanes' positions. PostgreSQL only; SQLite has one shard.
///
/// The sum is of a moment after the guards ran, so it counts every commit that this one rests on. When it is the sum that
/// memory knows, memory needs nothing but this commit.
const LOG_AND_LOOK_AROUND: &str = "INSERT INTO lane_log (lane, seq, written_ts, changes) VALUES ($1, $2, $3, $4) \
    RETURNING (SELECT CAST(COALESCE(SUM(o.seq), 0) AS BIGINT) FROM lanes o WHERE o.lane <> $1), \
    (SELECT CAST(pg_notify('gatehouse_lane', $5) AS TEXT) FROM lanes o WHERE o.lane <> $1 AND o.leased_until > $3 LIMIT 1) \
    IS NOT NULL";

/// What a commit saw of the other lanes.
struct Surroundings {
    others_stand_at: i64,
    /// Whether other shards are alive.
    has_company: bool,
}

impl Surroundings {
    /// The last outcome that holds a row is the log's.
    fn read(outcomes: &[Outcome]) -> Result<Self, DbError> {
        let row = outcomes.iter().rev().find_map(|outcome| outcome.rows.first()).ok_or(DbError::NoRow)?;
        Ok(Self { others_stand_at: row.get(0)?, has_company: row.get(1)? })
    }
}

fn place(mut statements: Vec<Stmt>, lease: Lease) -> Vec<Stmt> {
    for value in statements.iter_mut().flat_map(|stmt| stmt.params.iter_mut()) {
        match value {
            Value::Lane => *value = Value::Int(lease.lane),
            Value::Seq => *value = Value::Int(lease.next()),
            _ => {}
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use gatehouse_shared::clock::SystemClock;

    use super::*;
    use crate::storage::testing::{TestDb, postgres};

    #[tokio::test]
    async fn a_commit_that_another_transaction_was_in_the_way_of_is_made_in_the_end() {
        let TestDb { db, .. } = postgres().await;
        db.execute("CREATE TABLE counts (id BIGINT PRIMARY KEY, count BIGINT NOT NULL)", params![]).await.unwrap();
        db.execute("INSERT INTO counts VALUES (1, 0), (2, 0)", params![]).await.unwrap();
        let count = |id: i64| Stmt::new("UPDATE counts SET count = count + 1 WHERE id = $1", params![id]);
        let stream = Stream::open(db.clone()).await.unwrap();
        let shutdown = CancellationToken::new();
        let lane = stream.start(Arc::new(SystemClock), shutdown.clone()).await.unwrap();
        let _running = shutdown.drop_guard();
        let mut other = db.begin().await.unwrap();
        other.run(vec![count(2)]).await.unwrap();
        let write = Write { guard: None, statements: vec![count(1), count(2)], changes: Vec::new() };
        let committed = tokio::spawn(lane.submit(write));
        let waits = "SELECT COUNT(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                     WHERE NOT granted AND datname = current_database()";
        while db.query_one(waits, params![]).await.unwrap().get::<i64>(0).unwrap() == 0 {
            tokio::task::yield_now().await;
        }
        // Each now waits for the other. PostgreSQL ends the one that has waited longer, which is the lane's.
        other.run(vec![count(1)]).await.unwrap();
        other.commit().await.unwrap();
        committed.await.unwrap().unwrap();
        let counts = db.query("SELECT count FROM counts", params![]).await.unwrap();
        assert!(counts.len() == 2 && counts.iter().all(|row| row.get::<i64>(0).unwrap() == 2), "each counted twice");
    }
}
