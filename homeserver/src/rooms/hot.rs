//! What a shard keeps in memory of a room that it appends to: position, extremities, state, and the events that
//! authorise others.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use ruma::{OwnedEventId, OwnedRoomId, RoomId, events::StateEventType};
use tokio::sync::{Mutex, MutexGuard};

use super::{RoomState, Rooms, StateEntry};
use crate::{
    rules::{
        pdu::Pdu,
        resolve::{self, StateMap},
        room_version::RoomVersion,
    },
    storage::{
        DbError,
        events::{self, StoredEvent},
        rooms::{self, Extremity},
    },
};

/// Events kept per room for authorising others; past it the room reads them again.
const KEPT_EVENTS: usize = 2_000;
/// How far back from the newest row number an event is kept then.
const NEWEST_KEPT: i64 = 1_000;

/// A room in memory; whoever appends holds its lock while building, never while the database commits.
pub(super) struct HotRoom {
    room: Mutex<Option<Hot>>,
    stale: AtomicBool,
    position: AtomicI64,
}

impl HotRoom {
    pub(super) fn new() -> Self {
        Self { room: Mutex::new(None), stale: AtomicBool::new(false), position: AtomicI64::new(0) }
    }

    /// A room that was just made.
    pub(super) fn with(hot: Hot) -> Self {
        let position = AtomicI64::new(hot.position);
        Self { room: Mutex::new(Some(hot)), stale: AtomicBool::new(false), position }
    }

    /// The next who takes the lock reads the room anew.
    pub(super) fn mark_stale(&self) {
        self.stale.store(true, Ordering::Release);
    }

    /// Hears that an event took `position`: if that is not ours, somebody else writes too.
    pub(super) fn note_position(&self, position: i64) {
        if position > self.position.load(Ordering::Acquire) {
            self.mark_stale();
        }
    }
}

/// The room as of the newest append that was built here.
#[derive(Clone)]
pub(super) struct Hot {
    pub(super) room_nid: i64,
    pub(super) room_id: OwnedRoomId,
    pub(super) room_version: RoomVersion,
    pub(super) is_resident: bool,
    /// `rooms.version`: the position of the newest event.
    pub(super) position: i64,
    pub(super) extremities: Vec<Extremity>,
    /// The state after all extremities.
    pub(super) state: Arc<RoomState>,
    /// Events that authorise others, by number.
    pub(super) pdus: HashMap<i64, Pdu>,
}

/// The lock on a room that has been read.
pub(super) struct Locked<'a> {
    guard: MutexGuard<'a, Option<Hot>>,
    room: &'a HotRoom,
}

impl Locked<'_> {
    pub(super) fn get(&mut self) -> Option<&mut Hot> {
        self.guard.as_mut()
    }

    /// Makes `hot` what the next one builds upon.
    pub(super) fn put(&mut self, hot: Hot) {
        self.room.position.store(hot.position, Ordering::Release);
        *self.guard = Some(hot);
    }

    /// Tells the room how far it got, after [`Self::get`] was used to move it on.
    pub(super) fn moved(&self) {
        if let Some(hot) = self.guard.as_ref() {
            self.room.position.store(hot.position, Ordering::Release);
        }
    }
}

impl Rooms {
    /// Takes a room's lock and reads it if memory does not hold it. [`Locked::get`] is `None` for a room that this
    /// server does not know.
    pub(super) async fn lock<'a>(&self, room_id: &RoomId, room: &'a HotRoom) -> Result<Locked<'a>, DbError> {
        let mut guard = room.room.lock().await;
        if room.stale.swap(false, Ordering::AcqRel) || guard.is_none() {
            let before = guard.take();
            *guard = self.read_hot(room_id, before).await?;
        }
        if let Some(hot) = guard.as_ref() {
            room.position.store(hot.position, Ordering::Release);
        }
        Ok(Locked { guard, room })
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
        let mut missing: Vec<i64> = keys
            .iter()
            .filter_map(|(kind, key)| state.get(&kind.to_string(), key))
            .map(|entry| entry.event_nid)
            .filter(|event_nid| !pdus.contains_key(event_nid))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if pdus.len() + missing.len() > KEPT_EVENTS {
            // Row numbers grow, so the newest are those that may not be committed yet and cannot be read again.
            let newest = pdus.keys().max().copied().unwrap_or_default();
            pdus.retain(|event_nid, _| event_nid.saturating_add(NEWEST_KEPT) > newest);
            missing = keys
                .iter()
                .filter_map(|(kind, key)| state.get(&kind.to_string(), key))
                .map(|entry| entry.event_nid)
                .filter(|event_nid| !pdus.contains_key(event_nid))
                .collect();
        }
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
    pub(super) async fn resolve(
        &self,
        version: RoomVersion,
        states: Vec<RoomState>,
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
        let resolved = self.resolve_maps(version, &maps, &mut known).await?;
        Ok(RoomState::from_map(&resolved, &known, &first)?)
    }

    async fn resolve_maps(
        &self,
        version: RoomVersion,
        maps: &[StateMap],
        known: &mut HashMap<OwnedEventId, i64>,
    ) -> Result<StateMap, super::ReceiveError> {
        let mut events: HashMap<OwnedEventId, Pdu> = HashMap::new();
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
