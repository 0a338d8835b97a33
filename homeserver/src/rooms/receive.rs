//! Takes in events of other servers: authorises them and finds their place in the room's graph.
//!
//! What comes before (fetching, formats, signatures, hashes: checks 1 to 3 of the specification's "Checks performed on
//! receipt of a PDU") is done by `federation`; what is here is checks 4 to 6.

use std::collections::HashMap;

use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, events::StateEventType};

use super::{
    ReceiveError, RoomState, Rooms, StateEntry,
    batch::{Batch, Incoming},
    hot::Hot,
};
use crate::{
    rules::{
        auth::{self, AuthError},
        pdu::Pdu,
        resolve::StateMap,
        room_version::RoomVersion,
    },
    storage::{
        DbError, Stmt,
        events::{self, Place, Standing, StoredEvent},
        nid::NidKind,
        rooms::{self, Extremity},
    },
    stream::{CommitError, Write},
};

/// How often a lost race is run again.
const ATTEMPTS: usize = 16;

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It was there already.
    Known,
    /// It is part of the room now.
    Accepted,
    /// Stored, but shown to nobody: the room's current state would not allow it.
    SoftFailed(AuthError),
    /// Stored as refused: its auth events, or the state before it, do not allow it.
    Rejected(AuthError),
}

/// A room as another server gave it to us in answer to a join.
#[derive(Clone, Debug)]
pub struct JoinedRemotely {
    pub room_id: OwnedRoomId,
    pub room_version: RoomVersion,
    /// The state before the join. Signatures and hashes have been checked.
    pub state: Vec<Pdu>,
    /// The auth chains of the state and of the join, in any order.
    pub auth_chain: Vec<Pdu>,
    pub join: Pdu,
}

