//! Rooms: the one place that appends events.
//!
//! A room is a graph of events with forward extremities. [`append`] makes events of our own users, [`receive`] takes in
//! those of other servers, [`create`] makes rooms. All of them go the same way: read the room's hot state ([`hot`]),
//! build and authorise, then commit one write of the lane whose guard compares and swaps the room's `version`. A lost
//! race reloads and retries.

mod aliases;
mod append;
mod backfill;
mod batch;
mod create;
mod directory;
mod error;
mod hot;
mod propose;
mod read;
mod receive;
mod send;
mod state;
#[cfg(test)]
mod tests;
mod user_directory;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub use aliases::{Authority, CreateAliasError, DeleteAliasError, ListAliasesError};
pub use append::{Appended, Draft, Transaction};
pub(crate) use create::object;
pub use create::{InitialState, NewRoom, Profile};
pub use directory::{DirectoryPage, ListPublishedError, PublishError};
pub use error::{AppendError, ReceiveError};
use gatehouse_shared::clock::Clock;
use hot::HotRoom;
use parking_lot::Mutex;
pub use read::Current;
pub use receive::{JoinedRemotely, Received};
use ruma::{OwnedRoomId, OwnedServerName, RoomId, ServerName, UserId, signatures::Ed25519KeyPair};
pub use state::{RoomState, StateEntry};
pub use user_directory::{FoundUser, FoundUsers};

use crate::{
    storage::{Db, event_cache::EventCache, nid::Nids, user_names::UserNames},
    stream::{Change, Lane, SinceLog, Stream},
};

/// Rooms whose state is kept in memory.
const HOT_ROOMS: usize = 2_000;

/// The rooms of this server. Clones share everything.
#[derive(Clone)]
pub struct Rooms {
    shared: Arc<Shared>,
}

/// What rooms are built on.
pub struct RoomsParts {
    pub db: Db,
    pub nids: Nids,
    pub names: UserNames,
    /// Where readers look first for what was just appended.
    pub event_cache: EventCache,
    pub lane: Lane,
    pub stream: Stream,
    pub server_name: OwnedServerName,
    pub signing_key: Arc<Ed25519KeyPair>,
    pub clock: Arc<dyn Clock>,
}

struct Shared {
    parts: RoomsParts,
    hot: Mutex<HashMap<OwnedRoomId, Arc<HotRoom>>>,
    /// The same rooms by number, for what the stream tells.
    by_nid: Mutex<HashMap<i64, OwnedRoomId>>,
    /// Counts how often rooms were asked for.
    uses: AtomicU64,
}

impl Rooms {
    pub fn new(parts: RoomsParts) -> Self {
        let (hot, by_nid) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { parts, hot, by_nid, uses: AtomicU64::new(0) }) }
    }

    /// Forgets what other shards changed; runs until `shutdown`. Correctness does not need it (the compare and swap
    /// does that), but a room that is known to be stale saves a lost race.
    pub async fn follow(self, shutdown: tokio_util::sync::CancellationToken) {
        let mut moves = self.shared.parts.stream.subscribe();
        let mut seen = moves.borrow_and_update().clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                moved = moves.changed() => if moved.is_err() { return },
            }
            match self.shared.parts.stream.changes_since(&seen) {
                SinceLog::Known { upto, entries } => {
                    for change in entries.iter().flat_map(|entry| entry.changes.iter()) {
                        match change {
                            Change::Event { room, position, .. } => self.note_position(*room, *position),
                            Change::Redaction { event } => self.shared.parts.event_cache.forget(*event),
                            _ => {}
                        }
                    }
                    seen = upto;
                }
                SinceLog::Unknown => {
                    self.shared.hot.lock().values().for_each(|room| room.mark_stale());
                    seen = self.shared.parts.stream.positions();
                }
            }
            moves.borrow_and_update();
        }
    }

    /// This server's name.
    pub fn server_name(&self) -> &ServerName {
        &self.shared.parts.server_name
    }

    /// Whether a user belongs to this server.
    pub fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name()
    }

    fn hot_if_kept(&self, room_id: &RoomId) -> Option<Arc<HotRoom>> {
        let room = self.shared.hot.lock().get(room_id).cloned()?;
        self.touch(&room);
        Some(room)
    }

    fn hot(&self, room_id: &RoomId) -> Arc<HotRoom> {
        let mut hot = self.shared.hot.lock();
        if let Some(room) = hot.get(room_id) {
            self.touch(room);
            return room.clone();
        }
        let room = Arc::new(HotRoom::new());
        self.keep(&mut hot, room_id, room.clone());
        room
    }

    /// Keeps a room in memory; past the limit those make room that nobody asked for in the longest time.
    fn keep(&self, hot: &mut HashMap<OwnedRoomId, Arc<HotRoom>>, room_id: &RoomId, room: Arc<HotRoom>) {
        if hot.len() >= HOT_ROOMS {
            let mut ages: Vec<u64> = hot.values().map(|room| room.last_used.load(Ordering::Relaxed)).collect();
            let middle = ages.len() / 2;
            let (_, median, _) = ages.select_nth_unstable(middle);
            // Rooms that somebody works with right now stay: two copies would only make each other stale.
            hot.retain(|_, room| Arc::strong_count(room) > 1 || room.last_used.load(Ordering::Relaxed) > *median);
            self.shared.by_nid.lock().retain(|_, room_id| hot.contains_key(room_id));
        }
        self.touch(&room);
        hot.insert(room_id.to_owned(), room);
    }

    fn touch(&self, room: &HotRoom) {
        room.last_used.store(self.shared.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn note_nid(&self, room_nid: i64, room_id: &RoomId) {
        self.shared.by_nid.lock().entry(room_nid).or_insert_with(|| room_id.to_owned());
    }

    fn note_position(&self, room_nid: i64, position: i64) {
        let Some(room_id) = self.shared.by_nid.lock().get(&room_nid).cloned() else { return };
        if let Some(room) = self.shared.hot.lock().get(&room_id) {
            room.note_position(position);
        }
    }
}
