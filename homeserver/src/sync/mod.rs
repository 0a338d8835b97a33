//! Answers `/sync` and everything else that reads rooms. Reads only.
//!
//! A sync continues from a vector of lane positions ([`crate::stream`]). What a vector covers of a room is a prefix of the
//! room's events, so "new" is: from the newest event back to the first one that is covered. Three ways lead to an answer,
//! and the cheapest one that can give it is taken:
//!
//! 1. the log of changes in memory says that nothing concerns the user: no query;
//! 2. it says that there is nothing but messages in joined rooms, and they are at hand ([`fast`]): no query;
//! 3. a snapshot of the database, in which everything that changed is read with few statements ([`gather`]).

mod answer;
mod extras;
mod fast;
mod filter;
mod gather;
mod keys;
mod memory;
pub mod room;
mod scope;
mod shape;
#[cfg(test)]
mod tests;
mod token;
mod unread;
mod visibility;
mod write;

use std::{collections::HashMap, sync::Arc, time::Duration};

pub use filter::{EventFilter, LazyLoading, SyncFilter};
use gatehouse_shared::clock::Clock;
use memory::{FactsMemory, Joined, Memories};
use parking_lot::Mutex;
use ruma::{UserId, api::client::filter::FilterDefinition};
use scope::{Scope, Touched};
pub use token::{HistoryToken, ParseTokenError, SyncToken};
use tokio_util::sync::CancellationToken;

use crate::{
    storage::{Db, DbError, UserNames, event_cache::EventCache, memberships},
    stream::{Positions, SinceLog, Stream},
};

/// The longest that a sync waits, whatever the client asks for.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// Stored filters that are remembered.
const FILTERS: usize = 10_000;

/// Reads rooms for clients. Clones share everything.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

/// What reading is built on.
pub struct SyncParts {
    pub db: Db,
    pub stream: Stream,
    pub events: EventCache,
    pub names: UserNames,
    pub clock: Arc<dyn Clock>,
    /// Where history comes from that only other servers have.
    pub history: Option<Arc<dyn room::HistorySource>>,
    /// Ends waiting syncs early when the shard shuts down.
    pub shutdown: CancellationToken,
}

struct Shared {
    parts: SyncParts,
    memories: Memories,
    facts: FactsMemory,
    /// By user and filter id. A stored filter never changes.
    filters: Mutex<HashMap<(i64, String), Arc<SyncFilter>>>,
}

/// Who syncs, and what for.
#[derive(Clone, Debug)]
pub struct SyncRequest<'a> {
    pub user_id: &'a UserId,
    pub user_nid: i64,
    pub device_id: &'a str,
    /// `None` for a first sync.
    pub since: Option<SyncToken>,
    pub filter: Arc<SyncFilter>,
    /// How long to wait for something new. A first sync and one for the full state never wait.
    pub timeout: Duration,
    pub full_state: bool,
    /// Whether states are told as of the end of timelines (`state_after`).
    pub use_state_after: bool,
}

