//! One position for everything: lanes, the log of what they changed, and who is woken by it.
//!
//! Each running shard holds a *lane* and commits what readers must learn of through [`Lane::commit`], many writes in
//! one transaction. The transaction takes the next `seq` of the lane. A reader's position is the vector of all lanes'
//! positions ([`Positions`]), read in one statement, and that vector is the whole sync token.
//!
//! Why a vector is enough: within a lane, commit order is `seq` order, because the lane's row is updated in the same
//! transaction. Within a room, every append compares and swaps the room's `version`, so a later event commits after
//! an earlier one, and a snapshot that covers the later one covers the earlier one too. Hence the events of a room
//! that a vector covers are a prefix of the room, whichever shards wrote them.

mod change;
mod guard;
mod held;
mod lane;
mod log;
mod position;
mod waiters;

use std::sync::Arc;

pub use change::Change;
use gatehouse_shared::clock::Clock;
pub use guard::Guard;
pub use lane::{CommitError, Committed, Lane, Write};
pub use log::{LogEntry, SinceLog};
use parking_lot::Mutex;
pub use position::{ParsePositionsError, Positions};
use tokio::sync::watch;
pub use waiters::Waiter;

use crate::{
    params,
    storage::{Db, DbError, Row, Stmt, Value, db::json_list},
};

/// What this shard knows of all lanes, and who waits for more. Clones share everything.
#[derive(Clone)]
pub struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    db: Db,
    log: Mutex<log::Log>,
    positions: watch::Sender<Positions>,
    /// Held while lanes are read, so that entries enter the log in order.
    refreshing: tokio::sync::Mutex<()>,
    waiters: waiters::Waiters,
    audience: waiters::Audience,
}

impl Stream {
    /// Reads where all lanes stand now.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn open(db: Db) -> Result<Self, DbError> {
        let rows = db.query("SELECT lane, seq FROM lanes", params![]).await?;
        let positions =
            rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect::<Result<Positions, DbError>>()?;
        let shared = Shared {
            audience: waiters::Audience::new(db.clone()),
            log: Mutex::new(log::Log::starting_at(positions.clone())),
            positions: watch::Sender::new(positions),
            refreshing: tokio::sync::Mutex::new(()),
            waiters: waiters::Waiters::default(),
            db,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Takes a lane for this shard and starts its writer, its lease and the following of the other lanes.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn start(
        &self,
        clock: Arc<dyn Clock>,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Result<Lane, DbError> {
        let lane = Lane::start(self.clone(), clock, shutdown.clone()).await?;
        if self.shared.db.is_shared() {
            tokio::spawn(self.clone().follow_other_lanes(shutdown));
        }
        Ok(lane)
    }

    /// The newest vector that this shard knows; everything that it covers is in the database.
    pub fn positions(&self) -> Positions {
        self.shared.positions.borrow().clone()
    }

    /// Tells of every move of any lane.
    pub fn subscribe(&self) -> watch::Receiver<Positions> {
        self.shared.positions.subscribe()
    }

    /// Waits on behalf of `user_nid`. Make it before reading, so that nothing between the read and the wait is missed.
    pub fn waiter(&self, user_nid: i64) -> Waiter {
        self.shared.waiters.register(user_nid)
    }

    /// What changed after `since`, as far as memory reaches.
    pub fn changes_since(&self, since: &Positions) -> SinceLog {
        self.shared.log.lock().since(since)
    }

    /// The local users joined to a room, cached.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn local_members(&self, room_nid: i64) -> Result<Arc<Vec<i64>>, DbError> {
        self.shared.audience.local_members(room_nid).await
    }

    /// Makes sure that this shard knows of everything that `since` covers: a token may come from another shard that
    /// is a moment ahead.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn catch_up(&self, since: &Positions) -> Result<(), DbError> {
        if self.shared.positions.borrow().includes(since) {
            return Ok(());
        }
        self.refresh().await
    }

    /// Reads what all lanes did since the last look, takes it into the log and wakes those whom it concerns.
    ///
    /// # Errors
    /// Those of the database; the next refresh then reads the same again.
    pub async fn refresh(&self) -> Result<(), DbError> {
        let refresh = self.begin_refresh().await;
        let rows = self.shared.db.query(REFRESH, refresh.params()).await?;
        refresh.finish(&rows).await
    }

