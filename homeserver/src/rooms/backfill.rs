//! Takes in what was said in a room before the oldest event that we have.
//!
//! Nobody is woken by it and no token moves: the events get positions below all others, and no place in a lane.

use std::collections::{HashMap, HashSet};

use ruma::{EventId, OwnedEventId, RoomId};

use super::{ReceiveError, RoomState, Rooms, StateEntry, receive::authorise_by_auth_events};
use crate::{
    params,
    rules::{auth, pdu::Pdu},
    storage::{
        DbError, Stmt,
        events::{self, Standing},
        rooms,
    },
};

/// Gaps that are closed at once.
const GAPS: i64 = 20;

/// One event on its way into the past.
struct Old<'a> {
    pdu: &'a Pdu,
    event_nid: i64,
    /// Whether it is stored already, without a place.
    is_outlier: bool,
    standing: Standing,
    state_nid: i64,
}

impl Rooms {
    /// The events that are missing before the oldest ones that we have; none when the history is complete.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn gaps(&self, room_id: &RoomId) -> Result<Vec<OwnedEventId>, DbError> {
        let sql = "SELECT b.event_id FROM backward_extremities b JOIN rooms r ON r.room_nid = b.room_nid \
                   WHERE r.room_id = $1 ORDER BY b.position LIMIT $2";
        let rows = self.shared.parts.db.query(sql, params![room_id.as_str(), GAPS]).await?;
        let parse =
            |text: String| text.try_into().map_err(|_| DbError::Corrupt("backward_extremities.event_id".into()));
        rows.iter().map(|row| row.get(0).and_then(parse)).collect()
    }

    /// Gives events places before all others. `pdus` come oldest first, their signatures are right, and their auth events
    /// are stored or among them; `state_before` is the state before the oldest of them, all of whose events are stored.
    /// How many were new.
    ///
    /// # Errors
    /// Those of the database and of state resolution.
    pub async fn backfill(
        &self,
        room_id: &RoomId,
        pdus: &[Pdu],
        state_before: &[OwnedEventId],
    ) -> Result<usize, ReceiveError> {
        let db = &self.shared.parts.db;
        let hot_room = self.hot(room_id);
        let hot = {
            let mut locked = self.lock(room_id, &hot_room).await?;
            locked.get().cloned().ok_or(ReceiveError::UnknownRoom)?
        };
        // State resolution reads events by id: where the batch forks, its state events have to be stored first.
        let state_events: Vec<Pdu> = pdus.iter().filter(|pdu| pdu.is_state()).cloned().collect();
        self.store_outliers(room_id, hot.room_version, &state_events).await?;
        let oldest = rooms::oldest(db, hot.room_nid).await?;
        let ids: Vec<OwnedEventId> = pdus.iter().map(|pdu| pdu.event_id().to_owned()).collect();
        let stored = events::find_by_ids(db, ids.iter().map(|id| &**id)).await?;
        let mut known = self.auth_events_of(pdus).await?;
        let mut base = self.state_of(state_before, &hot).await?;
        let mut statements = base.store(hot.room_nid, &self.shared.parts.nids).await?;
        let mut after: HashMap<OwnedEventId, RoomState> = HashMap::new();
        let mut placed = Vec::new();
        for pdu in pdus {
            let found = stored.get(pdu.event_id());
            if found.is_some_and(|event| event.position.is_some()) {
                continue;
            }
            let event_nid = self.event_nid(found).await?;
            let states: Vec<RoomState> = pdu.prev_events().iter().filter_map(|id| after.get(id)).cloned().collect();
            let mut before =
                if states.is_empty() { base.clone() } else { self.resolve(hot.room_version, states, None).await? };
            if before.state_nid == 0 {
                statements.extend(before.store(hot.room_nid, &self.shared.parts.nids).await?);
            }
            let standing = self.judge_old(pdu, &known, &before).await?;
            known.insert(pdu.event_id().to_owned(), pdu.clone().with_rejected(standing == Standing::Rejected));
            placed.push(Old { pdu, event_nid, is_outlier: found.is_some(), standing, state_nid: before.state_nid });
            if let (Some(state_key), Standing::Accepted) = (pdu.state_key(), standing) {
                before.set(pdu.event_type(), state_key, StateEntry { event_nid, event_id: pdu.event_id().to_owned() });
                before.state_nid = 0;
            }
            after.insert(pdu.event_id().to_owned(), before);
        }
        if placed.is_empty() {
            return Ok(0);
        }
        let new_oldest = oldest.saturating_sub(i64::try_from(placed.len()).unwrap_or(i64::MAX));
        for (position, old) in (new_oldest..oldest).zip(&placed) {
            statements.push(place(hot.room_nid, position, old));
            statements.push(rooms::close_gap(hot.room_nid, old.pdu.event_id()));
        }
        statements.extend(self.new_gaps(hot.room_nid, new_oldest, &placed).await?);
        let mut tx = db.begin().await?;
        let moved = tx.run(vec![rooms::move_oldest(hot.room_nid, oldest, new_oldest)]).await?;
        if moved.first().is_none_or(|outcome| outcome.affected == 0) {
            // Somebody else fetched the same; what they brought is there.
            return Ok(0);
        }
        tx.run_and_commit(statements).await?;
        Ok(placed.len())
    }

    async fn auth_events_of(&self, pdus: &[Pdu]) -> Result<HashMap<OwnedEventId, Pdu>, DbError> {
        let mut ids: Vec<OwnedEventId> = pdus
            .iter()
            .flat_map(|pdu| pdu.auth_events().iter().cloned().chain(pdu.implied_create_event_id()))
            .collect();
        ids.sort();
        ids.dedup();
        let mut known = HashMap::new();
        for chunk in ids.chunks(500) {
            let found = events::find_by_ids(&self.shared.parts.db, chunk.iter().map(|id| &**id)).await?;
            known.extend(found.into_iter().map(|(event_id, event)| (event_id, event.pdu)));
        }
        Ok(known)
    }

    /// Checks 4 and 5 on receipt; what the room thinks of it today (6) does not matter for the past.
    async fn judge_old(
        &self,
        pdu: &Pdu,
        known: &HashMap<OwnedEventId, Pdu>,
        before: &RoomState,
    ) -> Result<Standing, ReceiveError> {
        if authorise_by_auth_events(pdu, known).is_err() {
            return Ok(Standing::Rejected);
        }
        let Ok(mut keys) = auth::auth_types_of(pdu) else { return Ok(Standing::Rejected) };
        keys.push((ruma::events::StateEventType::RoomCreate, String::new()));
        // State of this batch is not stored yet; the rest is.
        let entries: Vec<&StateEntry> =
            keys.iter().filter_map(|(kind, key)| before.get(&kind.to_string(), key)).collect();
        let missing = entries.iter().filter(|entry| !known.contains_key(&entry.event_id)).map(|entry| &*entry.event_id);
        let read = events::find_by_ids(&self.shared.parts.db, missing).await?;
        let at = |kind: &ruma::events::StateEventType, key: &str| {
            let entry = before.get(&kind.to_string(), key)?;
            known.get(&entry.event_id).cloned().or_else(|| read.get(&entry.event_id).map(|event| event.pdu.clone()))
        };
        match auth::check_against_state(pdu, at) {
            Ok(()) => Ok(Standing::Accepted),
            Err(_) => Ok(Standing::Rejected),
        }
    }

    /// What is still missing before these events.
    async fn new_gaps(&self, room_nid: i64, position: i64, placed: &[Old<'_>]) -> Result<Vec<Stmt>, DbError> {
        let here: HashSet<&EventId> = placed.iter().map(|old| old.pdu.event_id()).collect();
        let named: HashSet<&OwnedEventId> = placed
            .iter()
            .flat_map(|old| old.pdu.prev_events())
            .filter(|event_id| !here.contains(&***event_id))
            .collect();
        let named: Vec<OwnedEventId> = named.into_iter().cloned().collect();
        let stored = events::find_by_ids(&self.shared.parts.db, named.iter().map(|id| &**id)).await?;
        let is_placed = |id: &OwnedEventId| stored.get(id).is_some_and(|event| event.position.is_some());
        Ok(named.iter().filter(|id| !is_placed(id)).map(|id| rooms::insert_gap(room_nid, id, position)).collect())
    }
}

fn place(room_nid: i64, position: i64, old: &Old<'_>) -> Stmt {
    if old.is_outlier {
        return Stmt::new(
            "UPDATE events SET position = $2, standing = $3, state_nid = $4 WHERE event_nid = $1 AND position IS NULL",
            params![old.event_nid, position, old.standing.number(), old.state_nid],
        );
    }
    let pdu = old.pdu;
    Stmt::new(
        "INSERT INTO events (event_nid, room_nid, event_id, position, lane, seq, depth, event_type, state_key, sender, \
         origin_server_ts, standing, state_nid, json) \
         VALUES ($1, $2, $3, $4, 0, 0, $5, $6, $7, $8, $9, $10, $11, $12)",
        params![
            old.event_nid,
            room_nid,
            pdu.event_id().as_str(),
            position,
            pdu.depth(),
            pdu.event_type(),
            pdu.state_key(),
            pdu.sender().as_str(),
            u64::from(pdu.origin_server_ts().0),
            old.standing.number(),
            old.state_nid,
            pdu.json()
        ],
    )
}