/// Why a sync, or another reading, failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the token is not one of this server")]
    Token(#[from] ParseTokenError),
    #[error("there is no filter of this id")]
    UnknownFilter,
    /// Not in the room and never was, or the room is not known; which of them is nobody's business.
    #[error("the user may not see this room")]
    NotInRoom,
    #[error("there is no such event, or the user may not see it")]
    UnknownEvent,
    #[error("the room has no state of this type and key")]
    UnknownState,
    #[error(transparent)]
    Db(#[from] DbError),
}

/// What one look at the changes gave.
enum Look {
    /// The answer as JSON.
    Answer(String),
    /// Nothing that concerns the user, up to here.
    Nothing(SyncToken),
}

impl Syncer {
    pub fn new(parts: SyncParts) -> Self {
        let shared =
            Shared { parts, memories: Memories::default(), facts: FactsMemory::default(), filters: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// A filter that the user has stored.
    ///
    /// # Errors
    /// [`ReadError::UnknownFilter`], and those of the database.
    pub async fn stored_filter(&self, user_nid: i64, filter_id: &str) -> Result<Arc<SyncFilter>, ReadError> {
        let key = (user_nid, filter_id.to_owned());
        if let Some(filter) = self.shared.filters.lock().get(&key) {
            return Ok(filter.clone());
        }
        let sql = "SELECT filter FROM filters WHERE user_nid = $1 AND filter_id = $2";
        let row =
            self.db().query_opt(sql, crate::params![user_nid, filter_id]).await?.ok_or(ReadError::UnknownFilter)?;
        let text: String = row.get(0)?;
        let definition: FilterDefinition = serde_json::from_str(&text)
            .map_err(|error| DbError::Corrupt(format!("filters.filter of user {user_nid}: {error}")))?;
        let filter = Arc::new(SyncFilter::from(&definition));
        let mut filters = self.shared.filters.lock();
        if filters.len() >= FILTERS {
            filters.clear();
        }
        filters.insert(key, filter.clone());
        Ok(filter)
    }

    /// Answers a sync as JSON, as soon as there is something, or when its time is up.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn sync(&self, request: &SyncRequest<'_>) -> Result<String, ReadError> {
        let Some(since) = request.since.as_ref().filter(|_| !request.full_state) else {
            return self.whole(request).await;
        };
        let stream = &self.shared.parts.stream;
        // Registered before the first look: what comes between a look and the wait wakes us.
        let mut waiter = stream.waiter(request.user_nid);
        let deadline = tokio::time::Instant::now() + request.timeout.min(MAX_TIMEOUT);
        stream.catch_up(&since.positions).await?;
        let mut at = since.clone();
        loop {
            match self.look(request, &at).await? {
                Look::Answer(answer) => return Ok(answer),
                // Nothing of the user's lies between, so this is as good a place to continue from.
                Look::Nothing(upto) => at = upto,
            }
            if self.shared.parts.shutdown.is_cancelled() || tokio::time::Instant::now() >= deadline {
                return self.nothing(request, &at).await;
            }
            tokio::select! {
                () = waiter.woken() => {}
                () = tokio::time::sleep_until(deadline) => {}
                () = self.shared.parts.shutdown.cancelled() => {}
            }
        }
    }

    /// Everything that the user may see, or with `full_state` everything that is new and all states.
    async fn whole(&self, request: &SyncRequest<'_>) -> Result<String, ReadError> {
        if let Some(since) = &request.since {
            self.shared.parts.stream.catch_up(&since.positions).await?;
        }
        let gathered = self.gather(request, request.since.as_ref(), &Scope::Everything, None).await?;
        Ok(self.answer(request, gathered).0)
    }

    async fn look(&self, request: &SyncRequest<'_>, since: &SyncToken) -> Result<Look, ReadError> {
        // The rooms first, the changes after: if no change tells of a membership of the user's own, then these were the
        // user's rooms all the time.
        let joined = self.joined(request.user_nid).await?;
        let (scope, upto) = match (self.shared.parts.stream.changes_since(&since.positions), joined) {
            (SinceLog::Known { upto, entries }, Some(joined)) => {
                (Scope::of(&entries, request.user_nid, &joined), Some(upto))
            }
            _ => (Scope::Everything, None),
        };
        if let (Scope::Touched(touched), Some(upto)) = (&scope, &upto)
            && since.to_device_upto.is_none()
        {
            if touched.is_nothing() {
                return Ok(Look::Nothing(SyncToken { positions: upto.clone(), to_device_upto: None }));
            }
            if touched.is_events_only()
                && let Some(look) = self.fast(request, &since.positions, touched, upto).await?
            {
                return Ok(look);
            }
        }
        // More to-device messages are waiting than the last answer could carry.
        let scope = match scope {
            Scope::Touched(touched) if since.to_device_upto.is_some() => {
                Scope::Touched(Touched { own: true, ..touched })
            }
            scope => scope,
        };
        let gathered = self.gather(request, Some(since), &scope, upto).await?;
        let token = gathered.token.clone();
        match self.answer(request, gathered) {
            (answer, true) => Ok(Look::Answer(answer)),
            (_, false) => Ok(Look::Nothing(token)),
        }
    }

    /// The answer when there is nothing.
    async fn nothing(&self, request: &SyncRequest<'_>, at: &SyncToken) -> Result<String, ReadError> {
        let keys = self.key_counts(request).await?;
        let mut out = String::with_capacity(256);
        let mut object = write::Object::open(&mut out);
        object.string("next_batch", &at.to_string());
        object.out().push_str(&keys);
        object.close();
        Ok(out)
    }

    /// The rooms that a user is joined to, as of a position that this shard knows. `None` when they change so fast that
    /// memory cannot follow.
    async fn joined(&self, user_nid: i64) -> Result<Option<Arc<Joined>>, ReadError> {
        const ATTEMPTS: usize = 3;
        let stream = &self.shared.parts.stream;
        let memory = self.shared.memories.of(user_nid);
        for _ in 0..ATTEMPTS {
            let began = {
                let mut memory = memory.lock();
                let began = memory.catch_up(stream, &self.shared.parts.events);
                if let Some(joined) = &memory.joined {
                    return Ok(Some(joined.clone()));
                }
                began
            };
            let mut snapshot = self.db().snapshot().await?;
            let answers = snapshot.query_all(vec![positions::read(), memberships::joined(user_nid)]).await?;
            let [lanes, rooms] = answers.as_slice() else { return Err(DbError::NoRow.into()) };
            let joined: Arc<Joined> = Arc::new(memberships::read_joined(rooms)?.into_iter().collect());
            // A connection is not held while another one is waited for.
            drop(snapshot);
            // What another shard committed may be in the snapshot and not yet in our log.
            stream.catch_up(&positions::parse(lanes)?).await?;
            memory.lock().remember_joined(stream, &began, joined);
        }
        Ok(None)
    }

    fn db(&self) -> &Db {
        &self.shared.parts.db
    }

    fn now_ms(&self) -> u64 {
        self.shared.parts.clock.now_ms()
    }
}

/// As the readers of other tables take positions: the seq of lane n at place n.
fn lanes(positions: &Positions) -> Vec<i64> {
    positions.by_lane_number()
}

/// Where all lanes stand in a snapshot.
mod positions {
    use crate::{
        params,
        storage::{DbError, Row, Stmt},
        stream::Positions,
    };

    pub(super) fn read() -> Stmt {
        Stmt::new("SELECT lane, seq FROM lanes", params![])
    }

    pub(super) fn parse(rows: &[Row]) -> Result<Positions, DbError> {
        rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
    }
}
