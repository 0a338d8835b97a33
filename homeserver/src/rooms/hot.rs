//! What a shard keeps in memory of a room that it appends to: position, extremities, state, and the events that
//! authorise others.
//!
//! Two views of a room stand side by side. [`Hot`] is what the next append builds upon: it runs ahead of the database by
//! the appends that are submitted and not committed yet. [`Current`] is the room as committed, which is all that readers
//! see; they never wait for who appends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
};

use ruma::{OwnedEventId, OwnedRoomId, RoomId, events::StateEventType};
use tokio::sync::{Mutex, MutexGuard, Notify};

use super::{Current, RoomState, Rooms, StateEntry};
use crate::{
    rules::{
        pdu::Pdu,
        resolve::{self, StateMap},
        room_version::RoomVersion,
    },
    storage::{
        DbError,
        events::{self, StoredEvent},
        rooms::{self, Extremity, Members},
    },
    stream::{CommitError, Committed, Lane, Write},
};

/// Events kept per room for authorising others; past it the room reads them again.
const KEPT_EVENTS: usize = 2_000;

/// A room in memory. Whoever appends an event of our own holds its lock while building, not while the database commits;
/// whoever takes in an event of another server holds it for both.
pub(super) struct HotRoom {
    room: Mutex<Option<Hot>>,
    seen: parking_lot::Mutex<Seen>,
    /// Tells that nothing is pending any more.
    settled: Notify,
    /// Held while a reader reads the room, so that others wait for what it finds.
    reading: Mutex<()>,
    /// When it was last asked for, in the order of all askings.
    pub(super) last_used: AtomicU64,
}

/// What is known of a room without its lock.
#[derive(Default)]
struct Seen {
    /// The next who takes the lock reads the room anew.
    is_stale: bool,
    /// The room as last known committed.
    committed: Option<Current>,
    /// Whether nothing tells that the room has moved on from there.
    is_current: bool,
    /// Appends whose outcome is not known yet, oldest first.
    pending: VecDeque<Submission>,
    submissions: u64,
    /// The newest position that was built here.
    position: i64,
    /// Counts what made memory doubtful, so that what was read before that is not taken for new.
    doubts: u64,
}

/// An append whose outcome is not known yet.
struct Submission {
    number: u64,
    /// [`Seen::doubts`] when it was submitted.
    doubts: u64,
    /// The room once it is committed.
    current: Current,
}

impl Seen {
    fn doubt(&mut self) {
        self.is_stale = true;
        self.is_current = false;
        self.doubts += 1;
    }

    /// Takes in a room that is committed; `doubts` is their count when nothing newer was known of.
    fn publish(&mut self, current: Current, doubts: u64) {
        if self.committed.as_ref().is_none_or(|known| known.position <= current.position) {
            self.committed = Some(current);
            self.is_current = self.doubts == doubts;
        }
    }
}

impl HotRoom {
    pub(super) fn new() -> Self {
        Self {
            room: Mutex::new(None),
            seen: parking_lot::Mutex::default(),
            settled: Notify::new(),
            reading: Mutex::new(()),
            last_used: AtomicU64::new(0),
        }
    }

    /// A room that was just made.
    pub(super) fn with(hot: Hot) -> Self {
        let seen = Seen { committed: Some(hot.current()), is_current: true, position: hot.position, ..Seen::default() };
        Self { room: Mutex::new(Some(hot)), seen: parking_lot::Mutex::new(seen), ..Self::new() }
    }

    /// Whoever comes next reads the room anew.
    pub(super) fn mark_stale(&self) {
        self.seen.lock().doubt();
    }

    /// Hears that an event took `position`: if that is not ours, somebody else writes too.
    pub(super) fn note_position(&self, position: i64) {
        let mut seen = self.seen.lock();
        if position > seen.position {
            seen.doubt();
        }
    }

    /// The room as committed, if memory is sure of it.
    fn committed(&self) -> Option<Current> {
        let seen = self.seen.lock();
        seen.committed.clone().filter(|_| seen.is_current)
    }