impl Rooms {
    /// Which of these events are not stored at all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn missing(&self, event_ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, DbError> {
        let found = events::find_by_ids(&self.shared.parts.db, event_ids.iter().map(|id| &**id)).await?;
        Ok(event_ids.iter().filter(|id| !found.contains_key(*id)).cloned().collect())
    }

    /// Which of these events are not stored with the state before them, so that nothing can be appended after them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn missing_state(&self, event_ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, DbError> {
        let found = events::find_by_ids(&self.shared.parts.db, event_ids.iter().map(|id| &**id)).await?;
        let placed = |id: &OwnedEventId| found.get(id).is_some_and(|event| event.state_nid.is_some());
        Ok(event_ids.iter().filter(|id| !placed(id)).cloned().collect())
    }

    /// Stores events without a place in the room: auth chains, and states before gaps. They are authorised by their auth
    /// events (check 4), in an order in which each comes after those that it names; what names an event that is
    /// nowhere is left out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn store_outliers(
        &self,
        room_id: &RoomId,
        room_version: RoomVersion,
        pdus: &[Pdu],
    ) -> Result<(), ReceiveError> {
        let room_nid = self.room_nid(room_id, room_version).await?;
        let db = &self.shared.parts.db;
        let by_id: HashMap<&EventId, &Pdu> = pdus.iter().map(|pdu| (pdu.event_id(), pdu)).collect();
        let named = pdus.iter().flat_map(|pdu| pdu.auth_events().iter().cloned().chain(pdu.implied_create_event_id()));
        let mut wanted: Vec<OwnedEventId> = named.chain(by_id.keys().map(|id| (*id).to_owned())).collect();
        wanted.sort();
        wanted.dedup();
        let mut known: HashMap<OwnedEventId, Pdu> = HashMap::new();
        for chunk in wanted.chunks(500) {
            let found = events::find_by_ids(db, chunk.iter().map(|id| &**id)).await?;
            known.extend(found.into_iter().map(|(event_id, event)| (event_id, event.pdu)));
        }
        let mut statements = Vec::new();
        for pdu in in_auth_order(&by_id) {
            if known.contains_key(pdu.event_id()) {
                continue;
            }
            let standing = match authorise_by_auth_events(pdu, &known) {
                Ok(()) => Standing::Accepted,
                Err(error) => {
                    tracing::debug!(event.id = %pdu.event_id(), %error, "an event was rejected");
                    Standing::Rejected
                }
            };
            known.insert(pdu.event_id().to_owned(), pdu.clone().with_rejected(standing == Standing::Rejected));
            let event_nid = self.shared.parts.nids.next(NidKind::Event).await?;
            let place = Place { event_nid, room_nid, position: None, state_nid: None, standing };
            statements.push(insert_if_absent(pdu, place));
        }
        for chunk in statements.chunks(500) {
            db.write(chunk.to_vec()).await?;
        }
        Ok(())
    }

    /// Takes in an event whose auth events are stored, and whose prev events are stored with their state, unless
    /// `state_before` says what the state before it was (event ids that are all stored).
    ///
    /// # Errors
    /// [`ReceiveError::MissingPrev`] or [`ReceiveError::UnknownState`] when something must be fetched first.
    pub async fn receive(&self, pdu: &Pdu, state_before: Option<&[OwnedEventId]>) -> Result<Received, ReceiveError> {
        let room_id = pdu.room_id();
        let hot_room = self.hot(room_id);
        for _ in 0..ATTEMPTS {
            let (outcome, received) = {
                let mut locked = self.lock(room_id, &hot_room).await?;
                let hot = locked.get().filter(|hot| hot.is_resident).ok_or(ReceiveError::UnknownRoom)?;
                let stored = events::find(&self.shared.parts.db, pdu.event_id()).await?;
                if stored.as_ref().is_some_and(|event| event.position.is_some()) {
                    return Ok(Received::Known);
                }
                let mut next = hot.clone();
                let mut batch = Batch::new(hot);
                let received = self.place(&mut batch, &mut next, pdu, stored, state_before).await?;
                let outcome = self.shared.parts.lane.submit(batch.into_write(&next));
                locked.put(next);
                (outcome, received)
            };
            match outcome.await {
                Ok(_) => return Ok(received),
                Err(CommitError::Conflict) => hot_room.mark_stale(),
                Err(error) => {
                    hot_room.mark_stale();
                    return Err(error.into());
                }
            }
        }
        Err(ReceiveError::Busy)
    }

    async fn place(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        pdu: &Pdu,
        stored: Option<StoredEvent>,
        state_before: Option<&[OwnedEventId]>,
    ) -> Result<Received, ReceiveError> {
        let db = &self.shared.parts.db;
        let mut before = match state_before {
            Some(event_ids) => self.state_of(event_ids, hot).await?,
            None => self.state_before(hot, pdu).await?,
        };
        if before.state_nid == 0 {
            for statement in before.store(hot.room_nid, &self.shared.parts.nids).await? {
                batch.push(statement);
            }
        }
        let received = self.authorise(hot, pdu, &before).await?;
        let standing = match &received {
            Received::Known | Received::Accepted => Standing::Accepted,
            Received::SoftFailed(_) => Standing::SoftFailed,
            Received::Rejected(_) => Standing::Rejected,
        };
        let resolved = match standing {
            Standing::Accepted => self.state_with(hot, pdu, &before, stored.as_ref()).await?,
            Standing::SoftFailed | Standing::Rejected => None,
        };
        let (event_nid, resolved) = match resolved {
            Some((event_nid, state)) => (event_nid, state),
            None => (self.event_nid(stored.as_ref()).await?, None),
        };
        let incoming = Incoming {
            pdu,
            event_nid,
            standing,
            state_before: Some(before.state_nid),
            is_outlier: stored.is_some(),
            transaction: None,
            resolved,
        };
        self.take_in(batch, hot, incoming).await?;
        if standing == Standing::Accepted {
            for redaction in events::redactions_of(db, pdu.event_id()).await? {
                self.apply_redaction(batch, hot, &redaction.pdu, pdu, event_nid).await?;
            }
        }
        Ok(received)
    }

    /// Checks 4 to 6 of the specification's "Checks performed on receipt of a PDU".
    async fn authorise(&self, hot: &mut Hot, pdu: &Pdu, before: &RoomState) -> Result<Received, ReceiveError> {
        // 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
        let implied = pdu.implied_create_event_id();
        let ids = pdu.auth_events().iter().chain(implied.iter()).map(|id| &**id);
        let auth_events = events::find_by_ids(&self.shared.parts.db, ids).await?;
        let auth_events = auth_events.into_iter().map(|(event_id, event)| (event_id, event.pdu)).collect();
        if let Err(error) = authorise_by_auth_events(pdu, &auth_events) {
            return Ok(Received::Rejected(error));
        }
        // 5. Passes authorization rules based on the state before the event, otherwise it is rejected.
        if let Err(error) = self.authorise_by_state(hot, pdu, before).await? {
            return Ok(Received::Rejected(error));
        }
        // 6. Passes authorization rules based on the current state of the room, otherwise it is soft failed.
        let current = hot.state.clone();
        if let Err(error) = self.authorise_by_state(hot, pdu, &current).await? {
            return Ok(Received::SoftFailed(error));
        }
        Ok(Received::Accepted)
    }

    async fn authorise_by_state(
        &self,
        hot: &mut Hot,
        pdu: &Pdu,
        state: &RoomState,
    ) -> Result<Result<(), AuthError>, ReceiveError> {
        let mut keys = match auth::auth_types_of(pdu) {
            Ok(keys) => keys,
            Err(error) => return Ok(Err(error)),
        };
        keys.push((StateEventType::RoomCreate, String::new()));
        self.prefetch(&mut hot.pdus, state, &keys).await?;
        let at = |kind: &StateEventType, key: &str| {
            let entry = state.get(&kind.to_string(), key)?;
            hot.pdus.get(&entry.event_nid).cloned()
        };
        Ok(auth::check_against_state(pdu, at))
    }

    /// The state before an event, from its prev events.
    async fn state_before(&self, hot: &Hot, pdu: &Pdu) -> Result<RoomState, ReceiveError> {
        let prev = pdu.prev_events();
        let newest: Vec<&OwnedEventId> = hot.extremities.iter().map(|extremity| &extremity.event_id).collect();
        if prev.len() == newest.len() && prev.iter().all(|event_id| newest.contains(&event_id)) {
            return Ok(RoomState::clone(&hot.state));
        }
        let found = events::find_by_ids(&self.shared.parts.db, prev.iter().map(|id| &**id)).await?;
        let mut states = Vec::with_capacity(prev.len());
        for event_id in prev {
            let event = found.get(event_id).ok_or_else(|| ReceiveError::MissingPrev(event_id.clone()))?;
            states.push(self.state_after(event).await?.ok_or(ReceiveError::UnknownState)?);
        }
        let alone = states.len() == 1;
        let mut state = self.resolve(hot.room_version, states).await?;
        if !alone || is_after_state_event(&found) {
            // Not a stored one as it is; it gets a number of its own.
            state.state_nid = 0;
        }
        Ok(state)
    }

    /// The state that consists of these stored events.
    pub(super) async fn state_of(&self, event_ids: &[OwnedEventId], hot: &Hot) -> Result<RoomState, ReceiveError> {
        let mut map = StateMap::new();
        let mut known = HashMap::new();
        for chunk in event_ids.chunks(500) {
            let found = events::find_by_ids(&self.shared.parts.db, chunk.iter().map(|id| &**id)).await?;
            for event_id in chunk {
                let event = found.get(event_id).ok_or_else(|| ReceiveError::MissingPrev(event_id.clone()))?;
                let Some(state_key) = event.pdu.state_key().filter(|_| !event.pdu.rejected()) else { continue };
                map.insert((event.pdu.event_type().into(), state_key.to_owned()), event_id.clone());
                known.insert(event_id.clone(), event.event_nid);
            }
        }
        let mut state = RoomState::from_map(&map, &known, &hot.state)?;
        state.state_nid = 0;
        Ok(state)
    }

    /// The state after all extremities once an event is in, when that is more than the current state with the event: the
    /// room has forks, or the event does not follow all extremities. Numbers the event, since the state names it.
    async fn state_with(
        &self,
        hot: &Hot,
        pdu: &Pdu,
        before: &RoomState,
        stored: Option<&StoredEvent>,
    ) -> Result<Option<(i64, Option<RoomState>)>, ReceiveError> {
        let remaining: Vec<&Extremity> =
            hot.extremities.iter().filter(|extremity| !pdu.prev_events().contains(&extremity.event_id)).collect();
        let event_nid = self.event_nid(stored).await?;
        let follows_all = remaining.is_empty() && before.state_nid == hot.state.state_nid;
        if follows_all {
            return Ok(Some((event_nid, None)));
        }
        let mut after = before.clone();
        if let Some(state_key) = pdu.state_key() {
            let entry = StateEntry { event_nid, event_id: pdu.event_id().to_owned() };
            after.set(pdu.event_type(), state_key, entry);
        }
        if remaining.is_empty() {
            return Ok(Some((event_nid, Some(after))));
        }
        let ids: Vec<&EventId> = remaining.iter().map(|extremity| &*extremity.event_id).collect();
        let found = events::find_by_ids(&self.shared.parts.db, ids).await?;
        let mut states = Vec::new();
        for event in found.values() {
            if let Some(state) = self.state_after(event).await? {
                states.push(state);
            }
        }
        states.push(after);
        let resolved = self.resolve_with(hot, states, pdu, event_nid).await?;
        Ok(Some((event_nid, Some(resolved))))
    }

    /// Resolves states of which some hold an event that is not stored yet.
    async fn resolve_with(
        &self,
        hot: &Hot,
        states: Vec<RoomState>,
        pdu: &Pdu,
        event_nid: i64,
    ) -> Result<RoomState, ReceiveError> {
        let holds_it = |state: &RoomState| {
            pdu.state_key()
                .is_some_and(|key| state.get(pdu.event_type(), key).is_some_and(|entry| entry.event_nid == event_nid))
        };
        if states.iter().any(holds_it) {
            // State resolution reads events by id, so this one must be stored first; without a place it is nothing yet.
            let place = Place {
                event_nid,
                room_nid: hot.room_nid,
                position: None,
                state_nid: None,
                standing: Standing::Accepted,
            };
            self.shared.parts.db.write(vec![insert_if_absent(pdu, place)]).await?;
        }
        self.resolve(hot.room_version, states).await
    }

    pub(super) async fn event_nid(&self, stored: Option<&StoredEvent>) -> Result<i64, DbError> {
        match stored {
            Some(event) => Ok(event.event_nid),
            None => self.shared.parts.nids.next(NidKind::Event).await,
        }
    }

    /// The number of a room, which is made (without taking part in it) when it is new.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn room_nid(&self, room_id: &RoomId, room_version: RoomVersion) -> Result<i64, DbError> {
        let db = &self.shared.parts.db;
        if let Some(row) = rooms::find(db, room_id).await? {
            return Ok(row.room_nid);
        }
        let room_nid = self.shared.parts.nids.next(NidKind::Room).await?;
        db.write(vec![rooms::create(room_nid, room_id, room_version)]).await?;
        let row = rooms::find(db, room_id).await?.ok_or(DbError::NoRow)?;
        self.hot(room_id).mark_stale();
        Ok(row.room_nid)
    }

    /// Takes a room over from the server through which one of our users joined it.
    ///
    /// # Errors
    /// Those of the database and of state resolution.
    pub async fn join_remotely(&self, joined: &JoinedRemotely) -> Result<(), ReceiveError> {
        let JoinedRemotely { room_id, room_version, state, auth_chain, join } = joined;
        let all: Vec<Pdu> = auth_chain.iter().chain(state).cloned().collect();
        self.store_outliers(room_id, *room_version, &all).await?;
        let hot_room = self.hot(room_id);
        for _ in 0..ATTEMPTS {
            let outcome = {
                let mut locked = self.lock(room_id, &hot_room).await?;
                let hot = locked.get().ok_or(ReceiveError::UnknownRoom)?;
                let stored = events::find(&self.shared.parts.db, join.event_id()).await?;
                if stored.as_ref().is_some_and(|event| event.position.is_some()) {
                    return Ok(());
                }
                let mut next = hot.clone();
                let mut batch = Batch::new(hot);
                let ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id().to_owned()).collect();
                let mut before = self.state_of(&ids, &next).await?;
                for statement in before.store(next.room_nid, &self.shared.parts.nids).await? {
                    batch.push(statement);
                }
                let event_nid = self.event_nid(stored.as_ref()).await?;
                let mut after = before.clone();
                if let Some(state_key) = join.state_key() {
                    let entry = StateEntry { event_nid, event_id: join.event_id().to_owned() };
                    after.set(join.event_type(), state_key, entry);
                }
                // What we knew of the room before (from an earlier stay) is older than what the other server told.
                next.extremities.clear();
                let incoming = Incoming {
                    pdu: join,
                    event_nid,
                    standing: Standing::Accepted,
                    state_before: Some(before.state_nid),
                    is_outlier: stored.is_some(),
                    transaction: None,
                    resolved: Some(after),
                };
                self.take_in(&mut batch, &mut next, incoming).await?;
                next.is_resident = true;
                for event_id in join.prev_events() {
                    batch.push(insert_gap(next.room_nid, event_id, next.position));
                }
                let outcome = self.shared.parts.lane.submit(batch.into_write(&next));
                locked.put(next);
                outcome
            };
            match outcome.await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict) => hot_room.mark_stale(),
                Err(error) => {
                    hot_room.mark_stale();
                    return Err(error.into());
                }
            }
        }
        Err(ReceiveError::Busy)
    }

    /// Commits something beside a room's events, such as an invite from afar, in this shard's lane.
    ///
    /// # Errors
    /// Those of the lane.
    pub async fn commit(&self, write: Write) -> Result<(), CommitError> {
        self.shared.parts.lane.commit(write).await.map(|_| ())
    }
}