    /// Takes the turn to read what the lanes did, so that the read can travel with other statements.
    async fn begin_refresh(&self) -> Refresh<'_> {
        Refresh { _turn: self.shared.refreshing.lock().await, stream: self, known: self.positions() }
    }

    async fn advance(&self, positions: Positions, entries: Vec<LogEntry>) {
        for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
            if let Change::Membership { room, .. } = change {
                self.shared.audience.forget(*room);
            }
        }
        self.shared.log.lock().append(&positions, &entries);
        // The vector moves before anybody is woken, so that who wakes sees it.
        self.shared.positions.send_replace(positions);
        for entry in &entries {
            for change in entry.changes.iter() {
                self.wake(change).await;
            }
        }
    }

    async fn wake(&self, change: &Change) {
        if self.shared.waiters.is_empty() {
            return;
        }
        let users = match change {
            Change::Event { room, .. } | Change::Room { room } => self.shared.audience.local_members(*room).await,
            Change::Devices { user } | Change::Presence { user } => {
                self.shared.audience.sharing_a_room_with(*user).await
            }
            Change::Membership { user, .. } | Change::User { user } | Change::Tokens { user } => {
                return self.shared.waiters.wake(*user);
            }
            Change::Redaction { .. } => return,
        };
        match users {
            Ok(users) => users.iter().for_each(|user| self.shared.waiters.wake(*user)),
            // Better to wake everybody for nothing than somebody too late.
            Err(error) => {
                tracing::warn!(%error, "cannot tell whom a change concerns; waking all");
                self.shared.waiters.wake_all();
            }
        }
    }

    async fn follow_other_lanes(self, shutdown: tokio_util::sync::CancellationToken) {
        /// A look without a wake-up, in case one was lost.
        const POLL: std::time::Duration = std::time::Duration::from_secs(1);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.shared.db.wait_for_wake_up() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "cannot follow the other shards; trying again");
            }
        }
    }
}

/// A read of all lanes that is under way.
struct Refresh<'a> {
    _turn: tokio::sync::MutexGuard<'a, ()>,
    stream: &'a Stream,
    known: Positions,
}

impl Refresh<'_> {
    fn params(&self) -> Vec<Value> {
        params![json_list(self.known.by_lane_number())]
    }

    fn statement(&self) -> Stmt {
        Stmt::new(REFRESH, self.params())
    }

    /// The sum of what is known of all lanes.
    fn sum(&self) -> i64 {
        self.known.iter().map(|(_, seq)| seq).sum()
    }

    /// Whether memory knows that `lane` stands at `seq`.
    fn knows(&self, lane: i64, seq: i64) -> bool {
        self.known.seq(lane) == seq
    }

    /// Nothing but this commit of our own is new.
    async fn finish_alone(mut self, entry: LogEntry) {
        self.known.raise(entry.lane, entry.seq);
        self.stream.advance(self.known, vec![entry]).await;
    }

    async fn finish(self, rows: &[Row]) -> Result<(), DbError> {
        let (positions, entries) = read_refresh(rows)?;
        self.stream.advance(positions, entries).await;
        Ok(())
    }
}

/// `$1` is a JSON array with the known seq of lane n at place n. The inner SELECT makes both columns of the log's key
/// bounds of one look into its index; as a join, PostgreSQL would read the log from its beginning.
const REFRESH: &str = "SELECT l.lane, l.seq, g.seq, g.changes FROM lanes l \
    LEFT JOIN lane_log g ON g.lane = l.lane AND g.seq > COALESCE((SELECT CAST(k.value AS BIGINT) \
    FROM json_each(CAST($1 AS TEXT)) k WHERE k.key = l.lane), 0) ORDER BY l.lane, g.seq";

fn read_refresh(rows: &[Row]) -> Result<(Positions, Vec<LogEntry>), DbError> {
    let mut positions = Positions::default();
    let mut entries = Vec::new();
    for row in rows {
        let lane: i64 = row.get(0)?;
        positions.raise(lane, row.get(1)?);
        if let Some(seq) = row.get::<Option<i64>>(2)? {
            let changes: String = row.get(3)?;
            entries.push(LogEntry { lane, seq, changes: change::parse(&changes)?.into() });
        }
    }
    Ok((positions, entries))
}