    /// Submits an append after which the room is `current`. Its outcome settles the room's memory whether or not anybody
    /// still waits for it.
    pub(super) fn submit(
        self: &Arc<Self>,
        lane: &Lane,
        write: Write,
        current: Current,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send + 'static + use<> {
        let number = {
            let mut seen = self.seen.lock();
            seen.submissions += 1;
            seen.position = current.position;
            let (number, doubts) = (seen.submissions, seen.doubts);
            seen.pending.push_back(Submission { number, doubts, current });
            number
        };
        let unsettled = Unsettled { room: self.clone(), number, is_committed: false };
        lane.submit_and_tell(write, Box::new(move |outcome| unsettled.settle(outcome.is_ok())))
    }

    fn settle(&self, number: u64, is_committed: bool) {
        let mut seen = self.seen.lock();
        let place = seen.pending.iter().position(|pending| pending.number == number);
        let settled = place.and_then(|place| seen.pending.remove(place));
        match settled.filter(|_| is_committed) {
            Some(Submission { current, doubts, .. }) => seen.publish(current, doubts),
            None => seen.doubt(),
        }
        if seen.pending.is_empty() {
            self.settled.notify_waiters();
        }
    }

    /// Waits until the outcome of everything submitted is known.
    pub(super) async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            if self.seen.lock().pending.is_empty() {
                return;
            }
            settled.await;
        }
    }
}

/// An append that is on its way. When the lane drops it unanswered, it counts as lost.
struct Unsettled {
    room: Arc<HotRoom>,
    number: u64,
    is_committed: bool,
}

impl Unsettled {
    fn settle(mut self, is_committed: bool) {
        self.is_committed = is_committed;
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.room.settle(self.number, self.is_committed);
    }
}

/// The room as of the newest append that was built here.
#[derive(Clone)]
pub(super) struct Hot {
    pub(super) room_nid: i64,
    pub(super) room_id: OwnedRoomId,
    pub(super) room_version: RoomVersion,
    pub(super) is_resident: bool,
    /// How many users are joined.
    pub(super) members: Members,
    /// `rooms.version`: the position of the newest event.
    pub(super) position: i64,
    pub(super) extremities: Vec<Extremity>,
    /// The state after all extremities.
    pub(super) state: Arc<RoomState>,
    /// Events that authorise others, by number.
    pub(super) pdus: HashMap<i64, Pdu>,
}

impl Hot {
    /// The room as readers see it, once it is committed.
    pub(super) fn current(&self) -> Current {
        Current {
            room_nid: self.room_nid,
            room_version: self.room_version,
            is_resident: self.is_resident,
            position: self.position,
            state: self.state.clone(),
        }
    }
}

/// The lock on a room that has been read.
pub(super) struct Locked<'a> {
    guard: MutexGuard<'a, Option<Hot>>,
    room: &'a Arc<HotRoom>,
}

impl Locked<'_> {
    pub(super) fn get(&mut self) -> Option<&mut Hot> {
        self.guard.as_mut()
    }

    /// The room, to be moved on in place by one append.
    pub(super) fn start_moving(&mut self) -> Option<Moving<'_>> {
        let hot = self.guard.as_mut()?;
        Some(Moving { hot, room: self.room, is_submitted: false })
    }

    /// Makes `hot`, which is committed, what the next one builds upon.
    pub(super) fn put(&mut self, hot: Hot) {
        *self.guard = Some(hot);
    }
}

/// A room that an append is moving on. Whoever gives up half-way (an error, a client that went away) leaves memory to be
/// read anew.
pub(super) struct Moving<'a> {
    pub(super) hot: &'a mut Hot,
    room: &'a Arc<HotRoom>,
    is_submitted: bool,
}

impl Moving<'_> {
    pub(super) fn submit(
        mut self,
        lane: &Lane,
        write: Write,
    ) -> impl Future<Output = Result<Committed, CommitError>> + Send + 'static + use<> {
        self.is_submitted = true;
        self.room.submit(lane, write, self.hot.current())
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if !self.is_submitted {
            self.room.mark_stale();
        }
    }
}

