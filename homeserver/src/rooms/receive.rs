//! Takes in events of other servers: authorises them and finds their place in the room's graph.
//!
//! What comes before (fetching, formats, signatures, hashes: checks 1 to 3 of the specification's "Checks performed on
//! receipt of a PDU") is done by `federation`; what is here is checks 4 to 6.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

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
        DbError,
        events::{self, Standing, StoredEvent},
        nid::NidKind,
        rooms,
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
        // What belongs to other rooms has no business here.
        let own = pdus.iter().filter(|pdu| pdu.room_id() == room_id);
        let by_id: HashMap<&EventId, &Pdu> = own.map(|pdu| (pdu.event_id(), pdu)).collect();
        let named = by_id.values().flat_map(|pdu| auth_event_ids(pdu));
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
            if known.contains_key(pdu.event_id()) || auth_event_ids(pdu).any(|event_id| !known.contains_key(&event_id))
            {
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
            statements.push(events::insert_outlier(pdu, event_nid, room_nid, standing));
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
    /// [`ReceiveError::MissingPrev`] or [`ReceiveError::UnknownState`] when something must be fetched first,
    /// [`ReceiveError::Refused`] for what is no event of the room.
    pub async fn receive(&self, pdu: &Pdu, state_before: Option<&[OwnedEventId]>) -> Result<Received, ReceiveError> {
        let room_id = pdu.room_id();
        let hot_room = self.hot(room_id);
        for _ in 0..ATTEMPTS {
            let mut locked = self.lock_settled(room_id, &hot_room).await?;
            let hot = locked.get().filter(|hot| hot.is_resident).ok_or(ReceiveError::UnknownRoom)?;
            let stored = events::find(&self.shared.parts.db, pdu.event_id()).await?;
            if stored.as_ref().is_some_and(|event| event.position.is_some()) {
                return Ok(Received::Known);
            }
            if pdu.prev_events().is_empty() {
                // Only a create event follows nothing, and the room has one.
                return Err(ReceiveError::Refused("it follows no event"));
            }
            let mut next = hot.clone();
            let mut batch = Batch::new(hot);
            let received = self.place(&mut batch, &mut next, pdu, stored, state_before).await?;
            let write = batch.into_write(&next);
            // The room stays locked until the commit: what comes after looks for this event in the database.
            match hot_room.submit(&self.shared.parts.lane, write, next.current()).await {
                Ok(_) => {
                    locked.put(next);
                    return Ok(received);
                }
                Err(error) if is_lost_race(&error) => {}
                Err(error) => return Err(error.into()),
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
        // In room versions 1 and 2 two events can have one id; the first that came is the one.
        let first =
            stored.as_ref().filter(|_| hot.room_version.event_id_is_in_event()).map(|stored| stored.pdu.clone());
        let pdu = &first.unwrap_or_else(|| pdu.clone()).with_rejected(false);
        let before = match state_before {
            Some(event_ids) => self.state_of(event_ids, hot).await?.into(),
            None => self.state_before(hot, pdu).await?,
        };
        let before = self.stored_state(batch, hot, before).await?;
        let received = self.authorise(hot, pdu, &before).await?;
        let standing = match &received {
            Received::Known | Received::Accepted => Standing::Accepted,
            Received::SoftFailed(_) => Standing::SoftFailed,
            Received::Rejected(_) => Standing::Rejected,
        };
        let event_nid = self.event_nid(stored.as_ref()).await?;
        let is_followed = rooms::is_gap(db, hot.room_nid, pdu.event_id()).await?;
        let resolved = match standing {
            Standing::Accepted => self.state_with(hot, pdu, event_nid, &before, is_followed).await?,
            Standing::SoftFailed | Standing::Rejected => None,
        };
        let incoming = Incoming {
            pdu,
            event_nid,
            standing,
            state_before: Some(before.state_nid),
            is_outlier: stored.is_some(),
            is_followed,
            transaction: None,
            resolved,
        };
        self.take_in(batch, hot, incoming).await?;
        if is_followed {
            batch.push(rooms::close_gap(hot.room_nid, pdu.event_id()));
        }
        if standing == Standing::Accepted {
            if state_before.is_some() {
                for event_id in self.missing_state(pdu.prev_events()).await? {
                    batch.push(rooms::insert_gap(hot.room_nid, &event_id, hot.position));
                }
            }
            for redaction in events::redactions_of(db, pdu.event_id()).await? {
                self.apply_redaction(batch, hot, &redaction.pdu, pdu, event_nid).await?;
            }
        }
        Ok(received)
    }

    /// The state with a number, which it gets in this batch if it has none.
    async fn stored_state(
        &self,
        batch: &mut Batch,
        hot: &Hot,
        state: Arc<RoomState>,
    ) -> Result<Arc<RoomState>, DbError> {
        if state.state_nid != 0 {
            return Ok(state);
        }
        let mut state = Arc::unwrap_or_clone(state);
        for statement in state.store(hot.room_nid, &self.shared.parts.nids).await? {
            batch.push(statement);
        }
        Ok(state.into())
    }

    /// Checks 4 to 6 of the specification's "Checks performed on receipt of a PDU".
    async fn authorise(&self, hot: &mut Hot, pdu: &Pdu, before: &RoomState) -> Result<Received, ReceiveError> {
        // 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
        let named: Vec<OwnedEventId> = auth_event_ids(pdu).collect();
        let auth_events = events::find_by_ids(&self.shared.parts.db, named.iter().map(|id| &**id)).await?;
        if let Some(missing) = named.into_iter().find(|event_id| !auth_events.contains_key(event_id)) {
            return Err(ReceiveError::MissingPrev(missing));
        }
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
    async fn state_before(&self, hot: &Hot, pdu: &Pdu) -> Result<Arc<RoomState>, ReceiveError> {
        let prev = pdu.prev_events();
        let newest: HashSet<&EventId> = hot.extremities.iter().map(|extremity| &*extremity.event_id).collect();
        if prev.iter().map(|event_id| &**event_id).collect::<HashSet<_>>() == newest {
            return Ok(hot.state.clone());
        }
        let found = events::find_by_ids(&self.shared.parts.db, prev.iter().map(|id| &**id)).await?;
        let mut states = Vec::with_capacity(prev.len());
        for event_id in prev {
            let event = found.get(event_id).ok_or_else(|| ReceiveError::MissingPrev(event_id.clone()))?;
            if event.pdu.room_id() != hot.room_id {
                return Err(ReceiveError::Refused("it follows an event of another room"));
            }
            states.push(self.state_after(event).await?.ok_or(ReceiveError::UnknownState)?);
        }
        let is_as_stored =
            states.len() == 1 && found.values().all(|event| !event.pdu.is_state() || event.pdu.rejected());
        let mut state = self.resolve(hot.room_version, states, None).await?;
        if !is_as_stored {
            state.state_nid = 0;
        }
        Ok(state.into())
    }

    /// The state that consists of these stored events.
    pub(super) async fn state_of(&self, event_ids: &[OwnedEventId], hot: &Hot) -> Result<RoomState, ReceiveError> {
        let mut map = StateMap::new();
        let mut known = HashMap::new();
        for chunk in event_ids.chunks(500) {
            let found = events::find_by_ids(&self.shared.parts.db, chunk.iter().map(|id| &**id)).await?;
            for event_id in chunk {
                let event = found.get(event_id).ok_or_else(|| ReceiveError::MissingPrev(event_id.clone()))?;
                if event.pdu.room_id() != hot.room_id {
                    return Err(ReceiveError::Refused("the state before it has an event of another room"));
                }
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
    /// room has forks, or the event does not follow all extremities.
    async fn state_with(
        &self,
        hot: &Hot,
        pdu: &Pdu,
        event_nid: i64,
        before: &RoomState,
        is_followed: bool,
    ) -> Result<Option<RoomState>, ReceiveError> {
        let remaining: Vec<&EventId> = hot
            .extremities
            .iter()
            .map(|extremity| &*extremity.event_id)
            .filter(|event_id| !pdu.prev_events().iter().any(|prev| prev == event_id))
            .collect();
        if remaining.is_empty() && before.state_nid == hot.state.state_nid {
            return Ok(None);
        }
        let found = events::find_by_ids(&self.shared.parts.db, remaining.iter().copied()).await?;
        let mut states = Vec::with_capacity(remaining.len() + 1);
        for event_id in &remaining {
            let event = found.get(*event_id);
            let event = event.ok_or_else(|| DbError::Corrupt(format!("extremity {event_id} is not stored")))?;
            states.extend(self.state_after(event).await?);
        }
        // The state after an event that others follow is part of theirs.
        if !is_followed || states.is_empty() {
            let mut after = before.clone();
            if let Some(state_key) = pdu.state_key() {
                let entry = StateEntry { event_nid, event_id: pdu.event_id().to_owned() };
                after.set(pdu.event_type(), state_key, entry);
            }
            states.push(after);
        }
        self.resolve(hot.room_version, states, Some(pdu)).await.map(Some)
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
            if row.room_version != room_version && row.version == 0 {
                // An invite told so; whoever tells more of the room knows better.
                db.write(vec![rooms::set_version(row.room_nid, room_version)]).await?;
                self.hot(room_id).mark_stale();
            }
            return Ok(row.room_nid);
        }
        let room_nid = self.shared.parts.nids.next(NidKind::Room).await?;
        db.write(vec![rooms::create(room_nid, room_id, room_version)]).await?;
        let row = rooms::find(db, room_id).await?.ok_or(DbError::NoRow)?;
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
            let mut locked = self.lock_settled(room_id, &hot_room).await?;
            let hot = locked.get().ok_or(ReceiveError::UnknownRoom)?;
            let stored = events::find(&self.shared.parts.db, join.event_id()).await?;
            if stored.as_ref().is_some_and(|event| event.position.is_some()) {
                return Ok(());
            }
            let mut next = hot.clone();
            let mut batch = Batch::new(hot);
            self.place_join(&mut batch, &mut next, joined, stored.as_ref()).await?;
            let write = batch.into_write(&next);
            match hot_room.submit(&self.shared.parts.lane, write, next.current()).await {
                Ok(_) => {
                    locked.put(next);
                    return Ok(());
                }
                Err(error) if is_lost_race(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ReceiveError::Busy)
    }

    async fn place_join(
        &self,
        batch: &mut Batch,
        hot: &mut Hot,
        joined: &JoinedRemotely,
        stored: Option<&StoredEvent>,
    ) -> Result<(), ReceiveError> {
        let JoinedRemotely { room_version, state, join, .. } = joined;
        if hot.room_version != *room_version {
            return Err(ReceiveError::Refused("the room is known with another version"));
        }
        let ids: Vec<OwnedEventId> = state.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let before = self.state_of(&ids, hot).await?;
        let before = self.stored_state(batch, hot, before.into()).await?;
        if let Err(error) = self.authorise_by_state(hot, join, &before).await? {
            tracing::info!(room.id = %hot.room_id, %error, "the state that came with a join does not allow it");
            return Err(ReceiveError::Refused("the state before the join does not allow it"));
        }
        let event_nid = self.event_nid(stored).await?;
        let mut after = RoomState::clone(&before);
        if let Some(state_key) = join.state_key() {
            let entry = StateEntry { event_nid, event_id: join.event_id().to_owned() };
            after.set(join.event_type(), state_key, entry);
        }
        // What we knew of the room before (from an earlier stay) is older than what the other server told.
        hot.extremities.clear();
        let incoming = Incoming {
            pdu: join,
            event_nid,
            standing: Standing::Accepted,
            state_before: Some(before.state_nid),
            is_outlier: stored.is_some(),
            is_followed: false,
            transaction: None,
            resolved: Some(after),
        };
        self.take_in(batch, hot, incoming).await?;
        for event_id in join.prev_events() {
            batch.push(rooms::insert_gap(hot.room_nid, event_id, hot.position));
        }
        Ok(())
    }

    /// Commits something beside a room's events, such as an invite from afar, in this shard's lane.
    ///
    /// # Errors
    /// Those of the lane.
    pub async fn commit(&self, write: Write) -> Result<(), CommitError> {
        self.shared.parts.lane.commit(write).await.map(|_| ())
    }
}

/// Whether somebody else wrote the same room, or the same event without a place, at the same time.
fn is_lost_race(error: &CommitError) -> bool {
    match error {
        CommitError::Conflict => true,
        CommitError::Db(error) => matches!(**error, DbError::Constraint(_)),
        CommitError::Closed => false,
    }
}

/// The events that allow this one, with the create event where it is implied.
fn auth_event_ids(pdu: &Pdu) -> impl Iterator<Item = OwnedEventId> + '_ {
    let implied = pdu.implied_create_event_id().filter(|create| create != pdu.event_id());
    pdu.auth_events().iter().cloned().chain(implied)
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