/// Whether the only prev event is a state event, so that the state after it is not the stored state before it.
fn is_after_state_event(found: &HashMap<OwnedEventId, StoredEvent>) -> bool {
    found.values().any(|event| event.pdu.is_state() && !event.pdu.rejected())
}

pub(super) fn authorise_by_auth_events(pdu: &Pdu, known: &HashMap<OwnedEventId, Pdu>) -> Result<(), AuthError> {
    let fetch = |event_id: &EventId| known.get(event_id).cloned();
    auth::check_independent(pdu, fetch)?;
    auth::check_against_auth_events(pdu, fetch)
}

/// The events in an order in which each comes after those of its auth events that are among them.
fn in_auth_order<'a>(by_id: &HashMap<&'a EventId, &'a Pdu>) -> Vec<&'a Pdu> {
    let mut ordered = Vec::with_capacity(by_id.len());
    let mut visited: std::collections::HashSet<&EventId> = std::collections::HashSet::new();
    // A stack instead of recursion: auth chains can be long.
    let mut open: Vec<(&Pdu, bool)> = by_id.values().map(|pdu| (*pdu, false)).collect();
    while let Some((pdu, is_ready)) = open.pop() {
        if is_ready {
            ordered.push(pdu);
            continue;
        }
        if !visited.insert(pdu.event_id()) {
            continue;
        }
        open.push((pdu, true));
        let implied = pdu.implied_create_event_id();
        for event_id in pdu.auth_events().iter().chain(implied.iter()) {
            if let Some(auth_event) = by_id.get(&**event_id) {
                open.push((auth_event, false));
            }
        }
    }
    ordered
}

fn insert_if_absent(pdu: &Pdu, place: Place) -> Stmt {
    let insert = events::insert(pdu, place);
    // Outliers are no news to any reader: they take no position in a lane.
    Stmt::new(
        "INSERT INTO events (event_nid, room_nid, event_id, position, lane, seq, depth, event_type, state_key, sender, \
         origin_server_ts, standing, state_nid, json) \
         VALUES ($1, $2, $3, $4, COALESCE(CAST($5 AS BIGINT), 0), COALESCE(CAST($6 AS BIGINT), 0), $7, $8, $9, $10, $11, $12, $13, $14) \
         ON CONFLICT (event_id) DO NOTHING",
        insert.params,
    )
}

pub(super) fn insert_gap(room_nid: i64, event_id: &EventId, position: i64) -> Stmt {
    Stmt::new(
        "INSERT INTO backward_extremities (room_nid, event_id, position) VALUES ($1, $2, $3) \
         ON CONFLICT (room_nid, event_id) DO NOTHING",
        crate::params![room_nid, event_id.as_str(), position],
    )
}