impl Rooms {
    /// Takes a room's lock and reads it if memory does not hold it. [`Locked::get`] is `None` for a room that this
    /// server does not know.
    pub(super) async fn lock<'a>(&self, room_id: &RoomId, room: &'a Arc<HotRoom>) -> Result<Locked<'a>, DbError> {
        let mut guard = room.room.lock().await;
        let doubts = {
            let mut seen = room.seen.lock();
            let is_stale = std::mem::take(&mut seen.is_stale);
            if let Some(hot) = guard.as_mut().filter(|_| !is_stale) {
                if hot.pdus.len() > KEPT_EVENTS && seen.pending.is_empty() {
                    // All of them are committed, so they can be read again.
                    hot.pdus.clear();
                }
                return Ok(Locked { guard, room });
            }
            seen.doubts
        };
        let before = guard.take();
        *guard = self.read_hot(room_id, before).await?;
        if let Some(hot) = guard.as_ref() {
            let mut seen = room.seen.lock();
            seen.position = hot.position;
            seen.publish(hot.current(), doubts);
        }
        Ok(Locked { guard, room })
    }

    /// As [`Self::lock`], with nothing pending: the database holds everything that memory does.
    pub(super) async fn lock_settled<'a>(
        &self,
        room_id: &RoomId,
        room: &'a Arc<HotRoom>,
    ) -> Result<Locked<'a>, DbError> {
        loop {
            let locked = self.lock(room_id, room).await?;
            room.settled().await;
            if !room.seen.lock().is_stale {
                return Ok(locked);
            }
        }
    }

    /// The room as committed, out of memory or the database. Waits for nobody who appends.
    pub(super) async fn current(&self, room_id: &RoomId) -> Result<Option<Current>, DbError> {
        let db = &self.shared.parts.db;
        let room = match self.hot_if_kept(room_id) {
            Some(room) => room,
            // Rooms that nobody knows would only crowd out those that are.
            None if rooms::find(db, room_id).await?.is_none() => return Ok(None),
            None => self.hot(room_id),
        };
        if let Some(current) = room.committed() {
            return Ok(Some(current));
        }
        let _turn = room.reading.lock().await;
        if let Some(current) = room.committed() {
            return Ok(Some(current));
        }
        let (doubts, known) = {
            let seen = room.seen.lock();
            (seen.doubts, seen.committed.as_ref().map(|known| known.state.clone()))
        };
        let Some(row) = rooms::find(db, room_id).await? else { return Ok(None) };
        let state = match known.filter(|state| state.state_nid == row.state_nid) {
            Some(state) => state,
            None => Arc::new(RoomState::load(db, row.state_nid).await?),
        };
        self.note_nid(row.room_nid, room_id);
        let current = Current {
            room_nid: row.room_nid,
            room_version: row.room_version,
            is_resident: row.is_resident,
            position: row.version,
            state,
        };
        let mut seen = room.seen.lock();
        seen.position = seen.position.max(current.position);
        seen.publish(current.clone(), doubts);
        Ok(Some(current))
    }

    /// Reads a room. What memory held of it before is taken over when its state is still the same, so that who lost a
    /// race against another shard is back in it quickly.
    async fn read_hot(&self, room_id: &RoomId, before: Option<Hot>) -> Result<Option<Hot>, DbError> {
        let db = &self.shared.parts.db;
        let Some(row) = rooms::find(db, room_id).await? else { return Ok(None) };
        let (state, pdus) = match before {
            Some(before) if before.state.state_nid == row.state_nid => (before.state, before.pdus),
            _ => (Arc::new(RoomState::load(db, row.state_nid).await?), HashMap::new()),
        };
        self.note_nid(row.room_nid, room_id);
        Ok(Some(Hot {
            room_nid: row.room_nid,
            room_id: row.room_id,
            room_version: row.room_version,
            is_resident: row.is_resident,
            members: row.members,
            position: row.version,
            extremities: row.extremities,
            state,
            pdus,
        }))
    }

    /// Makes sure that memory holds the events at `keys` of `state`.
    pub(super) async fn prefetch(
        &self,
        pdus: &mut HashMap<i64, Pdu>,
        state: &RoomState,
        keys: &[(StateEventType, String)],
    ) -> Result<(), DbError> {
        let missing: Vec<i64> = keys
            .iter()
            .filter_map(|(kind, key)| state.get(&kind.to_string(), key))
            .map(|entry| entry.event_nid)
            .filter(|event_nid| !pdus.contains_key(event_nid))
            .collect();
        self.fetch_into(pdus, &missing).await
    }

    async fn fetch_into(&self, pdus: &mut HashMap<i64, Pdu>, event_nids: &[i64]) -> Result<(), DbError> {
        let events = events::get_by_nids(&self.shared.parts.db, event_nids).await?;
        pdus.extend(events.into_iter().map(|(event_nid, event)| (event_nid, event.pdu)));
        Ok(())
    }

    /// The state after an event that is stored.
    pub(super) async fn state_after(&self, event: &StoredEvent) -> Result<Option<RoomState>, DbError> {
        let Some(state_nid) = event.state_nid else { return Ok(None) };
        let mut state = RoomState::load(&self.shared.parts.db, state_nid).await?;
        if let (Some(state_key), false) = (event.pdu.state_key(), event.pdu.rejected()) {
            let entry = StateEntry { event_nid: event.event_nid, event_id: event.pdu.event_id().to_owned() };
            state.set(event.pdu.event_type(), state_key, entry);
        }
        Ok(Some(state))
    }

    /// Resolves several states into one. The result is divided on top of the first, and not stored yet when it is new.
    /// `arriving` is an event that the states may hold and the database does not.
    pub(super) async fn resolve(
        &self,
        version: RoomVersion,
        states: Vec<RoomState>,
        arriving: Option<&Pdu>,
    ) -> Result<RoomState, super::ReceiveError> {
        let mut states = states.into_iter();
        let Some(first) = states.next() else { return Ok(RoomState::default()) };
        let mut maps = vec![first.to_map()];
        let mut known: HashMap<OwnedEventId, i64> =
            first.iter().map(|(_, _, entry)| (entry.event_id.clone(), entry.event_nid)).collect();
        for state in states {
            known.extend(state.iter().map(|(_, _, entry)| (entry.event_id.clone(), entry.event_nid)));
            maps.push(state.to_map());
        }
        maps.dedup();
        if maps.len() == 1 {
            return Ok(first);
        }
        let resolved = self.resolve_maps(version, &maps, &mut known, arriving).await?;
        Ok(RoomState::from_map(&resolved, &known, &first)?)
    }

    async fn resolve_maps(
        &self,
        version: RoomVersion,
        maps: &[StateMap],
        known: &mut HashMap<OwnedEventId, i64>,
        arriving: Option<&Pdu>,
    ) -> Result<StateMap, super::ReceiveError> {
        let mut events: HashMap<OwnedEventId, Pdu> =
            arriving.map(|pdu| (pdu.event_id().to_owned(), pdu.clone())).into_iter().collect();
        loop {
            let missing = resolve::missing_events(version, maps, &events);
            if missing.is_empty() {
                break;
            }
            let found = events::find_by_ids(&self.shared.parts.db, missing.iter().map(|id| &**id)).await?;
            if let Some(absent) = missing.iter().find(|id| !found.contains_key(*id)) {
                return Err(DbError::Corrupt(format!("event {absent} of an auth chain is not stored")).into());
            }
            for (event_id, event) in found {
                known.insert(event_id.clone(), event.event_nid);
                events.insert(event_id, event.pdu);
            }
        }
        // State resolution can take a while in large rooms, and is pure computation.
        let maps = maps.to_vec();
        let resolved = tokio::task::spawn_blocking(move || resolve::resolve(version, &maps, &events))
            .await
            .map_err(|error| DbError::Corrupt(format!("state resolution ended early: {error}")))?;
        Ok(resolved?)
    }
}
